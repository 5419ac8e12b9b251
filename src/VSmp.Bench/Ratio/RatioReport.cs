// SPDX-License-Identifier: Apache-2.0
using System.Text.Json;
using System.Text.Json.Serialization;
using VSmp.Bench.Running;

namespace VSmp.Bench.Ratio;

/// <summary>Figures beside their floors.</summary>
/// <param name="Machine">What they were measured on.</param>
/// <param name="Transport">What carries frames, as <c>vsmp up</c> takes it.</param>
/// <param name="Pages">Pages of each measurement.</param>
/// <param name="Rounds">How often everything was measured.</param>
/// <param name="Results">The figures.</param>
internal sealed record RatioReport(Machine Machine, string Transport, int Pages, int Rounds, IReadOnlyList<RatioResult> Results) : IDrawnReport
{
    private static readonly Column<RatioResult>[] Columns =
    [
        new("figure", r => r.Figure.Name, IsText: true), new("floor", r => r.Figure.Floor, IsText: true),
        Column<RatioResult>.Number("floor µs", r => r.FloorMicroseconds.Median, 1), Column<RatioResult>.Number("VSmp µs", r => r.OurMicroseconds.Median, 1),
        Column<RatioResult>.Number("ratio", r => r.Ratio.Median, 2), new("from – to", r => r.Ratio.ToSpread(2)),
        Column<RatioResult>.Number("target", r => r.Figure.Target, 2), new("met", r => r.IsMet ? "yes" : "no", IsText: true),
    ];

    /// <inheritdoc/>
    public void WriteMarkdown(TextWriter output)
    {
        output.WriteLine(FormattableString.Invariant($"{Machine}. Two agents over {Transport}, {Pages} pages, {Rounds} rounds; medians, and the ratio in the best and the worst round."));
        output.WriteLine();
        MarkdownTable.Write(output, Columns, Results);
    }

    /// <inheritdoc/>
    public string ToJson() => JsonSerializer.Serialize(this, RatioJson.Default.RatioReport);

    /// <inheritdoc/>
    public string ToSvg() => BarChart.Draw("What VSmp takes, as a multiple of what bare C takes for the same", "ratio; black: from the best round to the worst; green: target",
        [.. Results.Select(result => new Bar(result.Figure.Name, result.Ratio.Median, result.Ratio.Least, result.Ratio.Greatest, result.Figure.Target))]);
}

/// <summary>The report's form: properties by their names.</summary>
[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase, WriteIndented = true)]
[JsonSerializable(typeof(RatioReport))]
internal sealed partial class RatioJson : JsonSerializerContext;
