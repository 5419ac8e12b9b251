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
        Option<string> transport = new("--transport")
        {
            Description = "What carries frames between the agents, as vsmp up takes it; floors are always over TCP",
            HelpName = "tcp|verbs[:DEVICE[:GID]]",
            DefaultValueFactory = _ => "tcp",
        };
        Option<int> pages = Workload.NewCountOption("--pages", $"Pages of each measurement, a multiple of {BatchPages}", DefaultPages, 100_000, BatchPages);
        Option<int> rounds = Workload.NewCountOption("--rounds", "How often everything is measured", DefaultRounds, MaxRounds);
        Option<FileInfo?> json = new("--json") { Description = "Write the figures there", HelpName = "FILE" };
        Option<FileInfo?> markdown = new("--markdown") { Description = "Write the table there, too", HelpName = "FILE" };
        Option<FileInfo?> svg = new("--svg") { Description = "Draw the ratios there", HelpName = "FILE" };
        Command command = new("ratio", "Measure faults, upgrades, hand-offs, streams and first touches beside bare C that does the same (a minute).");
        foreach (Option option in new Option[] { transport, pages, rounds, json, markdown, svg }) command.Options.Add(option);
        command.SetAction(parsed => Workload.Guard(() =>
        {
            RatioReport report = Measure(parsed.GetValue(transport)!, parsed.GetValue(pages) / BatchPages * BatchPages, parsed.GetValue(rounds));
            report.WriteMarkdown(Console.Out);
            if (parsed.GetValue(json) is { } jsonFile) File.WriteAllText(jsonFile.FullName, report.ToJson());
            if (parsed.GetValue(svg) is { } svgFile) File.WriteAllText(svgFile.FullName, report.ToSvg());
            if (parsed.GetValue(markdown) is { } markdownFile)
            {
                using StreamWriter file = markdownFile.CreateText();
                report.WriteMarkdown(file);
            }
            return ExitCode.Ok;
        }));
        return command;
    }

    private static RatioReport Measure(string transport, int pages, int rounds)
    {
        RatioRun run = new(pages, rounds);
        using BenchCluster cluster = new(2, run.Memory, transport);
        return new RatioReport(Machine.Here(), transport, pages, rounds, run.Run(cluster, round => Console.Error.WriteLine($"round {round} of {rounds}")));
    }
}
