// SPDX-License-Identifier: Apache-2.0
using System.Net;
using VSmp.Coherence;
using VSmp.Coherence.Messages;
using ProtocolViolationException = VSmp.Coherence.ProtocolViolationException;

namespace VSmp.Agent.Fabric;

/// <summary>
/// The transport between agents. Everything here is called on the reactor's thread and never blocks. Frames to one peer arrive
/// in the order in which they were sent, once each, whatever happens to connections; a session ends only by <see cref="Remove"/>,
/// by the peer's leaving, or when the peer has not been reached for the loss timeout.
/// </summary>
public interface IFabric : IDisposable
{
    /// <summary>Makes a session to a peer, or does nothing if there is one.</summary>
    void Add(NodeId peer, IPEndPoint address);

    /// <summary>Ends the session to a peer and drops what it has not acknowledged.</summary>
    void Remove(NodeId peer);

    /// <summary>
    /// Room for a frame with that much payload in the peer's outbox: the caller fills the span (in unmanaged memory, zero-copy to
    /// the socket), then calls <see cref="Commit"/> before anything else on this fabric.
    /// </summary>
    /// <param name="peer">A peer with a session.</param>
    /// <param name="payloadBytes">0 … <see cref="FrameHeader.MaxPayloadBytes"/>.</param>
    Span<byte> Begin(NodeId peer, int payloadBytes);

    /// <summary>Completes the frame: fills in the session's fields of the header, the CRC, and queues it.</summary>
    void Commit(in FrameHeader header);

    /// <summary>
    /// Whether a new request to the peer may be started: it keeps up with what it was sent. Forwards and responses need no credit
    /// and are always taken; so is a request, but who starts more than he must (read-ahead, eviction ahead of need) asks first.
    /// </summary>
    bool HasCredit(NodeId peer);

    /// <summary>
    /// Whether frames that are complete must stay here for now: what they tell is not recorded yet. (Otherwise large ones may leave before <see cref="Flush"/>.)
    /// </summary>
    bool HoldsBack { get; set; }

    /// <summary>Hands queued frames to the sockets; the reactor calls it once a turn, after all handlers.</summary>
    void Flush();

    /// <summary>The session's figures, for status and statistics.</summary>
    FabricCounters Counters { get; }
}

/// <summary>Who gets what arrives. Called on the reactor's thread.</summary>
public interface IFrameReceiver
{
    /// <summary>A frame that passed the CRC and all checks of the session. The payload is valid during the call only.</summary>
    /// <exception cref="ProtocolViolationException">The frame says what cannot be: the peer is lost.</exception>
    void OnFrame(NodeId peer, in FrameHeader header, ReadOnlySpan<byte> payload);

    /// <summary>A session is there: connected for the first time.</summary>
    void OnPeerUp(NodeId peer);

    /// <summary>The peer is lost for good; frames to it are dropped from now on.</summary>
    void OnPeerDown(NodeId peer, string reason);
}

/// <summary>
/// Running totals over all sessions of a fabric. A <em>frame</em> is what the layers above sent; a <em>message</em> is what it took to carry
/// frames: a system call over TCP, a work request over RDMA. A message may hold several frames.
/// </summary>
public struct FabricCounters
{
    /// <summary>Frames handed to the fabric.</summary>
    public ulong FramesSent;
    /// <summary>Frames delivered upwards.</summary>
    public ulong FramesReceived;
    /// <summary>Bytes of those frames, headers included.</summary>
    public ulong BytesSent;
    /// <summary>Bytes of those frames, headers included.</summary>
    public ulong BytesReceived;
    /// <summary>Of the frames sent, those that keep pages coherent.</summary>
    public ulong CoherenceFramesSent;
    /// <summary>Of the frames received, those that keep pages coherent.</summary>
    public ulong CoherenceFramesReceived;
    /// <summary>Bytes of the former, headers included.</summary>
    public ulong CoherenceBytesSent;
    /// <summary>Bytes of the latter, headers included.</summary>
    public ulong CoherenceBytesReceived;
    /// <summary>Messages that carry nothing but an acknowledgement. They are not counted as frames.</summary>
    public ulong AcknowledgementsSent;
    /// <summary>Acknowledgements that came alone.</summary>
    public ulong AcknowledgementsReceived;
    /// <summary>TCP: send calls that took something. RDMA: sends posted.</summary>
    public ulong MessagesSent;
    /// <summary>TCP: receive calls that brought something. RDMA: receives completed.</summary>
    public ulong MessagesReceived;
    /// <summary>Of the messages sent, those that carry frames that keep pages coherent.</summary>
    public ulong CoherenceMessagesSent;
    /// <summary>Of the messages received, those that complete such a frame.</summary>
    public ulong CoherenceMessagesReceived;
    /// <summary>RDMA: of <see cref="CoherenceMessagesSent"/>, those whose data went along with the work request.</summary>
    public ulong InlineMessagesSent;
    /// <summary>RDMA: receives posted again after what they had brought was handled.</summary>
    public ulong ReceivesPosted;
    /// <summary>RDMA: sends whose completion was asked for, and polled.</summary>
    public ulong SendsCompleted;
    /// <summary>RDMA: looks into completion queues.</summary>
    public ulong Polls;
    /// <summary>RDMA: of these, those that found nothing.</summary>
    public ulong EmptyPolls;
    /// <summary>Connections made anew after one broke.</summary>
    public ulong Reconnects;

    /// <summary>Counts a frame that was handed to the fabric.</summary>
    internal void CountSent(MessageType type, int frameBytes)
    {
        FramesSent++;
        BytesSent += (ulong)frameBytes;
        if (!MessageTypes.IsCoherence(type)) return;
        CoherenceFramesSent++;
        CoherenceBytesSent += (ulong)frameBytes;
    }

    /// <summary>Counts a frame that is delivered.</summary>
    internal void CountReceived(MessageType type, int frameBytes)
    {
        FramesReceived++;
        BytesReceived += (ulong)frameBytes;
        if (!MessageTypes.IsCoherence(type)) return;
        CoherenceFramesReceived++;
        CoherenceBytesReceived += (ulong)frameBytes;
    }
}
