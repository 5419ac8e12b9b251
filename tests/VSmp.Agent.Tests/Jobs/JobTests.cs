// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent.Guests;
using VSmp.Agent.Interop;
using VSmp.Agent.Jobs;
using Xunit;

namespace VSmp.Agent.Tests.Jobs;

public sealed class JobTests
{
    private const ulong Megabyte = 1 << 20;

    [Fact]
    public void Start_returns_when_all_ranks_have_joined()
    {
        RecordedJob job = new(3, joined: false);
        job.Call(2, GuestRequest.Join);
        job.Call(0, GuestRequest.Join);
        Assert.False(job.IsAnswered(0) || job.IsAnswered(2));
        job.Call(1, GuestRequest.Join);
        Assert.Equal("default", job.AllGot(0));
    }

    [Fact]
    public void A_rank_that_never_joins_is_an_error_for_those_that_wait_for_it_and_those_that_come_later()
    {
        RecordedJob job = new(3, joined: false);
        job.Call(0, GuestRequest.Join);
        job.Job.OnRankGone(1, "rank 1 was killed by signal 9");
        var answer = job.Answer(0);
        Assert.Equal((Errno.EPIPE, "rank 1 was killed by signal 9"), (answer.Errno, answer.Text));
        job.Call(2, GuestRequest.Join);
        Assert.Equal(Errno.EPIPE, job.Answer(2).Errno);
    }

    [Fact]
    public void A_rank_that_did_not_join_or_joins_twice_is_refused()
    {
        RecordedJob job = new(2, joined: false);
        job.Call(0, GuestRequest.Barrier);
        Assert.Equal(Errno.EINVAL, job.Answer(0).Errno);
        job.Call(0, GuestRequest.Join);
        job.Call(0, GuestRequest.Join);
        Assert.Equal(Errno.EINVAL, job.Answer(0).Errno);
        Assert.False(job.IsAnswered(0));
    }

    [Fact]
    public void A_barrier_lets_nobody_through_before_all_are_there_however_often_it_is_used()
    {
        RecordedJob job = new(4);
        for (int round = 0; round < 3; round++)
        {
            for (int i = 0; i < 4; i++)
            {
                int rank = (i + round) % 4;
                for (int other = 0; other < 4; other++) Assert.False(job.IsAnswered(other));
                job.Call(rank, GuestRequest.Barrier);
            }
            job.AllGot(0);
        }
    }

    [Fact]
    public void A_rank_that_dies_in_a_barrier_fails_it_for_the_others_and_every_later_one()
    {
        RecordedJob job = new(3);
        job.Call(0, GuestRequest.Barrier);
        job.Call(1, GuestRequest.Barrier);
        job.Job.OnRankGone(1, "rank 1 died");
        Assert.Equal((Errno.EPIPE, "rank 1 died"), job.Answer(0) is var a ? (a.Errno, a.Text) : default);
        Assert.False(job.IsAnswered(1));
        job.Call(2, GuestRequest.Barrier);
        Assert.Equal(Errno.EPIPE, job.Answer(2).Errno);
    }

    [Fact]
    public void Locks_pass_on_in_the_order_of_asking()
    {
        RecordedJob job = new(3);
        job.Call(1, GuestRequest.Lock, 9);
        Assert.Equal(0, job.Answer(1).Errno);
        job.Call(2, GuestRequest.Lock, 9);
        job.Call(0, GuestRequest.Lock, 9);
        job.Call(0, GuestRequest.Lock, 10); // another lock is free
        Assert.Equal(0, job.Answer(0).Errno);
        job.Call(1, GuestRequest.Unlock, 9);
        Assert.Equal(0, job.Answer(1).Errno);
        Assert.Equal(0, job.Answer(2).Errno);
        Assert.False(job.IsAnswered(0));
        job.Call(2, GuestRequest.Unlock, 9);
        Assert.Equal(0, job.Answer(0).Errno);
    }

    [Fact]
    public void Who_does_not_hold_a_lock_cannot_unlock_it_and_who_does_cannot_lock_it_again()
    {
        RecordedJob job = new(2);
        job.Call(0, GuestRequest.Unlock, 1);
        Assert.Equal(Errno.EPERM, job.Answer(0).Errno);
        job.Call(0, GuestRequest.Lock, 1);
        Assert.Equal(0, job.Answer(0).Errno);
        job.Call(0, GuestRequest.Lock, 1);
        Assert.Equal(Errno.EDEADLK, job.Answer(0).Errno);
        job.Call(1, GuestRequest.Unlock, 1);
        Assert.Equal(Errno.EPERM, job.Answer(1).Errno);
    }

    [Fact]
    public void The_lock_of_a_dead_rank_goes_to_the_next_with_a_warning_and_only_to_the_next()
    {
        RecordedJob job = new(4);
        job.Call(1, GuestRequest.Lock, 5);
        job.Answer(1);
        job.Call(1, GuestRequest.Lock, 6);
        job.Answer(1);
        job.Call(2, GuestRequest.Lock, 5);
        job.Call(3, GuestRequest.Lock, 5);
        job.Job.OnRankGone(1, "rank 1 died");
        Assert.Equal(Errno.EOWNERDEAD, job.Answer(2).Errno);
        Assert.False(job.IsAnswered(3));
        job.Call(2, GuestRequest.Unlock, 5);
        Assert.Equal(0, job.Answer(2).Errno);
        Assert.Equal(0, job.Answer(3).Errno);
        // Nobody waited for the other one; who asks next is warned as well.
        job.Call(0, GuestRequest.Lock, 6);
        Assert.Equal(Errno.EOWNERDEAD, job.Answer(0).Errno);
    }

    [Fact]
    public void A_rank_that_dies_while_it_waits_for_a_lock_does_not_get_it()
    {
        RecordedJob job = new(3);
        job.Call(0, GuestRequest.Lock, 5);
        job.Answer(0);
        job.Call(1, GuestRequest.Lock, 5);
        job.Call(2, GuestRequest.Lock, 5);
        job.Job.OnRankGone(1, "rank 1 died");
        job.Call(0, GuestRequest.Unlock, 5);
        Assert.Equal(0, job.Answer(0).Errno);
        Assert.Equal(0, job.Answer(2).Errno);
        Assert.False(job.IsAnswered(1));
    }

    [Fact]
    public void Counters_start_at_zero_and_give_what_they_were_before()
    {
        RecordedJob job = new(2);
        job.Call(0, GuestRequest.FetchAdd, 3, 5);
        job.Call(1, GuestRequest.FetchAdd, 3, unchecked((ulong)-7L));
        job.Call(0, GuestRequest.FetchAdd, 3, 0);
        Assert.Equal(0ul, job.Answer(0).Message.A);
        Assert.Equal(5ul, job.Answer(1).Message.A);
        Assert.Equal(-2L, (long)job.Answer(0).Message.A);
    }

    [Theory]
    [InlineData("a", 4 * Megabyte, "b", 4 * Megabyte)]
    [InlineData("a", 4 * Megabyte, "a", 8 * Megabyte)]
    public void Regions_that_differ_between_ranks_are_an_error_for_all_and_the_job_goes_on(string name, ulong bytes, string otherName, ulong otherBytes)
    {
        RecordedJob job = new(3);
        job.Call(0, GuestRequest.Attach, bytes, text: name);
        job.Call(1, GuestRequest.Attach, otherBytes, text: otherName);
        job.Call(2, GuestRequest.Attach, bytes, text: name);
        string text = job.AllGot(Errno.EPROTO);
        Assert.Contains($"rank 0 called vsmp_attach(\"{name}\", {bytes} bytes)", text, StringComparison.Ordinal);
        Assert.Contains($"rank 1 vsmp_attach(\"{otherName}\", {otherBytes} bytes)", text, StringComparison.Ordinal);
        Assert.Empty(job.Making);
        job.Attach("a", Megabyte);
    }

    [Fact]
    public void Ranks_in_different_collective_calls_are_told_so()
    {
        RecordedJob job = new(2);
        job.Call(0, GuestRequest.Barrier);
        job.Call(1, GuestRequest.Finish);
        Assert.Contains("vsmp_barrier(), rank 1 vsmp_finish()", job.AllGot(Errno.EPROTO), StringComparison.Ordinal);
    }

    [Fact]
    public void A_second_thread_in_a_collective_call_is_refused()
    {
        RecordedJob job = new(2);
        job.Call(0, GuestRequest.Barrier);
        job.Call(0, GuestRequest.Barrier);
        Assert.Equal(Errno.EALREADY, job.Answer(0).Errno);
        job.Call(1, GuestRequest.Barrier);
        job.AllGot(0);
    }

    [Fact]
    public void Regions_lie_apart_and_below_what_the_kernel_maps()
    {
        RecordedJob job = new(2);
        var a = job.Attach("a", 3 * Megabyte);
        var b = job.Attach("b", 1);
        Assert.True(b.Address >= a.Address + (4 * Megabyte) + (2 * Megabyte), "no guard between them");
        job.CallAll(GuestRequest.Attach, 1ul << 46, text: "c");
        Assert.Contains("does not fit", job.AllGot(Errno.ENOMEM), StringComparison.Ordinal);
        job.CallAll(GuestRequest.Attach, 0, text: "c");
        job.AllGot(Errno.EINVAL);
        job.CallAll(GuestRequest.Attach, 1, text: "../c");
        job.AllGot(Errno.EINVAL);
        job.CallAll(GuestRequest.Attach, 1, text: "a");
        job.AllGot(Errno.EBUSY);
    }

    [Fact]
    public void A_region_that_the_nodes_cannot_make_is_an_error_for_all()
    {
        RecordedJob job = new(2);
        job.CallAll(GuestRequest.Attach, Megabyte, text: "a");
        job.Job.OnRegionMade(job.Making[0], Errno.ENOMEM, "the pool is exhausted");
        Assert.Equal("the pool is exhausted", job.AllGot(Errno.ENOMEM));
        Assert.Empty(job.Job.Regions);
        Assert.Empty(job.Dropped); // no node has it
    }

    [Fact]
    public void A_region_that_one_rank_cannot_map_is_an_error_for_all_and_dropped()
    {
        RecordedJob job = new(2);
        job.CallAll(GuestRequest.Attach, Megabyte, text: "a");
        JobRegion region = job.Making[0];
        job.Job.OnRegionMade(region, 0, "");
        job.AllGot(0);
        job.Call(0, GuestRequest.Mapped, region.Id.Value);
        job.Call(1, GuestRequest.Mapped, region.Id.Value, Errno.EEXIST, text: "something is there");
        Assert.Equal("rank 1 cannot map the region: something is there", job.AllGot(Errno.EEXIST));
        Assert.Same(region, Assert.Single(job.Dropped));
    }

    [Fact]
    public void A_rank_that_dies_while_the_nodes_make_a_region_does_not_leave_it_behind()
    {
        RecordedJob job = new(2);
        job.CallAll(GuestRequest.Attach, Megabyte, text: "a");
        JobRegion region = job.Making[0];
        job.Job.OnRankGone(0, "rank 0 died");
        Assert.Equal(Errno.EPIPE, job.Answer(1).Errno);
        Assert.Empty(job.Dropped);
        job.Job.OnRegionMade(region, 0, "");
        Assert.Same(region, Assert.Single(job.Dropped));
        Assert.False(job.IsAnswered(1));
    }

    [Fact]
    public void A_region_is_dropped_when_the_last_rank_is_gone_and_not_before()
    {
        RecordedJob job = new(3);
        job.Attach("a", Megabyte);
        job.Job.OnRankGone(0, "rank 0 died");
        job.Job.OnRankGone(2, "rank 2 died");
        Assert.Empty(job.Dropped);
        job.Job.OnRankGone(1, "rank 1 ended");
        Assert.Single(job.Dropped);
    }

    [Fact]
    public void Detaching_and_finishing_drop_regions_once()
    {
        RecordedJob job = new(2);
        var a = job.Attach("a", Megabyte);
        job.Attach("b", Megabyte);
        job.CallAll(GuestRequest.Detach, a.Id.Value);
        job.AllGot(0);
        Assert.Equal(a.Id, Assert.Single(job.Dropped).Id);
        job.CallAll(GuestRequest.Finish);
        job.AllGot(0);
        Assert.Equal(2, job.Dropped.Count);
        job.Job.OnRankGone(0, "rank 0 ended");
        job.Job.OnRankGone(1, "rank 1 ended");
        Assert.Equal(2, job.Dropped.Count);
    }

    [Fact]
    public void Leaving_a_broken_job_gives_the_error_and_leaves()
    {
        RecordedJob job = new(2);
        job.Attach("a", Megabyte);
        job.Job.OnRankGone(0, "rank 0 died");
        job.Call(1, GuestRequest.Finish);
        Assert.Equal(Errno.EPIPE, job.Answer(1).Errno);
        Assert.Single(job.Dropped);
    }

    [Fact]
    public void A_lost_agent_fails_what_waits_and_what_comes()
    {
        RecordedJob job = new(3);
        job.Call(0, GuestRequest.Lock, 1);
        job.Answer(0);
        job.Call(1, GuestRequest.Lock, 1);
        job.Call(2, GuestRequest.Barrier);
        job.Job.OnAgentLost("node n1 is lost");
        Assert.Equal((Errno.ECONNRESET, "node n1 is lost"), job.Answer(1) is var a ? (a.Errno, a.Text) : default);
        Assert.Equal(Errno.ECONNRESET, job.Answer(2).Errno);
        job.Call(0, GuestRequest.FetchAdd, 1, 1);
        Assert.Equal(Errno.ECONNRESET, job.Answer(0).Errno);
    }

    [Fact]
    public void A_broadcast_gives_the_roots_data_to_the_others()
    {
        RecordedJob job = new(3);
        job.Call(0, GuestRequest.Broadcast, 2, 5);
        job.Call(1, GuestRequest.Broadcast, 2, 5);
        job.Call(2, GuestRequest.Broadcast, 2, 5, text: "hello");
        Assert.Equal("hello", job.Answer(0).Text);
        Assert.Equal("hello", job.Answer(1).Text);
        Assert.Equal("", job.Answer(2).Text);
        job.CallAll(GuestRequest.Broadcast, 3, 0);
        job.AllGot(Errno.EINVAL); // there is no rank 3
        job.Call(0, GuestRequest.Broadcast, 0, 4, text: "data");
        job.Call(1, GuestRequest.Broadcast, 1, 4, text: "data");
        job.Call(2, GuestRequest.Broadcast, 0, 4);
        job.AllGot(Errno.EPROTO);
    }

    [Fact]
    public void Allocation_gives_all_the_same_address_and_says_when_memory_was_used_before()
    {
        RecordedJob job = new(2);
        var (region, address) = job.Attach("a", Megabyte);
        job.CallAll(GuestRequest.AllocAll, region.Value, 100, 64);
        var first = job.Answer(0).Message;
        Assert.Equal((first.A, 0ul), (job.Answer(1).Message.A, first.B));
        Assert.Equal(address, first.A);
        job.Call(1, GuestRequest.Alloc, region.Value, 100, 4096);
        Assert.Equal(address + 4096, job.Answer(1).Message.A);
        job.Call(0, GuestRequest.Free, region.Value, first.A); // any rank may
        Assert.Equal(0, job.Answer(0).Errno);
        job.Call(0, GuestRequest.Free, region.Value, first.A);
        Assert.Equal(Errno.EINVAL, job.Answer(0).Errno);
        job.CallAll(GuestRequest.AllocAll, region.Value, 100, 64);
        var again = job.Answer(0).Message;
        Assert.Equal((first.A, 1ul), (again.A, again.B));
        job.Answer(1);
        job.CallAll(GuestRequest.AllocAll, region.Value, 2 * Megabyte, 0);
        Assert.Contains("no room", job.AllGot(Errno.ENOMEM), StringComparison.Ordinal);
        job.Call(0, GuestRequest.Alloc, region.Value, 1, 3);
        Assert.Equal(Errno.EINVAL, job.Answer(0).Errno);
        job.Call(0, GuestRequest.Alloc, 12345, 1, 0);
        Assert.Equal(Errno.EINVAL, job.Answer(0).Errno);
    }
}
