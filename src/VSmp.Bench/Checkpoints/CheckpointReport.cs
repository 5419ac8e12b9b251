// SPDX-License-Identifier: Apache-2.0
using System.Globalization;
using System.Text;
using System.Text.Json;
using System.Text.Json.Serialization;
using VSmp.Agent.Checkpointing;
using VSmp.Bench.Recovery;
using VSmp.Bench.Running;

namespace VSmp.Bench.Checkpoints;

/// <summary>How long generations stop everybody, and what writing costs afterwards.</summary>
/// <param name="Mebibytes">Memory, all of it written before each generation.</param>
/// <param name="Generations">How many generations there were.</param>
/// <param name="Figures">Pause, call, floor and writes, in milliseconds.</param>
/// <param name="Stolen">Which part of the processors' time others of the machine below had meanwhile: who is stopped for that is stopped for longer.</param>
internal sealed record PauseResult(int Mebibytes, int Generations, IReadOnlyList<Figure> Figures, double Stolen)
{
    /// <summary>Most that the 99th percentile of the pause is to be.</summary>
    public const double TargetMilliseconds = 25;

    /// <summary>The name of the figure that has a target.</summary>
    public const string PauseName = "pause", FloorName = "floor: protect the same pages";

    /// <summary>Puts figures together.</summary>
    /// <param name="mebibytes">Memory.</param>
    /// <param name="logged">What the agents say; of the full generation, too.</param>
    /// <param name="seen">What the ranks say.</param>
    /// <param name="floor">What bare C takes, milliseconds.</param>
    /// <param name="stolen">As <see cref="Stolen"/>.</param>
    public static PauseResult Of(int mebibytes, IReadOnlyList<LoggedGeneration> logged, IReadOnlyList<SeenGeneration> seen, IEnumerable<double> floor, double stolen) => new(mebibytes, logged.Count,
    [
        Figure.Of(PauseName, logged.Select(g => g.PauseMilliseconds)),
        Figure.Of("call, slowest rank", seen.GroupBy(g => g.Generation).Select(ranks => ranks.Max(r => r.CallMilliseconds))),
        Figure.Of(FloorName, floor),
        Figure.Of("safe on disk", logged.Select(g => g.SafeMilliseconds)),
        Figure.Of("write all, while copied", seen.Select(g => g.FirstMilliseconds)),
        Figure.Of("write all again", seen.Select(g => g.AgainMilliseconds)),
    ], stolen);
}

/// <summary>What checkpoints cost an application, run by turns without and with them.</summary>
/// <param name="EverySeconds">How often one was taken.</param>
/// <param name="MtbfSeconds">For which mean time between failures the interval is looked for.</param>
/// <param name="PlainSeconds">Without.</param>
/// <param name="CheckpointedSeconds">With.</param>
/// <param name="Generations">How many were taken, in each run.</param>
/// <param name="SafeSeconds">How long a generation took until it was safe.</param>
/// <param name="CostSeconds">What one cost, in each round: the difference of the two runs, for each generation.</param>
internal sealed record OverheadResult(double EverySeconds, double MtbfSeconds, Sample PlainSeconds, Sample CheckpointedSeconds, Sample Generations, Sample SafeSeconds, Sample CostSeconds)
{
    /// <summary>Most that it is to be, at Young's interval.</summary>
    public const double Target = 0.05;

    /// <summary>Young's interval for what a generation takes until it is safe, which is what the agents reckon with.</summary>
    public double IntervalSeconds => CheckpointPacer.Young(SafeSeconds.Median, MtbfSeconds);

    /// <summary>The part of the time that generations cost at that interval, in each round.</summary>
    public Sample Overhead
    {
        get
        {
            Sample overhead = new();
            foreach (double cost in CostSeconds.Values) overhead.Add(cost / IntervalSeconds);
            return overhead;
        }
    }
}

/// <summary>What generations have and take, if that part of the pages is written between two.</summary>
/// <param name="Percent">Which part.</param>
/// <param name="Pages">Pages of a generation.</param>
/// <param name="Mebibytes">On the disk.</param>
/// <param name="PauseMilliseconds">How long they stop everybody.</param>
/// <param name="SafeMilliseconds">Until they are safe.</param>
internal sealed record ShareResult(int Percent, Sample Pages, Sample Mebibytes, Sample PauseMilliseconds, Sample SafeMilliseconds);

/// <summary>What going on from a generation takes, beside copying its files into memory; both from a disk whose files are not cached.</summary>
/// <param name="Mebibytes">Memory.</param>
/// <param name="CopySeconds">cp.</param>
/// <param name="AttachSeconds">From when ranks ask for the region until it is there.</param>
/// <param name="ReadSeconds">And until they have read a word of each page.</param>
/// <param name="Ratio">Attaching, which is when all is in memory, beside copying, in each round.</param>
internal sealed record RestoreResult(int Mebibytes, Sample CopySeconds, Sample AttachSeconds, Sample ReadSeconds, Sample Ratio)
{
    /// <summary>Most that the ratio is to be.</summary>
    public const double Target = 2;
}

/// <summary>What generations take where they can be kept; all pages are written between two.</summary>
/// <param name="Tier">Where.</param>
/// <param name="Mebibytes">What the latest takes, with copies and sums.</param>
/// <param name="PauseMilliseconds">How long they stop everybody.</param>
/// <param name="SafeMilliseconds">Until they are safe.</param>
/// <param name="AttachSeconds">From when ranks that go on ask for the region until it is there.</param>
internal sealed record TierResult(string Tier, Sample Mebibytes, Sample PauseMilliseconds, Sample SafeMilliseconds, Sample AttachSeconds);

/// <summary>A run with failures.</summary>
/// <param name="IntervalSeconds">How often a generation was taken.</param>
/// <param name="WallSeconds">From when it began to compute until it was done.</param>
/// <param name="Failures">How many nodes were killed meanwhile.</param>
/// <param name="RestartSeconds">How long it took from a kill until the job computed again, on average.</param>
/// <param name="Measured">Which part of the time was wasted.</param>
/// <param name="Theory">What <see cref="CheckpointPacer.Waste"/> says, for the mean time between failures that was asked for.</param>
/// <param name="TheoryOfRun">And for the failures that this run had.</param>
internal sealed record WastePoint(double IntervalSeconds, double WallSeconds, int Failures, double RestartSeconds, double Measured, double Theory, double TheoryOfRun);

/// <summary>What failures and checkpoints cost together.</summary>
/// <param name="Seed">What moments and victims followed from.</param>
/// <param name="ComputeSeconds">What the program takes without either.</param>
/// <param name="MtbfSeconds">Mean time between failures.</param>
/// <param name="CostSeconds">What a generation costs.</param>
/// <param name="DalySeconds">Daly's interval for that.</param>
/// <param name="Points">The runs.</param>
internal sealed record WasteResult(ulong Seed, double ComputeSeconds, double MtbfSeconds, double CostSeconds, double DalySeconds, IReadOnlyList<WastePoint> Points);

/// <summary>What checkpoints cost; null is what was not measured.</summary>
/// <param name="Machine">On what.</param>
/// <param name="Nodes">How many nodes the ranks are on, one on each.</param>
/// <param name="Pause">How long they stop everybody.</param>
/// <param name="Overhead">What they cost an application.</param>
/// <param name="Shares">What they have and take, by what was written.</param>
/// <param name="Restore">What going on from one takes.</param>
/// <param name="Waste">What failures cost with them.</param>
/// <param name="Tiers">What they take where they can be kept.</param>
internal sealed record CheckpointReport(Machine Machine, int Nodes, PauseResult? Pause, OverheadResult? Overhead, IReadOnlyList<ShareResult>? Shares, RestoreResult? Restore,
    WasteResult? Waste, IReadOnlyList<TierResult>? Tiers = null) : IDrawnReport
{
    private static readonly Column<Figure>[] PauseColumns =
    [
        new("milliseconds", f => f.Name, IsText: true), Column<Figure>.Number("p50", f => f.P50, 1), Column<Figure>.Number("p99", f => f.P99, 1), Column<Figure>.Number("max", f => f.Greatest, 1),
    ];

    private static readonly Column<(string Name, Sample Values, int Decimals)>[] SampleColumns =
    [
        new("figure", s => s.Name, IsText: true), new("median", s => s.Values.Median.ToString("F" + s.Decimals, CultureInfo.InvariantCulture)),
        new("from – to", s => s.Values.ToSpread(s.Decimals)),
    ];

    private static readonly Column<ShareResult>[] ShareColumns =
    [
        Column<ShareResult>.Number("written %", s => s.Percent, 0), Column<ShareResult>.Number("pages", s => s.Pages.Median, 0), Column<ShareResult>.Number("MiB on disk", s => s.Mebibytes.Median, 1),
        Column<ShareResult>.Number("pause ms", s => s.PauseMilliseconds.Median, 1), new("from – to", s => s.PauseMilliseconds.ToSpread(1)),
        Column<ShareResult>.Number("safe after ms", s => s.SafeMilliseconds.Median, 0), new("from – to", s => s.SafeMilliseconds.ToSpread(0)),
    ];

    private static readonly Column<TierResult>[] TierColumns =
    [
        new("tier", t => t.Tier, IsText: true), Column<TierResult>.Number("MiB stored", t => t.Mebibytes.Median, 1), Column<TierResult>.Number("pause ms", t => t.PauseMilliseconds.Median, 1),
        new("from – to", t => t.PauseMilliseconds.ToSpread(1)), Column<TierResult>.Number("safe after ms", t => t.SafeMilliseconds.Median, 0), new("from – to", t => t.SafeMilliseconds.ToSpread(0)),
        Column<TierResult>.Number("attach s", t => t.AttachSeconds.Median, 2), new("from – to", t => t.AttachSeconds.ToSpread(2)),
    ];

    private static readonly Column<WastePoint>[] WasteColumns =
    [
        Column<WastePoint>.Number("interval s", p => p.IntervalSeconds, 2), Column<WastePoint>.Number("wall s", p => p.WallSeconds, 1), Column<WastePoint>.Number("failures", p => p.Failures, 0),
        Column<WastePoint>.Number("restart s", p => p.RestartSeconds, 2), Column<WastePoint>.Number("wasted %", p => p.Measured * 100, 1),
        Column<WastePoint>.Number("theory %", p => p.Theory * 100, 1), Column<WastePoint>.Number("of these failures %", p => p.TheoryOfRun * 100, 1),
    ];

    /// <inheritdoc/>
    public void WriteMarkdown(TextWriter output)
    {
        ArgumentNullException.ThrowIfNull(output);
        output.WriteLine(FormattableString.Invariant($"{Machine}. {Nodes} agents on this host over tcp, a rank on each."));
        if (Pause is { } pause)
        {
            output.WriteLine(FormattableString.Invariant($"\nPause: {pause.Mebibytes} MiB, all written; {pause.Generations} generations; target: a p99 of {PauseResult.TargetMilliseconds:F0} ms. Others had {pause.Stolen * 100:F1} % of the processors meanwhile.\n"));
            MarkdownTable.Write(output, PauseColumns, pause.Figures);
        }
        if (Overhead is { } overhead)
        {
            output.WriteLine(FormattableString.Invariant($"\nOverhead: k-mer counting, {overhead.PlainSeconds.Values.Count} rounds without and with a checkpoint every {overhead.EverySeconds:0.##} s; Young's interval for an MTBF of {overhead.MtbfSeconds:0} s is {overhead.IntervalSeconds:F1} s; target: {OverheadResult.Target * 100:F0} % at most.\n"));
            MarkdownTable.Write(output, SampleColumns,
            [
                ("without, s", overhead.PlainSeconds, 2), ("with, s", overhead.CheckpointedSeconds, 2), ("generations", overhead.Generations, 0), ("safe after, s", overhead.SafeSeconds, 2),
                ("cost of one, s", overhead.CostSeconds, 2), ("overhead at Young's interval, %", Percent(overhead.Overhead), 2),
            ]);
        }
        if (Shares is { } shares)
        {
            output.WriteLine("\nA generation, by the pages written since the one before.\n");
            MarkdownTable.Write(output, ShareColumns, shares);
        }
        if (Restore is { } restore)
        {
            output.WriteLine(FormattableString.Invariant($"\nGoing on: {restore.Mebibytes} MiB, from files that are not cached; target: {RestoreResult.Target:F0} times cp at most.\n"));
            MarkdownTable.Write(output, SampleColumns,
                [("cp into tmpfs, s", restore.CopySeconds, 2), ("attach, s", restore.AttachSeconds, 2), ("read all, s", restore.ReadSeconds, 2), ("ratio", restore.Ratio, 2)]);
        }
        if (Tiers is { } tiers)
        {
            output.WriteLine(FormattableString.Invariant($"\nTiers: {CheckpointsCommand.TierMebibytes} MiB, all written, {CheckpointsCommand.TierNodes} agents with a rank on each.\n"));
            MarkdownTable.Write(output, TierColumns, tiers);
        }
        if (Waste is { } waste)
        {
            output.WriteLine(FormattableString.Invariant($"\nWaste: {waste.ComputeSeconds:F1} s of computing, a node killed every {waste.MtbfSeconds:0.#} s on average (seed {waste.Seed}); a generation costs {waste.CostSeconds * 1000:F0} ms, for which Daly's interval is {waste.DalySeconds:F2} s.\n"));
            MarkdownTable.Write(output, WasteColumns, waste.Points);
        }
    }

    /// <inheritdoc/>
    public string ToJson() => JsonSerializer.Serialize(this, CheckpointBenchJson.Default.CheckpointReport);

    /// <summary>A line for each interval of the waste; empty if that was not measured.</summary>
    public string ToCsv()
    {
        StringBuilder csv = new("interval_s,wall_s,failures,restart_s,waste,theory,theory_of_run\n");
        foreach (WastePoint p in Waste?.Points ?? [])
            csv.Append(CultureInfo.InvariantCulture, $"{p.IntervalSeconds:F3},{p.WallSeconds:F3},{p.Failures},{p.RestartSeconds:F3},{p.Measured:F4},{p.Theory:F4},{p.TheoryOfRun:F4}\n");
        return csv.ToString();
    }

    /// <summary>What has a target, as a part of that.</summary>
    public string ToSvg()
    {
        List<Bar> bars = [];
        if (Pause?.Figures.First(f => f.Name == PauseResult.PauseName) is { } pause)
        {
            const double Target = PauseResult.TargetMilliseconds;
            bars.Add(new Bar($"pause of {Pause.Mebibytes} MiB, p99 (25 ms)", pause.P99 / Target, pause.Least / Target, pause.Greatest / Target, 1));
        }
        if (Overhead?.Overhead is { } overhead)
        {
            // Noise may make runs with checkpoints the shorter ones.
            (double middle, double least, double most) = (Math.Max(0, overhead.Median), Math.Max(0, overhead.Least), Math.Max(0, overhead.Greatest));
            bars.Add(new Bar("overhead of k-mer counting (5 %)", middle / OverheadResult.Target, least / OverheadResult.Target, most / OverheadResult.Target, 1));
        }
        if (Restore?.Ratio is { } ratio)
            bars.Add(new Bar("going on, beside cp (2)", ratio.Median / RestoreResult.Target, ratio.Least / RestoreResult.Target, ratio.Greatest / RestoreResult.Target, 1));
        return bars.Count == 0 ? ToWasteSvg() : BarChart.Draw("What checkpoints cost, as a part of the target", "1 is the target, in brackets; black: from the least to the greatest", bars);
    }

    /// <summary>The waste by interval, and what theory says.</summary>
    public string ToWasteSvg()
    {
        IReadOnlyList<WastePoint> points = Waste?.Points ?? [];
        if (points.Count == 0) return "";
        return LineChart.Draw("What failures and checkpoints waste, percent of the time", "seconds between two generations",
            [.. points.Select(p => p.IntervalSeconds.ToString("0.##", CultureInfo.InvariantCulture))],
            [Of("theory", "#2e7d32", p => p.Theory), Of("theory, these failures", "#f39c12", p => p.TheoryOfRun), Of("measured", "#4f81bd", p => p.Measured)]);

        // The scale is logarithmic.
        Line Of(string label, string colour, Func<WastePoint, double> of) =>
            new(label, colour, [.. points.Select(of).Select(waste => Math.Max(0.1, waste * 100)).Select(percent => new LinePoint(percent, percent, percent))]);
    }

    private static Sample Percent(Sample parts)
    {
        Sample percent = new();
        foreach (double part in parts.Values) percent.Add(part * 100);
        return percent;
    }
}

/// <summary>The report's form: properties by their names.</summary>
[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase, DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingNull, WriteIndented = true)]
[JsonSerializable(typeof(CheckpointReport))]
internal sealed partial class CheckpointBenchJson : JsonSerializerContext;
