// SPDX-License-Identifier: Apache-2.0
using System.Text.Json;
using System.Text.Json.Serialization;
using VSmp.Bench.Running;

namespace VSmp.Bench.Apps;

/// <summary>Applications beside what they take with MPI, and random updates beside those of plain memory.</summary>
/// <param name="Machine">What they were measured on.</param>
/// <param name="Transport">What carries frames, as <c>vsmp up</c> takes it.</param>
/// <param name="Protocol">What kept VSmp's memory coherent.</param>
/// <param name="Rounds">How often everything was run.</param>
/// <param name="Applications">The applications.</param>
/// <param name="Gups">The updates.</param>
internal sealed record AppsReport(Machine Machine, string Transport, string Protocol, int Rounds, IReadOnlyList<ApplicationResult> Applications, GupsResult Gups)
    : IDrawnReport
{
    private static readonly Column<ApplicationResult>[] Columns =
    [
        new("application", r => r.Application.Name, IsText: true), Column<ApplicationResult>.Number("one rank s", r => r.AloneSeconds, 2),
        Column<ApplicationResult>.Number("MPI s", r => r.MpiSeconds.Median, 2), Column<ApplicationResult>.Number("VSmp s", r => r.OurSeconds.Median, 2),
        Column<ApplicationResult>.Number("ratio", r => r.Ratio.Median, 2), new("from – to", r => r.Ratio.ToSpread(2)),
        Column<ApplicationResult>.Number("target", r => r.Application.Target, 2), new("met", r => r.IsMet ? "yes" : "no", IsText: true),
    ];

    private static readonly Column<PartResult>[] PartColumns =
    [
        new("program", r => r.Program, IsText: true), new("part", r => r.Part, IsText: true),
        Column<PartResult>.Number("MPI s", r => r.MpiSeconds.Median, 3), Column<PartResult>.Number("VSmp s", r => r.OurSeconds.Median, 3),
    ];

    private static readonly Column<GupsResult>[] GupsColumns =
    [
        new("random updates", _ => FormattableString.Invariant($"table of {AppsRun.TableMebibytes} MiB"), IsText: true),
        Column<GupsResult>.Number("plain memory M/s", r => r.PlainRate.Median / 1e6, 1), Column<GupsResult>.Number("VSmp k/s", r => r.OurRate.Median / 1e3, 1),
        Column<GupsResult>.Number("ratio", r => r.Ratio.Median, 0), new("from – to", r => r.Ratio.ToSpread(0)),
    ];

    /// <inheritdoc/>
    public void WriteMarkdown(TextWriter output)
    {
        output.WriteLine(FormattableString.Invariant(
            $"{Machine}. Two ranks: of Open MPI over TCP, and of VSmp, on two agents over {Transport}, {Protocol}; {Rounds} rounds; medians, and the ratio in the best and the worst round."));
        output.WriteLine();
        MarkdownTable.Write(output, Columns, Applications);
        output.WriteLine();
        MarkdownTable.Write(output, PartColumns, Applications.SelectMany(application => application.Parts));
        output.WriteLine();
        MarkdownTable.Write(output, GupsColumns, [Gups]);
    }

    /// <inheritdoc/>
    public string ToJson() => JsonSerializer.Serialize(this, AppsJson.Default.AppsReport);

    /// <inheritdoc/>
    public string ToSvg() => BarChart.Draw("What VSmp takes, as a multiple of what MPI over TCP takes", "ratio; black: from the best round to the worst; green: target",
        [.. Applications.Select(result => new Bar(result.Application.Name, result.Ratio.Median, result.Ratio.Least, result.Ratio.Greatest, result.Application.Target))]);
}

/// <summary>The report's form: properties by their names.</summary>
[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase, WriteIndented = true)]
[JsonSerializable(typeof(AppsReport))]
internal sealed partial class AppsJson : JsonSerializerContext;
