// SPDX-License-Identifier: Apache-2.0
using VSmp.Coherence;
using VSmp.Coherence.Homes;
using VSmp.Coherence.Messages;
using VSmp.Coherence.Nodes;
using VSmp.Coherence.Placement;
using VSmp.Coherence.Protocols;
using VSmp.Coherence.Recovery;

namespace VSmp.Bench.Simulation;

/// <content>Nodes that are lost, cut off and join, and what may be lost with them.</content>
internal sealed partial class SimulatedCluster
{
    private readonly bool[] _isLost; // pages
    private readonly bool[] _mayBeLost; // in the recovery that is under way
    private readonly Unacknowledged[] _unacknowledged;
    private readonly bool[] _isMirrored = []; // extents
    private readonly HashSet<NodeId> _storeCut = [];
    private SimulatedMembership? _membership;

    /// <summary>Who is a member; null where nobody is ever lost.</summary>
    public SimulatedMembership? Membership => _membership;

    /// <summary>The node that made the region, uses it, and leads its recoveries. With it the region is gone.</summary>
    public NodeId Creator { get; private set; }

    /// <summary>Whether an extent is to have a mirror where there is room.</summary>
    public bool IsMirrored(ExtentNumber extent) => _isMirrored[extent.Value];

    /// <summary>Whether the region has gone with the node that made it.</summary>
    public bool IsRegionGone => _membership is not null && (_nodes[Creator.Value].IsDown || !_membership.IsMember(Creator));

    /// <summary>Recoveries that came to their end.</summary>
    public int Recoveries { get; private set; }

    /// <summary>Pages that were lost, as they had to be.</summary>
    public int LostPages { get; private set; }

    /// <summary>Agents that were killed.</summary>
    public int AgentsKilled { get; private set; }

    /// <summary>What of a recovery is still to be done; null if nothing is.</summary>
    public string? RecoveryUnderWay => IsRegionGone ? null : _nodes[Creator.Value].Leading;

    /// <summary>Whether a node cannot reach the store of the membership.</summary>
    public bool IsStoreCut(NodeId node) => _storeCut.Contains(node);

    /// <summary>A node that was admitted: it may be home and mirror.</summary>
    public SimulatedNode AddNode(NodeId id)
    {
        var node = new SimulatedNode(this, id, _options.Protocol, null, 1);
        _nodes.Add(node);
        return node;
    }

    /// <summary>A node dies, with all that it has.</summary>
    public void Crash(SimulatedNode node)
    {
        if (node.IsDown) return;
        Tell($"{node.Id} dies");
        node.Die();
    }

    /// <summary>The agent of a node was killed; after some time, which may be too long, there is another one.</summary>
    public void OnKilled(SimulatedNode node)
    {
        AgentsKilled++;
        Network.Stop(node.Id);
        _membership!.OnKilled(node.Id);
        After(1 + Random.Next(Random.Next(4) == 0 ? 6000 : 1500), () => _membership.Restart(node.Id));
    }

    /// <summary>What the home of a page may lawfully make of what it knows, as it freezes: lose it, or go back to what it granted.</summary>
    public void Foresee(SimulatedNode node, RecoveryPlan plan)
    {
        for (int i = 0; i < PageCount; i++)
        {
            PageNumber page = PageAt(i);
            Region region = node.Region;
            if (region.IsHome(page.Extent)) Foresee(ref region.EntryAt(page), i, plan, beginsAnew: region.IsDeaf || region.Rebuild is { IsDecided: false });
            else if (region.Mirrored.Contains(page.Extent) && plan.IsLost(region.Mirrored.HomeOf(page.Extent)))
                _mayBeLost[i] |= plan.IsAnyUserLost || region.Mirrored.At(page).Contents == MirrorContents.Unknown;
        }
    }

    /// <summary>A home says that nobody has a page any more.</summary>
    /// <exception cref="SimulationException">It need not be so.</exception>
    public void OnPageLost(SimulatedNode home, PageNumber page)
    {
        int index = IndexOf(page);
        Tell($"{home.Id}: {page} is lost");
        if (!_mayBeLost[index]) throw new SimulationException($"{page} is taken for lost at {home.Id}, and no node was lost that it must be lost with");
        foreach (SimulatedNode node in _nodes)
        {
            if (IsOut(node) || !node.IsUser) continue;
            if (NodeStates.MayRead(node.Region.PageAt(page).State)) throw new SimulationException($"{page} is taken for lost, and {node.Id} has it");
        }
        if (!_isLost[index]) LostPages++;
        _isLost[index] = true;
    }

    /// <summary>A node is told that a page is lost.</summary>
    public void OnPoisoned(SimulatedNode node, PageNumber page)
    {
        if (!_isLost[IndexOf(page)]) throw new SimulationException($"{node.Id} is told that {page} is lost, and it is not");
    }

    /// <summary>All directories are there again.</summary>
    public void OnRecovered()
    {
        Recoveries++;
        Array.Clear(_mayBeLost);
    }

    private bool IsOut(SimulatedNode node) => node.IsDown || (_membership is not null && !_membership.IsMember(node.Id));

    private void Foresee(ref DirectoryEntry entry, int i, RecoveryPlan plan, bool beginsAnew)
    {
        bool isOwnerLost = !entry.Owner.IsNone && plan.IsLost(entry.Owner);
        bool isDropped = (entry.Flags & DirectoryFlags.Dropped) != 0;
        _mayBeLost[i] |= entry.State switch
        {
            DirectoryState.M_A => ((entry.Flags & DirectoryFlags.Forwarded) != 0 && plan.IsAnyUserLost) || (isOwnerLost && isDropped),
            DirectoryState.M or DirectoryState.E or DirectoryState.O or DirectoryState.S_D => isOwnerLost,
            DirectoryState.I or DirectoryState.S => isDropped && plan.IsAnyUserLost, // it was to be recalled, and the recovery begins anew
            _ => false,
        };
        _mayBeLost[i] |= beginsAnew && plan.IsAnyUserLost;
        ref Unacknowledged write = ref _unacknowledged[i];
        if (write.Writer.IsNone || !plan.IsLost(write.Writer)) return;
        bool isUndone = entry.State == DirectoryState.M_A
            ? write.Writer == entry.Owner && write.Version == entry.Version
            : beginsAnew && entry.State is DirectoryState.I or DirectoryState.S && write.Version.Value == unchecked(entry.Version.Value + 1);
        if (!isUndone) return;
        _latest[i] = write.Before; // nobody has seen it
        write = Unacknowledged.None;
    }

    /// <summary>Whether a home may, while directories are rebuilt, take its copy for right, from which somebody was granted writing.</summary>
    private static bool MayBeBelieved(in DirectoryEntry entry, PageVersion granted) => entry.State is DirectoryState.I or DirectoryState.S
        && (entry.Flags & (DirectoryFlags.Dropped | DirectoryFlags.Forwarded)) == 0 && granted == entry.Version.Next();

    /// <summary>A grant that the home knows to be installed is not undone any more: others may have seen what was written under it.</summary>
    public void SettleAcknowledged(SimulatedNode home, in Message message)
    {
        if (_membership is null || home.Region.Rebuild is not null || home.Region.IsDeaf) return;
        for (uint p = 0; p < message.Count; p++)
        {
            PageNumber page = message.Page.Plus(p);
            ref Unacknowledged write = ref _unacknowledged[IndexOf(page)];
            if (write.Writer.IsNone || !home.Region.IsHome(page.Extent)) continue;
            ref DirectoryEntry entry = ref home.Region.EntryAt(page);
            if (entry.State != DirectoryState.M_A || entry.Owner != write.Writer || entry.Version != write.Version) write = Unacknowledged.None;
        }
    }

    /// <summary>Remembers what was there before the first write under a grant that the home does not know to be installed.</summary>
    private void NoteUnacknowledged(SimulatedNode node, PageNumber page)
    {
        if (_membership is null) return;
        foreach (SimulatedNode home in _nodes)
        {
            if (home.IsDown || !home.Region.IsHome(page.Extent)) continue;
            DirectoryEntry entry = home.EntryOfHome(page);
            ref Unacknowledged write = ref _unacknowledged[IndexOf(page)];
            PageVersion granted = node.Region.PageAt(page).Version;
            if (write.Writer == node.Id && write.Version == granted) continue;
            bool isUnacknowledged = entry.State == DirectoryState.M_A
                ? entry.Owner == node.Id
                : (home.IsKilled || home.Region.IsDeaf || home.Region.Rebuild is { IsDecided: false }) && MayBeBelieved(in entry, granted); // the acknowledgement comes too late, or has not been sent
            if (isUnacknowledged) write = new Unacknowledged(node.Id, granted, _latest[IndexOf(page)]);
        }
    }

    private void DrawRegion(HomeMap homes, bool[] isUser)
    {
        int count = isUser.Length;
        Creator = new NodeId((ushort)Random.Next(count));
        isUser[Creator.Value] = true;
        bool isPrivate = Random.Next(2) == 0;
        for (int n = 0; n < count && !isPrivate; n++) isUser[n] |= Random.Next(3) == 0;
        int mirrored = Random.Next(4); // none, some, all, all
        NodeId[] others = [.. Enumerable.Range(0, count).Where(n => !isUser[n]).Select(n => new NodeId((ushort)n))];
        for (uint e = 0; e < ExtentCount; e++)
        {
            ExtentNumber extent = new(e);
            _isMirrored[e] = mirrored > 1 || (mirrored == 1 && Random.Next(2) == 0);
            NodeId home = others.Length == 0 || (!_isMirrored[e] && Random.Next(4) == 0) ? new NodeId((ushort)Random.Next(count)) : others[Random.Next(others.Length)];
            homes.Place(extent, home);
            if (!_isMirrored[e]) continue;
            NodeId[] rest = [.. others.Where(n => n != home)];
            if (rest.Length > 0) homes.PlaceMirror(extent, rest[Random.Next(rest.Length)]);
        }
    }

    private void DrawLosses()
    {
        for (int faults = Random.Next(1, 6); faults > 0; faults--) After(200 + Random.Next((int)_options.WorkTicks - 2000), DoFault);
    }

    private void DoFault()
    {
        switch (Random.Next(Restarts ? 20 : 8))
        {
            case 0 or 1 or 2:
                Lose();
                break;
            case 3:
                Lose();
                After(Random.Next(Random.Next(2) == 0 ? 100 : 2500), Lose);
                break;
            case 4 or 5:
                CutOff([.. _nodes.Where(_ => Random.Next(4) == 0)]);
                break;
            case 6:
                CutOff([_nodes[Random.Next(_nodes.Count)]]);
                break;
            case 7:
                _membership!.Join();
                break;
            default:
                Kill();
                break;
        }
    }

    private void Lose()
    {
        if (!IsWorking) return;
        SimulatedNode node = _nodes[Random.Next(_nodes.Count)];
        if (node.Id == Creator && Random.Next(8) != 0) return;
        if (IsOut(node) || !_membership!.MayLose(node.Id)) return;
        Crash(node);
        if (Random.Next(3) != 0) After(Random.Next(4000), _membership.Join); // it comes back, as another
    }

    private void Kill()
    {
        SimulatedNode node = _nodes[Random.Next(_nodes.Count)];
        if (IsWorking && !IsOut(node) && !node.IsKilled && _membership!.IsStanding(node.Id)) node.KillSoon();
        if (IsWorking && Random.Next(2) == 0) After(Random.Next(3000), Kill);
    }

    private void CutOff(SimulatedNode[] side)
    {
        if (!IsWorking || (side.Any(n => n.Id == Creator) && Random.Next(4) != 0)) return;
        long until = Math.Min(Now + Random.Next(Random.Next(2) == 0 ? 800 : 5000), _options.WorkTicks);
        NodeId[] nodes = [.. side.Select(n => n.Id)];
        Tell($"cut off until {until}: {string.Join(' ', nodes)}");
        Network.CutOff(nodes, until);
        if (Random.Next(3) == 0) return;
        _storeCut.UnionWith(nodes);
        After(until - Now, () => _storeCut.ExceptWith(nodes));
    }

    /// <summary>Once all is quiet: one home each, at which all agree, and the mirror has what the home has.</summary>
    private void CheckRecovered()
    {
        if (_membership!.Trouble() is { } trouble && !_membership.IsOver) throw new SimulationException($"it does not settle: {trouble}");
        for (uint e = 0; e < ExtentCount && !IsRegionGone; e++)
        {
            ExtentNumber extent = new(e);
            SimulatedNode[] homes = [.. _nodes.Where(n => !IsOut(n) && n.Region.IsHome(extent))];
            if (homes.Length != 1) throw new SimulationException($"extent {e} has its home at {homes.Length} nodes: {string.Join(", ", homes.Select(h => h.Id))}");
            foreach (SimulatedNode node in _nodes.Where(n => !IsOut(n)))
            {
                if (node.Region.IsFrozen || node.Region.Rebuild is not null) throw new SimulationException($"{node.Id} stays frozen");
                if (node.IsUser && node.Region.Homes!.HomeOf(extent) != homes[0].Id)
                    throw new SimulationException($"{node.Id} takes {node.Region.Homes.HomeOf(extent)} for the home of extent {e}; it is {homes[0].Id}");
            }
            CheckMirror(homes[0], extent);
        }
    }

    private void CheckMirror(SimulatedNode home, ExtentNumber extent)
    {
        NodeId id = home.Region.MirrorOf(extent);
        if (id.IsNone)
        {
            if (IsMirrored(extent) && _nodes.FirstOrDefault(n => !IsOut(n) && !n.IsUser && n != home) is { } free && !home.IsUser)
                throw new SimulationException($"extent {extent.Value} has no mirror, and {free.Id} could be it");
            return;
        }
        SimulatedNode mirror = _nodes[id.Value];
        if (IsOut(mirror) || !mirror.Region.Mirrored.Contains(extent)) throw new SimulationException($"{home.Id} mirrors extent {extent.Value} at {id}, who does not");
        for (uint i = 0; i < PagesPerExtent; i++)
        {
            PageNumber page = extent.FirstPage.Plus(i);
            int index = IndexOf(page);
            ref MirrorEntry entry = ref mirror.Region.Mirrored.At(page);
            if (home.Region.EntryAt(page).State is not (DirectoryState.I or DirectoryState.S)) continue;
            uint? value = entry.Contents switch
            {
                MirrorContents.Zero => 0,
                MirrorContents.Data => mirror.ContentsOrNone(index),
                _ => null,
            };
            if (value != _latest[index]) throw new SimulationException($"the mirror's copy of {page} is {value}; what was written last is {_latest[index]}");
        }
    }

    /// <summary>A write under a grant that its home did not know to be installed.</summary>
    private readonly record struct Unacknowledged(NodeId Writer, PageVersion Version, uint Before)
    {
        public static Unacknowledged None => new(NodeId.None, default, 0);
    }
}
