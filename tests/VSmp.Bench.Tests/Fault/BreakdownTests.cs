// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent;
using VSmp.Bench.Fault;

namespace VSmp.Bench.Tests.Fault;

/// <summary>Faults are followed from one agent to the other and back.</summary>
public sealed class BreakdownTests
{
    private static readonly Breakdown.Mark[] Requestor =
    [
        new(1_000, Stage.Woken), new(1_500, Stage.FaultRead), new(2_500, Stage.Stepped), new(9_000, Stage.Sent), new(9_500, Stage.TurnEnded),
        new(20_000, Stage.Woken), new(21_000, Stage.Received), new(25_000, Stage.Written), new(28_000, Stage.Mapped), new(29_000, Stage.TurnEnded),
    ];

    private static readonly Breakdown.Mark[] Peer =
    [
        new(8_000, Stage.Woken), new(8_500, Stage.Received), new(13_000, Stage.Stepped), new(19_000, Stage.Sent),
    ];

    [Fact]
    public void A_fault_is_divided_into_phases_that_add_up_to_it()
    {
        double[] phases = [.. new Breakdown(Requestor, Peer).Divide([100], [31_900]).Select(phase => Assert.Single(phase.Values))];
        Assert.Equal([0.9, 0.5, 1, 6, 4.5, 8, 4, 3, 4], phases);
        Assert.Equal(31.9, phases.Sum(), precision: 6);
    }

    [Fact]
    public void A_grant_without_data_has_nothing_to_write()
    {
        Breakdown.Mark[] marks = [.. Requestor.Where(mark => mark.Stage != Stage.Written)];
        Assert.Equal([0.9, 0.5, 1, 6, 4.5, 8, 7, 0, 4], new Breakdown(marks, Peer).Divide([100], [31_900]).Select(phase => phase.Median));
    }

    [Fact]
    public void A_program_that_runs_before_the_agent_has_noted_it_is_followed_all_the_same() =>
        Assert.Equal([0.9, 0.5, 1, 6, 4.5, 8, 4, 2.5, 0], new Breakdown(Requestor, Peer).Divide([100], [27_400]).Select(phase => phase.Median));

    [Fact]
    public void A_touch_that_no_agent_has_heard_of_counts_nowhere() =>
        Assert.All(new Breakdown(Requestor, Peer).Divide([100, 40_000], [900, 100]), phase => Assert.Empty(phase.Values));
}
