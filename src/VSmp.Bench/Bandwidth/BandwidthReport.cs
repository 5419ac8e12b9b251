// SPDX-License-Identifier: Apache-2.0
using System.Text.Json;
using System.Text.Json.Serialization;
using VSmp.Bench.Running;

namespace VSmp.Bench.Bandwidth;

/// <summary>Patterns beside their floors.</summary>
/// <param name="Machine">What they were measured on.</param>
/// <param name="Transport">What carries frames, as <c>vsmp up</c> takes it.</param>
/// <param name="Pages">Pages of each pattern; an exchange has twice as many.</param>
/// <param name="Rounds">How often everything was measured.</param>
/// <param name="Results">The patterns.</param>
internal sealed record BandwidthReport(Machine Machine, string Transport, int Pages, int Rounds, IReadOnlyList<BandwidthResult> Results) : IDrawnReport
{
    private static readonly Column<BandwidthResult>[] Columns =
    [
        new("pattern", r => r.Pattern.Name, IsText: true), new("floor", r => r.Pattern.Floor, IsText: true),
        Column<BandwidthResult>.Number("floor MB/s", r => r.FloorMegabytes, 0), Column<BandwidthResult>.Number("VSmp MB/s", r => r.OurMegabytes, 0),
        Column<BandwidthResult>.Number("floor µs a page", r => r.FloorMicroseconds.Median, 2), Column<BandwidthResult>.Number("VSmp µs a page", r => r.OurMicroseconds.Median, 2),
        Column<BandwidthResult>.Number("ratio", r => r.Ratio.Median, 2), new("from – to", r => r.Ratio.ToSpread(2)),
        new("target", r => r.Target), new("met", r => r.IsMet switch { true => "yes", false => "no", null => "" }, IsText: true),
        new("ArgoDSM MB/s", r => r.Pattern.Peer ?? ""),
    ];

    /// <inheritdoc/>
    public void WriteMarkdown(TextWriter output)
    {
        output.WriteLine(FormattableString.Invariant(
            $"{Machine}. Two agents over {Transport}, one thread at each, {Pages} pages, twice as many for an exchange, {Rounds} rounds; medians, and the ratio in the best and the worst round. ArgoDSM's figures are not of this run."));
        output.WriteLine();
        MarkdownTable.Write(output, Columns, Results);
    }

    /// <inheritdoc/>
    public string ToJson() => JsonSerializer.Serialize(this, BandwidthJson.Default.BandwidthReport);

    /// <inheritdoc/>
    public string ToSvg() => BarChart.Draw("What VSmp takes for a page, as a multiple of what bare C takes", "ratio; black: from the best round to the worst; green: target",
        [.. Results.Select(result => new Bar(result.Pattern.Name, result.Ratio.Median, result.Ratio.Least, result.Ratio.Greatest, result.Pattern.TargetRatio))]);
}

/// <summary>The report's form: properties by their names.</summary>
[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase, WriteIndented = true)]
[JsonSerializable(typeof(BandwidthReport))]
internal sealed partial class BandwidthJson : JsonSerializerContext;
