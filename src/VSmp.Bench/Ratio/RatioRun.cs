// SPDX-License-Identifier: Apache-2.0
using System.Globalization;
using VSmp.Bench.Fault;
using VSmp.Bench.Running;
using VSmp.Coherence.Protocols;

namespace VSmp.Bench.Ratio;

/// <summary>
/// Measures figures and their floors by turns on one cluster: a ratio is of two measurements that were made within the same minute.
/// </summary>
/// <param name="pages">Pages of each measurement; a multiple of what a floor installs at once.</param>
/// <param name="rounds">How often everything is measured.</param>
internal sealed class RatioRun(int pages, int rounds)
{
    private static readonly string[] Plans = [.. Figure.All.Select(figure => figure.Plan).OfType<string>().Distinct()];
    private static readonly string[] Floors = [.. Figure.All.Select(figure => figure.Floor).Distinct()];

    private readonly PlanRun _plans = new(2, pages, Plans);

    /// <inheritdoc cref="PlanRun.Memory"/>
    public string Memory => _plans.Memory;

    /// <summary>Measures.</summary>
    /// <param name="cluster">Two nodes at least, with nothing else to do.</param>
    /// <param name="onRound">Told of each round that begins, from 1 on.</param>
    /// <exception cref="BenchException">Something could not be measured.</exception>
    public IReadOnlyList<RatioResult> Run(BenchCluster cluster, Action<int> onRound)
    {
        string[] nodes = [.. cluster.Nodes.Take(2)];
        // Homes go round the nodes once what the ranks before had is given back: else figures would be of other homes than they say.
        using AgentCounters agents = new(cluster.Name, nodes);
        return Run(cluster, onRound, () => agents.RequireEvenMemory(nodes));
    }

    private RatioResult[] Run(BenchCluster cluster, Action<int> onRound, Action awaitEvenMemory)
    {
        RatioResult[] results = [.. Figure.All.Select(figure => new RatioResult(figure))];
        _ = MeasurePlans(cluster); // what is compiled while it runs is compiled then
        for (int round = 1; round <= rounds; round++)
        {
            onRound(round);
            Dictionary<string, long[]> floors = Floors.ToDictionary(floor => floor, floor => FloorProgram.Measure(cluster, floor, pages));
            awaitEvenMemory();
            Dictionary<string, long[]> plans = MeasurePlans(cluster);
            awaitEvenMemory();
            long[] handoffs = MeasureHandoff(cluster);
            foreach (RatioResult result in results)
            {
                result.Add(result.Figure.Microseconds(floors[result.Figure.Floor], pages),
                    result.Figure.Microseconds(result.Figure.Plan is { } plan ? plans[plan] : handoffs, pages));
            }
        }
        return results;
    }

    private Dictionary<string, long[]> MeasurePlans(BenchCluster cluster)
    {
        Dictionary<string, long[]> measured = [];
        _plans.Run(cluster, () => { }, nanoseconds => measured.Add(Plans[measured.Count], nanoseconds));
        return measured;
    }

    private long[] MeasureHandoff(BenchCluster cluster)
    {
        long[]? measured = null;
        string[] program = [BenchCluster.FindProgram("vsmp-handoff"), Count, cluster.Scratch];
        (int exitCode, string error) = cluster.RunRanks(2, cluster.Nodes.Take(2), Msi.Protocol.Name, local: null, program,
            line => measured = PlanRun.Nanoseconds(line));
        if (exitCode != 0 || measured is null) throw new BenchException($"the ranks ended with exit code {exitCode}: {error}");
        return measured;
    }

    private string Count => pages.ToString(CultureInfo.InvariantCulture);
}
