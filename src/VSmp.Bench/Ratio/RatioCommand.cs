// SPDX-License-Identifier: Apache-2.0
using System.CommandLine;
using VSmp.Bench.Running;

namespace VSmp.Bench.Ratio;

/// <summary><c>vsmp-bench ratio</c>: what VSmp takes, as a multiple of what bare C takes for the same on the same machine.</summary>
public static class RatioCommand
{
    private const int DefaultPages = 2048, DefaultRounds = 7, MaxRounds = 1000, BatchPages = 16;

    /// <summary>The command.</summary>
    public static Command New()
    {
        Option<string> transport = Workload.NewTransportOption("; floors are always over TCP");
        Option<int> pages = Workload.NewCountOption("--pages", $"Pages of each measurement, a multiple of {BatchPages}", DefaultPages, 100_000, BatchPages);
        Option<int> rounds = Workload.NewCountOption("--rounds", "How often everything is measured", DefaultRounds, MaxRounds);
        Command command = new("ratio", "Measure faults, upgrades, hand-offs, streams and first touches beside bare C that does the same (a minute).");
        foreach (Option option in new Option[] { transport, pages, rounds }) command.Options.Add(option);
        ReportOptions files = new(command, isDrawn: true);
        command.SetAction(parsed => Workload.Guard(() =>
        {
            files.Write(parsed, Measure(parsed.GetValue(transport)!, parsed.GetValue(pages) / BatchPages * BatchPages, parsed.GetValue(rounds)));
            return ExitCode.Ok;
        }));
        return command;
    }

    private static RatioReport Measure(string transport, int pages, int rounds)
    {
        RatioRun run = new(pages, rounds);
        using BenchCluster cluster = new(2, run.Memory, transport, isPinned: true);
        return new RatioReport(Machine.Here(), transport, pages, rounds, run.Run(cluster, round => Console.Error.WriteLine($"round {round} of {rounds}")));
    }
}
