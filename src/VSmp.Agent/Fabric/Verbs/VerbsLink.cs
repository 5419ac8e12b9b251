// SPDX-License-Identifier: Apache-2.0
using System.Runtime.InteropServices;
using VSmp.Agent.Interop;
using VSmp.Coherence.Messages;

namespace VSmp.Agent.Fabric.Verbs;

using Verbs = Interop.Verbs;

/// <summary>
/// A reliable connected queue pair that carries a session. A message is as many whole frames as lie side by side in the outbox and fit
/// into one of the receiver's slots; the device reads them from there, and writes them into the slot: one copy on each side is ours,
/// into the outbox and out of the slot.
/// </summary>
/// <remarks>
/// Credit: the receiver has <see cref="Slots"/> receives posted and posts each again when it has handled what was in it. The sender
/// keeps at most half as many messages out that the session has not acknowledged; the other half is for acknowledgements that travel
/// alone, of which there is at most one for a quarter of the slots. So a receive is posted for everything that comes, and "receiver not
/// ready" means a peer that does not keep to this, or stands still. The receiver counts, too: who sends more loses the connection.
/// <code>
///   authenticated ──resolve──► address ──► route ──connect──► established      (the side that connects)
///   authenticated ──expects a request with the right proof──► established      (the other)
/// </code>
/// </remarks>
internal sealed unsafe class VerbsLink : Link, IReactorHandler, IReactorPoller
{
    /// <summary>Receives posted.</summary>
    public const int Slots = 32;

    /// <summary>Longest message: one frame of the largest size.</summary>
    public const int SlotBytes = FrameHeader.Bytes + FrameHeader.MaxPayloadBytes;

    /// <summary>Memory of a link: receive slots, and headers for acknowledgements.</summary>
    public const int MemoryBytes = (Slots * SlotBytes) + AckBytes;

    /// <summary>Memory that a link locks at most: its own, and chunks of the outbox.</summary>
    public const ulong LockedBytes = MemoryBytes + (MaxRegistered * (ulong)ChunkPool.ChunkBytes);

    private const int AckBytes = SendDepth * FrameHeader.Bytes;
    private const int MaxUnacknowledged = Slots / 2, AckAfterMessages = Slots / 4;
    private const int SendDepth = 48, SignalEvery = 8, WantedInlineBytes = 256;
    private const uint RnrRetries = 6, Retries = 6; // 7 is for ever: of the former by definition, of the latter on soft-RoCE
    private const uint AckTimeout = 16; // 0.27 s: with the retries, a link that carries nothing breaks after about two seconds
    private const int CompletionsAtOnce = 32, PollsPerTurn = 4;

    /// <summary>
    /// Chunks of the outbox that the device may know at a time: more than all sends that can be out lie in, so that there is always one
    /// that none uses. A full chunk is at least that many messages; the first and the last may be partly used.
    /// </summary>
    private const int MaxRegistered = (SendDepth / (ChunkPool.ChunkBytes / SlotBytes)) + 3;

    private readonly VerbsTransport _transport;
    private readonly Reactor _reactor;
    private readonly List<Registered> _registered = new(MaxRegistered);
    private readonly Queue<ulong> _unacknowledged = new(MaxUnacknowledged); // the last frame of each message that is out
    private readonly Queue<ulong> _unacknowledgedHere = new(MaxUnacknowledged + 1); // the last frame of each message that the peer has out
    private readonly Queue<(nint Chunk, bool IsSignaled)> _posted = new(SendDepth); // sends whose completion has not been seen
    private readonly Watch _watch;
    private int _fd; // the connection that was authenticated
    private byte* _memory; // receive slots, then headers for acknowledgements
    private VerbsId? _id;
    private VerbsEndpoint? _queues;
    private VerbsMemory? _acks;
    private ulong _endpoint; // that of the queues, for the path of frames; 0 before and after
    private int _completionFd = -1;
    private uint _inlineBytes;
    private int _unsignaled;
    private int _nextAck;
    private int _idleMessages; // in a row that brought neither a frame nor an acknowledgement
    private bool _isPolling;
    private bool _isArmed;

    public VerbsLink(VerbsTransport transport, Session session, int fd, ReadOnlySpan<byte> key)
        : base(session)
    {
        _transport = transport;
        _reactor = session.Fabric.Reactor;
        _fd = fd;
        Proof = VerbsProof.Make(key, session.Connects);
        ExpectedProof = VerbsProof.Make(key, !session.Connects);
        _watch = new Watch(this);
    }

    /// <summary>What this side shows.</summary>
    public VerbsProof Proof { get; }

    /// <summary>What the other side has to show.</summary>
    public VerbsProof ExpectedProof { get; }

    /// <inheritdoc/>
    public override bool IsBlocked => !CanAck || _unacknowledged.Count >= MaxUnacknowledged;

    /// <inheritdoc/>
    public override bool CanAck => _posted.Count < SendDepth && Faults is not { IsHolding: true };

    /// <inheritdoc/>
    public override bool OwesAckNow => _unacknowledgedHere.Count >= AckAfterMessages;

    private PeerSession Core => Session.Core;

    /// <inheritdoc/>
    public override void Begin()
    {
        _reactor.Watch(_fd, EpollEvents.Readable, _watch);
        _transport.Begin(this, Session.Connects ? Session.Address : null);
    }

    /// <summary>What a device lacks to carry links, in words; null if nothing.</summary>
    public static string? Shortfall(VerbsPort port)
    {
        (string What, ulong Allowed, ulong Needed)[] limits =
        [
            ("work requests in a queue (max_qp_wr)", port.MaxQueueDepth, (ulong)Math.Max(Slots, SendDepth)),
            ("completions in a completion queue (max_cqe)", port.MaxCompletions, Slots + SendDepth),
            ("segments in a work request (max_sge)", port.MaxSegments, 1),
            ("bytes in a message (max_msg_sz)", port.MaxMessageBytes, SlotBytes),
            ("bytes in a memory region (max_mr_size)", port.MaxRegisteredBytes, (ulong)Math.Max(Slots * SlotBytes, ChunkPool.ChunkBytes)),
        ];
        foreach ((string what, ulong allowed, ulong needed) in limits)
        {
            if (allowed < needed) return $"RDMA device {port.Device} allows {allowed} {what}, a link needs {needed}: use another device";
        }
        return null;
    }

    /// <summary>The side that connects: its id. The other: the id of the request that showed the right proof.</summary>
    public void SetId(VerbsId id) => _id = id;

    /// <summary>An event of the connection.</summary>
    public void OnEvent(in VerbsEvent happened, ReadOnlySpan<byte> privateData)
    {
        int error = 0;
        switch (happened.Kind)
        {
            case VerbsEventKind.AddressResolved:
                if (_transport.Unsuitable(_id!) is { } why) Session.Drop(why);
                else error = Verbs.ResolveRoute(_id!, VerbsTransport.ResolveMilliseconds);
                break;
            case VerbsEventKind.RouteResolved:
                error = Open();
                if (error == 0) error = WithProof(static (queues, data, bytes) => Verbs.Connect(queues, data, bytes));
                break;
            case VerbsEventKind.Established:
                // The side that connects gets the other's proof with the answer; that side has seen ours with the request.
                if (Session.Connects && !ExpectedProof.IsIn(privateData)) Session.Drop("what answered is not the agent that was asked");
                else Established();
                break;
            case VerbsEventKind.Refused:
                Session.Drop("the peer refused the RDMA connection");
                break;
            case VerbsEventKind.Failed:
                Session.Drop($"the RDMA connection could not be made: {Errno.Text(Math.Abs(happened.Status))}");
                break;
            case VerbsEventKind.Disconnected:
                Session.Drop("the peer closed the RDMA connection");
                break;
            case VerbsEventKind.DeviceGone:
                Session.Drop("the RDMA device is gone");
                break;
        }
        if (error != 0) Session.Drop($"the RDMA connection could not be set up: {Explain(-error)}");
    }

    /// <summary>A request that showed the right proof.</summary>
    public void Accept(VerbsId id)
    {
        SetId(id);
        if (_transport.Unsuitable(id) is { } why)
        {
            Session.Drop(why);
            return;
        }
        int error = Open();
        if (error == 0) error = WithProof(static (queues, data, bytes) => Verbs.Accept(queues, data, bytes));
        if (error != 0) Session.Drop($"the RDMA connection could not be accepted: {Explain(-error)}");
    }

    /// <summary>It cannot come up.</summary>
    public void Fail(string why)
    {
        if (_fd >= 0) Session.Drop(why);
    }

    /// <inheritdoc/>
    public void OnReady(EpollEvents events)
    {
        Verbs.TakeEvents(_endpoint);
        _isArmed = false;
        Poll();
    }

    /// <inheritdoc/>
    public void Arm()
    {
        if (_isArmed || _endpoint == 0) return;
        int error = Verbs.Arm(_endpoint);
        if (error == 0) _isArmed = true;
        else _reactor.Post(() => Session.Drop($"completions cannot be waited for: {Errno.Text(-error)}")); // the reactor walks its pollers
    }

    /// <inheritdoc/>
    public override void Send()
    {
        TakeCredit();
        if (Faults is not null && !(Core.Outbox.UnsentBytes > 0 && !IsBlocked && Faults.Admits())) return;
        Session.Fabric.Reactor.Stages?.Mark(Stage.Stepped);
        while (!IsBlocked)
        {
            byte* run = Core.Outbox.NextRun(SlotBytes, out int bytes, out byte* chunk, out FrameHeader* last);
            if (run is null) return;
            _unacknowledged.Enqueue(last->Sequence);
            if (!Post(run, bytes, chunk, last->CumulativeAck)) return;
            Session.Fabric.Reactor.Stages?.Mark(Stage.Sent);
        }
    }

    /// <inheritdoc/>
    public override void SendAck()
    {
        if (Core.Outbox.UnsentBytes > 0 && !IsBlocked)
        {
            Session.NeedsFlush();
            return;
        }
        if (Faults is not null && !Faults.Admits()) return;
        // As many in turn as sends can be out: the device may still read those before.
        byte* ack = _memory + ((nint)Slots * SlotBytes) + (_nextAck * FrameHeader.Bytes);
        _nextAck = (_nextAck + 1) % SendDepth;
        Core.WriteAck(ack, Session.Fabric.View);
        Session.Fabric.Count.AcknowledgementsSent++;
        Post(ack, FrameHeader.Bytes, null, Core.LastTaken);
    }

    /// <inheritdoc/>
    public override void Forget(byte* chunk)
    {
        int index = _registered.FindIndex(r => r.Chunk == (nint)chunk);
        if (index < 0) return;
        _registered[index].Memory.Dispose();
        _registered.RemoveAt(index);
    }

    /// <inheritdoc/>
    public override void Dispose()
    {
        if (_fd < 0) return;
        Faults?.Dispose();
        IsUp = false;
        _transport.Forget(this, _id);
        _reactor.Unwatch(_fd);
        _ = Libc.Close(_fd);
        _fd = -1;
        if (_completionFd >= 0)
        {
            _reactor.Unwatch(_completionFd);
            _reactor.RemovePoller(this);
        }
        _endpoint = 0;
        // The queues at once, then the memory that they used; with the last of it what they were made of.
        bool canSayGoodbye = _id is null || VerbsTransport.IsUp(_id);
        if (canSayGoodbye) _queues?.Dispose();
        else _queues?.DisposeSilently();
        foreach (Registered r in _registered) r.Memory.Dispose();
        _registered.Clear();
        _acks?.Dispose();
        if (canSayGoodbye) _id?.Dispose();
        else _transport.DisposeWhenUp(_id!);
        if (_memory is null) return;
        // A handler further up the stack may still look at a slot.
        nint memory = (nint)_memory;
        _memory = null;
        _transport.GiveMemory(memory);
    }

    private static string Explain(int error) => error switch
    {
        Errno.ENOMEM => "the limit on locked memory is too small (ulimit -l), or memory is short",
        Errno.EPERM or Errno.EACCES => $"{Errno.Text(error)}: the user of the agent may not use the RDMA device",
        _ => Errno.Text(error),
    };

    private int Open()
    {
        _memory = (byte*)_transport.TakeMemory();
        VerbsLimits limits = new()
        {
            ReceiveSlots = Slots,
            SlotBytes = SlotBytes,
            SendDepth = SendDepth,
            InlineBytes = WantedInlineBytes,
            RnrRetries = RnrRetries,
            Retries = Retries,
            AckTimeout = AckTimeout,
        };
        int error = _id!.Open(&limits, _memory, out _queues, out int completionFd);
        if (_queues is null) return error;
        _endpoint = _queues.Raw;
        _completionFd = completionFd;
        _inlineBytes = limits.InlineBytes;
        _reactor.Watch(_completionFd, EpollEvents.Readable, this);
        _reactor.AddPoller(this);
        return _queues.Register(_memory + ((nint)Slots * SlotBytes), AckBytes, out _acks);
    }

    private int WithProof(Handover hand)
    {
        byte* data = stackalloc byte[Verbs.PrivateBytes];
        Proof.CopyTo(new Span<byte>(data, Verbs.PrivateBytes));
        return hand(_queues!, data, Verbs.PrivateBytes);
    }

    private void Established()
    {
        if (IsUp) return;
        IsUp = true;
        Session.OnUp();
        if (_endpoint != 0) Poll(); // the peer may have been faster with its first message than the connection manager
    }

    /// <inheritdoc/>
    public bool Poll()
    {
        if (_isPolling) return false; // from within a frame
        _isPolling = true;
        bool hasFound = false;
        VerbsCompletion* found = stackalloc VerbsCompletion[CompletionsAtOnce];
        bool wasBlocked = IsBlocked;
        for (int round = 0; ; round++)
        {
            int count = _endpoint == 0 ? 0 : Verbs.Poll(_endpoint, found, CompletionsAtOnce);
            if (count < 0)
            {
                Session.Drop($"completions cannot be had: {Errno.Text(-count)}");
                break;
            }
            Session.Fabric.Count.Polls++;
            if (count == 0) Session.Fabric.Count.EmptyPolls++;
            for (int i = 0; i < count && _endpoint != 0; i++)
            {
                if (found[i].Status != 0) OnFailed(in found[i]);
                else if (found[i].Kind == VerbsCompletion.Received) OnReceived((int)found[i].Slot, (int)found[i].Bytes);
                else if (found[i].Kind == VerbsCompletion.Sent) OnSent();
                else Session.OnViolation("a message with an immediate value, or with an invalidation");
            }
            hasFound |= count > 0;
            // Others have their turn; this is looked at again before the reactor sleeps.
            if (count == 0 || _endpoint == 0 || round == PollsPerTurn) break;
        }
        _isPolling = false;
        if (_endpoint == 0) return hasFound;
        TakeCredit();
        if (IsUp && ((wasBlocked && !IsBlocked) || OwesAckNow)) Session.NeedsFlush();
        return hasFound;
    }

    private void TakeCredit()
    {
        while (_unacknowledged.TryPeek(out ulong last) && last <= Core.LastAcknowledged) _unacknowledged.Dequeue();
    }

    private void OnReceived(int slot, int bytes)
    {
        byte* at = _memory + ((nint)slot * SlotBytes), end = at + bytes;
        ulong coherenceFrames = Session.Fabric.Count.CoherenceFramesReceived;
        ulong taken = Core.LastTaken, acknowledged = Core.LastAcknowledged;
        if (!IsUp)
        {
            // RDMA promises that what arrives before the word "established" is from the peer that was let in.
            Established();
            if (_endpoint == 0) return;
        }
        do
        {
            var frame = (FrameHeader*)at;
            int frameBytes = end - at < FrameHeader.Bytes ? -1 : PeerSession.FrameBytes(frame);
            if (frameBytes < 0 || frameBytes > end - at)
            {
                Session.OnViolation("bytes that are no frame");
                return;
            }
            if (!Session.OnFrame(this, frame)) return;
            at += frameBytes;
        }
        while (at < end);
        Session.CountReceived(coherenceFrames);
        if (!KeepsToCredit(Core.LastTaken != taken, Core.LastAcknowledged != acknowledged)) return;
        Session.Fabric.Count.ReceivesPosted++;
        int error = Verbs.Post(_endpoint, (uint)slot);
        if (error != 0) Session.Drop($"receiving failed: {Errno.Text(-error)}");
    }

    /// <summary>
    /// After each message. The peer knows of no other acknowledgements than those that were posted, so what these leave open it has out;
    /// and an acknowledgement that travels alone acknowledges something.
    /// </summary>
    private bool KeepsToCredit(bool hasBroughtFrames, bool hasBroughtAck)
    {
        if (hasBroughtFrames) _unacknowledgedHere.Enqueue(Core.LastTaken);
        _idleMessages = hasBroughtFrames || hasBroughtAck ? 0 : _idleMessages + 1;
        if (_unacknowledgedHere.Count <= MaxUnacknowledged && _idleMessages <= Slots) return true;
        Session.OnViolation("more messages than it had credit for");
        return false;
    }

    /// <summary>A signaled send is done, and with it those before.</summary>
    private void OnSent()
    {
        Session.Fabric.Count.SendsCompleted++;
        bool isSignaled;
        do
        {
            (nint chunk, isSignaled) = _posted.Dequeue();
            CountUse(chunk, -1);
        }
        while (!isSignaled);
    }

    private void OnFailed(in VerbsCompletion completion)
    {
        string why = Verbs.TextOf(completion.Status);
        // A receive fails by what the peer does; but receives that are flushed only tell that the queue pair is broken.
        if (completion.Kind == VerbsCompletion.Sent) Session.Drop($"sending over RDMA failed: {why}");
        else if (completion.Status == VerbsCompletion.Flushed) Session.Drop("the RDMA connection broke");
        else Session.OnViolation($"a message that could not be received: {why}");
    }

    /// <summary>Posts a message.</summary>
    /// <param name="message">Whole frames.</param>
    /// <param name="bytes">Their length.</param>
    /// <param name="chunk">The outbox's chunk that they lie in, or null for an acknowledgement alone.</param>
    /// <param name="acknowledges">What the last of them acknowledges: written when it was queued, which may be some time ago.</param>
    private bool Post(byte* message, int bytes, byte* chunk, ulong acknowledges)
    {
        bool isInline = bytes <= _inlineBytes;
        uint key = 0;
        if (!isInline && !TryFindKey(chunk, out key)) return false;
        bool isSignaled = ++_unsignaled >= SignalEvery;
        if (isSignaled) _unsignaled = 0;
        uint flags = (isSignaled ? Verbs.Signaled : 0) | (isInline ? Verbs.Inline : 0);
        int error = Verbs.Send(_endpoint, message, (uint)bytes, key, flags, 0);
        if (error != 0)
        {
            Session.Drop($"sending over RDMA failed: {Errno.Text(-error)}");
            return false;
        }
        if (chunk is null) Session.Fabric.Count.MessagesSent++;
        else Session.CountSent(isInline);
        nint used = isInline ? 0 : (nint)chunk;
        CountUse(used, 1);
        _posted.Enqueue((used, isSignaled));
        while (_unacknowledgedHere.TryPeek(out ulong last) && last <= acknowledges) _unacknowledgedHere.Dequeue();
        return true;
    }

    private bool TryFindKey(byte* chunk, out uint key)
    {
        key = _acks!.Key;
        if (chunk is null) return true;
        foreach (Registered r in _registered)
        {
            if (r.Chunk != (nint)chunk) continue;
            key = r.Memory.Key;
            return true;
        }
        if (_registered.Count == MaxRegistered)
        {
            int idle = _registered.FindIndex(r => r.UseCount == 0);
            _registered[idle].Memory.Dispose();
            _registered.RemoveAt(idle);
        }
        int error = _queues!.Register(chunk, ChunkPool.ChunkBytes, out VerbsMemory? memory);
        if (memory is null)
        {
            Session.Drop($"memory to send from cannot be registered: {Explain(-error)}");
            return false;
        }
        _registered.Add(new Registered((nint)chunk, memory));
        key = memory.Key;
        return true;
    }

    private void CountUse(nint chunk, int by)
    {
        if (chunk == 0) return;
        foreach (Registered r in _registered)
        {
            if (r.Chunk == chunk) r.UseCount += by;
        }
    }

    private delegate int Handover(VerbsEndpoint queues, byte* data, uint bytes);

    /// <summary>A chunk of the outbox that the device may read.</summary>
    private sealed class Registered(nint chunk, VerbsMemory memory)
    {
        public nint Chunk { get; } = chunk;
        public VerbsMemory Memory { get; } = memory;
        public int UseCount { get; set; }
    }

    /// <summary>The connection that was authenticated carries nothing more; it ends when the peer does.</summary>
    private sealed class Watch(VerbsLink link) : IReactorHandler
    {
        public void OnReady(EpollEvents events)
        {
            byte* scrap = stackalloc byte[64];
            nint got = Sockets.Receive(link._fd, scrap, 64, Sockets.MSG_DONTWAIT);
            if (got > 0) link.Session.OnViolation("bytes beside the RDMA connection");
            else if (got == 0) link.Session.Drop("the peer closed the connection");
            else if (Errno.Last is not (Errno.EAGAIN or Errno.EINTR)) link.Session.Drop($"the connection broke: {Errno.Text(Errno.Last)}");
        }
    }
}
