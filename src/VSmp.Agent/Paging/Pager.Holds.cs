// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent.Guests;
using VSmp.Coherence;

namespace VSmp.Agent.Paging;

/// <content>
/// Holds: a page that a thread was just given stays until the thread could use it, or several nodes that want one page would take it from
/// each other for ever, and nobody would get any further. For how long: <see cref="HoldRules"/>.
/// </content>
internal sealed unsafe partial class Pager
{
    private readonly PriorityQueue<Held, long> _held = new(256);
    private readonly HoldRules _holdRules;
    private readonly List<Held> _used = new(16);

    /// <summary>The thread's fault is resolved: it gets a moment.</summary>
    private void Hold(in Fault fault)
    {
        PagedRegion region = fault.Mapping.Region;
        ref LocalPage local = ref region.LocalAt(fault.Page);
        if (local.Holds == byte.MaxValue) return; // held by others already, and for as long
        local.Holds++;
        region.Protocol.Hold(fault.Page);
        int doublings = Math.Min(fault.Mapping.Guest.Returns.Of(fault.ThreadId, region.Id, fault.Page), HoldRules.MaxDoublings);
        var held = new Held(region, fault.Page, fault.Mapping.Guest, fault.ThreadId, _holdRules.Begin());
        _held.Enqueue(held, Reactor.Clock() + (HoldRules.HoldMicroseconds << doublings));
    }

    private void EndHolds()
    {
        long now = _reactor.NowMicroseconds;
        while (_held.TryPeek(out Held held, out long until) && until <= now)
        {
            _held.Dequeue();
            if (!held.Region.Layout.IsOpen(held.Page.Extent)) continue;
            HoldRules.Hold hold = held.Hold;
            if (_holdRules.TryExtend(ref hold, waits: Waits(_waiting, in held) || Waits(_starved, in held)))
            {
                _held.Enqueue(held with { Hold = hold }, now + HoldRules.HoldMicroseconds);
                continue;
            }
            EndHold(in held);
        }
        if (_node.ParkedCount > 0) EndUsedHolds();
    }

    private void EndHold(in Held held)
    {
        ref LocalPage local = ref held.Region.LocalAt(held.Page);
        if (local.Holds > 0 && --local.Holds == 0) held.Region.Protocol.Unhold(held.Page, _effects);
        if (_starved.Count > 0) _hasProgressed = true; // it may be evicted now
    }

    /// <summary>Who waits for a page need not wait until its time is up, if it has been used already.</summary>
    private void EndUsedHolds()
    {
        foreach ((Held held, _) in _held.UnorderedItems)
        {
            if (!held.Region.Layout.IsOpen(held.Page.Extent) || !_node.IsParked(held.Region.Id, held.Page)) continue;
            if (Waits(_waiting, in held) || Waits(_starved, in held)) continue;
            if (held.Guest.Returns.HasRun(held.ThreadId, held.Region.Id, held.Page)) _used.Add(held);
        }
        foreach (Held held in _used)
        {
            _held.Remove(held, out _, out _);
            EndHold(in held);
        }
        _used.Clear();
    }

    private static bool Waits(List<Fault> faults, in Held held)
    {
        foreach (Fault fault in faults)
        {
            if (fault.ThreadId == held.ThreadId && fault.Mapping.Guest == held.Guest && fault.Page != held.Page) return true;
        }
        return false;
    }

    /// <summary>Where somebody waits for the end of a hold, it ends on time though nothing else may happen.</summary>
    private void WakeForHolds()
    {
        if ((_node.ParkedCount > 0 || _starved.Count > 0) && _held.TryPeek(out _, out long until)) _reactor.WakeBy(until);
    }

    /// <summary>A page that must stay for a moment.</summary>
    private readonly record struct Held(PagedRegion Region, PageNumber Page, Guest Guest, uint ThreadId, HoldRules.Hold Hold);
}
