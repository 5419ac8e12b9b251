// SPDX-License-Identifier: Apache-2.0
using System.CommandLine;
using System.Diagnostics;
using System.Globalization;
using VSmp.Bench.Running;
using VSmp.Coherence.Protocols;

namespace VSmp.Bench.History;

/// <summary><c>vsmp-bench history</c>: records what ranks read and wrote, and checks that every word was linearizable.</summary>
public static class HistoryCommand
{
    private const int Ranks = 4, Words = 8;

    /// <summary>The command.</summary>
    public static Command New()
    {
        Option<int> operations = Workload.NewCountOption("--operations", "How many operations, over all ranks", 1_000_000, 100_000_000,
            least: Ranks);
        Option<string> protocol = Workload.NewProtocolOption(ProtocolCatalog.All.Select(p => p.Name));
        Option<ulong> seed = Workload.NewSeedOption();
        Command command = new("history",
            "Record reads, writes and fetch-and-adds of four ranks on shared words; fails unless they are linearizable.");
        foreach (Option option in new Option[] { operations, protocol, seed }) command.Options.Add(option);
        command.SetAction(parsed => Workload.Guard(() => Run(parsed.GetValue(operations), parsed.GetValue(protocol)!, parsed.GetValue(seed))));
        return command;
    }

    private static int Run(int operationCount, string protocol, ulong seed)
    {
        Console.WriteLine($"history: protocol {protocol}, seed {seed}, {operationCount} operations of {Ranks} ranks on {Words} words");
        Stopwatch recording = Stopwatch.StartNew();
        List<Operation> operations = new(operationCount);
        using (BenchCluster cluster = new(Ranks, "64M"))
        {
            string[] program =
            [
                BenchCluster.FindProgram("vsmp-history"), cluster.Scratch, (operationCount / Ranks).ToString(CultureInfo.InvariantCulture),
                Words.ToString(CultureInfo.InvariantCulture), seed.ToString(CultureInfo.InvariantCulture),
            ];
            (int exitCode, string error) = cluster.RunRanks(Ranks, cluster.Nodes, protocol, local: null, program, _ => { });
            if (exitCode != 0) throw new BenchException($"the ranks ended with exit code {exitCode}: {error}");
            for (int rank = 0; rank < Ranks; rank++)
            {
                operations.AddRange(Operation.ReadFile(Path.Combine(cluster.Scratch, $"history-{rank}.bin")));
            }
        }
        recording.Stop();
        Stopwatch checking = Stopwatch.StartNew();
        IReadOnlyList<Violation> violations = LinearizabilityChecker.Check(operations);
        checking.Stop();
        long handOvers = CountHandOvers(operations);
        Console.WriteLine(string.Create(CultureInfo.InvariantCulture,
            $"{operations.Count} operations recorded in {recording.Elapsed.TotalSeconds:F1} s, checked in {checking.Elapsed.TotalSeconds:F1} s; ")
            + $"{handOvers} reads and fetch-and-adds found what another rank had left");
        foreach (Violation violation in violations)
        {
            Console.WriteLine($"NOT linearizable: word {violation.Word}: {violation.Reason}");
            foreach (Operation operation in violation.Operations) Console.WriteLine($"    {operation}");
        }
        if (violations.Count > 0) return ExitCode.Wrong;
        Console.WriteLine($"linearizable: all {Words} words");
        return ExitCode.Ok;
    }

    // Written values carry the rank above bit 48: how often memory really carried something from one rank to another.
    private static long CountHandOvers(List<Operation> operations)
    {
        int perRank = operations.Count / Ranks;
        long count = 0;
        for (int i = 0; i < operations.Count; i++)
        {
            ulong writer = operations[i].Value >> 48;
            if (operations[i].Kind != OperationKind.Write && writer != 0 && writer != (ulong)(i / perRank) + 1) count++;
        }
        return count;
    }
}
