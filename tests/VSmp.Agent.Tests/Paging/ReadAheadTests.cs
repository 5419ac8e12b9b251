// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent.Paging;
using VSmp.Coherence;
using Xunit;

namespace VSmp.Agent.Tests.Paging;

/// <summary>How far to ask ahead of a miss.</summary>
public sealed class ReadAheadTests
{
    private readonly ReadAhead _readAhead = new();

    [Fact]
    public void A_lone_miss_asks_for_nothing_else() => Assert.Equal((11ul, 0u), Miss(10));

    [Fact]
    public void Misses_here_and_there_never_ask_for_more()
    {
        ulong page = 1;
        for (int i = 0; i < 1000; i++)
        {
            page = (page * 6364136223846793005 + 1442695040888963407) % 1_000_000_007;
            Assert.Equal(0u, Miss(page).Count);
        }
    }

    [Fact]
    public void A_stream_asks_twice_as_far_each_time_and_leaves_nothing_out()
    {
        List<uint> counts = [];
        ulong next = 100;
        for (int i = 0; i < 9; i++)
        {
            (ulong first, uint count) = Miss(next);
            Assert.Equal(next + 1, first);
            counts.Add(count + 1);
            next = first + count;
        }
        Assert.Equal([1, 2, 4, 8, 16, 32, 64, 64, 64], counts);
    }

    [Fact]
    public void Memory_that_nobody_has_written_is_asked_for_farther_from_the_start()
    {
        List<uint> windows = [];
        for (ulong next = 0; windows.Count < 4;)
        {
            (ulong first, uint count) = Miss(next, isFresh: true);
            Assert.Equal(next + 1, first);
            windows.Add(count + 1);
            next = first + count;
        }
        Assert.Equal([ReadAhead.FreshWindow, 32, ReadAhead.MaxFreshWindow, ReadAhead.MaxFreshWindow], windows);
    }

    [Fact]
    public void Who_catches_up_with_what_is_on_its_way_has_the_window_filled_up_again()
    {
        ulong next = 0;
        for (int i = 0; i < 8; i++) next = Miss(next) is var (first, count) ? first + count : 0;
        ulong last = next - ReadAhead.MaxWindow; // where the last window begins
        // The reader has got what was sent first, and waits for what comes next.
        Assert.Equal((next, 16u), CatchUp(last + 16));
        Assert.Equal((next + 16, 16u), CatchUp(last + 32));
        Assert.Equal(0u, CatchUp(last + 20).Count); // another thread, behind: nothing is missing there
    }

    [Fact]
    public void Who_waits_for_what_no_stream_asked_for_asks_for_nothing_else()
    {
        Miss(10);
        Assert.Equal(0u, CatchUp(300).Count);
        Assert.Equal((12ul, 1u), Miss(11)); // nor is a stream begun by it, or forgotten
    }

    [Fact]
    public void Who_waits_for_the_rest_of_a_stream_of_known_length_asks_for_nothing_behind_it()
    {
        foreach (ulong page in new ulong[] { 10, 11, 13 }) Miss(page);
        Assert.Equal((11ul, 3u), Miss(10));
        Assert.Equal(0u, CatchUp(12).Count);
        Assert.Equal((15ul, 7u), Miss(14));
        Assert.Equal((22ul, 9u), CatchUp(15)); // it has gone on
    }

    [Fact]
    public void Who_misses_every_second_page_leaves_one_out()
    {
        Miss(10);
        Assert.Equal(0u, _readAhead.Gap);
        Miss(12, asked: 0);
        Assert.Equal(1u, _readAhead.Gap);
        Assert.Equal((15ul, 3u), Miss(14, asked: 2));
        Assert.Equal((19ul, 7u), Miss(18));
        Assert.Equal(1u, _readAhead.Gap);
        CatchUp(20);
        Assert.Equal(1u, _readAhead.Gap);
    }

    [Fact]
    public void What_was_not_asked_for_after_all_is_asked_for_at_the_next_miss()
    {
        for (ulong page = 0; page < 3; page++) Miss(page, asked: 0); // nothing could be
        Assert.Equal((4ul, 7u), Miss(3));
        Assert.Equal((12ul, 15u), Miss(11, asked: 5));
        Assert.Equal((18ul, 31u), Miss(17));
    }

    [Fact]
    public void Streams_beside_each_other_do_not_disturb_each_other()
    {
        ulong[] next = [0, 100_000, 200_000, 300_000];
        for (int i = 0; i < 8; i++)
        {
            for (int s = 0; s < next.Length; s++) next[s] = Miss(next[s]) is var (first, count) ? first + count : 0;
        }
        Assert.All(next, page => Assert.Equal(ReadAhead.MaxWindow - 1, Miss(page).Count));
    }

    [Fact]
    public void A_stream_that_begins_where_one_began_asks_for_what_that_wanted()
    {
        foreach (ulong page in new ulong[] { 10, 11, 13 }) Miss(page); // 10 to 13, and three more in vain
        Assert.Equal((11ul, 3u), Miss(10));
        Assert.Equal((11ul, 3u), Miss(10));
        Assert.Equal((15ul, 7u), Miss(14)); // more this time
        Assert.Equal((11ul, 4u), Miss(10)); // and then again
    }

    [Fact]
    public void The_length_of_a_stream_is_found_out_anew_once_in_a_while()
    {
        foreach (ulong page in new ulong[] { 10, 11, 13 }) Miss(page);
        for (int i = 1; i < ReadAhead.RestartsKnown; i++) Assert.Equal(3u, Miss(10).Count);
        Assert.Equal(0u, Miss(10).Count);
        Assert.Equal((12ul, 1u), Miss(11));
    }

    [Fact]
    public void A_page_that_is_missed_again_and_again_is_no_stream()
    {
        Miss(10);
        Miss(11); // now in the middle of one
        for (int i = 0; i < 100; i++)
        {
            Assert.Equal(0u, Miss(11).Count);
            Assert.Equal(0u, Miss(500).Count);
        }
    }

    [Fact]
    public void What_is_read_and_what_is_to_be_written_are_streams_of_their_own()
    {
        ulong next = 0;
        for (int i = 0; i < 4; i++) next = Miss(next, isUpgrade: true) is var (first, count) ? first + count : 0;
        Assert.Equal(0u, Miss(next).Count);
        Assert.Equal((next + 1, 15u), Miss(next, isUpgrade: true));
    }

    [Fact]
    public void Memory_that_is_touched_at_random_for_the_first_time_is_asked_for_in_larger_and_larger_blocks()
    {
        Assert.Equal((296ul, 8u), Miss(300, isFresh: true, isRoomy: true));
        Assert.Equal((0ul, 16u), Miss(5, isFresh: true, isRoomy: true));
        Assert.Equal((480ul, 32u), Miss(511, isFresh: true, isRoomy: true));
        Assert.Equal((384ul, 64u), Miss(400, isFresh: true, isRoomy: true));
        Assert.Equal((128ul, 128u), Miss(250, isFresh: true, isRoomy: true));
        Assert.Equal((0ul, 128u), Miss(20, isFresh: true, isRoomy: true));
        Assert.Equal((512ul, 8u), Miss(518, isFresh: true, isRoomy: true)); // another extent
        Assert.Equal((1001ul, 7u), Miss(1000, isFresh: true)); // where there is no room, no more than behind it
        Assert.Equal((701ul, 0u), Miss(700, isRoomy: true)); // and nothing that has been written
    }

    private (ulong First, uint Count) CatchUp(ulong page)
    {
        (PageNumber first, uint count) = _readAhead.OnCaughtUp(new PageNumber(page), isFresh: false, out _);
        if (count > 0) _readAhead.AskedUpTo(first.Plus(count));
        return (first.Value, count);
    }

    private (ulong First, uint Count) Miss(ulong page, bool isFresh = false, uint? asked = null, bool isUpgrade = false, bool isRoomy = false)
    {
        (PageNumber first, uint count) = _readAhead.OnMiss(new PageNumber(page), isFresh, isUpgrade, isRoomy);
        _readAhead.AskedUpTo(first.Plus(asked ?? count));
        return (first.Value, count);
    }
}
