// SPDX-License-Identifier: Apache-2.0
using System.Buffers.Binary;
using System.Net;
using System.Net.Sockets;
using System.Security.Cryptography;
using VSmp.Agent.Fabric;
using VSmp.Agent.Fabric.FaultInjection;
using VSmp.Agent.Interop;
using VSmp.Coherence;
using VSmp.Coherence.Membership;
using VSmp.Coherence.Messages;

namespace VSmp.Agent.Membership;

/// <summary>Takes a heartbeat that a member has sent.</summary>
internal delegate void HeartbeatTaker(NodeId from, in Heartbeat heartbeat);

/// <summary>
/// Heartbeats between members: a datagram each, at once or not at all, whatever carries the sessions and however much waits there. Each proves that its
/// sender knows the cluster secret; that an old one changes nothing is the membership's business. Owned by the reactor.
/// </summary>
/// <remarks>
/// <code>
///   0  "VSHB"   4  wire version   6  zero   8  epoch   12  source   14  destination   16  the heartbeat   112  MAC (16)
/// </code>
/// docs/wire-format.md. Nothing is allocated per datagram.
/// </remarks>
internal sealed unsafe class HeartbeatPort : IReactorHandler, IDisposable
{
    /// <summary>A datagram.</summary>
    public const int Bytes = HeaderBytes + HeartbeatFormat.Bytes + MacBytes;

    private const int HeaderBytes = 16, MacBytes = 16, AtOnce = 64;
    private const uint Magic = 0x42485356;

    private readonly Reactor _reactor;
    private readonly FaultPlan? _faults;
    private readonly HeartbeatTaker _taker;
    private readonly IncrementalHash _mac; // one, for one thread: nothing is allocated then
    private readonly bool _isV6;
    private readonly Dictionary<NodeId, Way> _ways = [];
    private NodeId _self;
    private Epoch _epoch;
    private int _fd;
    private int _otherFamily = -1; // to send from only

    /// <summary>Takes the gate's datagram socket over; nothing is received before <see cref="Start"/>.</summary>
    public HeartbeatPort(Reactor reactor, PeerGate gate, FaultPlan? faults, HeartbeatTaker taker)
    {
        _reactor = reactor;
        _faults = faults;
        _taker = taker;
        _mac = IncrementalHash.CreateHMAC(HashAlgorithmName.SHA256, gate.Secret.DeriveKey("VSmp heartbeat 1"));
        _fd = gate.TakeDatagrams();
        _isV6 = _fd >= 0 && Sockets.LocalAddress(_fd).AddressFamily == AddressFamily.InterNetworkV6;
    }

    /// <summary>Heartbeats that came, and were what they should be.</summary>
    public long ReceivedCount { get; private set; }

    /// <summary>Says who we are, and begins.</summary>
    public void Start(NodeId self, Epoch epoch)
    {
        if (_fd < 0) throw new InvalidOperationException("there is no socket for heartbeats: the gate does not listen");
        _self = self;
        _epoch = epoch;
        _reactor.Watch(_fd, EpollEvents.Readable, this);
    }

    /// <summary>Where a member takes heartbeats: where it listens.</summary>
    public void Add(Member member) => _ways.TryAdd(member.Id, new Way(member.Address, _isV6, _faults, member.Id));

    /// <summary>Forgets a member.</summary>
    public void Remove(NodeId node) => _ways.Remove(node);

    /// <summary>Sends, if that can be done at once.</summary>
    public void Send(NodeId to, in Heartbeat heartbeat)
    {
        if (_fd < 0 || !_ways.TryGetValue(to, out Way? way)) return;
        FaultSet? faults = _faults?.Toward(to);
        if (faults is { Partition: not null }) return;
        if (faults is { Drop: { } drop } && drop.Strikes(way.Random!)) return;
        byte* datagram = stackalloc byte[Bytes];
        var bytes = new Span<byte>(datagram, Bytes);
        Write(bytes, to, in heartbeat);
        if (faults is { Corrupt: { } corrupt } && corrupt.Strikes(way.Random!)) Fault.Flip(bytes, way.Random!);
        if (faults is { Delay: { } delay } && delay.Strikes(way.Random!))
        {
            SendLater(way, bytes.ToArray(), delay.ChooseMicroseconds(way.Random!));
            return;
        }
        Send(way, datagram);
    }

    /// <inheritdoc/>
    public void OnReady(EpollEvents events)
    {
        const int Room = Bytes + 1; // one more than there may be
        byte* datagram = stackalloc byte[Room];
        for (int i = 0; i < AtOnce && _fd >= 0; i++)
        {
            // SAFETY: receives at most what the buffer holds.
            nint got = Sockets.Receive(_fd, datagram, Room, Sockets.MSG_DONTWAIT);
            if (got < 0 && Errno.Last != Errno.ECONNREFUSED) return; // (the last is an answer to something sent)
            if (got == Bytes) Take(new ReadOnlySpan<byte>(datagram, Bytes));
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        if (_fd < 0) return;
        _reactor.Unwatch(_fd);
        _ = Libc.Close(_fd);
        if (_otherFamily >= 0) _ = Libc.Close(_otherFamily);
        _fd = _otherFamily = -1;
        _mac.Dispose();
    }

    private void Write(Span<byte> to, NodeId destination, in Heartbeat heartbeat)
    {
        BinaryPrimitives.WriteUInt32LittleEndian(to, Magic);
        BinaryPrimitives.WriteUInt16LittleEndian(to[4..], FrameHeader.CurrentVersion);
        BinaryPrimitives.WriteUInt16LittleEndian(to[6..], 0);
        BinaryPrimitives.WriteUInt32LittleEndian(to[8..], _epoch.Value);
        BinaryPrimitives.WriteUInt16LittleEndian(to[12..], _self.Value);
        BinaryPrimitives.WriteUInt16LittleEndian(to[14..], destination.Value);
        HeartbeatFormat.Write(to[HeaderBytes..], in heartbeat);
        WriteMac(to[..^MacBytes], to[^MacBytes..]);
    }

    private void WriteMac(ReadOnlySpan<byte> of, Span<byte> to)
    {
        Span<byte> mac = stackalloc byte[HMACSHA256.HashSizeInBytes];
        _mac.AppendData(of);
        _mac.GetHashAndReset(mac);
        mac[..MacBytes].CopyTo(to);
    }

    /// <summary>What is not from a member of this life of the cluster, to this node, is nothing to us.</summary>
    private void Take(ReadOnlySpan<byte> from)
    {
        if (BinaryPrimitives.ReadUInt32LittleEndian(from) != Magic || BinaryPrimitives.ReadUInt16LittleEndian(from[4..]) != FrameHeader.CurrentVersion
            || BinaryPrimitives.ReadUInt16LittleEndian(from[6..]) != 0 || BinaryPrimitives.ReadUInt32LittleEndian(from[8..]) != _epoch.Value
            || BinaryPrimitives.ReadUInt16LittleEndian(from[14..]) != _self.Value)
        {
            return;
        }
        Span<byte> mac = stackalloc byte[MacBytes];
        WriteMac(from[..^MacBytes], mac);
        if (!CryptographicOperations.FixedTimeEquals(mac, from[^MacBytes..])) return;
        var source = new NodeId(BinaryPrimitives.ReadUInt16LittleEndian(from[12..]));
        if (source == _self || !HeartbeatFormat.TryRead(from[HeaderBytes..^MacBytes], out Heartbeat heartbeat)) return;
        ReceivedCount++;
        _taker(source, in heartbeat);
    }

    private void SendLater(Way way, byte[] late, long microseconds) => _reactor.After(microseconds, () => SendLate(way, late));

    private void SendLate(Way way, byte[] late)
    {
        // SAFETY: the array is pinned during the call, and has a datagram's length.
        fixed (byte* datagram = late)
        {
            if (_fd >= 0) Send(way, datagram);
        }
    }

    private void Send(Way way, byte* datagram)
    {
        int fd = _fd;
        if (way.IsOtherFamily)
        {
            if (_otherFamily < 0) _otherFamily = Sockets.OpenDatagrams(way.Address);
            fd = _otherFamily;
        }
        // SAFETY: the array is pinned during the call. What cannot be sent now is not worth sending later.
        fixed (byte* address = way.Raw)
            _ = Sockets.SendTo(fd, datagram, Bytes, Sockets.MSG_NOSIGNAL | Sockets.MSG_DONTWAIT, address, way.RawBytes);
    }

    /// <summary>The way to a member.</summary>
    private sealed class Way
    {
        public Way(IPEndPoint address, bool fromV6, FaultPlan? faults, NodeId to)
        {
            bool isV6 = address.AddressFamily == AddressFamily.InterNetworkV6;
            Address = fromV6 && !isV6 ? new IPEndPoint(address.Address.MapToIPv6(), address.Port) : address;
            IsOtherFamily = isV6 && !fromV6;
            Raw = new byte[Sockets.AddressBytes];
            fixed (byte* raw = Raw) RawBytes = Sockets.Encode(Address, raw);
            if (faults is not null) Random = new Random(unchecked((faults.Seed * 31) + to.Value));
        }

        public IPEndPoint Address { get; }

        public bool IsOtherFamily { get; }

        public byte[] Raw { get; }

        public uint RawBytes { get; }

        public Random? Random { get; }
    }
}
