// SPDX-License-Identifier: Apache-2.0
using VSmp.Coherence.Protocols;

namespace VSmp.Bench.Simulation;

/// <summary>What a simulated cluster has to go through. One tick stands for a microsecond.</summary>
/// <param name="Protocol">The protocol of its region.</param>
/// <param name="Seed">Decides everything that is left to chance.</param>
/// <param name="MaxNodes">Nodes at most.</param>
internal sealed record SimulationOptions(Protocol Protocol, int Seed, int MaxNodes = 64)
{
    /// <summary>Exactly so many nodes, instead of a number drawn from the seed.</summary>
    public int? Nodes { get; init; }

    /// <summary>How long faults and new accesses go on.</summary>
    public long WorkTicks { get; init; } = 4_000;

    /// <summary>How long everything may take to end once they have stopped.</summary>
    public long QuietTicks { get; init; } = 2_000_000;

    /// <summary>Whether a line is kept of everything that happens.</summary>
    public bool Traces { get; init; }
}

/// <summary>What a simulation came to.</summary>
/// <param name="Nodes">Nodes that took part.</param>
/// <param name="Ticks">Virtual time, in microseconds.</param>
/// <param name="Accesses">Accesses that ended.</param>
/// <param name="Frames">Frames delivered.</param>
/// <param name="Reconnects">Connections that broke and were made again.</param>
/// <param name="Evictions">Pages evicted.</param>
/// <param name="Fenced">Frames of another epoch that were refused.</param>
internal sealed record SimulationResult(int Nodes, long Ticks, long Accesses, long Frames, long Reconnects, long Evictions, long Fenced);

/// <summary>The simulated cluster did what it must never do.</summary>
internal sealed class SimulationException(string message) : Exception(message);
