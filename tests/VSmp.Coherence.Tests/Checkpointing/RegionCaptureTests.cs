// SPDX-License-Identifier: Apache-2.0
using VSmp.Coherence.Checkpointing;
using VSmp.Coherence.Homes;
using VSmp.Coherence.Messages;
using VSmp.Coherence.Nodes;
using VSmp.Coherence.Placement;
using VSmp.Coherence.Protocols;

namespace VSmp.Coherence.Tests.Checkpointing;

public sealed class RegionCaptureTests
{
    private static readonly ExtentNumber First = new(0), Second = new(1);
    private readonly Region _region;
    private readonly RegionCapture _capture = new(2);
    private readonly List<PageRun> _writable = [];

    public RegionCaptureTests()
    {
        HomeMap homes = new(2);
        homes.Place(First, new NodeId(0));
        homes.Place(Second, new NodeId(1));
        _region = new Region(new RegionId(1), "tested", 2, Moesi.Protocol, homes, new FrameBudget(10));
        _region.Open(First);
        _region.Open(Second);
        _region.BecomeHome(First);
    }

    [Theory]
    [InlineData(NodeState.M, true)]
    [InlineData(NodeState.E, true)]
    [InlineData(NodeState.O, true)]
    [InlineData(NodeState.S, false)]
    [InlineData(NodeState.I, false)]
    public void Owners_answer_and_what_they_may_write_is_to_be_protected(NodeState state, bool answers)
    {
        PageNumber page = Second.FirstPage.Plus(70);
        _region.PageAt(page).State = state;
        Assert.True(Cut());
        Assert.Equal(answers, _capture.IsPending(page));
        Assert.Equal(answers, _capture.IsSaved(page));
        Assert.Equal(state == NodeState.M ? [new PageRun(page, 1)] : [], _writable);
        Assert.Equal(answers ? 1ul : 0, _capture.PendingCount);
    }

    [Theory]
    [InlineData(DirectoryState.I, true)]
    [InlineData(DirectoryState.S, true)]
    [InlineData(DirectoryState.M, false)]
    [InlineData(DirectoryState.E, false)]
    [InlineData(DirectoryState.O, false)]
    public void A_home_answers_for_what_has_no_owner(DirectoryState state, bool answers)
    {
        PageNumber page = new(3);
        _region.EntryAt(page) = DirectoryEntry.Zero with { State = state, Version = new PageVersion(2) };
        Assert.True(Cut());
        Assert.Equal(answers, _capture.IsPending(page));
        Assert.Empty(_writable);
    }

    [Fact]
    public void What_was_never_granted_is_not_copied()
    {
        _region.EntryAt(new PageNumber(3)).AddSharer(new NodeId(1));
        Assert.True(Cut());
        Assert.Equal(0ul, _capture.PendingCount);
    }

    [Fact]
    public void What_is_lost_is_not_cut()
    {
        _region.EntryAt(new PageNumber(3)).State = DirectoryState.Lost;
        Assert.False(Cut());
    }

    [Fact]
    public void What_did_not_change_is_not_copied_again_unless_all_is()
    {
        PageNumber page = new(5), other = new(6);
        _region.PageAt(page).State = _region.PageAt(other).State = NodeState.M;
        Assert.True(Cut());
        Assert.True(_capture.Take(page));
        Assert.True(_capture.Take(other));
        Assert.False(_capture.Take(other));
        _capture.OnChange(other);
        Assert.True(Cut());
        Assert.False(_capture.IsPending(page));
        Assert.True(_capture.Take(other));
        Assert.Equal([new PageRun(other, 1)], _writable);
        Assert.True(Cut(isFull: true));
        Assert.Equal(2ul, _capture.PendingCount);
        Assert.Empty(_writable); // it is protected already
    }

    [Fact]
    public void Nothing_changes_before_it_is_copied_and_nothing_is_cut_before_that_either()
    {
        PageNumber page = new(5);
        _region.PageAt(page).State = NodeState.M;
        Assert.True(Cut());
        Assert.Throws<InvalidOperationException>(() => _capture.OnChange(page));
        Assert.Throws<InvalidOperationException>(() => Cut());
        _capture.Reset();
        Assert.True(Cut());
    }

    [Fact]
    public void Pending_pages_are_found_in_order()
    {
        PageNumber[] pages = [new(0), new(63), new(64), new(511), new(512), new(1023)];
        foreach (PageNumber page in pages) _region.PageAt(page).State = NodeState.E;
        Assert.True(Cut());
        List<PageNumber> found = [];
        PageNumber from = default;
        while (_capture.TryFindPending(from, out PageNumber page))
        {
            found.Add(page);
            from = page.Plus(1);
        }
        Assert.Equal(pages, found);
    }

    [Theory]
    [InlineData(EffectKind.InstallReadable, MessageFlags.None, true)]
    [InlineData(EffectKind.InstallReadable, MessageFlags.NoData, false)]
    [InlineData(EffectKind.InstallWritable, MessageFlags.NoData, true)]
    [InlineData(EffectKind.MakeWritable, MessageFlags.None, true)]
    [InlineData(EffectKind.Unmap, MessageFlags.None, true)]
    [InlineData(EffectKind.WriteHome, MessageFlags.Zero, true)]
    [InlineData(EffectKind.DropHome, MessageFlags.None, true)]
    [InlineData(EffectKind.WriteProtect, MessageFlags.None, false)]
    [InlineData(EffectKind.Keep, MessageFlags.None, false)]
    [InlineData(EffectKind.Send, MessageFlags.None, false)]
    public void Effects_that_change_a_frame_or_let_it_be_written_are_known(EffectKind kind, MessageFlags flags, bool changes) =>
        Assert.Equal(changes, RegionCapture.Changes(kind, flags));

    [Theory]
    [InlineData(0ul, "")]
    [InlineData(1ul, "64+1")]
    [InlineData(1ul << 63, "127+1")]
    [InlineData(ulong.MaxValue, "64+64")]
    [InlineData(0b1011_0000_0111ul, "64+3 72+2 75+1")]
    public void Runs_have_the_pages_that_were_added(ulong pages, string expected)
    {
        List<PageRun> runs = [];
        PageRun.Add(runs, new PageNumber(64), pages);
        Assert.Equal(expected, string.Join(' ', runs.Select(run => $"{run.First.Value}+{run.Count}")));
    }

    [Fact]
    public void Runs_that_meet_become_one()
    {
        List<PageRun> runs = [];
        PageRun.Add(runs, new PageNumber(0), 0b11ul << 62);
        PageRun.Add(runs, new PageNumber(64), ulong.MaxValue);
        PageRun.Add(runs, new PageNumber(128), 0b101);
        Assert.Equal([new PageRun(new PageNumber(62), 67), new PageRun(new PageNumber(130), 1)], runs);
    }

    [Fact]
    public void A_region_is_quiet_when_no_page_and_no_entry_is_under_way()
    {
        NodeController node = new(new NodeId(0));
        PageNumber page = new(5);
        Assert.True(RegionCapture.IsQuiet(_region, node));
        _region.PageAt(page).State = NodeState.IS_D;
        Assert.False(RegionCapture.IsQuiet(_region, node));
        _region.PageAt(page).State = NodeState.S;
        _region.EntryAt(page).State = DirectoryState.M_A;
        Assert.False(RegionCapture.IsQuiet(_region, node));
        _region.EntryAt(page).State = DirectoryState.M;
        Assert.True(RegionCapture.IsQuiet(_region, node));
        _region.IsFrozen = true;
        Assert.False(RegionCapture.IsQuiet(_region, node));
    }

    private bool Cut(bool isFull = false)
    {
        _writable.Clear();
        return _capture.TryCut(_region, isFull, _writable);
    }
}
