// SPDX-License-Identifier: Apache-2.0
using System.Globalization;
using Xunit.Sdk;

namespace VSmp.Coherence.Tests.Lazy;

public sealed class LazySimulationTests
{
    private const int Steps = 1500;

    [Fact]
    public void Programs_without_data_races_read_the_last_write_that_happens_before()
    {
        if (Environment.GetEnvironmentVariable("VSMP_SEED") is { } given)
        {
            new LazyCluster(int.Parse(given, CultureInfo.InvariantCulture)).Run(Steps);
            return;
        }
        int fresh = Environment.TickCount & 0xFFFFFF, reads = 0;
        for (int i = 0; i < 800; i++)
        {
            reads += Simulate(i);
            reads += Simulate(0x1000000 + fresh + i);
        }
        Assert.True(reads > 10_000, $"only {reads} reads were checked");
    }

    [Theory]
    [InlineData(nameof(LazyBug.LosesNotices))]
    [InlineData(nameof(LazyBug.DoesNotWaitForTheHome))]
    [InlineData(nameof(LazyBug.SendsWholePages))]
    public void A_cluster_that_is_broken_is_caught(string bug)
    {
        int caught = 0;
        for (int seed = 0; seed < 80; seed++)
        {
            if (Record.Exception(() => new LazyCluster(seed, Enum.Parse<LazyBug>(bug)).Run(Steps)) is XunitException) caught++;
        }
        Assert.True(caught >= 3, $"{bug}: only {caught} of 80 runs read something stale");
    }

    private static int Simulate(int seed)
    {
        var cluster = new LazyCluster(seed);
        Exception? failure = Record.Exception(() => cluster.Run(Steps));
        Assert.True(failure is null, $"seed {seed} (VSMP_SEED={seed} replays it): {failure}");
        return cluster.Reads;
    }
}
