// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent.Guests;
using VSmp.Coherence;

namespace VSmp.Agent.Paging;

/// <content>Staying within budgets.</content>
internal sealed unsafe partial class Pager
{
    /// <summary>Copies that may be kept for PutAcks that are out, so that giving pages back does not take memory without bound.</summary>
    private const int MaxKept = 2048;

    /// <summary>Copies evicted at a time: a demand fault must not wait for more.</summary>
    private const int Batch = 8;

    /// <summary>Copies evicted in a turn while more are here than a budget allows any more.</summary>
    private const int BatchBeyondLimit = 64;

    /// <summary>How soon it is tried again where copies must go and cannot go yet, though nothing else may happen.</summary>
    private const long RetryMicroseconds = 200;

    /// <summary>Runs that have copies here, for evicting ahead.</summary>
    private readonly List<Run> _runs = [];

    /// <summary>Watches a run's budget.</summary>
    public void AddRun(Run run) => _runs.Add(run);

    /// <summary>The run is over.</summary>
    public void RemoveRun(Run run) => _runs.Remove(run);

    /// <summary>Makes room for at least one frame, if anything can go now.</summary>
    private bool EvictNow(Run run)
    {
        Evict(run, Batch, isUrgent: true);
        return run.Budget.FreePages > 0;
    }

    /// <summary>Keeps a few frames free in each budget, so that faults need not wait for an eviction.</summary>
    private void EvictAhead()
    {
        foreach (Run run in _runs)
        {
            long low = Math.Clamp(run.Budget.LimitPages / 16, 1, 64);
            if (run.Budget.FreePages < 0)
            {
                // The limit was lowered, and who had it lowered waits.
                Evict(run, BatchBeyondLimit, isUrgent: true);
                _reactor.WakeBy(_reactor.NowMicroseconds + RetryMicroseconds);
            }
            else if (run.Budget.FreePages < low) Evict(run, Batch, isUrgent: false);
        }
    }

    /// <summary>Evicts copies, the ones first that came first.</summary>
    /// <param name="run">Whose.</param>
    /// <param name="pageCount">How many, if so many can go now.</param>
    /// <param name="isUrgent">A fault waits for a frame; otherwise a home that does not keep up is left in peace.</param>
    private void Evict(Run run, int pageCount, bool isUrgent)
    {
        int attempts = Math.Min(run.Copies.Count, pageCount * 4), kept = 0;
        foreach (PagedRegion each in _regions.Values) kept += each.Kept.Count; // what is evicted here is kept when the effects are executed
        while (pageCount > 0 && attempts-- > 0 && kept < MaxKept && run.Copies.TryTake(out PagedRegion region, out PageNumber page))
        {
            PageCopy copy = region.Protocol.CopyOf(page);
            if (copy == PageCopy.None || region.Layout.IsHome(page.Extent)) continue; // gone by another way, or no copy any more: its home is here now
            if ((!isUrgent && !HasCreditAtHome(region, page.Extent)) || !region.Protocol.TryEvict(page, _effects))
            {
                run.Copies.PutBack(region, page);
                continue;
            }
            run.Copies.OnEvicted(region, page);
            run.Counters.PagesEvicted++;
            if (copy is PageCopy.Dirty or PageCopy.Writable) run.Counters.PagesWrittenBack++;
            pageCount--;
        }
        ExecuteEffects(default, []);
    }

    /// <summary>Whether the home of an extent keeps up: work that nobody waits for is put off until it does.</summary>
    private bool HasCreditAtHome(PagedRegion region, ExtentNumber extent)
    {
        NodeId home = region.Layout.Homes!.HomeOf(extent);
        return home == Self || _fabric.HasCredit(home);
    }
}
