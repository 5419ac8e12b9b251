// SPDX-License-Identifier: Apache-2.0
using System.CommandLine;
using System.CommandLine.Parsing;
using VSmp.Bench.Running;

namespace VSmp.Bench.Recovery;

/// <summary><c>vsmp-bench recovery</c>: what the loss of a node or of its host costs a guest whose memory is mirrored; or that of an agent alone, which its keeper starts again.</summary>
public static class RecoveryCommand
{
    private const int DefaultAgents = 4, DefaultKills = 20, DefaultMebibytes = 96, Rounds = 3, ShortRun = 5, RoundMilliseconds = 4000;

    /// <summary>The command.</summary>
    public static Command New()
    {
        Option<Victims> what = new("--what")
        {
            Description = "What is killed: a node, but not the guest's own, and the guest's memory is mirrored; or a host likewise, which is cut off at that moment, so that "
                + "only its silence tells; or any node's agent alone, which its keeper starts again, and the guest's memory has no mirrors",
            HelpName = "node|host|agent",
            CustomParser = ParseVictims,
        };
        Option<int> kills = Workload.NewCountOption("--kills", "How many times one is killed, and comes back", DefaultKills, 10_000);
        Option<int> agents = Workload.NewCountOption("--agents", "How many agents", DefaultAgents, 16, least: 4);
        Option<int> mebibytes = Workload.NewCountOption("--mebibytes", "How much memory the guest goes about in", DefaultMebibytes, 1 << 16, least: 32);
        Option<ulong> seed = Workload.NewSeedOption();
        Option<FileInfo?> csv = new("--csv") { Description = "Write a line for each kill there", HelpName = "FILE" };
        Command command = new("recovery", "Kill nodes, hosts, or agents alone (SIGKILL), under a guest that faults all the time: how long until that is known, until it is made good, and how long "
            + "the guest waits; and what mirrors cost. Fails if the guest reads anything else than it has written.");
        foreach (Option option in new Option[] { what, kills, agents, mebibytes, seed, csv }) command.Options.Add(option);
        ReportOptions files = new(command, isDrawn: true);
        command.SetAction(parsed => Workload.Guard(() =>
        {
            RecoveryReport report = Measure(parsed.GetValue(what), parsed.GetValue(agents), parsed.GetValue(kills), parsed.GetValue(mebibytes), parsed.GetValue(seed));
            files.Write(parsed, report);
            if (parsed.GetValue(csv) is { } file) WriteCsv(file, report);
            return ExitCode.Ok;
        }));
        return command;
    }

    private static Victims ParseVictims(ArgumentResult result)
    {
        string text = result.Tokens[0].Value;
        if (text == "agent") return Victims.Agent;
        if (text == "host") return Victims.Host;
        if (text != "node") result.AddError($"--what: '{text}' is neither node nor host nor agent");
        return Victims.Node;
    }

    private static RecoveryReport Measure(Victims what, int agents, int kills, int mebibytes, ulong seed)
    {
        using BenchCluster cluster = new(agents, RecoveryRun.MemoryFor(mebibytes));
        return new RecoveryRun(cluster, what, mebibytes, seed).Run(kills, kills < ShortRun ? 1 : Rounds, RoundMilliseconds);
    }

    private static void WriteCsv(FileInfo file, RecoveryReport report)
    {
        try
        {
            File.WriteAllText(file.FullName, report.ToCsv());
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new BenchException($"the report cannot be written: {e.Message}");
        }
    }
}
