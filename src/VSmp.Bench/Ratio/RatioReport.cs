// SPDX-License-Identifier: Apache-2.0
using System.Text.Json;
using System.Text.Json.Serialization;
using VSmp.Bench.Running;

namespace VSmp.Bench.Ratio;

/// <summary>Figures beside their floors, for people and for programs.</summary>
/// <param name="Machine">What they were measured on.</param>
/// <param name="Transport">What carries frames, as <c>vsmp up</c> takes it.</param>
/// <param name="Pages">Pages of each measurement.</param>
/// <param name="Rounds">How often everything was measured.</param>
/// <param name="Results">The figures.</param>
internal sealed record RatioReport(Machine Machine, string Transport, int Pages, int Rounds, IReadOnlyList<RatioResult> Results)
{
    /// <summary>A table in Markdown: a line per figure.</summary>
    public void WriteMarkdown(TextWriter output)
    {
        output.WriteLine(FormattableString.Invariant($"{Machine}. Two agents over {Transport}, {Pages} pages, {Rounds} rounds; medians, and the ratio in the best and the worst round."));
        output.WriteLine();
        output.WriteLine("| figure                                         | floor         |     µs | VSmp µs | ratio | from – to     | target | met |");
        output.WriteLine("|------------------------------------------------|---------------|-------:|--------:|------:|---------------|-------:|-----|");
        foreach (RatioResult result in Results)
        {
            string spread = FormattableString.Invariant($"{result.LeastRatio:F2} – {result.GreatestRatio:F2}");
            output.WriteLine(FormattableString.Invariant(
                $"| {result.Figure.Name,-46} | {result.Figure.Floor,-13} | {result.FloorMicroseconds,6:F1} | {result.OurMicroseconds,7:F1} | {result.Ratio,5:F2} | {spread,-13} | {result.Figure.Target,6:F2} | {(result.IsMet ? "yes" : "no"),-3} |"));
        }
    }

    /// <summary>As JSON.</summary>
    public string ToJson() => JsonSerializer.Serialize(this, RatioJson.Default.RatioReport);

    /// <summary>As a picture: SVG.</summary>
    public string ToSvg() => BarChart.Draw("What VSmp takes, as a multiple of what bare C takes for the same", "ratio; black: from the best round to the worst; green: target",
        [.. Results.Select(result => new Bar(result.Figure.Name, result.Ratio, result.LeastRatio, result.GreatestRatio, result.Figure.Target))]);
}

/// <summary>The report's form: properties by their names.</summary>
[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase, WriteIndented = true)]
[JsonSerializable(typeof(RatioReport))]
internal sealed partial class RatioJson : JsonSerializerContext;
