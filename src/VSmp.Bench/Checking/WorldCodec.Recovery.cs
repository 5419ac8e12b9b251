// SPDX-License-Identifier: Apache-2.0
using VSmp.Coherence;
using VSmp.Coherence.Homes;
using VSmp.Coherence.Messages;
using VSmp.Coherence.Nodes;
using VSmp.Coherence.Placement;
using VSmp.Coherence.Protocols;
using VSmp.Coherence.Recovery;

namespace VSmp.Bench.Checking;

// What there is more to worlds in which nodes are lost. Every node has its own part in it there: none stands for another.
internal sealed partial class WorldCodec
{
    /// <summary>Stands for the version that is newer than any.</summary>
    private const byte LastRank = 255;

    private readonly bool _isOrdered;
    private readonly List<Flight> _fresh = [];

    /// <summary>Whether versions are from now on compared for equality only, and everything is as where no node is lost.</summary>
    private bool _isSettled;

    /// <summary>
    /// When directories are rebuilt, versions of a page are compared for which is higher, and counted down by one or two. So what matters is
    /// their order, 0 among them, and which of them are neighbours, or nearly.
    /// </summary>
    private byte RankOf(int page, PageVersion version)
    {
        if (version.Value == uint.MaxValue) return LastRank;
        byte rank = 0;
        uint last = 0;
        foreach (uint v in _versions[page])
        {
            if (v == last) continue;
            if (v > version.Value) break;
            rank += (byte)Math.Min(v - last, 3);
            last = v;
        }
        return last == version.Value ? rank : throw new InvalidOperationException($"version {version.Value} of page {page} was overlooked");
    }

    private bool IsLive(NodeState state) => !_isOrdered || _isSettled
        ? _liveness.IsLive(state)
        : state is not (NodeState.I or NodeState.IS_D or NodeState.IS_D_I or NodeState.IM_AD or NodeState.IM_A or NodeState.ZI_A) || _liveness.IsLive(state);

    private bool IsLive(MessageType type) => !_isOrdered || _isSettled
        ? _liveness.IsLive(type)
        : type is not (MessageType.Inv or MessageType.InvAck or MessageType.FwdGetS or MessageType.WritebackAck or MessageType.PutAck or MessageType.Nack
            or MessageType.Writeback or MessageType.WritebackClean or MessageType.PutZ or MessageType.Poisoned or MessageType.Recall) || _liveness.IsLive(type);

    private void RankVersions()
    {
        foreach (List<uint> versions in _versions) versions.Clear();
        for (int node = 0; node < _world.Scenario.Nodes; node++) Collect(node);
        for (int wire = 0; wire < _world.Wires.Length; wire++)
        {
            foreach (Flight flight in _world.Wires[wire]) Collect(flight.Message);
        }
        foreach (List<uint> versions in _versions) versions.Sort();
    }

    private void Collect(int node)
    {
        Region region = _world.Regions[node];
        for (int p = 0; p < _world.Scenario.Pages; p++)
        {
            PageNumber page = new((ulong)p);
            if (region.IsHome(World.Extent))
            {
                Collect(p, region.EntryAt(page).Version);
                _queue.Clear();
                _world.Homes[node].Waiting.CopyTo(World.RegionId, page, _queue);
                foreach (Message m in _queue) Collect(in m);
            }
            if (region.Mirrored.IsTouched(World.Extent)) Collect(p, region.Mirrored.At(page).Version);
            if (region.Rebuild is { } rebuild && rebuild.Kept.TryGetValue(page, out var kept)) Collect(p, kept.Version);
            if (!_world.IsUsing(node)) continue;
            ref PageEntry entry = ref region.PageAt(page);
            if (IsLive(entry.State)) Collect(p, entry.Version);
            if (entry.Slot != 0) Collect(p, _world.Nodes[node].Transactions[entry.Slot].Version);
        }
        foreach (Message m in _world.Nodes[node].Parked) Collect(in m);
    }

    private void Collect(in Message m)
    {
        if (!IsLive(m.Type)) return;
        for (uint i = 0; i < Math.Max(1, m.Count); i++) Collect((int)(m.Page.Value + i), m.Version);
    }

    private void Collect(int page, PageVersion version)
    {
        if (version.Value != uint.MaxValue) _versions[page].Add(version.Value);
    }

    /// <summary>What a controller will drop when it comes, since it belongs to an older generation, may as well be gone.</summary>
    private List<Flight> WithoutStale(List<Flight> wire, int to)
    {
        if ((_world.Scenario.Planted?.World & WorldBugs.OldGenerationServed) is not null and not 0) return wire;
        uint generation = _world.Regions[to].Generation.Value;
        if (generation == 0) return wire;
        _fresh.Clear();
        foreach (Flight flight in wire)
        {
            if (World.IsControl(flight.Message.Type) || flight.Message.Generation.Value >= generation) _fresh.Add(flight);
        }
        return _fresh;
    }

    private void WriteRecovery(byte[] order)
    {
        Scenario scenario = _world.Scenario;
        _isSettled = _world.IsSettled;
        RankVersions();
        Put((byte)_world.Lost);
        Put((byte)_world.KnownLost);
        Put((byte)(_world.Restarted | _world.Restarts << 4));
        RecoveryLeader leader = _world.Leader;
        Put((byte)(_world.BeingRecovered | (int)leader.Phase << 5));
        Put((byte)leader.Generation.Value);
        Put((byte)(World.MaskOf(leader.Awaited) | World.MaskOf(leader.Homes) << 4));
        Put((byte)((_world.MirrorNode + 1 ?? 0) | (_world.MovingTo + 1 ?? 0) << 4));
        Put((byte)(_world.HomeMovesDone | (_world.IsMirrorComplete ? 16 : 0)));
        if (scenario.IsMirrorLate) Put((byte)_world.CopiedPages);
        for (int page = 0; page < scenario.Pages; page++)
        {
            bool mayBeLost = _world.MayBeLost[page] && _world.IsRecovering;
            Put((byte)((_world.LatestIsZero[page] ? 1 : 0) | (mayBeLost ? 2 : 0) | (_world.PriorIsZero[page] ? 4 : 0) | _world.UnackedWriter[page] << 4));
        }
        for (int node = 0; node < scenario.Nodes; node++)
        {
            if (!_world.IsLost(node)) WritePart(node, order);
        }
    }

    private void WritePart(int node, byte[] order)
    {
        Region region = _world.Regions[node];
        bool isHome = region.IsHome(World.Extent), isMirror = region.Mirrored.Contains(World.Extent);
        Put((byte)((isHome ? 1 : 0) | (isMirror ? 2 : 0) | (region.IsFrozen ? 4 : 0) | (region.Rebuild is not null ? 8 : 0) | (region.IsDeaf ? 16 : 0)
            | (region.UndecidedHomes.Count > 0 ? 32 : 0)));
        Put((byte)region.Generation.Value);
        Put(region.Homes is { } homes ? Name(homes.HomeOf(World.Extent), order) : (byte)0);
        for (int page = 0; page < _world.Scenario.Pages; page++)
        {
            PageNumber at = new((ulong)page);
            if (isHome)
            {
                if (page == 0) Put(Name(region.MirrorOf(World.Extent), order));
                if (page == 0 && _world.Scenario.IsMirrorLate) Put((byte)region.MirrorCopiesOut);
                WriteDirectory(page, node, order);
            }
            if (isMirror)
            {
                if (page == 0) Put(Name(region.Mirrored.HomeOf(World.Extent), order));
                MirrorEntry entry = region.Mirrored.IsTouched(World.Extent) ? region.Mirrored.At(at) : new MirrorEntry { Contents = MirrorContents.Zero };
                Put((byte)entry.Contents);
                Put(RankOf(page, entry.Version));
            }
            // Of those who use pages it is written with the rest of what they have.
            if (!_world.IsUsing(node)) Put((byte)ContentsOf(_world.FrameOf(node, page), page));
            Put(region.FrozenPages.Contains(at) ? (byte)1 : (byte)0);
            if (region.Rebuild is { } rebuild) WriteRebuild(rebuild, page, order);
        }
        if (region.Rebuild is null) return;
        Put((byte)World.MaskOf(_world.Recoveries[node].SilentAbout(World.RegionId)));
        Put((byte)((region.Rebuild.IsDecided ? 128 : 0) | region.Rebuild.AnswersOut));
    }

    private void WriteRebuild(DirectoryRebuild rebuild, int page, byte[] order)
    {
        PageNumber at = new((ulong)page);
        // Once it is decided, nobody looks at what led to it.
        bool isOpen = !rebuild.IsDecided;
        bool isKept = rebuild.Kept.TryGetValue(at, out var kept) && isOpen, isRead = rebuild.Readers.TryGetValue(at, out var readers) && isOpen;
        Put((byte)((isKept ? 1 : 0) | (isRead ? 2 : 0) | (readers.AreSeveral ? 4 : 0) | (rebuild.ThrownAway.Contains(at) && isOpen ? 8 : 0)));
        if (isKept)
        {
            Put(Name(kept.Node, order));
            Put(RankOf(page, kept.Version));
        }
        if (isRead) Put(Name(readers.First, order));
    }

    private void LoadRecovery()
    {
        Scenario scenario = _world.Scenario;
        byte lost = Byte(), knownLost = Byte(), restarts = Byte(), phase = Byte(), generation = Byte(), awaited = Byte();
        _world.Lost = lost;
        _world.KnownLost = knownLost;
        _world.Restarted = restarts & 15;
        _world.Restarts = restarts >> 4;
        _world.BeingRecovered = phase & 31;
        _world.Leader.Restore((RecoveryPhase)(phase >> 5), new Generation(generation), World.NodesOf(awaited & 15), World.NodesOf(awaited >> 4));
        byte mirror = Byte(), done = Byte();
        _world.MirrorNode = (mirror & 15) > 0 ? (mirror & 15) - 1 : null;
        _world.MovingTo = mirror >> 4 > 0 ? (mirror >> 4) - 1 : null;
        _world.HomeMovesDone = done & 15;
        _world.IsMirrorComplete = (done & 16) != 0;
        if (scenario.IsMirrorLate) _world.CopiedPages = Byte();
        for (int page = 0; page < scenario.Pages; page++)
        {
            byte flags = Byte();
            _world.LatestIsZero[page] = (flags & 1) != 0;
            _world.MayBeLost[page] = (flags & 2) != 0;
            _world.PriorIsZero[page] = (flags & 4) != 0;
            _world.UnackedWriter[page] = (byte)(flags >> 4);
        }
        for (int node = 0; node < scenario.Nodes; node++)
        {
            _world.Forget(node);
            if (!_world.IsLost(node))
            {
                LoadPart(node);
                continue;
            }
            _world.Regions[node].ResignHome(World.Extent);
            _world.Regions[node].Mirrored.Remove(World.Extent);
        }
    }

    private void LoadPart(int node)
    {
        Region region = _world.Regions[node];
        byte flags = Byte();
        bool isHome = (flags & 1) != 0, isMirror = (flags & 2) != 0;
        region.IsFrozen = (flags & 4) != 0;
        region.IsDeaf = (flags & 16) != 0;
        region.Generation = new Generation(Byte());
        NodeId home = ReadName(Byte());
        region.Homes?.Place(World.Extent, home);
        if (isHome) region.BecomeHome(World.Extent);
        else region.ResignHome(World.Extent);
        region.Mirrored.Remove(World.Extent);
        if ((flags & 8) != 0) region.Rebuild = new DirectoryRebuild(new NodeId((ushort)node), region);
        if ((flags & 32) != 0) region.LeaveUndecided(World.Extent);
        else region.Decide();
        for (int page = 0; page < _world.Scenario.Pages; page++)
        {
            PageNumber at = new((ulong)page);
            if (isHome)
            {
                if (page == 0) region.SetMirror(World.Extent, ReadName(Byte()));
                if (page == 0 && _world.Scenario.IsMirrorLate) region.MirrorCopiesOut = Byte();
                LoadDirectory(page, node);
            }
            if (isMirror)
            {
                if (page == 0) region.Mirrored.Add(World.Extent, ReadName(Byte()), isFresh: true);
                var entry = new MirrorEntry { Contents = (MirrorContents)Byte(), Version = ReadVersion(page) };
                region.Mirrored.At(at) = entry;
            }
            if (!_world.IsUsing(node)) _world.FrameOf(node, page) = (Contents)Byte();
            if (Byte() != 0) region.FrozenPages.Add(at);
            if (region.Rebuild is { } rebuild) LoadRebuild(rebuild, at);
        }
        if (region.Rebuild is null) return;
        _world.Recoveries[node].Restore(World.RegionId, _world.PlanFor(_world.BeingRecovered), World.NodesOf(Byte()));
        byte answers = Byte();
        region.Rebuild.IsDecided = answers >= 128;
        region.Rebuild.AnswersOut = answers & 127;
    }

    private void LoadRebuild(DirectoryRebuild rebuild, PageNumber page)
    {
        byte flags = Byte();
        if ((flags & 1) != 0) rebuild.Kept[page] = (ReadName(Byte()), ReadVersion((int)page.Value));
        if ((flags & 2) != 0) rebuild.Readers[page] = (ReadName(Byte()), (flags & 4) != 0);
        if ((flags & 8) != 0) rebuild.ThrownAway.Add(page);
    }
}
