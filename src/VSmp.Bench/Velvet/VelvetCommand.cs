// SPDX-License-Identifier: Apache-2.0
using System.CommandLine;
using System.Globalization;
using VSmp.Bench.Running;

namespace VSmp.Bench.Velvet;

/// <summary><c>vsmp-bench velvet</c>: a genome assembler, unchanged, on less local memory than it needs.</summary>
public static class VelvetCommand
{
    private const int DefaultReads = 240_000, LeastReads = 60_000, MaxReads = 10_000_000, DefaultRounds = 3, MaxRounds = 100, DefaultLimit = 10;
    private const string DefaultBudgets = "100,75,50,25";

    /// <summary>The command.</summary>
    public static Command New()
    {
        Option<string> transport = Workload.NewTransportOption();
        Option<int> reads = Workload.NewCountOption("--reads", "How many reads are assembled: memory and time go with them", DefaultReads, MaxReads, LeastReads);
        Option<int> rounds = Workload.NewCountOption("--rounds", "How often everything is run", DefaultRounds, MaxRounds);
        Option<int> limit = Workload.NewCountOption("--limit", $"Give up a run at N times the native one's time and {VelvetRun.LimitSeconds} s", DefaultLimit, 10_000);
        Option<int[]> budgets = new("--budgets")
        {
            Description = "How much local memory there is, in per cent of the native peak",
            HelpName = "P,…",
            CustomParser = result => Percentages(result.Tokens[0].Value, result.AddError),
            DefaultValueFactory = _ => Percentages(DefaultBudgets, _ => { }),
            Arity = ArgumentArity.ExactlyOne,
        };
        Command command = new("velvet", "Run a genome assembler natively, on pooled memory, and with swap, on less and less local memory (some seven minutes). "
            + "Fails if it writes other bytes.");
        foreach (Option option in new Option[] { transport, reads, rounds, budgets, limit }) command.Options.Add(option);
        ReportOptions files = new(command, isDrawn: true);
        command.SetAction(parsed => Workload.Guard(() =>
        {
            VelvetReport report = Measure(parsed.GetValue(transport)!, parsed.GetValue(reads), parsed.GetValue(rounds), parsed.GetValue(budgets)!, parsed.GetValue(limit));
            files.Write(parsed, report);
            foreach (string difference in report.Differences) Console.WriteLine(difference);
            return report.Differences.Count == 0 ? ExitCode.Ok : ExitCode.Wrong;
        }));
        return command;
    }

    /// <summary>Percentages from text such as <c>100,50</c>.</summary>
    internal static int[] Percentages(string text, Action<string> onError)
    {
        List<int> percentages = [];
        foreach (string word in text.Split(','))
        {
            if (int.TryParse(word, NumberStyles.None, CultureInfo.InvariantCulture, out int percentage) && percentage is >= 1 and <= 200)
            {
                percentages.Add(percentage);
                continue;
            }
            onError($"--budgets: '{word}' is not a number from 1 to 200");
            return [];
        }
        return [.. percentages];
    }

    private static VelvetReport Measure(string transport, int reads, int rounds, int[] budgets, int limit)
    {
        // With more threads, what it writes depends on which of them was first.
        Environment.SetEnvironmentVariable("OMP_NUM_THREADS", "1");
        VelvetRun run = new(reads, rounds, budgets, limit);
        using BenchCluster cluster = new(2, run.Memory, transport);
        IReadOnlyList<VelvetResult> results = run.Run(cluster, round => Console.Error.WriteLine($"round {round} of {rounds}"));
        return new VelvetReport(Machine.Here(), transport, reads, rounds, limit, run.Peaks, run.SwapIsMissing, run.Differences, results);
    }
}
