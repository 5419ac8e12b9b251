// SPDX-License-Identifier: Apache-2.0
using VSmp.Coherence.Protocols;

namespace VSmp.Bench.Simulation;

/// <summary>What a simulated cluster has to go through. One tick stands for a microsecond.</summary>
/// <param name="Protocol">The protocol of its region.</param>
/// <param name="Seed">Decides everything that is left to chance.</param>
/// <param name="MaxNodes">Nodes at most.</param>
internal sealed record SimulationOptions(Protocol Protocol, int Seed, int MaxNodes = 64)
{
    /// <summary>Options for a cluster that loses nodes: it has more time, since it takes some until a node is known to be lost.</summary>
    public static SimulationOptions WithLosses(Protocol protocol, int seed) =>
        new(protocol, seed) { Losses = true, WorkTicks = 16_000, QuietTicks = 200_000 };

    /// <summary>
    /// What a seed stands for: one of the protocols, and in every second round of them a cluster that loses nodes; in every second of these agents are killed, too.
    /// </summary>
    public static SimulationOptions OfSeed(IReadOnlyList<Protocol> protocols, int seed)
    {
        Protocol protocol = protocols[(int)((uint)seed % protocols.Count)];
        long round = (uint)seed / protocols.Count;
        return round % 2 == 0 ? new SimulationOptions(protocol, seed) : WithLosses(protocol, seed) with { Restarts = round % 4 == 3 };
    }

    /// <summary>Exactly so many nodes, instead of a number drawn from the seed.</summary>
    public int? Nodes { get; init; }

    /// <summary>Whether nodes are lost, cut off and join, and some of the memory is mirrored.</summary>
    public bool Losses { get; init; }

    /// <summary>Whether agents are killed, and others go on with what they have recorded; where nodes are lost.</summary>
    public bool Restarts { get; init; }

    /// <summary>How long faults and new accesses go on.</summary>
    public long WorkTicks { get; init; } = 4_000;

    /// <summary>How long everything may take to end once they have stopped.</summary>
    public long QuietTicks { get; init; } = 2_000_000;

    /// <summary>Bugs to be found; none in production code, always.</summary>
    public SimulationBugs Planted { get; init; }

    /// <summary>Whether a line is kept of everything that happens.</summary>
    public bool Traces { get; init; }
}

/// <summary>
/// Bugs in what only the simulator has: sessions, time, views, budgets. Those of a protocol itself are planted in its table.
/// </summary>
[Flags]
internal enum SimulationBugs
{
    /// <summary>None.</summary>
    None = 0,
    /// <summary>A session takes frames of a former life of the cluster.</summary>
    EpochNotChecked = 1,
    /// <summary>A session hands on a frame that it has taken before.</summary>
    DuplicatesTaken = 2,
    /// <summary>A session counts the frames that come instead of comparing their numbers: a missing one is not noticed.</summary>
    GapsNotNoticed = 4,
    /// <summary>After a reconnect, a session forgets the first of the frames to be replayed.</summary>
    ReplayForgetsOne = 8,
    /// <summary>After a view change, frames that were sent in the former view are dropped.</summary>
    OldViewDropped = 16,
    /// <summary>A view change loses a request that waits for a busy page.</summary>
    QueueLostByViewChange = 32,
    /// <summary>Homes go on counting on the nodes of a former, smaller view.</summary>
    NodesOfFormerView = 64,
    /// <summary>A node that has no frame left takes one beyond its budget.</summary>
    BudgetOverrun = 128,
    /// <summary>Who waits for a frame is not tried again when one is free.</summary>
    StarvedForgotten = 256,
    /// <summary>A hold is ended only if nothing waits for its end.</summary>
    HoldNeverEnds = 512,
    /// <summary>A directory entry that has become coarse names only who came since.</summary>
    CoarseForgetsSharers = 1024,
    /// <summary>Of data for a run of pages, only the first page's are taken.</summary>
    RunCutShort = 2048,
    /// <summary>A mirror becomes home though the home is left.</summary>
    TwoHomes = 4096,
    /// <summary>What was sent before directories were rebuilt is taken afterwards as well.</summary>
    OldGenerationServed = 8192,
    /// <summary>A home takes what it has sent to the mirror for being there.</summary>
    MirrorAckedEarly = 16384,
    /// <summary>Guests go on when the lease of their node has run out.</summary>
    LeaseIgnored = 32768,
}

/// <summary>What a simulation came to.</summary>
/// <param name="Nodes">Nodes that took part.</param>
/// <param name="Ticks">Virtual time, in microseconds.</param>
/// <param name="Accesses">Accesses that ended.</param>
/// <param name="Frames">Frames delivered.</param>
/// <param name="Reconnects">Connections that broke and were made again.</param>
/// <param name="Evictions">Pages evicted.</param>
/// <param name="Fenced">Frames of another epoch that were refused.</param>
internal sealed record SimulationResult(int Nodes, long Ticks, long Accesses, long Frames, long Reconnects, long Evictions, long Fenced)
{
    /// <summary>Nodes that were lost: dead, or excluded while they were cut off.</summary>
    public int NodesLost { get; init; }

    /// <summary>Recoveries of the region that came to their end.</summary>
    public int Recoveries { get; init; }

    /// <summary>Agents that were killed.</summary>
    public int AgentsKilled { get; init; }

    /// <summary>Pages that were lost, as they had to be.</summary>
    public int PagesLost { get; init; }
}

/// <summary>How a simulation ended.</summary>
/// <param name="Result">What it came to; null if something is wrong.</param>
/// <param name="Failure">What is wrong; null if nothing is.</param>
/// <param name="Ticks">Virtual time at the end, in microseconds.</param>
/// <param name="Trace">What happened, if it was asked for.</param>
internal sealed record SimulationOutcome(SimulationResult? Result, string? Failure, long Ticks, IReadOnlyList<string> Trace);

/// <summary>The simulated cluster did what it must never do.</summary>
internal sealed class SimulationException(string message) : Exception(message);
