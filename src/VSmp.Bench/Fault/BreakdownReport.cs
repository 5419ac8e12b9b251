// SPDX-License-Identifier: Apache-2.0
using System.Text.Json;
using System.Text.Json.Serialization;
using VSmp.Bench.Running;

namespace VSmp.Bench.Fault;

/// <summary>The parts of a kind of fault.</summary>
/// <param name="Transition">Which kind.</param>
/// <param name="MedianMicroseconds">The whole, as the program sees it.</param>
/// <param name="Faults">How many were followed from end to end.</param>
/// <param name="PhaseMicroseconds">Medians of the phases of those, in the order of <see cref="Phase.All"/>; their sum need not be the whole's median.</param>
internal sealed record DividedFault(string Transition, double MedianMicroseconds, int Faults, IReadOnlyList<double> PhaseMicroseconds);

/// <summary>Where the time of faults goes.</summary>
/// <param name="Machine">What they were measured on.</param>
/// <param name="Transport">What carried the frames.</param>
/// <param name="Pages">Faults of each kind.</param>
/// <param name="Phases">The phases.</param>
/// <param name="Faults">The kinds.</param>
internal sealed record BreakdownReport(Machine Machine, string Transport, int Pages, IReadOnlyList<Phase> Phases, IReadOnlyList<DividedFault> Faults) : IReport
{
    /// <summary>The transitions of which there is a breakdown: one other node answers, after one round trip.</summary>
    public static IReadOnlyList<Transition> Transitions { get; } = [.. Transition.All.Where(t => t.Nodes == 2 && t.Plan.StartsWith('1'))];

    /// <summary>Runs these transitions, with agents that note what they do, and divides them.</summary>
    /// <exception cref="BenchException">It could not be done.</exception>
    public static BreakdownReport Measure(string transport, int pages)
    {
        PlanRun plans = new(2, pages, [.. Transitions.Select(t => t.Plan)]);
        List<long[]> touched = [], took = [];
        string folder = Directory.CreateTempSubdirectory("vsmp-stages-").FullName;
        try
        {
            string carried;
            using (BenchCluster cluster = new(2, plans.Memory, transport, isPinned: true, stagesFolder: folder))
            {
                using AgentCounters agents = new(cluster.Name, [.. cluster.Nodes]);
                carried = agents.Transport;
                plans.Run(cluster, () => { }, _ => { }); // what is compiled while it runs is compiled then
                agents.RequireEvenMemory([.. cluster.Nodes]);
                plans.Run(cluster, () => { }, took.Add, touched.Add);
            }
            Breakdown breakdown = Breakdown.Read(folder, "n0", "n1");
            return new BreakdownReport(Machine.Here(), carried, pages, Phase.All, [.. Transitions.Select((t, i) => Divide(breakdown, t, touched[i], took[i]))]);
        }
        finally
        {
            Directory.Delete(folder, recursive: true);
        }
    }

    /// <inheritdoc/>
    public void WriteMarkdown(TextWriter output)
    {
        output.WriteLine(FormattableString.Invariant($"{Machine}. {Transport}, two agents, a processor each, {Pages} faults of each kind; medians in microseconds, as noted by the agents themselves, which takes a little time, too."));
        output.WriteLine();
        (string Name, string Node, Func<DividedFault, double?> Time)[] rows =
        [
            .. Phases.Select((phase, i) => (phase.Name, phase.Node, (Func<DividedFault, double?>)(fault => fault.PhaseMicroseconds.ElementAtOrDefault(i)))),
            ("the whole", "", fault => fault.MedianMicroseconds),
        ];
        MarkdownTable.Write(output,
        [
            new("phase", row => row.Name, IsText: true), new("at", row => row.Node, IsText: true),
            .. Faults.Select(fault => Column<(string Name, string Node, Func<DividedFault, double?> Time)>.Number(fault.Transition, row => row.Time(fault), 1)),
        ], rows);
    }

    /// <inheritdoc/>
    public string ToJson() => JsonSerializer.Serialize(this, BreakdownJson.Default.BreakdownReport);

    private static DividedFault Divide(Breakdown breakdown, Transition transition, long[] touched, long[] took)
    {
        IReadOnlyList<Sample> phases = breakdown.Divide(touched, took);
        int followed = phases[0].Values.Count;
        return new DividedFault(transition.Name, PlanRun.Quantile([.. took], 0.5), followed, followed == 0 ? [] : [.. phases.Select(phase => phase.Median)]);
    }
}

/// <summary>The report's form: properties by their names.</summary>
[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase, WriteIndented = true)]
[JsonSerializable(typeof(BreakdownReport))]
internal sealed partial class BreakdownJson : JsonSerializerContext;
