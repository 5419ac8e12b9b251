// SPDX-License-Identifier: Apache-2.0
using System.Diagnostics;
using System.Globalization;
using System.Runtime.InteropServices;
using System.Text;
using Microsoft.Win32.SafeHandles;
using VSmp.Agent.Interop;

namespace VSmp.Agent.Keeping;

/// <summary>
/// The agent's end of the connection with the keeper that started it (docs/keeper.md). Calls are synchronous and take a round trip to a
/// process that does nothing else; what is to be done <em>later</em> is sent, and its answer comes through the reactor, as notices do. On the
/// reactor's thread, once it is watched.
/// </summary>
/// <remarks>
/// Calls answer with an errno value where the keeper refuses, and throw <see cref="IOException"/> where there is no keeper any more: it is
/// dead, does not answer, or makes no sense. <see cref="Lost"/> says that, too.
/// </remarks>
internal sealed partial class KeeperClient : IReactorHandler, IDisposable
{
    /// <summary>The environment variable in which a keeper tells its agent the number of its socket.</summary>
    public const string SocketVariable = "VSMP_KEEPER";

    private const string RestartedVariable = "VSMP_RESTARTED";

    private const int PatienceMilliseconds = 5000;

    private readonly UnixSocket _socket;
    private readonly byte[] _buffer = new byte[KeeperMessage.Bytes + KeeperMessage.MaxDataBytes + 1]; // one more than there may be
    private readonly List<int> _descriptors = [];
    private readonly Queue<KeeperMessage> _notices = new();
    private Reactor? _reactor;
    private uint _lastSerial;
    private bool _isLost;
    private bool _isLossTold;
    private bool _isDisposed;

    /// <summary>Takes over a connection with a keeper.</summary>
    /// <param name="socket">The agent's end.</param>
    public KeeperClient(UnixSocket socket) => _socket = socket;

    /// <summary>A guest that is held is dead. Raised for guests that die from now on; <see cref="List"/> tells of the others.</summary>
    public event Action<HoldKey>? GuestGone;

    /// <summary>The lease has run out, and the guests are stopped.</summary>
    public event Action<FencedNotice>? Fenced;

    /// <summary>There is a lease again, and the guests go on.</summary>
    public event Action<ResumedNotice>? Resumed;

    /// <summary>There is no keeper any more: if this agent dies now, guests that wait for pages read zeros.</summary>
    public event Action? Lost;

    /// <summary>Whether this process was started in place of another one, that was killed.</summary>
    public bool IsRestarted { get; private init; }

    /// <summary>Connects with the keeper that has started this process; null if none has.</summary>
    /// <exception cref="IOException">The environment names a socket that is none.</exception>
    public static KeeperClient? Connect()
    {
        string? text = Environment.GetEnvironmentVariable(SocketVariable);
        if (string.IsNullOrEmpty(text)) return null;
        bool isRestarted = !string.IsNullOrEmpty(Environment.GetEnvironmentVariable(RestartedVariable));
        // It is ours, and of no process that we start.
        Environment.SetEnvironmentVariable(SocketVariable, null);
        Environment.SetEnvironmentVariable(RestartedVariable, null);
        return int.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out int fd)
            ? new KeeperClient(UnixSocket.Adopt(fd, UnixSocketType.SequencedPacket)) { IsRestarted = isRestarted }
            : throw new IOException($"{SocketVariable}={text} is no descriptor");
    }

    /// <summary>The keeper: who has made the socket. Null if it is dead.</summary>
    public ProcessIdentity? Process => ProcessIdentity.Of(_socket.Peer.ProcessId);

    /// <summary>Has notices delivered on the reactor's thread. On that thread, or before it runs.</summary>
    public void Watch(Reactor reactor)
    {
        _reactor = reactor;
        reactor.Watch(_socket.Descriptor, EpollEvents.Readable, this);
        reactor.Every(PatienceMilliseconds * 1000 / 5, CheckAnswers, () => IsWaiting);
        // What came with the replies to earlier calls.
        if (_notices.Count > 0 || _isLost) reactor.Post(Deliver);
    }

    /// <summary>Has the keeper hold copies of descriptors: it has them when this returns 0, whatever happens to the agent then.</summary>
    /// <param name="key">What it is to be known by; not 0.</param>
    /// <param name="kind">What it is; says what the first descriptor must be.</param>
    /// <param name="descriptors">1 to 4, which stay the caller's.</param>
    /// <param name="data">What is to come back with it; at most 4096 bytes.</param>
    /// <param name="guest">Of a mapping: the guest, which is held already.</param>
    /// <returns>0, or EEXIST (held already), ENOENT (no such guest), ESRCH (the guest is dead), EBADF (not what the kind asks for), EXDEV (a
    /// process that the keeper cannot see), EMFILE or ENOSPC (too many).</returns>
    public int Hold(HoldKey key, HoldKind kind, ReadOnlySpan<int> descriptors, ReadOnlySpan<byte> data, HoldKey guest = default)
    {
        return Call(NewHold(key, kind, descriptors, data, guest), descriptors, data).Status;
    }

    /// <summary>Has the keeper close what it holds.</summary>
    /// <returns>0 or ENOENT.</returns>
    public int Drop(HoldKey key)
    {
        ArgumentOutOfRangeException.ThrowIfZero(key.Value);
        return Call(new KeeperMessage { Type = KeeperRequest.Drop, Key = key.Value }, default, default).Status;
    }

    /// <summary>Has the keeper close all that it holds.</summary>
    /// <returns>How many holds that were.</returns>
    public int Clear() => (int)Call(new KeeperMessage { Type = KeeperRequest.Clear }, default, default).A;

    /// <summary>Everything that is held, each hold once; the caller's to dispose.</summary>
    public List<KeptHold> List()
    {
        List<KeptHold> holds = [];
        try
        {
            uint serial = Send(new KeeperMessage { Type = KeeperRequest.List }, default, default, isAnswered: true);
            while (true)
            {
                KeeperMessage reply = AwaitReply(KeeperRequest.List, serial);
                if ((reply.Flags & KeeperMessage.End) != 0)
                {
                    return reply.A == (ulong)holds.Count ? holds : throw Lose($"it lists {holds.Count} of {reply.A} holds");
                }
                holds.Add(new KeptHold
                {
                    Key = new HoldKey(reply.Key),
                    Kind = reply.Kind,
                    Guest = new HoldKey(reply.A),
                    IsGone = (reply.Flags & KeeperMessage.IsGone) != 0,
                    Data = _buffer.AsSpan(KeeperMessage.Bytes, (int)reply.DataBytes).ToArray(),
                    Descriptors = [.. _descriptors.Select(fd => new SafeFileHandle(fd, ownsHandle: true))],
                });
                _descriptors.Clear();
            }
        }
        catch
        {
            foreach (KeptHold hold in holds) hold.Dispose();
            throw;
        }
    }

    /// <summary>This node may act until then. Does not wait for an answer.</summary>
    /// <param name="deadline">When the guests are to be stopped, if no later lease was given before.</param>
    /// <returns>0, or EAGAIN: the keeper does not read what it is sent.</returns>
    public int Lease(BootTime deadline)
    {
        ArgumentOutOfRangeException.ThrowIfNegativeOrZero(deadline.Nanoseconds);
        return TrySend(new KeeperMessage { Type = KeeperRequest.Lease, A = (ulong)deadline.Nanoseconds }, default, default);
    }

    /// <summary>This node needs no lease, as in the beginning: its guests go on, and nothing stops them.</summary>
    public void Release() => Call(new KeeperMessage { Type = KeeperRequest.Lease, Flags = KeeperMessage.Release }, default, default);

    /// <summary>Kills a guest.</summary>
    /// <param name="guest">Which.</param>
    /// <param name="reason">Why, for the keeper's log; cut where it is too long.</param>
    /// <returns>0, or ENOENT (no such guest), ESRCH (it is dead), EPERM (it is not ours to kill).</returns>
    public int Kill(HoldKey guest, string reason)
    {
        ArgumentOutOfRangeException.ThrowIfZero(guest.Value);
        byte[] text = Encoding.UTF8.GetBytes(reason);
        return Call(new KeeperMessage { Type = KeeperRequest.Kill, Key = guest.Value }, default,
            text.AsSpan(0, Math.Min(text.Length, KeeperMessage.MaxDataBytes))).Status;
    }

    /// <summary>How things are.</summary>
    public KeeperState State()
    {
        KeeperMessage reply = Call(new KeeperMessage { Type = KeeperRequest.State }, default, default);
        if (reply.DataBytes != KeeperStateRecord.Bytes) throw Lose($"its state has {reply.DataBytes} bytes");
        return KeeperState.Of(MemoryMarshal.Read<KeeperStateRecord>(_buffer.AsSpan(KeeperMessage.Bytes)));
    }

    /// <inheritdoc/>
    public void OnReady(EpollEvents events)
    {
        try
        {
            if ((events & EpollEvents.Writable) != 0) SendWaiting();
            while (TryReceive(out KeeperMessage message))
            {
                if (!TryKeepNotice(message) && !TryKeepAnswer(message)) throw Lose($"it answers what was not asked ({message.Type})");
            }
        }
        catch (IOException) when (_isLost)
        {
            // Told below.
        }
        Deliver();
    }

    /// <summary>Closes the connection; the keeper goes on holding what it holds.</summary>
    public void Dispose()
    {
        if (_isDisposed) return;
        _isDisposed = true;
        if (!_isLossTold) _reactor?.Unwatch(_socket.Descriptor);
        CloseDescriptors();
        CloseWaiting();
        _socket.Dispose();
    }

    private static KeeperMessage NewHold(HoldKey key, HoldKind kind, ReadOnlySpan<int> descriptors, ReadOnlySpan<byte> data, HoldKey guest)
    {
        ArgumentOutOfRangeException.ThrowIfZero(key.Value);
        ArgumentOutOfRangeException.ThrowIfZero(descriptors.Length);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(descriptors.Length, KeeperMessage.MaxDescriptors);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(data.Length, KeeperMessage.MaxDataBytes);
        if (kind is not (HoldKind.Guest or HoldKind.Mapping or HoldKind.Other)) throw new ArgumentOutOfRangeException(nameof(kind));
        if ((kind == HoldKind.Mapping) != (guest.Value != 0)) throw new ArgumentException("a mapping, and nothing else, has a guest", nameof(guest));
        return new KeeperMessage { Type = KeeperRequest.Hold, Key = key.Value, Kind = kind, A = guest.Value };
    }

    private KeeperMessage Call(KeeperMessage request, ReadOnlySpan<int> descriptors, ReadOnlySpan<byte> data)
    {
        uint serial = Send(request, descriptors, data, isAnswered: true);
        return AwaitReply(request.Type, serial);
    }

    private uint Send(KeeperMessage request, ReadOnlySpan<int> descriptors, ReadOnlySpan<byte> data, bool isAnswered)
    {
        // It would overtake what is still to be sent.
        if (_waiting.Count > 0) throw new InvalidOperationException("something is to be sent to the keeper before");
        if (isAnswered) request.Serial = NextSerial();
        int error = TrySend(request, descriptors, data);
        return error == 0 ? request.Serial : throw Lose($"it does not read what it is sent: {Errno.Text(error)}");
    }

    private uint NextSerial() => ++_lastSerial != 0 ? _lastSerial : ++_lastSerial; // 0 would not be answered

    /// <summary>Sends, if there is room.</summary>
    /// <returns>0 or EAGAIN.</returns>
    private int TrySend(KeeperMessage request, ReadOnlySpan<int> descriptors, ReadOnlySpan<byte> data)
    {
        Debug.Assert(_reactor is null || _reactor.IsCurrent);
        if (_isLost) throw new IOException("there is no keeper any more");
        request.Magic = KeeperMessage.MagicValue;
        request.Version = KeeperMessage.CurrentVersion;
        request.DescriptorCount = (ushort)descriptors.Length;
        request.DataBytes = (uint)data.Length;
        Span<byte> bytes = stackalloc byte[KeeperMessage.Bytes + data.Length];
        MemoryMarshal.Write(bytes, request);
        data.CopyTo(bytes[KeeperMessage.Bytes..]);
        int sent = _socket.Send(bytes, descriptors, wait: false);
        if (sent == bytes.Length) return 0;
        return sent == -Errno.EAGAIN ? Errno.EAGAIN : throw Lose(sent < 0 ? Errno.Text(-sent) : "it takes a part of a message");
    }

    private KeeperMessage AwaitReply(KeeperRequest request, uint serial)
    {
        long giveUpAt = Environment.TickCount64 + PatienceMilliseconds;
        bool isLate = false;
        while (true)
        {
            if (TryReceive(out KeeperMessage message))
            {
                if (TryKeepNotice(message) || TryKeepAnswer(message)) continue;
                if (message.Type == (request | KeeperRequest.Reply) && message.Serial == serial) return message;
                throw Lose($"it answers what was not asked ({message.Type})");
            }
            if (isLate) throw Lose("it does not answer");
            int left = (int)(giveUpAt - Environment.TickCount64);
            isLate = left <= 0; // once more: it may have been this process that stood still
            if (!isLate) _ = _socket.WaitReadable(left);
        }
    }

    /// <summary>Takes the next message, if there is one; its descriptors are in <see cref="_descriptors"/> until the next, its data in
    /// <see cref="_buffer"/>.</summary>
    private bool TryReceive(out KeeperMessage message)
    {
        message = default;
        CloseDescriptors();
        int received = _socket.Receive(_buffer, _descriptors);
        if (received == -Errno.EAGAIN) return false;
        if (received < 0) throw Lose(Errno.Text(-received));
        if (received == 0) throw Lose("it has ended");
        if (received >= KeeperMessage.Bytes) message = MemoryMarshal.Read<KeeperMessage>(_buffer);
        if (message.Magic != KeeperMessage.MagicValue || message.Version != KeeperMessage.CurrentVersion
            || message.DataBytes != received - KeeperMessage.Bytes || message.DataBytes > KeeperMessage.MaxDataBytes
            || message.DescriptorCount != _descriptors.Count)
        {
            CloseDescriptors();
            throw Lose($"it sends {received} bytes that are no message of version {KeeperMessage.CurrentVersion}");
        }
        return true;
    }

    private bool TryKeepNotice(in KeeperMessage message)
    {
        if (message.Serial != 0 || message.Type is not (KeeperRequest.Gone or KeeperRequest.Fenced or KeeperRequest.Resumed)) return false;
        _notices.Enqueue(message);
        // Handlers run on a turn of their own, not inside a call of somebody else's.
        if (_notices.Count == 1) _reactor?.Post(Deliver);
        return true;
    }

    private void Deliver()
    {
        DeliverAnswers();
        while (_notices.TryDequeue(out KeeperMessage notice))
        {
            BootTime at = new((long)notice.A);
            switch (notice.Type)
            {
                case KeeperRequest.Gone:
                    GuestGone?.Invoke(new HoldKey(notice.Key));
                    break;
                case KeeperRequest.Fenced:
                    Fenced?.Invoke(new FencedNotice(at, (int)notice.B, (int)notice.C));
                    break;
                default:
                    Resumed?.Invoke(new ResumedNotice(at, (int)notice.B));
                    break;
            }
        }
        if (!_isLost || _isLossTold || _isDisposed) return;
        _isLossTold = true;
        _reactor?.Unwatch(_socket.Descriptor);
        FailAll();
        Lost?.Invoke();
    }

    private IOException Lose(string why)
    {
        if (!_isLost)
        {
            _isLost = true;
            _socket.ShutDown();
            _reactor?.Post(Deliver);
        }
        return new IOException($"the keeper is lost: {why}");
    }

    private void CloseDescriptors()
    {
        foreach (int fd in _descriptors) _ = Libc.Close(fd);
        _descriptors.Clear();
    }
}
