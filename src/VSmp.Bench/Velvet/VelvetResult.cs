// SPDX-License-Identifier: Apache-2.0
using VSmp.Bench.Running;

namespace VSmp.Bench.Velvet;

/// <summary>A program, or both behind each other, with so much local memory.</summary>
/// <param name="program">Which.</param>
/// <param name="budgetPercent">How much local memory, of what it has natively at its peak.</param>
internal sealed class VelvetResult(string program, int budgetPercent)
{
    // What the project has set itself; between them, only to be faster than swap.
    private static readonly Dictionary<int, double> Targets = new() { [100] = 1.1, [50] = 1.5, [25] = 3 };

    /// <summary>Which.</summary>
    public string Program { get; } = program;

    /// <summary>How much local memory, in per cent of the native peak.</summary>
    public int BudgetPercent { get; } = budgetPercent;

    /// <summary>What the ratio is to be, at most; null: no more than with swap.</summary>
    public double? Target { get; } = Targets.TryGetValue(budgetPercent, out double target) ? target : null;

    /// <summary>Natively.</summary>
    public Sample NativeSeconds { get; } = new();

    /// <summary>On pooled memory.</summary>
    public Series Pooled { get; } = new();

    /// <summary>Natively, with the same local memory and a swap file. Empty if that could not be measured.</summary>
    public Series Swap { get; } = new();

    /// <summary>Whether the median is within the target, and no more than what swap takes.</summary>
    public bool IsMet =>
        Pooled.IsFinished && Pooled.Ratio.Median <= (Target ?? double.MaxValue) && !(Swap.IsFinished && Swap.Ratio.Median < Pooled.Ratio.Median);

    /// <summary>One more round.</summary>
    public void Add(double nativeSeconds, Outcome? pooled, Outcome? swap)
    {
        NativeSeconds.Add(nativeSeconds);
        if (pooled is not null) Pooled.Add(pooled, nativeSeconds);
        if (swap is not null) Swap.Add(swap, nativeSeconds);
    }
}
