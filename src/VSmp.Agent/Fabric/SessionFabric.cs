// SPDX-License-Identifier: Apache-2.0
using System.Net;
using System.Runtime.InteropServices;
using VSmp.Agent.Fabric.FaultInjection;
using VSmp.Coherence;
using VSmp.Coherence.Messages;

namespace VSmp.Agent.Fabric;

/// <summary>Limits of a fabric.</summary>
internal sealed record FabricOptions
{
    /// <summary>The default of <see cref="CreditBytes"/>.</summary>
    public const long DefaultCreditBytes = 8L << 20;

    /// <summary>How long a peer may be without a connection before it is lost. Microseconds.</summary>
    public long LossTimeoutMicroseconds { get; init; } = 5_000_000;

    /// <summary>
    /// How long before it is connected for the first time. Microseconds. Longer: a node that joins connects to the others once it has been
    /// answered, and it is answered when all others know it.
    /// </summary>
    public long FirstConnectionTimeoutMicroseconds { get; init; } = PeerGate.JoinDeadlineMicroseconds + 5_000_000;

    /// <summary>Unacknowledged bytes to one peer beyond which it is lost: it has stopped taking frames.</summary>
    public long MaxUnacknowledgedBytes { get; init; } = 256L << 20;

    /// <summary>
    /// Unacknowledged bytes to one peer up to which new requests may be started (<see cref="IFabric.HasCredit"/>).
    /// </summary>
    public long CreditBytes { get; init; } = DefaultCreditBytes;
}

/// <summary>
/// The fabric of sessions: one link per peer, which may break and is made again, over whatever transport. Everything runs on the
/// reactor that was given; connections come authenticated from the gate.
/// </summary>
internal sealed unsafe class SessionFabric : IFabric
{
    private const long TickMicroseconds = 20_000;

    private readonly Action<string> _log;
    private readonly RateLimitedLog _complaints;
    private readonly List<Session> _sessions = [];
    private List<Session> _toFlush = [];
    private List<Session> _flushing = [];
    private readonly byte* _scrap; // frames to peers that are gone are written here and forgotten
    private Session?[] _byNode = new Session?[64];
    private Session? _begun;
    private FabricCounters _counters;
    private bool _disposed;
    private bool _holdsBack;
    private bool _hasHeldBack; // what would have left

    /// <summary>Makes the fabric; the reactor need not run yet. The agent calls <see cref="Flush"/> at each turn's end.</summary>
    /// <param name="reactor">Whose thread everything runs on.</param>
    /// <param name="gate">Where connections are authenticated.</param>
    /// <param name="transport">What carries sessions; the fabric's from now on.</param>
    /// <param name="options">Limits.</param>
    /// <param name="log">Takes lines for the log.</param>
    public SessionFabric(Reactor reactor, PeerGate gate, ITransport transport, FabricOptions options, Action<string> log)
    {
        Transport = transport;
        Reactor = reactor;
        Gate = gate;
        Options = options;
        _log = log;
        _complaints = new RateLimitedLog(log);
        _scrap = (byte*)NativeMemory.Alloc(FrameHeader.Bytes + FrameHeader.MaxPayloadBytes);
        reactor.Every(TickMicroseconds, Tick, NeedsTick);
        Chunks.Freeing = chunk =>
        {
            foreach (Session session in _sessions) session.Forget((byte*)chunk);
        };
        gate.SessionArrived = peer => reactor.Post(() => OnIncoming(peer));
    }

    /// <summary>Who gets the frames. Set before the first session.</summary>
    public IFrameReceiver? Receiver { get; set; }

    /// <summary>
    /// Hears of a peer that has proved that it knows the secret and says that this node is no member, or that it is of another life of the
    /// cluster. The session is tried on until the loss timeout.
    /// </summary>
    public Action<NodeId>? Disowned { get; set; }

    /// <summary>Hears of a peer that has ended its session in order; null: it is lost like any other.</summary>
    public Action<NodeId>? Ended { get; set; }

    /// <summary>
    /// Whether somebody else is about to decide on a peer that cannot be reached: while this says so, and for the loss timeout after, its session is
    /// not lost for want of a connection. Asked now and then; null: nobody.
    /// </summary>
    public Func<NodeId, bool>? IsInDoubt { get; set; }

    /// <summary>What is injected into links; null: nothing may be. Before the first session.</summary>
    public FaultPlan? Faults { get; init; }

    /// <summary>This node.</summary>
    public NodeId Self { get; private set; } = NodeId.None;

    /// <summary>The cluster's life; frames of another are violations.</summary>
    public Epoch Epoch { get; private set; }

    /// <summary>How often this node's agent has been started again: sessions are between agents, not nodes.</summary>
    public uint Incarnation { get; private set; }

    /// <summary>Stamped on every frame that is sent.</summary>
    public ViewNumber View { get; set; }

    /// <inheritdoc/>
    public bool HoldsBack
    {
        get => _holdsBack;
        set
        {
            _holdsBack = value;
            if (value || !_hasHeldBack) return;
            _hasHeldBack = false;
            foreach (Session session in _toFlush)
            {
                if (session.Core.Outbox.UnsentBytes >= FrameHeader.MaxPayloadBytes) session.SendNow();
            }
        }
    }

    /// <inheritdoc/>
    public FabricCounters Counters => _counters;

    internal Reactor Reactor { get; }

    internal PeerGate Gate { get; }

    internal FabricOptions Options { get; }

    internal ITransport Transport { get; }

    internal ChunkPool Chunks { get; } = new();

    internal IFrameReceiver Upper => Receiver ?? throw new InvalidOperationException("the fabric has no receiver");

    /// <summary>Says who we are, once that is known: when the cluster is founded or joined.</summary>
    public void SetIdentity(NodeId self, Epoch epoch, uint incarnation = 0)
    {
        if (_sessions.Count > 0) throw new InvalidOperationException("a fabric with sessions cannot change its identity");
        Self = self;
        Epoch = epoch;
        Incarnation = incarnation;
    }

    /// <inheritdoc/>
    public void Add(NodeId peer, IPEndPoint address) => Add(peer, address, 0);

    /// <summary>Opens a session with one of the agents that a peer has had; with an earlier or later one there is none.</summary>
    public void Add(NodeId peer, IPEndPoint address, uint incarnation)
    {
        if (Self.IsNone) throw new InvalidOperationException("the fabric has no identity yet");
        if (peer == Self || peer.IsNone) throw new ArgumentException($"there is no session with {peer}");
        if (Find(peer) is not null) return;
        if (peer.Value >= _byNode.Length) Array.Resize(ref _byNode, Math.Max(peer.Value + 1, _byNode.Length * 2));
        var session = new Session(this, peer, address, incarnation);
        _byNode[peer.Value] = session;
        _sessions.Add(session);
        session.Start();
    }

    /// <inheritdoc/>
    public void Remove(NodeId peer)
    {
        if (Find(peer) is not { } session) return;
        session.SayGoodbye(View);
        Forget(session);
    }

    /// <inheritdoc/>
    public Span<byte> Begin(NodeId peer, int payloadBytes)
    {
        if ((uint)payloadBytes > FrameHeader.MaxPayloadBytes)
            throw new ArgumentOutOfRangeException(nameof(payloadBytes), payloadBytes, "a frame cannot carry that much");
        Session? session = Find(peer);
        if (session is null || !session.HasRoom())
        {
            _begun = null;
            // SAFETY: the scrap is as large as the largest frame.
            return new Span<byte>(_scrap, payloadBytes);
        }
        _begun = session;
        session.NeedsFlush();
        return session.Core.Begin(payloadBytes);
    }

    /// <inheritdoc/>
    public void Commit(in FrameHeader header)
    {
        if (_begun is not { } session) return;
        _begun = null;
        PeerSession core = session.Core;
        long before = core.Outbox.UnacknowledgedBytes;
        core.Commit(header, View);
        _counters.CountSent(header.Type, (int)(core.Outbox.UnacknowledgedBytes - before));
        // So much is worth a system call of its own: the peer takes it in while the next is put together.
        if (core.Outbox.UnsentBytes < FrameHeader.MaxPayloadBytes) return;
        if (_holdsBack) _hasHeldBack = true;
        else session.SendNow();
    }

    /// <inheritdoc/>
    public bool HasCredit(NodeId peer) =>
        Find(peer) is { } session && session.Core.Outbox.UnacknowledgedBytes < Options.CreditBytes;

    /// <inheritdoc/>
    public void Flush()
    {
        if (_disposed) return;
        // A session may ask to be flushed again while it is flushed: in the next turn.
        (_toFlush, _flushing) = (_flushing, _toFlush);
        foreach (Session session in _flushing) session.Flush();
        _flushing.Clear();
    }

    /// <summary>Whether the peer has taken every frame that was sent to it until now; true if there is no session.</summary>
    public bool IsTakenUpTo(NodeId peer, ulong sequence) => Find(peer) is not { } session
        || session.Core.LastAcknowledged >= sequence;

    /// <summary>Whether there is a session with the peer, connected or not.</summary>
    public bool HasSession(NodeId peer) => Find(peer) is not null;

    /// <summary>Whether there is a connection to the peer right now.</summary>
    public bool IsConnected(NodeId peer) => Find(peer) is { IsConnected: true };

    /// <summary>Breaks the connection to a peer, as a network may do at any time; the session goes on over a new one.</summary>
    internal void CutConnection(NodeId peer) => Find(peer)?.Drop("the connection was cut on request");

    /// <inheritdoc/>
    public void Dispose()
    {
        if (_disposed) return;
        _disposed = true;
        Gate.SessionArrived = null;
        foreach (Session session in _sessions) session.Dispose();
        _sessions.Clear();
        Array.Clear(_byNode);
        Transport.Dispose();
        Chunks.Dispose();
        NativeMemory.Free(_scrap);
    }

    internal void QueueFlush(Session session) => _toFlush.Add(session);

    /// <summary>For sessions and links to count in, on the reactor's thread.</summary>
    internal ref FabricCounters Count => ref _counters;

    /// <summary>Says that a peer misbehaves; how often is up to the peer, so the lines are counted.</summary>
    internal void Complain(string line) => _complaints.Write(line);

    /// <summary>The peer is gone for good.</summary>
    internal void Lose(Session session, string reason)
    {
        if (Find(session.Peer) != session) return;
        Forget(session);
        _log($"fabric: lost {session.Peer} at {session.Address}: {reason}");
        Upper.OnPeerDown(session.Peer, reason);
    }

    /// <summary>The peer has ended the session.</summary>
    internal void End(Session session)
    {
        if (Ended is null)
        {
            Lose(session, "it has ended the session");
            return;
        }
        if (Find(session.Peer) != session) return;
        Forget(session);
        Ended(session.Peer);
    }

    private Session? Find(NodeId peer) => peer.Value < _byNode.Length ? _byNode[peer.Value] : null;

    private void Forget(Session session)
    {
        _byNode[session.Peer.Value] = null;
        _sessions.Remove(session);
        if (_begun == session) _begun = null;
        session.Dispose();
    }

    private void OnIncoming(IncomingPeer incoming)
    {
        Session? session = _disposed ? null : Find(incoming.Client);
        if (_disposed || Self.IsNone) incoming.Refuse(HandshakeStatus.NotReady);
        else if (incoming.Epoch != Epoch) incoming.Refuse(HandshakeStatus.OtherEpoch);
        else if (incoming.Server != Self || session is null || session.Connects) incoming.Refuse(HandshakeStatus.NotAMember);
        else if (incoming.Incarnations != (session.Incarnation, Incarnation)) incoming.Refuse(HandshakeStatus.OtherIncarnation);
        else session.OnIncoming(incoming);
    }

    // Between nodes that have nothing to say to each other there is nothing to look after.
    private bool NeedsTick()
    {
        foreach (Session session in _sessions)
        {
            if (session.NeedsTick) return true;
        }
        return false;
    }

    private void Tick()
    {
        if (_disposed) return;
        for (int i = _sessions.Count - 1; i >= 0; i--)
        {
            if (i < _sessions.Count) _sessions[i].Tick();
        }
    }
}
