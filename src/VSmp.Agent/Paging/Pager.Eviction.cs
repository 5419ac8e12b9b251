// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent.Guests;
using VSmp.Coherence;
using VSmp.Coherence.Protocols;

namespace VSmp.Agent.Paging;

/// <content>Staying within budgets.</content>
internal sealed unsafe partial class Pager
{
    /// <summary>Copies that may be kept for PutAcks that are out, so that giving pages back does not take memory without bound.</summary>
    private const int MaxKept = 2048;

    /// <summary>Copies evicted at a time: a demand fault must not wait for more.</summary>
    private const int Batch = 8;

    /// <summary>Runs that have copies here, for evicting ahead.</summary>
    private readonly List<Run> _runs = [];

    /// <summary>Watches a run's budget.</summary>
    public void AddRun(Run run) => _runs.Add(run);

    /// <summary>The run is over.</summary>
    public void RemoveRun(Run run) => _runs.Remove(run);

    /// <summary>Makes room for at least one frame, if anything can go now.</summary>
    private bool EvictNow(Run run)
    {
        Evict(run, Batch);
        return run.Budget.FreePages > 0;
    }

    /// <summary>Keeps a few frames free in each budget, so that faults need not wait for an eviction.</summary>
    private void EvictAhead()
    {
        foreach (Run run in _runs)
        {
            long low = Math.Clamp(run.Budget.LimitPages / 16, 1, 64);
            if (run.Budget.FreePages < low) Evict(run, Batch);
        }
    }

    private void Evict(Run run, int pageCount)
    {
        int attempts = Math.Min(run.Copies.Count, pageCount * 4);
        while (pageCount > 0 && attempts-- > 0 && _kept.Count < MaxKept && run.Copies.TryTake(out PagedRegion region, out PageNumber page))
        {
            NodeState state = region.Core.PageAt(page).State;
            if (state == NodeState.I) continue; // gone by another way
            if (!_node.TryEvict(region.Core, page, _effects))
            {
                run.Copies.PutBack(region, page);
                continue;
            }
            run.Copies.OnEvicted(region, page);
            run.Counters.PagesEvicted++;
            if (state == NodeState.M) run.Counters.PagesWrittenBack++;
            pageCount--;
        }
        ExecuteEffects(default, null);
    }
}
