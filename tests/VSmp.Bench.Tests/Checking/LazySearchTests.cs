// SPDX-License-Identifier: Apache-2.0
using VSmp.Bench.Checking;

namespace VSmp.Bench.Tests.Checking;

public sealed class LazySearchTests
{
    [Theory]
    [InlineData(2, 2, 2, 2)]
    [InlineData(3, 3, 1, 1)]
    [InlineData(2, 3, 1, 1)]
    public void Every_state_of_lazy_release_within_bounds_is_right(int nodes, int ranks, int sections, int accesses)
    {
        LazySearchResult result = LazySearch.Run(new LazyBounds(nodes, ranks, sections, accesses));
        Assert.True(result.Violation is null, string.Join('\n', result.Violation ?? []));
        Assert.True(result.States > 1000, $"only {result.States} states");
        TestContext.Current.TestOutputHelper?.WriteLine($"{result.States} states, {result.Moves} moves, depth {result.Depth}, {result.Elapsed.TotalSeconds:F1} s");
    }
}
