// SPDX-License-Identifier: Apache-2.0
using System.CommandLine;
using VSmp.Bench.Running;

namespace VSmp.Bench.Bandwidth;

/// <summary><c>vsmp-bench bandwidth</c>: how fast pages move that another node has, beside bare C.</summary>
public static class BandwidthCommand
{
    private const int DefaultPages = 2048, DefaultRounds = 7, MaxRounds = 1000, BatchPages = 16;

    /// <summary>The command.</summary>
    public static Command New()
    {
        Option<string> transport = Workload.NewTransportOption("; floors are always over TCP");
        Option<int> pages = Workload.NewCountOption("--pages", $"Pages of each pattern, a multiple of {BatchPages}; an exchange has twice as many", DefaultPages,
            100_000, BatchPages);
        Option<int> rounds = Workload.NewCountOption("--rounds", "How often everything is measured", DefaultRounds, MaxRounds);
        Command command = new("bandwidth", "Measure how fast pages are read, overwritten and exchanged, in order and at random, beside bare C that does the same "
            + "(half a minute). Fails if something is read that was not written.");
        foreach (Option option in new Option[] { transport, pages, rounds }) command.Options.Add(option);
        ReportOptions files = new(command, isDrawn: true);
        command.SetAction(parsed => Workload.Guard(() =>
        {
            files.Write(parsed, Measure(parsed.GetValue(transport)!, parsed.GetValue(pages) / BatchPages * BatchPages, parsed.GetValue(rounds)));
            return ExitCode.Ok;
        }));
        return command;
    }

    private static BandwidthReport Measure(string transport, int pages, int rounds)
    {
        BandwidthRun run = new(pages, rounds);
        using BenchCluster cluster = new(2, run.Memory, transport, isPinned: true);
        return new BandwidthReport(Machine.Here(), transport, pages, rounds, run.Run(cluster, round => Console.Error.WriteLine($"round {round} of {rounds}")));
    }
}
