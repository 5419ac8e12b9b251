// SPDX-License-Identifier: Apache-2.0
using System.Net;
using System.Runtime.InteropServices;
using VSmp.Agent.Interop;
using VSmp.Coherence.Messages;

namespace VSmp.Agent.Fabric.Verbs;

using Verbs = Interop.Verbs;

/// <summary>
/// Sessions over RDMA. Peers find and authenticate each other over TCP, at the same address; then they connect by RDMA-CM, each showing a
/// proof that follows from that handshake. Nothing but the slots for receives is ever open to a peer, and those to its sends only.
/// </summary>
internal sealed unsafe class VerbsTransport : ITransport, IReactorHandler
{
    /// <summary>Time for finding an address's device, and the way to it.</summary>
    public const uint ResolveMilliseconds = 2000;

    private const int AcceptBacklog = 128, EventsPerTurn = 64;
    private const long LookAgainMicroseconds = 100_000;

    /// <summary>Receive memory of links that are gone: kept for the next ones.</summary>
    private const int KeepMemory = 16;

    private readonly Reactor _reactor;
    private readonly RateLimitedLog _log;
    private readonly string? _device;
    private readonly IPEndPoint _address;
    private readonly Dictionary<ulong, VerbsLink> _links = []; // by id
    private readonly List<VerbsLink> _expected = []; // authenticated, whose request has not come yet
    private readonly Stack<nint> _memory = new();
    private readonly List<nint> _resting = [];
    private readonly List<VerbsId> _parting = []; // whose peers are to be told when that is possible again
    private readonly VerbsChannel _channel;
    private readonly VerbsId _listener;
    private int _fd = -1;

    /// <summary>Opens RDMA at an address.</summary>
    /// <param name="reactor">Whose thread everything runs on.</param>
    /// <param name="address">The agent's address; an RDMA device must have it.</param>
    /// <param name="device">The device that must be used, or null for any.</param>
    /// <param name="log">Takes lines for the log.</param>
    /// <exception cref="IOException">It cannot be used here; the message says why and what to do.</exception>
    public VerbsTransport(Reactor reactor, IPEndPoint address, string? device, Action<string> log)
    {
        _reactor = reactor;
        _address = address;
        _device = device;
        _log = new RateLimitedLog(log);
        if (Verbs.Load() is { } why) throw new IOException($"RDMA cannot be used: {why}");
        int error = VerbsChannel.Open(out VerbsChannel? channel, out _fd);
        if (channel is null) throw new IOException($"RDMA cannot be used: the connection manager does not open ({Errno.Text(-error)}): load the kernel module rdma_ucm");
        byte* raw = stackalloc byte[Sockets.AddressBytes];
        uint rawBytes = Sockets.Encode(address, raw);
        error = channel.Listen(raw, rawBytes, AcceptBacklog, out VerbsId? listener);
        string? unsuitable = listener is null ? Explain(-error) : Unsuitable(listener);
        if (unsuitable is not null)
        {
            listener?.Dispose();
            channel.Dispose();
            throw new IOException($"RDMA cannot be used at {address}: {unsuitable}");
        }
        _channel = channel;
        _listener = listener!;
        reactor.Watch(_fd, EpollEvents.Readable, this);
        reactor.AtTurnEnd(Rested);
    }

    /// <inheritdoc/>
    public TransportKind Kind => TransportKind.Verbs;

    /// <inheritdoc/>
    public Link Create(Session session, int fd, ReadOnlySpan<byte> key) => new VerbsLink(this, session, fd, key);

    /// <inheritdoc/>
    public void OnReady(EpollEvents events)
    {
        for (int i = 0; i < EventsPerTurn; i++)
        {
            VerbsEvent happened;
            int error = Verbs.NextEvent(_channel, &happened);
            if (error is -Errno.EAGAIN or -Errno.EINTR) return;
            if (error != 0)
            {
                _log.Write($"fabric: RDMA connection events cannot be had: {Errno.Text(-error)}");
                return;
            }
            // SAFETY: on this stack.
            var data = new ReadOnlySpan<byte>(happened.PrivateData, (int)Math.Min(happened.PrivateBytes, Verbs.PrivateBytes));
            if (happened.Kind == VerbsEventKind.Requested) OnRequested(_channel.Adopt(happened.Id), data);
            else if (_links.TryGetValue(happened.Id, out VerbsLink? link)) link.OnEvent(in happened, data);
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        if (_fd < 0) return;
        _reactor.Unwatch(_fd);
        _fd = -1;
        foreach (VerbsId id in _parting) id.Dispose();
        _parting.Clear();
        _listener.Dispose();
        _channel.Dispose();
        foreach (nint memory in _resting) _memory.Push(memory);
        _resting.Clear();
        while (_memory.TryPop(out nint memory)) NativeMemory.AlignedFree((void*)memory);
    }

    /// <summary>A link wants to come up: connects, or waits for the peer to.</summary>
    internal void Begin(VerbsLink link, IPEndPoint? connectTo)
    {
        if (connectTo is null)
        {
            _expected.Add(link);
            return;
        }
        byte* raw = stackalloc byte[Sockets.AddressBytes], source = stackalloc byte[Sockets.AddressBytes];
        uint rawBytes = Sockets.Encode(connectTo, raw);
        // From our own address, so that it is our device that connects; from any port.
        bool hasOwn = !_address.Address.Equals(IPAddress.Any) && !_address.Address.Equals(IPAddress.IPv6Any);
        if (hasOwn) _ = Sockets.Encode(new IPEndPoint(_address.Address, 0), source);
        int error = _channel.Resolve(hasOwn ? source : null, raw, rawBytes, ResolveMilliseconds, out VerbsId? id);
        if (id is not null)
        {
            link.SetId(id);
            _links.Add(id.Raw, link);
            return;
        }
        // Later: the session has not finished with making the link.
        _reactor.Post(() => link.Fail($"no RDMA device reaches {connectTo}: {Errno.Text(-error)}"));
    }

    /// <summary>The link is gone.</summary>
    internal void Forget(VerbsLink link, VerbsId? id)
    {
        _expected.Remove(link);
        if (id is not null) _links.Remove(id.Raw);
    }

    /// <summary>Why an id's device cannot carry links, or is not the one that must be used; null if it can and is.</summary>
    internal string? Unsuitable(VerbsId id)
    {
        VerbsPort? port = Verbs.PortOf(id);
        if (port is null) return _device is null ? null : $"no RDMA device has that address; --transport verbs:{_device} wants {_device}";
        if (_device is not null && port.Device != _device) return $"the device there is {port.Device}; --transport verbs:{_device} wants {_device}";
        return port.Errno != 0 ? $"RDMA device {port.Device} cannot be asked for its limits: {Errno.Text(port.Errno)}" : VerbsLink.Shortfall(port);
    }

    /// <summary>Whether the port that an id uses, if it has one yet, is connected with anything.</summary>
    internal static bool IsUp(VerbsId id) => Verbs.PortOf(id) is not { Errno: 0, IsActive: false };

    /// <summary>
    /// Disposes an id when its port is up again. The connection manager tells the peer then. If it sent anything while the interface is down,
    /// soft-RoCE would put the queue pair that carries its messages into the error state, where it stays (Linux 6.12): no connection
    /// could be made or accepted any more.
    /// </summary>
    internal void DisposeWhenUp(VerbsId id)
    {
        _parting.Add(id);
        if (_parting.Count == 1) _reactor.After(LookAgainMicroseconds, Part);
    }

    /// <summary>Memory for receives and acknowledgements.</summary>
    internal nint TakeMemory() => _memory.TryPop(out nint memory)
        ? memory
        : (nint)NativeMemory.AlignedAlloc(VerbsLink.MemoryBytes, 4096);

    /// <summary>Takes memory back: it may be used again after this turn.</summary>
    internal void GiveMemory(nint memory) => _resting.Add(memory);

    private static string Explain(int error) => error switch
    {
        Errno.ENODEV or Errno.EADDRNOTAVAIL => $"{Errno.Text(error)}: no RDMA device has that address (rdma link shows which there are; soft-RoCE: vsmp up --transport rxe:INTERFACE)",
        Errno.EADDRINUSE => "another program listens there",
        _ => Errno.Text(error),
    };

    private void OnRequested(VerbsId id, ReadOnlySpan<byte> privateData)
    {
        foreach (VerbsLink link in _expected)
        {
            if (!link.ExpectedProof.IsIn(privateData)) continue;
            _expected.Remove(link);
            _links.Add(id.Raw, link);
            link.Accept(id);
            return;
        }
        _log.Write("fabric: refused an RDMA connection: whoever made it had not authenticated itself");
        _ = Verbs.Reject(id, null, 0);
        id.Dispose();
    }

    private void Part()
    {
        foreach (VerbsId id in _parting)
        {
            if (IsUp(id)) id.Dispose();
        }
        _parting.RemoveAll(id => id.IsClosed);
        if (_parting.Count > 0) _reactor.After(LookAgainMicroseconds, Part);
    }

    private void Rested()
    {
        foreach (nint memory in _resting)
        {
            if (_memory.Count < KeepMemory) _memory.Push(memory);
            else NativeMemory.AlignedFree((void*)memory);
        }
        _resting.Clear();
    }
}
