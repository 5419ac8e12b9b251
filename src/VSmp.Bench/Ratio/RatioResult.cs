// SPDX-License-Identifier: Apache-2.0
using VSmp.Bench.Running;

namespace VSmp.Bench.Ratio;

/// <summary>A figure, as often as it was measured.</summary>
/// <param name="figure">Which.</param>
internal sealed class RatioResult(Figure figure) : Comparison
{
    /// <summary>Which.</summary>
    public Figure Figure { get; } = figure;

    /// <summary>Whether the median is within the target.</summary>
    public bool IsMet => Ratio.Median <= Figure.Target;
}
