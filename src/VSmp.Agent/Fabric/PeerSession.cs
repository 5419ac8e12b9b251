// SPDX-License-Identifier: Apache-2.0
using System.Runtime.CompilerServices;
using VSmp.Coherence;
using VSmp.Coherence.Messages;

namespace VSmp.Agent.Fabric;

/// <summary>What <see cref="PeerSession.Take"/> made of a frame.</summary>
internal enum FrameVerdict
{
    /// <summary>The next frame of the stream: hand it upwards.</summary>
    Deliver,
    /// <summary>It served the session only.</summary>
    Ignore,
    /// <summary>It has been taken before.</summary>
    Repeated,
    /// <summary>The peer ends the session.</summary>
    Close,
    /// <summary>Frames before it are missing: only a new connection brings them back.</summary>
    Gap,
    /// <summary>The peer does not keep to the format: the connection is not to be trusted any more.</summary>
    Violation,
}

/// <summary>
/// One side of the conversation with a peer, whatever carries it: numbers frames, keeps them until they are acknowledged, takes
/// each frame of the peer once and in order. A connection comes and goes below it.
/// </summary>
internal sealed unsafe class PeerSession(NodeId self, NodeId peer, Epoch epoch, ChunkPool pool) : IDisposable
{
    /// <summary>Unacknowledged receipts after which an acknowledgement travels alone, without waiting for the tick.</summary>
    private const int AckAfterFrames = 64, AckAfterBytes = 128 * 1024;

    private ulong _ackSent;
    private long _takenBytesSinceAck;
    private byte* _reserved;
    private int _reservedPayloadBytes;

    /// <summary>The other node.</summary>
    public NodeId Peer => peer;

    /// <summary>
    /// Drawn by the side that connects; both sides must mean the same session to resume it. 0 until it is known.
    /// </summary>
    public ulong Id { get; set; }

    /// <summary>Frames not yet acknowledged.</summary>
    public Outbox Outbox { get; } = new(pool);

    /// <summary>Whether frames that keep pages coherent are in the outbox and have not been sent yet.</summary>
    public bool HasCoherenceUnsent { get; set; }

    /// <summary>Number of the last frame that was sent or queued.</summary>
    public ulong LastCommitted { get; private set; }

    /// <summary>Number of the last frame of the peer that was taken.</summary>
    public ulong LastTaken { get; private set; }

    /// <summary>The peer's last acknowledgement.</summary>
    public ulong LastAcknowledged { get; private set; }

    /// <summary>What was wrong, after <see cref="FrameVerdict.Violation"/>.</summary>
    public string Violation { get; private set; } = "";

    /// <summary>Whether the peer waits for an acknowledgement.</summary>
    public bool OwesAck => LastTaken != _ackSent;

    /// <summary>Whether it has waited for so much that it should not wait for the tick.</summary>
    public bool OwesAckNow => LastTaken - _ackSent >= AckAfterFrames || _takenBytesSinceAck >= AckAfterBytes;

    /// <summary>Room for the payload of the next frame.</summary>
    public Span<byte> Begin(int payloadBytes)
    {
        _reserved = Outbox.Reserve(FrameHeader.Bytes + payloadBytes);
        _reservedPayloadBytes = payloadBytes;
        // SAFETY: the outbox keeps the room until the frame is acknowledged.
        unsafe
        {
            return new Span<byte>(_reserved + FrameHeader.Bytes, payloadBytes);
        }
    }

    /// <summary>Completes the frame that was begun. The caller's header says what it is; the rest is the session's.</summary>
    /// <exception cref="InvalidOperationException">The header breaks the format's rules: a defect of the layer above.</exception>
    public void Commit(in FrameHeader header, ViewNumber view)
    {
        // SAFETY: the header's room was reserved, before the payload's.
        unsafe
        {
            var frame = (FrameHeader*)_reserved;
            *frame = header;
            Stamp(frame, view);
            frame->Sequence = LastCommitted + 1;
            frame->PayloadBytes = (uint)_reservedPayloadBytes;
            if (FrameRules.Violation(*frame) is { } wrong) ThrowInvalid(header, wrong);
            int frameBytes = FrameHeader.Bytes + _reservedPayloadBytes;
            frame->Crc = Crc32C.Compute(_reserved, frameBytes);
            Outbox.Append(frameBytes);
            HasCoherenceUnsent |= MessageTypes.IsCoherence(frame->Type);
        }
        LastCommitted++;
    }

    /// <summary>Writes a frame that carries nothing but the acknowledgement; it has no number and is not kept.</summary>
    public void WriteAck(byte* buffer, ViewNumber view)
    {
        // SAFETY: the caller's buffer has a header's size.
        unsafe
        {
            var frame = (FrameHeader*)buffer;
            *frame = new FrameHeader { Type = MessageType.SessionAck, Requestor = NodeId.None };
            Stamp(frame, view);
            frame->Crc = Crc32C.Compute(buffer, FrameHeader.Bytes);
        }
    }

    /// <summary>What the first bytes of a frame say about its length; −1 if they are no frame's.</summary>
    public static int FrameBytes(FrameHeader* frame)
    {
        bool sane = frame->Magic == FrameHeader.MagicValue && frame->Version == FrameHeader.CurrentVersion
            && frame->PayloadBytes <= FrameHeader.MaxPayloadBytes;
        return sane ? FrameHeader.Bytes + (int)frame->PayloadBytes : -1;
    }

    /// <summary>
    /// Judges a frame that is there in full, <see cref="FrameBytes"/> long, and moves the session on. Its CRC field is cleared.
    /// </summary>
    public FrameVerdict Take(FrameHeader* frame)
    {
        // SAFETY: the caller's buffer holds header and payload, and is the caller's to write.
        unsafe
        {
            uint crc = frame->Crc;
            frame->Crc = 0;
            int frameBytes = FrameHeader.Bytes + (int)frame->PayloadBytes;
            if (Crc32C.Compute((byte*)frame, frameBytes) != crc) return Violate("a CRC that does not match");
            if (frame->Epoch != epoch) return Violate("a frame of another epoch");
            if (frame->Source != peer) return Violate("a frame in the name of another node");
            if (FrameRules.Violation(*frame) is { } wrong) return Violate(wrong);
            if (frame->CumulativeAck > LastAcknowledged)
            {
                if (!Acknowledge(frame->CumulativeAck)) return Violate("an acknowledgement of what was not sent");
            }
            if (frame->Type == MessageType.SessionAck)
                return frame->Sequence == 0 ? FrameVerdict.Ignore : Violate("a numbered SessionAck");
            if (frame->Sequence <= LastTaken)
                return frame->Sequence == 0 ? Violate("a frame without number") : FrameVerdict.Repeated;
            if (frame->Sequence != LastTaken + 1) return FrameVerdict.Gap;
            LastTaken++;
            _takenBytesSinceAck += frameBytes;
            return frame->Type == MessageType.SessionClose ? FrameVerdict.Close : FrameVerdict.Deliver;
        }
    }

    /// <summary>
    /// A new connection is there; the peer has taken the frames up to <paramref name="peerLastTaken"/>: the others go again.
    /// </summary>
    /// <returns>False if that cannot be: the two sides do not mean the same session.</returns>
    public bool Resume(ulong peerLastTaken)
    {
        if (peerLastTaken < LastAcknowledged || !Acknowledge(peerLastTaken)) return false;
        Outbox.Rewind();
        // The handshake told the peer what we have taken.
        _ackSent = LastTaken;
        _takenBytesSinceAck = 0;
        return true;
    }

    /// <inheritdoc/>
    public void Dispose() => Outbox.Dispose();

    private bool Acknowledge(ulong sequence)
    {
        if (sequence > LastCommitted || !Outbox.Release(sequence)) return false;
        LastAcknowledged = sequence;
        return true;
    }

    private void Stamp(FrameHeader* frame, ViewNumber view)
    {
        frame->Magic = FrameHeader.MagicValue;
        frame->Version = FrameHeader.CurrentVersion;
        frame->View = view;
        frame->Epoch = epoch;
        frame->Source = self;
        frame->Network = MessageTypes.NetworkOf(frame->Type);
        frame->CumulativeAck = LastTaken;
        frame->Crc = 0;
        _ackSent = LastTaken;
        _takenBytesSinceAck = 0;
    }

    private FrameVerdict Violate(string what)
    {
        Violation = what;
        return FrameVerdict.Violation;
    }

    [MethodImpl(MethodImplOptions.NoInlining)]
    private static void ThrowInvalid(in FrameHeader header, string wrong) =>
        throw new InvalidOperationException(
            $"a frame to be sent breaks the format ({header.Type}, {header.Count} pages, flags {header.Flags}): {wrong}");
}
