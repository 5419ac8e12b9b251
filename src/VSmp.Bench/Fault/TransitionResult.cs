// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent.Control;

namespace VSmp.Bench.Fault;

/// <summary>What a transition took: how long, if that was measured, and per page what all agents together have sent and received for it, if
/// that was counted.</summary>
internal sealed record TransitionResult
{
    private readonly double _pages;

    /// <summary>Sums up.</summary>
    /// <param name="transition">Which.</param>
    /// <param name="pages">How many pages have made it.</param>
    /// <param name="nanoseconds">Of each page: from before the access to behind it, as the program sees it. Sorted by this. Null: not measured.</param>
    /// <param name="counters">What the agents' counters have grown by, all nodes together; null: not counted.</param>
    public TransitionResult(Transition transition, int pages, long[]? nanoseconds, FabricStatistics? counters)
    {
        Transition = transition;
        Counters = counters;
        _pages = pages;
        if (nanoseconds is null) return;
        MedianMicroseconds = PlanRun.Quantile(nanoseconds, 0.5);
        P99Microseconds = PlanRun.Quantile(nanoseconds, 0.99);
        P999Microseconds = PlanRun.Quantile(nanoseconds, 0.999);
    }

    /// <summary>Which.</summary>
    public Transition Transition { get; }

    /// <summary>Totals of all nodes, background included.</summary>
    public FabricStatistics? Counters { get; }

    public double? MedianMicroseconds { get; }

    public double? P99Microseconds { get; }

    public double? P999Microseconds { get; }

    /// <summary>Frames of coherence.</summary>
    public double? Frames => Counters?.CoherenceFramesSent / _pages;

    /// <summary>Their bytes.</summary>
    public double? Bytes => Counters?.CoherenceBytesSent / _pages;

    /// <summary>Messages on the wire that carry them.</summary>
    public double? Messages => Counters?.CoherenceMessagesSent / _pages;

    /// <summary>RDMA: of these, those whose data went along with the work request.</summary>
    public double? InlineMessages => Counters?.InlineMessagesSent / _pages;

    /// <summary>Messages that bring them.</summary>
    public double? Receives => Counters?.CoherenceMessagesReceived / _pages;

    /// <summary>RDMA: completions of <see cref="Receives"/>, and of those sends that ask for one: their share in the completed sends of all.</summary>
    public double? Completions => Receives + (Counters?.SendsCompleted * Messages / Counters?.MessagesSent);

    /// <summary>Acknowledgements that travel alone: one for each 20 ms and direction at most, however many transitions there are.</summary>
    public double? LoneAcknowledgements => Counters?.AcknowledgementsSent / _pages;

    /// <summary>Page copies of the sending nodes: from the frame to where the device or the socket takes it.</summary>
    public double? CopiesOut => Counters?.PagesCopiedOut / _pages;

    /// <summary>Page copies of the receiving nodes: from where the device or the socket has put it into the frame.</summary>
    public double? CopiesIn => Counters?.PagesCopiedIn / _pages;

    /// <summary>Half the messages that the requestor waits for, one after the other.</summary>
    public double RoundTrips => Transition.Hops / 2.0;

    /// <summary>Whether it took the frames that the protocol says, exactly; null if they were not counted.</summary>
    public bool? IsAsExpected => Counters is null ? null : Counters.CoherenceFramesSent == (ulong)(Transition.Frames * _pages);
}
