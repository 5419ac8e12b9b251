// SPDX-License-Identifier: Apache-2.0
using System.CommandLine;
using VSmp.Bench.Running;

namespace VSmp.Bench.Checkpoints;

/// <summary><c>vsmp-bench checkpoint</c>: what checkpoints cost, and what going on from one does.</summary>
public static class CheckpointsCommand
{
    private const int DefaultMebibytes = 1024, DefaultGenerations = 12, DefaultRounds = 5, DefaultReads = 1_000_000, DefaultEverySeconds = 5, DefaultMtbfSeconds = 20, DefaultComputeSeconds = 40;
    private const int OverheadMtbfSeconds = 3600, ShareMebibytes = 256, ShareGenerations = 4;

    /// <summary>Memory that is kept in each tier.</summary>
    internal const int TierMebibytes = 256;

    /// <summary>How many nodes have it.</summary>
    internal const int TierNodes = 4;

    private static readonly string[] Tiers = ["disk", "partner", "xor"];
    private static readonly string[] Parts = ["pause", "overhead", "share", "restore", "tiers", "waste"];
    private static readonly int[] Percents = [1, 5, 10, 25, 50, 100];
    private static readonly double[] Factors = [0.25, 0.5, 1, 2, 4, 8];

    /// <summary>The command.</summary>
    public static Command New()
    {
        Option<string[]> parts = new("--parts")
        {
            Description = "What is measured: how long a checkpoint stops ranks; what it costs an application; what it has and takes, by what was written; "
                + "what going on from one takes; what each tier takes; what nodes that are killed cost, by how often one is taken (default: all)",
            HelpName = string.Join('|', Parts),
            AllowMultipleArgumentsPerToken = true,
            DefaultValueFactory = _ => Parts,
        };
        parts.AcceptOnlyFromAmong(Parts);
        Option<int> mebibytes = Workload.NewCountOption("--mebibytes", "Memory that is stopped, and gone on with", DefaultMebibytes, 1 << 16, least: 16);
        Option<int> generations = Workload.NewCountOption("--generations", "How many generations of it", DefaultGenerations, 10_000);
        Option<int> rounds = Workload.NewCountOption("--rounds", "How often the application is run without and with, and a job goes on", DefaultRounds, 1000);
        Option<int> reads = Workload.NewCountOption("--reads", "How many reads the application counts k-mers of", DefaultReads, 1 << 20, least: 10_000);
        Option<int> every = Workload.NewCountOption("--every", "Seconds between its checkpoints", DefaultEverySeconds, 3600);
        Option<int> compute = Workload.NewCountOption("--compute", "Seconds that the job computes whose nodes are killed", DefaultComputeSeconds, 86_400, least: 2);
        Option<int> mtbf = Workload.NewCountOption("--mtbf", "Mean time between their kills, in seconds", DefaultMtbfSeconds, 86_400);
        Option<ulong> seed = Workload.NewSeedOption();
        Option<FileInfo?> csv = new("--csv") { Description = "Write a line there for each interval of the job whose nodes are killed", HelpName = "FILE" };
        Option<FileInfo?> wasteSvg = new("--waste-svg") { Description = "Draw there what is wasted, by interval, and what theory says", HelpName = "FILE" };
        Command command = new("checkpoint", "Take checkpoints of jobs: how long ranks stop, what it costs, what going on takes, and what is wasted while nodes are killed (ten minutes). "
            + "Fails if a job that went on has another result.");
        foreach (Option option in new Option[] { parts, mebibytes, generations, rounds, reads, every, compute, mtbf, seed, csv, wasteSvg }) command.Options.Add(option);
        ReportOptions files = new(command, isDrawn: true);
        command.SetAction(parsed => Workload.Guard(() =>
        {
            HashSet<string> wanted = [.. parsed.GetValue(parts)!];
            CheckpointReport report = new(Machine.Here(), CheckpointRun.Ranks, null, null, null, null, null);
            if (wanted.Overlaps(Parts.Except(["tiers", "waste"])))
            {
                int size = parsed.GetValue(mebibytes);
                using BenchCluster cluster = new(CheckpointRun.Ranks, FormattableString.Invariant($"{size + 512}M"), hasCheckpoints: true);
                CheckpointRun run = new(cluster);
                if (wanted.Contains("pause")) report = report with { Pause = Tell("pause", () => run.Pause(size, parsed.GetValue(generations))) };
                if (wanted.Contains("share")) report = report with { Shares = [.. Percents.Select(percent => Tell($"share {percent} %", () => run.Share(ShareMebibytes, percent, ShareGenerations)))] };
                if (wanted.Contains("restore")) report = report with { Restore = Tell("restore", () => run.Restore(size, parsed.GetValue(rounds))) };
                if (wanted.Contains("overhead"))
                {
                    report = report with
                    {
                        Overhead = run.Overhead(parsed.GetValue(reads), parsed.GetValue(rounds), parsed.GetValue(every), OverheadMtbfSeconds,
                        round => Console.Error.WriteLine($"overhead, round {round} of {parsed.GetValue(rounds)}"))
                    };
                }
            }
            if (wanted.Contains("tiers"))
            {
                using BenchCluster cluster = new(TierNodes, "1G", hasCheckpoints: true);
                CheckpointRun run = new(cluster, TierNodes);
                report = report with { Tiers = [.. Tiers.Select(tier => Tell($"tier {tier}", () => run.Tier(tier, TierMebibytes, parsed.GetValue(rounds))))] };
            }
            if (wanted.Contains("waste"))
            {
                using BenchCluster cluster = new(WasteRun.Agents, WasteRun.Memory, hasCheckpoints: true);
                report = report with
                {
                    Waste = new WasteRun(cluster, parsed.GetValue(mtbf), parsed.GetValue(seed)).Run(parsed.GetValue(compute), Factors,
                    interval => Console.Error.WriteLine(FormattableString.Invariant($"waste, every {interval:F2} s")))
                };
            }
            files.Write(parsed, report);
            Write(parsed.GetValue(csv), report.ToCsv());
            Write(parsed.GetValue(wasteSvg), report.ToWasteSvg());
            return ExitCode.Ok;
        }));
        return command;
    }

    private static T Tell<T>(string what, Func<T> measure)
    {
        Console.Error.WriteLine(what);
        return measure();
    }

    private static void Write(FileInfo? file, string text)
    {
        if (file is null) return;
        try
        {
            File.WriteAllText(file.FullName, text);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new BenchException($"the report cannot be written: {e.Message}");
        }
    }
}
