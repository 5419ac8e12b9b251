// SPDX-License-Identifier: Apache-2.0
using System.CommandLine;
using VSmp.Bench.Running;

namespace VSmp.Bench.Fault;

/// <summary><c>vsmp-bench fault</c>: what a page's transitions cost, in time and in what goes over the wire.</summary>
public static class FaultCommand
{
    private const int DefaultAgents = 5, DefaultPages = 1000;

    // On few processors, as many as this are in each other's way: what needs them is counted. Counts need no more pages than this.
    private const int CrowdPages = 100;

    private static readonly int MostAgents = Transition.All.Max(transition => transition.Nodes);

    /// <summary>The command.</summary>
    public static Command New()
    {
        Option<string> transport = Workload.NewTransportOption();
        Option<int> agents = Workload.NewCountOption("--agents", "How many agents; what needs more nodes is left out. If this is not given, that is counted, "
            + $"but not timed, on {MostAgents} agents", DefaultAgents, MostAgents, least: 2);
        Option<string?> cluster = Workload.NewClusterOption();
        Option<int> pages = Workload.NewCountOption("--pages", "How many pages make each transition, one after the other",
            DefaultPages, 100_000);
        Option<bool> breakdown = new("--breakdown") { Description = "Say where the time goes, of faults that one other node answers; on two agents of this host" };
        Command command = new("fault", "Measure each kind of page fault: time, frames, messages, completions, copies. "
            + "Fails if one takes other frames than the protocol says.");
        foreach (Option option in new Option[] { transport, agents, cluster, pages, breakdown }) command.Options.Add(option);
        ReportOptions files = new(command, isDrawn: false);
        command.Validators.Add(result =>
        {
            if (result.GetResult(breakdown) is { Implicit: false } && result.GetResult(cluster) is not null)
            {
                result.AddError("--breakdown is for a cluster that is started, not for --cluster");
            }
            if (result.GetResult(cluster) is null) return;
            foreach (Option option in new Option[] { transport, agents })
            {
                if (result.GetResult(option) is { Implicit: false }) result.AddError($"{option.Name} is for a cluster that is started, not for --cluster");
            }
        });
        command.SetAction(parsed => Workload.Guard(() =>
        {
            if (parsed.GetValue(breakdown))
            {
                files.Write(parsed, BreakdownReport.Measure(parsed.GetValue(transport)!, parsed.GetValue(pages)));
                return ExitCode.Ok;
            }
            FaultReport report = parsed.GetValue(cluster) is { } name
                ? Measure(name, parsed.GetValue(pages))
                : Measure(parsed.GetValue(transport)!, parsed.GetValue(agents), parsed.GetValue(pages), isCrowded: parsed.GetResult(agents) is not { Implicit: false });
            files.Write(parsed, report);
            return Verdict(report);
        }));
        return command;
    }

    private static FaultReport Measure(string transport, int agents, int pages, bool isCrowded)
    {
        FaultReport report = Measure(transport, agents, new FaultRun(agents, pages));
        if (!isCrowded) return report;
        Crowd crowd = new(MostAgents, Math.Min(pages, CrowdPages));
        FaultReport counted = Measure(transport, crowd.Agents, new FaultRun(crowd.Agents, crowd.Pages, above: agents));
        return report with { Crowd = crowd, Results = [.. report.Results, .. counted.Results] };
    }

    private static FaultReport Measure(string transport, int agents, FaultRun run)
    {
        using BenchCluster cluster = new(agents, run.Memory, transport);
        return run.Run(cluster);
    }

    private static FaultReport Measure(string name, int pages)
    {
        using BenchCluster cluster = BenchCluster.Use(name);
        if (cluster.Nodes.Count < 2) throw new BenchException($"cluster {name} has one node; a fault that is answered by another takes two");
        return new FaultRun(Math.Min(cluster.Nodes.Count, MostAgents), pages).Run(cluster);
    }

    private static int Verdict(FaultReport report)
    {
        TransitionResult[] strange = [.. report.Results.Where(result => result.IsAsExpected == false)];
        foreach (TransitionResult result in strange)
        {
            Console.WriteLine(FormattableString.Invariant(
                $"{result.Transition.Name}: {result.Frames:F2} frames a page; the protocol says {result.Transition.Frames}"));
        }
        return strange.Length == 0 ? ExitCode.Ok : ExitCode.Wrong;
    }
}
