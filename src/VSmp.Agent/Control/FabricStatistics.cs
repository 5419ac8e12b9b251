// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent.Fabric;
using VSmp.Agent.Paging;

namespace VSmp.Agent.Control;

/// <summary>
/// What it took a node's agent to talk to its peers, for all runs together: counts since it started, or in the statistics of a run since
/// that began. See <see cref="FabricCounters"/> and <c>docs/statistics.md</c>.
/// </summary>
internal sealed record FabricStatistics
{
    /// <summary><c>tcp</c> or <c>verbs</c>.</summary>
    public string Transport { get; init; } = "";
    public ulong FramesSent { get; init; }
    public ulong FramesReceived { get; init; }
    public ulong BytesSent { get; init; }
    public ulong BytesReceived { get; init; }
    public ulong CoherenceFramesSent { get; init; }
    public ulong CoherenceFramesReceived { get; init; }
    public ulong CoherenceBytesSent { get; init; }
    public ulong CoherenceBytesReceived { get; init; }
    public ulong AcknowledgementsSent { get; init; }
    public ulong AcknowledgementsReceived { get; init; }
    public ulong MessagesSent { get; init; }
    public ulong MessagesReceived { get; init; }
    public ulong CoherenceMessagesSent { get; init; }
    public ulong CoherenceMessagesReceived { get; init; }
    public ulong InlineMessagesSent { get; init; }
    public ulong ReceivesPosted { get; init; }
    public ulong SendsCompleted { get; init; }
    public ulong Polls { get; init; }
    public ulong EmptyPolls { get; init; }
    public ulong Reconnects { get; init; }
    /// <inheritdoc cref="Pager.PagesCopiedOut"/>
    public ulong PagesCopiedOut { get; init; }
    /// <inheritdoc cref="Pager.PagesCopiedIn"/>
    public ulong PagesCopiedIn { get; init; }

    /// <summary>What the counters say now. On the reactor's thread.</summary>
    public static FabricStatistics Of(SessionFabric fabric, Pager pager)
    {
        FabricCounters c = fabric.Counters;
        return new FabricStatistics
        {
            Transport = fabric.Transport.Kind == TransportKind.Tcp ? "tcp" : "verbs",
            FramesSent = c.FramesSent,
            FramesReceived = c.FramesReceived,
            BytesSent = c.BytesSent,
            BytesReceived = c.BytesReceived,
            CoherenceFramesSent = c.CoherenceFramesSent,
            CoherenceFramesReceived = c.CoherenceFramesReceived,
            CoherenceBytesSent = c.CoherenceBytesSent,
            CoherenceBytesReceived = c.CoherenceBytesReceived,
            AcknowledgementsSent = c.AcknowledgementsSent,
            AcknowledgementsReceived = c.AcknowledgementsReceived,
            MessagesSent = c.MessagesSent,
            MessagesReceived = c.MessagesReceived,
            CoherenceMessagesSent = c.CoherenceMessagesSent,
            CoherenceMessagesReceived = c.CoherenceMessagesReceived,
            InlineMessagesSent = c.InlineMessagesSent,
            ReceivesPosted = c.ReceivesPosted,
            SendsCompleted = c.SendsCompleted,
            Polls = c.Polls,
            EmptyPolls = c.EmptyPolls,
            Reconnects = c.Reconnects,
            PagesCopiedOut = pager.PagesCopiedOut,
            PagesCopiedIn = pager.PagesCopiedIn,
        };
    }

    /// <summary>What has been added since.</summary>
    public FabricStatistics Since(FabricStatistics before) => Combine(before, static (now, then) => now - then);

    /// <summary>This node's and another's together.</summary>
    public FabricStatistics Plus(FabricStatistics other) => Combine(other, static (one, two) => one + two);

    private FabricStatistics Combine(FabricStatistics other, Func<ulong, ulong, ulong> combine) => this with
    {
        FramesSent = combine(FramesSent, other.FramesSent),
        FramesReceived = combine(FramesReceived, other.FramesReceived),
        BytesSent = combine(BytesSent, other.BytesSent),
        BytesReceived = combine(BytesReceived, other.BytesReceived),
        CoherenceFramesSent = combine(CoherenceFramesSent, other.CoherenceFramesSent),
        CoherenceFramesReceived = combine(CoherenceFramesReceived, other.CoherenceFramesReceived),
        CoherenceBytesSent = combine(CoherenceBytesSent, other.CoherenceBytesSent),
        CoherenceBytesReceived = combine(CoherenceBytesReceived, other.CoherenceBytesReceived),
        AcknowledgementsSent = combine(AcknowledgementsSent, other.AcknowledgementsSent),
        AcknowledgementsReceived = combine(AcknowledgementsReceived, other.AcknowledgementsReceived),
        MessagesSent = combine(MessagesSent, other.MessagesSent),
        MessagesReceived = combine(MessagesReceived, other.MessagesReceived),
        CoherenceMessagesSent = combine(CoherenceMessagesSent, other.CoherenceMessagesSent),
        CoherenceMessagesReceived = combine(CoherenceMessagesReceived, other.CoherenceMessagesReceived),
        InlineMessagesSent = combine(InlineMessagesSent, other.InlineMessagesSent),
        ReceivesPosted = combine(ReceivesPosted, other.ReceivesPosted),
        SendsCompleted = combine(SendsCompleted, other.SendsCompleted),
        Polls = combine(Polls, other.Polls),
        EmptyPolls = combine(EmptyPolls, other.EmptyPolls),
        Reconnects = combine(Reconnects, other.Reconnects),
        PagesCopiedOut = combine(PagesCopiedOut, other.PagesCopiedOut),
        PagesCopiedIn = combine(PagesCopiedIn, other.PagesCopiedIn),
    };
}
