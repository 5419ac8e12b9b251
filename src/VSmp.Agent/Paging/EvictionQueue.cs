// SPDX-License-Identifier: Apache-2.0
using VSmp.Coherence;

namespace VSmp.Agent.Paging;

/// <summary>
/// The copies of a run in the order in which they came. The kernel does not tell which are used, so the oldest goes first; but one that
/// had to be fetched again soon after its eviction (the ghost list: within as many evictions as there are frames) may stay two
/// rounds longer.
/// </summary>
internal sealed class EvictionQueue
{
    private const byte ChancesOfRefetched = 2;

    private readonly Queue<(PagedRegion Region, PageNumber Page)> _queue = new(4096);
    private uint _evictions;
    private long _openPages;

    /// <summary>Entries, some of them of pages that are gone already.</summary>
    public int Count => _queue.Count;

    /// <summary>
    /// So many more pages may become copies. Room for as many as fit the budget is made now, so that no fault has to: to let the queue grow would
    /// take longer than the fault.
    /// </summary>
    public void OnOpened(int pageCount, long budgetPages)
    {
        _openPages += pageCount;
        _queue.EnsureCapacity((int)Math.Min(Math.Min(_openPages, budgetPages), Array.MaxLength));
    }

    /// <summary>A copy was installed.</summary>
    public void OnInstalled(PagedRegion region, PageNumber page, long budgetPages)
    {
        ref LocalPage local = ref region.LocalAt(page);
        if (local.EvictedAt != 0 && _evictions - local.EvictedAt < budgetPages) local.Chances = ChancesOfRefetched;
        if (local.IsQueued) return;
        local.IsQueued = true;
        _queue.Enqueue((region, page));
    }

    /// <summary>The next candidate, taken out of the queue.</summary>
    public bool TryTake(out PagedRegion region, out PageNumber page)
    {
        while (_queue.TryDequeue(out var entry))
        {
            (region, page) = entry;
            if (!region.Layout.IsOpen(page.Extent)) continue;
            ref LocalPage local = ref region.LocalAt(page);
            if (!local.IsQueued) continue; // of a former life of the extent
            if (local.Chances > 0 && region.Protocol.CopyOf(page) != PageCopy.None)
            {
                local.Chances--;
                _queue.Enqueue(entry);
                continue;
            }
            local.IsQueued = false;
            return true;
        }
        (region, page) = (null!, default);
        return false;
    }

    /// <summary>The candidate cannot go now: it stands at the end again.</summary>
    public void PutBack(PagedRegion region, PageNumber page)
    {
        region.LocalAt(page).IsQueued = true;
        _queue.Enqueue((region, page));
    }

    /// <summary>The candidate is gone.</summary>
    public void OnEvicted(PagedRegion region, PageNumber page)
    {
        if (++_evictions == 0) _evictions = 1;
        region.LocalAt(page).EvictedAt = _evictions;
    }
}
