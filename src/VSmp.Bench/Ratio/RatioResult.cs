// SPDX-License-Identifier: Apache-2.0
namespace VSmp.Bench.Ratio;

/// <summary>A figure, as often as it was measured.</summary>
/// <param name="figure">Which.</param>
internal sealed class RatioResult(Figure figure)
{
    private readonly List<double> _floors = [], _ours = [], _ratios = [];

    /// <summary>Which.</summary>
    public Figure Figure { get; } = figure;

    /// <summary>What bare C pays: the median of the rounds, in microseconds for a page.</summary>
    public double FloorMicroseconds => Median(_floors);

    /// <summary>What VSmp takes, likewise.</summary>
    public double OurMicroseconds => Median(_ours);

    /// <summary>The ratio of the two in one round: the median of the rounds.</summary>
    public double Ratio => Median(_ratios);

    /// <summary>The ratio in the best round.</summary>
    public double LeastRatio => _ratios.Min();

    /// <summary>The ratio in the worst round.</summary>
    public double GreatestRatio => _ratios.Max();

    /// <summary>Whether the median is within the target.</summary>
    public bool IsMet => Ratio <= Figure.Target;

    /// <summary>One more round.</summary>
    public void Add(double floorMicroseconds, double ourMicroseconds)
    {
        _floors.Add(floorMicroseconds);
        _ours.Add(ourMicroseconds);
        _ratios.Add(ourMicroseconds / floorMicroseconds);
    }

    private static double Median(List<double> values)
    {
        double[] sorted = [.. values.Order()];
        int middle = sorted.Length / 2;
        return sorted.Length % 2 == 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
    }
}
