// SPDX-License-Identifier: Apache-2.0
using System.Buffers.Binary;
using VSmp.Agent.Guests;
using VSmp.Agent.Interop;
using VSmp.Agent.Jobs;
using VSmp.Agent.Paging;
using VSmp.Coherence;
using VSmp.Coherence.Messages;
using Xunit;

namespace VSmp.Agent.Tests.Jobs;

/// <summary>Lazy release consistency between nodes and leader: sets of pages on the wire, who is told what, which calls count.</summary>
public sealed class NoticesTests
{
    private static readonly RegionId Region = new(7);

    [Fact]
    public void Sets_of_pages_come_through_whatever_their_order()
    {
        Random random = new(1);
        for (int round = 0; round < 200; round++)
        {
            ulong[] pages = [.. Enumerable.Range(0, random.Next(1, 300)).Select(_ => (ulong)random.Next(0, round < 100 ? 400 : 1 << 20))];
            PageNumber[] read = [.. PageRuns.Write([.. pages.Select(p => new PageNumber(p))]).SelectMany(piece => PageRuns.Read(piece, 1 << 20))];
            Assert.Equal(pages.Distinct().Order(), read.Select(p => p.Value));
        }
    }

    [Fact]
    public void Sets_too_large_for_a_frame_come_in_pieces_that_each_fit()
    {
        // Every other page: no two make a run.
        byte[][] pieces = [.. PageRuns.Write([.. Enumerable.Range(0, 20_000).Select(i => new PageNumber((ulong)i * 2))])];
        Assert.Equal(3, pieces.Length);
        Assert.All(pieces, piece => Assert.InRange(piece.Length, 8, FrameHeader.MaxPayloadBytes));
        Assert.Equal(20_000, pieces.Sum(piece => PageRuns.Read(piece, 40_000).Length));
        Assert.Empty(PageRuns.Write([]));
    }

    [Theory]
    [InlineData(1ul << 24 | 9, "a run beyond the region's end")]
    [InlineData(10ul << 24, "a page beyond the region's end")]
    [InlineData(ulong.MaxValue, "far beyond it")]
    public void Sets_of_pages_that_no_region_has_are_refused(ulong run, string what)
    {
        byte[] bytes = new byte[8];
        BinaryPrimitives.WriteUInt64LittleEndian(bytes, run);
        Assert.True(Throws(bytes), what);
    }

    [Fact]
    public void Sets_that_overlap_go_backwards_or_end_within_a_run_are_refused()
    {
        Assert.True(Throws(Runs(3ul << 24 | 2, 5ul << 24))); // 3..5, 5
        Assert.True(Throws(Runs(3ul << 24, 1ul << 24)));
        Assert.True(Throws(new byte[7]));
        Assert.False(Throws(Runs(3ul << 24 | 2, 6ul << 24)));
    }

    [Fact]
    public void A_node_is_told_once_of_what_others_wrote_and_never_of_what_it_wrote_itself()
    {
        NodeId a = new(0), b = new(1), c = new(2);
        JobNotices notices = new([a, b, c]);
        notices.Open(Region, extentCount: 1);
        notices.OnWrites(a, Region, Runs(3ul << 24 | 1)); // 3, 4
        notices.OnWrites(b, Region, Runs(4ul << 24));
        Assert.Equal([3ul, 4ul], Told(notices, c)!);
        Assert.Empty(Told(notices, c)!);
        Assert.Equal([4ul], Told(notices, a)!);
        Assert.Equal([3ul, 4ul], Told(notices, b)!);
        notices.Close(Region);
        notices.OnWrites(a, Region, Runs(3ul << 24)); // late, of a region that is gone
        Assert.Empty(Told(notices, b)!);
    }

    [Fact]
    public void A_node_that_is_too_far_behind_is_told_to_drop_everything()
    {
        NodeId a = new(0), b = new(1);
        JobNotices notices = new([a, b]);
        notices.Open(Region, extentCount: 1024);
        for (int i = 0; i < 150; i++) notices.OnWrites(a, Region, Runs(0ul << 24 | 511));
        Assert.Null(Told(notices, b));
        Assert.Empty(Told(notices, b)!);
    }

    [Fact]
    public void A_stranger_cannot_speak_of_writes()
    {
        JobNotices notices = new([new NodeId(0)]);
        notices.Open(Region, extentCount: 1);
        Assert.Throws<ProtocolViolationException>(() => notices.OnWrites(new NodeId(5), Region, Runs(0)));
        Assert.Throws<ProtocolViolationException>(() => notices.OnWrites(new NodeId(0), Region, Runs(512ul << 24)));
    }

    [Fact]
    public void Whatever_lets_a_rank_learn_of_another_releases_there_and_acquires_here()
    {
        GuestRequest[] releasing = [GuestRequest.Unlock, GuestRequest.Free, GuestRequest.ReleaseRegion];
        GuestRequest[] acquiring = [GuestRequest.Lock, GuestRequest.Alloc, GuestRequest.Acquire];
        GuestRequest[] both = [GuestRequest.Barrier, GuestRequest.Broadcast, GuestRequest.AllocAll, GuestRequest.FetchAdd];
        foreach (GuestRequest call in Enum.GetValues<GuestRequest>())
        {
            Assert.Equal(releasing.Contains(call) || both.Contains(call), Synchronization.Releases(call));
            Assert.Equal(acquiring.Contains(call) || both.Contains(call), Synchronization.Acquires(Answer(call, 0)));
            Assert.False(Synchronization.Acquires(Answer(call, Errno.EPIPE)));
        }
        Assert.True(Synchronization.Acquires(Answer(GuestRequest.Lock, Errno.EOWNERDEAD)));
    }

    private static GuestMessage Answer(GuestRequest call, int status) => new() { Type = call | GuestRequest.Reply, Status = status };

    private static byte[] Runs(params ulong[] runs)
    {
        byte[] bytes = new byte[8 * runs.Length];
        for (int i = 0; i < runs.Length; i++) BinaryPrimitives.WriteUInt64LittleEndian(bytes.AsSpan(8 * i), runs[i]);
        return bytes;
    }

    private static bool Throws(byte[] runs)
    {
        try { PageRuns.Read(runs, pageCount: 10); }
        catch (ProtocolViolationException) { return true; }
        return false;
    }

    /// <summary>The pages of the region that a node is told of; null: all.</summary>
    private static ulong[]? Told(JobNotices notices, NodeId node)
    {
        ulong[]? told = [];
        notices.OnAcquire(node, (region, pages) =>
        {
            Assert.Equal(Region, region);
            told = pages?.Select(p => p.Value).Distinct().Order().ToArray();
        });
        return told;
    }
}
