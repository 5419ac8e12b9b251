// SPDX-License-Identifier: Apache-2.0
using System.Net;
using System.Security.Cryptography;
using VSmp.Agent.Interop;
using VSmp.Coherence;
using VSmp.Coherence.Messages;
using ProtocolViolationException = VSmp.Coherence.ProtocolViolationException;

namespace VSmp.Agent.Fabric;

/// <summary>
/// A session and the connection that carries it at the moment, if one does. Of two nodes the one with the higher number connects;
/// the other waits to be connected to.
/// </summary>
internal sealed unsafe class TcpSession : IReactorHandler, IDisposable
{
    private const int MaxVectors = 16;
    private const int MaxFrameBytes = FrameHeader.Bytes + FrameHeader.MaxPayloadBytes;
    private const long FirstBackoffMicroseconds = 10_000, LastBackoffMicroseconds = 200_000;
    private const long StableMicroseconds = 1_000_000;

    /// <summary>Connections in a row that end in a violation before anything was taken: the stream itself is bad.</summary>
    private const int MaxViolationsInARow = 8;

    private readonly TcpFabric _fabric;
    private readonly byte[] _ack = GC.AllocateArray<byte>(FrameHeader.Bytes, pinned: true);
    private int _fd = -1;
    private byte* _buffer;
    private int _bufferStart;
    private int _bufferEnd;
    private int _ackLeft;
    private bool _blocked; // waits for the socket to become writable
    private bool _flushQueued;
    private bool _everConnected;
    private bool _connecting;
    private bool _overflowed;
    private bool _disposed;
    private long _since; // of the connection, or of its absence
    private long _nextAttempt;
    private long _backoff;
    private int _violationsInARow;
    private string _lastFailure = "it has never connected";

    public TcpSession(TcpFabric fabric, NodeId peer, IPEndPoint address)
    {
        _fabric = fabric;
        Address = address;
        Core = new PeerSession(fabric.Self, peer, fabric.Epoch, fabric.Chunks);
        Connects = fabric.Self.Value > peer.Value;
        _since = fabric.Reactor.NowMicroseconds;
    }

    public PeerSession Core { get; }

    public NodeId Peer => Core.Peer;

    public IPEndPoint Address { get; }

    /// <summary>Whether this side makes the connections.</summary>
    public bool Connects { get; }

    public bool IsConnected => _fd >= 0;

    /// <summary>Makes the first connection, if that is this side's part.</summary>
    public void Start()
    {
        if (!Connects) return;
        do Core.Id = BitConverter.ToUInt64(RandomNumberGenerator.GetBytes(sizeof(ulong))); while (Core.Id == 0);
        Connect();
    }

    /// <summary>The peer has made a connection to us, and is who it says.</summary>
    public void OnIncoming(IncomingPeer incoming)
    {
        if (incoming.SessionId == 0 || (Core.Id != 0 && incoming.SessionId != Core.Id))
        {
            incoming.Refuse(HandshakeStatus.OtherSession);
            return;
        }
        // The peer has given its old connection up, or it would not have made a new one.
        Drop("the peer made a new connection");
        if (!Core.Resume(incoming.LastTaken))
        {
            incoming.Refuse(HandshakeStatus.OtherSession);
            return;
        }
        Core.Id = incoming.SessionId;
        int fd = incoming.Accept(Core.LastTaken);
        if (fd >= 0) Attach(fd);
    }

    /// <summary>Gives what is queued to the socket, and an acknowledgement if one is due.</summary>
    public void Flush()
    {
        _flushQueued = false;
        if (_disposed || _fd < 0 || _blocked) return;
        Send();
        if (_fd >= 0 && !_blocked && Core.OwesAckNow) SendAck();
    }

    /// <summary>
    /// Whether the outbox may grow. Once it may not, the session is lost, even if the peer comes round: a frame was not sent.
    /// </summary>
    public bool HasRoom()
    {
        if (Core.Outbox.UnacknowledgedBytes > _fabric.Options.MaxUnacknowledgedBytes) _overflowed = true;
        return !_overflowed;
    }

    /// <summary>Has <see cref="Flush"/> called at the end of this turn.</summary>
    public void NeedsFlush()
    {
        if (_flushQueued) return;
        _flushQueued = true;
        _fabric.QueueFlush(this);
    }

    public void Tick()
    {
        long now = _fabric.Reactor.NowMicroseconds;
        if (_overflowed)
        {
            long mebibytes = _fabric.Options.MaxUnacknowledgedBytes >> 20;
            _fabric.Lose(this, $"it has not acknowledged {mebibytes} MiB: it has stopped taking frames");
        }
        else if (_fd >= 0)
        {
            if (now - _since > StableMicroseconds) _backoff = 0;
            if (!_blocked && Core.OwesAck) SendAck();
        }
        else if (now - _since > _fabric.Options.LossTimeoutMicroseconds)
        {
            _fabric.Lose(this, $"no connection for {(now - _since) / 1000} ms; {_lastFailure}");
        }
        else if (Connects && !_connecting && now >= _nextAttempt)
        {
            Connect();
        }
    }

    /// <inheritdoc/>
    public void OnReady(EpollEvents events)
    {
        if ((events & ~EpollEvents.Writable) != 0) Receive();
        if (_fd >= 0 && _blocked && (events & EpollEvents.Writable) != 0)
        {
            _blocked = false;
            _fabric.Reactor.Change(_fd, EpollEvents.Readable);
            Send();
        }
    }

    /// <summary>Tells the peer that the session ends, if that can be done without waiting.</summary>
    public void SayGoodbye(ViewNumber view)
    {
        if (_fd < 0 || _blocked) return;
        Core.Begin(0);
        Core.Commit(new FrameHeader { Type = MessageType.SessionClose, Requestor = NodeId.None }, view);
        Send();
    }

    /// <summary>Closes the connection; the session goes on.</summary>
    public void Drop(string reason)
    {
        if (_fd < 0) return;
        Close();
        _lastFailure = reason;
        _since = _fabric.Reactor.NowMicroseconds;
        if (!Connects) return;
        if (_backoff == 0) Connect();
        else RetryLater();
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        _disposed = true;
        Close();
        Core.Dispose();
    }

    private void Close()
    {
        if (_fd < 0) return;
        _fabric.Reactor.Unwatch(_fd);
        _ = Libc.Close(_fd);
        _fd = -1;
        _fabric.GiveReceiveBuffer(_buffer);
        _buffer = null;
        _bufferStart = _bufferEnd = _ackLeft = 0;
        _blocked = false;
    }

    private void Connect()
    {
        _connecting = true;
        byte[] body = new byte[Handshake.SessionBodyBytes];
        Handshake.WriteSessionBody(body, Core.Id, Core.LastTaken);
        var request = new OutgoingRequest(Address, HandshakePurpose.Session, _fabric.Epoch, _fabric.Self, Peer, body);
        _fabric.Gate.Connect(request, result => _fabric.Reactor.Post(() => OnConnected(result)));
    }

    private void OnConnected(HandshakeResult result)
    {
        _connecting = false;
        if (_disposed)
        {
            if (result.Fd >= 0) _ = Libc.Close(result.Fd);
            return;
        }
        if (result.Status != HandshakeStatus.Ok)
        {
            _lastFailure = result.Text;
            RetryLater();
            if (result.Status == HandshakeStatus.NotAMember) _fabric.Disowned?.Invoke(Peer);
            return;
        }
        (_, ulong peerLastTaken) = Handshake.ReadSessionBody(result.Body);
        if (!Core.Resume(peerLastTaken))
        {
            _ = Libc.Close(result.Fd);
            _fabric.Lose(this, "the peer cannot resume the session: it has lost its memory of it");
            return;
        }
        Attach(result.Fd);
    }

    private void RetryLater()
    {
        _backoff = Math.Clamp(_backoff * 2, FirstBackoffMicroseconds, LastBackoffMicroseconds);
        _nextAttempt = _fabric.Reactor.NowMicroseconds + _backoff;
    }

    private void Attach(int fd)
    {
        _fd = fd;
        _buffer = _fabric.TakeReceiveBuffer();
        _since = _fabric.Reactor.NowMicroseconds;
        _fabric.Reactor.Watch(fd, EpollEvents.Readable, this);
        NeedsFlush();
        if (_everConnected)
        {
            _fabric.CountReconnect();
            return;
        }
        _everConnected = true;
        _fabric.Upper.OnPeerUp(Peer);
    }

    private void Send()
    {
        if (_ackLeft > 0 && !SendAckRest()) return;
        IoVector* vectors = stackalloc IoVector[MaxVectors];
        while (Core.Outbox.UnsentBytes > 0)
        {
            // SAFETY: the vectors point at the outbox's chunks, which stay until the peer acknowledges what is in them.
            var message = new MessageVector { Vectors = vectors, VectorCount = (nuint)Core.Outbox.Gather(vectors, MaxVectors) };
            nint sent = Sockets.SendMessage(_fd, &message, Sockets.MSG_NOSIGNAL | Sockets.MSG_DONTWAIT);
            if (sent < 0)
            {
                OnSendFailed();
                return;
            }
            Core.Outbox.MarkSent(sent);
        }
    }

    private void SendAck()
    {
        if (_ackLeft > 0) return;
        // Not into the middle of a frame. Frames still to be sent carry the acknowledgement, or go first.
        if (Core.Outbox.UnsentBytes > 0)
        {
            NeedsFlush();
            return;
        }
        // SAFETY: the array is pinned for good and has a header's size.
        fixed (byte* ack = _ack) Core.WriteAck(ack, _fabric.View);
        _ackLeft = FrameHeader.Bytes;
        SendAckRest();
    }

    private bool SendAckRest()
    {
        // SAFETY: sends the part of the array that is left.
        fixed (byte* ack = _ack)
        {
            nint sent = Sockets.Send(_fd, ack + FrameHeader.Bytes - _ackLeft, (nuint)_ackLeft,
                Sockets.MSG_NOSIGNAL | Sockets.MSG_DONTWAIT);
            if (sent < 0)
            {
                OnSendFailed();
                return false;
            }
            _ackLeft -= (int)sent;
        }
        return _ackLeft == 0;
    }

    private void OnSendFailed()
    {
        int error = Errno.Last;
        if (error == Errno.EINTR)
        {
            NeedsFlush();
        }
        else if (error == Errno.EAGAIN)
        {
            _blocked = true;
            _fabric.Reactor.Change(_fd, EpollEvents.Readable | EpollEvents.Writable);
        }
        else
        {
            Drop($"sending failed: {Errno.Text(error)}");
        }
    }

    /// <summary>One read a turn, as much as fits: the next turn brings the rest, after others had their share.</summary>
    private void Receive()
    {
        // SAFETY: reads at most what is left of the buffer; Parse leaves room for a frame.
        nint got = Sockets.Receive(_fd, _buffer + _bufferEnd, (nuint)(TcpFabric.ReceiveBytes - _bufferEnd), Sockets.MSG_DONTWAIT);
        if (got > 0)
        {
            _bufferEnd += (int)got;
            Parse();
        }
        else if (got == 0)
        {
            Drop("the peer closed the connection");
        }
        else if (Errno.Last is not (Errno.EAGAIN or Errno.EINTR))
        {
            Drop($"receiving failed: {Errno.Text(Errno.Last)}");
        }
    }

    /// <summary>Takes the whole frames that are in the buffer.</summary>
    private void Parse()
    {
        int fd = _fd;
        while (_bufferEnd - _bufferStart >= FrameHeader.Bytes)
        {
            var frame = (FrameHeader*)(_buffer + _bufferStart);
            int frameBytes = PeerSession.FrameBytes(frame);
            if (frameBytes < 0)
            {
                OnViolation("bytes that are no frame");
                return;
            }
            if (_bufferEnd - _bufferStart < frameBytes) break;
            switch (Core.Take(frame))
            {
                case FrameVerdict.Deliver:
                    _violationsInARow = 0;
                    _backoff = 0;
                    _fabric.CountReceived(frameBytes);
                    if (Core.OwesAckNow) NeedsFlush();
                    if (!Deliver(frame)) return;
                    break;
                case FrameVerdict.Close:
                    _fabric.Lose(this, "it has ended the session");
                    return;
                case FrameVerdict.Gap:
                    OnViolation("a gap in the stream");
                    return;
                case FrameVerdict.Violation:
                    OnViolation(Core.Violation);
                    return;
                default:
                    break;
            }
            // The receiver may have ended this session, or broken the connection (a new one takes a later turn).
            if (_disposed || _fd != fd || _buffer == null) return;
            _bufferStart += frameBytes;
        }
        if (_bufferStart == _bufferEnd)
        {
            _bufferStart = _bufferEnd = 0;
        }
        else if (TcpFabric.ReceiveBytes - _bufferStart < 2 * MaxFrameBytes)
        {
            int left = _bufferEnd - _bufferStart;
            // SAFETY: moves what is left to the buffer's start, within the buffer.
            Buffer.MemoryCopy(_buffer + _bufferStart, _buffer, TcpFabric.ReceiveBytes, left);
            _bufferStart = 0;
            _bufferEnd = left;
        }
    }

    /// <summary>
    /// Hands a frame upwards. A frame that is in order but says what cannot be ends the session, not just the connection: sent
    /// again it would say the same, and left out it would be missed.
    /// </summary>
    private bool Deliver(FrameHeader* frame)
    {
        try
        {
            // SAFETY: the payload lies behind the header, inside the buffer, which is not reused during the call.
            _fabric.Upper.OnFrame(Peer, in *frame, new ReadOnlySpan<byte>(frame + 1, (int)frame->PayloadBytes));
            return true;
        }
        catch (ProtocolViolationException e)
        {
            _fabric.Lose(this, $"it broke the protocol: {e.Message}");
            return false;
        }
    }

    private void OnViolation(string what)
    {
        _fabric.Complain($"fabric: dropped the connection with {Peer} at {Address}: it sent {what}; the session goes on");
        if (++_violationsInARow >= MaxViolationsInARow)
        {
            _fabric.Lose(this, $"{MaxViolationsInARow} connections in a row ended in a violation; the last was {what}");
            return;
        }
        if (_backoff == 0) _backoff = FirstBackoffMicroseconds / 2;
        Drop($"it sent {what}");
    }
}
