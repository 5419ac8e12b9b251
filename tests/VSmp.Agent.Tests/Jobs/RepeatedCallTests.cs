// SPDX-License-Identifier: Apache-2.0
using System.Text;
using VSmp.Agent.Guests;
using VSmp.Agent.Interop;
using VSmp.Agent.Jobs;
using VSmp.Coherence;
using Xunit;

namespace VSmp.Agent.Tests.Jobs;

/// <summary>Calls that come again, since agents between rank and leader were killed: they are done once.</summary>
public sealed class RepeatedCallTests
{
    private const int Ranks = 3;

    private readonly List<(int Rank, GuestMessage Reply, string Data)> _replies = [];
    private readonly Job _job;

    public RepeatedCallTests()
    {
        _job = new Job(JobId.Create(new NodeId(1), 1), Ranks, "default", "msi", new Actions(this));
        for (int rank = 0; rank < Ranks; rank++) Call(rank, GuestRequest.Join, slot: 0, serial: 1);
        _replies.Clear();
    }

    [Fact]
    public void What_was_done_is_answered_again_and_not_done_again()
    {
        Call(0, GuestRequest.FetchAdd, slot: 0, serial: 2, a: 7, b: 5);
        Call(0, GuestRequest.FetchAdd, slot: 0, serial: 2, a: 7, b: 5);
        Call(1, GuestRequest.FetchAdd, slot: 0, serial: 2, a: 7, b: 1);
        Call(0, GuestRequest.FetchAdd, slot: 0, serial: 2, a: 7, b: 5);
        Assert.Equal([(0, 0UL), (0, 0UL), (1, 5UL), (0, 0UL)], _replies.Select(r => (r.Rank, r.Reply.A)));
        Assert.All(_replies, r => Assert.Equal((2u, 0u), (r.Reply.Serial, r.Reply.Slot)));
    }

    [Fact]
    public void A_refusal_is_repeated_in_its_words()
    {
        Call(0, GuestRequest.Unlock, slot: 3, serial: 2, a: 1);
        Call(1, GuestRequest.Lock, slot: 0, serial: 2, a: 1);
        Call(0, GuestRequest.Unlock, slot: 3, serial: 2, a: 1);
        Assert.Equal([Errno.EPERM, 0, Errno.EPERM], _replies.Select(r => r.Reply.Status));
        Assert.Equal(_replies[0].Data, _replies[2].Data);
    }

    [Fact]
    public void Who_waits_for_a_lock_and_calls_again_waits_once()
    {
        Call(0, GuestRequest.Lock, slot: 0, serial: 2, a: 1);
        Call(1, GuestRequest.Lock, slot: 0, serial: 2, a: 1);
        Call(1, GuestRequest.Lock, slot: 0, serial: 2, a: 1);
        Call(0, GuestRequest.Unlock, slot: 0, serial: 3, a: 1);
        Call(1, GuestRequest.Lock, slot: 0, serial: 2, a: 1); // has it
        Call(1, GuestRequest.Unlock, slot: 0, serial: 3, a: 1);
        Call(2, GuestRequest.Lock, slot: 0, serial: 2, a: 1);
        Assert.Equal([0, 1, 0, 1, 1, 2], _replies.Select(r => r.Rank));
        Assert.All(_replies, r => Assert.Equal(0, r.Reply.Status));
    }

    [Fact]
    public void A_barrier_counts_each_rank_once_and_lets_it_through_again_without_the_others()
    {
        Call(0, GuestRequest.Barrier, slot: 0, serial: 2);
        Call(0, GuestRequest.Barrier, slot: 0, serial: 2);
        Call(1, GuestRequest.Barrier, slot: 0, serial: 2);
        Assert.Empty(_replies);
        Call(2, GuestRequest.Barrier, slot: 0, serial: 2);
        Assert.Equal(Ranks, _replies.Count);
        Call(1, GuestRequest.Barrier, slot: 0, serial: 2);
        Assert.Equal(Ranks + 1, _replies.Count);
        Call(1, GuestRequest.Barrier, slot: 0, serial: 3); // the next one
        Assert.Equal(Ranks + 1, _replies.Count);
    }

    [Fact]
    public void A_broadcast_is_answered_again_with_its_data_until_the_slot_has_another_call()
    {
        for (int rank = 0; rank < Ranks; rank++) Call(rank, GuestRequest.Broadcast, slot: 0, serial: 2, a: 0, b: 5, data: rank == 0 ? "hello" : "");
        Call(2, GuestRequest.Broadcast, slot: 0, serial: 2, a: 0, b: 5);
        Assert.Equal("hello", _replies[^1].Data);
        int before = _replies.Count;
        Call(2, GuestRequest.Lock, slot: 0, serial: 3, a: 1);
        Call(2, GuestRequest.Broadcast, slot: 0, serial: 2, a: 0, b: 5); // has been on the way for long
        Assert.Equal(before + 1, _replies.Count);
    }

    [Fact]
    public void Many_calls_in_other_slots_leave_one_that_waits_alone()
    {
        Call(0, GuestRequest.Barrier, slot: 0, serial: 2);
        for (uint i = 0; i < 3 * AnswerBook.Slots; i++) Call(0, GuestRequest.FetchAdd, slot: 1, serial: 3 + i, a: 1, b: 1);
        Assert.Equal(3UL * AnswerBook.Slots - 1, _replies[^1].Reply.A);
        Call(0, GuestRequest.Barrier, slot: 0, serial: 2);
        Call(1, GuestRequest.Barrier, slot: 0, serial: 2);
        Call(2, GuestRequest.Barrier, slot: 0, serial: 2);
        Assert.Equal([0, 1, 2], _replies.TakeLast(Ranks).Select(r => r.Rank));
    }

    [Theory]
    [InlineData(uint.MaxValue, 0u)]
    [InlineData(uint.MaxValue, 1u)]
    public void Serial_numbers_begin_anew_after_the_last_one(uint last, uint next)
    {
        Call(0, GuestRequest.FetchAdd, slot: 5, serial: last, a: 1, b: 1);
        Call(0, GuestRequest.FetchAdd, slot: 5, serial: next, a: 1, b: 1);
        Call(0, GuestRequest.FetchAdd, slot: 5, serial: last, a: 1, b: 1);
        Assert.Equal([0UL, 1UL], _replies.Select(r => r.Reply.A));
    }

    [Fact]
    public void A_slot_that_there_is_not_is_refused()
    {
        Call(0, GuestRequest.FetchAdd, slot: AnswerBook.Slots, serial: 2, a: 1, b: 1);
        Assert.Equal(Errno.EPROTO, Assert.Single(_replies).Reply.Status);
        Call(0, GuestRequest.FetchAdd, slot: AnswerBook.Slots - 1, serial: 3, a: 1, b: 1);
        Assert.Equal((0, 0UL), (_replies[1].Reply.Status, _replies[1].Reply.A));
    }

    private void Call(int rank, GuestRequest type, uint slot, uint serial, ulong a = 0, ulong b = 0, string data = "") =>
        _job.OnCall(rank, new GuestMessage { Type = type, Slot = slot, Serial = serial, A = a, B = b }, Encoding.UTF8.GetBytes(data));

    private sealed class Actions(RepeatedCallTests test) : IJobActions
    {
        public void Reply(int rank, in GuestMessage reply, ReadOnlySpan<byte> data) => test._replies.Add((rank, reply, Encoding.UTF8.GetString(data)));

        public RegionId NewRegionId() => throw new InvalidOperationException("no region is attached");

        public void MakeRegion(JobRegion region) => throw new InvalidOperationException("no region is attached");

        public void TakeCheckpoint() => throw new InvalidOperationException("nobody calls for a checkpoint");

        public void DropRegion(JobRegion region) => throw new InvalidOperationException("no region was attached");
    }
}
