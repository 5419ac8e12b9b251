// SPDX-License-Identifier: Apache-2.0
using System.Net;
using System.Security.Cryptography;
using VSmp.Agent.Interop;
using VSmp.Coherence;
using VSmp.Coherence.Messages;
using ProtocolViolationException = VSmp.Coherence.ProtocolViolationException;

namespace VSmp.Agent.Fabric;

/// <summary>
/// A session and the link that carries it at the moment, if one does. Of two nodes the one with the higher number connects;
/// the other waits to be connected to.
/// </summary>
internal sealed unsafe class Session : IDisposable
{
    private const long FirstBackoffMicroseconds = 10_000, LastBackoffMicroseconds = 200_000;
    private const long StableMicroseconds = 1_000_000;

    /// <summary>
    /// Time for a link to come up once the handshake is made: the first attempt's after a link was lost; each further one has twice as
    /// long. Less than the loss timeout, for a lost packet may cost the whole attempt (the connection manager of RDMA sends its request again
    /// after more than four seconds).
    /// </summary>
    private const long LinkDeadlineMicroseconds = 1_000_000;

    /// <summary>The same for the first link of a session, which finds much that has never run.</summary>
    private const long FirstLinkDeadlineMicroseconds = 10_000_000;

    /// <summary>Links in a row that end in a violation before anything was taken or acknowledged: the stream itself is bad.</summary>
    private const int MaxViolationsInARow = 8;

    private Link? _link;
    private bool _flushQueued;
    private bool _everConnected;
    private bool _connecting;
    private bool _overflowed;
    private bool _disposed;
    private long _since; // of the link, or of its absence
    private long _downSince; // nothing has been carried since then
    private long _inDoubtUntil; // it was not for us to decide
    private long _nextAttempt;
    private long _linkDeadline = FirstLinkDeadlineMicroseconds;
    private long _backoff;
    private int _violationsInARow;
    private string _lastFailure = "it has never connected";

    public Session(SessionFabric fabric, NodeId peer, IPEndPoint address, uint incarnation)
    {
        Fabric = fabric;
        Address = address;
        Incarnation = incarnation;
        Core = new PeerSession(fabric.Self, peer, fabric.Epoch, fabric.Chunks);
        Connects = fabric.Self.Value > peer.Value;
        _since = _downSince = fabric.Reactor.NowMicroseconds;
    }

    public SessionFabric Fabric { get; }

    public PeerSession Core { get; }

    public NodeId Peer => Core.Peer;

    public IPEndPoint Address { get; }

    /// <summary>With which of the agents that the peer has had.</summary>
    public uint Incarnation { get; }

    /// <summary>Whether this side makes the connections.</summary>
    public bool Connects { get; }

    public bool IsConnected => _link is { IsUp: true };

    private bool CanSend => _link is { IsUp: true, IsBlocked: false };

    private bool CanAck => _link is { IsUp: true, CanAck: true };

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
        if (fd >= 0) Attach(fd, incoming.Key);
    }

    /// <summary>The link carries frames from now on.</summary>
    public void OnUp()
    {
        NeedsFlush();
        _linkDeadline = LinkDeadlineMicroseconds;
        if (_everConnected)
        {
            Fabric.Count.Reconnects++;
            Fabric.Complain($"fabric: connected with {Peer} again after {(Fabric.Reactor.NowMicroseconds - _downSince) / 1000} ms");
            return;
        }
        _everConnected = true;
        Fabric.Upper.OnPeerUp(Peer);
    }

    /// <summary>Gives what is queued to the link, and an acknowledgement if one is due.</summary>
    public void Flush()
    {
        _flushQueued = false;
        if (_disposed) return;
        if (CanSend) _link!.Send();
        if (CanAck && (Core.OwesAckNow || _link!.OwesAckNow)) _link!.SendAck();
    }

    /// <summary>Gives what is queued to the link, without waiting for the end of the turn.</summary>
    public void SendNow()
    {
        if (CanSend) _link!.Send();
    }

    /// <summary>
    /// Whether the outbox may grow. Once it may not, the session is lost, even if the peer comes round: a frame was not sent.
    /// </summary>
    public bool HasRoom()
    {
        if (Core.Outbox.UnacknowledgedBytes > Fabric.Options.MaxUnacknowledgedBytes) _overflowed = true;
        return !_overflowed;
    }

    /// <summary>Has <see cref="Flush"/> called at the end of this turn.</summary>
    public void NeedsFlush()
    {
        if (_flushQueued) return;
        _flushQueued = true;
        Fabric.QueueFlush(this);
    }

    /// <summary>Whether <see cref="Tick"/> may have something to do, or a turn would send what could not be sent: whenever time alone changes anything.</summary>
    public bool NeedsTick => !IsConnected || Core.OwesAck || Core.Outbox.UnsentBytes > 0 || _backoff != 0 || _overflowed;

    public void Tick()
    {
        long now = Fabric.Reactor.NowMicroseconds;
        if (_overflowed)
        {
            long mebibytes = Fabric.Options.MaxUnacknowledgedBytes >> 20;
            Fabric.Lose(this, $"it has not acknowledged {mebibytes} MiB: it has stopped taking frames");
        }
        else if (IsConnected)
        {
            if (now - _since > StableMicroseconds) _backoff = 0;
            if (CanAck && Core.OwesAck) _link!.SendAck();
        }
        else if (HasLostPatience(now))
        {
            Fabric.Lose(this, $"no connection for {(now - _downSince) / 1000} ms; {_lastFailure}");
        }
        else if (_link is not null)
        {
            if (now - _since <= _linkDeadline) return;
            _linkDeadline *= 2;
            Drop("the connection did not come up in time");
        }
        else if (Connects && !_connecting && now >= _nextAttempt)
        {
            Connect();
        }
    }

    private bool HasLostPatience(long now)
    {
        if (Fabric.IsInDoubt?.Invoke(Peer) == true) _inDoubtUntil = now;
        long patience = _everConnected ? Fabric.Options.LossTimeoutMicroseconds : Fabric.Options.FirstConnectionTimeoutMicroseconds;
        return now - Math.Max(_downSince, _inDoubtUntil) > patience;
    }

    /// <summary>Memory of an outbox is given back to the system.</summary>
    public void Forget(byte* chunk) => _link?.Forget(chunk);

    /// <summary>Tells the peer that the session ends, if that can be done without waiting.</summary>
    public void SayGoodbye(ViewNumber view)
    {
        if (!CanSend) return;
        Core.Begin(0);
        Core.Commit(new FrameHeader { Type = MessageType.SessionClose, Requestor = NodeId.None }, view);
        _link!.Send();
    }

    /// <summary>Closes the link; the session goes on.</summary>
    public void Drop(string reason)
    {
        if (_link is null) return;
        Fabric.Complain(_link.IsUp
            ? $"fabric: the connection with {Peer} at {Address} broke: {reason}; the session goes on"
            : $"fabric: no connection with {Peer} at {Address} yet: {reason}");
        DropUnsaid(reason);
    }

    private void DropUnsaid(string reason)
    {
        if (_link is null) return;
        bool wasUp = _link.IsUp;
        Close();
        _lastFailure = reason;
        _since = Fabric.Reactor.NowMicroseconds;
        if (wasUp) _downSince = _since;
        if (!Connects) return;
        if (wasUp && _backoff == 0) Connect();
        else RetryLater();
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        _disposed = true;
        Close();
        Core.Dispose();
    }

    /// <summary>Takes a whole frame that has come over a link.</summary>
    /// <returns>Whether the link still carries this session, and should go on.</returns>
    public bool OnFrame(Link link, FrameHeader* frame)
    {
        ulong acknowledged = Core.LastAcknowledged;
        switch (Core.Take(frame))
        {
            case FrameVerdict.Deliver:
                _violationsInARow = 0;
                _backoff = 0;
                Fabric.Count.CountReceived(frame->Type, PeerSession.FrameBytes(frame));
                if (Core.OwesAckNow || link.OwesAckNow) NeedsFlush();
                if (!Deliver(frame)) return false;
                break;
            case FrameVerdict.Close:
                Fabric.End(this);
                return false;
            case FrameVerdict.Repeated:
                // Links neither lose nor repeat, and a new one begins where the handshake said.
                OnViolation("a frame for the second time");
                return false;
            case FrameVerdict.Gap:
                OnViolation("a gap in the stream");
                return false;
            case FrameVerdict.Violation:
                OnViolation(Core.Violation);
                return false;
            case FrameVerdict.Ignore:
                if (frame->Type == MessageType.SessionAck) Fabric.Count.AcknowledgementsReceived++;
                if (Core.LastAcknowledged == acknowledged) break;
                // A peer that only takes sends nothing else.
                _violationsInARow = 0;
                _backoff = 0;
                break;
        }
        // The receiver may have ended this session, or broken the connection (a new one takes a later turn).
        return !_disposed && _link == link;
    }

    /// <summary>Counts a message that has taken frames out of the outbox.</summary>
    public void CountSent(bool isInline)
    {
        Fabric.Count.MessagesSent++;
        if (!Core.HasCoherenceUnsent) return;
        Fabric.Count.CoherenceMessagesSent++;
        if (isInline) Fabric.Count.InlineMessagesSent++;
        Core.HasCoherenceUnsent = Core.Outbox.UnsentBytes > 0;
    }

    /// <summary>Counts a message that has come.</summary>
    /// <param name="coherenceFramesBefore">What <see cref="FabricCounters.CoherenceFramesReceived"/> was before its frames were taken.</param>
    public void CountReceived(ulong coherenceFramesBefore)
    {
        Fabric.Count.MessagesReceived++;
        if (Fabric.Count.CoherenceFramesReceived != coherenceFramesBefore) Fabric.Count.CoherenceMessagesReceived++;
    }

    /// <summary>What came over the link was no frame, or not the next one.</summary>
    public void OnViolation(string what)
    {
        Fabric.Complain($"fabric: dropped the connection with {Peer} at {Address}: it sent {what}; the session goes on");
        if (++_violationsInARow >= MaxViolationsInARow)
        {
            Fabric.Lose(this, $"{MaxViolationsInARow} connections in a row ended in a violation; the last was {what}");
            return;
        }
        if (_backoff == 0) _backoff = FirstBackoffMicroseconds / 2;
        DropUnsaid($"it sent {what}");
    }

    private void Close()
    {
        Link? link = _link;
        _link = null;
        link?.Dispose();
    }

    private void Attach(int fd, byte[] key)
    {
        _since = Fabric.Reactor.NowMicroseconds;
        _link = Fabric.Transport.Create(this, fd, key);
        _link.Begin();
    }

    private void Connect()
    {
        _connecting = true;
        byte[] body = new byte[Handshake.SessionBodyBytes];
        Handshake.WriteSessionBody(body, Core.Id, Core.LastTaken);
        var request = new OutgoingRequest(Address, HandshakePurpose.Session, Fabric.Epoch, Fabric.Self, Peer, body)
        {
            SelfIncarnation = Fabric.Incarnation,
            PeerIncarnation = Incarnation,
        };
        Fabric.Gate.Connect(request, result => Fabric.Reactor.Post(() => OnConnected(result)));
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
            if (result.Text != _lastFailure) Fabric.Complain($"fabric: no connection with {Peer} at {Address} yet: {result.Text}");
            _lastFailure = result.Text;
            RetryLater();
            if (result.Status is HandshakeStatus.NotAMember or HandshakeStatus.OtherEpoch) Fabric.Disowned?.Invoke(Peer);
            return;
        }
        (_, ulong peerLastTaken) = Handshake.ReadSessionBody(result.Body);
        if (!Core.Resume(peerLastTaken))
        {
            _ = Libc.Close(result.Fd);
            Fabric.Lose(this, "the peer cannot resume the session: it has lost its memory of it");
            return;
        }
        Attach(result.Fd, result.Key);
    }

    private void RetryLater()
    {
        _backoff = Math.Clamp(_backoff * 2, FirstBackoffMicroseconds, LastBackoffMicroseconds);
        _nextAttempt = Fabric.Reactor.NowMicroseconds + _backoff;
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
            Fabric.Upper.OnFrame(Peer, in *frame, new ReadOnlySpan<byte>(frame + 1, (int)frame->PayloadBytes));
            return true;
        }
        catch (ProtocolViolationException e)
        {
            Fabric.Lose(this, $"it broke the protocol: {e.Message}");
            return false;
        }
    }
}
