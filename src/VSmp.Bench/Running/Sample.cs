// SPDX-License-Identifier: Apache-2.0
using System.Globalization;

namespace VSmp.Bench.Running;

/// <summary>A figure as often as it was measured. It says something of the machine's noise only together with its spread.</summary>
public sealed class Sample
{
    private readonly List<double> _values = [];

    /// <summary>Each measurement, in the order of the rounds.</summary>
    public IReadOnlyList<double> Values => _values;

    /// <summary>The median.</summary>
    public double Median
    {
        get
        {
            double[] sorted = [.. _values.Order()];
            int middle = sorted.Length / 2;
            return sorted.Length % 2 == 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
        }
    }

    /// <summary>The smallest.</summary>
    public double Least => _values.Min();

    /// <summary>The greatest.</summary>
    public double Greatest => _values.Max();

    /// <summary>One more measurement.</summary>
    public void Add(double value) => _values.Add(value);

    /// <summary>From the smallest to the greatest, as text.</summary>
    public string ToSpread(int decimals) =>
        string.Create(CultureInfo.InvariantCulture, $"{Least.ToString("F" + decimals, CultureInfo.InvariantCulture)} – {Greatest.ToString("F" + decimals, CultureInfo.InvariantCulture)}");
}
