// SPDX-License-Identifier: Apache-2.0
using System.Text.Json;
using System.Xml.Linq;
using VSmp.Bench.Checkpoints;
using VSmp.Bench.Running;

namespace VSmp.Bench.Tests.Checkpoints;

/// <summary>What agents and ranks say of checkpoints is understood, and what is made of it.</summary>
public sealed class CheckpointsTests
{
    private static readonly string[] Log =
    [
        "2026-11-23T14:05:35.202Z info  checkpoint k: generation 2 of 71662 pages, pause 30.8 ms (of it 3.1 until nothing was under way), safe after 539 ms",
        "2026-11-23T14:05:35.202Z info  checkpoint k: generation 1 (full) of 68775 pages, pause 34.2 ms (of it 3.1 until nothing was under way), safe after 585 ms",
        "2026-11-23T14:05:36.202Z info  checkpoint k2: generation 3 of 1 pages, pause 30.8 ms (of it 3.1 until nothing was under way), safe after 539 ms",
        "2026-11-23T14:05:37.232Z warn  checkpoint k: generation 4 is given up: node n1 is not there",
    ];

    private static readonly Machine Here = new("processor", 2, "6.0", "commit", "day");

    [Fact]
    public void Time_that_others_had_is_a_part_of_all()
    {
        StolenTime then = StolenTime.Parse("cpu  100 10 50 800 20 5 5 10 7 0"), now = StolenTime.Parse("cpu  140 10 60 830 20 5 5 30 9 0");
        Assert.Equal(0.2, now.Since(then));
        Assert.InRange(StolenTime.Now().Since(default), 0, 1);
    }

    [Fact]
    public void Generations_are_found_by_the_name_of_their_checkpoint()
    {
        IReadOnlyList<LoggedGeneration> found = CheckpointLog.Find(Log, "k");
        Assert.Equal([new(1, true, 68775, 34.2, 585), new(2, false, 71662, 30.8, 539)], found);
        Assert.Empty(CheckpointLog.Find(Log, "k3"));
    }

    [Fact]
    public void What_ranks_say_adds_up_over_restarts()
    {
        CheckpointOutput output = new();
        foreach (string line in (string[])["begin 0 1000000000", "generation 1 2000000", "begin 7 2500000000", "end 4000000000", "checksum 00ff"]) output.Add(line);
        Assert.Equal([1, 2.5], output.Begins);
        Assert.Equal(new SeenGeneration(1, 2, 0, 0), Assert.Single(output.Generations));
        Assert.Equal((4, "00ff"), (output.End, output.Checksum));
        output.Add("generation 2 3000000 5000000 1000000");
        output.Add("restored 1500000000 500000000");
        Assert.Equal(new SeenGeneration(2, 3, 5, 1), output.Generations[1]);
        Assert.Equal((1.5, 0.5), output.Restored);
        foreach (string line in (string[])["", "generation 1", "generation 1 -2", "begin 1 x", "restored 1"]) Assert.Throws<BenchException>(() => new CheckpointOutput().Add(line));
    }

    [Fact]
    public void A_call_is_as_long_as_that_of_the_slowest_rank()
    {
        PauseResult pause = PauseResult.Of(64, CheckpointLog.Find(Log, "k"), [new(1, 50, 9, 1), new(1, 70, 8, 1), new(2, 40, 7, 1)], [10, 12], 0.01);
        Assert.Equal((70, 40), (pause.Figures[1].Greatest, pause.Figures[1].Least));
        Assert.Equal(34.2, pause.Figures.First(f => f.Name == PauseResult.PauseName).P99);
    }

    [Fact]
    public void An_overhead_is_the_cost_of_a_generation_at_Youngs_interval()
    {
        OverheadResult overhead = new(5, 3600, Of(10), Of(12), Of(2), Of(0.5), Of(1.2));
        Assert.Equal(60, overhead.IntervalSeconds);
        Assert.Equal(0.02, overhead.Overhead.Median, 1e-9);
    }

    [Fact]
    public void The_report_has_every_part_in_each_of_its_forms()
    {
        CheckpointReport report = new(Here, 2, PauseResult.Of(64, CheckpointLog.Find(Log, "k"), [new(1, 50, 9, 1)], [10], 0.01), new OverheadResult(5, 3600, Of(10), Of(12), Of(2), Of(0.5), Of(1.2)),
            [new ShareResult(25, Of(4096), Of(16.1), Of(8), Of(90))], new RestoreResult(64, Of(2), Of(2.5), Of(0.5), Of(1.5)),
            new WasteResult(7, 40, 20, 0.1, 1.9, [new WastePoint(1.9, 50, 2, 1.5, 0.2, 0.18, 0.16), new WastePoint(3.8, 60, 3, 1.5, 0.3333, 0.2, 0.25)]));
        using StringWriter markdown = new();
        report.WriteMarkdown(markdown);
        foreach (string words in (string[])["34.2", "Young's interval, %", "4096", "ratio", "seed 7", "33.3"]) Assert.Contains(words, markdown.ToString(), StringComparison.Ordinal);
        using JsonDocument json = JsonDocument.Parse(report.ToJson());
        Assert.Equal(2, json.RootElement.GetProperty("waste").GetProperty("points").GetArrayLength());
        Assert.Equal("interval_s,wall_s,failures,restart_s,waste,theory,theory_of_run\n1.900,50.000,2,1.500,0.2000,0.1800,0.1600\n3.800,60.000,3,1.500,0.3333,0.2000,0.2500\n", report.ToCsv());
        Assert.Contains("going on, beside cp", XDocument.Parse(report.ToSvg()).ToString(), StringComparison.Ordinal);
        Assert.Contains("measured", XDocument.Parse(report.ToWasteSvg()).ToString(), StringComparison.Ordinal);
    }

    [Fact]
    public void What_was_not_measured_is_left_out()
    {
        CheckpointReport report = new(Here, 2, null, null, null, null, new WasteResult(7, 40, 20, 0.1, 1.9, [new WastePoint(1.9, 50, 0, 0, 0, 0.18, 0.05)]));
        using StringWriter markdown = new();
        report.WriteMarkdown(markdown);
        Assert.DoesNotContain("Pause", markdown.ToString(), StringComparison.Ordinal);
        Assert.Equal(report.ToWasteSvg(), report.ToSvg()); // nothing that has a target
        using JsonDocument json = JsonDocument.Parse(report.ToJson());
        Assert.False(json.RootElement.TryGetProperty("pause", out _));
    }

    private static Sample Of(double value)
    {
        Sample sample = new();
        sample.Add(value);
        return sample;
    }
}
