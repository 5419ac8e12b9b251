// SPDX-License-Identifier: Apache-2.0
using System.Globalization;
using System.Text;
using System.Text.Json;
using System.Text.Json.Serialization;
using VSmp.Bench.Running;

namespace VSmp.Bench.Recovery;

/// <summary>An agent that was killed, and what it cost.</summary>
/// <param name="Node">Which.</param>
/// <param name="DetectionMilliseconds">From the kill until the guest's agent knew, and froze the guest's memory.</param>
/// <param name="RecoveryMilliseconds">From then until all went on.</param>
/// <param name="StallMilliseconds">The longest time that the guest waited for a page.</param>
internal sealed record Kill(string Node, double DetectionMilliseconds, double RecoveryMilliseconds, double StallMilliseconds);

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

/// <summary>A guest under load whose memory is mirrored, and nodes that are killed under it.</summary>
/// <param name="Machine">What it was measured on.</param>
/// <param name="Agents">Agents, the guest's among them.</param>
/// <param name="Mebibytes">Memory that the guest goes about in.</param>
/// <param name="LocalMebibytes">Of it, what its own node may have at a time.</param>
/// <param name="Seed">What moments and victims followed from.</param>
/// <param name="QuietStallMilliseconds">The longest time that the guest waited for a page while nobody was killed.</param>
/// <param name="PlainPagesPerSecond">What the guest does without mirrors, in each round.</param>
/// <param name="MirroredPagesPerSecond">And with them.</param>
/// <param name="Kills">The kills.</param>
internal sealed record RecoveryReport(Machine Machine, int Agents, int Mebibytes, int LocalMebibytes, ulong Seed, double QuietStallMilliseconds,
    Sample PlainPagesPerSecond, Sample MirroredPagesPerSecond, IReadOnlyList<Kill> Kills) : IDrawnReport
{
    private static readonly Column<Figure>[] Columns =
    [
        new("milliseconds", f => f.Name, IsText: true), Column<Figure>.Number("p50", f => f.P50, 1), Column<Figure>.Number("p99", f => f.P99, 1),
        Column<Figure>.Number("max", f => f.Greatest, 1),
    ];

    /// <summary>Detection, recovery and stall.</summary>
    public IReadOnlyList<Figure> Figures =>
    [
        Figure.Of("detection", Kills.Select(kill => kill.DetectionMilliseconds)), Figure.Of("recovery", Kills.Select(kill => kill.RecoveryMilliseconds)),
        Figure.Of("stall of the guest", Kills.Select(kill => kill.StallMilliseconds)),
    ];

    /// <summary>How much longer a page takes with mirrors.</summary>
    public double Overhead => (PlainPagesPerSecond.Median / MirroredPagesPerSecond.Median) - 1;

    /// <inheritdoc/>
    public void WriteMarkdown(TextWriter output)
    {
        ArgumentNullException.ThrowIfNull(output);
        output.WriteLine(FormattableString.Invariant($"{Machine}. {Agents} agents on this host over tcp; a guest that verifies and overwrites random pages of {Mebibytes} MiB, of which its node holds {LocalMebibytes}; {Kills.Count} kills, seed {Seed}."));
        output.WriteLine();
        MarkdownTable.Write(output, Columns, Figures);
        output.WriteLine();
        output.WriteLine(FormattableString.Invariant($"Without kills its longest stall is {QuietStallMilliseconds:F1} ms. Pages in a second: {PlainPagesPerSecond.Median:F0} without mirrors ({PlainPagesPerSecond.ToSpread(0)}), {MirroredPagesPerSecond.Median:F0} with ({MirroredPagesPerSecond.ToSpread(0)}): a page takes {Overhead * 100:F0} % longer."));
    }

    /// <inheritdoc/>
    public string ToJson() => JsonSerializer.Serialize(this, RecoveryJson.Default.RecoveryReport);

    /// <summary>A line for each kill.</summary>
    public string ToCsv()
    {
        StringBuilder csv = new("kill,node,detection_ms,recovery_ms,stall_ms\n");
        for (int i = 0; i < Kills.Count; i++)
        {
            Kill kill = Kills[i];
            csv.Append(CultureInfo.InvariantCulture, $"{i + 1},{kill.Node},{kill.DetectionMilliseconds:F1},{kill.RecoveryMilliseconds:F1},{kill.StallMilliseconds:F1}\n");
        }
        return csv.ToString();
    }

    /// <inheritdoc/>
    public string ToSvg() => BarChart.Draw("A node is killed under a guest whose memory is mirrored", "milliseconds; the median, and from the least to the greatest",
        [.. Figures.Select(figure => new Bar(figure.Name, figure.P50, figure.Least, figure.Greatest, Target: null))]);
}

/// <summary>The report's form: properties by their names.</summary>
[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase, WriteIndented = true)]
[JsonSerializable(typeof(RecoveryReport))]
internal sealed partial class RecoveryJson : JsonSerializerContext;
