// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent.Guests;
using VSmp.Coherence;

namespace VSmp.Agent.Jobs;

/// <summary>What a job needs of the node that leads it: to reach the others.</summary>
internal interface ILeadingNode
{
    /// <summary>A number for a new region.</summary>
    RegionId NewRegionId();

    /// <summary>Takes an answer to a rank.</summary>
    void SendReply(LedJob led, int rank, in GuestMessage reply, ReadOnlySpan<byte> data);

    /// <summary>Tells a node what it must invalidate, before the answer that follows.</summary>
    /// <param name="job">The job.</param>
    /// <param name="node">The node.</param>
    /// <param name="region">The region.</param>
    /// <param name="pages">The pages; null: all.</param>
    void SendNotices(JobId job, NodeId node, RegionId region, List<PageNumber>? pages);

    /// <summary>Finds homes for a region and has every node of the job make it; the job hears of the outcome.</summary>
    void MakeRegion(LedJob led, JobRegion region);

    /// <summary>Takes a checkpoint of a job, if one is due; the job hears of it.</summary>
    void TakeCheckpoint(LedJob led);

    /// <summary>A rank of a job is gone.</summary>
    void OnRankGone(LedJob led, string how);

    /// <summary>A region is there: from now on it is recovered when a node is lost.</summary>
    void Lead(SharedRegion region);

    /// <summary>Has every node of a job drop a region.</summary>
    void DropRegion(LedJob led, RegionId region);

    /// <summary>The node that has most room, and is not being emptied; none if none has any.</summary>
    NodeId Roomiest(IEnumerable<NodeId> nodes);

    /// <summary>Part of a job's memory is lost, and it is begun again from its checkpoint when that happens.</summary>
    void GoBack(LedJob led, string why);

    /// <summary>A job's memory cannot be recovered: nobody has room for it.</summary>
    void Fail(LedJob led, string why);
}
