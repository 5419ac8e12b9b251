// SPDX-License-Identifier: Apache-2.0
using System.Text.Json;
using System.Text.Json.Serialization;
using VSmp.Bench.Running;

namespace VSmp.Bench.Velvet;

/// <summary>What a program needs.</summary>
/// <param name="Program">Which.</param>
/// <param name="PeakMebibytes">Natively, at most, pages of mapped files included.</param>
/// <param name="PrivateMebibytes">What of its memory stays outside of the pool.</param>
internal sealed record VelvetPeak(string Program, double PeakMebibytes, double PrivateMebibytes);

/// <summary>An unchanged program on pooled memory, beside itself on its own and with swap.</summary>
/// <param name="Machine">What it was measured on.</param>
/// <param name="Transport">What carries frames, as <c>vsmp up</c> takes it.</param>
/// <param name="Reads">How many reads were assembled.</param>
/// <param name="Rounds">How often everything was run.</param>
/// <param name="Limit">A run is given up at this many times what the native one takes, plus <see cref="VelvetRun.LimitSeconds"/>.</param>
/// <param name="Peaks">What the programs need.</param>
/// <param name="SwapIsMissing">Why nothing was measured with swap; null if it was.</param>
/// <param name="Differences">Outputs that were not what they are natively.</param>
/// <param name="Results">The figures.</param>
internal sealed record VelvetReport(Machine Machine, string Transport, int Reads, int Rounds, int Limit, IReadOnlyList<VelvetPeak> Peaks,
    string? SwapIsMissing, IReadOnlyList<string> Differences, IReadOnlyList<VelvetResult> Results) : IDrawnReport
{
    private static readonly Column<VelvetResult>[] PooledColumns =
    [
        new("program", r => r.Program, IsText: true), new("local memory", r => FormattableString.Invariant($"{r.BudgetPercent} %")),
        Column<VelvetResult>.Number("native s", r => r.NativeSeconds.Median, 1), new("pooled s", r => r.Pooled.ToCell(s => s.Seconds, 1)),
        new("ratio", r => r.Pooled.ToCell(s => s.Ratio, 2)), new("from – to", r => r.Pooled.IsFinished ? r.Pooled.Ratio.ToSpread(2) : ""),
        new("MiB used", r => r.Pooled.IsFinished ? r.Pooled.ToCell(s => s.LocalMebibytes, 0) : ""),
        Column<VelvetResult>.Number("target", r => r.Target, 2),
    ];

    private static readonly Column<VelvetResult>[] SwapColumns =
    [
        new("swap s", r => r.Swap.ToCell(s => s.Seconds, 1)), new("swap ratio", r => r.Swap.ToCell(s => s.Ratio, 2)),
        new("MiB used", r => r.Swap.IsFinished ? r.Swap.ToCell(s => s.LocalMebibytes, 0) : ""),
    ];

    private static readonly Column<VelvetResult> MetColumn = new("met", r => r.IsMet ? "yes" : "no", IsText: true);

    /// <inheritdoc/>
    public void WriteMarkdown(TextWriter output)
    {
        ArgumentNullException.ThrowIfNull(output);
        string peaks = string.Join(", ", Peaks.Select(peak => FormattableString.Invariant($"{peak.Program} {peak.PeakMebibytes:F0} MiB (private on the pool: {peak.PrivateMebibytes:F0})")));
        output.WriteLine(FormattableString.Invariant($"{Machine}. {Reads} reads, two agents over {Transport}, {Rounds} rounds; medians, and the ratio in the best and the worst round. Native peaks: {peaks}."));
        if (SwapIsMissing is not null) output.WriteLine($"Without swap: {SwapIsMissing}.");
        if (Results.Any(result => result.Swap.End == RunEnd.Killed))
        {
            output.WriteLine("Killed: by the kernel, which found nothing to take from the cgroup, though the swap file had room.");
        }
        output.WriteLine();
        MarkdownTable.Write(output, [.. PooledColumns, .. SwapIsMissing is null ? SwapColumns : [], MetColumn], Results);
    }

    /// <inheritdoc/>
    public string ToJson() => JsonSerializer.Serialize(this, VelvetJson.Default.VelvetReport);

    /// <inheritdoc/>
    public string ToSvg()
    {
        VelvetResult[] both = [.. Results.Where(result => result.Program == Results[^1].Program)];
        List<Line> lines = [new("target", "#2e7d32", [.. both.Select(result => result.Target is { } target ? new LinePoint(target, target, target) : null)])];
        if (SwapIsMissing is null) lines.Add(new("native with swap", "#c0504d", [.. both.Select(result => Point(result.Swap))]));
        lines.Add(new("pooled", "#4f81bd", [.. both.Select(result => Point(result.Pooled))]));
        return LineChart.Draw("velveth and velvetg, wall time as a multiple of the native run's",
            "local memory, of the native peak; black: from the best round to the worst; arrows: given up", [.. both.Select(result => FormattableString.Invariant($"{result.BudgetPercent} %"))], lines);
    }

    private static LinePoint? Point(Series series)
    {
        if (series.IsFinished) return new LinePoint(series.Ratio.Median, series.Ratio.Least, series.Ratio.Greatest);
        if (series.End != RunEnd.Late) return null;
        double reached = series.Ratio.Values[^1];
        return new LinePoint(reached, reached, reached, IsBeyond: true);
    }
}

/// <summary>The report's form: properties by their names.</summary>
[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase, WriteIndented = true, UseStringEnumConverter = true,
    NumberHandling = JsonNumberHandling.AllowNamedFloatingPointLiterals)]
[JsonSerializable(typeof(VelvetReport))]
internal sealed partial class VelvetJson : JsonSerializerContext;
