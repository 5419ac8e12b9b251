// SPDX-License-Identifier: Apache-2.0
using System.Globalization;
using System.Security;
using System.Text;

namespace VSmp.Bench.Running;

/// <summary>A point of a <see cref="Line"/>.</summary>
/// <param name="Value">How high it is.</param>
/// <param name="Least">Where its spread begins.</param>
/// <param name="Greatest">Where its spread ends.</param>
/// <param name="IsBeyond">Whether it is above that, nobody knows how far.</param>
public sealed record LinePoint(double Value, double Least, double Greatest, bool IsBeyond = false);

/// <summary>A line of a <see cref="LineChart"/>.</summary>
/// <param name="Label">What it shows.</param>
/// <param name="Colour">In this colour.</param>
/// <param name="Points">A point for each place on the axis, null where there is none.</param>
public sealed record Line(string Label, string Colour, IReadOnlyList<LinePoint?> Points);

/// <summary>Lines with the spread of their points, ratios on a logarithmic scale, as a picture: SVG.</summary>
public static class LineChart
{
    private const int Width = 760, Height = 420, Left = 60, Right = 30, Top = 70, Bottom = 60;

    /// <summary>Draws.</summary>
    /// <param name="title">Above everything.</param>
    /// <param name="axis">What the places are, below.</param>
    /// <param name="places">The places, from the left.</param>
    /// <param name="lines">The lines; the last one is drawn on top.</param>
    public static string Draw(string title, string axis, IReadOnlyList<string> places, IReadOnlyList<Line> lines)
    {
        ArgumentNullException.ThrowIfNull(places);
        ArgumentNullException.ThrowIfNull(lines);
        LinePoint[] all = [.. lines.SelectMany(line => line.Points).OfType<LinePoint>()];
        double least = Math.Min(1, all.Min(point => point.Least)), greatest = Math.Max(2, all.Max(point => point.Greatest) * 1.1);
        double X(int place) => Left + ((place + 0.5) * (Width - Left - Right) / places.Count);
        double Y(double value) => Height - Bottom - (Math.Log(value / least) / Math.Log(greatest / least) * (Height - Top - Bottom));
        StringBuilder svg = new();
        svg.Append(CultureInfo.InvariantCulture, $"<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {Width} {Height}\" font-family=\"sans-serif\" font-size=\"13\">\n");
        svg.Append(CultureInfo.InvariantCulture, $"<rect width=\"{Width}\" height=\"{Height}\" fill=\"white\"/>\n");
        svg.Append(CultureInfo.InvariantCulture, $"<text x=\"10\" y=\"24\" font-size=\"15\" font-weight=\"bold\">{SecurityElement.Escape(title)}</text>\n");
        foreach (double tick in Ticks(least, greatest))
        {
            svg.Append(CultureInfo.InvariantCulture, $"<line x1=\"{Left}\" y1=\"{Y(tick):F1}\" x2=\"{Width - Right}\" y2=\"{Y(tick):F1}\" stroke=\"#ddd\"/>");
            svg.Append(CultureInfo.InvariantCulture, $"<text x=\"{Left - 8}\" y=\"{Y(tick) + 4:F1}\" text-anchor=\"end\" fill=\"#555\">{tick:0.##}</text>\n");
        }
        for (int place = 0; place < places.Count; place++)
        {
            svg.Append(CultureInfo.InvariantCulture, $"<text x=\"{X(place):F1}\" y=\"{Height - Bottom + 20}\" text-anchor=\"middle\" fill=\"#555\">{SecurityElement.Escape(places[place])}</text>\n");
        }
        svg.Append(CultureInfo.InvariantCulture, $"<text x=\"{Left}\" y=\"{Height - 12}\" fill=\"#555\">{SecurityElement.Escape(axis)}</text>\n");
        for (int i = 0; i < lines.Count; i++)
        {
            Line line = lines[i];
            int key = Left + (i * 180);
            svg.Append(CultureInfo.InvariantCulture, $"<line x1=\"{key}\" y1=\"46\" x2=\"{key + 24}\" y2=\"46\" stroke=\"{line.Colour}\" stroke-width=\"3\"/>");
            svg.Append(CultureInfo.InvariantCulture, $"<text x=\"{key + 30}\" y=\"50\">{SecurityElement.Escape(line.Label)}</text>\n");
            Draw(svg, line, X, Y);
        }
        return svg.Append("</svg>\n").ToString();
    }

    private static void Draw(StringBuilder svg, Line line, Func<int, double> x, Func<double, double> y)
    {
        for (int place = 0; place < line.Points.Count; place++)
        {
            if (line.Points[place] is not { } point) continue;
            double atX = x(place), atY = y(point.Value);
            if (place + 1 < line.Points.Count && line.Points[place + 1] is { } next)
            {
                svg.Append(CultureInfo.InvariantCulture, $"<line x1=\"{atX:F1}\" y1=\"{atY:F1}\" x2=\"{x(place + 1):F1}\" y2=\"{y(next.Value):F1}\" stroke=\"{line.Colour}\" stroke-width=\"2\"/>");
            }
            if (point.IsBeyond)
            {
                // An arrow: it goes on upwards.
                svg.Append(CultureInfo.InvariantCulture, $"<path d=\"M {atX - 6:F1} {atY:F1} L {atX:F1} {atY - 12:F1} L {atX + 6:F1} {atY:F1} Z\" fill=\"{line.Colour}\"/>\n");
                continue;
            }
            svg.Append(CultureInfo.InvariantCulture, $"<line x1=\"{atX:F1}\" y1=\"{y(point.Least):F1}\" x2=\"{atX:F1}\" y2=\"{y(point.Greatest):F1}\" stroke=\"black\"/>");
            svg.Append(CultureInfo.InvariantCulture, $"<circle cx=\"{atX:F1}\" cy=\"{atY:F1}\" r=\"4\" fill=\"{line.Colour}\"/>\n");
        }
    }

    // 1, 2 or 5 times a power of ten.
    private static IEnumerable<double> Ticks(double least, double greatest)
    {
        for (double power = Math.Pow(10, Math.Floor(Math.Log10(least))); power <= greatest; power *= 10)
        {
            foreach (double tick in (double[])[power, 2 * power, 5 * power])
            {
                if (tick >= least && tick <= greatest) yield return tick;
            }
        }
    }
}
