// SPDX-License-Identifier: Apache-2.0
using VSmp.Bench.Checking;

namespace VSmp.Bench.Tests.Checking;

public sealed class LazySearchTests
{
    [Theory]
    [InlineData(2, 2, 2)]
    [InlineData(3, 1, 1)]
    public void Every_state_of_lazy_release_within_bounds_is_right(int nodes, int sections, int accesses)
    {
        LazySearchResult result = LazySearch.Run(nodes, sections, accesses);
        Assert.True(result.Violation is null, string.Join('\n', result.Violation ?? []));
        Assert.True(result.States > 1000, $"only {result.States} states");
        TestContext.Current.TestOutputHelper?.WriteLine($"{result.States} states, {result.Moves} moves, depth {result.Depth}, {result.Elapsed.TotalSeconds:F1} s");
    }

    [Theory]
    [InlineData(nameof(LazyBug.LosesNotices))]
    [InlineData(nameof(LazyBug.AnnouncesBeforeTheHomeHasMerged))]
    [InlineData(nameof(LazyBug.SendsWholePages))]
    [InlineData(nameof(LazyBug.DiffAfterTwinIsRenewed))]
    public void A_bug_planted_in_lazy_release_is_found(string bug)
    {
        LazySearchResult result = LazySearch.Run(nodes: 2, sections: 2, accesses: 2, Enum.Parse<LazyBug>(bug));
        Assert.NotNull(result.Violation);
        TestContext.Current.TestOutputHelper?.WriteLine(string.Join('\n', result.Violation));
    }
}
