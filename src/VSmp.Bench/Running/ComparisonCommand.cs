// SPDX-License-Identifier: Apache-2.0
using System.CommandLine;

namespace VSmp.Bench.Running;

/// <summary>The form of commands that measure VSmp and bare C by turns, on two agents with a processor each.</summary>
internal static class ComparisonCommand
{
    private const int DefaultPages = 2048, DefaultRounds = 7, MaxRounds = 1000, BatchPages = 16;

    /// <summary>Measures, with a cluster made for it.</summary>
    /// <param name="transport">What carries frames, as <c>vsmp up</c> takes it.</param>
    /// <param name="pages">How many pages; a multiple of what a floor installs at once.</param>
    /// <param name="rounds">How often everything is to be measured.</param>
    /// <param name="onRound">To be told of each round that begins, from 1 on.</param>
    public delegate IDrawnReport Measure(string transport, int pages, int rounds, Action<int> onRound);

    /// <summary>A command.</summary>
    /// <param name="name">Its name.</param>
    /// <param name="description">What it measures.</param>
    /// <param name="pagesOf">What there are that many pages of.</param>
    /// <param name="measure">Does it.</param>
    public static Command New(string name, string description, string pagesOf, Measure measure)
    {
        Option<string> transport = Workload.NewTransportOption("; floors are always over TCP");
        Option<int> pages = Workload.NewCountOption("--pages", $"Pages of each {pagesOf}", DefaultPages, 100_000, BatchPages);
        Option<int> rounds = Workload.NewCountOption("--rounds", "How often everything is measured", DefaultRounds, MaxRounds);
        Command command = new(name, description);
        foreach (Option option in new Option[] { transport, pages, rounds }) command.Options.Add(option);
        ReportOptions files = new(command, isDrawn: true);
        command.SetAction(parsed => Workload.Guard(() =>
        {
            int times = parsed.GetValue(rounds);
            files.Write(parsed, measure(parsed.GetValue(transport)!, parsed.GetValue(pages) / BatchPages * BatchPages, times,
                round => Console.Error.WriteLine($"round {round} of {times}")));
            return ExitCode.Ok;
        }));
        return command;
    }
}
