// SPDX-License-Identifier: Apache-2.0
using VSmp.Bench.Agents;
using VSmp.Bench.Running;

namespace VSmp.Bench.Tests.Agents;

/// <summary>What agents take: what is not theirs is left out, and what is read is what the kernel meant.</summary>
public sealed class AgentTests
{
    [Fact]
    public void What_agents_allocate_anyhow_is_left_out()
    {
        // Every answer takes 100 bytes, half of it after it was counted; every second takes 30.
        double seconds = 0, faults = 0, bytesOfFaults = 0; // and of words
        int answered = 0;
        AllocationMeter meter = new(() => (50 + (100 * answered++) + (30 * seconds) + bytesOfFaults, faults), () => seconds);

        meter.Begin();
        seconds += 20;
        Allocation idle = meter.End();
        Assert.Equal(new Allocation(20, 600, 0), idle);

        // To be told to go on takes 500 bytes.
        meter.Begin();
        seconds += 1;
        bytesOfFaults = 500;
        Allocation word = meter.End();
        Assert.Equal(new Allocation(1, 530, 0), word);

        meter.Begin();
        seconds += 2;
        (faults, bytesOfFaults) = (1000, 500 + 16_500);
        Allocation busy = meter.End();
        Assert.Equal(new Allocation(2, 16_560, 1000), busy);
        Assert.Equal(16, busy.BytesForEach(busy.Faults, idle, word));
    }

    [Fact]
    public void The_memory_of_a_process_is_read_from_its_status()
    {
        Assert.Equal(46328, AgentProcess.ParseResident(["Name:\tvsmp", "VmPeak:\t 2000 kB", "VmRSS:\t   46328 kB", "RssAnon:\t    6172 kB"]));
        Assert.Throws<BenchException>(() => AgentProcess.ParseResident(["Name:\tvsmp", "State:\tZ (zombie)"]));
    }

    [Theory]
    [InlineData(0.04, 0, true, "0.0")]
    [InlineData(-0.04, 0, true, "0.0")]
    [InlineData(16.047, 16, true, "16.0")]
    [InlineData(16.06, 16, false, "16.1")]
    public void A_figure_is_compared_with_its_target_by_the_digits_that_mean_something(double value, double target, bool isMet, string shown)
    {
        AgentFigure figure = new("a figure", "bytes", value, target, Decimals: 1);
        Assert.Equal((isMet, shown), (figure.IsMet, figure.Shown));
        Assert.Null((figure with { Target = null }).IsMet);
    }

    [Fact]
    public void A_directory_takes_a_word_until_a_page_is_asked_for_and_then_its_entries()
    {
        (double untouchedExtent, double touchedPage) = DirectorySize.Measure();
        Assert.InRange(untouchedExtent, 8, 8.1);
        Assert.InRange(touchedPage, DirectorySize.EntryBytes, DirectorySize.EntryBytes + 0.1);
    }

    [Fact]
    public void A_report_says_which_targets_are_met()
    {
        Machine machine = new("a processor", 2, "6.1", "abc", "2026-01-02");
        AgentReport report = new(machine, "tcp", 20, 512, [new("good", "MiB", 50, 120, 1), new("bad", "%", 0.75, 0.5, 2), new("told", "bytes", 24, null, 0)]);
        using StringWriter text = new();
        report.WriteMarkdown(text);
        string[] lines = text.ToString().Split('\n');
        Assert.Contains(lines, line => line.Contains("good", StringComparison.Ordinal) && line.Contains("yes", StringComparison.Ordinal));
        Assert.Contains(lines, line => line.Contains("bad", StringComparison.Ordinal) && line.Contains("no ", StringComparison.Ordinal));
        Assert.Contains("\"isMet\": false", report.ToJson(), StringComparison.Ordinal);
    }
}
