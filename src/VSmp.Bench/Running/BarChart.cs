// SPDX-License-Identifier: Apache-2.0
using System.Globalization;
using System.Security;
using System.Text;

namespace VSmp.Bench.Running;

/// <summary>A bar of a <see cref="BarChart"/>.</summary>
/// <param name="Label">What it shows.</param>
/// <param name="Value">How long it is.</param>
/// <param name="Least">Where its spread begins.</param>
/// <param name="Greatest">Where its spread ends.</param>
/// <param name="Target">Where it is to end at most, or null.</param>
public sealed record Bar(string Label, double Value, double Least, double Greatest, double? Target);

/// <summary>Bars with their spread, as a picture: SVG.</summary>
public static class BarChart
{
    private const int Width = 900, LabelWidth = 330, ValueWidth = 70, RowHeight = 34, BarHeight = 16, Top = 44, Bottom = 34;

    /// <summary>Draws.</summary>
    /// <param name="title">Above everything.</param>
    /// <param name="axis">What the numbers are, below.</param>
    /// <param name="bars">The bars, from above.</param>
    public static string Draw(string title, string axis, IReadOnlyList<Bar> bars)
    {
        ArgumentNullException.ThrowIfNull(bars);
        double end = NiceEnd(bars.Max(bar => Math.Max(bar.Greatest, bar.Target ?? 0)));
        double X(double value) => LabelWidth + (Math.Min(value, end) / end * (Width - LabelWidth - ValueWidth));
        int height = Top + (bars.Count * RowHeight) + Bottom;
        StringBuilder svg = new();
        svg.Append(CultureInfo.InvariantCulture, $"<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {Width} {height}\" font-family=\"sans-serif\" font-size=\"13\">\n");
        svg.Append(CultureInfo.InvariantCulture, $"<rect width=\"{Width}\" height=\"{height}\" fill=\"white\"/>\n");
        svg.Append(CultureInfo.InvariantCulture, $"<text x=\"10\" y=\"24\" font-size=\"15\" font-weight=\"bold\">{SecurityElement.Escape(title)}</text>\n");
        for (int tick = 0; tick <= 5; tick++)
        {
            double value = end * tick / 5;
            svg.Append(CultureInfo.InvariantCulture, $"<line x1=\"{X(value):F1}\" y1=\"{Top - 6}\" x2=\"{X(value):F1}\" y2=\"{height - Bottom}\" stroke=\"#ddd\"/>");
            svg.Append(CultureInfo.InvariantCulture, $"<text x=\"{X(value):F1}\" y=\"{height - Bottom + 15}\" text-anchor=\"middle\" fill=\"#555\">{value:0.##}</text>\n");
        }
        svg.Append(CultureInfo.InvariantCulture, $"<text x=\"{LabelWidth}\" y=\"{height - 4}\" fill=\"#555\">{SecurityElement.Escape(axis)}</text>\n");
        for (int i = 0; i < bars.Count; i++)
        {
            Bar bar = bars[i];
            double y = Top + (i * RowHeight), middle = y + (BarHeight / 2.0);
            string colour = bar.Target is { } most && bar.Value > most ? "#c0504d" : "#4f81bd";
            svg.Append(CultureInfo.InvariantCulture, $"<text x=\"{LabelWidth - 8}\" y=\"{middle + 4:F1}\" text-anchor=\"end\">{SecurityElement.Escape(bar.Label)}</text>");
            svg.Append(CultureInfo.InvariantCulture, $"<rect x=\"{LabelWidth}\" y=\"{y:F1}\" width=\"{X(bar.Value) - LabelWidth:F1}\" height=\"{BarHeight}\" fill=\"{colour}\"/>");
            svg.Append(CultureInfo.InvariantCulture, $"<line x1=\"{X(bar.Least):F1}\" y1=\"{middle:F1}\" x2=\"{X(bar.Greatest):F1}\" y2=\"{middle:F1}\" stroke=\"black\"/>");
            foreach (double at in (double[])[bar.Least, bar.Greatest])
            {
                svg.Append(CultureInfo.InvariantCulture, $"<line x1=\"{X(at):F1}\" y1=\"{middle - 4:F1}\" x2=\"{X(at):F1}\" y2=\"{middle + 4:F1}\" stroke=\"black\"/>");
            }
            if (bar.Target is { } target)
            {
                svg.Append(CultureInfo.InvariantCulture, $"<line x1=\"{X(target):F1}\" y1=\"{y - 5:F1}\" x2=\"{X(target):F1}\" y2=\"{y + BarHeight + 5:F1}\" stroke=\"#2e7d32\" stroke-width=\"3\"/>");
            }
            svg.Append(CultureInfo.InvariantCulture, $"<text x=\"{X(Math.Max(bar.Greatest, bar.Value)) + 6:F1}\" y=\"{middle + 4:F1}\">{bar.Value:0.00}</text>\n");
        }
        return svg.Append("</svg>\n").ToString();
    }

    // 1, 2 or 5 times a power of ten.
    private static double NiceEnd(double greatest)
    {
        double power = Math.Pow(10, Math.Floor(Math.Log10(greatest)));
        double lead = greatest / power;
        return power * (lead <= 1 ? 1 : lead <= 2 ? 2 : lead <= 5 ? 5 : 10);
    }
}
