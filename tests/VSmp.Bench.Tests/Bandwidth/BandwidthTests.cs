// SPDX-License-Identifier: Apache-2.0
using System.Text.Json;
using System.Xml.Linq;
using VSmp.Bench.Bandwidth;
using VSmp.Bench.Running;

namespace VSmp.Bench.Tests.Bandwidth;

/// <summary>What the ranks say is understood or refused; what was read wrong is never a figure.</summary>
public sealed class BandwidthTests
{
    private static readonly string[] Lines = ["plain 10 4000 9000000 5000", "hit 10 5000 6000 7000", "read 100 400000", "random-read 100 3000000", "write 100 600000",
        "random-write 100 4000000", "exchange 200 1000000", "write-exchange 200 3000000"];

    [Fact]
    public void A_pattern_takes_what_half_of_its_passes_took_for_each_page()
    {
        IReadOnlyDictionary<string, double> times = Output(Lines).Require(0, "");
        Assert.Equal((4, 5, 0.6, 0.5), (times["read"], times["exchange"], times["hit"], times["plain"]));
    }

    [Fact]
    public void What_was_read_wrong_is_a_wrong_result_and_what_is_missing_or_not_a_time_is_no_figure()
    {
        Assert.Contains("page 7", Assert.Throws<WrongResultException>(() => Output(Lines).Require(ExitCode.Wrong, "read: page 7")).Message, StringComparison.Ordinal);
        Assert.Contains("no memory", Assert.Throws<BenchException>(() => Output(Lines).Require(ExitCode.Unable, "no memory")).Message, StringComparison.Ordinal);
        foreach (string line in Lines) Assert.Throws<BenchException>(() => Output([.. Lines.Except([line])]).Require(0, ""));
        foreach (string line in new[] { "", "read", "read 100", "read 0 100", "read 100 0", "read 100 -1", "read 100 soon" }) Assert.Throws<BenchException>(() => Output(line));
    }

    [Fact]
    public void A_target_is_a_ratio_or_an_amount_in_a_second_or_nothing()
    {
        BandwidthResult Result(double? ratio, double? megabytes)
        {
            BandwidthResult result = new(new Pattern("a pattern", "read", "stream", ratio, megabytes));
            result.Add(8, 16);
            return result;
        }
        Assert.Equal((512, 256), (Result(null, null).FloorMegabytes, Result(null, null).OurMegabytes));
        Assert.Equal(("2.00", true), (Result(2, null).Target, Result(2, null).IsMet));
        Assert.Equal(("1.99", false), (Result(1.99, null).Target, Result(1.99, null).IsMet));
        Assert.Equal(("256 MB/s", true), (Result(null, 256).Target, Result(null, 256).IsMet));
        Assert.Equal(("257 MB/s", false), (Result(null, 257).Target, Result(null, 257).IsMet));
        Assert.Equal(("", null), (Result(null, null).Target, Result(null, null).IsMet));
    }

    [Fact]
    public void The_report_has_every_pattern_in_each_of_its_forms()
    {
        BandwidthResult[] results = [.. Pattern.All.Select(pattern => new BandwidthResult(pattern))];
        foreach (BandwidthResult result in results) result.Add(4, 8);
        BandwidthReport report = new(new Machine("processor", 2, "6.0", "commit", "day"), "tcp", 2048, 1, results);
        using StringWriter markdown = new();
        report.WriteMarkdown(markdown);
        using JsonDocument json = JsonDocument.Parse(report.ToJson());
        string drawn = XDocument.Parse(report.ToSvg()).ToString();
        Assert.All(Pattern.All, pattern =>
        {
            Assert.Contains($"| {pattern.Name} ", markdown.ToString(), StringComparison.Ordinal);
            Assert.Contains($">{pattern.Name}<", drawn, StringComparison.Ordinal);
        });
        JsonElement first = json.RootElement.GetProperty("results")[0];
        Assert.Equal((512, 2), (first.GetProperty("ourMegabytes").GetDouble(), first.GetProperty("ratio").GetProperty("median").GetDouble()));
    }

    private static BandwidthOutput Output(params string[] lines)
    {
        BandwidthOutput output = new();
        foreach (string line in lines) output.Add(line);
        return output;
    }
}
