// SPDX-License-Identifier: Apache-2.0
using VSmp.Bench.Litmus;

namespace VSmp.Bench.Tests.Litmus;

/// <summary>What makes runs a pass, and what does not.</summary>
public sealed class LitmusResultTests
{
    [Fact]
    public void One_forbidden_outcome_among_many_runs_is_a_violation()
    {
        LitmusResult result = New("MP", LitmusKind.Plain, ("00 00;11 11", 60_000), ("00 11;11 11", 500), ("11 11;11 11", 40_000));
        Assert.Equal(LitmusVerdict.Pass, result.Judge(out _));
        Assert.Equal(500, result.Overlapping);
        result.Add(new LitmusOutcome("11 00;11 11"), 1);
        Assert.Equal(LitmusVerdict.Violation, result.Judge(out string why));
        Assert.Contains("'11 00;11 11' ×1", why, StringComparison.Ordinal);
        Assert.Equal(1, result.Forbidden);
    }

    [Fact]
    public void A_torn_value_on_one_page_is_a_violation()
    {
        LitmusResult result = New("CoRR", LitmusKind.Plain, ("00 10;11", 1));
        Assert.Equal(LitmusVerdict.Violation, result.Judge(out _));
    }

    [Fact]
    public void A_lost_store_is_a_violation()
    {
        LitmusResult result = New("2+2W", LitmusKind.Plain, (";00 22", 1));
        Assert.Equal(LitmusVerdict.Violation, result.Judge(out _));
    }

    [Fact]
    public void Runs_in_which_the_threads_never_met_are_inconclusive()
    {
        LitmusResult result = New("MP", LitmusKind.Plain, ("00 00;11 11", 60_000), ("11 11;11 11", 40_000));
        Assert.Equal(LitmusVerdict.Inconclusive, result.Judge(out string why));
        Assert.Contains("00 11;11 11", why, StringComparison.Ordinal);
    }

    [Fact]
    public void Store_buffering_that_never_showed_is_inconclusive_where_it_is_allowed()
    {
        (string, long)[] counts = [("00 11;11 11", 50_000), ("11 00;11 11", 50_000), ("11 11;11 11", 100)];
        Assert.Equal(LitmusVerdict.Inconclusive, New("SB", LitmusKind.Plain, counts).Judge(out _));
        Assert.Equal(LitmusVerdict.Pass, New("SB", LitmusKind.Mfence, counts).Judge(out _));
        Assert.Equal(LitmusVerdict.Pass, New("SB", LitmusKind.Plain, [.. counts, ("00 00;11 11", 3)]).Judge(out _));
        Assert.Equal(LitmusVerdict.Violation, New("SB", LitmusKind.Mfence, [.. counts, ("00 00;11 11", 3)]).Judge(out _));
    }

    [Fact]
    public void What_the_machine_cannot_run_is_unsupported_with_the_reason()
    {
        LitmusResult result = New("SB", LitmusKind.Plain);
        result.SetUnsupported("no such instruction");
        Assert.Equal(LitmusVerdict.Unsupported, result.Judge(out string why));
        Assert.Equal("no such instruction", why);
    }

    private static LitmusResult New(string test, LitmusKind kind, params (string Outcome, long Count)[] counts)
    {
        LitmusResult result = new(LitmusTest.All.Single(t => t.Name == test), LitmusLayout.Two, kind);
        foreach (var (outcome, count) in counts) result.Add(new LitmusOutcome(outcome), count);
        return result;
    }
}
