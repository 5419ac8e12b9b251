// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent.Paging;
using VSmp.Coherence;
using VSmp.Coherence.Messages;

namespace VSmp.Agent.Jobs;

/// <content>Lazy release consistency: who wrote what goes to the leader before a release, and from there to who acquires.</content>
internal sealed partial class JobServer
{
    /// <summary>Releases here may be complete: homes have acknowledged diffs.</summary>
    public void ContinueReleases()
    {
        foreach (NodeJob job in _here.Values) job.Releases.Continue();
    }

    /// <inheritdoc/>
    public void SendNotices(JobId job, NodeId node, RegionId region, List<PageNumber>? pages)
    {
        foreach (byte[] runs in pages is null ? [[]] : PageRuns.Write(pages))
        {
            if (node == self) OnNotices(region, pages is null, runs);
            else if (peers.IsUp(node)) Send(node, new FrameHeader { Type = MessageType.JobNotices, Region = region, Argument0 = job.Value, Argument1 = pages is null ? 1u : 0 }, runs);
        }
    }

    private void SendWrites(JobId job, RegionId region, List<PageNumber> pages)
    {
        foreach (byte[] runs in PageRuns.Write(pages))
        {
            if (job.Leader == self) OnWrites(self, job, region, runs);
            else if (peers.IsUp(job.Leader)) Send(job.Leader, new FrameHeader { Type = MessageType.JobWrites, Region = region, Argument0 = job.Value }, runs);
        }
    }

    private void OnWrites(NodeId node, JobId job, RegionId region, ReadOnlySpan<byte> runs)
    {
        if (_led.TryGetValue(job, out LedJob? led)) led.Notices.OnWrites(node, region, runs);
    }

    private void OnNotices(RegionId region, bool all, ReadOnlySpan<byte> runs)
    {
        if (pager.Find(region)?.Protocol is not LazyProtocol lazy) return; // gone meanwhile
        if (all) pager.AcquireAll(lazy);
        else pager.Acquire(lazy, PageRuns.Read(runs, lazy.Layout.PageCount));
    }
}
