// SPDX-License-Identifier: Apache-2.0
using System.Runtime.InteropServices;
using VSmp.Agent.Interop;
using VSmp.Coherence.Messages;

namespace VSmp.Agent.Fabric;

/// <summary>Sessions over TCP: the connection that was authenticated carries the frames, one behind the other.</summary>
internal sealed unsafe class TcpTransport : ITransport
{
    private readonly Stack<nint> _buffers = new();

    /// <inheritdoc/>
    public TransportKind Kind => TransportKind.Tcp;

    /// <inheritdoc/>
    public Link Create(Session session, int fd, ReadOnlySpan<byte> key) => new TcpLink(this, session, fd);

    /// <inheritdoc/>
    public void Dispose()
    {
        while (_buffers.TryPop(out nint buffer)) NativeMemory.AlignedFree((void*)buffer);
    }

    internal byte* TakeBuffer() =>
        _buffers.TryPop(out nint buffer) ? (byte*)buffer : (byte*)NativeMemory.AlignedAlloc(TcpLink.ReceiveBytes, 4096);

    /// <summary>Takes a buffer back. It stays mapped: a handler further up the stack may still look at a payload in it.</summary>
    internal void GiveBuffer(byte* buffer) => _buffers.Push((nint)buffer);
}

/// <summary>A TCP connection that carries a session.</summary>
internal sealed unsafe class TcpLink : Link, IReactorHandler
{
    /// <summary>The receive buffer: several frames of the largest size.</summary>
    internal const int ReceiveBytes = 512 * 1024;

    /// <summary>
    /// Time for a frame from its first byte to its last: far more than the longest takes on any network that is of use here. Its CRC says
    /// nothing before, and a length that was changed on the way may promise bytes that never come.
    /// </summary>
    private const long FrameDeadlineMicroseconds = 2_000_000;

    private const int MaxVectors = 16;
    private const int MaxFrameBytes = FrameHeader.Bytes + FrameHeader.MaxPayloadBytes;

    private readonly TcpTransport _transport;
    private readonly Reactor _reactor;
    private readonly byte[] _ack = GC.AllocateArray<byte>(FrameHeader.Bytes, pinned: true);
    private readonly Action _checkProgress;
    private int _fd;
    private byte* _buffer;
    private int _bufferStart;
    private int _bufferEnd;
    private int _ackLeft;
    private bool _blocked; // waits for the socket to become writable
    private long _unfinishedSince; // when the frame that has not come in full began
    private bool _checksProgress;

    public TcpLink(TcpTransport transport, Session session, int fd)
        : base(session)
    {
        _transport = transport;
        _reactor = session.Fabric.Reactor;
        _fd = fd;
        _buffer = transport.TakeBuffer();
        _checkProgress = CheckProgress;
    }

    /// <inheritdoc/>
    public override bool IsBlocked => _blocked || Faults is { IsHolding: true };

    /// <inheritdoc/>
    public override bool OwesAckNow => false;

    private PeerSession Core => Session.Core;

    private bool HasUnsent => _ackLeft > 0 || Core.Outbox.UnsentBytes > 0;

    /// <inheritdoc/>
    public override void Begin()
    {
        _reactor.Watch(_fd, EpollEvents.Readable, this);
        IsUp = true;
        Session.OnUp();
    }

    /// <inheritdoc/>
    public void OnReady(EpollEvents events)
    {
        if ((events & ~EpollEvents.Writable) != 0) Receive();
        if (_fd >= 0 && _blocked && (events & EpollEvents.Writable) != 0)
        {
            _blocked = false;
            _reactor.Change(_fd, EpollEvents.Readable);
            Send();
        }
    }

    /// <inheritdoc/>
    public override void Dispose()
    {
        if (_fd < 0) return;
        Faults?.Dispose();
        _reactor.Unwatch(_fd);
        _ = Libc.Close(_fd);
        _fd = -1;
        _transport.GiveBuffer(_buffer);
        _buffer = null;
    }

    /// <inheritdoc/>
    public override void Send()
    {
        if (Faults is not null && !(HasUnsent && Faults.Admits())) return;
        if (_ackLeft > 0 && !SendAckRest()) return;
        _reactor.Stages?.Mark(Stage.Stepped);
        IoVector* vectors = stackalloc IoVector[MaxVectors];
        while (Core.Outbox.UnsentBytes > 0)
        {
            // SAFETY: the vectors point at the outbox's chunks, which stay until the peer acknowledges what is in them.
            var message = new MessageVector { Vectors = vectors, VectorCount = (nuint)Core.Outbox.Gather(vectors, MaxVectors) };
            nint sent = Faults is null ? Sockets.SendMessage(_fd, &message, Sockets.MSG_NOSIGNAL | Sockets.MSG_DONTWAIT)
                : Faults.SendMessage(_fd, &message);
            if (sent < 0)
            {
                OnSendFailed();
                return;
            }
            _reactor.Stages?.Mark(Stage.Sent);
            Core.Outbox.MarkSent(sent);
            Session.CountSent(isInline: false);
        }
    }

    /// <inheritdoc/>
    public override void SendAck()
    {
        if (_ackLeft > 0) return;
        // Not into the middle of a frame. Frames still to be sent carry the acknowledgement, or go first.
        if (Core.Outbox.UnsentBytes > 0)
        {
            Session.NeedsFlush();
            return;
        }
        if (Faults is not null && !Faults.Admits()) return;
        // SAFETY: the array is pinned for good and has a header's size.
        fixed (byte* ack = _ack) Core.WriteAck(ack, Session.Fabric.View);
        _ackLeft = FrameHeader.Bytes;
        Session.Fabric.Count.AcknowledgementsSent++;
        SendAckRest();
    }

    private bool SendAckRest()
    {
        // SAFETY: sends the part of the array that is left.
        fixed (byte* ack = _ack)
        {
            byte* rest = ack + FrameHeader.Bytes - _ackLeft;
            nint sent = Faults is null ? Sockets.Send(_fd, rest, (nuint)_ackLeft, Sockets.MSG_NOSIGNAL | Sockets.MSG_DONTWAIT)
                : Faults.Send(_fd, rest, _ackLeft);
            if (sent < 0)
            {
                OnSendFailed();
                return false;
            }
            Session.Fabric.Count.MessagesSent++;
            _ackLeft -= (int)sent;
        }
        return _ackLeft == 0;
    }

    private void OnSendFailed()
    {
        int error = Errno.Last;
        if (error == Errno.EINTR)
        {
            Session.NeedsFlush();
        }
        else if (error == Errno.EAGAIN)
        {
            _blocked = true;
            _reactor.Change(_fd, EpollEvents.Readable | EpollEvents.Writable);
        }
        else
        {
            Session.Drop($"sending failed: {Errno.Text(error)}");
        }
    }

    /// <summary>One read a turn, as much as fits: the next turn brings the rest, after others had their share.</summary>
    private void Receive()
    {
        // SAFETY: reads at most what is left of the buffer; Parse leaves room for a frame.
        nint got = Sockets.Receive(_fd, _buffer + _bufferEnd, (nuint)(ReceiveBytes - _bufferEnd), Sockets.MSG_DONTWAIT);
        if (got > 0)
        {
            _reactor.Stages?.Mark(Stage.Received);
            ulong before = Session.Fabric.Count.CoherenceFramesReceived;
            _bufferEnd += (int)got;
            Parse();
            Session.CountReceived(before);
        }
        else if (got == 0)
        {
            Session.Drop("the peer closed the connection");
        }
        else if (Errno.Last is not (Errno.EAGAIN or Errno.EINTR))
        {
            Session.Drop($"receiving failed: {Errno.Text(Errno.Last)}");
        }
    }

    /// <summary>Takes the whole frames that are in the buffer.</summary>
    private void Parse()
    {
        while (_bufferEnd - _bufferStart >= FrameHeader.Bytes)
        {
            var frame = (FrameHeader*)(_buffer + _bufferStart);
            int frameBytes = PeerSession.FrameBytes(frame);
            if (frameBytes < 0)
            {
                Session.OnViolation("bytes that are no frame");
                return;
            }
            if (_bufferEnd - _bufferStart < frameBytes) break;
            if (!Session.OnFrame(this, frame)) return;
            _bufferStart += frameBytes;
            _unfinishedSince = 0;
        }
        if (_bufferStart == _bufferEnd)
        {
            _bufferStart = _bufferEnd = 0;
            return;
        }
        if (_unfinishedSince == 0) AwaitRest();
        if (ReceiveBytes - _bufferStart < 2 * MaxFrameBytes)
        {
            int left = _bufferEnd - _bufferStart;
            // SAFETY: moves what is left to the buffer's start, within the buffer.
            Buffer.MemoryCopy(_buffer + _bufferStart, _buffer, ReceiveBytes, left);
            _bufferStart = 0;
            _bufferEnd = left;
        }
    }

    private void AwaitRest()
    {
        _unfinishedSince = _reactor.NowMicroseconds;
        if (_checksProgress) return;
        _checksProgress = true;
        _reactor.After(FrameDeadlineMicroseconds, _checkProgress);
    }

    /// <summary>One look in so long, whatever was received: nothing is to be set up and taken down for every frame.</summary>
    private void CheckProgress()
    {
        _checksProgress = false;
        if (_fd < 0 || _unfinishedSince == 0) return;
        long left = _unfinishedSince + FrameDeadlineMicroseconds - _reactor.NowMicroseconds;
        if (left <= 0)
        {
            Session.OnViolation("a frame that does not end");
            return;
        }
        _checksProgress = true;
        _reactor.After(left, _checkProgress);
    }
}
