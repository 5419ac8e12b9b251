// SPDX-License-Identifier: Apache-2.0
using System.CommandLine;
using System.Diagnostics;
using System.Globalization;
using VSmp.Bench.Running;
using VSmp.Coherence.Protocols;

namespace VSmp.Bench.Litmus;

/// <summary><c>vsmp-bench litmus</c>: litmus tests on real pages, between real processes.</summary>
public static class LitmusCommand
{
    private const int RunsPerTest = 100_000, DeepRunsPerTest = 1_000_000, ControlRunsPerTest = 10_000, ControlRounds = 20;

    /// <summary>The command.</summary>
    public static Command New()
    {
        Argument<string[]> tests = new("tests")
        {
            Description = "The tests, by name",
            HelpName = "TEST…",
            Arity = ArgumentArity.ZeroOrMore,
            DefaultValueFactory = _ => [.. LitmusTest.All.Select(test => test.Name)],
        };
        tests.AcceptOnlyFromAmong([.. LitmusTest.All.Select(test => test.Name)]);
        Option<bool> deep = new("--deep") { Description = $"As --runs {DeepRunsPerTest}" };
        Option<int> runs = Workload.NewCountOption("--runs", "Runs of each test, over all variants", RunsPerTest, most: 100_000_000);
        Option<bool> control = new("--control")
        {
            Description = "Use copies that are not coherent, then a protocol with a planted bug: succeeds if both are found out",
        };
        Option<string?> protocol = new("--protocol")
        {
            Description = "What keeps the memory coherent (default: every protocol under which plain programs are, in turn)",
            HelpName = "P",
        };
        protocol.AcceptOnlyFromAmong([.. Coherent]);
        Option<string?> cluster = Workload.NewClusterOption();
        Option<ulong> seed = Workload.NewSeedOption();
        Command command = new("litmus", "Run litmus tests on the memory of four agents; fails if x86-TSO does not hold.");
        command.Arguments.Add(tests);
        foreach (Option option in new Option[] { deep, runs, control, protocol, cluster, seed }) command.Options.Add(option);
        command.SetAction(parsed => Workload.Guard(() => parsed.GetValue(control)
            ? RunControls(parsed.GetValue(seed))
            : Run(parsed.GetValue(cluster), [.. LitmusTest.All.Where(test => parsed.GetValue(tests)!.Contains(test.Name))],
                parsed.GetValue(deep) ? DeepRunsPerTest : parsed.GetValue(runs), parsed.GetValue(protocol), parsed.GetValue(seed))));
        return command;
    }

    // Lazy release consistency promises x86-TSO to nobody.
    private static IEnumerable<string> Coherent => ProtocolCatalog.All.Select(protocol => protocol.Name).Where(name => name != "lazy");

    private static int Run(string? existing, LitmusTest[] tests, int runs, string? only, ulong seed)
    {
        string[] protocols = only is null ? [.. Coherent] : [only];
        int violations = 0;
        using BenchCluster cluster = existing is null ? new(4, "64M") : BenchCluster.Use(existing);
        foreach (string protocol in protocols)
        {
            Console.WriteLine($"litmus: protocol {protocol}, seed {seed}, {runs} runs per test over all variants");
            violations += Run(cluster, tests, protocol, runs, seed, isControl: false).Violations;
        }
        return violations == 0 ? ExitCode.Ok : ExitCode.Wrong;
    }

    private static LitmusReport Run(BenchCluster cluster, IReadOnlyList<LitmusTest> tests, string protocol, int runs, ulong seed, bool isControl)
    {
        Stopwatch watch = Stopwatch.StartNew();
        LitmusRun run = new(tests, runs);
        run.Run(cluster, protocol, seed, isControl);
        LitmusReport report = new(run.Results);
        report.Write(Console.Out);
        Console.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{watch.Elapsed.TotalSeconds:F0} s"));
        return report;
    }

    // Copies that lag let old values be read after new ones; that shows in the tests named here, and cannot in those whose question is about
    // the order of stores alone. The planted bug leaves such copies now and then: the tests that show them best.
    private static int RunControls(ulong seed)
    {
        bool isFoundOut = RunControl("copies that lag", "ranks read from copies that lag; protocol msi", seed, isPlanted: false,
            "SB", "MP", "IRIW", "CoWR", "R", "WRC", "ISA2");
        isFoundOut &= RunControl("the planted bug", $"agents with a planted bug ({PlantedCluster.Description})", seed, isPlanted: true,
            "MP", "LB", "WRC", "ISA2");
        return isFoundOut ? ExitCode.Ok : ExitCode.Wrong;
    }

    /// <summary>
    /// Whether every test that is expected to does find out. It takes a chance meeting of threads, and how many come of so many runs is up to
    /// the host: a test that has found nothing is given further runs.
    /// </summary>
    private static bool RunControl(string what, string description, ulong seed, bool isPlanted, params string[] expected)
    {
        Console.WriteLine($"control: {description}; seed {seed}, {ControlRunsPerTest} runs per test, up to {ControlRounds} times");
        HashSet<string> found = [];
        using BenchCluster cluster = new(4, "64M", isPlanted: isPlanted);
        LitmusTest[] tests = [.. LitmusTest.All];
        for (ulong round = 0; round < ControlRounds && tests.Length > 0; round++)
        {
            found.UnionWith(Run(cluster, tests, Msi.Protocol.Name, ControlRunsPerTest, seed + round, isControl: !isPlanted).TestsWithViolations);
            tests = [.. LitmusTest.All.Where(test => expected.Contains(test.Name) && !found.Contains(test.Name))];
        }
        Console.WriteLine(tests.Length == 0
            ? $"control: {what}: found out by {string.Join(", ", found)}"
            : $"control: {what}: NOT found out by {string.Join(", ", tests.Select(test => test.Name))}: a pass of them means nothing");
        return tests.Length == 0;
    }
}
