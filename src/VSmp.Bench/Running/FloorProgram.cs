// SPDX-License-Identifier: Apache-2.0
using System.Globalization;
using VSmp.Bench.Fault;

namespace VSmp.Bench.Running;

/// <summary><c>vsmp-floor</c>: what bare C pays for what VSmp does.</summary>
internal static class FloorProgram
{
    /// <summary>Runs a workload of it.</summary>
    /// <param name="cluster">Which has nothing else to do; the floor has processes of its own.</param>
    /// <param name="workload">Which.</param>
    /// <param name="pages">How many pages.</param>
    /// <param name="isWhole">Whether all words of a page are read, not one.</param>
    /// <returns>What it printed: the nanoseconds of each access, or of all of them together.</returns>
    /// <exception cref="BenchException">It failed.</exception>
    public static long[] Measure(BenchCluster cluster, string workload, int pages, bool isWhole = false)
    {
        long[]? measured = null;
        string[] arguments = [workload, pages.ToString(CultureInfo.InvariantCulture), .. isWhole ? ["whole"] : Array.Empty<string>()];
        (int exitCode, string error) = cluster.RunBeside(BenchCluster.FindProgram("vsmp-floor"), arguments, line => measured = PlanRun.Nanoseconds(line));
        if (exitCode != 0 || measured is null) throw new BenchException($"vsmp-floor {workload} ended with exit code {exitCode}: {error}");
        return measured;
    }
}
