// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent.Paging;
using VSmp.Coherence;
using VSmp.Coherence.Lazy;

namespace VSmp.Agent.Jobs;

/// <summary>The write notices of a job's lazy regions, at its leader.</summary>
/// <param name="nodes">The nodes that have ranks.</param>
internal sealed class JobNotices(IReadOnlyCollection<NodeId> nodes)
{
    private readonly Dictionary<RegionId, (NoticeLog Log, ulong PageCount)> _regions = [];

    /// <summary>A region is being made: nobody has copies of it yet.</summary>
    public void Open(RegionId region, int extentCount)
    {
        var log = new NoticeLog();
        foreach (NodeId node in nodes) log.Add(node);
        _regions[region] = (log, (ulong)extentCount << ExtentNumber.PagesShift);
    }

    /// <summary>A region is gone.</summary>
    public void Close(RegionId region) => _regions.Remove(region);

    /// <summary>A node's ranks have written pages, and their homes have them.</summary>
    /// <param name="node">Which node.</param>
    /// <param name="region">Of which region; one that is not lazy, or gone, is passed over.</param>
    /// <param name="runs">The pages, as they travel.</param>
    /// <exception cref="ProtocolViolationException">The node has no ranks, or the pages make no sense.</exception>
    public void OnWrites(NodeId node, RegionId region, ReadOnlySpan<byte> runs)
    {
        if (!nodes.Contains(node)) throw new ProtocolViolationException($"{node} has no ranks of the job that it speaks of");
        if (_regions.TryGetValue(region, out var r)) r.Log.OnRelease(node, PageRuns.Read(runs, r.PageCount));
    }

    /// <summary>A rank of a node acquires.</summary>
    /// <param name="node">Which node.</param>
    /// <param name="notify">Is told of each region with something to invalidate at the node; of null pages: every copy.</param>
    public void OnAcquire(NodeId node, Action<RegionId, List<PageNumber>?> notify)
    {
        foreach ((RegionId region, (NoticeLog log, _)) in _regions)
        {
            var pages = new List<PageNumber>();
            if (!log.OnAcquire(node, pages)) notify(region, null);
            else if (pages.Count > 0) notify(region, pages);
        }
    }
}
