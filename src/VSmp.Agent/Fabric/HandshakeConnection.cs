// SPDX-License-Identifier: Apache-2.0
using System.Buffers.Binary;
using System.Net;
using VSmp.Agent.Fabric.FaultInjection;
using VSmp.Agent.Interop;
using VSmp.Coherence;
using VSmp.Coherence.Messages;

namespace VSmp.Agent.Fabric;

/// <summary>
/// A connection that is not authenticated yet: reads exactly as many bytes as the next step needs, never more, so that the
/// descriptor can be handed on with the stream intact. Lives on the gate's reactor.
/// </summary>
internal abstract class HandshakeConnection(PeerGate gate, int fd, long deadline) : IReactorHandler
{
    private byte[] _out = [];
    private int _outDone;
    private bool _closeWhenSent;
    private HandshakeFaults? _faults; // null: nothing may be injected
    private bool _isHeld; // nothing is asked of the socket meanwhile

    /// <summary>The descriptor; −1 once it is closed or handed on.</summary>
    public int Fd { get; private set; } = fd;

    /// <summary>When this has taken too long, in the gate's microseconds.</summary>
    public long Deadline { get; protected set; } = deadline;

    protected PeerGate Gate => gate;

    /// <summary>What has been read since the last <see cref="Expect"/>; its length is what is wanted.</summary>
    protected byte[] In { get; private set; } = [];

    protected int Have { get; private set; }

    public virtual void OnReady(EpollEvents events)
    {
        if (_isHeld)
        {
            if ((events & (EpollEvents.HangUp | EpollEvents.Error)) != 0) Break(Errno.ECONNRESET);
            return;
        }
        while (Fd >= 0)
        {
            if (_outDone < _out.Length)
            {
                if (!TrySend()) return;
            }
            else if (_closeWhenSent)
            {
                Abandon();
                return;
            }
            else if (Have < In.Length)
            {
                if (!TryReceive()) return;
            }
            else if (!OnBytes())
            {
                return;
            }
        }
    }

    /// <summary>The time is up.</summary>
    public abstract void OnDeadline();

    /// <summary>Stops watching and gives the descriptor to the caller.</summary>
    public int Release()
    {
        int fd = Fd;
        if (fd < 0) return -1;
        gate.Forget(this);
        Fd = -1;
        return fd;
    }

    /// <summary>Closes the connection.</summary>
    public void Abandon()
    {
        int fd = Release();
        if (fd >= 0) _ = Libc.Close(fd);
    }

    /// <summary>Everything that was expected is there. Returns whether there is more to do now.</summary>
    protected abstract bool OnBytes();

    /// <summary>The peer closed or broke the connection.</summary>
    protected abstract void OnBroken(int errno);

    /// <summary>Wants so many bytes next.</summary>
    protected void Expect(int bytes)
    {
        In = new byte[bytes];
        Have = 0;
    }

    /// <summary>Wants more bytes behind those that are there.</summary>
    protected void ExpectMore(int bytes)
    {
        byte[] larger = new byte[Have + bytes];
        In.AsSpan(0, Have).CopyTo(larger);
        In = larger;
    }

    /// <summary>Queues bytes; goes on when the socket has taken them.</summary>
    protected void Send(byte[] bytes, bool thenClose = false)
    {
        _out = bytes;
        _outDone = 0;
        _closeWhenSent = thenClose;
    }

    /// <summary>From now on it is known whom this is about: what is injected between here and there counts.</summary>
    protected void ExpectFaults(NodeId peer)
    {
        if (gate.Faults is { } plan && !peer.IsNone) _faults = new HandshakeFaults(plan, peer);
    }

    /// <summary>Whether the next message may go now; if not, <see cref="OnReady"/> is called again, or the connection breaks.</summary>
    protected bool MaySend()
    {
        if (_faults is null) return true;
        bool isLost = !_faults.Look(gate.Now, out long waitMicroseconds);
        if (isLost)
        {
            Break(Errno.ETIMEDOUT);
            return false;
        }
        if (waitMicroseconds == 0) return true;
        _isHeld = true;
        gate.Watch(this, EpollEvents.None); // that the peer has had enough is found out soon enough
        gate.After(waitMicroseconds, () =>
        {
            _isHeld = false;
            if (Fd < 0) return;
            gate.Watch(this, EpollEvents.Readable);
            OnReady(EpollEvents.Readable);
        });
        return false;
    }

    /// <summary>The message as it is to go out, once it may.</summary>
    protected byte[] Pass(byte[] message) => _faults is null ? message : _faults.Pass(message);

    private bool TrySend()
    {
        if (_faults is not null && _outDone == 0)
        {
            if (!MaySend()) return false;
            _out = Pass(_out);
        }
        nint sent;
        // SAFETY: the array is pinned during the call, which does not block.
        unsafe
        {
            fixed (byte* bytes = _out)
                sent = Sockets.Send(Fd, bytes + _outDone, (nuint)(_out.Length - _outDone),
                    Sockets.MSG_NOSIGNAL | Sockets.MSG_DONTWAIT);
        }
        if (sent > 0)
        {
            _outDone += (int)sent;
            if (_outDone == _out.Length)
            {
                gate.Watch(this, EpollEvents.Readable);
                // What an unwelcome peer has sent beyond is thrown away, or closing would cut off our last word to it.
                if (_closeWhenSent) DrainOnce();
            }
            return true;
        }
        if (Errno.Last == Errno.EAGAIN) gate.Watch(this, EpollEvents.Writable);
        else if (Errno.Last != Errno.EINTR) Break(Errno.Last);
        return false;
    }

    private bool TryReceive()
    {
        nint got;
        // SAFETY: the array is pinned during the call, which does not block.
        unsafe
        {
            fixed (byte* bytes = In)
                got = Sockets.Receive(Fd, bytes + Have, (nuint)(In.Length - Have), Sockets.MSG_DONTWAIT);
        }
        if (got > 0)
        {
            Have += (int)got;
            return true;
        }
        if (got == 0) Break(0);
        else if (Errno.Last is not (Errno.EAGAIN or Errno.EINTR)) Break(Errno.Last);
        return false;
    }

    private unsafe void DrainOnce()
    {
        byte* scrap = stackalloc byte[4096];
        // SAFETY: reads into the scrap buffer only.
        _ = Sockets.Receive(Fd, scrap, 4096, Sockets.MSG_DONTWAIT);
        _ = Sockets.Shutdown(Fd, Sockets.SHUT_WR);
    }

    private void Break(int errno)
    {
        OnBroken(errno);
        Abandon();
    }
}

/// <summary>A connection that somebody made to us.</summary>
internal sealed class IncomingHandshake(PeerGate gate, int fd, IPEndPoint remote, long deadline)
    : HandshakeConnection(gate, fd, deadline)
{
    private readonly byte[] _challenge = new byte[Handshake.ChallengeBytes];
    private byte[] _hello = [];
    private Step _step = Step.Prefix;

    private enum Step { Prefix, Hello, ProofHeader, ProofBody, Waiting }

    /// <summary>Whether the peer knows the secret; the rest is up to us.</summary>
    public bool IsAuthenticated => _step == Step.Waiting;

    public void Begin()
    {
        Expect(Handshake.PrefixBytes);
        Gate.Watch(this, EpollEvents.Readable);
    }

    public override void OnDeadline()
    {
        if (_step != Step.Prefix || Have > 0) Gate.Complain(remote, "did not finish the handshake in time");
        Abandon();
    }

    /// <summary>Answers a request for membership. On the gate's thread.</summary>
    public void Reply(HandshakeStatus status, ReadOnlySpan<byte> body)
    {
        if (Fd < 0) return;
        Send(Handshake.MakeAnswer(Gate.Secret, _hello, _challenge, status, body), thenClose: true);
        OnReady(EpollEvents.Writable);
    }

    protected override void OnBroken(int errno)
    {
        if (_step is Step.Prefix && Have == 0) return; // somebody looked whether the port is open
        if (_step is not Step.Waiting) Gate.Complain(remote, "closed the connection in mid-handshake");
    }

    protected override bool OnBytes() => _step switch
    {
        Step.Prefix => OnPrefix(),
        Step.Hello => OnHello(),
        Step.ProofHeader => OnProofHeader(),
        Step.ProofBody => OnProof(),
        _ => Refuse("sent bytes that nobody asked for"),
    };

    private bool OnPrefix()
    {
        if (!Handshake.HasMagic(In)) return Refuse("does not speak VSmp's protocol");
        ushort version = Handshake.VersionOf(In);
        if (version != FrameHeader.CurrentVersion)
        {
            Gate.Complain(remote, $"speaks wire version {version}, this agent {FrameHeader.CurrentVersion}: "
                + "install the same release on all nodes");
            return SendRefusal(HandshakeStatus.OtherVersion);
        }
        _step = Step.Hello;
        ExpectMore(Handshake.HelloBytes - Handshake.PrefixBytes);
        return true;
    }

    private bool OnHello()
    {
        if (In[6] is < (byte)HandshakePurpose.Session or > (byte)HandshakePurpose.Record)
            return Refuse("sent a hello without sense");
        if (!Handshake.NamesCluster(In, Gate.ClusterName))
        {
            Gate.Complain(remote, "wants another cluster");
            return SendRefusal(HandshakeStatus.OtherCluster);
        }
        if (In[7] != (byte)Gate.Transport)
        {
            Gate.Complain(remote, $"uses another transport than this agent ({Gate.Transport.ToString().ToLowerInvariant()}): start all agents with the same --transport");
            return SendRefusal(HandshakeStatus.OtherTransport);
        }
        _hello = In;
        if (In[6] != (byte)HandshakePurpose.Join) ExpectFaults(Handshake.ClientOf(_hello));
        Handshake.WriteChallenge(_challenge);
        Send(_challenge);
        _step = Step.ProofHeader;
        Expect(Handshake.ProofBytes);
        return true;
    }

    private bool OnProofHeader()
    {
        uint bodyBytes = Handshake.BodyBytesOf(In);
        if (bodyBytes > Handshake.MaxProofBody || In[0] != 0 || !Handshake.HasZeroPadding(In))
            return Refuse("sent a proof without sense");
        _step = Step.ProofBody;
        ExpectMore((int)bodyBytes);
        return true;
    }

    private bool OnProof()
    {
        ReadOnlySpan<byte> body = In.AsSpan(Handshake.ProofBytes);
        if (!Handshake.HasRightMac(Gate.Secret, byServer: false, _hello, _challenge, In, body))
        {
            Gate.Complain(remote, "does not know the cluster secret");
            byte[] refusal = new byte[Handshake.AnswerBytes];
            Handshake.WriteBodyHeader(refusal, HandshakeStatus.WrongSecret, 0);
            Send(refusal, thenClose: true);
            return true;
        }
        if (_hello[6] == (byte)HandshakePurpose.Session)
        {
            if (body.Length != Handshake.SessionBodyBytes) return Refuse("sent a session request without sense");
            if (!MaySend()) return false; // the answer
            (ulong sessionId, ulong lastTaken) = Handshake.ReadSessionBody(body);
            var peer = new IncomingPeer(Gate.Secret, _hello, _challenge, Release(), remote, sessionId, lastTaken, Pass);
            if (Gate.SessionArrived is { } take) take(peer);
            else peer.Refuse(HandshakeStatus.NotReady);
            return false;
        }
        _step = Step.Waiting;
        byte[] request = body.ToArray();
        // The answer waits until every member knows the new one. A byte or an end of stream in the meantime ends it.
        Deadline = Gate.Now + PeerGate.JoinDeadlineMicroseconds;
        Expect(1);
        if (Gate.JoinArrived is { } join) join(new IncomingJoin(Gate, this, remote, _hello, request));
        else Reply(HandshakeStatus.NotReady, default);
        return Fd >= 0;
    }

    private bool SendRefusal(HandshakeStatus status)
    {
        byte[] refusal = new byte[Handshake.PrefixBytes];
        Handshake.WritePrefix(refusal, (byte)status);
        Send(refusal, thenClose: true);
        return true;
    }

    private bool Refuse(string what)
    {
        Gate.Complain(remote, what);
        Abandon();
        return false;
    }
}

/// <summary>A connection that we make.</summary>
internal sealed class OutgoingHandshake(PeerGate gate, int fd, long deadline, OutgoingRequest request,
    Action<HandshakeResult> done)
    : HandshakeConnection(gate, fd, deadline)
{
    private readonly byte[] _hello = new byte[Handshake.HelloBytes];
    private readonly byte[] _challenge = new byte[Handshake.ChallengeBytes];
    private Step _step = Step.Connecting;

    private enum Step { Connecting, ChallengePrefix, Challenge, AnswerHeader, AnswerBody, Finished }

    public void Begin() => Gate.Watch(this, EpollEvents.Writable);

    public override void OnReady(EpollEvents events)
    {
        if (_step == Step.Connecting)
        {
            int error = Sockets.TakeError(Fd);
            if (error != 0)
            {
                Finish(HandshakeStatus.Unreachable, PeerGate.Explain(error));
                return;
            }
            if (request.Purpose != HandshakePurpose.Join) ExpectFaults(request.Peer);
            Handshake.WriteHello(_hello, request.Purpose, Gate.Transport, request.Epoch, request.Self, request.Peer, Gate.ClusterName);
            Handshake.WriteIncarnations(_hello, request.SelfIncarnation, request.PeerIncarnation);
            Send(_hello);
            Expect(Handshake.PrefixBytes);
            _step = Step.ChallengePrefix;
        }
        base.OnReady(events);
    }

    public override void OnDeadline() => Finish(HandshakeStatus.TimedOut, _step == Step.Connecting
        ? "no answer from that address" : "the handshake was not answered in time");

    protected override void OnBroken(int errno) => Finish(HandshakeStatus.Closed,
        errno == 0
            ? "the peer closed the connection during the handshake"
            : $"the connection broke during the handshake: {Errno.Text(errno)}");

    protected override bool OnBytes()
    {
        switch (_step)
        {
            case Step.ChallengePrefix: return OnChallengePrefix();
            case Step.Challenge: return OnChallenge();
            case Step.AnswerHeader: return OnAnswerHeader();
            default: return OnAnswer();
        }
    }

    private bool OnChallengePrefix()
    {
        if (!Handshake.HasMagic(In)) return Finish(HandshakeStatus.NotVSmp, "what answers there is not a VSmp agent");
        ushort version = Handshake.VersionOf(In);
        if (version != FrameHeader.CurrentVersion)
            return Finish(HandshakeStatus.OtherVersion,
                $"the agent there speaks wire version {version}, this one {FrameHeader.CurrentVersion}: "
                + "install the same release on all nodes");
        if (In[6] == (byte)HandshakeStatus.OtherTransport)
            return Finish(HandshakeStatus.OtherTransport, $"the agent there does not use --transport {Gate.Transport.ToString().ToLowerInvariant()} as this one does: start all with the same");
        if (In[6] == (byte)HandshakeStatus.OtherCluster)
            return Finish(HandshakeStatus.OtherCluster, $"the agent there belongs to another cluster than '{Gate.ClusterName}'");
        if (In[6] != 0 || In[7] != 0) return Finish(HandshakeStatus.NotVSmp, "the agent there answered nonsense");
        _step = Step.Challenge;
        ExpectMore(Handshake.ChallengeBytes - Handshake.PrefixBytes);
        return true;
    }

    private bool OnChallenge()
    {
        In.CopyTo(_challenge, 0);
        byte[] proof = new byte[Handshake.ProofBytes + request.Body.Length];
        Handshake.WriteBodyHeader(proof, HandshakeStatus.Ok, request.Body.Length);
        request.Body.CopyTo(proof, Handshake.ProofBytes);
        Handshake.ComputeMac(Gate.Secret, byServer: false, _hello, _challenge, proof, request.Body,
            proof.AsSpan(8, Handshake.MacBytes));
        Send(proof);
        Expect(Handshake.AnswerBytes);
        _step = Step.AnswerHeader;
        if (request.Purpose == HandshakePurpose.Join) Deadline = Gate.Now + PeerGate.JoinDeadlineMicroseconds;
        return true;
    }

    private bool OnAnswerHeader()
    {
        uint bodyBytes = Handshake.BodyBytesOf(In);
        if (bodyBytes > Handshake.MaxAnswerBody || !Handshake.HasZeroPadding(In))
            return Finish(HandshakeStatus.NotVSmp, "the agent there answered nonsense");
        _step = Step.AnswerBody;
        ExpectMore((int)bodyBytes);
        return true;
    }

    private bool OnAnswer()
    {
        var status = (HandshakeStatus)In[0];
        ReadOnlySpan<byte> body = In.AsSpan(Handshake.AnswerBytes);
        if (status == HandshakeStatus.WrongSecret
            || !Handshake.HasRightMac(Gate.Secret, byServer: true, _hello, _challenge, In, body))
            return Finish(HandshakeStatus.WrongSecret,
                "the agent there has another cluster secret: copy the same file to all nodes");
        if (status == HandshakeStatus.Ok && request.Purpose == HandshakePurpose.Session
            && body.Length != Handshake.SessionBodyBytes)
            return Finish(HandshakeStatus.NotVSmp, "the agent there answered nonsense");
        _step = Step.Finished;
        byte[] copy = body.ToArray();
        int fd = status == HandshakeStatus.Ok && request.Purpose == HandshakePurpose.Session ? Release() : -1;
        Abandon();
        done(new HandshakeResult(status, status == HandshakeStatus.Ok ? "" : TextOf(status), fd, copy)
        {
            Key = Handshake.LinkKey(Gate.Secret, _hello, _challenge),
        });
        return false;
    }

    private bool Finish(HandshakeStatus status, string text)
    {
        if (_step == Step.Finished) return false;
        bool isAnAgent = _step is Step.AnswerHeader or Step.AnswerBody;
        _step = Step.Finished;
        Abandon();
        done(new HandshakeResult(status, text, -1, []) { IsAnAgent = isAnAgent });
        return false;
    }

    private static string TextOf(HandshakeStatus status) => status switch
    {
        HandshakeStatus.OtherEpoch => "the agent there belongs to another life of the cluster",
        HandshakeStatus.NotAMember => "the agent there does not know this node as a member",
        HandshakeStatus.OtherSession => "the agent there cannot resume the session",
        HandshakeStatus.NameTaken => "a node of that name is a member already: choose another --name, or stop that node first",
        HandshakeStatus.Redirect => "the agent there is not the coordinator",
        HandshakeStatus.Full => "the cluster has as many members as it can have",
        HandshakeStatus.NotReady => "the agent there is not in a cluster at the moment",
        HandshakeStatus.OtherMembership => "the cluster there decides on its membership in another way (with etcd, or without): start all agents with the same --membership",
        HandshakeStatus.BadRequest => "the agent there does not accept the request",
        HandshakeStatus.OtherIncarnation => "one of the two agents has been started again, and not both know it yet",
        _ => $"the agent there refused (status {(byte)status})",
    };
}

/// <summary>A handshake to be made.</summary>
internal sealed record OutgoingRequest(IPEndPoint Address, HandshakePurpose Purpose, Epoch Epoch, NodeId Self, NodeId Peer,
    byte[] Body)
{
    /// <summary>How often this node's agent has been started again.</summary>
    public uint SelfIncarnation { get; init; }

    /// <summary>The same of the peer's, as it is known here.</summary>
    public uint PeerIncarnation { get; init; }
}

/// <summary>How a handshake that we began ended.</summary>
/// <param name="Status">The outcome.</param>
/// <param name="Text">For people: why not.</param>
/// <param name="Fd">The authenticated connection, now the receiver's to close; −1 if there is none.</param>
/// <param name="Body">What the peer answered.</param>
internal sealed record HandshakeResult(HandshakeStatus Status, string Text, int Fd, byte[] Body)
{
    /// <summary>A key that only the two sides know (<see cref="Handshake.LinkKey"/>).</summary>
    public byte[] Key { get; init; } = [];

    /// <summary>Of one that failed: whether there is an agent of the cluster, which has taken the request and has not answered it.</summary>
    public bool IsAnAgent { get; init; }
}

/// <summary>
/// A peer that has proved that it knows the secret, and waits for the answer. The descriptor is the receiver's.
/// </summary>
internal sealed class IncomingPeer(ClusterSecret secret, byte[] hello, byte[] challenge, int fd, IPEndPoint remote,
    ulong sessionId, ulong lastTaken, Func<byte[], byte[]> pass)
{
    public NodeId Client => Handshake.ClientOf(hello);

    public NodeId Server => Handshake.ServerOf(hello);

    public Epoch Epoch => Handshake.EpochOf(hello);

    /// <summary>Which agents of the two nodes it means.</summary>
    public (uint Client, uint Server) Incarnations => Handshake.IncarnationsOf(hello);

    public IPEndPoint Remote => remote;

    public ulong SessionId => sessionId;

    public ulong LastTaken => lastTaken;

    /// <summary>A key that only the two sides know (<see cref="Handshake.LinkKey"/>).</summary>
    public byte[] Key => Handshake.LinkKey(secret, hello, challenge);

    /// <summary>Says yes and gives the descriptor; −1 if the connection broke meanwhile.</summary>
    public int Accept(ulong ourLastTaken)
    {
        Span<byte> body = stackalloc byte[Handshake.SessionBodyBytes];
        Handshake.WriteSessionBody(body, sessionId, ourLastTaken);
        if (Write(Handshake.MakeAnswer(secret, hello, challenge, HandshakeStatus.Ok, body))) return fd;
        _ = Libc.Close(fd);
        return -1;
    }

    /// <summary>Says no, and closes.</summary>
    public void Refuse(HandshakeStatus status)
    {
        Write(Handshake.MakeAnswer(secret, hello, challenge, status, []));
        _ = Libc.Close(fd);
    }

    /// <summary>The answer fits into the buffer of a socket that has carried 40 bytes so far: all of it or none.</summary>
    private unsafe bool Write(byte[] answer)
    {
        // SAFETY: the array is pinned during the call, which does not block.
        fixed (byte* bytes = pass(answer))
            return Sockets.Send(fd, bytes, (nuint)answer.Length, Sockets.MSG_NOSIGNAL | Sockets.MSG_DONTWAIT) == answer.Length;
    }
}

/// <summary>An authenticated node that wants to become a member, or asks for the membership's record. Answer once, from any thread.</summary>
internal sealed class IncomingJoin(PeerGate gate, IncomingHandshake connection, IPEndPoint remote, byte[] hello, byte[] request)
{
    public IPEndPoint Remote => remote;

    /// <summary>Whether it is a member, and asks for the record.</summary>
    public bool AsksForRecord => hello[6] == (byte)HandshakePurpose.Record;

    /// <summary>Which member it says it is, if it asks for the record.</summary>
    public NodeId Client => Handshake.ClientOf(hello);

    /// <summary>The cluster's life that it means.</summary>
    public Epoch Epoch => Handshake.EpochOf(hello);

    public ReadOnlySpan<byte> Request => request;

    /// <summary>Whether who asked has gone away. A little late: the connection is the gate's thread's.</summary>
    public bool HasEnded => connection.Fd < 0;

    public void Reply(HandshakeStatus status, byte[] body) => gate.Post(() => connection.Reply(status, body));
}
