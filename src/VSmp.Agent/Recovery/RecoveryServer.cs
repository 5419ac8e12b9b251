// SPDX-License-Identifier: Apache-2.0
using System.Runtime.InteropServices;
using VSmp.Agent.Fabric;
using VSmp.Agent.Guests;
using VSmp.Agent.Paging;
using VSmp.Coherence;
using VSmp.Coherence.Messages;
using VSmp.Coherence.Placement;
using VSmp.Coherence.Recovery;
using ProtocolViolationException = VSmp.Coherence.ProtocolViolationException;

namespace VSmp.Agent.Recovery;

/// <summary>
/// Brings regions back after a node was lost: leads for those that were made here, takes part for the others. The protocol is
/// <see cref="RecoveryController"/>'s and <see cref="RecoveryLeader"/>'s; here it meets the fabric. Owned by the reactor.
/// </summary>
internal sealed class RecoveryServer
{
    /// <summary>Losses that are remembered.</summary>
    private const int MaxLosses = 1000;

    /// <summary>Claims in a frame at most.</summary>
    private const int ClaimsPerFrame = FrameHeader.MaxPayloadBytes / Claim.Bytes;

    private readonly NodeId _self;
    private readonly Pager _pager;
    private readonly IFabric _fabric;
    private readonly Peers _peers;
    private readonly Reservations _reservations;
    private readonly Dictionary<RegionId, LedRecovery> _led = [];
    private readonly HashSet<NodeId> _lost = [];
    private readonly Dictionary<NodeId, string> _names = []; // of those that are lost
    private readonly List<(NodeId From, FrameHeader Header, byte[] Plan)> _early = []; // about a loss that this node has not heard of yet
    private readonly List<(RegionId Region, Action Do)> _afterFreeze = []; // what was asked for after such a freeze
    private readonly List<Claim> _claims = [];
    private readonly Dictionary<RegionId, int> _adoptions = []; // answers that are out of nodes that are to be homes of what has none

    /// <summary>Makes the server of a node.</summary>
    public RecoveryServer(NodeId self, Pager pager, IFabric fabric, Peers peers, Reservations reservations)
    {
        _self = self;
        _pager = pager;
        _fabric = fabric;
        _peers = peers;
        _reservations = reservations;
        reservations.PutOffUntilFrozen = PutOffUntilFrozen;
        pager.Rebuilt += OnRebuiltHere;
        pager.Removed += Forget;
    }

    /// <summary>Raised when a region that was made here has been recovered.</summary>
    public event Action<PagedRegion>? Recovered;

    /// <summary>Raised before a region that was made here is frozen: what is being moved or copied is void.</summary>
    public event Action<PagedRegion>? Interrupting;

    /// <summary>Whether a node has to do with a region in a way that its home map does not know of.</summary>
    public Func<PagedRegion, NodeId, bool> IsInvolved { get; set; } = (_, _) => false;

    /// <summary>What has been lost for good since the start.</summary>
    public List<LostMemory> Losses { get; } = [];

    /// <summary>A node is out of the view, and has stopped acting.</summary>
    public void OnNodeLost(NodeId node, string name)
    {
        _lost.Add(node);
        _names[node] = name;
        foreach (PagedRegion region in _pager.Regions.Where(IsLedHere).ToArray())
        {
            if (IsTouchedBy(region, node) || IsInvolved(region, node)) Begin(region);
        }
        foreach ((NodeId from, FrameHeader header, byte[] plan) in _early.ToArray())
        {
            if (!TryFreeze(from, in header, plan)) continue;
            _early.RemoveAll(e => e.Header.Region == header.Region && e.Header.Generation == header.Generation);
        }
        foreach ((RegionId Region, Action Do) late in _afterFreeze.ToArray())
        {
            if (!IsFreezeAwaited(late.Region) && _afterFreeze.Remove(late)) late.Do();
        }
    }

    private bool IsFreezeAwaited(RegionId region) => _early.Exists(e => e.Header.Region == region);

    private bool PutOffUntilFrozen(RegionId region, Action action)
    {
        if (!IsFreezeAwaited(region)) return false;
        _afterFreeze.Add((region, action));
        return true;
    }

    /// <summary>Whether homes of a region can be moved now: its directories are there, and nothing is being done about a loss.</summary>
    public bool IsQuiet(PagedRegion region) => IsLedHere(region) && !Pager.IsFrozen(region) && !_led.ContainsKey(region.Id) && !_adoptions.ContainsKey(region.Id);

    /// <summary>
    /// Extents and their mirrors change places: the mirrors become the homes, and the homes the mirrors. It is a recovery like any other, though nobody is
    /// lost; if somebody is meanwhile, it is one more.
    /// </summary>
    /// <param name="region">A region that was made here, and is quiet; each extent has a mirror that has all.</param>
    /// <param name="extents">Which, ascending.</param>
    public void SwapHomes(PagedRegion region, IReadOnlyList<ExtentNumber> extents)
    {
        HomeMap homes = region.Layout.Homes!;
        var moves = new List<HomeMove>();
        foreach (ExtentNumber extent in extents)
        {
            NodeId from = homes.HomeOf(extent), to = homes.MirrorOf(extent);
            homes.Place(extent, to);
            homes.PlaceMirror(extent, from);
            region.Run!.Counters.AddHome(from, -1);
            region.Run.Counters.AddHome(to, 1);
            bool isNext = moves.Count > 0 && moves[^1] is var last && last.Home == to && last.Mirror == from && last.First.Value + last.Count == extent.Value;
            if (isNext) moves[^1] = moves[^1] with { Count = moves[^1].Count + 1 };
            else moves.Add(new HomeMove(extent, 1, to, from));
        }
        Begin(region, moves);
    }

    /// <summary>A region is gone: nobody waits for its recovery.</summary>
    private void Forget(RegionId region)
    {
        _led.Remove(region);
        _adoptions.Remove(region);
        _early.RemoveAll(e => e.Header.Region == region);
        _afterFreeze.RemoveAll(a => a.Region == region);
    }

    /// <summary>A frame about a recovery.</summary>
    /// <exception cref="ProtocolViolationException">It makes no sense.</exception>
    public void OnFrame(NodeId peer, in FrameHeader header, ReadOnlySpan<byte> payload)
    {
        switch (header.Type)
        {
            case MessageType.RegionFreeze:
                RequireLeader(peer, in header);
                byte[] plan = payload.ToArray();
                if (!TryFreeze(peer, in header, plan)) _early.Add((peer, header, plan));
                break;
            case MessageType.RegionFrozen:
                OnFrozen(peer, header.Region, header.Generation);
                break;
            case MessageType.RegionClaims:
                OnClaims(peer, in header, payload);
                break;
            case MessageType.RegionRebuilt:
                OnRebuilt(peer, in header, payload);
                break;
            case MessageType.RegionThaw:
                RequireLeader(peer, in header);
                if (_pager.Find(header.Region) is { } region && Pager.GenerationOf(region) == header.Generation) _pager.Thaw(region);
                break;
        }
    }

    private static void RequireLeader(NodeId peer, in FrameHeader header)
    {
        if (header.Region.Creator != peer) throw new ProtocolViolationException($"{peer} leads the recovery of {header.Region}, which it has not made");
    }

    /// <summary>Of ranks' regions, their jobs decide: without one of its nodes a job ends.</summary>
    private bool IsLedHere(PagedRegion region) => region is { Run.Job: null, Layout.Homes: not null } && region.Id.Creator == _self;

    private bool IsTouchedBy(PagedRegion region, NodeId node)
    {
        if (_led.TryGetValue(region.Id, out LedRecovery? recovery) && recovery.Participants.Contains(node)) return true;
        HomeMap homes = region.Layout.Homes!;
        for (uint e = 0; e < region.Layout.ExtentCount; e++)
        {
            ExtentNumber extent = new(e);
            if (homes.HomeOf(extent) == node || homes.MirrorOf(extent) == node) return true;
        }
        return false;
    }

    // Leading.

    private void Begin(PagedRegion region)
    {
        if (_adoptions.ContainsKey(region.Id)) return; // when the answers are there
        Interrupting?.Invoke(region);
        if (FindHomesForOrphans(region)) return;
        region.Run!.HasLostNode = true;
        Begin(region, []);
    }

    private void Begin(PagedRegion region, IReadOnlyList<HomeMove> moves)
    {
        Guest? guest = GuestOf(region);
        var participants = new HashSet<NodeId> { _self };
        if (guest is not null) participants.UnionWith(_reservations.AskedFor(guest));
        string[] names = [.. _names.Where(n => IsTouchedBy(region, n.Key)).Select(n => n.Value)];
        MoveHomes(region, participants);
        participants.RemoveWhere(_lost.Contains);
        Generation before = _led.TryGetValue(region.Id, out LedRecovery? earlier) ? earlier.Leader.Generation : Pager.GenerationOf(region);
        var recovery = new LedRecovery(region, earlier?.Leader ?? new RecoveryLeader(), [.. participants], Reactor.Clock());
        recovery.Lost.UnionWith(earlier?.Lost ?? []);
        recovery.Lost.UnionWith(names);
        // What was moving moves on, unless one of the two is lost: then the other is the home, as after any loss.
        recovery.Moves.AddRange(moves);
        recovery.Moves.AddRange(earlier?.Moves.Where(m => !_lost.Contains(m.Home) && !_lost.Contains(m.Mirror)) ?? []);
        _led[region.Id] = recovery;
        recovery.Leader.Begin(before.Next(), participants, participants);
        string why = names.Length > 0 ? $"{string.Join(", ", names)} lost" : $"{recovery.Moves.Sum(m => m.Count)} extents get another home";
        Log.Info($"recovery of {region.Layout.Name}: {why}; {participants.Count - 1} other nodes take part");
        var plan = new RecoveryPlan([.. _lost], [_self], IsAnyUserLost: false) { Moves = recovery.Moves };
        byte[] bytes = PlanFormat.Write(plan);
        foreach (NodeId participant in participants)
        {
            if (participant != _self) Send(participant, MessageType.RegionFreeze, recovery, bytes);
        }
        _pager.Freeze(region, recovery.Leader.Generation, plan);
        OnFrozen(_self, region.Id, recovery.Leader.Generation);
    }

    private static Guest? GuestOf(PagedRegion region) => region.Mappings.Select(m => m.Guest).FirstOrDefault();

    /// <summary>
    /// Extents whose home is lost, and which have no mirror, need a home all the same: what this node has of their pages must be able to go somewhere. A
    /// node with room becomes their mirror, of which nothing is known; then all goes as with any mirror.
    /// </summary>
    /// <returns>Whether somebody was asked: the recovery begins when all have answered.</returns>
    private bool FindHomesForOrphans(PagedRegion region)
    {
        HomeMap homes = region.Layout.Homes!;
        for (uint e = 0; e < region.Layout.ExtentCount;)
        {
            ExtentNumber first = new(e);
            NodeId home = homes.HomeOf(first);
            uint count = 0;
            while (e + count < region.Layout.ExtentCount && IsOrphan(homes, new ExtentNumber(e + count), home)) count++;
            e += Math.Max(count, 1);
            if (count == 0) continue;
            NodeId adopter = _peers.Roomiest(_lost, ask: false, otherThan: home);
            if (adopter.IsNone)
            {
                _adoptions.Remove(region.Id);
                GuestOf(region)?.Kill($"node {_names[home]} is lost, and with it memory of the process; no other node has room for what is left of that");
                return true;
            }
            count = (uint)Math.Min(count, Math.Max(1, _peers.Find(adopter)!.FreeExtents));
            e = first.Value + count;
            _adoptions[region.Id] = _adoptions.GetValueOrDefault(region.Id) + 1;
            _reservations.AskLateMirror(region, adopter, home, first, count, granted => OnAdopted(region, adopter, first, count, granted));
        }
        return _adoptions.ContainsKey(region.Id);
    }

    private bool IsOrphan(HomeMap homes, ExtentNumber extent, NodeId home) => !home.IsNone && homes.HomeOf(extent) == home && _lost.Contains(home)
        && (homes.MirrorOf(extent) is var mirror && (mirror.IsNone || _lost.Contains(mirror)));

    private void OnAdopted(PagedRegion region, NodeId adopter, ExtentNumber first, uint count, bool granted)
    {
        if (_pager.Find(region.Id) != region) return; // dropped, there as well
        if (!_adoptions.ContainsKey(region.Id))
        {
            if (granted) _reservations.ReleaseMirror(region, adopter, first, count); // somebody else had no room
            return;
        }
        HomeMap homes = region.Layout.Homes!;
        for (uint i = 0; i < count && granted; i++)
        {
            ExtentNumber extent = new(first.Value + i);
            if (IsOrphan(homes, extent, homes.HomeOf(extent))) homes.PlaceMirror(extent, adopter);
            else _reservations.ReleaseMirror(region, adopter, extent, 1);
        }
        if (--_adoptions[region.Id] > 0) return;
        _adoptions.Remove(region.Id);
        Begin(region); // looks again: who refused has said how much room there is
    }

    /// <summary>Mirrors of what is lost become homes.</summary>
    private void MoveHomes(PagedRegion region, HashSet<NodeId> participants)
    {
        HomeMap homes = region.Layout.Homes!;
        for (uint e = 0; e < region.Layout.ExtentCount; e++)
        {
            ExtentNumber extent = new(e);
            NodeId home = homes.HomeOf(extent), mirror = homes.MirrorOf(extent);
            if (home.IsNone) continue;
            if (_lost.Contains(mirror))
            {
                mirror = NodeId.None;
                homes.PlaceMirror(extent, mirror);
            }
            if (_lost.Contains(home))
            {
                homes.Place(extent, mirror);
                homes.PlaceMirror(extent, NodeId.None);
                region.Run!.Counters.AddHome(home, -1);
                region.Run.Counters.AddHome(mirror, 1);
                (home, mirror) = (mirror, NodeId.None);
            }
            participants.Add(home);
            if (!mirror.IsNone) participants.Add(mirror);
        }
    }

    private void OnFrozen(NodeId node, RegionId id, Generation generation)
    {
        if (!_led.TryGetValue(id, out LedRecovery? recovery) || !recovery.Leader.OnFrozen(node, generation)) return;
        recovery.FrozenMicroseconds = Reactor.Clock();
        SendClaims(recovery);
    }

    private void OnRebuilt(NodeId peer, in FrameHeader header, ReadOnlySpan<byte> payload)
    {
        if (!_led.TryGetValue(header.Region, out LedRecovery? recovery) || recovery.Leader.Generation != header.Generation) return;
        recovery.LostPages.AddRange(PageRuns.Read(payload, recovery.Region.Layout.PageCount));
        if (header.Argument0 == 0) return; // more to come
        OnRebuilt(peer, recovery, header.Generation);
    }

    private void OnRebuilt(NodeId node, LedRecovery recovery, Generation generation)
    {
        if (!recovery.Leader.OnRebuilt(node, generation)) return;
        foreach (NodeId participant in recovery.Participants)
        {
            if (participant != _self) Send(participant, MessageType.RegionThaw, recovery, []);
        }
        PagedRegion region = recovery.Region;
        _led.Remove(region.Id);
        _pager.Thaw(region);
        long now = Reactor.Clock();
        int lost = recovery.LostPages.Count;
        if (lost > 0 && recovery.Lost.Count > 0) Report(region, recovery);
        string outcome = lost == 0 ? "nothing is lost" : $"{lost} pages are lost (vsmp report lost)";
        Log.Info($"recovery of {region.Layout.Name}: done in {(now - recovery.StartedMicroseconds) / 1000.0:0.0} ms"
            + $" (frozen after {(recovery.FrozenMicroseconds - recovery.StartedMicroseconds) / 1000.0:0.0}), generation {generation.Value}; {outcome}");
        _reservations.OnThawed(region);
        Recovered?.Invoke(region);
    }

    private void Report(PagedRegion region, LedRecovery recovery)
    {
        Guest? guest = GuestOf(region);
        region.LostWith = string.Join(", ", recovery.Lost);
        if (Losses.Count == MaxLosses) Losses.RemoveAt(0);
        Losses.Add(new LostMemory(region.Layout.Name, guest?.ProcessId ?? 0, region.Run!.Request.Program, region.LostWith, [.. recovery.LostPages]));
        guest?.Tell($"with node {region.LostWith} {Math.Max(1, recovery.LostPages.Count >> 8)} MiB of process {guest.ProcessId}'s memory are lost; it goes on, "
            + "and gets SIGBUS if it touches them (vsmp report lost)");
    }

    // As a user.

    /// <summary>Tells every home what this node has, and everybody that this was all.</summary>
    private void SendClaims(LedRecovery recovery)
    {
        PagedRegion region = recovery.Region;
        HomeMap homes = region.Layout.Homes!;
        var mine = new List<Claim>();
        var ofHome = new Dictionary<NodeId, List<Claim>>();
        for (uint e = 0; e < region.Layout.ExtentCount; e++)
        {
            ExtentNumber extent = new(e);
            NodeId home = homes.HomeOf(extent);
            if (home.IsNone || !region.Layout.IsOpen(extent)) continue;
            List<Claim>? claims = mine;
            if (home != _self && !ofHome.TryGetValue(home, out claims)) ofHome.Add(home, claims = []);
            Pager.ListClaims(region, extent, claims!);
        }
        foreach (NodeId participant in recovery.Participants)
        {
            if (participant == _self) continue;
            SendClaims(participant, recovery, CollectionsMarshal.AsSpan(ofHome.GetValueOrDefault(participant)));
        }
        if (Pager.IsRebuilding(region)) _pager.OnClaims(region, _self, CollectionsMarshal.AsSpan(mine), isLast: true);
        else OnRebuilt(_self, recovery, recovery.Leader.Generation);
    }

    private void SendClaims(NodeId to, LedRecovery recovery, ReadOnlySpan<Claim> claims)
    {
        do
        {
            ReadOnlySpan<Claim> part = claims[..Math.Min(claims.Length, ClaimsPerFrame)];
            claims = claims[part.Length..];
            Span<byte> room = _fabric.Begin(to, part.Length * Claim.Bytes);
            for (int i = 0; i < part.Length; i++) part[i].Write(room[(i * Claim.Bytes)..]);
            _fabric.Commit(NewHeader(MessageType.RegionClaims, recovery.Region.Id, recovery.Leader.Generation) with { Argument0 = claims.IsEmpty ? 1ul : 0 });
        }
        while (!claims.IsEmpty);
    }

    // As a home, or a mirror.

    /// <returns>False if this node has not heard yet that the nodes are lost: not before that may it act upon it.</returns>
    private bool TryFreeze(NodeId leader, in FrameHeader header, byte[] bytes)
    {
        RecoveryPlan plan = PlanFormat.Read(bytes) ?? throw new ProtocolViolationException($"{leader} has a plan for {header.Region} that makes no sense");
        foreach (NodeId lost in plan.Lost)
        {
            if (lost == _self || _peers.Find(lost) is not null) return false;
        }
        if (_pager.Find(header.Region) is { } region && header.Generation.Value > Pager.GenerationOf(region).Value)
        {
            _pager.Freeze(region, header.Generation, plan);
        }
        Send(leader, MessageType.RegionFrozen, header.Region, header.Generation, []);
        return true;
    }

    private void OnClaims(NodeId from, in FrameHeader header, ReadOnlySpan<byte> payload)
    {
        PagedRegion? region = _pager.Find(header.Region);
        if (region is not null && header.Generation != Pager.GenerationOf(region)) return; // another recovery has begun
        if (region is null || !Pager.IsRebuilding(region))
        {
            if (header.Argument0 == 1) SendRebuilt(header.Region, header.Generation, []); // it was no home when it froze
            return;
        }
        _claims.Clear();
        if (payload.Length % Claim.Bytes != 0) throw new ProtocolViolationException($"{from} claims {payload.Length} bytes");
        for (; !payload.IsEmpty; payload = payload[Claim.Bytes..])
        {
            if (!Claim.TryRead(payload, out Claim claim) || claim.Page.Value + claim.Count > region.Layout.PageCount)
            {
                throw new ProtocolViolationException($"{from} claims what makes no sense of {header.Region}");
            }
            _claims.Add(claim);
        }
        _pager.OnClaims(region, from, CollectionsMarshal.AsSpan(_claims), header.Argument0 == 1);
    }

    private void OnRebuiltHere(PagedRegion region)
    {
        Generation generation = Pager.GenerationOf(region);
        if (region.Id.Creator != _self)
        {
            SendRebuilt(region.Id, generation, region.LostHere);
        }
        else if (_led.TryGetValue(region.Id, out LedRecovery? recovery))
        {
            recovery.LostPages.AddRange(region.LostHere);
            OnRebuilt(_self, recovery, generation);
        }
    }

    private void SendRebuilt(RegionId region, Generation generation, List<PageNumber> lost)
    {
        foreach (byte[] piece in PageRuns.Write(lost)) Send(region.Creator, MessageType.RegionRebuilt, region, generation, piece);
        _fabric.Begin(region.Creator, 0);
        _fabric.Commit(NewHeader(MessageType.RegionRebuilt, region, generation) with { Argument0 = 1 });
    }

    private void Send(NodeId to, MessageType type, LedRecovery recovery, ReadOnlySpan<byte> payload) =>
        Send(to, type, recovery.Region.Id, recovery.Leader.Generation, payload);

    private void Send(NodeId to, MessageType type, RegionId region, Generation generation, ReadOnlySpan<byte> payload)
    {
        payload.CopyTo(_fabric.Begin(to, payload.Length));
        _fabric.Commit(NewHeader(type, region, generation));
    }

    private FrameHeader NewHeader(MessageType type, RegionId region, Generation generation) => new()
    {
        Type = type,
        Requestor = _self,
        Network = MessageTypes.NetworkOf(type),
        Region = region,
        Generation = generation,
    };

    private sealed class LedRecovery(PagedRegion region, RecoveryLeader leader, NodeId[] participants, long startedMicroseconds)
    {
        public PagedRegion Region { get; } = region;
        public RecoveryLeader Leader { get; } = leader;
        public NodeId[] Participants { get; } = participants;
        public SortedSet<string> Lost { get; } = new(StringComparer.Ordinal);
        public List<PageNumber> LostPages { get; } = [];
        public List<HomeMove> Moves { get; } = [];
        public long StartedMicroseconds { get; } = startedMicroseconds;
        public long FrozenMicroseconds { get; set; }
    }
}

/// <summary>Memory that was lost for good.</summary>
/// <param name="Region">The region's name.</param>
/// <param name="ProcessId">Whose it was.</param>
/// <param name="Program">What that runs.</param>
/// <param name="Nodes">Names of the nodes that it was lost with.</param>
/// <param name="Pages">Which pages, in ascending order.</param>
internal sealed record LostMemory(string Region, int ProcessId, string Program, string Nodes, IReadOnlyList<PageNumber> Pages);
