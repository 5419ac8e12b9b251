// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent.Guests;
using VSmp.Agent.Recovery;
using VSmp.Coherence;
using VSmp.Coherence.Placement;

namespace VSmp.Agent.Elasticity;

/// <content>Which homes and mirrors to move so that nodes are filled in proportion to what they contribute.</content>
internal sealed partial class HomeMover
{
    /// <summary>Below a difference of so many extents it is even enough: several nodes may plan at a time, and must not send one extent to and fro.</summary>
    private const double EvenEnoughExtents = 2;

    private readonly Dictionary<(RegionId Region, ExtentNumber Extent), (NodeId From, NodeId To)> _balancing = [];
    private bool _mayHaveHalves;

    /// <summary>Whether homes are moved until nodes are filled evenly.</summary>
    public bool IsRebalancing { get; private set; }

    /// <summary>Steps that were taken since the start: extents that got a mirror, or were let go.</summary>
    public ulong MovedExtents { get; private set; }

    /// <summary>Begins to move what was made here until nodes are filled evenly; or, with false, stops: what was moved stays moved.</summary>
    public void SetRebalancing(bool on)
    {
        IsRebalancing = on;
        if (!on) _balancing.Clear();
        _mayHaveHalves = true;
    }

    /// <summary>The next batch: from the fullest node that has something of this node's regions, to the one with most room, until they are even half way.</summary>
    private void PlanBalance()
    {
        if (_steps.Count > 0) return;
        DropSettled();
        if (_balancing.Count > 0 || _recovery.Led.Any(r => r.IsMovable && !_recovery.IsQuiet(r))) return;
        var nodes = _peers.All.Where(p => p.Node != _self && p is { IsUp: true, IsDraining: false } && p.Report.ContributedBytes > 0)
            .OrderBy(p => p.FreeFraction).ToArray();
        foreach (Peer from in nodes)
        {
            Peer to = nodes[^1];
            double even = (to.FreeFraction - from.FreeFraction) / (PerExtent(from) + PerExtent(to));
            if (even < EvenEnoughExtents) break;
            int wanted = (int)Math.Clamp(even / 2, 1, BatchExtents);
            foreach (LedRegion region in _recovery.Led)
            {
                if (wanted > 0 && _recovery.IsQuiet(region)) wanted -= Choose(region, from.Node, to.Node, wanted);
            }
            if (_balancing.Count > 0) return;
        }
        IsRebalancing = false;
    }

    private static double PerExtent(Peer peer) => (double)ExtentNumber.Bytes / peer.Report.ContributedBytes;

    /// <summary>Mirrors first: to move them, nobody has to wait.</summary>
    private int Choose(LedRegion region, NodeId from, NodeId to, int wanted)
    {
        HomeMap homes = region.Homes;
        int chosen = 0;
        foreach (bool isMirror in (ReadOnlySpan<bool>)[true, false])
        {
            for (uint e = 0; e < region.ExtentCount && chosen < wanted; e++)
            {
                ExtentNumber extent = new(e);
                NodeId home = homes.HomeOf(extent), mirror = homes.MirrorOf(extent);
                if ((isMirror ? mirror : home) != from || (isMirror ? home : mirror) == to || home.IsNone || region.IsBound(home)) continue;
                if (!isMirror && mirror.IsNone && region.IsMirrored) continue; // it gets one first
                if (_balancing.TryAdd((region.Id, extent), (from, to))) chosen++;
            }
        }
        return chosen;
    }

    private void DropSettled()
    {
        foreach (((RegionId Region, ExtentNumber Extent) key, (NodeId From, NodeId To) move) in _balancing.ToArray())
        {
            HomeMap? homes = _recovery.FindLed(key.Region)?.Homes;
            if (homes is null || (homes.HomeOf(key.Extent) != move.From && homes.MirrorOf(key.Extent) != move.From)) _balancing.Remove(key);
        }
    }
}
