// SPDX-License-Identifier: Apache-2.0
using VSmp.Coherence.Membership;
using static VSmp.Coherence.Membership.MembershipEffectKind;

namespace VSmp.Coherence.Tests.Membership;

public sealed class MembershipMachineTests
{
    [Theory]
    [InlineData(DecidedBy.Majority, 1)]
    [InlineData(DecidedBy.Majority, 2)]
    [InlineData(DecidedBy.Majority, 5)]
    [InlineData(DecidedBy.Coordinator, 1)]
    [InlineData(DecidedBy.Coordinator, 4)]
    public void Members_that_hear_each_other_have_leases_and_stay_in_their_view(DecidedBy decidedBy, int nodes)
    {
        var members = new SteadyMembers(decidedBy, nodes);
        for (int i = 0; i < 500; i++)
        {
            members.Run(10);
            for (int node = 0; node < nodes; node++) Assert.True(members.HasLease(node));
        }
        Assert.Equal((uint)nodes, members.Record.Number.Value);
    }

    [Fact]
    public void A_lease_runs_from_the_sending_of_what_a_majority_acknowledged()
    {
        var members = new SteadyMembers(DecidedBy.Majority, 3);
        MembershipMachine machine = new(new NodeId(0), DecidedBy.Majority, new MembershipTimes());
        var effects = new MembershipEffects();
        machine.Enter(1, members.Record, 1000, effects);
        machine.OnTick(1010, effects);
        Assert.False(machine.LeaseUntilTicks > 0);
        machine.OnHeartbeat(new NodeId(1), new Heartbeat { View = members.Record.Number, SentTicks = 77, AcknowledgedTicks = 1000 }, 1100, effects);
        machine.OnTick(1110, effects);
        Assert.Equal(1300, machine.LeaseUntilTicks);
    }

    [Fact]
    public void Acknowledgements_of_another_view_give_no_lease()
    {
        MembershipView view = new SteadyMembers(DecidedBy.Majority, 3).Record;
        foreach (uint number in (uint[])[view.Number.Value - 1, view.Number.Value + 1])
        {
            MembershipMachine machine = new(new NodeId(0), DecidedBy.Majority, new MembershipTimes());
            var effects = new MembershipEffects();
            machine.Enter(1, view, 1000, effects);
            machine.OnHeartbeat(new NodeId(1), new Heartbeat { View = new ViewNumber(number), SentTicks = 77, AcknowledgedTicks = 1000 }, 1100, effects);
            machine.OnTick(1110, effects);
            Assert.False(machine.LeaseUntilTicks > 0, $"acknowledged in view {number}");
        }
    }

    [Fact]
    public void A_node_that_is_cut_off_loses_its_lease_before_it_is_excluded()
    {
        var members = new SteadyMembers(DecidedBy.Majority, 3);
        members.Cut(2, 0);
        members.Cut(2, 1);
        members.Run(2000);
        Assert.Equal([0, 1], members.Ids);
        long lost = members.When(2, LeaseRanOut, 2)!.Value;
        foreach (int node in (int[])[0, 1]) Assert.True(lost < members.When(node, Excluded, 2), "it still had its lease");
        Assert.NotNull(members.When(2, Expelled, 2));
        Assert.True(members.HasLease(0) && members.HasLease(1));
    }

    [Fact]
    public void A_host_that_refuses_connections_is_excluded_within_half_a_second()
    {
        foreach (DecidedBy decidedBy in Enum.GetValues<DecidedBy>())
        {
            var members = new SteadyMembers(decidedBy, 3);
            long killed = members.Now;
            members.Kill(2);
            members.Evidence[2] = PeerEvidence.Refused;
            members.Run(1000);
            Assert.InRange(members.When(0, Excluded, 2)!.Value - killed, 300, 500);
            Assert.InRange(members.When(1, Excluded, 2)!.Value - killed, 300, 500);
        }
    }

    [Fact]
    public void A_silent_host_is_excluded_when_it_was_silent_for_the_time_that_makes_it_suspect()
    {
        var members = new SteadyMembers(DecidedBy.Majority, 3);
        long killed = members.Now;
        members.Kill(2);
        members.Run(2000);
        Assert.InRange(members.When(0, Excluded, 2)!.Value - killed, 900, 1200);
    }

    [Fact]
    public void An_agent_that_is_being_restarted_is_waited_for_but_not_for_ever()
    {
        var members = new SteadyMembers(DecidedBy.Majority, 3);
        long killed = members.Now;
        members.Kill(2);
        members.Evidence[2] = PeerEvidence.AgentDown;
        members.Run(9000);
        Assert.Equal([0, 1, 2], members.Ids);
        Assert.False(members[0].IsSuspected(new NodeId(2)));
        members.Run(3000);
        Assert.InRange(members.When(0, Excluded, 2)!.Value - killed, 9_900, 10_400);
    }

    [Fact]
    public void A_keeper_that_goes_while_its_agent_is_being_restarted_is_noticed()
    {
        var members = new SteadyMembers(DecidedBy.Majority, 3);
        members.Kill(2);
        members.Evidence[2] = PeerEvidence.AgentDown;
        members.Run(5000);
        members.Evidence[2] = PeerEvidence.Refused;
        members.Run(100);
        Assert.Equal([0, 1], members.Ids);
    }

    [Theory]
    [InlineData(DecidedBy.Majority, 1)]
    [InlineData(DecidedBy.Majority, 3)]
    [InlineData(DecidedBy.Coordinator, 3)]
    public void An_agent_comes_back_as_a_new_incarnation_of_the_same_member(DecidedBy decidedBy, int nodes)
    {
        for (int node = 0; node < nodes; node++)
        {
            var members = new SteadyMembers(decidedBy, nodes);
            members.Kill(node);
            members.Run(200);
            members.Restart(node);
            members.Run(1500);
            Assert.Equal(1u, members.Record.Find(new NodeId((ushort)node))!.Incarnation);
            for (int other = 0; other < nodes; other++)
            {
                Assert.True(members.HasLease(other));
                Assert.Null(members.When(other, Excluded, node));
                if (other != node) Assert.NotNull(members.When(other, MembershipEffectKind.Restarted, node));
            }
        }
    }

    [Fact]
    public void Agents_that_are_all_restarted_at_once_find_together_again()
    {
        foreach (DecidedBy decidedBy in Enum.GetValues<DecidedBy>())
        {
            var members = new SteadyMembers(decidedBy, 3);
            for (int i = 0; i < 3; i++) members.Restart(i);
            members.Run(4000);
            for (int i = 0; i < 3; i++)
            {
                Assert.True(members.HasLease(i));
                Assert.Equal(1u, members.Record.Members[i].Incarnation);
            }
        }
    }

    [Fact]
    public void A_restarted_agent_that_was_excluded_meanwhile_is_told_so()
    {
        var members = new SteadyMembers(DecidedBy.Majority, 3);
        members.Kill(2);
        members.Run(2000);
        members.Restart(2);
        Assert.NotNull(members.When(2, Expelled, 2));
    }

    [Fact]
    public void Of_two_members_that_decide_by_majority_neither_can_be_excluded_and_neither_goes_on_alone()
    {
        var members = new SteadyMembers(DecidedBy.Majority, 2);
        members.Cut(0, 1);
        members.Run(5000);
        Assert.Equal([0, 1], members.Ids);
        Assert.False(members.HasLease(0) || members.HasLease(1));
        members.Cuts.Clear();
        members.Run(200);
        Assert.True(members.HasLease(0) && members.HasLease(1), "nobody had voted, so nothing had to be renewed");
        Assert.Equal(2u, members.Record.Number.Value);
    }

    [Fact]
    public void A_coordinator_with_one_other_member_decides_alone()
    {
        var members = new SteadyMembers(DecidedBy.Coordinator, 2);
        members.Cut(0, 1);
        members.Run(2000);
        Assert.Equal([0], members.Ids);
        Assert.True(members.HasLease(0));
    }

    [Fact]
    public void A_coordinator_does_not_exclude_whom_another_member_hears()
    {
        var members = new SteadyMembers(DecidedBy.Coordinator, 3);
        members.Cut(0, 2);
        members.Run(3000);
        Assert.Equal([0, 1, 2], members.Ids);
        Assert.False(members.HasLease(2));
        members.Cuts.Clear();
        members.Run(1000);
        Assert.Equal([0, 1, 2], members.Ids);
        Assert.True(members.HasLease(2), "a renewal voids the coordinator's vote");
    }

    [Fact]
    public void Without_the_coordinator_every_lease_runs_out_and_nobody_is_excluded()
    {
        var members = new SteadyMembers(DecidedBy.Coordinator, 3);
        members.Kill(0);
        members.StoreIsAway = true;
        members.Evidence[0] = PeerEvidence.Refused;
        members.Run(3000);
        foreach (int node in (int[])[1, 2])
        {
            Assert.NotNull(members.When(node, LeaseRanOut, node));
            Assert.False(members.HasLease(node));
        }
        Assert.Equal([0, 1, 2], members.Ids);
    }

    [Fact]
    public void A_vote_binds_until_the_view_is_renewed()
    {
        var members = new SteadyMembers(DecidedBy.Majority, 3);
        members.Cut(1, 2);
        members.Run(2000);
        uint before = members.Record.Number.Value;
        Assert.Equal([0, 1, 2], members.Ids);
        members.StoreIsAway = true;
        members.Cuts.Clear();
        members.Cut(0, 2);
        members.Run(500);
        Assert.False(members.HasLease(2), "member 1 has voted it out and does not acknowledge it");
        members.Cuts.Clear();
        members.Run(500);
        members.StoreIsAway = false;
        members.Run(600);
        Assert.Equal(before + 1, members.Record.Number.Value);
        members.Cut(0, 2);
        members.Run(500);
        Assert.True(members.HasLease(2), "member 1 acknowledges it again");
    }

    [Fact]
    public void While_the_store_is_away_leases_go_on_and_nobody_is_excluded()
    {
        var members = new SteadyMembers(DecidedBy.Majority, 3) { StoreIsAway = true };
        members.Kill(2);
        members.Evidence[2] = PeerEvidence.Refused;
        members.Run(5000);
        Assert.Equal([0, 1, 2], members.Ids);
        Assert.True(members.HasLease(0) && members.HasLease(1));
        members.StoreIsAway = false;
        members.Run(400);
        Assert.Equal([0, 1], members.Ids);
    }

    [Fact]
    public void Halves_exclude_nobody_stop_and_go_on_together_when_they_meet_again()
    {
        var members = new SteadyMembers(DecidedBy.Majority, 4);
        foreach (int a in (int[])[0, 1]) foreach (int b in (int[])[2, 3]) members.Cut(a, b);
        members.Run(3000);
        for (int i = 0; i < 4; i++) Assert.False(members.HasLease(i));
        members.Cuts.Clear();
        members.Run(200);
        for (int i = 0; i < 4; i++) Assert.True(members.HasLease(i));
        Assert.Equal(4u, members.Record.Number.Value);
    }

    /// <summary>The table of docs/membership.md.</summary>
    [Theory]
    [InlineData(DecidedBy.Majority, 1, 0)]
    [InlineData(DecidedBy.Majority, 2, 0)]
    [InlineData(DecidedBy.Majority, 3, 1)]
    [InlineData(DecidedBy.Majority, 4, 1)]
    [InlineData(DecidedBy.Majority, 5, 2)]
    [InlineData(DecidedBy.Majority, 6, 2)]
    [InlineData(DecidedBy.Majority, 7, 3)]
    [InlineData(DecidedBy.Coordinator, 1, 0)]
    [InlineData(DecidedBy.Coordinator, 2, 1)]
    [InlineData(DecidedBy.Coordinator, 3, 2)]
    [InlineData(DecidedBy.Coordinator, 5, 4)]
    public void So_many_members_can_be_lost_at_once(DecidedBy decidedBy, int nodes, int lost)
    {
        for (int dies = 0; dies < nodes; dies++)
        {
            var members = new SteadyMembers(decidedBy, nodes);
            for (int i = nodes - dies; i < nodes; i++)
            {
                members.Kill(i);
                members.Evidence[i] = PeerEvidence.Refused;
            }
            members.Run(5000);
            Assert.Equal(dies <= lost ? nodes - dies : nodes, members.Record.Members.Count);
            Assert.Equal(dies <= lost, members.HasLease(0));
        }
    }

    [Fact]
    public void Members_lost_one_after_the_other_leave_two_under_a_majority()
    {
        var members = new SteadyMembers(DecidedBy.Majority, 5);
        for (int i = 4; i >= 2; i--)
        {
            members.Kill(i);
            members.Run(2500);
            Assert.Equal(i, members.Record.Members.Count);
            Assert.True(members.HasLease(0) && members.HasLease(1));
        }
    }

    [Fact]
    public void A_node_joins_under_a_number_that_nobody_had()
    {
        foreach (DecidedBy decidedBy in Enum.GetValues<DecidedBy>())
        {
            var members = new SteadyMembers(decidedBy, 3);
            members.Kill(2);
            members.Run(2000);
            Assert.Equal(AdmissionError.NameTaken, members[1].ProposeJoin("n0", SteadyMembers.Address, 1));
            Assert.Equal(AdmissionError.None, members[1].ProposeJoin(SteadyMembers.Name(2), SteadyMembers.Address, 1));
            members.Run(30);
            Assert.Equal([0, 1, 3], members.Ids);
            members.Enter(3);
            members.Run(200);
            Assert.True(members.HasLease(3) && members.HasLease(0) && members.HasLease(1));
        }
    }

    [Fact]
    public void Nodes_that_join_together_are_admitted_one_after_the_other()
    {
        var members = new SteadyMembers(DecidedBy.Majority, 1);
        for (int i = 1; i < 5; i++) Assert.Equal(AdmissionError.None, members[0].ProposeJoin(SteadyMembers.Name(i), SteadyMembers.Address, 1));
        for (int i = 1; i < 5; i++)
        {
            for (int waits = 0; members.Record.Members.Count <= i && waits < 100; waits++) members.Run(10);
            members.Enter(i);
        }
        members.Run(500);
        Assert.Equal([0, 1, 2, 3, 4], members.Ids);
        for (int i = 0; i < 5; i++) Assert.True(members.HasLease(i));
    }

    [Fact]
    public void A_node_that_leaves_is_let_go_at_once_and_acted_upon_when_nothing_is_promised_to_it_any_more()
    {
        var members = new SteadyMembers(DecidedBy.Majority, 3);
        long asked = members.Now;
        members[2].ProposeLeave();
        members.Run(100);
        Assert.Equal([0, 1], members.Ids);
        Assert.NotNull(members.When(2, Expelled, 2));
        Assert.Null(members.When(0, Excluded, 2));
        members.Run(400);
        Assert.InRange(members.When(0, Excluded, 2)!.Value - asked, 300, 450);
        Assert.True(members.HasLease(0) && members.HasLease(1));
    }

    [Fact]
    public void A_node_that_slept_suspects_nobody_for_what_it_did_not_hear()
    {
        MembershipView view = new SteadyMembers(DecidedBy.Majority, 3).Record;
        MembershipMachine machine = new(new NodeId(0), DecidedBy.Majority, new MembershipTimes());
        var effects = new MembershipEffects();
        machine.Enter(1, view, 1000, effects);
        machine.OnTick(1010, effects);
        machine.OnTick(9000, effects);
        Assert.False(machine.IsSuspected(new NodeId(1)) || machine.IsSuspected(new NodeId(2)));
        for (long now = 9010; now < 10_200; now += 10) machine.OnTick(now, effects);
        Assert.True(machine.IsSuspected(new NodeId(1)) && machine.IsSuspected(new NodeId(2)));
    }

    [Fact]
    public void The_member_that_has_a_newer_view_is_asked_for_it()
    {
        MembershipView view = new SteadyMembers(DecidedBy.Majority, 3).Record;
        MembershipMachine machine = new(new NodeId(0), DecidedBy.Majority, new MembershipTimes());
        var effects = new MembershipEffects();
        machine.Enter(1, view, 1000, effects);
        effects.Clear();
        machine.OnHeartbeat(new NodeId(2), new Heartbeat { View = new ViewNumber(9), SentTicks = 1 }, 1010, effects);
        Assert.Equal((1, AskRecord, new NodeId(2)), (effects.Count, effects[0].Kind, effects[0].Node));
    }

    [Fact]
    public void A_record_that_cannot_follow_is_refused_and_one_of_another_epoch_expels()
    {
        MembershipView view = new SteadyMembers(DecidedBy.Majority, 3).Record;
        MembershipMachine machine = new(new NodeId(0), DecidedBy.Majority, new MembershipTimes());
        var effects = new MembershipEffects();
        machine.Enter(5, view, 1000, effects);
        Assert.Throws<ProtocolViolationException>(() => machine.OnRecord(5, view.Renewed(), 1000, effects));
        Assert.Throws<ProtocolViolationException>(() =>
            machine.OnRecord(6, MembershipView.FromRecord(view.Epoch, new ViewNumber(9), [view.Members[0]], 1)!, 1000, effects));
        effects.Clear();
        machine.OnRecord(1, MembershipView.Found(new Epoch(8), "n0", SteadyMembers.Address, 1), 1000, effects);
        Assert.Equal((1, Expelled), (effects.Count, effects[0].Kind));
    }

    [Fact]
    public void A_machine_that_is_no_member_yet_does_nothing()
    {
        MembershipMachine machine = new(new NodeId(0), DecidedBy.Majority, new MembershipTimes());
        var effects = new MembershipEffects();
        machine.OnTick(1, effects);
        machine.OnHeartbeat(new NodeId(1), default, 1, effects);
        Assert.Equal(0, effects.Count);
        Assert.Throws<InvalidOperationException>(machine.ProposeLeave);
    }

    [Fact]
    public void Times_that_make_no_sense_are_refused()
    {
        Assert.Null(new MembershipTimes().Problem());
        foreach (MembershipTimes times in (MembershipTimes[])
            [
                new(HeartbeatTicks: 0), new(LeaseTicks: 99), new(MarginTicks: 0), new(SuspectTicks: 99), new(RestartPatienceTicks: 999), new(LeaseTicks: long.MaxValue),
            ])
        {
            Assert.NotNull(times.Problem());
            Assert.Throws<ArgumentException>(() => new MembershipMachine(new NodeId(0), DecidedBy.Majority, times));
        }
    }

    [Fact]
    public void Ticks_and_heartbeats_allocate_nothing()
    {
        MembershipView view = new SteadyMembers(DecidedBy.Majority, 5).Record;
        MembershipMachine machine = new(new NodeId(0), DecidedBy.Majority, new MembershipTimes());
        var effects = new MembershipEffects();
        machine.Enter(1, view, 0, effects);
        long before = 0;
        for (int now = 10; now < 20_000; now += 10)
        {
            if (now == 10_000) before = GC.GetAllocatedBytesForCurrentThread();
            effects.Clear();
            for (ushort peer = 1; peer < 5; peer++)
                machine.OnHeartbeat(new NodeId(peer), new Heartbeat { View = view.Number, SentTicks = now, AcknowledgedTicks = now - 10 }, now, effects);
            machine.OnTick(now, effects);
        }
        Assert.Equal(0, GC.GetAllocatedBytesForCurrentThread() - before);
        Assert.True(machine.LeaseUntilTicks > 20_000);
    }
}
