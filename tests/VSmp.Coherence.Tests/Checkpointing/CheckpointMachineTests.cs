// SPDX-License-Identifier: Apache-2.0
using VSmp.Coherence.Checkpointing;
using VSmp.Coherence.Nodes;
using VSmp.Coherence.Placement;
using VSmp.Coherence.Protocols;

namespace VSmp.Coherence.Tests.Checkpointing;

public sealed class CheckpointMachineTests
{
    private static readonly NodeId Here = new(0), There = new(1);

    [Fact]
    public void Each_step_is_ordered_when_all_have_done_the_one_before()
    {
        CheckpointLeader leader = new([Here, There]);
        foreach (CheckpointStep step in (CheckpointStep[])[CheckpointStep.Prepare, CheckpointStep.Hold, CheckpointStep.Settle, CheckpointStep.Cut, CheckpointStep.Copy])
        {
            Assert.Equal(step, leader.Step);
            Assert.False(leader.OnDone(There, step));
            Assert.Throws<InvalidOperationException>(() => leader.Advance());
            Assert.True(leader.OnDone(Here, step));
            Assert.Equal(step + 1, leader.Advance());
        }
        Assert.True(leader.IsOver);
        Assert.False(leader.GiveUp());
    }

    [Fact]
    public void A_node_that_does_what_it_was_not_told_is_in_error()
    {
        CheckpointLeader leader = new([Here, There]);
        Assert.Throws<ProtocolViolationException>(() => leader.OnDone(Here, CheckpointStep.Hold));
        Assert.False(leader.OnDone(Here, CheckpointStep.Prepare));
        Assert.Throws<ProtocolViolationException>(() => leader.OnDone(Here, CheckpointStep.Prepare));
        Assert.Throws<ProtocolViolationException>(() => leader.OnDone(new NodeId(2), CheckpointStep.Prepare));
    }

    [Fact]
    public void What_is_done_for_a_checkpoint_that_was_given_up_is_not_heard()
    {
        CheckpointLeader leader = new([Here]);
        Assert.True(leader.GiveUp());
        Assert.True(leader.IsOver);
        Assert.False(leader.OnDone(Here, CheckpointStep.Prepare));
        Assert.Throws<InvalidOperationException>(() => leader.Advance());
    }

    [Fact]
    public void A_node_holds_from_Hold_to_Copy()
    {
        Region region = NewRegion();
        CheckpointMember member = new(Here, new NodeController(Here), [region]);
        Assert.Throws<ProtocolViolationException>(() => member.OnOrder(CheckpointStep.Hold)); // it has not prepared
        member.OnDone();
        Assert.False(region.IsHeld);
        foreach (CheckpointStep step in (CheckpointStep[])[CheckpointStep.Hold, CheckpointStep.Settle, CheckpointStep.Cut])
        {
            member.OnOrder(step);
            Assert.True(region.IsHeld);
            Assert.True(member.IsQuiet());
            member.OnDone();
            Assert.Throws<InvalidOperationException>(member.OnDone);
        }
        Assert.Throws<ProtocolViolationException>(() => member.OnOrder(CheckpointStep.Hold));
        member.OnOrder(CheckpointStep.Copy);
        Assert.False(region.IsHeld);
    }

    [Fact]
    public void Who_abandons_a_checkpoint_lets_go_and_forgets_what_was_saved()
    {
        Region region = NewRegion();
        region.Capture = new RegionCapture(1);
        region.PageAt(default).State = NodeState.M;
        CheckpointMember member = new(Here, new NodeController(Here), [region]);
        member.OnDone();
        member.OnOrder(CheckpointStep.Hold);
        Assert.True(region.Capture.TryCut(region, isFull: false, []));
        member.Abandon();
        Assert.False(region.IsHeld);
        Assert.False(region.Capture.IsSaved(default));
        Assert.Equal(0ul, region.Capture.PendingCount);
    }

    [Fact]
    public void A_region_that_was_recovered_meanwhile_makes_a_part_stale()
    {
        Region region = NewRegion();
        CheckpointMember member = new(Here, new NodeController(Here), [region]);
        Assert.False(member.IsStale);
        region.IsFrozen = true;
        Assert.True(member.IsStale);
        region.IsFrozen = false;
        region.Generation = region.Generation.Next();
        Assert.True(member.IsStale);
    }

    private static Region NewRegion()
    {
        HomeMap homes = new(1);
        homes.Place(new ExtentNumber(0), There);
        Region region = new(new RegionId(1), "tested", 1, Msi.Protocol, homes, new FrameBudget(10));
        region.Open(new ExtentNumber(0));
        return region;
    }
}
