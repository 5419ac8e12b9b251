// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent.Guests;
using VSmp.Coherence;

namespace VSmp.Agent.Jobs;

/// <summary>What a job's leader wants done to the world.</summary>
internal interface IJobActions
{
    /// <summary>Answers a rank: the message's type, serial and fields, and what goes with it.</summary>
    void Reply(int rank, in GuestMessage reply, ReadOnlySpan<byte> data);

    /// <summary>A number for a new region.</summary>
    RegionId NewRegionId();

    /// <summary>Has every node of the job make the region; <see cref="Job.OnRegionMade"/> is called when they have, or one cannot.</summary>
    void MakeRegion(JobRegion region);

    /// <summary>All ranks call for a checkpoint: <see cref="Job.OnCheckpointTaken"/> is called when it is cut, or is not to be; and if it was, <see cref="Job.OnCheckpointEnded"/>.</summary>
    void TakeCheckpoint();

    /// <summary>Has every node drop a region that was ready.</summary>
    void DropRegion(JobRegion region);
}
