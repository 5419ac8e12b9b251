// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent.Guests;
using VSmp.Agent.Interop;
using VSmp.Agent.Jobs;
using VSmp.Coherence;
using Xunit;

namespace VSmp.Agent.Tests.Jobs;

/// <summary>Checkpoints as the ranks of a job see them.</summary>
public sealed class JobCheckpointTests
{
    [Fact]
    public void All_ranks_hear_of_the_generation_when_it_is_cut()
    {
        RecordedJob job = new(3);
        job.CallAll(GuestRequest.Checkpoint);
        Assert.Equal(1, job.Checkpoints);
        Assert.False(job.IsAnswered(0));
        Assert.True(job.Job.IsTaking);
        job.Job.OnCheckpointTaken(4, 0, "");
        for (int rank = 0; rank < 3; rank++)
        {
            (int errno, GuestMessage message, _) = job.Answer(rank);
            Assert.Equal((0, 4ul), (errno, message.A));
        }
        Assert.False(job.Job.IsTaking);
        Assert.True(job.Job.IsStoring);
    }

    [Fact]
    public void A_rank_that_holds_a_lock_keeps_a_checkpoint_from_being_taken()
    {
        RecordedJob job = new(2);
        job.Call(1, GuestRequest.Lock, 5);
        job.Answer(1);
        job.CallAll(GuestRequest.Checkpoint);
        Assert.Contains("rank 1 holds lock 5", job.AllGot(Errno.EBUSY));
        Assert.Equal(0, job.Checkpoints);
    }

    [Theory]
    [InlineData(GuestRequest.Finish)]
    [InlineData(GuestRequest.Detach)]
    internal void What_is_being_copied_stays_until_it_is_safe(GuestRequest leave)
    {
        RecordedJob job = new(2);
        (RegionId id, _) = job.Attach("a", 1 << 20);
        job.CallAll(GuestRequest.Checkpoint);
        job.Job.OnCheckpointTaken(1, 0, "");
        job.AllGot(0);
        job.CallAll(GuestRequest.Barrier); // goes on
        job.AllGot(0);
        job.CallAll(leave, id.Value);
        Assert.False(job.IsAnswered(0));
        Assert.Empty(job.Dropped);
        job.Job.OnCheckpointEnded();
        job.AllGot(0);
        Assert.Single(job.Dropped);
    }

    [Fact]
    public void A_rank_that_ends_while_a_checkpoint_is_taken_fails_the_call_and_nothing_comes_after()
    {
        RecordedJob job = new(3);
        job.CallAll(GuestRequest.Checkpoint);
        job.Job.OnRankGone(2, "rank 2 was killed");
        Assert.Equal(Errno.EPIPE, job.Answer(0).Errno);
        Assert.Equal(Errno.EPIPE, job.Answer(1).Errno);
        job.Job.OnCheckpointTaken(0, 0, "");
        Assert.False(job.IsAnswered(0));
        Assert.False(job.Job.IsTaking);
    }

    [Fact]
    public void A_job_that_goes_on_finds_what_it_had()
    {
        RecordedJob job = new(2);
        (RegionId a, ulong addressA) = job.Attach("a", 1 << 20);
        (_, ulong addressB) = job.Attach("b", 3 << 20);
        job.CallAll(GuestRequest.AllocAll, a.Value, 4096, 64);
        ulong block = job.Answer(0).Message.A;
        job.AllGotRest(1);
        job.Call(0, GuestRequest.FetchAdd, 7, 41);
        job.Answer(0);
        JobRegion[] regions = [.. job.Job.Regions];
        Assert.True(job.Job.TrySave(regions, out SavedJob? saved, out _));

        RecordedJob again = new(2, joined: false);
        again.Job.Restore(9, saved!, [.. regions.Select(r => (r.Name, r.Bytes, r.Address))]);
        again.CallAll(GuestRequest.Join);
        Assert.Equal(9ul, again.Answer(0).Message.B);
        again.Answer(1);
        (RegionId b, ulong there) = again.Attach("b", 3 << 20);
        Assert.Equal(addressB, there);
        Assert.Equal(1, again.Job.Regions.Single(r => r.Id == b).RestoredFrom);
        again.CallAll(GuestRequest.Attach, 2 << 20, text: "a");
        Assert.Contains("1048576 bytes", again.AllGot(Errno.EINVAL));
        (RegionId a2, there) = again.Attach("a", 1 << 20);
        Assert.Equal(addressA, there);
        again.Call(1, GuestRequest.Alloc, a2.Value, 4096, 64);
        Assert.NotEqual(block, again.Answer(1).Message.A);
        again.Call(1, GuestRequest.Free, a2.Value, block);
        Assert.Equal(0, again.Answer(1).Errno);
        again.Call(1, GuestRequest.FetchAdd, 7, 1);
        Assert.Equal(41ul, again.Answer(1).Message.A);
        (_, ulong other) = again.Attach("c", 1 << 20); // where nothing was
        Assert.True(other >= addressB + (4 << 20));
        again.CallAll(GuestRequest.Detach, a2.Value);
        again.AllGot(0);
        (RegionId fresh, _) = again.Attach("a", 5 << 20); // what it had is gone with it
        Assert.Null(again.Job.Regions.Single(r => r.Id == fresh).RestoredFrom);
    }

    [Fact]
    public void A_call_that_finds_none_due_does_not_let_go_of_what_is_being_copied()
    {
        RecordedJob job = new(2);
        job.Attach("a", 1 << 20);
        job.CallAll(GuestRequest.Checkpoint);
        job.Job.OnCheckpointTaken(1, 0, "");
        job.AllGot(0);
        job.CallAll(GuestRequest.Checkpoint);
        job.Job.OnCheckpointTaken(0, 0, "");
        job.AllGot(0);
        job.CallAll(GuestRequest.Finish);
        Assert.False(job.IsAnswered(0));
        Assert.Empty(job.Dropped);
        job.Job.OnCheckpointEnded();
        job.AllGot(0);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void A_restored_region_that_could_not_be_made_may_be_attached_again_with_what_it_had(bool failsAtRank)
    {
        RecordedJob job = new(2, joined: false);
        job.Job.Restore(3, new SavedJob(JobLimits.FirstAddress + (8 << 20), [], [], [new SavedHeap([0, 64], 64)]), [("a", 1 << 20, JobLimits.FirstAddress)]);
        job.CallAll(GuestRequest.Join);
        job.AllGotRest(0);
        Assert.Equal(["a"], job.Job.Unattached);
        job.CallAll(GuestRequest.Attach, 1 << 20, text: "a");
        Assert.Empty(job.Job.Unattached);
        JobRegion region = Assert.Single(job.Making);
        job.Making.Clear();
        if (failsAtRank)
        {
            job.Job.OnRegionMade(region, 0, "");
            job.AllGot(0);
            job.Call(0, GuestRequest.Mapped, region.Id.Value);
            job.Call(1, GuestRequest.Mapped, region.Id.Value, Errno.ENOMEM);
            job.AllGot(Errno.ENOMEM);
        }
        else
        {
            job.Job.OnRegionMade(region, Errno.ENOMEM, "no room");
            job.AllGot(Errno.ENOMEM);
        }
        Assert.Equal(["a"], job.Job.Unattached);
        (RegionId again, ulong address) = job.Attach("a", 1 << 20);
        Assert.Equal(JobLimits.FirstAddress, address);
        JobRegion made = job.Job.Regions.Single(r => r.Id == again);
        Assert.Equal((0, 1), (made.RestoredFrom, made.Heap.BlockCount));
    }

    [Fact]
    public void What_was_saved_of_another_job_is_refused()
    {
        RecordedJob job = new(1, joined: false);
        SavedJob saved = new(0, [1, 1], [0, 0], []);
        Assert.Throws<InvalidDataException>(() => job.Job.Restore(1, saved, []));
        Assert.Throws<InvalidDataException>(() => new RecordedJob(1, joined: false).Job.Restore(1, saved, [("a", 4096, JobLimits.FirstAddress)]));
        SavedJob sound = new(JobLimits.FirstAddress + (4 << 20), [], [], [new SavedHeap([], 0)]);
        new RecordedJob(1, joined: false).Job.Restore(1, sound, [("a", 4096, JobLimits.FirstAddress)]);
        foreach ((ulong bytes, ulong address) in new[] { (0ul, JobLimits.FirstAddress), (4096ul, 4096ul), (4096ul, JobLimits.FirstAddress + 4096), (8ul << 20, JobLimits.FirstAddress), (4096ul, JobLimits.FirstAddress + (4 << 20)) })
            Assert.Throws<InvalidDataException>(() => new RecordedJob(1, joined: false).Job.Restore(1, sound, [("a", bytes, address)]));
        Assert.Throws<InvalidDataException>(() => new RecordedJob(1, joined: false).Job.Restore(1, sound with { Heaps = [new SavedHeap([8, 16], 64)] }, [("a", 4096, JobLimits.FirstAddress)]));
        Assert.Throws<InvalidDataException>(() => new RecordedJob(1, joined: false).Job.Restore(1, sound with { Heaps = [null!] }, [("a", 4096, JobLimits.FirstAddress)]));
    }
}
