// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent.Guests;
using VSmp.Agent.Paging;
using VSmp.Agent.Recovery;
using VSmp.Coherence;
using VSmp.Coherence.Placement;

namespace VSmp.Agent.Elasticity;

/// <summary>
/// Moves homes and mirrors of the guests' regions that were made here: away from nodes that are being emptied, and, where that was asked for, to where there is
/// more room. Owned by the reactor.
/// </summary>
/// <remarks>
/// <para>
/// Three things can be done with an extent: a node becomes its mirror, or its mirror's successor, and is sent what the home has (<see cref="MirrorServer"/>);
/// home and mirror change places (<see cref="RecoveryServer.SwapHomes"/>); a mirror that is not needed is let go. Each leaves every page with at least as
/// many homes as it was promised, and a home map that is right, so a move can stop between any two of them, and the next look finds from the map
/// alone what is still to be done.
/// </para>
/// <para>Homes on the guest's own node stay: if that node goes, so does the guest. Nor is that node a place to move to, since its frames hold the guest's copies.</para>
/// </remarks>
internal sealed partial class HomeMover
{
    private const long LookPeriodMicroseconds = 100_000;

    /// <summary>Extents of a region that are filled, or let go, at a time.</summary>
    private const int BatchExtents = 64;

    /// <summary>Extents of a region that are swapped at a time: a freeze costs some ten milliseconds, however many it is for.</summary>
    private const int SwapExtents = 4096;

    private readonly NodeId _self;
    private readonly Reactor _reactor;
    private readonly Pager _pager;
    private readonly Peers _peers;
    private readonly Reservations _reservations;
    private readonly RecoveryServer _recovery;
    private readonly MirrorServer _mirrors;
    private readonly Dictionary<(RegionId Region, ExtentNumber Extent), Step> _steps = [];
    private readonly List<ExtentNumber> _swaps = [], _others = [];
    private readonly HashSet<(RegionId Region, ExtentNumber Extent)> _holes = []; // what was just granted when a home became a mirror it may lack
    private bool _wasToldOfNoRoom;

    /// <summary>Makes the mover of a node.</summary>
    public HomeMover(NodeId self, Reactor reactor, Pager pager, Peers peers, Reservations reservations, RecoveryServer recovery, MirrorServer mirrors)
    {
        _self = self;
        _reactor = reactor;
        _pager = pager;
        _peers = peers;
        _reservations = reservations;
        _recovery = recovery;
        _mirrors = mirrors;
        reactor.Every(LookPeriodMicroseconds, Look);
        recovery.Interrupting += OnInterrupting;
        recovery.Recovered += OnRecovered;
        recovery.IsInvolved = (region, node) => _steps.Any(s => s.Key.Region == region.Id && (s.Value.From == node || s.Value.To == node));
        mirrors.Done = OnDone;
        reservations.GivingBack += (region, extent) =>
        {
            Cancel(region.Id, extent);
            _holes.Remove((region.Id, extent));
        };
        pager.Removed += Forget;
    }

    /// <summary>Extents that are being moved now, as far as regions made here go.</summary>
    public int UnderWayCount => _steps.Count;

    /// <summary>Whether something is being done with an extent, so that who has what of it is not what the home map says.</summary>
    public bool IsMoving(RegionId region, ExtentNumber extent) => _steps.ContainsKey((region, extent)) || _holes.Contains((region, extent)) || _mirrors.IsRestoring(region, extent);

    private void Look()
    {
        if (_steps.Count == 0 && !_mayHaveHalves && !IsRebalancing && !_peers.All.Any(p => p.IsDraining)) return;
        if (IsRebalancing) PlanBalance();
        _mayHaveHalves = false;
        foreach (LedRegion region in _recovery.Led.Where(_recovery.IsQuiet).ToArray()) LookAt(region);
    }

    /// <summary>One thing at a time: what can be swapped is; else a batch is filled, or let go. So of what moves, no more than a batch takes room twice.</summary>
    private void LookAt(LedRegion region)
    {
        if (_steps.Any(s => s.Key.Region == region.Id))
        {
            _mayHaveHalves = true;
            return;
        }
        HomeMap homes = region.Homes;
        bool isMirrored = region.IsMirrored;
        int begun = 0;
        _swaps.Clear();
        _others.Clear();
        for (uint e = 0; e < region.ExtentCount && _swaps.Count < SwapExtents; e++)
        {
            ExtentNumber extent = new(e);
            NodeId home = homes.HomeOf(extent), mirror = homes.MirrorOf(extent);
            if (home.IsNone || region.IsBound(home) || _mirrors.IsRestoring(region.Id, extent)) continue;
            bool homeLeaves = Leaves(region.Id, extent, home), mirrorLeaves = !mirror.IsNone && Leaves(region.Id, extent, mirror);
            if (homeLeaves && !mirror.IsNone && !mirrorLeaves) _swaps.Add(extent);
            else if (_others.Count < BatchExtents && (isMirrored ? mirrorLeaves || IsHole(region.Id, extent, mirror) : homeLeaves || !mirror.IsNone)) _others.Add(extent);
        }
        _mayHaveHalves |= _swaps.Count + _others.Count > 0;
        if (_swaps.Count > 0)
        {
            if (isMirrored) _holes.UnionWith(_swaps.Select(extent => (region.Id, extent)));
            _recovery.SwapHomes(region, _swaps);
            return;
        }
        foreach (ExtentNumber extent in _others)
        {
            NodeId home = homes.HomeOf(extent), mirror = homes.MirrorOf(extent);
            if (!isMirrored && !mirror.IsNone) begun += Part(region, extent, home, mirror);
            else if (isMirrored && !Leaves(region.Id, extent, mirror)) begun += Refill(region, extent, home, mirror);
            else begun += Fill(region, extent, home, mirror);
        }
        if (begun == 0 && _others.Count > 0 && !_wasToldOfNoRoom) Log.Warn($"{region.Name} has memory that is to move, and no other node has room for it");
        _wasToldOfNoRoom = begun == 0 && _others.Count > 0;
    }

    private bool Leaves(RegionId region, ExtentNumber extent, NodeId node) =>
        _peers.Find(node) is { IsDraining: true } || (_balancing.TryGetValue((region, extent), out (NodeId From, NodeId To) move) && move.From == node);

    /// <summary>Has a node become the mirror of an extent, or (if there is one) its mirror's successor.</summary>
    /// <returns>How many extents that is.</returns>
    private int Fill(LedRegion region, ExtentNumber extent, NodeId home, NodeId mirror)
    {
        NodeId to = _balancing.TryGetValue((region.Id, extent), out (NodeId From, NodeId To) move) && move.To != home && move.To != mirror ? move.To : NodeId.None;
        if (to.IsNone || _peers.Find(to) is not { IsUp: true, IsDraining: false }) to = _peers.Roomiest([mirror], ask: false, otherThan: home);
        if (to.IsNone)
        {
            _balancing.Remove((region.Id, extent));
            return 0; // when there is room again
        }
        var step = new Step(home, mirror, to);
        _steps.Add((region.Id, extent), step);
        _reservations.AskLateMirror(region, to, home, extent, 1, granted => OnAnswer(region, extent, step, granted));
        return 1;
    }

    private bool IsHole(RegionId region, ExtentNumber extent, NodeId mirror) => !mirror.IsNone && _holes.Contains((region, extent));

    /// <summary>A home that became the mirror stays it: it is sent what it lacks.</summary>
    private int Refill(LedRegion region, ExtentNumber extent, NodeId home, NodeId mirror)
    {
        _steps.Add((region.Id, extent), new Step(home, NodeId.None, mirror) { IsGranted = true });
        _mirrors.SendOrder(region, extent, home, mirror, MirrorOrder.Fill);
        return 1;
    }

    private void OnAnswer(LedRegion region, ExtentNumber extent, Step step, bool granted)
    {
        if (step.IsCancelled) return;
        if (!granted)
        {
            _steps.Remove((region.Id, extent));
            _balancing.Remove((region.Id, extent));
            return;
        }
        step.IsGranted = true;
        if (step.From.IsNone) region.Homes.PlaceMirror(extent, step.To);
        _mirrors.SendOrder(region, extent, step.Home, step.To, step.From.IsNone ? MirrorOrder.Fill : MirrorOrder.FillNext);
    }

    /// <summary>Lets a mirror go that nobody was promised.</summary>
    private int Part(LedRegion region, ExtentNumber extent, NodeId home, NodeId mirror)
    {
        region.Homes.PlaceMirror(extent, NodeId.None);
        _steps.Add((region.Id, extent), new Step(home, mirror, NodeId.None) { IsParting = true });
        _mirrors.SendOrder(region, extent, home, NodeId.None, MirrorOrder.Part);
        return 1;
    }

    private void OnDone(LedRegion region, ExtentNumber extent, MirrorOrder order)
    {
        if (!_steps.TryGetValue((region.Id, extent), out Step? step)) return; // interrupted
        if (order == MirrorOrder.FillNext && !step.IsParting)
        {
            // From now on its successor counts; both are written until the home says that the former mirror owes it nothing.
            step.IsParting = true;
            region.Homes.PlaceMirror(extent, step.To);
            _mirrors.SendOrder(region, extent, step.Home, step.To, MirrorOrder.Part);
            return;
        }
        if (order == MirrorOrder.FillNext || (order == MirrorOrder.Part) != step.IsParting) return;
        _steps.Remove((region.Id, extent));
        _holes.Remove((region.Id, extent));
        MovedExtents++;
        if (step.IsParting) Release(region.Id, extent, step.From);
        if (!_steps.Keys.Any(k => k.Region == region.Id)) _reactor.Post(Look);
    }

    /// <summary>
    /// The region is about to be frozen because of a loss. Of a mirror and its successor one is let go before: else both might take themselves for the home.
    /// What is being filled for the first time is filled again afterwards.
    /// </summary>
    private void OnInterrupting(LedRegion region)
    {
        foreach ((RegionId id, ExtentNumber extent) in _steps.Keys.Where(k => k.Region == region.Id).ToArray())
        {
            Step step = _steps[(id, extent)];
            if (step.IsParting || !step.From.IsNone || !step.IsGranted) Cancel(id, extent);
        }
    }

    private void OnRecovered(LedRegion region)
    {
        HomeMap homes = region.Homes;
        foreach ((RegionId id, ExtentNumber extent) in _steps.Keys.Where(k => k.Region == region.Id).ToArray())
        {
            Step step = _steps[(id, extent)];
            if (homes.HomeOf(extent) == step.Home && homes.MirrorOf(extent) == step.To) _mirrors.SendOrder(region, extent, step.Home, step.To, MirrorOrder.Fill);
            else _steps.Remove((id, extent)); // one of the two is lost
        }
        _mayHaveHalves = true;
        _reactor.Post(Look);
    }

    /// <summary>Ends a step: who is in the home map stays, the other is let go.</summary>
    private void Cancel(RegionId region, ExtentNumber extent)
    {
        if (!_steps.Remove((region, extent), out Step? step)) return;
        step.IsCancelled = true;
        if (step.IsParting) Release(region, extent, step.From);
        else if (!step.From.IsNone || !step.IsGranted) Release(region, extent, step.To);
    }

    private void Forget(RegionId region)
    {
        foreach ((RegionId id, ExtentNumber extent) in _steps.Keys.Where(k => k.Region == region).ToArray()) Cancel(id, extent);
        _holes.RemoveWhere(hole => hole.Region == region);
        foreach ((RegionId, ExtentNumber) key in _balancing.Keys.Where(k => k.Region == region).ToArray()) _balancing.Remove(key);
    }

    private void Release(RegionId region, ExtentNumber extent, NodeId node)
    {
        if (_peers.IsUp(node)) _reservations.ReleaseMirror(region, node, extent, 1);
    }

    /// <summary>What is being done with an extent.</summary>
    /// <param name="home">Its home.</param>
    /// <param name="from">Its mirror, which is let go at the end; none if it has none yet.</param>
    /// <param name="to">Who becomes the mirror; none if nobody does.</param>
    private sealed class Step(NodeId home, NodeId from, NodeId to)
    {
        public NodeId Home { get; } = home;
        public NodeId From { get; } = from;
        public NodeId To { get; } = to;
        public bool IsGranted { get; set; }
        public bool IsCancelled { get; set; }

        /// <summary>Whether <see cref="From"/> is no mirror any more, but may still be owed to.</summary>
        public bool IsParting { get; set; }
    }
}
