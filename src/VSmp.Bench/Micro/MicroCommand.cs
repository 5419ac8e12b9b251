// SPDX-License-Identifier: Apache-2.0
using System.CommandLine;
using BenchmarkDotNet.Columns;
using BenchmarkDotNet.Configs;
using BenchmarkDotNet.Diagnosers;
using BenchmarkDotNet.Jobs;
using BenchmarkDotNet.Loggers;
using BenchmarkDotNet.Reports;
using BenchmarkDotNet.Running;
using BenchmarkDotNet.Toolchains.InProcess.Emit;
using Perfolizer.Horology;
using VSmp.Bench.Running;

namespace VSmp.Bench.Micro;

/// <summary><c>vsmp-bench micro</c>: how long the inside of an agent takes for a fault, and that it allocates nothing.</summary>
internal static class MicroCommand
{
    internal const int IterationCount = 7, IterationMilliseconds = 150;
    private const int WarmupCount = 3;

    /// <summary>The command.</summary>
    public static Command New()
    {
        Option<bool> verbose = new("--verbose") { Description = "Print everything that BenchmarkDotNet has to say" };
        Command command = new("micro", "Measure protocol steps, look-ups, framing, checksums and queues, without network and kernel (two minutes). "
            + "Fails if one allocates memory.");
        command.Options.Add(verbose);
        ReportOptions files = new(command, isDrawn: false);
        command.SetAction(parsed => Workload.Guard(() =>
        {
            MicroReport report = Measure(parsed.GetValue(verbose));
            files.Write(parsed, report);
            return report.IsFreeOfAllocation ? ExitCode.Ok : ExitCode.Wrong;
        }));
        return command;
    }

    private static MicroReport Measure(bool isVerbose)
    {
        string artifacts = Directory.CreateTempSubdirectory("vsmp-micro-").FullName;
        try
        {
            // In this process: a clone that is built needs no compiler, and no second build, to be measured.
            Job job = Job.Default.WithToolchain(InProcessEmitToolchain.Instance).WithWarmupCount(WarmupCount)
                .WithIterationCount(IterationCount).WithIterationTime(TimeInterval.FromMilliseconds(IterationMilliseconds));
            IConfig config = ManualConfig.CreateEmpty().AddJob(job).AddDiagnoser(MemoryDiagnoser.Default)
                .AddColumnProvider(DefaultColumnProviders.Instance).AddLogger(isVerbose ? ConsoleLogger.Default : NullLogger.Instance)
                .WithOptions(ConfigOptions.DisableLogFile).WithArtifactsPath(artifacts);
            MicroResult[] rounds = ResultsOf(BenchmarkRunner.Run<ProtocolRounds>(config), report =>
            {
                string protocol = (string)report.Parameters[nameof(ProtocolRounds.Protocol)], round = report.Descriptor.WorkloadMethod.Name;
                return (round, protocol, StepsOf(round, protocol));
            });
            MicroResult[] inside = ResultsOf(BenchmarkRunner.Run<Inside>(config), report => (report.Descriptor.WorkloadMethodDisplayInfo.Trim('\''), "", 1));
            string[] protocols = [.. ProtocolRounds.Protocols];
            return new MicroReport(Machine.Here(), [.. rounds.OrderBy(round => Array.IndexOf(protocols, round.Protocol))], inside);
        }
        finally
        {
            Directory.Delete(artifacts, recursive: true);
        }
    }

    private static MicroResult[] ResultsOf(Summary summary, Func<BenchmarkCase, (string Name, string Protocol, long Steps)> describe)
    {
        if (summary.Reports.Length == 0) throw new BenchException("nothing was measured; --verbose says why");
        return [.. summary.Reports.Select(report =>
        {
            (string name, string protocol, long steps) = describe(report.BenchmarkCase);
            return report.ResultStatistics is { } time && report.GcStats.GetBytesAllocatedPerOperation(report.BenchmarkCase) is { } bytes
                ? new MicroResult(name, protocol, steps, time.Min, time.Mean, bytes)
                : throw new BenchException($"{name} {protocol}: not measured; --verbose says why");
        })];
    }

    private static long StepsOf(string round, string protocol)
    {
        var rounds = new ProtocolRounds { Protocol = protocol };
        rounds.Setup();
        Action action = typeof(ProtocolRounds).GetMethod(round)!.CreateDelegate<Action>(rounds);
        action(); // the first one may have other steps: who asks is no sharer yet
        long before = rounds.Steps;
        action();
        return rounds.Steps - before;
    }
}
