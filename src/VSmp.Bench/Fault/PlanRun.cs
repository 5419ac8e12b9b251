// SPDX-License-Identifier: Apache-2.0
using System.Globalization;
using VSmp.Bench.Running;
using VSmp.Coherence;
using VSmp.Coherence.Protocols;

namespace VSmp.Bench.Fault;

/// <summary>Has the ranks of <c>vsmp-fault</c> take pages through plans, and times the last step of each.</summary>
/// <param name="ranks">Ranks, each on a node of its own.</param>
/// <param name="pages">Pages that go through each plan.</param>
/// <param name="plans">The plans, as <c>vsmp-fault</c> takes them: rank at the home, and steps.</param>
/// <param name="local">The budget of each node for copies of others' pages; null: as much as there is.</param>
internal sealed class PlanRun(int ranks, int pages, IReadOnlyList<string> plans, string? local = null)
{
    /// <summary>What each agent has to contribute: the homes' pages, and as much again for copies.</summary>
    public string Memory
    {
        get
        {
            long extents = (long)plans.Count * ((pages + ExtentNumber.Pages - 1) / ExtentNumber.Pages);
            return string.Create(CultureInfo.InvariantCulture, $"{(2 * extents * ExtentNumber.Bytes >> 20) + 32}M");
        }
    }

    /// <summary>Runs all plans, one after the other.</summary>
    /// <param name="cluster">Where.</param>
    /// <param name="onBegin">Called before each plan's last step, when nothing else goes on.</param>
    /// <param name="onEnd">Called behind it, with the nanoseconds of each page, as the program sees them.</param>
    /// <param name="onTouched">Called before <paramref name="onEnd"/>, with the time at which each page was touched, on the clock of rank 0's host.</param>
    /// <exception cref="BenchException">The ranks failed.</exception>
    public void Run(BenchCluster cluster, Action onBegin, Action<long[]> onEnd, Action<long[]>? onTouched = null)
    {
        List<string> program = [BenchCluster.FindProgram("vsmp-fault"), pages.ToString(CultureInfo.InvariantCulture), .. plans];
        // Rank 0 waits to be told to go on, and the others for rank 0.
        (int exitCode, string error) = cluster.RunRanks(ranks, cluster.Nodes.Take(ranks), Msi.Protocol.Name, local, program, line =>
        {
            if (line.StartsWith("at ", StringComparison.Ordinal))
            {
                onTouched?.Invoke(Nanoseconds(line));
                return;
            }
            if (line == "begin") onBegin();
            else onEnd(Nanoseconds(line));
            cluster.Tell("go");
        }, hasInput: true);
        if (exitCode != 0) throw new BenchException($"the ranks ended with exit code {exitCode}: {error}");
    }

    /// <summary>The times in a line that a program has printed: a word, then nanoseconds.</summary>
    public static long[] Nanoseconds(string line)
    {
        ArgumentNullException.ThrowIfNull(line);
        return [.. line.Split(' ').Skip(1).Select(word => long.Parse(word, CultureInfo.InvariantCulture))];
    }

    /// <summary>The time that a share of all is not above, in microseconds. Sorts.</summary>
    public static double Quantile(long[] nanoseconds, double share)
    {
        ArgumentNullException.ThrowIfNull(nanoseconds);
        Array.Sort(nanoseconds);
        return nanoseconds[(int)Math.Min(nanoseconds.Length * share, nanoseconds.Length - 1)] / 1000.0;
    }
}
