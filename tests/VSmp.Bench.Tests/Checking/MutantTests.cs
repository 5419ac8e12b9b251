// SPDX-License-Identifier: Apache-2.0
using VSmp.Bench.Checking;

namespace VSmp.Bench.Tests.Checking;

public sealed class MutantTests
{
    public static TheoryData<string, string> Names
    {
        get
        {
            var names = new TheoryData<string, string>();
            foreach (Mutant mutant in Mutants.All) names.Add(mutant.ProtocolName, mutant.Name);
            return names;
        }
    }

    [Theory]
    [MemberData(nameof(Names))]
    public void A_planted_bug_is_found(string protocol, string name)
    {
        Mutant mutant = Mutants.All.Single(m => m.ProtocolName == protocol && m.Name == name);
        MutantResult result = mutant.Seek(threads: 2);
        Assert.True(result.IsFound, $"{name}: not found among {result.Tried} states or seeds");
        // The way that is told must end in something wrong.
        IReadOnlyList<string> told = result.Tell();
        Assert.True(told.Count > 0);
        if (mutant.Finder != Finder.LazySearch) Assert.Contains("  !  ", told[^1], StringComparison.Ordinal);
        if (mutant.Finder == Finder.Simulator) Assert.EndsWith(result.FoundAs!, told[^1], StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(Finder.Checker, 100)]
    [InlineData(Finder.LazySearch, 10)]
    [InlineData(Finder.Simulator, 10)]
    internal void There_are_enough_of_them_for_everything_that_looks_for_bugs(Finder finder, int least) =>
        Assert.True(Mutants.All.Count(m => m.Finder == finder) >= least);
}
