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
        budget.OnCrowded();
        for (int i = 0; i < 1000; i++)
        {
            Assert.Equal(0, budget.Microseconds);
            budget.OnWaited(40);
        }
        budget.OnWaited(40);
        Assert.Equal(5, budget.Microseconds);
    }

    [Fact]
    public void With_a_bound_of_nothing_it_never_looks()
    {
        var budget = new SpinBudget(0);
        for (int i = 0; i < 10; i++) budget.OnWaited(i);
        Assert.Equal(0, budget.Microseconds);
    }
}
