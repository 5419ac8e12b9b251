// SPDX-License-Identifier: Apache-2.0
using System.Net;
using VSmp.Coherence;
using VSmp.Coherence.Messages;

namespace VSmp.Agent.Fabric;

/// <summary>What an in-memory network does to what it carries, each with a chance in a thousand per step.</summary>
/// <param name="CutPerMille">A connection breaks; what was under way is gone.</param>
/// <param name="DropPerMille">A frame is lost.</param>
/// <param name="DuplicatePerMille">A frame comes twice.</param>
internal readonly record struct NetworkFaults(int CutPerMille, int DropPerMille, int DuplicatePerMille);

/// <summary>
/// A network without sockets, threads or time: each <see cref="Step"/> does one thing, drawn from a seeded generator. Frames of a
/// pair stay in order unless a fault is injected; those of different pairs overtake each other as it happens.
/// </summary>
internal sealed class InMemoryNetwork(int seed, NetworkFaults faults = default) : IDisposable
{
    private readonly Random _random = new(seed);
    private readonly Dictionary<NodeId, InMemoryFabric> _fabrics = [];
    private readonly List<Link> _links = [];

    /// <summary>A node's end of the network.</summary>
    public InMemoryFabric CreateFabric(NodeId self, Epoch epoch, IFrameReceiver receiver)
    {
        var fabric = new InMemoryFabric(this, self, epoch, receiver);
        _fabrics.Add(self, fabric);
        return fabric;
    }

    /// <summary>Does one thing that can be done now.</summary>
    /// <returns>False if nothing can: all is delivered and acknowledged.</returns>
    public bool Step()
    {
        foreach (InMemoryFabric fabric in _fabrics.Values) fabric.Flush();
        int start = _random.Next(_links.Count + 1);
        for (int i = 0; i < _links.Count; i++)
        {
            if (StepLink(_links[(start + i) % _links.Count])) return true;
        }
        return false;
    }

    /// <summary>Breaks the connection between two nodes; it is made again by a later step.</summary>
    public void Cut(NodeId one, NodeId other)
    {
        if (FindLink(one, other) is { } link) Cut(link);
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        foreach (InMemoryFabric fabric in _fabrics.Values) fabric.Dispose();
    }

    internal void Connect(NodeId one, NodeId other)
    {
        if (FindLink(one, other) is null) _links.Add(new Link(one, other));
    }


    internal Queue<byte[]>? Wire(NodeId from, NodeId to) =>
        FindLink(from, to) is { IsConnected: true } link ? link.Wire(from) : null;

    private Link? FindLink(NodeId one, NodeId other) =>
        _links.Find(link => (link.One == one && link.Other == other) || (link.One == other && link.Other == one));

    private static void Cut(Link link)
    {
        link.IsConnected = false;
        link.Wire(link.One).Clear();
        link.Wire(link.Other).Clear();
    }

    private bool StepLink(Link link)
    {
        if (!_fabrics.TryGetValue(link.One, out InMemoryFabric? one)
            || !_fabrics.TryGetValue(link.Other, out InMemoryFabric? other))
            return false;
        PeerSession? oneSession = one.Find(link.Other);
        PeerSession? otherSession = other.Find(link.One);
        if (oneSession is null || otherSession is null)
        {
            if (oneSession is not null) return StepOrphan(link, one, gone: other);
            if (otherSession is not null) return StepOrphan(link, other, gone: one);
            Cut(link);
            return link.WasConnected = false;
        }
        if (!link.IsConnected)
        {
            if (!oneSession.Resume(otherSession.LastTaken) || !otherSession.Resume(oneSession.LastTaken))
                throw new InvalidOperationException($"{link.One} and {link.Other} cannot resume their session");
            link.IsConnected = link.WasConnected = true;
            one.OnConnected(link.Other);
            other.OnConnected(link.One);
            return true;
        }
        if (_random.Next(1000) < faults.CutPerMille)
        {
            Cut(link);
            return true;
        }
        bool oneFirst = _random.Next(2) == 0;
        (InMemoryFabric from, InMemoryFabric to) = oneFirst ? (one, other) : (other, one);
        if (Carry(link, from, to) || Carry(link, to, from)
            || from.SendOwedAck(to.Self, link.Wire(from.Self)) || to.SendOwedAck(from.Self, link.Wire(to.Self)))
            return true;
        // What was lost last leaves no gap that the receiver could see: the sender's patience ends, as TCP's does.
        if (oneSession.Outbox.UnacknowledgedBytes == 0 && otherSession.Outbox.UnacknowledgedBytes == 0) return false;
        Cut(link);
        return true;
    }

    /// <summary>The other side has ended the session: what it said last arrives, or the loss is noticed in the end.</summary>
    private bool StepOrphan(Link link, InMemoryFabric left, InMemoryFabric gone)
    {
        if (!link.WasConnected) return false; // the other side has yet to make its session
        if (Carry(link, gone, left)) return true;
        left.Lose(gone.Self, "no connection");
        return true;
    }

    private bool Carry(Link link, InMemoryFabric from, InMemoryFabric to)
    {
        if (!link.Wire(from.Self).TryDequeue(out byte[]? frame)) return false;
        if (_random.Next(1000) < faults.DropPerMille) return true;
        bool twice = _random.Next(1000) < faults.DuplicatePerMille;
        byte[]? copy = twice ? [.. frame] : null;
        if (!to.Deliver(from.Self, frame) || (copy is not null && !to.Deliver(from.Self, copy))) Cut(link);
        return true;
    }

    private sealed class Link(NodeId one, NodeId other)
    {
        private readonly Queue<byte[]> _fromOne = new();
        private readonly Queue<byte[]> _fromOther = new();

        public NodeId One => one;

        public NodeId Other => other;

        public bool IsConnected { get; set; }

        public bool WasConnected { get; set; }

        public Queue<byte[]> Wire(NodeId from) => from == one ? _fromOne : _fromOther;
    }
}

/// <summary>
/// A node's fabric over an <see cref="InMemoryNetwork"/>: the same sessions as over TCP, on a network that can be told to err.
/// </summary>
internal sealed unsafe class InMemoryFabric(InMemoryNetwork network, NodeId self, Epoch epoch, IFrameReceiver receiver) : IFabric
{
    private readonly SortedDictionary<ushort, PeerSession> _sessions = [];
    private readonly HashSet<ushort> _connectedOnce = [];
    private readonly ChunkPool _chunks = new();
    private readonly byte[] _scrap = GC.AllocateArray<byte>(FrameHeader.MaxPayloadBytes, pinned: true);
    private PeerSession? _begun;
    private FabricCounters _counters;

    /// <summary>This node.</summary>
    public NodeId Self => self;

    /// <summary>Stamped on every frame that is sent.</summary>
    public ViewNumber View { get; set; }

    /// <inheritdoc/>
    public bool HoldsBack { get; set; }

    /// <inheritdoc/>
    public FabricCounters Counters => _counters;

    /// <inheritdoc/>
    public void Add(NodeId peer, IPEndPoint address)
    {
        if (_sessions.TryAdd(peer.Value, new PeerSession(self, peer, epoch, _chunks))) network.Connect(self, peer);
    }

    /// <inheritdoc/>
    public void Remove(NodeId peer)
    {
        if (Find(peer) is not { } session) return;
        session.Begin(0);
        session.Commit(new FrameHeader { Type = MessageType.SessionClose, Requestor = NodeId.None }, View);
        Flush();
        Forget(peer);
    }

    /// <inheritdoc/>
    public Span<byte> Begin(NodeId peer, int payloadBytes)
    {
        _begun = Find(peer);
        return _begun is null ? _scrap.AsSpan(0, payloadBytes) : _begun.Begin(payloadBytes);
    }

    /// <inheritdoc/>
    public void Commit(in FrameHeader header)
    {
        if (_begun is not { } session) return;
        _begun = null;
        long before = session.Outbox.UnacknowledgedBytes;
        session.Commit(header, View);
        _counters.CountSent(header.Type, (int)(session.Outbox.UnacknowledgedBytes - before));
    }

    /// <inheritdoc/>
    public bool HasCredit(NodeId peer) => Find(peer) is { } session
        && session.Outbox.UnacknowledgedBytes < FabricOptions.DefaultCreditBytes;

    /// <inheritdoc/>
    public void Flush()
    {
        foreach (PeerSession session in _sessions.Values)
        {
            if (network.Wire(self, session.Peer) is not { } wire) continue;
            // SAFETY: the outbox keeps the frame until it is acknowledged, at the earliest in a later step.
            for (FrameHeader* frame; (frame = session.Outbox.NextUnsent()) != null;)
                wire.Enqueue(new ReadOnlySpan<byte>(frame, FrameHeader.Bytes + (int)frame->PayloadBytes).ToArray());
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        foreach (PeerSession session in _sessions.Values) session.Dispose();
        _sessions.Clear();
        _chunks.Dispose();
    }

    internal PeerSession? Find(NodeId peer) => _sessions.GetValueOrDefault(peer.Value);

    internal void OnConnected(NodeId peer)
    {
        if (_connectedOnce.Add(peer.Value)) receiver.OnPeerUp(peer);
        else _counters.Reconnects++;
    }

    /// <summary>Puts an acknowledgement on the wire if the peer waits for one.</summary>
    internal bool SendOwedAck(NodeId peer, Queue<byte[]> wire)
    {
        if (Find(peer) is not { OwesAck: true } session) return false;
        byte[] ack = new byte[FrameHeader.Bytes];
        // SAFETY: the array is pinned during the call.
        fixed (byte* bytes = ack) session.WriteAck(bytes, View);
        wire.Enqueue(ack);
        return true;
    }

    /// <summary>Takes bytes from the wire.</summary>
    /// <returns>False if the connection is not worth keeping.</returns>
    internal bool Deliver(NodeId peer, byte[] bytes)
    {
        if (Find(peer) is not { } session) return true;
        // SAFETY: the array is pinned during the call; its length is checked against what the frame says of itself.
        fixed (byte* raw = bytes)
        {
            var frame = (FrameHeader*)raw;
            if (bytes.Length < FrameHeader.Bytes || PeerSession.FrameBytes(frame) != bytes.Length) return false;
            switch (session.Take(frame))
            {
                case FrameVerdict.Deliver:
                    _counters.CountReceived(frame->Type, bytes.Length);
                    receiver.OnFrame(peer, in *frame, new ReadOnlySpan<byte>(frame + 1, (int)frame->PayloadBytes));
                    return true;
                case FrameVerdict.Close:
                    Lose(peer, "it has ended the session");
                    return true;
                default:
                    return false;
                case FrameVerdict.Ignore or FrameVerdict.Repeated:
                    return true;
            }
        }
    }

    internal void Lose(NodeId peer, string reason)
    {
        Forget(peer);
        receiver.OnPeerDown(peer, reason);
    }

    private void Forget(NodeId peer)
    {
        if (!_sessions.Remove(peer.Value, out PeerSession? session)) return;
        if (_begun == session) _begun = null;
        _connectedOnce.Remove(peer.Value);
        session.Dispose();
    }
}
