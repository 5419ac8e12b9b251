// SPDX-License-Identifier: Apache-2.0
using System.CommandLine;
using System.Diagnostics;
using System.Globalization;
using VSmp.Bench.Running;

namespace VSmp.Bench.Litmus;

/// <summary><c>vsmp-bench litmus</c>: litmus tests on real pages, between real processes.</summary>
public static class LitmusCommand
{
    private const int RunsPerTest = 100_000, DeepRunsPerTest = 2_000_000, ControlRunsPerTest = 10_000;

    /// <summary>The command.</summary>
    public static Command New()
    {
        Option<bool> deep = new("--deep") { Description = $"{DeepRunsPerTest} runs of each test instead of {RunsPerTest}" };
        Option<bool> control = new("--control")
        {
            Description = "Let the ranks read from copies that are not coherent: succeeds if that is found out",
        };
        Option<string> protocol = Workload.NewProtocolOption();
        Option<ulong> seed = Workload.NewSeedOption();
        Command command = new("litmus", "Run litmus tests on the memory of four agents; fails if x86-TSO does not hold.");
        foreach (Option option in new Option[] { deep, control, protocol, seed }) command.Options.Add(option);
        command.SetAction(parsed => Workload.Guard(() => Run(parsed.GetValue(deep), parsed.GetValue(control), parsed.GetValue(protocol)!,
            parsed.GetValue(seed))));
        return command;
    }

    private static int Run(bool isDeep, bool isControl, string protocol, ulong seed)
    {
        int runs = isControl ? ControlRunsPerTest : isDeep ? DeepRunsPerTest : RunsPerTest;
        Console.WriteLine($"litmus: protocol {protocol}, seed {seed}, {runs} runs per test over all variants"
            + (isControl ? ", on copies that are NOT coherent" : ""));
        Stopwatch watch = Stopwatch.StartNew();
        LitmusRun run = new(LitmusTest.All, runs);
        using (BenchCluster cluster = new(4, "64M")) run.Run(cluster, protocol, seed, isControl);
        LitmusReport report = new(run.Results);
        report.Write(Console.Out);
        Console.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{watch.Elapsed.TotalSeconds:F0} s"));
        return isControl ? JudgeControl(report) : report.Violations == 0 ? ExitCode.Ok : ExitCode.Wrong;
    }

    // Copies that lag show wherever something old can be read after something new; a test whose question is about the order of
    // stores alone, or about reading what is not written yet, cannot show it.
    private static int JudgeControl(LitmusReport report)
    {
        string[] expected = ["SB", "MP", "IRIW", "CoWR", "R", "WRC", "ISA2"];
        string[] missed = [.. expected.Except(report.TestsWithViolations)];
        if (missed.Length == 0)
        {
            Console.WriteLine($"control: every test that can show copies that lag did ({string.Join(", ", expected)})");
            return ExitCode.Ok;
        }
        Console.WriteLine($"control: NOT found out by {string.Join(", ", missed)}: a pass of them means nothing");
        return ExitCode.Wrong;
    }
}
