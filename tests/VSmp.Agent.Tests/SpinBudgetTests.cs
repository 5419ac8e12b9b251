// SPDX-License-Identifier: Apache-2.0
using Xunit;

namespace VSmp.Agent.Tests;

/// <summary>When a reactor looks before it sleeps, and for how long.</summary>
public sealed class SpinBudgetTests
{
    private const long Max = 50;

    [Fact]
    public void It_begins_with_sleeping() => Assert.Equal(0, new SpinBudget(Max).Microseconds);

    [Fact]
    public void It_grows_while_waits_are_short_and_no_further_than_it_needs()
    {
        var budget = new SpinBudget(Max);
        List<long> grown = [];
        for (int i = 0; i < 5; i++)
        {
            budget.OnWaited(30);
            grown.Add(budget.Microseconds);
        }
        Assert.Equal([5, 10, 20, 40, 40], grown);
    }

    [Fact]
    public void It_never_exceeds_its_bound()
    {
        var budget = new SpinBudget(Max);
        for (int i = 0; i < 10; i++) budget.OnWaited(Max);
        Assert.Equal(Max, budget.Microseconds);
    }

    [Fact]
    public void Waits_that_are_too_long_end_it()
    {
        var budget = new SpinBudget(Max);
        for (int i = 0; i < 10; i++) budget.OnWaited(Max);
        List<long> shrunk = [];
        for (int i = 0; i < 5; i++)
        {
            budget.OnWaited(20_000); // a tick of an idle agent
            shrunk.Add(budget.Microseconds);
        }
        Assert.Equal([25, 12, 6, 0, 0], shrunk);
    }

    [Fact]
    public void One_long_wait_among_short_ones_does_not_end_it()
    {
        var budget = new SpinBudget(Max);
        for (int i = 0; i < 10; i++) budget.OnWaited(40);
        budget.OnWaited(20_000);
        budget.OnWaited(40);
        Assert.Equal(40, budget.Microseconds);
    }

    [Fact]
    public void Where_somebody_else_needs_the_processor_it_sleeps_for_a_good_while()
    {
        var budget = new SpinBudget(Max);
        for (int i = 0; i < 10; i++) budget.OnWaited(40);
        Assert.Equal(SpinBudget.LeastWaitsAsleep, WaitsAsleepAfterCrowding(ref budget));
        Assert.Equal(5, budget.Microseconds);
    }

    [Fact]
    public void It_sleeps_twice_as_long_each_time_that_turns_out_again_and_no_longer_than_its_bound()
    {
        var budget = new SpinBudget(Max);
        List<int> waits = [];
        for (int i = 0; i < 8; i++) waits.Add(WaitsAsleepAfterCrowding(ref budget));
        Assert.Equal([64, 128, 256, 512, 1024, 2048, 4096, 4096], waits);
    }

    [Fact]
    public void Crowding_is_forgotten_when_looking_has_paid_for_long()
    {
        var budget = new SpinBudget(Max);
        for (int i = 0; i < 4; i++) WaitsAsleepAfterCrowding(ref budget);
        for (int i = 0; i < SpinBudget.LooksUndisturbed + 10; i++) budget.OnWaited(20);
        Assert.Equal(SpinBudget.LeastWaitsAsleep, WaitsAsleepAfterCrowding(ref budget));
    }

    [Fact]
    public void It_pays_when_several_waits_in_a_row_were_short()
    {
        var budget = new SpinBudget(Max);
        Assert.False(budget.Pays);
        budget.OnWaited(40);
        Assert.False(budget.Pays);
        budget.OnWaited(40);
        Assert.True(budget.Pays);
        budget.OnCrowded();
        Assert.False(budget.Pays);
    }

    [Fact]
    public void With_a_bound_of_nothing_it_never_looks()
    {
        var budget = new SpinBudget(0);
        for (int i = 0; i < 10; i++) budget.OnWaited(i);
        Assert.Equal(0, budget.Microseconds);
    }

    private static int WaitsAsleepAfterCrowding(ref SpinBudget budget)
    {
        budget.OnCrowded();
        int waits = -1; // the first that counts makes it look again
        for (; budget.Microseconds == 0; waits++) budget.OnWaited(40);
        return waits;
    }
}
