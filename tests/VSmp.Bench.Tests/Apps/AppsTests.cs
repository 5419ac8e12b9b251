// SPDX-License-Identifier: Apache-2.0
using System.Text.Json;
using System.Xml.Linq;
using VSmp.Bench.Apps;
using VSmp.Bench.Running;

namespace VSmp.Bench.Tests.Apps;

/// <summary>What programs say is understood or refused; results that differ are never a figure.</summary>
public sealed class AppsTests
{
    private static readonly string[] Lines = ["seconds 1.5", "checksum 00ff", "distinct 7", "part sorting 0.25", "part exchange 1.25"];

    [Fact]
    public void A_program_says_how_long_it_took_what_came_out_and_what_it_spent_the_time_on()
    {
        ProgramOutput output = Output(Lines).Require("program", 0, "", expected: "00ff");
        Assert.Equal((1.5, "00ff"), (output.Seconds, output.Checksum));
        Assert.Equal([new("sorting", 0.25), new("exchange", 1.25)], output.Parts);
    }

    [Fact]
    public void Another_checksum_is_a_wrong_result_and_so_is_what_the_program_found_wrong_itself()
    {
        Assert.Contains("00ff", Assert.Throws<WrongResultException>(() => Output(Lines).Require("program", 0, "", expected: "00fe")).Message, StringComparison.Ordinal);
        Assert.Contains("3 words", Assert.Throws<WrongResultException>(() => Output().Require("program", ExitCode.Wrong, "3 words are wrong", null)).Message,
            StringComparison.Ordinal);
    }

    [Fact]
    public void A_program_that_failed_or_left_something_out_is_no_figure()
    {
        Assert.Contains("no memory", Assert.Throws<BenchException>(() => Output(Lines).Require("program", 3, "no memory", "00ff")).Message, StringComparison.Ordinal);
        Assert.Throws<BenchException>(() => Output("seconds 1").Require("program", 0, "", null));
        Assert.Throws<BenchException>(() => Output("checksum 1").Require("program", 0, "", null));
        Assert.Throws<BenchException>(() => Output("seconds 0", "checksum 1").Require("program", 0, "", null));
        foreach (string line in new[] { "seconds soon", "seconds NaN", "seconds -1", "part sorting Infinity" }) Assert.Throws<BenchException>(() => Output(line));
    }

    [Fact]
    public void The_ratio_is_that_of_each_round_and_the_parts_are_those_of_both_programs()
    {
        ApplicationResult result = new(new Application("a", "b", [], 1.25), "00ff", 3);
        result.Add(Output("seconds 1", "part x 0.5"), Output("seconds 2", "part x 1"));
        result.Add(Output("seconds 4", "part x 2"), Output("seconds 4", "part x 3"));
        result.Add(Output("seconds 2", "part x 1"), Output("seconds 2.5", "part x 2"));
        Assert.Equal((1.25, 1, 2), (result.Ratio.Median, result.Ratio.Least, result.Ratio.Greatest));
        Assert.True(result.IsMet);
        PartResult part = Assert.Single(result.Parts);
        Assert.Equal(("b", "x", 1, 2), (part.Program, part.Part, part.MpiSeconds.Median, part.OurSeconds.Median));
        Assert.Throws<BenchException>(() => result.Add(Output("seconds 1", "part x 1"), Output("seconds 1", "part y 1")));
    }

    [Fact]
    public void MPI_may_use_TCP_and_nothing_else()
    {
        string arguments = string.Join(' ', OpenMpi.LauncherArguments(2, isRoot: false));
        Assert.Contains("-np 2 ", arguments, StringComparison.Ordinal);
        Assert.Contains("--mca pml ob1 --mca btl tcp,self ", arguments, StringComparison.Ordinal);
        Assert.DoesNotContain("root", arguments, StringComparison.Ordinal);
        Assert.Contains("--allow-run-as-root", OpenMpi.LauncherArguments(2, isRoot: true));
    }

    [Fact]
    public void The_report_has_every_application_in_each_of_its_forms()
    {
        ApplicationResult[] results = [.. Application.All.Select(application => new ApplicationResult(application, "00ff", 3))];
        foreach (ApplicationResult result in results) result.Add(Output("seconds 1", "part x 0.5"), Output("seconds 2", "part x 1.5"));
        GupsResult gups = new();
        gups.Add(30e6, 60e3);
        AppsReport report = new(new Machine("processor", 2, "6.0", "commit", "day"), "tcp", "msi", 1, results, gups);
        using StringWriter markdown = new();
        report.WriteMarkdown(markdown);
        using JsonDocument json = JsonDocument.Parse(report.ToJson());
        string drawn = XDocument.Parse(report.ToSvg()).ToString();
        Assert.All(Application.All, application =>
        {
            Assert.Contains($"| {application.Name} ", markdown.ToString(), StringComparison.Ordinal);
            Assert.Contains($"| {application.Program} ", markdown.ToString(), StringComparison.Ordinal);
            Assert.Contains(application.Name, drawn, StringComparison.Ordinal);
        });
        Assert.Contains("| 500 |", string.Join(' ', markdown.ToString().Split(' ', StringSplitOptions.RemoveEmptyEntries)), StringComparison.Ordinal);
        Assert.Equal(2, json.RootElement.GetProperty("applications")[0].GetProperty("ratio").GetProperty("values")[0].GetDouble());
        Assert.Equal(500, json.RootElement.GetProperty("gups").GetProperty("ratio").GetProperty("median").GetDouble());
    }

    private static ProgramOutput Output(params string[] lines)
    {
        ProgramOutput output = new();
        foreach (string line in lines) output.Add(line);
        return output;
    }
}
