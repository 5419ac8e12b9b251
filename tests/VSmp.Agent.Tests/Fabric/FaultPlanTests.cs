// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent.Fabric.FaultInjection;
using VSmp.Coherence;
using Xunit;

namespace VSmp.Agent.Tests.Fabric;

public sealed class FaultPlanTests
{
    private static readonly NodeId One = new(1), Two = new(2);

    [Fact]
    public void A_fault_to_everybody_counts_for_every_peer_and_one_to_a_peer_comes_before_it()
    {
        FaultPlan plan = new();
        plan.Inject(null, new Fault(FaultKind.Drop, 0.1));
        plan.Inject(Two, new Fault(FaultKind.Drop, 0.5));
        plan.Inject(Two, new Fault(FaultKind.Delay, 1, 2000));
        Assert.Equal((0.1, 0.5), (plan.Toward(One).Drop!.Share, plan.Toward(Two).Drop!.Share));
        Assert.Null(plan.Toward(One).Delay);
        Assert.Equal(2000, plan.Toward(Two).Delay!.DelayMicroseconds);
        Assert.Equal([(null, FaultKind.Drop), (Two, FaultKind.Delay), (Two, FaultKind.Drop)], plan.InForce.Select(way => (way.Peer, way.Fault.Kind)));
    }

    [Fact]
    public void A_share_of_zero_ends_a_fault_and_exempts_one_peer_from_what_everybody_has()
    {
        FaultPlan plan = new();
        plan.Inject(null, new Fault(FaultKind.Corrupt, 0.2));
        plan.Inject(One, new Fault(FaultKind.Corrupt, 0));
        Assert.True(plan.Toward(One).IsNone);
        Assert.False(plan.Toward(Two).IsNone);
        plan.Inject(null, new Fault(FaultKind.Corrupt, 0));
        Assert.Empty(plan.InForce);
        plan.Inject(One, new Fault(FaultKind.Corrupt, 0));
        Assert.Empty(plan.InForce);
    }

    [Fact]
    public void Healing_one_peer_leaves_the_others_and_healing_all_leaves_nothing()
    {
        FaultPlan plan = new();
        plan.Inject(One, new Fault(FaultKind.Partition, 1));
        plan.Inject(Two, new Fault(FaultKind.Partition, 1));
        plan.Heal(One);
        Assert.True(plan.Toward(One).IsNone);
        Assert.NotNull(plan.Toward(Two).Partition);
        plan.Heal(null);
        Assert.True(plan.Toward(Two).IsNone);
        Assert.Empty(plan.InForce);
    }

    [Fact]
    public void Every_change_is_told()
    {
        FaultPlan plan = new();
        int changes = 0;
        plan.Changed += () => changes++;
        plan.Inject(One, new Fault(FaultKind.Partition, 1));
        plan.Heal(One);
        plan.UseSeed(7);
        Assert.Equal(3, changes);
    }

    [Fact]
    public void The_same_seed_makes_the_same_choices()
    {
        Assert.Equal(Choices(7), Choices(7));
        Assert.NotEqual(Choices(7), Choices(8));

        static List<(bool, long)> Choices(int seed)
        {
            FaultPlan plan = new();
            plan.UseSeed(seed);
            List<(bool, long)> choices = [];
            Fault fault = new(FaultKind.Delay, 0.3, 50_000);
            for (int connection = 0; connection < 3; connection++)
            {
                Random random = plan.NewRandom(Two);
                for (int i = 0; i < 100; i++) choices.Add((fault.Strikes(random), fault.ChooseMicroseconds(random)));
            }
            return choices;
        }
    }

    [Fact]
    public void A_seed_stays_while_anything_is_in_force_unless_another_is_asked_for()
    {
        FaultPlan plan = new();
        plan.UseSeed(7);
        plan.Inject(null, new Fault(FaultKind.Drop, 0.1));
        plan.UseSeed(null);
        Assert.Equal(7, plan.Seed);
        plan.UseSeed(8);
        Assert.Equal(8, plan.Seed);
    }

    [Fact]
    public void A_fault_strikes_as_often_as_it_should_and_counts_itself()
    {
        Random random = new(3);
        Fault seldom = new(FaultKind.Drop, 0.05), always = new(FaultKind.Drop, 1), never = new(FaultKind.Drop, 0);
        for (int i = 0; i < 20_000; i++)
        {
            _ = seldom.Strikes(random);
            Assert.True(always.Strikes(random));
            Assert.False(never.Strikes(random));
        }
        Assert.InRange(seldom.Count, 800, 1200);
        Assert.Equal((20_000, 0), (always.Count, never.Count));
        Fault delay = new(FaultKind.Delay, 1, 100);
        for (int i = 0; i < 1000; i++) Assert.InRange(delay.ChooseMicroseconds(random), 1, 100);
    }

    [Fact]
    public void A_flip_changes_one_bit_wherever_it_is()
    {
        Random random = new(3);
        HashSet<int> bits = [];
        for (int i = 0; i < 2000; i++)
        {
            byte[] message = new byte[16];
            Fault.Flip(message, random);
            Assert.Equal(1, message.Sum(b => byte.PopCount(b)));
            int at = Array.FindIndex(message, b => b != 0);
            bits.Add((at * 8) + byte.TrailingZeroCount(message[at]));
        }
        Assert.Equal(128, bits.Count);
    }
}
