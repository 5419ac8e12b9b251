// SPDX-License-Identifier: Apache-2.0
using VSmp.Coherence.Lazy;
using VSmp.Coherence.Messages;
using VSmp.Coherence.Nodes;
using VSmp.Coherence.Placement;
using VSmp.Coherence.Protocols;

namespace VSmp.Coherence.Tests.Lazy;

/// <summary>Drives the controller into every state by real events, then through every cell.</summary>
public sealed class LazyTableTests
{
    private static readonly NodeId Self = new(1), HomeNode = new(0);
    private static readonly PageNumber Page = new(7);

    public static TheoryData<LazyState, LazyEvent> Cells()
    {
        var cells = new TheoryData<LazyState, LazyEvent>();
        foreach (LazyState s in LazyRelease.Node.States)
        {
            foreach (LazyEvent e in LazyRelease.Node.Events) cells.Add(s, e);
        }
        return cells;
    }

    [Theory]
    [MemberData(nameof(Cells))]
    public void A_node_does_what_its_table_says(LazyState state, LazyEvent @event)
    {
        var (node, region, effects) = New(HomeNode);
        LazyEvent[] path = state switch
        {
            LazyState.I => [],
            LazyState.R => [LazyEvent.Load, LazyEvent.Data],
            LazyState.W => [LazyEvent.Store, LazyEvent.Data],
            LazyState.IR_D => [LazyEvent.Load],
            LazyState.IR_D_I => [LazyEvent.Load, LazyEvent.Notice],
            LazyState.IW_D => [LazyEvent.Store],
            _ => [LazyEvent.Store, LazyEvent.Notice],
        };
        // A release is about pages that were written: whatever became of this one since.
        if (@event == LazyEvent.Release && state != LazyState.W) path = [LazyEvent.Store, LazyEvent.Data, LazyEvent.Evict, .. path];
        foreach (LazyEvent e in path) Apply(node, region, effects, e);
        Assert.Equal(state, region.PageAt(Page).State);
        effects.Clear();
        var cell = LazyRelease.Node[state, @event];
        if (cell.Verdict == Verdict.Impossible)
        {
            Assert.Throws<ProtocolViolationException>(() => Apply(node, region, effects, @event));
            return;
        }
        Apply(node, region, effects, @event);
        Assert.Equal(cell.Verdict == Verdict.Stall ? state : cell.Next, region.PageAt(Page).State);
        EffectKind[] expected = [.. cell.Actions.ToArray().SelectMany<LazyAction, EffectKind>(a => a switch
        {
            LazyAction.Hit => [],
            LazyAction.SendGetS => [EffectKind.Send],
            LazyAction.SendDiff => [EffectKind.Send, EffectKind.DropTwin],
            LazyAction.MakeTwin => [EffectKind.MakeTwin],
            LazyAction.MakeWritable => [EffectKind.MakeWritable],
            LazyAction.InstallReadable => [EffectKind.InstallReadable],
            LazyAction.WriteFrame => [EffectKind.WriteFrame],
            LazyAction.WriteProtect => [EffectKind.WriteProtect],
            _ => [EffectKind.Unmap],
        })];
        Assert.Equal(expected, Enumerable.Range(0, effects.Count).Select(i => effects[i].Kind));
    }

    [Fact]
    public void A_release_completes_when_every_diff_is_merged_even_one_that_an_eviction_sent()
    {
        var (node, region, effects) = New(HomeNode);
        Apply(node, region, effects, LazyEvent.Store);
        Apply(node, region, effects, LazyEvent.Data);
        Apply(node, region, effects, LazyEvent.Evict);
        node.Release(region, effects);
        var pages = new List<PageNumber>();
        Assert.False(LazyNodeController.TryTakeNotices(region, pages));
        node.OnMessage(region, Answer(MessageType.DiffAck), effects);
        Assert.True(LazyNodeController.TryTakeNotices(region, pages));
        Assert.Equal([Page], pages);
        Assert.Throws<ProtocolViolationException>(() => node.OnMessage(region, Answer(MessageType.DiffAck), effects));
    }

    [Fact]
    public void At_home_a_store_needs_no_twin_and_a_release_no_diff_but_others_hear_of_it()
    {
        var (node, region, effects) = New(Self);
        var home = new LazyHomeController(Self);
        region.BecomeHome(Page.Extent);
        Assert.Equal(AccessResult.Pending, node.Access(region, Page, write: true, effects));
        Message request = effects[0].Message;
        effects.Clear();
        home.OnMessage(region, in request, effects);
        Message answer = effects[0].Message;
        Assert.Equal(MessageFlags.Zero, answer.Flags);
        effects.Clear();
        node.OnMessage(region, in answer, effects);
        Assert.Equal([EffectKind.WriteFrame, EffectKind.MakeWritable], Enumerable.Range(0, effects.Count).Select(i => effects[i].Kind));
        effects.Clear();
        node.Release(region, effects);
        Assert.Equal([EffectKind.WriteProtect], Enumerable.Range(0, effects.Count).Select(i => effects[i].Kind));
        var pages = new List<PageNumber>();
        Assert.True(LazyNodeController.TryTakeNotices(region, pages));
        Assert.Equal([Page], pages);
        node.Acquire(region, [Page], effects);
        Assert.False(node.TryEvict(region, Page, effects));
        Assert.Equal(LazyState.R, region.PageAt(Page).State);
    }

    [Fact]
    public void A_written_copy_pays_for_its_twin_and_stays_while_a_release_waits()
    {
        var (node, region, effects) = New(HomeNode);
        Assert.Equal(AccessResult.Pending, node.Access(region, Page, write: true, effects));
        Assert.Equal(2, region.Budget!.UsedPages);
        node.OnMessage(region, Answer(MessageType.DataS), effects);
        Assert.Equal(AccessResult.Pending, node.Access(region, Page.Plus(1), write: true, effects));
        Assert.Equal(4, region.Budget.UsedPages);
        node.OnMessage(region, Answer(MessageType.DataS) with { Page = Page.Plus(1) }, effects);
        Assert.Equal(AccessResult.NeedsFrame, node.Access(region, Page.Plus(2), write: false, effects));
        node.Release(region, effects); // both twins go
        Assert.Equal(2, region.Budget.UsedPages);
        Assert.True(region.IsReleasing);
        Assert.Equal(AccessResult.Pending, node.Access(region, Page, write: true, effects)); // another rank goes on
        Assert.False(node.TryEvict(region, Page, effects));
        Assert.True(node.TryEvict(region, Page.Plus(1), effects)); // clean: nothing to wait for
        var pages = new List<PageNumber>();
        Assert.False(LazyNodeController.TryTakeNotices(region, pages));
        effects.Clear();
        node.OnMessage(region, Answer(MessageType.DiffAck), effects);
        Assert.Equal(0, effects.Count);
        node.OnMessage(region, Answer(MessageType.DiffAck), effects);
        Assert.Equal(EffectKind.Complete, effects[0].Kind);
        Assert.True(LazyNodeController.TryTakeNotices(region, pages));
        Assert.Equal([Page, Page.Plus(1)], pages);
        Assert.True(node.TryEvict(region, Page, effects));
        Assert.Equal(0, region.Budget.UsedPages);
        // Its diff is out, but belongs to a release that has not begun.
        Assert.True(LazyNodeController.TryTakeNotices(region, pages));
        node.Release(region, effects);
        Assert.False(LazyNodeController.TryTakeNotices(region, pages));
    }

    [Fact]
    public void Messages_that_do_not_fit_are_violations()
    {
        var (node, region, effects) = New(HomeNode);
        Message stranger = Answer(MessageType.DataS);
        stranger.Source = new NodeId(9);
        Assert.Throws<ProtocolViolationException>(() => node.OnMessage(region, in stranger, effects));
        Assert.Throws<ProtocolViolationException>(() => node.Acquire(region, [new PageNumber(1ul << 40)], effects));
        Assert.Throws<ProtocolViolationException>(() => new LazyHomeController(Self).OnMessage(region, Answer(MessageType.GetS), effects));
    }

    private static (LazyNodeController, LazyRegion, EffectBuffer) New(NodeId homeNode)
    {
        var homes = new HomeMap(1);
        homes.Place(new ExtentNumber(0), homeNode);
        var region = new LazyRegion(new RegionId(1), "tested", 1, homes, new FrameBudget(4));
        region.Open(new ExtentNumber(0));
        return (new LazyNodeController(Self), region, new EffectBuffer());
    }

    private static void Apply(LazyNodeController node, LazyRegion region, EffectBuffer effects, LazyEvent @event)
    {
        switch (@event)
        {
            case LazyEvent.Load or LazyEvent.Store:
                _ = node.Access(region, Page, @event == LazyEvent.Store, effects);
                break;
            case LazyEvent.Evict:
                _ = node.TryEvict(region, Page, effects);
                break;
            case LazyEvent.Notice:
                node.Acquire(region, [Page], effects);
                break;
            case LazyEvent.Release:
                node.Release(region, effects);
                break;
            default:
                node.OnMessage(region, Answer(MessageType.DataS), effects);
                break;
        }
    }

    private static Message Answer(MessageType type) => new() { Type = type, Source = HomeNode, Requestor = Self, Count = 1, Region = new RegionId(1), Page = Page };
}
