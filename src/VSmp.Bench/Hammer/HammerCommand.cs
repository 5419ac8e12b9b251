// SPDX-License-Identifier: Apache-2.0
using System.CommandLine;
using System.Globalization;
using System.Text.Json;
using VSmp.Bench.Running;
using VSmp.Coherence.Lazy;
using VSmp.Coherence.Protocols;

namespace VSmp.Bench.Hammer;

/// <summary><c>vsmp-bench hammer</c>: ranks add to counters on the same pages for a while; every counter must be exact.</summary>
public static class HammerCommand
{
    private const int Agents = 4, Pages = 64;

    // The ballast of each rank, and what a node may hold of others' pages: a fraction of what its ranks walk through.
    private const int BallastMegabytes = 16;
    private const string Budget = "8M";

    /// <summary>The command.</summary>
    public static Command New()
    {
        Option<int> seconds = Workload.NewCountOption("--seconds", "How long", 60, 86_400);
        Option<int> ranks = Workload.NewCountOption("--ranks", "How many ranks, on four agents", 8, 64);
        Option<string> protocol = Workload.NewProtocolOption(ProtocolCatalog.Names);
        Option<ulong> seed = Workload.NewSeedOption();
        Command command = new("hammer", $"Let ranks hammer the same {Pages} pages under a budget that forces eviction; fails if a counter is wrong.");
        foreach (Option option in new Option[] { seconds, ranks, protocol, seed }) command.Options.Add(option);
        command.SetAction(parsed => Workload.Guard(() => Run(parsed.GetValue(seconds), parsed.GetValue(ranks), parsed.GetValue(protocol)!,
            parsed.GetValue(seed))));
        return command;
    }

    private static int Run(int seconds, int ranks, string protocol, ulong seed)
    {
        Console.WriteLine($"hammer: protocol {protocol}, seed {seed}, {ranks} ranks on {Agents} agents, {Pages} pages, {seconds} s, "
            + $"--local {Budget}, {BallastMegabytes} MiB of ballast per rank");
        List<string> lines = [];
        using BenchCluster cluster = new(Agents, $"{64 + (ranks * BallastMegabytes)}M");
        List<string> program =
        [
            BenchCluster.FindProgram("vsmp-hammer"), Text(seconds), Text(Pages), Text(BallastMegabytes),
            seed.ToString(CultureInfo.InvariantCulture),
        ];
        if (protocol == LazyRelease.Name) program.Add("lazy"); // coherent for those only who take locks
        string statistics = Path.Combine(cluster.Scratch, "statistics");
        (int exitCode, string error) = cluster.RunRanks(ranks, cluster.Nodes, protocol, Budget, program, lines.Add, statistics);
        if (lines.Find(line => line.StartsWith('{')) is not { } report)
        {
            throw new BenchException($"the ranks ended with exit code {exitCode}: {error}");
        }
        if (error.Length > 0) Console.WriteLine(error);
        using JsonDocument document = JsonDocument.Parse(report);
        int result = Report(document.RootElement, exitCode);
        using JsonDocument figures = JsonDocument.Parse(File.ReadAllText(statistics));
        foreach (JsonProperty node in figures.RootElement.GetProperty("nodes").EnumerateObject()) Console.WriteLine(Describe(node));
        if (result == ExitCode.Ok) Console.WriteLine("every counter is exact");
        return result;
    }

    private static string Describe(JsonProperty node)
    {
        long Number(string name) => node.Value.GetProperty(name).GetInt64();
        double median = node.Value.GetProperty("faultMicroseconds").GetProperty("p50").GetDouble();
        return string.Create(CultureInfo.InvariantCulture, $"node {node.Name}: {Number("faultsRead") + Number("faultsWrite")} faults, ")
            + string.Create(CultureInfo.InvariantCulture, $"median {median:F0} µs; {Number("pagesFetched")} pages fetched, ")
            + string.Create(CultureInfo.InvariantCulture, $"{Number("pagesEvicted")} evicted, {Number("pagesWrittenBack")} written back");
    }

    private static int Report(JsonElement report, int exitCode)
    {
        JsonElement[] ranks = [.. report.GetProperty("ranks").EnumerateArray()];
        long[] operations = [.. ranks.Select(rank => rank.GetProperty("operations").GetInt64())];
        double seconds = report.GetProperty("seconds").GetDouble();
        for (int rank = 0; rank < ranks.Length; rank++)
        {
            Console.WriteLine(string.Create(CultureInfo.InvariantCulture,
                $"rank {rank,2}: {operations[rank],9} operations, longest {ranks[rank].GetProperty("longestMicroseconds").GetInt64() / 1000.0:F1} ms, ")
                + $"{ranks[rank].GetProperty("ballastSweeps").GetInt64()} sweeps of its ballast");
        }
        long slowest = operations.Min(), total = operations.Sum(), wrong = report.GetProperty("wrong").GetInt64();
        Console.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{total} operations in {seconds:F1} s; the slowest rank made {slowest}, ")
            + string.Create(CultureInfo.InvariantCulture, $"{100.0 * slowest * operations.Length / total:F0} % of the average; {wrong} wrong"));
        if (wrong > 0) return ExitCode.Wrong;
        if (exitCode != 0) throw new BenchException($"the ranks ended with exit code {exitCode}");
        return ExitCode.Ok;
    }

    private static string Text(int number) => number.ToString(CultureInfo.InvariantCulture);
}
