// SPDX-License-Identifier: Apache-2.0
using System.Globalization;

namespace VSmp.Agent.Cli;

/// <summary>Times and shares as people write them.</summary>
internal static class Durations
{
    private static readonly (string Unit, decimal Microseconds)[] Units = [("us", 1), ("µs", 1), ("ms", 1000), ("s", 1_000_000), ("m", 60_000_000), ("h", 3_600_000_000), ("d", 86_400_000_000)];

    /// <summary>Reads <c>20ms</c>, <c>500us</c>, <c>1.5s</c>, <c>10m</c>, <c>2h</c> or <c>1d</c>; a plain 0 needs no unit.</summary>
    /// <returns>Microseconds, or null if it is none.</returns>
    public static long? ParseMicroseconds(string text)
    {
        if (text == "0") return 0;
        foreach ((string unit, decimal microseconds) in Units.OrderByDescending(u => u.Unit.Length))
        {
            if (!text.EndsWith(unit, StringComparison.Ordinal)) continue;
            return Parse(text[..^unit.Length].TrimEnd()) is { } number && number <= long.MaxValue / microseconds ? (long)(number * microseconds) : null;
        }
        return null;
    }

    /// <summary>Reads <c>5</c>, <c>5%</c> or <c>0.1</c>: percent.</summary>
    /// <returns>The share, from 0 to 1, or null if it is none.</returns>
    public static double? ParsePercent(string text) =>
        Parse(text.EndsWith('%') ? text[..^1].TrimEnd() : text) is { } percent and <= 100 ? (double)(percent / 100) : null;

    private static decimal? Parse(string text) =>
        decimal.TryParse(text, NumberStyles.AllowDecimalPoint, CultureInfo.InvariantCulture, out decimal number) ? number : null;
}
