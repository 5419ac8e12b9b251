// SPDX-License-Identifier: Apache-2.0
using System.Globalization;
using System.Text.Json;
using VSmp.Bench.Running;

namespace VSmp.Bench.Litmus;

/// <summary>Runs every litmus test in every variant on a cluster, and collects what came out.</summary>
public sealed class LitmusRun
{
    private const int Ranks = 4;
    private const double CrossingShare = 0.02;
    private readonly Dictionary<(string, string, string), LitmusResult> _results = [];

    /// <summary>A run of some tests.</summary>
    /// <param name="tests">The tests.</param>
    /// <param name="runsPerTest">Runs of each, over all variants.</param>
    public LitmusRun(IReadOnlyList<LitmusTest> tests, int runsPerTest)
    {
        ArgumentNullException.ThrowIfNull(tests);
        RunsPerTest = runsPerTest;
        foreach (LitmusTest test in tests)
        {
            foreach (var (layout, kind) in Variants)
            {
                _results.Add((test.Name, LitmusTest.NameOf(layout), LitmusTest.NameOf(kind)), new LitmusResult(test, layout, kind));
            }
        }
    }

    /// <summary>
    /// Layouts and kinds. A locked store and an unlocked load of a variable on a page boundary are not atomic to each other, so there
    /// both are locked; elsewhere a locked store is enough.
    /// </summary>
    public static IReadOnlyList<(LitmusLayout Layout, LitmusKind Kind)> Variants { get; } =
    [
        (LitmusLayout.One, LitmusKind.Plain), (LitmusLayout.One, LitmusKind.Mfence), (LitmusLayout.One, LitmusKind.Xchg),
        (LitmusLayout.Two, LitmusKind.Plain), (LitmusLayout.Two, LitmusKind.Mfence), (LitmusLayout.Two, LitmusKind.Xchg),
        (LitmusLayout.Crossing, LitmusKind.Plain), (LitmusLayout.Crossing, LitmusKind.Mfence), (LitmusLayout.Crossing, LitmusKind.Rmw),
    ];

    /// <summary>Runs of each test, over all variants.</summary>
    public int RunsPerTest { get; }

    /// <summary>The results, by test and variant.</summary>
    public IReadOnlyCollection<LitmusResult> Results => _results.Values;

    /// <summary>Runs the tests with a protocol.</summary>
    /// <param name="cluster">Where.</param>
    /// <param name="protocol">With which protocol.</param>
    /// <param name="seed">What random choices follow from.</param>
    /// <param name="isControl">Whether ranks read from copies that are not coherent.</param>
    /// <exception cref="BenchException">The ranks failed.</exception>
    public void Run(BenchCluster cluster, string protocol, ulong seed, bool isControl)
    {
        ArgumentNullException.ThrowIfNull(cluster);
        // Every thread on a node of its own; then threads in twos, so that what one node's processes see of each other is tested, too.
        // On one node memory is the machine's own: that is where x86's store buffers show.
        double shareOfTwo = cluster.Nodes.Count > 2 ? 0.3 : 1;
        if (shareOfTwo < 1) Run(cluster, protocol, seed, isControl, cluster.Nodes.Take(4), 1 - shareOfTwo);
        Run(cluster, protocol, seed + 1, isControl, cluster.Nodes.Take(2), shareOfTwo);
    }

    private void Run(BenchCluster cluster, string protocol, ulong seed, bool isControl, IEnumerable<string> nodes, double share)
    {
        string plan = string.Join('\n', _results.Values.Select(result => result.Test.PlanLine(result.Layout, result.Kind,
            (int)Math.Ceiling(RunsPerTest * share * ShareOf(result.Layout)))));
        List<string> program = [BenchCluster.FindProgram("vsmp-litmus"), seed.ToString(CultureInfo.InvariantCulture)];
        if (isControl) program.Add("control");
        (int exitCode, string error) = cluster.RunRanks(Ranks, nodes, protocol, local: null, program, AddLine, input: plan);
        if (exitCode != 0) throw new BenchException($"the ranks ended with exit code {exitCode}: {error}");
    }

    // Page-crossing accesses need a page each on both sides, and so are much slower: few of them.
    private static double ShareOf(LitmusLayout layout) => layout == LitmusLayout.Crossing ? CrossingShare / 3 : (1 - CrossingShare) / 6;

    private void AddLine(string line)
    {
        if (!line.StartsWith('{')) return;
        using JsonDocument document = JsonDocument.Parse(line);
        JsonElement root = document.RootElement;
        string Text(string name) => root.GetProperty(name).GetString()!;
        LitmusResult result = _results[(Text("name"), Text("layout"), Text("kind"))];
        if (root.TryGetProperty("unsupported", out JsonElement reason))
        {
            result.SetUnsupported(reason.GetString()!);
            return;
        }
        foreach (JsonProperty outcome in root.GetProperty("outcomes").EnumerateObject())
        {
            result.Add(new LitmusOutcome(outcome.Name), outcome.Value.GetInt64());
        }
    }
}
