// SPDX-License-Identifier: Apache-2.0
namespace VSmp.Bench.Running;

/// <summary>What VSmp takes for something beside what bare C pays for it, as often as the two were measured together.</summary>
internal abstract class Comparison
{
    /// <summary>What bare C pays, in microseconds for a page.</summary>
    public Sample FloorMicroseconds { get; } = new();

    /// <summary>What VSmp takes, likewise.</summary>
    public Sample OurMicroseconds { get; } = new();

    /// <summary>The ratio of the two in one round.</summary>
    public Sample Ratio { get; } = new();

    /// <summary>One more round.</summary>
    public void Add(double floorMicroseconds, double ourMicroseconds)
    {
        FloorMicroseconds.Add(floorMicroseconds);
        OurMicroseconds.Add(ourMicroseconds);
        Ratio.Add(ourMicroseconds / floorMicroseconds);
    }
}
