// SPDX-License-Identifier: Apache-2.0
using System.Buffers.Binary;
using VSmp.Coherence;
using VSmp.Coherence.Homes;
using VSmp.Coherence.Messages;
using VSmp.Coherence.Nodes;
using VSmp.Coherence.Placement;
using VSmp.Coherence.Protocols;
using VSmp.Coherence.Recovery;

namespace VSmp.Bench.Simulation;

/// <summary>
/// A node: the shipped controllers, and a stand-in for pager and kernel that does what the pager does. A page's contents are one
/// number; it travels in whole pages, as data do. The agent may lose the processor between any two effects, while its guests and
/// all others go on: so the order of effects matters.
/// </summary>
internal sealed partial class SimulatedNode
{
    private const int HoldTicks = 50, MaxHeldTicks = 400, MaxSuspendedTicks = 400, StoppedTicks = 50;
    private const uint NoFrame = uint.MaxValue;

    /// <summary>What one node may do about one event, in steps: far more than there is to do.</summary>
    private const int TurnLimit = 10_000;

    private readonly SimulatedCluster _cluster;
    private readonly EffectBuffer _effects = new();
    private readonly Queue<Message> _toSelf = new();
    private readonly List<Thread> _waiting = []; // for the protocol
    private readonly List<Thread> _starved = []; // for a frame or a transaction
    private readonly Queue<Thread> _again = new();
    private readonly List<Action> _deferred = []; // until the agent has the processor again
    private readonly Dictionary<PageNumber, uint> _kept = [];
    private readonly uint[] _frames; // by SimulatedCluster.IndexOf, as are the rights
    private readonly Right[] _mapped;
    private readonly List<PageNumber> _copies = []; // in the order in which they came
    private readonly int _suspendOneIn;
    private readonly int _threads;
    private readonly int _pace;

    /// <summary>Makes a node.</summary>
    /// <param name="cluster">The cluster.</param>
    /// <param name="id">Its number.</param>
    /// <param name="protocol">The region's protocol.</param>
    /// <param name="homes">Where homes and mirrors are; null for a node that has come later: it has nothing.</param>
    /// <param name="budgetPages">Frames that its guests may have for pages of other nodes.</param>
    /// <param name="isUser">Whether its guests use the region.</param>
    public SimulatedNode(SimulatedCluster cluster, NodeId id, Protocol protocol, HomeMap? homes, long budgetPages, bool isUser = false)
    {
        _cluster = cluster;
        Id = id;
        IsUser = isUser;
        TransactionCapacity = (ushort)cluster.Random.Next(2, 16);
        Node = new NodeController(id, TransactionCapacity);
        _records = cluster.Restarts ? new Records(cluster.PageCount) : null;
        int missing = Has(SimulationBugs.NodesOfFormerView) ? 1 : 0;
        Home = new HomeController(id, () => cluster.Nodes.Count - missing);
        _mirror = new MirrorController(id);
        _recovery = new RecoveryController(id, Node, Home);
        BudgetPages = budgetPages;
        _frames = new uint[cluster.PageCount];
        Array.Fill(_frames, NoFrame);
        _mapped = new Right[cluster.PageCount];
        _suspendOneIn = cluster.Random.Next(20, 200);
        var known = new HomeMap(cluster.ExtentCount);
        Region = new Region(SimulatedCluster.RegionId, "simulated", cluster.ExtentCount, protocol, isUser ? known : null, isUser ? new FrameBudget(budgetPages) : null);
        _threads = cluster.Random.Next(1, 4);
        _pace = cluster.Random.Next(8) == 0 ? 2000 : cluster.Random.Next(10, 300); // some are slow
        for (uint e = 0; e < cluster.ExtentCount && homes is not null; e++) TakePlace(new ExtentNumber(e), homes, known);
    }

    public NodeId Id { get; }

    public NodeController Node { get; private set; }

    public HomeController Home { get; private set; }

    public Region Region { get; private set; }

    private ushort TransactionCapacity { get; }

    /// <summary>Frames that its guests may have for pages of other nodes.</summary>
    public long BudgetPages { get; }

    /// <summary>Frames that they have.</summary>
    public int CopyCount { get; private set; }

    /// <summary>Whether the agent is between two effects, without the processor.</summary>
    public bool IsSuspended { get; private set; }

    public long PausedUntil { get; private set; }

    public long AccessesEnded { get; private set; }

    /// <summary>Accesses to pages that are lost.</summary>
    public long AccessesLost { get; private set; }

    public long Evictions { get; private set; }

    public int KeptCount => _kept.Count;

    /// <summary>The page that some thread waits for, if one does.</summary>
    public PageNumber? Waiting => _waiting.Count > 0 ? _waiting[0].Page : _starved.Count > 0 ? _starved[0].Page : _stopped.Count > 0 ? _stopped[0].Page : null;

    public Right RightTo(PageNumber page) => RightTo(SimulatedCluster.IndexOf(page));

    public Right RightTo(int index) => _mapped[index];

    public bool HasFrame(PageNumber page) => _frames[SimulatedCluster.IndexOf(page)] != NoFrame;

    public uint Contents(PageNumber page) => _frames[SimulatedCluster.IndexOf(page)];

    public uint? ContentsOrNone(int index) => _frames[index] == NoFrame ? null : _frames[index];

    /// <summary>A guest writes to a page that it has the right to.</summary>
    public void Write(PageNumber page, uint contents) => _frames[SimulatedCluster.IndexOf(page)] = contents;

    /// <summary>The agent does something as soon as it has the processor.</summary>
    public void WhenAwake(Action action)
    {
        if (IsKilled) return; // it was for the agent
        if (IsSuspended) _deferred.Add(action);
        else action();
    }

    /// <summary>A planted bug: a request that waits for a busy page is forgotten.</summary>
    public void LoseWaitingRequest()
    {
        for (int i = 0; i < _cluster.PageCount; i++)
        {
            PageNumber page = SimulatedCluster.PageAt(i);
            if (!Region.IsHome(page.Extent)) continue;
            ref DirectoryEntry entry = ref Region.EntryAt(page);
            if ((entry.Flags & DirectoryFlags.HasWaiters) == 0) continue;
            if (!Home.Waiting.Dequeue(Region.Id, page, out _)) entry.Flags &= ~DirectoryFlags.HasWaiters;
            return;
        }
    }

    /// <summary>Lets the threads begin, and what may trouble the node.</summary>
    public void Start()
    {
        for (int t = 0; t < _threads && IsUser; t++) _all.Add(new Thread());
        foreach (Thread thread in _all) Think(thread);
        if (_cluster.Random.Next(4) == 0) _cluster.After(_cluster.Random.Next(3000), Pause);
        _cluster.After(_cluster.Random.Next(500), EvictOne);
    }

    /// <summary>A frame from a peer.</summary>
    public void OnFrame(in FrameHeader header, ReadOnlySpan<byte> payload)
    {
        if (!MessageTypes.IsCoherence(header.Type))
        {
            if (_cluster.IsTracing) _cluster.Tell($"{Id}: gets {header.Type} from {header.Source}, generation {header.Generation.Value}");
            OnControl(header.Source, in header, payload);
            EndTurn();
            return;
        }
        Message message = header.ToMessage();
        if (Has(SimulationBugs.OldGenerationServed)) message.Generation = Region.Generation;
        if (_cluster.IsTracing) _cluster.Tell($"{Id}: gets {message}");
        if (Has(SimulationBugs.MirrorAckedEarly) && message.Type == MessageType.MirrorAck && (message.Flags & MessageFlags.Prefetch) == 0) return;
        if (Has(SimulationBugs.RunCutShort) && message.Type is MessageType.DataS or MessageType.DataM) message.Count = 1;
        Dispatch(in message, payload);
        Drain();
        Starved();
    }

    /// <summary>A thread reads or writes a page, now.</summary>
    public void Touch(PageNumber page, bool write) => WhenAwake(() =>
    {
        TryAccess(new Thread { Page = page, Write = write, IsSingle = true });
        Drain();
    });

    private void Think(Thread thread)
    {
        thread.IsThinking = true;
        _cluster.After(1 + _cluster.Random.Next(_pace), () => Act(thread));
    }

    private void Act(Thread thread)
    {
        if (!_cluster.IsWorking || IsDown || _cluster.IsRegionGone) return;
        if (PausedUntil > _cluster.Now)
        {
            _cluster.After(PausedUntil - _cluster.Now, () => Act(thread));
            return;
        }
        if (!MayRun)
        {
            _cluster.After(StoppedTicks, () => Act(thread));
            return;
        }
        Random random = _cluster.Random;
        // Most accesses go to few pages, so that nodes meet.
        int pages = _cluster.ExtentCount * SimulatedCluster.PagesPerExtent;
        thread.Page = SimulatedCluster.PageAt(random.Next(2) == 0 ? random.Next(Math.Min(2, pages)) : random.Next(pages));
        thread.Write = random.Next(3) == 0;
        Right right = RightTo(thread.Page);
        if (right == Right.Write || (right == Right.Read && !thread.Write))
        {
            _cluster.OnAccess(this, thread.Page, thread.Write); // a hit that nobody hears of
            AccessesEnded++;
            Think(thread);
            return;
        }
        thread.IsThinking = false;
        WhenAwake(() => Fault(thread));
    }

    private void Fault(Thread thread)
    {
        if (!IsRegionHere) return;
        if (_cluster.IsTracing) _cluster.Tell($"{Id}: faults, {(thread.Write ? "writing" : "reading")} {thread.Page}");
        if (!TryAccess(thread)) AskAhead(thread, (uint)_cluster.Random.Next(3));
        Drain();
    }

    private void AskAhead(Thread thread, uint pageCount)
    {
        for (uint i = 1; i <= pageCount; i++)
        {
            PageNumber next = thread.Page.Plus(i);
            if ((next.Value & (ExtentNumber.Pages - 1)) >= SimulatedCluster.PagesPerExtent) return;
            if (Region.Budget!.FreePages < 2 || !Node.CanOpenTransaction || Region.PageAt(next).State != NodeState.I) return;
            if (Node.Access(Region, next, thread.Write, MessageFlags.None, _effects) != AccessResult.Pending) return;
        }
    }

    /// <returns>Whether the thread got what it wanted.</returns>
    private bool TryAccess(Thread thread)
    {
        ref PageEntry entry = ref Region.PageAt(thread.Page);
        switch (Node.Access(Region, thread.Page, thread.Write, MessageFlags.None, _effects))
        {
            case AccessResult.Hit:
                Execute(default, default); // E to M: the frame becomes writable first
                _mapped[SimulatedCluster.IndexOf(thread.Page)] = NodeStates.MayWrite(entry.State) ? Right.Write : Right.Read;
                if (!MayRun)
                {
                    Stop(thread);
                    return true;
                }
                _cluster.OnAccess(this, thread.Page, thread.Write);
                AccessesEnded++;
                Hold(thread.Page);
                if (!thread.IsSingle) Think(thread);
                return true;
            case AccessResult.Pending or AccessResult.Frozen:
                entry.Flags |= PageFlags.Awaited;
                _waiting.Add(thread);
                return false;
            case AccessResult.NeedsFrame when Evict() && Region.Budget!.FreePages > 0:
                Execute(default, default);
                return TryAccess(thread);
            case AccessResult.NeedsFrame when Has(SimulationBugs.BudgetOverrun):
                Region.Budget!.SetLimit(Region.Budget.LimitPages + 1);
                return TryAccess(thread);
            case AccessResult.NeedsFrame or AccessResult.NeedsTransaction:
                // The pager tries again at the end of each turn.
                _starved.Add(thread);
                if (_starved.Count == 1) _cluster.After(HoldTicks, () => WhenAwake(Starved));
                return false;
            default:
                throw new SimulationException($"{Id} may not use {thread.Page}");
        }
    }

    /// <summary>A thread that is stopped uses what it asked for when there is a lease again, or asks again.</summary>
    private void Stop(Thread thread)
    {
        _stopped.Add(thread);
        _cluster.After(StoppedTicks, () => WhenAwake(() => Continue(thread)));
    }

    private void Continue(Thread thread)
    {
        if (!_stopped.Remove(thread) || !IsRegionHere || _cluster.Membership!.IsStuck) return;
        if (MayRun && PausedUntil <= _cluster.Now) Fault(thread);
        else Stop(thread);
    }

    private void Hold(PageNumber page)
    {
        NodeController.Hold(Region, page);
        long ticks = _cluster.Random.Next(10) == 0 ? _cluster.Random.Next(MaxHeldTicks) : HoldTicks;
        int life = _life;
        _cluster.After(ticks, () => WhenAwake(() => Unhold(page, life)));
    }

    private void Unhold(PageNumber page, int life)
    {
        if (IsOver || life != _life || (Has(SimulationBugs.HoldNeverEnds) && Node.ParkedCount > 0)) return;
        Node.Unhold(Region, page, _effects);
        Drain();
        Starved();
    }

    private void Pause()
    {
        if (!_cluster.IsWorking || IsDown) return;
        PausedUntil = _cluster.Now + _cluster.Random.Next(2000);
        _cluster.Tell($"{Id}: pauses until {PausedUntil}");
        _cluster.After(_cluster.Random.Next(4000), Pause);
    }

    private void EvictOne()
    {
        if (!_cluster.IsWorking || IsOver) return;
        if (PausedUntil <= _cluster.Now && !IsSuspended && !IsKilled)
        {
            _ = Evict();
            Drain();
        }
        _cluster.After(1 + _cluster.Random.Next(500), EvictOne);
    }

    /// <summary>The oldest copy that can go goes.</summary>
    private bool Evict()
    {
        for (int i = 0; i < _copies.Count; i++)
        {
            PageNumber page = _copies[i];
            NodeState state = Region.PageAt(page).State;
            if (state == NodeState.I || Region.IsHome(page.Extent))
            {
                _copies.RemoveAt(i--);
                continue;
            }
            if (!Node.TryEvict(Region, page, _effects)) continue;
            if (_cluster.IsTracing) _cluster.Tell($"{Id}: evicts {page}");
            _copies.RemoveAt(i);
            Evictions++;
            return true;
        }
        return false;
    }

    private void Starved()
    {
        if (_starved.Count == 0 || !IsRegionHere || Has(SimulationBugs.StarvedForgotten)) return;
        Thread[] threads = [.. _starved];
        _starved.Clear();
        foreach (Thread thread in threads) _ = TryAccess(thread);
        Drain();
    }

    private void Drain()
    {
        for (int steps = 0; ; steps++)
        {
            if (steps == TurnLimit) throw new SimulationException($"{Id} does not come to the end of its turn");
            Execute(default, default);
            if (IsDown) return;
            if (_again.TryDequeue(out Thread? thread)) _ = TryAccess(thread);
            else if (_toSelf.TryDequeue(out Message message)) Dispatch(in message, default);
            else if (_effects.Count == 0 && !ReportRebuilt()) return;
        }
    }

    private void Dispatch(in Message message, ReadOnlySpan<byte> payload)
    {
        if (message.Type == MessageType.MirrorPut) _mirror.OnMessage(Region, in message, _effects);
        else if (HomeController.Takes(in message)) AtHome(in message);
        else Node.OnMessage(Region, in message, _effects);
        Execute(in message, payload);
        if (_records is not null && HomeController.Takes(in message)) _cluster.SettleAcknowledged(this, in message);
    }

    private void AtHome(in Message message)
    {
        Home.OnMessage(Region, in message, _effects);
        if (_records is null) _cluster.SettleAcknowledged(this, in message);
        if (!Has(SimulationBugs.CoarseForgetsSharers) || message.Type != MessageType.GetS) return;
        ref DirectoryEntry entry = ref Region.EntryAt(message.Page);
        if (!entry.IsCoarse) return;
        entry.ClearSharers();
        entry.AddSharer(message.Requestor);
    }

    private void Execute(in Message message, ReadOnlySpan<byte> payload)
    {
        for (int i = 0; i < _effects.Count; i++)
        {
            Effect effect = _effects[i];
            if (_cluster.IsTracing) _cluster.Tell($"{Id}:   {effect}");
            MayBeKilled();
            if (_records is not null && PageRecords.MustRecordBefore(_effects, i))
            {
                Record(in effect);
                MayBeKilled();
            }
            uint pages = effect.Kind == EffectKind.Send ? 0 : effect.Count;
            if (effect.Kind == EffectKind.Send) Send(in effect);
            for (uint p = 0; p < pages; p++)
            {
                if (SimulatedCluster.IsUsed(effect.Page.Plus(p))) Execute(effect.Kind, effect.Page.Plus(p), in message, payload);
            }
            if (i + 1 < _effects.Count) MaySuspend();
            if (IsDown) break; // meanwhile
        }
        for (int i = 0; i < _effects.Count && _records is not null; i++)
        {
            MayBeKilled();
            Record(_effects[i]);
        }
        _effects.Clear();
        Flush();
    }

    /// <summary>The agent loses the processor: what it has sent travels, and its guests go on.</summary>
    private void MaySuspend()
    {
        Random random = _cluster.Random;
        if (!_cluster.IsWorking || random.Next(_suspendOneIn) != 0) return;
        IsSuspended = true;
        _cluster.RunUntil(_cluster.Now + random.Next(MaxSuspendedTicks));
        IsSuspended = false;
        foreach (Action action in _deferred) _cluster.After(0, () => WhenAwake(action));
        _deferred.Clear();
    }

    /// <summary>Home, mirror and user, as it was laid out.</summary>
    private void TakePlace(ExtentNumber extent, HomeMap homes, HomeMap known)
    {
        NodeId home = homes.HomeOf(extent), mirror = homes.MirrorOf(extent);
        known.Place(extent, home);
        known.PlaceMirror(extent, mirror);
        if (IsUser) Region.Open(extent);
        if (mirror == Id) Region.Mirrored.Add(extent, home, isFresh: true);
        if (home != Id) return;
        Region.BecomeHome(extent);
        Region.SetMirror(extent, mirror);
    }

    private bool Has(SimulationBugs bug) => (_cluster.Planted & bug) != 0;

    private void Execute(EffectKind kind, PageNumber page, in Message message, ReadOnlySpan<byte> payload)
    {
        switch (kind)
        {
            case EffectKind.WriteFrame:
                WriteFrame(page, in message, payload);
                break;
            case EffectKind.InstallReadable or EffectKind.InstallWritable:
                WriteFrame(page, in message, payload);
                MayBeKilled();
                Record(page);
                MayBeKilled();
                Map(page, kind == EffectKind.InstallWritable ? Right.Write : Right.Read);
                break;
            case EffectKind.MakeWritable:
                Map(page, Right.Write);
                break;
            case EffectKind.WriteProtect:
                if (RightTo(page) == Right.Write) _mapped[SimulatedCluster.IndexOf(page)] = Right.Read;
                break;
            case EffectKind.Keep:
                if (!HasFrame(page)) throw new SimulationException($"{page} is to be kept at {Id}, which has no frame of it");
                if (!_kept.TryAdd(page, Contents(page))) throw new SimulationException($"{page} is kept twice at {Id}");
                break;
            case EffectKind.KeepInstead:
                if (!_kept.Remove(page)) throw new SimulationException($"{page} is not kept at {Id}, and is to be kept instead");
                goto case EffectKind.Keep;
            case EffectKind.Unmap:
                _mapped[SimulatedCluster.IndexOf(page)] = Right.None;
                SetFrame(page, NoFrame);
                break;
            case EffectKind.ReleaseKept:
                if (!_kept.Remove(page)) throw new SimulationException($"{page} is not kept at {Id}");
                break;
            case EffectKind.WriteHome:
                SetFrame(page, (message.Flags & MessageFlags.Zero) != 0 ? NoFrame : ValueOf(page, in message, payload));
                break;
            case EffectKind.DropHome:
                SetFrame(page, NoFrame);
                break;
            case EffectKind.Complete:
                Retry(page);
                break;
            case EffectKind.RestoreKept:
                if (!_kept.TryGetValue(page, out uint kept)) throw new SimulationException($"{page} is to be restored at {Id}, and is not kept there");
                SetFrame(page, kept);
                break;
            case EffectKind.Poison:
                Poison(page);
                break;
        }
    }

    private void SetFrame(PageNumber page, uint contents)
    {
        ref uint frame = ref _frames[SimulatedCluster.IndexOf(page)];
        if (!Region.IsHome(page.Extent) && !Region.Mirrored.Contains(page.Extent)) CopyCount += (contents != NoFrame ? 1 : 0) - (frame != NoFrame ? 1 : 0);
        frame = contents;
    }

    private void Map(PageNumber page, Right right)
    {
        if (!HasFrame(page)) throw new SimulationException($"{page} is granted at {Id} without a frame");
        if (!Region.IsHome(page.Extent) && !_copies.Contains(page)) _copies.Add(page);
        _mapped[SimulatedCluster.IndexOf(page)] = right;
        Retry(page);
    }

    private void Retry(PageNumber page)
    {
        ref PageEntry entry = ref Region.PageAt(page);
        if ((entry.Flags & PageFlags.Awaited) == 0) return;
        entry.Flags &= ~PageFlags.Awaited;
        for (int i = 0; i < _waiting.Count; i++)
        {
            if (_waiting[i].Page != page) continue;
            _again.Enqueue(_waiting[i]);
            _waiting.RemoveAt(i--);
        }
    }

    private void WriteFrame(PageNumber page, in Message message, ReadOnlySpan<byte> payload)
    {
        if ((message.Flags & MessageFlags.NoData) != 0) return;
        SetFrame(page, (message.Flags & MessageFlags.Zero) != 0 ? 0 : ValueOf(page, in message, payload));
    }

    private static uint ValueOf(PageNumber page, in Message message, ReadOnlySpan<byte> payload)
    {
        int at = (int)((page.Value - message.Page.Value) << PageNumber.Shift);
        if (payload.Length < at + PageNumber.Bytes) throw new SimulationException($"{message} carries no data of {page}");
        return BinaryPrimitives.ReadUInt32LittleEndian(payload[at..]);
    }

    private void Send(in Effect effect)
    {
        ref readonly Message m = ref effect.Message;
        if (effect.To == Id)
        {
            _toSelf.Enqueue(m);
            return;
        }
        if (Has(SimulationBugs.MirrorAckedEarly) && m.Type == MessageType.MirrorPut) AcknowledgeForMirror(m, effect.To);
        int pages = effect.Source == DataSource.None ? 0 : (int)effect.Count;
        byte[] later = _records is null ? [] : new byte[pages * PageNumber.Bytes];
        Span<byte> room = _records is null ? _cluster.Network.Begin(Id, effect.To, pages * PageNumber.Bytes) : later;
        for (uint p = 0; p < pages; p++)
        {
            PageNumber page = effect.Page.Plus(p);
            uint value = effect.Source == DataSource.Frame ? Contents(page) : _kept.GetValueOrDefault(page, NoFrame);
            if (value == NoFrame) throw new SimulationException($"{Id} sends {page} from {effect.Source}, and has none there");
            BinaryPrimitives.WriteUInt32LittleEndian(room[(int)(p << PageNumber.Shift)..], value);
        }
        FrameHeader header = FrameHeader.Of(in m);
        if (_records is null) _cluster.Network.Commit(Id, effect.To, in header);
        else _outbox.Add((effect.To, header, later));
    }

    /// <summary>A guest's thread: what it is after.</summary>
    private sealed class Thread
    {
        public PageNumber Page { get; set; }
        public bool Write { get; set; }
        public bool IsSingle { get; init; }
        public bool IsThinking { get; set; }
    }
}
