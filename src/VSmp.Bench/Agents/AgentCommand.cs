// SPDX-License-Identifier: Apache-2.0
using System.CommandLine;
using VSmp.Bench.Running;

namespace VSmp.Bench.Agents;

/// <summary><c>vsmp-bench agent</c>: what an agent takes of its node, beside the memory that it contributes.</summary>
public static class AgentCommand
{
    private const int DefaultSeconds = 20, MaxSeconds = 3600, DefaultPages = 20_480, MaxPages = 1 << 18;

    /// <summary>The command.</summary>
    public static Command New()
    {
        Option<string> transport = Workload.NewTransportOption();
        Option<int> seconds = Workload.NewCountOption("--seconds", "How long idle agents are watched, without and with ranks", DefaultSeconds, MaxSeconds);
        Option<int> pages = Workload.NewCountOption("--pages", "Pages of each kind of fault", DefaultPages, MaxPages, least: 512);
        Command command = new("agent", "Measure what an agent takes: processor when idle, memory, managed memory for each fault, directory (a minute).");
        foreach (Option option in new Option[] { transport, seconds, pages }) command.Options.Add(option);
        ReportOptions files = new(command, isDrawn: false);
        command.SetAction(parsed => Workload.Guard(() =>
        {
            files.Write(parsed, Measure(parsed.GetValue(transport)!, parsed.GetValue(seconds), parsed.GetValue(pages)));
            return ExitCode.Ok;
        }));
        return command;
    }

    private static AgentReport Measure(string transport, int seconds, int pages)
    {
        AgentRun run = new(seconds, pages);
        using BenchCluster cluster = new(2, run.Memory, transport);
        return new AgentReport(Machine.Here(), transport, seconds, pages, run.Run(cluster));
    }
}
