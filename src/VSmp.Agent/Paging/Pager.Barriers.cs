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
                if (!AskForeseen(mapping, page, write)) forecast.Forget(page);
            }
        }
        _throughBarrier.Clear();
    }

    /// <summary>As if the rank had missed the page, but that no thread waits: what lies behind it comes along as it did then.</summary>
    /// <returns>False: the rank would not miss it.</returns>
    private bool AskForeseen(Mapping mapping, PageNumber page, bool write)
    {
        PagedRegion region = mapping.Region;
        if (!region.Layout.IsOpen(page.Extent)) return false;
        PageCopy copy = region.Protocol.CopyOf(page);
        if (copy == PageCopy.UnderWay) return true;
        if (copy == PageCopy.Writable || (copy != PageCopy.None && !write)) return false;
        // A home that is behind with what it has been sent is not sent more on a guess.
        if (!HasCreditAtHome(region, page.Extent) || !MayAskAhead(region, page.Extent)) return true;
        if (!region.Protocol.TryAskAhead(page, write, _effects)) return true;
        region.Run!.Counters.PagesForeseen++;
        AskAhead(mapping, page, write, copy);
        ExecuteEffects(default, []); // so that the next one sees whether there is credit left
        return true;
    }
}
