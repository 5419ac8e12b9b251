// SPDX-License-Identifier: Apache-2.0
using System.Globalization;
using System.Security.Cryptography;
using System.Text;
using System.Xml.Linq;
using VSmp.Bench.Running;
using VSmp.Bench.Velvet;

namespace VSmp.Bench.Tests.Velvet;

/// <summary>What is measured, and what is made of it; without Velvet.</summary>
public sealed class VelvetTests
{
    [Fact]
    public void Reads_are_those_that_the_demo_makes()
    {
        using StringWriter output = new();
        Reads.Write(output, count: 2400, seed: 1);
        // demo/make-reads -v seed=1 -v bases=10000 -v coverage=12 | sha256sum
        Assert.Equal("a1beb46191c17f37baa0029eb1fdb666c00d27e4be8f219640db8a0725050dc6", Convert.ToHexStringLower(SHA256.HashData(Encoding.ASCII.GetBytes(output.ToString()))));
    }

    [Fact]
    public void What_is_private_is_taken_off_the_budget_and_frames_come_in_extents()
    {
        const ulong Mebibyte = 1 << 20;
        Assert.Equal(92 * Mebibyte, VelvetRun.LocalBytes(110 * Mebibyte, (16 * Mebibyte) + 1));
        Assert.Equal(4 * Mebibyte, VelvetRun.LocalBytes(20 * Mebibyte, 16 * Mebibyte));
        Assert.Equal(0u, VelvetRun.LocalBytes(19 * Mebibyte, 16 * Mebibyte)); // less than vsmp run takes
        Assert.Equal(0u, VelvetRun.LocalBytes(10 * Mebibyte, 16 * Mebibyte));
    }

    [Fact]
    public void A_series_shows_medians_until_a_run_does_not_finish()
    {
        Series series = new();
        Assert.Equal("", series.ToCell(s => s.Ratio, 2));
        Assert.False(series.IsFinished);
        series.Add(new Outcome(RunEnd.Finished, 6, 50 << 20), nativeSeconds: 4);
        series.Add(new Outcome(RunEnd.Finished, 8, 52 << 20), nativeSeconds: 4);
        Assert.Equal(("7.0", "1.75", "51"), (series.ToCell(s => s.Seconds, 1), series.ToCell(s => s.Ratio, 2), series.ToCell(s => s.LocalMebibytes, 0)));
        Assert.True(series.IsFinished);
        series.Add(new Outcome(RunEnd.Late, 42, 50 << 20), nativeSeconds: 4);
        Assert.Equal(("> 42.0", "> 10.50"), (series.ToCell(s => s.Seconds, 1), series.ToCell(s => s.Ratio, 2)));
        Assert.False(series.IsFinished);
    }

    [Fact]
    public void Two_runs_behind_each_other_end_as_the_worse_of_them()
    {
        Outcome both = new Outcome(RunEnd.Finished, 2, 100).Then(new Outcome(RunEnd.Killed, 3, 60));
        Assert.Equal(new Outcome(RunEnd.Killed, 5, 100), both);
        Series series = new();
        series.Add(both, nativeSeconds: 1);
        Assert.Equal("killed", series.ToCell(s => s.Ratio, 2));
    }

    [Fact]
    public void A_target_is_met_within_its_ratio_and_when_swap_is_no_faster()
    {
        Assert.True(Result(50, pooled: 1.4, swap: 3).IsMet);
        Assert.True(Result(50, pooled: 1.4, swap: null).IsMet);
        Assert.False(Result(50, pooled: 1.6, swap: 3).IsMet);
        Assert.False(Result(50, pooled: 1.4, swap: 1.3).IsMet);
        Assert.True(Result(75, pooled: 20, swap: 30).IsMet); // no target but that
        VelvetResult late = new("velveth", 25);
        late.Add(1, new Outcome(RunEnd.Late, 2, 0), swap: null);
        Assert.False(late.IsMet);
    }

    [Fact]
    public void Percentages_are_separated_by_commas()
    {
        List<string> errors = [];
        Assert.Equal([100, 50], VelvetCommand.Percentages("100,50", errors.Add));
        Assert.Empty(errors);
        Assert.Empty(VelvetCommand.Percentages("100,0", errors.Add));
        Assert.Empty(VelvetCommand.Percentages("a", errors.Add));
        Assert.Equal(2, errors.Count);
    }

    [Fact]
    public void The_memory_controller_is_found_in_both_versions_of_cgroups()
    {
        string[] version1 = ["cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0", "cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0", "cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0"];
        Assert.Equal(("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), RootAndLimit(CgroupFiles.FromMounts(version1, _ => "\n")));
        string[] version2 = ["proc /proc proc rw 0 0", "cgroup2 /sys/fs/cgroup cgroup2 rw,nsdelegate 0 0"];
        Assert.Equal(("/sys/fs/cgroup", "memory.max"), RootAndLimit(CgroupFiles.FromMounts(version2, _ => "cpu io memory\n")));
        Assert.Null(CgroupFiles.FromMounts(version2, _ => "cpu\n"));

        static (string, string) RootAndLimit(CgroupFiles? files) => (files!.Root, files.Limit);
    }

    [Fact]
    public void Memory_is_counted_of_the_program_alone_and_at_its_peak()
    {
        ProgramWatch watch = new("velvet-with-a-long-name", limitSeconds: 1);
        watch.Note(["Name:\tvsmp", "VmHWM:\t  900000 kB", "RssAnon:\t  900000 kB", "RssFile:\t 10 kB"]); // what starts it
        watch.Note(["Name:\tvelvet-with-a-l", "VmHWM:\t  2000 kB", "RssAnon:\t  700 kB", "RssFile:\t 300 kB", "RssShmem:\t 1000 kB"]);
        watch.Note(["Name:\tvelvet-with-a-l", "VmHWM:\t  2500 kB", "RssAnon:\t  100 kB", "RssFile:\t 400 kB", "RssShmem:\t 2000 kB"]);
        watch.Note(["Name:\tvelvet-with-a-l"]); // it has just ended: no memory
        Assert.Equal((2500u << 10, 1000u << 10), ((uint)watch.PeakResidentBytes, (uint)watch.PeakPrivateBytes));
    }

    [Fact]
    public void Outputs_are_compared_byte_for_byte()
    {
        DirectoryInfo scratch = Directory.CreateTempSubdirectory("velvet-test-");
        try
        {
            string one = scratch.CreateSubdirectory("one").FullName, other = scratch.CreateSubdirectory("other").FullName;
            VelvetStep step = VelvetStep.All[0];
            foreach (string folder in (string[])[one, other])
            {
                foreach (string output in step.Outputs) File.WriteAllText(Path.Combine(folder, output), "ACGT");
                File.WriteAllText(Path.Combine(folder, "Log"), folder); // has times in it
            }
            Assert.Empty(step.Differences(one, other));
            File.WriteAllText(Path.Combine(other, "Roadmaps"), "ACGA");
            File.Delete(Path.Combine(other, "Sequences"));
            Assert.Equal(["Sequences", "Roadmaps"], step.Differences(one, other));
        }
        finally
        {
            scratch.Delete(recursive: true);
        }
    }

    [Fact]
    public void A_line_chart_is_well_formed_and_shows_every_point_within_its_frame()
    {
        Line[] lines =
        [
            new("target", "green", [new LinePoint(1.1, 1.1, 1.1), null, new LinePoint(3, 3, 3)]),
            new("slow & <far>", "red", [new LinePoint(0.9, 0.8, 1.2), new LinePoint(17, 9, 31), new LinePoint(50, 50, 50, IsBeyond: true)]),
        ];
        XDocument chart = XDocument.Parse(LineChart.Draw("title", "axis", ["100 %", "50 %", "25 %"], lines));
        XNamespace svg = "http://www.w3.org/2000/svg";
        double height = double.Parse(chart.Root!.Attribute("viewBox")!.Value.Split(' ')[3], CultureInfo.InvariantCulture);
        XElement[] points = [.. chart.Descendants(svg + "circle")];
        Assert.Equal(4, points.Length);
        Assert.All(points, point => Assert.InRange((double)point.Attribute("cy")!, 1, height - 1));
        Assert.Single(chart.Descendants(svg + "path")); // the arrow
        Assert.All(lines, line => Assert.Contains(chart.Descendants(svg + "text"), text => text.Value == line.Label));
    }

    private static VelvetResult Result(int budget, double pooled, double? swap)
    {
        VelvetResult result = new("velvetg", budget);
        result.Add(10, new Outcome(RunEnd.Finished, pooled * 10, 0), swap is { } ratio ? new Outcome(RunEnd.Finished, ratio * 10, 0) : null);
        return result;
    }
}
