// SPDX-License-Identifier: Apache-2.0
using System.CommandLine;
using VSmp.Bench.Running;

namespace VSmp.Bench.Bandwidth;

/// <summary><c>vsmp-bench bandwidth</c>: how fast pages move that another node has, beside bare C.</summary>
public static class BandwidthCommand
{
    /// <summary>The command.</summary>
    public static Command New() => ComparisonCommand.New("bandwidth",
        "Measure how fast pages are read, overwritten and exchanged, in order and at random, beside bare C that does the same (half a minute). "
            + "Fails if something is read that was not written.",
        "pattern, a multiple of 16; an exchange has twice as many", Measure);

    private static BandwidthReport Measure(string transport, int pages, int rounds, Action<int> onRound)
    {
        BandwidthRun run = new(pages, rounds);
        using BenchCluster cluster = new(2, run.Memory, transport, isPinned: true);
        return new BandwidthReport(Machine.Here(), transport, pages, rounds, run.Run(cluster, onRound));
    }
}
