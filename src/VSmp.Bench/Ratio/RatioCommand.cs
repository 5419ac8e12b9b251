// SPDX-License-Identifier: Apache-2.0
using System.CommandLine;
using VSmp.Bench.Running;

namespace VSmp.Bench.Ratio;

/// <summary><c>vsmp-bench ratio</c>: what VSmp takes, as a multiple of what bare C takes for the same on the same machine.</summary>
public static class RatioCommand
{
    /// <summary>The command.</summary>
    public static Command New() => ComparisonCommand.New("ratio",
        "Measure faults, upgrades, hand-offs, streams and first touches beside bare C that does the same (a minute).",
        "measurement, a multiple of 16", Measure);

    private static RatioReport Measure(string transport, int pages, int rounds, Action<int> onRound)
    {
        RatioRun run = new(pages, rounds);
        using BenchCluster cluster = new(2, run.Memory, transport, isPinned: true);
        return new RatioReport(Machine.Here(), transport, pages, rounds, run.Run(cluster, onRound));
    }
}
