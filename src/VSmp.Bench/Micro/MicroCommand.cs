// SPDX-License-Identifier: Apache-2.0
using System.CommandLine;
using System.Globalization;
using BenchmarkDotNet.Columns;
using BenchmarkDotNet.Configs;
using BenchmarkDotNet.Diagnosers;
using BenchmarkDotNet.Jobs;
using BenchmarkDotNet.Loggers;
using BenchmarkDotNet.Reports;
using BenchmarkDotNet.Running;
using BenchmarkDotNet.Toolchains.InProcess.Emit;
using Perfolizer.Horology;

namespace VSmp.Bench.Micro;

/// <summary><c>vsmp-bench micro</c>: how long a protocol step takes, and that it allocates nothing.</summary>
internal static class MicroCommand
{
    private const int WarmupCount = 3, IterationCount = 7, IterationMilliseconds = 200;

    /// <summary>The command.</summary>
    public static Command New()
    {
        Option<bool> verbose = new("--verbose") { Description = "Print everything that BenchmarkDotNet has to say" };
        Command command = new("micro", "Measure protocol steps, without fabric and pages (a minute). Fails if one allocates memory.");
        command.Options.Add(verbose);
        command.SetAction(parsed => Run(parsed.GetValue(verbose)));
        return command;
    }

    private static int Run(bool isVerbose)
    {
        string artifacts = Directory.CreateTempSubdirectory("vsmp-micro-").FullName;
        // In this process: a clone that is built needs no compiler, and no second build, to be measured.
        Job job = Job.Default.WithToolchain(InProcessEmitToolchain.Instance).WithWarmupCount(WarmupCount)
            .WithIterationCount(IterationCount).WithIterationTime(TimeInterval.FromMilliseconds(IterationMilliseconds));
        IConfig config = ManualConfig.CreateEmpty().AddJob(job).AddDiagnoser(MemoryDiagnoser.Default)
            .AddColumnProvider(DefaultColumnProviders.Instance).AddLogger(isVerbose ? ConsoleLogger.Default : NullLogger.Instance)
            .WithOptions(ConfigOptions.DisableLogFile).WithArtifactsPath(artifacts);
        Summary summary = BenchmarkRunner.Run<ProtocolRounds>(config);
        Directory.Delete(artifacts, recursive: true);

        Console.WriteLine("| protocol | round    | steps | ns/round | mean | ns/step | bytes |");
        Console.WriteLine("|----------|----------|-------|----------|------|---------|-------|");
        string[] protocols = [.. ProtocolRounds.Protocols];
        int wrong = summary.Reports.OrderBy(r => Array.IndexOf(protocols, ProtocolOf(r))).Count(report => !Print(report));
        return wrong > 0 || summary.Reports.Length == 0 ? 1 : 0;
    }

    private static string ProtocolOf(BenchmarkReport report) => (string)report.BenchmarkCase.Parameters[nameof(ProtocolRounds.Protocol)];

    /// <returns>Whether it was measured, and allocates nothing.</returns>
    private static bool Print(BenchmarkReport report)
    {
        string round = report.BenchmarkCase.Descriptor.WorkloadMethod.Name, protocol = ProtocolOf(report);
        if (report.ResultStatistics is not { } time || report.GcStats.GetBytesAllocatedPerOperation(report.BenchmarkCase) is not { } bytes)
        {
            Console.WriteLine($"{round}, {protocol}: not measured; --verbose says why");
            return false;
        }
        long steps = StepsOf(round, protocol);
        // The least is what it takes; what is more was somebody else's.
        double least = time.Min;
        FormattableString row =
            $"| {protocol,-8} | {round,-8} | {steps,5} | {least,8:F0} | {time.Mean,4:F0} | {least / steps,7:F0} | {bytes,5} |";
        Console.WriteLine(row.ToString(CultureInfo.InvariantCulture));
        return bytes == 0;
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
