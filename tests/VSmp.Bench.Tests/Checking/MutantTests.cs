// SPDX-License-Identifier: Apache-2.0
using VSmp.Bench.Checking;

namespace VSmp.Bench.Tests.Checking;

public sealed class MutantTests
{
    public static TheoryData<string> Names => [.. Mutants.All.Select(m => m.Name)];

    [Theory]
    [MemberData(nameof(Names))]
    public void A_planted_bug_is_found(string name)
    {
        MutantResult result = Mutants.Search(Mutants.All.Single(m => m.Name == name), threads: 2);
        Assert.True(result.IsFound, $"{name}: not found among {result.Result.States} states of {result.Scenario}");
        // The way that is told must end in what was found.
        Assert.Contains("  !  ", Replay.Tell(result.Scenario, result.Result.Violation!)[^1], StringComparison.Ordinal);
    }

    [Fact]
    public void There_are_enough_of_them_and_each_is_another() =>
        Assert.True(Mutants.All.Select(m => m.Name).Distinct().Count() >= 20);
}
