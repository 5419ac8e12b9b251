// SPDX-License-Identifier: Apache-2.0
using System.Text.Json;
using System.Xml.Linq;
using VSmp.Bench.Recovery;
using VSmp.Bench.Running;

namespace VSmp.Bench.Tests.Recovery;

/// <summary>What the agent's log and the guest say is understood, and what is made of it.</summary>
public sealed class RecoveryTests
{
    private static readonly string[] Log =
    [
        "2026-11-22T15:30:00.100Z info  recovery of r.1: n3 lost; 2 other nodes take part",
        "2026-11-22T15:30:00.120Z info  recovery of r.1: done in 17.5 ms (frozen after 3.2), generation 1; nothing is lost",
        "2026-11-22T15:30:05.000Z warn  recovery of r.1: n2 lost; 2 other nodes take part",
        "2026-11-22T15:30:06.250Z info  recovery of r.1: n1, n2 lost; 1 other nodes take part",
        "2026-11-22T15:30:06.300Z info  recovery of r.1: done in 41.0 ms (frozen after 3.2), generation 2; 12 pages are lost (vsmp report lost)",
        "2026-11-22T15:30:07.300Z info  recovery of r.1: every page has a mirror again",
        "2026-11-22T15:30:08.200Z info  agent n2 is ready: 1 GiB for the pool, listening on 127.0.0.1:7070",
    ];

    [Fact]
    public void A_recovery_is_found_by_the_node_that_was_lost()
    {
        LoggedRecovery found = RecoveryLog.Find(Log, "n2")!;
        Assert.Equal(new DateTime(2026, 11, 22, 15, 30, 6, 250, DateTimeKind.Utc), found.Began);
        Assert.Equal((41.0, false), (found.Milliseconds, found.IsAllThere));
        Assert.True(RecoveryLog.Find(Log, "n3")!.IsAllThere);
        Assert.Null(RecoveryLog.Find(Log, "n4"));
        Assert.Null(RecoveryLog.Find(Log[..4], "n1")); // not done yet
        Assert.True(RecoveryLog.IsMirrored(Log));
        Assert.False(RecoveryLog.IsMirrored(Log[..5]));
    }

    [Fact]
    public void An_agent_serves_when_it_says_so()
    {
        Assert.Equal(new DateTime(2026, 11, 22, 15, 30, 8, 200, DateTimeKind.Utc), RecoveryLog.FindReady(Log, "n2"));
        Assert.Null(RecoveryLog.FindReady(Log, "n1"));
        Assert.Null(RecoveryLog.FindReady(Log[..^1], "n2"));
    }

    [Fact]
    public void What_a_guest_says_is_a_stretch_or_nonsense()
    {
        Assert.Equal(new Stretch(2.5, 2000), Stretch.Parse("2500000 1000 500000000"));
        foreach (string line in (string[])["", "1 2", "1 2 0", "1 -2 3", "1 2 3 4", "a b c"]) Assert.Throws<BenchException>(() => Stretch.Parse(line));
    }

    [Fact]
    public void Percentiles_are_values_that_were_measured()
    {
        Assert.Equal(new Figure("f", 2, 3, 3, 1), Figure.Of("f", [3, 1, 2]));
        Assert.Equal(new Figure("f", 50, 99, 100, 1), Figure.Of("f", Enumerable.Range(1, 100).Select(i => (double)i)));
        Assert.Equal(new Figure("f", 7, 7, 7, 7), Figure.Of("f", [7]));
    }

    [Theory]
    [InlineData(nameof(Victims.Node), "2 kills of nodes", "A node is killed")]
    [InlineData(nameof(Victims.Host), "2 kills of hosts", "A host is gone")]
    public void The_report_has_every_figure_in_each_of_its_forms(string what, string words, string title)
    {
        Sample plain = new(), mirrored = new();
        plain.Add(1000);
        mirrored.Add(800);
        RecoveryReport report = new(Enum.Parse<Victims>(what), new Machine("processor", 2, "6.0", "commit", "day"), 4, 96, 24, Seed: 5, QuietStallMilliseconds: 7, plain, mirrored,
        [
            new Kill("n1", 430) { DetectionMilliseconds = 400, RecoveryMilliseconds = 20 }, new Kill("n3", 560.3) { DetectionMilliseconds = 500, RecoveryMilliseconds = 30 },
        ]);
        using StringWriter markdown = new();
        report.WriteMarkdown(markdown);
        Assert.Contains("25 % longer", markdown.ToString(), StringComparison.Ordinal);
        Assert.Contains(words, markdown.ToString(), StringComparison.Ordinal);
        Assert.Contains(title, report.ToSvg(), StringComparison.Ordinal);
        using JsonDocument json = JsonDocument.Parse(report.ToJson());
        Assert.Equal(2, json.RootElement.GetProperty("kills").GetArrayLength());
        Assert.Equal("kill,node,detection_ms,recovery_ms,stall_ms\n1,n1,400.0,20.0,430.0\n2,n3,500.0,30.0,560.3\n", report.ToCsv());
        string drawn = XDocument.Parse(report.ToSvg()).ToString();
        foreach (string figure in (string[])["detection", "recovery", "stall of the guest"])
        {
            Assert.Contains($"| {figure} ", markdown.ToString(), StringComparison.Ordinal);
            Assert.Contains(figure, drawn, StringComparison.Ordinal);
        }
    }

    [Fact]
    public void Of_agents_there_is_their_return_and_nothing_of_mirrors()
    {
        Sample plain = new();
        plain.Add(1000);
        RecoveryReport report = new(Victims.Agent, new Machine("processor", 2, "6.0", "commit", "day"), 4, 96, 24, Seed: 5, QuietStallMilliseconds: 7, plain, null,
            [new Kill("n0", 330) { ReturnMilliseconds = 300 }]);
        using StringWriter markdown = new();
        report.WriteMarkdown(markdown);
        Assert.Contains("1 kills of agents alone", markdown.ToString(), StringComparison.Ordinal);
        Assert.DoesNotContain("mirrors", markdown.ToString(), StringComparison.Ordinal);
        Assert.DoesNotContain("detection", markdown.ToString() + report.ToSvg() + report.ToJson(), StringComparison.Ordinal);
        Assert.Equal("kill,node,return_ms,stall_ms\n1,n0,300.0,330.0\n", report.ToCsv());
        using JsonDocument json = JsonDocument.Parse(report.ToJson());
        Assert.Equal("Agent", json.RootElement.GetProperty("what").GetString());
    }
}
