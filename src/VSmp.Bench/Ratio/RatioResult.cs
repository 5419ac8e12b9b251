// SPDX-License-Identifier: Apache-2.0
using VSmp.Bench.Running;

namespace VSmp.Bench.Ratio;

/// <summary>A figure, as often as it was measured.</summary>
/// <param name="figure">Which.</param>
internal sealed class RatioResult(Figure figure)
{
    /// <summary>Which.</summary>
    public Figure Figure { get; } = figure;

    /// <summary>What bare C pays, in microseconds for a page.</summary>
    public Sample FloorMicroseconds { get; } = new();

    /// <summary>What VSmp takes, likewise.</summary>
    public Sample OurMicroseconds { get; } = new();

    /// <summary>The ratio of the two in one round.</summary>
    public Sample Ratio { get; } = new();

    /// <summary>Whether the median is within the target.</summary>
    public bool IsMet => Ratio.Median <= Figure.Target;

    /// <summary>One more round.</summary>
    public void Add(double floorMicroseconds, double ourMicroseconds)
    {
        FloorMicroseconds.Add(floorMicroseconds);
        OurMicroseconds.Add(ourMicroseconds);
        Ratio.Add(ourMicroseconds / floorMicroseconds);
    }
}
