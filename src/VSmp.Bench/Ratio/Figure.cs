// SPDX-License-Identifier: Apache-2.0
using VSmp.Bench.Fault;

namespace VSmp.Bench.Ratio;

/// <summary>What is compared: something that VSmp does, with what bare C pays for the same.</summary>
/// <param name="Name">What, in words.</param>
/// <param name="Plan">For <c>vsmp-fault</c>; null: the write of <c>vsmp-handoff</c>.</param>
/// <param name="Floor">The workload of <c>vsmp-floor</c>.</param>
/// <param name="Share">The quantile of the accesses that counts; null: all accesses together, divided by their number.</param>
/// <param name="Target">What the ratio is to be, at most.</param>
internal sealed record Figure(string Name, string? Plan, string Floor, double? Share, double Target)
{
    /// <summary>The figures that the project has set itself targets for.</summary>
    public static IReadOnlyList<Figure> All { get; } =
    [
        new("remote read fault, p50", "1:w1r0", "fetch", 0.5, 1.25),
        new("remote read fault, p99", "1:w1r0", "fetch", 0.99, 2),
        new("upgrade at a remote home, no other sharer, p50", "1:r0w0", "upgrade", 0.5, 1.5),
        new("hand-off between two writers, p50", null, "handoff", 0.5, 1.5),
        new("sequential remote read, each page", "1:w1r0>", "stream", null, 1 / 0.6),
        new("first touch at a home here, each page", "0:w0>", "touch", null, 1.3),
        new("first touch at a remote home, each page", "1:w0>", "touch", null, 1.3),
    ];

    /// <summary>The figure of one measurement, in microseconds for a page.</summary>
    /// <param name="nanoseconds">What was printed: of each access, or of all of them together.</param>
    /// <param name="pages">How many pages there were.</param>
    public double Microseconds(long[] nanoseconds, int pages) =>
        Share is { } share ? PlanRun.Quantile([.. nanoseconds], share) : nanoseconds.Sum() / 1000.0 / pages;
}
