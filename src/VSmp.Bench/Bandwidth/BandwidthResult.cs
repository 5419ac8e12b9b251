// SPDX-License-Identifier: Apache-2.0
using System.Globalization;
using VSmp.Bench.Running;
using VSmp.Coherence;

namespace VSmp.Bench.Bandwidth;

/// <summary>A pattern, as often as it was measured.</summary>
/// <param name="pattern">Which.</param>
internal sealed class BandwidthResult(Pattern pattern) : Comparison
{
    /// <summary>Which.</summary>
    public Pattern Pattern { get; } = pattern;

    /// <summary>What bare C moves in a second, in units of 10^6 bytes.</summary>
    public double FloorMegabytes => PageNumber.Bytes / FloorMicroseconds.Median; // bytes in a microsecond

    /// <summary>What VSmp moves, likewise.</summary>
    public double OurMegabytes => PageNumber.Bytes / OurMicroseconds.Median;

    /// <summary>Whether the median is within the target; null if there is none.</summary>
    public bool? IsMet => Pattern.TargetRatio is { } ratio ? Ratio.Median <= ratio
        : Pattern.TargetMegabytes is { } megabytes ? OurMegabytes >= megabytes : null;

    /// <summary>The target, as text: of the ratio, if there is no unit.</summary>
    public string Target => Pattern.TargetRatio?.ToString("F2", CultureInfo.InvariantCulture)
        ?? (Pattern.TargetMegabytes is { } megabytes ? string.Create(CultureInfo.InvariantCulture, $"{megabytes:F0} MB/s") : "");
}
