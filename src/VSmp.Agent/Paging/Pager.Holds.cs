// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent.Guests;
using VSmp.Coherence;
using VSmp.Coherence.Nodes;

namespace VSmp.Agent.Paging;

/// <content>
/// Holds: a page that a thread was just given stays until the thread could use it, or several nodes that want one page would take it from
/// each other for ever, and nobody would get any further.
/// </content>
/// <remarks>
/// An instruction may need several pages at once (a locked add that crosses a page, a move from one page to another): while its thread
/// waits for a further page, those that it has are held on, and for a moment more when it has got it. Two nodes that each hold what the
/// other waits for would wait for ever; so each gives up after a while, which is drawn anew each time: the one that draws
/// longer gets both.
/// </remarks>
internal sealed unsafe partial class Pager
{
    /// <summary>How long a page stays at least.</summary>
    private const long HoldMicroseconds = 50;

    /// <summary>A thread that comes back for the same page again and again may not have got to use it: its holds are this many times doubled.</summary>
    private const int MaxDoublings = 3;

    /// <summary>Extensions while the thread waits for another page: at least so many, and at most that many more.</summary>
    private const int LeastExtensions = 8, MoreExtensions = 32;

    /// <summary>Further pages that one instruction can need: two operands, each across a page.</summary>
    private const int MaxFurtherPages = 3;

    private readonly PriorityQueue<Held, long> _held = new(256);
    private uint _yields;

    /// <summary>The thread's fault is resolved: it gets a moment.</summary>
    private void Hold(in Fault fault)
    {
        PagedRegion region = fault.Mapping.Region;
        ref LocalPage local = ref region.LocalAt(fault.Page);
        if (local.Holds == byte.MaxValue) return; // held by others already, and for as long
        local.Holds++;
        region.Protocol.Hold(fault.Page);
        long length = HoldMicroseconds << fault.Mapping.Guest.CountReturn(fault.ThreadId, region.Id, fault.Page, MaxDoublings);
        var held = new Held(region, fault.Page, fault.Mapping.Guest, fault.ThreadId, Extensions: 0, DrawLimit(), FurtherPages: 0, IsExtended: false);
        _held.Enqueue(held, Reactor.Clock() + length);
    }

    private void EndHolds()
    {
        long now = _reactor.NowMicroseconds;
        while (_held.TryPeek(out Held held, out long until) && until <= now)
        {
            _held.Dequeue();
            if (!held.Region.Layout.IsOpen(held.Page.Extent)) continue;
            if (ExtendHold(in held, now)) continue;
            ref LocalPage local = ref held.Region.LocalAt(held.Page);
            if (local.Holds > 0 && --local.Holds == 0) held.Region.Protocol.Unhold(held.Page, _effects);
            if (_starved.Count > 0) _hasProgressed = true; // it may be evicted now
        }
    }

    private bool ExtendHold(in Held held, long now)
    {
        bool waits = Waits(_waiting, in held) || Waits(_starved, in held);
        if (!waits)
        {
            // It has got the other page: a moment for both.
            if (!held.IsExtended) return false;
            _held.Enqueue(held with { IsExtended = false }, now + HoldMicroseconds);
            return true;
        }
        int furtherPages = held.FurtherPages + (held.IsExtended ? 0 : 1);
        if (held.Extensions >= held.Limit || furtherPages > MaxFurtherPages)
        {
            _yields++;
            return false;
        }
        _held.Enqueue(held with { Extensions = held.Extensions + 1, FurtherPages = furtherPages, IsExtended = true }, now + HoldMicroseconds);
        return true;
    }

    private static bool Waits(List<Fault> faults, in Held held)
    {
        foreach (Fault fault in faults)
        {
            if (fault.ThreadId == held.ThreadId && fault.Mapping.Guest == held.Guest && fault.Page != held.Page) return true;
        }
        return false;
    }

    /// <summary>Differs from node to node and from time to time, and is the same in every run of the same events.</summary>
    private int DrawLimit()
    {
        uint h = (Self.Value + 1u) * 0x9E37_79B1;
        h = (h ^ (_yields * 0x85EB_CA6B)) * 0xC2B2_AE35;
        return LeastExtensions + (int)((h >> 16) % MoreExtensions);
    }

    /// <summary>Where somebody waits for the end of a hold, it ends on time though nothing else may happen.</summary>
    private void WakeForHolds()
    {
        if ((_node.ParkedCount > 0 || _starved.Count > 0) && _held.TryPeek(out _, out long until)) _reactor.WakeBy(until);
    }

    /// <summary>A page that must stay for a moment.</summary>
    private readonly record struct Held(PagedRegion Region, PageNumber Page, Guest Guest, uint ThreadId, int Extensions, int Limit,
        int FurtherPages, bool IsExtended);
}
