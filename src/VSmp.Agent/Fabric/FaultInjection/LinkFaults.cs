// SPDX-License-Identifier: Apache-2.0
using System.Runtime.InteropServices;
using VSmp.Agent.Interop;
using VSmp.Coherence.Messages;

namespace VSmp.Agent.Fabric.FaultInjection;

/// <summary>
/// The faults between a link and its socket or queue pair: the link asks before it sends, and what may not go yet stays in the outbox, in
/// order. Owned by the reactor.
/// </summary>
/// <remarks>
/// <code>
///   message ──► dropped?     the link stands still, then breaks            (the session replays)
///          ├──► late?        the link stands still, then sends it and what has come behind it
///          ├──► partitioned? the link stands still until healed, or breaks as the kernel would break it
///          └──► corrupted?   a copy goes out, with a bit flipped; the outbox stays as it is
/// </code>
/// </remarks>
internal sealed unsafe class LinkFaults : IDisposable
{
    /// <summary>A message that is corrupted: not more than the longest frame.</summary>
    private const int PieceBytes = FrameHeader.Bytes + FrameHeader.MaxPayloadBytes;

    private readonly FaultPlan _plan;
    private readonly Session _session;
    private readonly Reactor _reactor;
    private FaultSet _faults = FaultSet.None;
    private Random _random;
    private byte* _copy;
    private int _seed;
    private int _holdNumber, _partitionNumber; // tell timers whose time has passed from the one that counts
    private bool _isLate, _isStalled, _isPartitioned;
    private bool _hasWaited; // the next message has had its delay
    private bool _isDisposed;

    /// <summary>Begins with what is in force.</summary>
    public LinkFaults(FaultPlan plan, Session session)
    {
        _plan = plan;
        _session = session;
        _reactor = session.Fabric.Reactor;
        _seed = plan.Seed;
        _random = plan.NewRandom(session.Peer);
        plan.Changed += OnChanged;
        OnChanged();
    }

    /// <summary>Whether nothing goes out for now. It ends by itself: the session is flushed then, or its connection broken.</summary>
    public bool IsHolding => _isLate || _isStalled || _isPartitioned;

    /// <summary>Whether what there is to be sent may go now. Asked once for each message, it chooses what happens to it.</summary>
    public bool Admits()
    {
        if (_faults.IsNone) return !IsHolding;
        if (IsHolding) return false;
        if (_hasWaited)
        {
            _hasWaited = false;
            return true;
        }
        if (_faults.Drop is { } drop && drop.Strikes(_random))
        {
            _isStalled = true;
            _reactor.After(_plan.StallMicroseconds, () => Break("a message was lost (injected)"));
            return false;
        }
        if (_faults.Delay is { } delay && delay.Strikes(_random))
        {
            _isLate = true;
            int number = ++_holdNumber;
            _reactor.After(delay.ChooseMicroseconds(_random), () => EndDelay(number));
            return false;
        }
        return true;
    }

    /// <summary>As <see cref="Sockets.Send"/>.</summary>
    public nint Send(int fd, byte* bytes, int byteCount)
    {
        if (_faults.Corrupt is null) return Sockets.Send(fd, bytes, (nuint)byteCount, Sockets.MSG_NOSIGNAL | Sockets.MSG_DONTWAIT);
        // SAFETY: the copy has room for a piece, and that many bytes are there.
        int pieceBytes = Math.Min(byteCount, PieceBytes);
        Buffer.MemoryCopy(bytes, Copy(), PieceBytes, pieceBytes);
        return SendCopy(fd, pieceBytes);
    }

    /// <summary>As <see cref="Sockets.SendMessage"/>; perhaps not all of it at once.</summary>
    public nint SendMessage(int fd, MessageVector* message)
    {
        if (_faults.Corrupt is null) return Sockets.SendMessage(fd, message, Sockets.MSG_NOSIGNAL | Sockets.MSG_DONTWAIT);
        byte* copy = Copy();
        int bytes = 0;
        for (nuint i = 0; i < message->VectorCount && bytes < PieceBytes; i++)
        {
            int count = (int)Math.Min(message->Vectors[i].Bytes, (nuint)(PieceBytes - bytes));
            // SAFETY: the vector has that many bytes, and the copy that much room.
            Buffer.MemoryCopy(message->Vectors[i].Base, copy + bytes, PieceBytes - bytes, count);
            bytes += count;
        }
        return SendCopy(fd, bytes);
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        if (_isDisposed) return;
        _isDisposed = true;
        _plan.Changed -= OnChanged;
        NativeMemory.Free(_copy);
        _copy = null;
    }

    private void OnChanged()
    {
        _faults = _plan.Toward(_session.Peer);
        if (_seed != _plan.Seed)
        {
            _seed = _plan.Seed;
            _random = _plan.NewRandom(_session.Peer);
        }
        if (_isLate && _faults.Delay is null) EndDelay(_holdNumber);
        if (_faults.Partition is { } partition)
        {
            if (_isPartitioned) return;
            _isPartitioned = true;
            int number = ++_partitionNumber;
            partition.Happened();
            _reactor.After(_plan.CutMicroseconds, () =>
            {
                if (_isPartitioned && number == _partitionNumber) Break("nothing gets through (injected)");
            });
        }
        else if (_isPartitioned)
        {
            _isPartitioned = false;
            _session.NeedsFlush();
        }
    }

    private void EndDelay(int number)
    {
        if (_isDisposed || number != _holdNumber || !_isLate) return;
        _isLate = false;
        _hasWaited = true;
        _session.NeedsFlush();
    }

    /// <summary>The link is the session's only one as long as this is not disposed of.</summary>
    private void Break(string why)
    {
        if (!_isDisposed) _session.Drop(why);
    }

    private byte* Copy() => _copy is null ? _copy = (byte*)NativeMemory.Alloc(PieceBytes) : _copy;

    private nint SendCopy(int fd, int bytes)
    {
        // SAFETY: the copy holds so many bytes.
        if (_faults.Corrupt!.Strikes(_random)) Fault.Flip(new Span<byte>(_copy, bytes), _random);
        return Sockets.Send(fd, _copy, (nuint)bytes, Sockets.MSG_NOSIGNAL | Sockets.MSG_DONTWAIT);
    }
}
