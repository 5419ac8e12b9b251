// SPDX-License-Identifier: Apache-2.0
using System.Xml.Linq;
using VSmp.Bench.Ratio;
using VSmp.Bench.Running;

namespace VSmp.Bench.Tests.Ratio;

/// <summary>Medians of ratios, not ratios of medians; and pictures that programs can read.</summary>
public sealed class RatioTests
{
    [Fact]
    public void The_ratio_is_the_median_of_the_rounds_ratios()
    {
        RatioResult result = new(new Figure("a figure", "1:w1r0", "fetch", 0.5, 1.5));
        result.Add(10, 30);
        result.Add(20, 20);
        result.Add(40, 60);
        Assert.Equal((20, 30), (result.FloorMicroseconds.Median, result.OurMicroseconds.Median));
        Assert.Equal((1.5, 1, 3), (result.Ratio.Median, result.Ratio.Least, result.Ratio.Greatest));
        Assert.True(result.IsMet);
        result.Add(10, 20);
        Assert.Equal(1.75, result.Ratio.Median);
        Assert.False(result.IsMet);
    }

    [Fact]
    public void A_figure_is_a_quantile_or_the_time_for_each_page()
    {
        long[] nanoseconds = [.. Enumerable.Range(1, 100).Select(i => i * 1000L).Reverse()];
        Assert.Equal(51, new Figure("", null, "", 0.5, 1).Microseconds(nanoseconds, 100));
        Assert.Equal(100, new Figure("", null, "", 0.99, 1).Microseconds(nanoseconds, 100));
        Assert.Equal(50.5, new Figure("", null, "", null, 1).Microseconds(nanoseconds, 100));
        Assert.Equal(2, new Figure("", null, "", null, 1).Microseconds([200_000], 100)); // of all pages together
        Assert.Equal(100_000, nanoseconds[0]); // figures share what was measured
    }

    [Fact]
    public void A_chart_is_well_formed_and_shows_every_bar_within_its_frame()
    {
        Bar[] bars = [new("slow & <far>", 3.7, 2, 9.5, 1.25), new("fast", 0.8, 0.7, 0.9, null)];
        XDocument chart = XDocument.Parse(BarChart.Draw("title", "axis", bars));
        XNamespace svg = "http://www.w3.org/2000/svg";
        double width = double.Parse(chart.Root!.Attribute("viewBox")!.Value.Split(' ')[2], System.Globalization.CultureInfo.InvariantCulture);
        XElement[] drawn = [.. chart.Descendants(svg + "rect").Skip(1)]; // the first is the paper
        Assert.Equal(bars.Length, drawn.Length);
        Assert.All(drawn, bar => Assert.InRange((double)bar.Attribute("x")! + (double)bar.Attribute("width")!, 1, width));
        Assert.All(bars, bar => Assert.Contains(chart.Descendants(svg + "text"), text => text.Value == bar.Label));
    }
}
