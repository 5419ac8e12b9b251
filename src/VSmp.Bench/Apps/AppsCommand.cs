// SPDX-License-Identifier: Apache-2.0
using System.CommandLine;
using VSmp.Bench.Running;
using VSmp.Coherence.Protocols;

namespace VSmp.Bench.Apps;

/// <summary><c>vsmp-bench apps</c>: what parallel applications take, as a multiple of what they take with MPI on the same machine.</summary>
public static class AppsCommand
{
    private const int DefaultRounds = 5, MaxRounds = 1000;

    /// <summary>The command.</summary>
    public static Command New()
    {
        Option<string> transport = Workload.NewTransportOption("; MPI is always over TCP");
        Option<string> protocol = Workload.NewProtocolOption(ProtocolCatalog.All.Select(p => p.Name));
        Option<int> rounds = Workload.NewCountOption("--rounds", "How often everything is run", DefaultRounds, MaxRounds);
        Command command = new("apps", "Run a stencil and a k-mer count as ranks of VSmp and of MPI, and random updates beside plain memory (two minutes). "
            + "Fails if results differ.");
        foreach (Option option in new Option[] { transport, protocol, rounds }) command.Options.Add(option);
        ReportOptions files = new(command, isDrawn: true);
        command.SetAction(parsed => Workload.Guard(() =>
        {
            files.Write(parsed, Measure(parsed.GetValue(transport)!, parsed.GetValue(protocol)!, parsed.GetValue(rounds)));
            return ExitCode.Ok;
        }));
        return command;
    }

    private static AppsReport Measure(string transport, string protocol, int rounds)
    {
        AppsRun run = new(protocol, rounds);
        using BenchCluster cluster = new(2, AppsRun.Memory, transport);
        (IReadOnlyList<ApplicationResult> applications, GupsResult gups) = run.Run(cluster, round => Console.Error.WriteLine($"round {round} of {rounds}"));
        return new AppsReport(Machine.Here(), transport, protocol, rounds, applications, gups);
    }
}
