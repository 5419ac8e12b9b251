// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent.Guests;
using VSmp.Coherence;

namespace VSmp.Agent.Paging;

/// <content>Barriers: what a rank has missed behind the earlier ones is asked for while it wakes up.</content>
internal sealed unsafe partial class Pager
{
    private readonly List<Mapping> _throughBarrier = new(16);

    /// <summary>A rank has been told that all others are at the barrier, too.</summary>
    /// <remarks>What is foreseen is asked for at the end of the turn: other ranks, here and elsewhere, are told first.</remarks>
    public void OnBarrier(Guest guest) => _throughBarrier.AddRange(guest.Mappings);

    private void AskForeseen()
    {
        if (_throughBarrier.Count == 0) return;
        foreach (Mapping mapping in _throughBarrier)
        {
            if (mapping.Forecast is not { } forecast || mapping.IsGone) continue;
            forecast.OnBarrier();
            for (int at = 0; forecast.TryNext(ref at, out PageNumber page, out bool write);)
            {
                if (!MayBeMissed(mapping.Region, page, write)) forecast.Forget(page);
                else AskForeseen(mapping, page, write);
            }
        }
        _throughBarrier.Clear();
    }

    private static bool MayBeMissed(PagedRegion region, PageNumber page, bool write) =>
        region.Layout.IsOpen(page.Extent) && region.Protocol.CopyOf(page) is var copy
        && copy != PageCopy.Writable && (write || copy is PageCopy.None or PageCopy.UnderWay);

    /// <summary>As if the rank had missed the page, but that no thread waits: what lies behind it comes along as it did then.</summary>
    private void AskForeseen(Mapping mapping, PageNumber page, bool write)
    {
        PagedRegion region = mapping.Region;
        PageCopy copy = region.Protocol.CopyOf(page);
        if (copy == PageCopy.UnderWay || !MayAskAhead(region, page.Extent) || !region.Protocol.TryAskAhead(page, write, _effects)) return;
        region.Run!.Counters.PagesForeseen++;
        AskAhead(mapping, page, write, copy);
    }
}
