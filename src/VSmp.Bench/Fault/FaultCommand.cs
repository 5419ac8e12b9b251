// SPDX-License-Identifier: Apache-2.0
using System.CommandLine;
using VSmp.Bench.Running;

namespace VSmp.Bench.Fault;

/// <summary><c>vsmp-bench fault</c>: what a page's transitions cost, in time and in what goes over the wire.</summary>
public static class FaultCommand
{
    private const int DefaultAgents = 5, DefaultPages = 1000;

    /// <summary>The command.</summary>
    public static Command New()
    {
        Option<string> transport = new("--transport")
        {
            Description = "What carries frames between the agents, as vsmp up takes it",
            HelpName = "tcp|verbs[:DEVICE[:GID]]",
            DefaultValueFactory = _ => "tcp",
        };
        Option<int> agents = Workload.NewCountOption("--agents", "How many agents; what needs more nodes is left out", DefaultAgents,
            DefaultAgents, least: 2);
        Option<int> pages = Workload.NewCountOption("--pages", "How many pages make each transition, one after the other",
            DefaultPages, 100_000);
        Option<FileInfo?> json = new("--json") { Description = "Write the figures there, and the counters behind them", HelpName = "FILE" };
        Option<FileInfo?> markdown = new("--markdown") { Description = "Write the table there, too", HelpName = "FILE" };
        Command command = new("fault", "Measure each kind of page fault: time, frames, messages, completions, copies. "
            + "Fails if one takes other frames than the protocol says.");
        foreach (Option option in new Option[] { transport, agents, pages, json, markdown }) command.Options.Add(option);
        command.SetAction(parsed => Workload.Guard(() => Run(parsed.GetValue(transport)!, parsed.GetValue(agents),
            parsed.GetValue(pages), parsed.GetValue(json), parsed.GetValue(markdown))));
        return command;
    }

    private static int Run(string transport, int agents, int pages, FileInfo? json, FileInfo? markdown)
    {
        FaultRun run = new(agents, pages);
        IReadOnlyList<TransitionResult> results;
        using (BenchCluster cluster = new(agents, run.Memory, transport)) results = run.Run(cluster);
        FaultReport report = new(results[0].Counters.Transport, agents, pages, results);
        Console.WriteLine($"fault: {report.Transport}, {agents} agents on this host, protocol msi, {pages} pages for each transition, "
            + "asked for one at a time; counts are per page, of all nodes together");
        report.WriteMarkdown(Console.Out);
        if (json is not null) File.WriteAllText(json.FullName, report.ToJson());
        if (markdown is not null)
        {
            using StreamWriter file = markdown.CreateText();
            report.WriteMarkdown(file);
        }
        TransitionResult[] strange = [.. results.Where(result => !result.IsAsExpected)];
        foreach (TransitionResult result in strange)
        {
            Console.WriteLine(FormattableString.Invariant(
                $"{result.Transition.Name}: {result.Frames:F2} frames a page; the protocol says {result.Transition.Frames}"));
        }
        return strange.Length == 0 ? ExitCode.Ok : ExitCode.Wrong;
    }
}
