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
/// <remarks>This file: the part of users, homes and mirrors. RecoveryServer.Leading.cs: the leader's. RecoveryServer.Returning.cs: what agents that were started
/// again still have.</remarks>
internal sealed partial class RecoveryServer
{
    /// <summary>Losses that are remembered.</summary>
    private const int MaxLosses = 1000;

    /// <summary>Of a RegionFreeze: the plan goes on in the next.</summary>
    private const ulong MorePieces = 1;

    /// <summary>Claims in a frame at most.</summary>
    private const int ClaimsPerFrame = FrameHeader.MaxPayloadBytes / Claim.Bytes;

    private readonly NodeId _self;
    private readonly Pager _pager;
    private readonly IFabric _fabric;
    private readonly Peers _peers;
    private readonly Reservations _reservations;
    private readonly HashSet<NodeId> _lost = [];
    private readonly Dictionary<NodeId, string> _names = []; // of those that are lost
    private readonly List<(NodeId From, FrameHeader Header, byte[] Plan)> _early = []; // from a view in which this node does not stand yet, or about a loss that it may not act upon yet
    private readonly List<(RegionId Region, Action Do)> _afterFreeze = []; // what was asked for after such a freeze
    private readonly Dictionary<RegionId, (Generation Generation, MemoryStream Bytes)> _pieces = []; // of plans that are not whole yet
    private readonly List<Claim> _claims = [];
    private readonly List<HomeRun> _runs = [];
    private ViewNumber _view;

    /// <summary>Makes the server of a node.</summary>
    public RecoveryServer(NodeId self, Pager pager, IFabric fabric, Peers peers, Reservations reservations)
    {
        _self = self;
        _pager = pager;
        _fabric = fabric;
        _peers = peers;
        _reservations = reservations;
        reservations.PutOffUntilFrozen = PutOffUntilFrozen;
        reservations.IsForgottenSomewhere = _forgotten.ContainsKey;
        pager.Rebuilt += OnRebuiltHere;
        pager.Removed += Forget;
    }

    /// <summary>A node is out of the view, and has stopped acting.</summary>
    public void OnNodeLost(NodeId node, string name)
    {
        _lost.Add(node);
        _names[node] = name;
        _awaited.Remove(node);
        ForgetPieces(node);
        foreach (LedRegion region in Led.ToArray())
        {
            if (!region.IsOver && (IsTouchedBy(region, node) || IsInvolved(region, node))) Begin(region);
        }
        BeginReturned();
        FreezeLate();
    }

    /// <summary>This node stands in a view.</summary>
    public void OnViewAdopted(ViewNumber view)
    {
        _view = view;
        FreezeLate();
    }

    private void FreezeLate()
    {
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

    /// <summary>A region is gone: nobody waits for its recovery.</summary>
    private void Forget(RegionId region)
    {
        _underWay.Remove(region);
        _adoptions.Remove(region);
        _reported.Remove(region);
        _early.RemoveAll(e => e.Header.Region == region);
        _pieces.Remove(region);
        _afterFreeze.RemoveAll(a => a.Region == region);
        _forgotten.Remove(region);
        _toReturn.Remove(region);
        _adopted.Remove(region);
    }

    /// <summary>A frame about a recovery.</summary>
    /// <exception cref="ProtocolViolationException">It makes no sense.</exception>
    public void OnFrame(NodeId peer, in FrameHeader header, ReadOnlySpan<byte> payload)
    {
        switch (header.Type)
        {
            case MessageType.RegionFreeze:
                RequireLeader(peer, in header);
                if (Assemble(peer, in header, payload) is { } plan && !TryFreeze(peer, in header, plan)) _early.Add((peer, header, plan));
                break;
            case MessageType.RegionFrozen:
                OnFrozen(peer, header.Region, header.Generation);
                break;
            case MessageType.RegionRebuild:
                RequireLeader(peer, in header);
                OnRebuild(in header, payload);
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
            case MessageType.RegionsHeld:
                OnHeld(peer, in header, payload);
                break;
        }
    }

    /// <returns>A plan that is whole; null: there is more to come.</returns>
    private byte[]? Assemble(NodeId leader, in FrameHeader header, ReadOnlySpan<byte> piece)
    {
        bool isLast = header.Argument0 != MorePieces;
        if (!_pieces.TryGetValue(header.Region, out (Generation Generation, MemoryStream Bytes) plan) || plan.Generation != header.Generation)
        {
            if (isLast) return piece.ToArray();
            plan = (header.Generation, new MemoryStream());
            _pieces[header.Region] = plan; // what there was of one before is void: another recovery has begun
        }
        if (plan.Bytes.Length + piece.Length > PlanFormat.MaxBytes) throw new ProtocolViolationException($"{leader} has a plan for {header.Region} without an end");
        plan.Bytes.Write(piece);
        if (!isLast) return null;
        _pieces.Remove(header.Region);
        return plan.Bytes.ToArray();
    }

    private static void RequireLeader(NodeId peer, in FrameHeader header)
    {
        if (header.Region.Creator != peer) throw new ProtocolViolationException($"{peer} leads the recovery of {header.Region}, which it has not made");
    }

    // As a user.

    /// <summary>All have frozen a region that this node uses, and does not lead: where its homes are now; then, what this node has of their pages.</summary>
    private void OnRebuild(in FrameHeader header, ReadOnlySpan<byte> payload)
    {
        if (_pager.Find(header.Region) is not { Layout.Homes: not null } region || header.Generation != Pager.GenerationOf(region)) return;
        if (!Pager.IsFrozen(region) || !HomeRuns.TryRead(payload, region.Layout.ExtentCount, _runs))
        {
            throw new ProtocolViolationException($"{header.Region} is to be rebuilt with homes that make no sense");
        }
        MoveHomes(region, _runs);
        if (header.Argument0 == 1) SendClaims(region, HomesOf(region.Layout.Homes));
    }

    /// <summary>A region that this node uses has homes elsewhere now.</summary>
    private static void MoveHomes(PagedRegion region, List<HomeRun> runs)
    {
        HomeMap homes = region.Layout.Homes!;
        foreach (HomeRun run in runs)
        {
            for (uint i = 0; i < run.Count; i++)
            {
                ExtentNumber extent = new(run.First.Value + i);
                NodeId before = homes.HomeOf(extent);
                if (before == run.Home) continue;
                homes.Place(extent, run.Home);
                region.Run!.Counters.AddHome(before, -1);
                region.Run.Counters.AddHome(run.Home, 1);
            }
        }
    }

    private static HashSet<NodeId> HomesOf(HomeMap map)
    {
        var homes = new HashSet<NodeId>();
        for (uint e = 0; e < map.ExtentCount; e++) homes.Add(map.HomeOf(new ExtentNumber(e)));
        homes.Remove(NodeId.None);
        return homes;
    }

    /// <summary>Tells homes what this node has of their pages, and each that this was all.</summary>
    private void SendClaims(PagedRegion region, IReadOnlyCollection<NodeId> to)
    {
        HomeMap homes = region.Layout.Homes!;
        Generation generation = Pager.GenerationOf(region);
        var ofHome = new Dictionary<NodeId, List<Claim>>();
        for (uint e = 0; e < region.Layout.ExtentCount; e++)
        {
            ExtentNumber extent = new(e);
            NodeId home = homes.HomeOf(extent);
            if (home.IsNone || !region.Layout.IsOpen(extent)) continue;
            if (!ofHome.TryGetValue(home, out List<Claim>? claims)) ofHome.Add(home, claims = []);
            Pager.ListClaims(region, extent, claims);
        }
        foreach (NodeId home in to)
        {
            if (home != _self) SendClaims(home, region.Id, generation, CollectionsMarshal.AsSpan(ofHome.GetValueOrDefault(home)));
        }
        if (!to.Contains(_self)) return;
        if (Pager.IsRebuilding(region)) _pager.OnClaims(region, _self, CollectionsMarshal.AsSpan(ofHome.GetValueOrDefault(_self)), isLast: true);
        else if (_underWay.TryGetValue(region.Id, out LedRecovery? recovery)) OnRebuilt(_self, recovery, generation);
    }

    private void SendClaims(NodeId to, RegionId region, Generation generation, ReadOnlySpan<Claim> claims)
    {
        do
        {
            ReadOnlySpan<Claim> part = claims[..Math.Min(claims.Length, ClaimsPerFrame)];
            claims = claims[part.Length..];
            Span<byte> room = _fabric.Begin(to, part.Length * Claim.Bytes);
            for (int i = 0; i < part.Length; i++) part[i].Write(room[(i * Claim.Bytes)..]);
            _fabric.Commit(NewHeader(MessageType.RegionClaims, region, generation) with { Argument0 = claims.IsEmpty ? 1ul : 0 });
        }
        while (!claims.IsEmpty);
    }

    // As a home, or a mirror.

    /// <returns>
    /// False if this node has not heard yet that the nodes are lost, for not before that may it act upon it; or that an agent was started again, for what it told that
    /// one now would go to the one before.
    /// </returns>
    private bool TryFreeze(NodeId leader, in FrameHeader header, byte[] bytes)
    {
        RecoveryPlan plan = PlanFormat.Read(bytes) ?? throw new ProtocolViolationException($"{leader} has a plan for {header.Region} that makes no sense");
        if (header.View.Value > _view.Value) return false;
        foreach (NodeId lost in plan.Lost.Except(plan.Forgetful))
        {
            if (lost == _self || _peers.Find(lost) is not null) return false;
        }
        if (_pager.Find(header.Region) is { } region && header.Generation.Value > Pager.GenerationOf(region).Value)
        {
            Freeze(region, header.Generation, plan);
        }
        Send(leader, MessageType.RegionFrozen, header.Region, header.Generation, []);
        return true;
    }

    private void Freeze(PagedRegion region, Generation generation, RecoveryPlan plan)
    {
        if (region is { IsShared: true, Layout.Homes: { } homes })
        {
            // For whoever touches what turns out to be lost.
            var names = new SortedSet<string>(region.LostWith.Split(", ", StringSplitOptions.RemoveEmptyEntries), StringComparer.Ordinal);
            names.UnionWith(plan.Lost.Intersect(HomesOf(homes)).Select(NameOfLost));
            region.LostWith = string.Join(", ", names);
        }
        _pager.Freeze(region, generation, plan);
    }

    private string NameOfLost(NodeId node) => _names.TryGetValue(node, out string? name) ? name : _peers.NameOf(node);

    private void OnClaims(NodeId from, in FrameHeader header, ReadOnlySpan<byte> payload)
    {
        PagedRegion? region = _pager.Find(header.Region);
        // Another recovery has begun, or has to: of an adopted home that was killed over this one.
        if (region is not null && (header.Generation != Pager.GenerationOf(region) || Pager.IsDeaf(region))) return;
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
        else if (_underWay.TryGetValue(region.Id, out LedRecovery? recovery))
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
}

/// <summary>Memory that was lost for good.</summary>
/// <param name="Region">The region's name.</param>
/// <param name="ProcessId">Whose it was.</param>
/// <param name="Program">What that runs.</param>
/// <param name="Nodes">Names of the nodes that it was lost with.</param>
/// <param name="Pages">Which pages, in ascending order.</param>
internal sealed record LostMemory(string Region, int ProcessId, string Program, string Nodes, IReadOnlyList<PageNumber> Pages);
