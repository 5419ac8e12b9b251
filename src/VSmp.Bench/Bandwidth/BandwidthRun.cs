// SPDX-License-Identifier: Apache-2.0
using System.Globalization;
using VSmp.Bench.Fault;
using VSmp.Bench.Running;
using VSmp.Coherence;
using VSmp.Coherence.Protocols;

namespace VSmp.Bench.Bandwidth;

/// <summary>Measures patterns and their floors by turns on one cluster: a ratio is of two measurements that were made within seconds.</summary>
/// <param name="pages">Pages of each pattern; a multiple of what a floor installs at once. An exchange has twice as many.</param>
/// <param name="rounds">How often everything is measured.</param>
internal sealed class BandwidthRun(int pages, int rounds)
{
    private const int Ranks = 2, RegionParts = 5; // four patterns with pages of their own, whose homes are one node, and the exchange

    private static readonly string[] Floors = [.. Pattern.All.Select(pattern => pattern.Floor).Where(floor => floor != Pattern.Plain).Distinct()];

    /// <summary>What each agent has to contribute: the homes' pages, and as much again for copies.</summary>
    public string Memory
    {
        get
        {
            long extents = (long)RegionParts * ((pages + ExtentNumber.Pages - 1) / ExtentNumber.Pages);
            return string.Create(CultureInfo.InvariantCulture, $"{(2 * extents * ExtentNumber.Bytes >> 20) + 32}M");
        }
    }

    /// <summary>Measures.</summary>
    /// <param name="cluster">Two nodes, with nothing else to do.</param>
    /// <param name="onRound">Told of each round that begins, from 1 on.</param>
    /// <exception cref="BenchException">Something could not be measured.</exception>
    /// <exception cref="WrongResultException">Ranks have read something else than was written.</exception>
    public IReadOnlyList<BandwidthResult> Run(BenchCluster cluster, Action<int> onRound)
    {
        string[] nodes = [.. cluster.Nodes.Take(Ranks)];
        // Homes go round the nodes once what the ranks before had is given back: else pages would be here already.
        using AgentCounters agents = new(cluster.Name, nodes);
        BandwidthResult[] results = [.. Pattern.All.Select(pattern => new BandwidthResult(pattern))];
        _ = Measure(cluster, nodes); // what is compiled while it runs is compiled then
        for (int round = 1; round <= rounds; round++)
        {
            onRound(round);
            // Of each page, whether it was touched alone or with all others.
            Dictionary<string, long> floors = Floors.ToDictionary(floor => floor, floor => FloorProgram.Measure(cluster, floor, pages, isWhole: true).Sum());
            agents.RequireEvenMemory(nodes);
            IReadOnlyDictionary<string, double> ours = Measure(cluster, nodes);
            foreach (BandwidthResult result in results)
            {
                Pattern pattern = result.Pattern;
                double floor = pattern.Floor == Pattern.Plain ? ours[Pattern.Plain] : floors[pattern.Floor] / 1000.0 / (pattern.IsBothWays ? 2 * pages : pages);
                result.Add(floor, ours[pattern.Program]);
            }
        }
        return results;
    }

    private IReadOnlyDictionary<string, double> Measure(BenchCluster cluster, string[] nodes)
    {
        BandwidthOutput output = new();
        string[] program = [BenchCluster.FindProgram("vsmp-bandwidth"), pages.ToString(CultureInfo.InvariantCulture)];
        (int exitCode, string error) = cluster.RunRanks(Ranks, nodes, Msi.Protocol.Name, local: null, program, output.Add);
        return output.Require(exitCode, error);
    }
}
