// SPDX-License-Identifier: Apache-2.0
using System.Globalization;
using System.Text;
using System.Text.Json;
using System.Text.Json.Serialization;
using VSmp.Bench.Running;

namespace VSmp.Bench.Recovery;

/// <summary>What is killed.</summary>
[JsonConverter(typeof(JsonStringEnumConverter<Victims>))]
internal enum Victims
{
    /// <summary>Nodes, all their processes; another one of that name joins. Their hosts refuse connections from then on.</summary>
    Node,

    /// <summary>Nodes, as by the end of their hosts: cut off at the same moment, so that nothing says that they are gone but their silence.</summary>
    Host,

    /// <summary>Agents alone; their keepers start others, which take over.</summary>
    Agent,
}

/// <summary>A node that was killed, or an agent, and what it cost.</summary>
/// <param name="Node">Which.</param>
/// <param name="StallMilliseconds">The longest time that the guest waited for a page.</param>
internal sealed record Kill(string Node, double StallMilliseconds)
{
    /// <summary>Of a node: from the kill until the guest's agent knew, and froze the guest's memory.</summary>
    public double? DetectionMilliseconds { get; init; }

    /// <summary>Of a node: from then until all went on.</summary>
    public double? RecoveryMilliseconds { get; init; }

    /// <summary>Of an agent: from the kill until the next one was a member, and served.</summary>
    public double? ReturnMilliseconds { get; init; }
}

/// <summary>A figure over all kills.</summary>
/// <param name="Name">What.</param>
/// <param name="P50">The median, milliseconds.</param>
/// <param name="P99">The 99th percentile: of fewer than a hundred the greatest.</param>
/// <param name="Greatest">The greatest.</param>
/// <param name="Least">The least.</param>
internal sealed record Figure(string Name, double P50, double P99, double Greatest, double Least)
{
    /// <summary>Of some values.</summary>
    public static Figure Of(string name, IEnumerable<double> values)
    {
        double[] sorted = [.. values.Order()];
        return new Figure(name, At(50), At(99), sorted[^1], sorted[0]);

        double At(int percent) => sorted[Math.Max(0, (int)Math.Ceiling(sorted.Length * percent / 100.0) - 1)];
    }
}

/// <summary>A guest under load, and nodes that are killed under it, its memory being mirrored, or agents.</summary>
/// <param name="What">What was killed.</param>
/// <param name="Machine">What it was measured on.</param>
/// <param name="Agents">Agents, the guest's among them.</param>
/// <param name="Mebibytes">Memory that the guest goes about in.</param>
/// <param name="LocalMebibytes">Of it, what its own node may have at a time.</param>
/// <param name="Seed">What moments and victims followed from.</param>
/// <param name="QuietStallMilliseconds">The longest time that the guest waited for a page while nobody was killed.</param>
/// <param name="PlainPagesPerSecond">What the guest does without mirrors, in each round.</param>
/// <param name="MirroredPagesPerSecond">And with them; null, if agents are killed.</param>
/// <param name="Kills">The kills.</param>
internal sealed record RecoveryReport(Victims What, Machine Machine, int Agents, int Mebibytes, int LocalMebibytes, ulong Seed, double QuietStallMilliseconds,
    Sample PlainPagesPerSecond, Sample? MirroredPagesPerSecond, IReadOnlyList<Kill> Kills) : IDrawnReport
{
    private static readonly Column<Figure>[] Columns =
    [
        new("milliseconds", f => f.Name, IsText: true), Column<Figure>.Number("p50", f => f.P50, 1), Column<Figure>.Number("p99", f => f.P99, 1),
        Column<Figure>.Number("max", f => f.Greatest, 1),
    ];

    // What is measured of all kills, by its name here and in the CSV file.
    private static readonly (string Name, string Short, Func<Kill, double?> Of)[] Measured =
    [
        ("detection", "detection_ms", kill => kill.DetectionMilliseconds), ("recovery", "recovery_ms", kill => kill.RecoveryMilliseconds),
        ("agent serves again", "return_ms", kill => kill.ReturnMilliseconds), ("stall of the guest", "stall_ms", kill => kill.StallMilliseconds),
    ];

    /// <summary>Detection, recovery and stall; or the agents' return, and stall.</summary>
    public IReadOnlyList<Figure> Figures => [.. Applicable.Select(m => Figure.Of(m.Name, Kills.Select(kill => m.Of(kill)!.Value)))];

    private IEnumerable<(string Name, string Short, Func<Kill, double?> Of)> Applicable => Measured.Where(m => Kills.All(kill => m.Of(kill) is not null));

    /// <summary>How much longer a page takes with mirrors.</summary>
    public double? Overhead => (PlainPagesPerSecond.Median / MirroredPagesPerSecond?.Median) - 1;

    /// <inheritdoc/>
    public void WriteMarkdown(TextWriter output)
    {
        ArgumentNullException.ThrowIfNull(output);
        output.WriteLine(FormattableString.Invariant($"{Machine}. {Agents} agents on this host over tcp; a guest that verifies and overwrites random pages of {Mebibytes} MiB, of which its node holds {LocalMebibytes}; {Kills.Count} kills of {(What switch { Victims.Agent => "agents alone", Victims.Host => "hosts", _ => "nodes" })}, seed {Seed}."));
        output.WriteLine();
        MarkdownTable.Write(output, Columns, Figures);
        output.WriteLine();
        output.WriteLine(FormattableString.Invariant($"Without kills its longest stall is {QuietStallMilliseconds:F1} ms."));
        if (MirroredPagesPerSecond is null) return;
        output.WriteLine(FormattableString.Invariant($"Pages in a second: {PlainPagesPerSecond.Median:F0} without mirrors ({PlainPagesPerSecond.ToSpread(0)}), {MirroredPagesPerSecond.Median:F0} with ({MirroredPagesPerSecond.ToSpread(0)}): a page takes {Overhead * 100:F0} % longer."));
    }

    /// <inheritdoc/>
    public string ToJson() => JsonSerializer.Serialize(this, RecoveryJson.Default.RecoveryReport);

    /// <summary>A line for each kill.</summary>
    public string ToCsv()
    {
        StringBuilder csv = new("kill,node");
        foreach (var (_, name, _) in Applicable) csv.Append(',').Append(name);
        for (int i = 0; i < Kills.Count; i++)
        {
            csv.Append(CultureInfo.InvariantCulture, $"\n{i + 1},{Kills[i].Node}");
            foreach (var (_, _, of) in Applicable) csv.Append(CultureInfo.InvariantCulture, $",{of(Kills[i]):F1}");
        }
        csv.Append('\n');
        return csv.ToString();
    }

    /// <inheritdoc/>
    public string ToSvg()
    {
        string title = What switch
        {
            Victims.Agent => "An agent is killed under a guest, and started again",
            Victims.Host => "A host is gone under a guest whose memory is mirrored",
            _ => "A node is killed under a guest whose memory is mirrored",
        };
        return BarChart.Draw(title, "milliseconds; the median, and from the least to the greatest",
            [.. Figures.Select(figure => new Bar(figure.Name, figure.P50, figure.Least, figure.Greatest, Target: null))]);
    }
}

/// <summary>The report's form: properties by their names.</summary>
[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase, DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingNull, WriteIndented = true)]
[JsonSerializable(typeof(RecoveryReport))]
internal sealed partial class RecoveryJson : JsonSerializerContext;
