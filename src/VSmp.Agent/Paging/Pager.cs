// SPDX-License-Identifier: Apache-2.0
using System.Runtime.InteropServices;
using VSmp.Agent.Fabric;
using VSmp.Agent.Guests;
using VSmp.Agent.Interop;
using VSmp.Coherence;
using VSmp.Coherence.Checkpointing;
using VSmp.Coherence.Homes;
using VSmp.Coherence.Lazy;
using VSmp.Coherence.Messages;
using VSmp.Coherence.Nodes;
using VSmp.Coherence.Protocols;
using VSmp.Coherence.Recovery;

namespace VSmp.Agent.Paging;

/// <summary>
/// Where guests, protocol and peers meet: takes the guests' faults and the peers' coherence messages, steps the protocol, and does what
/// it asks for. One thread, the reactor's, from a fault to its resolution.
/// </summary>
/// <remarks>
/// This file: faults, and what waits. Pager.Effects.cs: what the protocol asks for. Pager.Holds.cs: letting
/// threads use what they got. Pager.Pause.cs: serving nobody for a while. Pager.Eviction.cs: staying within budgets. Pager.Recovery.cs: after a node was lost. Pager.Barriers.cs: what is foreseen. Pager.Lazy.cs: acquire and release. Pager.Checkpoint.cs: checkpoints. Pager.Records.cs: what outlives the agent.
/// </remarks>
internal sealed unsafe partial class Pager : IDisposable
{
    /// <summary>How often a page that was written may be fetched for writing before it is written again.</summary>
    private const byte WritesExpectedAfterOne = 4;

    /// <summary>Frames that are left to what is asked for in earnest.</summary>
    private const long LeastFreeToAskAhead = 2;

    /// <summary>The part of a budget that is to be free, as its inverse, where pages around a miss are asked for that may never be touched.</summary>
    private const long RoomyShare = 8;

    private readonly Reactor _reactor;
    private readonly IFabric _fabric;
    private readonly NodeController _node;
    private readonly HomeController _home;
    private readonly Dictionary<RegionId, PagedRegion> _regions = [];
    private readonly EffectBuffer _effects = new();
    private readonly Queue<Message> _toSelf = new(256);
    private readonly MirrorController _mirror;
    private readonly RecoveryController _recovery;
    private readonly LazyNodeController _lazyNode;
    private readonly LazyHomeController _lazyHome;
    private readonly List<Fault> _waiting = new(64); // for the protocol
    private readonly List<Fault> _starved = new(64); // for a frame or a transaction
    private readonly Queue<Fault> _again = new(64);
    private PagedRegion? _lastRegion;
    private bool _hasProgressed;

    /// <summary>Makes the pager of a node.</summary>
    public Pager(NodeId self, Reactor reactor, IFabric fabric, Func<int> nodeLimit)
    {
        Self = self;
        _reactor = reactor;
        _fabric = fabric;
        _node = new NodeController(self);
        _home = new HomeController(self, nodeLimit);
        _mirror = new MirrorController(self);
        _recovery = new RecoveryController(self, _node, _home);
        _lazyNode = new LazyNodeController(self);
        _lazyHome = new LazyHomeController(self);
        _holdRules = new HoldRules(self);
    }

    /// <summary>This node.</summary>
    public NodeId Self { get; }

    /// <summary>Faults taken since the start.</summary>
    public ulong FaultCount { get; private set; }

    /// <summary>
    /// Whole pages copied on their way to peers since the start: from the frame into the outbox; or, where the frame goes at once, into a kept
    /// copy, and from there into the outbox: two.
    /// </summary>
    public ulong PagesCopiedOut { get; private set; }

    /// <summary>Whole pages copied from what peers sent into frames since the start.</summary>
    public ulong PagesCopiedIn { get; private set; }

    /// <summary>All regions that this node uses or backs.</summary>
    public IReadOnlyCollection<PagedRegion> Regions => _regions.Values;

    /// <summary>Raised (through the reactor) when an operation that answered Pending may go on.</summary>
    public event Action? Progressed;

    /// <summary>The region of that number, or null.</summary>
    public PagedRegion? Find(RegionId id)
    {
        if (_lastRegion is not null && _lastRegion.Id == id) return _lastRegion;
        return _regions.TryGetValue(id, out PagedRegion? region) ? _lastRegion = region : null;
    }

    /// <summary>Adds a region whose pages have single writers.</summary>
    /// <param name="region">Its protocol state.</param>
    /// <param name="frames">Its frames; the pager's from now on.</param>
    /// <param name="run">Whose budget its guests use; null where this node is only a home of it.</param>
    public PagedRegion Add(Region region, FrameFile frames, Run? run) => Add(new DirectoryProtocol(region, _node, _home, _mirror), frames, run);

    /// <summary>Adds a region under lazy release consistency.</summary>
    /// <inheritdoc cref="Add(Region, FrameFile, Run?)"/>
    public PagedRegion Add(LazyRegion region, FrameFile frames, Run? run) => Add(new LazyProtocol(region, _lazyNode, _lazyHome), frames, run);

    /// <summary>Drops a region with all its frames here. Guests that mapped it are gone, or will fault for ever.</summary>
    public void Remove(PagedRegion region)
    {
        _lastRegion = null;
        _regions.Remove(region.Id);
        _waiting.RemoveAll(f => f.Mapping.Region == region);
        _starved.RemoveAll(f => f.Mapping.Region == region);
        _paused.RemoveAll(f => f.Mapping.Region == region);
        region.Protocol.Drop();
        _recovery.Drop(region.Id);
        _rebuilding.Remove(region);
        region.Records?.Dispose(); // first: nobody is to adopt what has no frames any more
        region.Kept.Dispose();
        region.Twins.Dispose();
        region.Frames.Dispose();
        _hasProgressed = true; // transactions and frames are free again
        Removed?.Invoke(region.Id);
    }

    /// <summary>Reads the faults of a guest's userfaultfd and handles them.</summary>
    public void OnFaults(Mapping mapping)
    {
        if (_isPaused)
        {
            Mute(mapping);
            return;
        }
        const int Capacity = 16;
        UserfaultMessage* messages = stackalloc UserfaultMessage[Capacity];
        // SAFETY: the buffer holds Capacity messages.
        nint bytes = Libc.Read(mapping.Userfaultfd, messages, Capacity * (nuint)sizeof(UserfaultMessage));
        if (bytes <= 0) return;
        _reactor.Stages?.Mark(Stage.FaultRead);
        long now = _reactor.NowMicroseconds;
        PagedRegion region = mapping.Region;
        for (int i = 0; i < bytes / sizeof(UserfaultMessage); i++)
        {
            ref UserfaultMessage m = ref messages[i];
            if (m.Event != Userfaultfd.EventPageFault) continue;
            if (!mapping.TryTranslate(m.Address, out PageNumber page))
            {
                Log.Error($"guest {mapping.Guest.ProcessId}: fault at {m.Address:x}, outside its mapping");
                continue;
            }
            bool write = (m.Flags & (Userfaultfd.FaultWrite | Userfaultfd.FaultWriteProtected)) != 0;
            FaultCount++;
            mapping.Guest.Faults++;
            RunCounters counters = mapping.Guest.Run.Counters;
            if (write)
            {
                counters.FaultsWrite++;
                if (region.Layout.IsOpen(page.Extent)) region.LocalAt(page).WriteExpected = WritesExpectedAfterOne;
            }
            else
            {
                counters.FaultsRead++;
            }
            mapping.Guest.Returns.OnFault(m.ThreadId, region.Id, page);
            TryResolve(new Fault(mapping, page, write, (m.Flags & Userfaultfd.FaultWriteProtected) != 0, m.ThreadId, now), isNew: true);
        }
        Drain();
    }

    /// <summary>A coherence message from a peer.</summary>
    public void OnMessage(in Message message, ReadOnlySpan<byte> payload)
    {
        PagedRegion? region = Find(message.Region);
        if (region is null) return; // dropped meanwhile; nobody waits for it any more
        if (message.Page.Value + message.Count > region.Layout.PageCount) throw new ProtocolViolationException($"beyond the region's end: {message}");
        if (message.Type == MessageType.Diff && PageDiff.Violation(payload) is { } violation) throw new ProtocolViolationException($"{violation}: {message}");
        if (region.Run is { } run) run.Counters.BytesReceived += FrameHeader.Bytes + (ulong)payload.Length;
        Dispatch(region, in message, payload);
        Drain();
        ReportRebuilt();
    }

    /// <summary>The end of a turn: what waits is tried again, holds end, copies are evicted ahead of need.</summary>
    public void OnTurnEnd()
    {
        Tripwire?.Invoke();
        AskForeseen();
        EndHolds();
        EvictAhead();
        Drain();
        for (int rounds = 0; _hasProgressed && rounds < 4; rounds++)
        {
            _hasProgressed = false;
            Starved();
            Progressed?.Invoke();
            Drain();
        }
        if (_hasProgressed) _reactor.WakeBy(_reactor.NowMicroseconds); // it goes on, after others had their share
        WakeForHolds();
    }

    /// <summary>Throws the contents of pages away; they read zeros afterwards.</summary>
    /// <returns>How many pages are done; if not all, go on when <see cref="Progressed"/> is raised.</returns>
    public uint Discard(PagedRegion region, PageNumber page, uint pageCount) =>
        ForEach(region, page, pageCount, static (protocol, p, effects) => protocol.Discard(p, effects));

    /// <summary>Drops pages whose extents are being given back. Only for regions that no other node uses.</summary>
    /// <returns>How many pages are done; if not all, go on when <see cref="Progressed"/> is raised.</returns>
    public uint Forget(PagedRegion region, PageNumber page, uint pageCount) =>
        ForEach(region, page, pageCount, static (protocol, p, effects) => protocol.Forget(p, effects));

    /// <inheritdoc/>
    public void Dispose()
    {
        foreach (PagedRegion region in _regions.Values.ToArray()) Remove(region);
        NativeMemory.Free(_diffScratch);
    }

    private uint ForEach(PagedRegion region, PageNumber page, uint pageCount, Func<IRegionProtocol, PageNumber, EffectBuffer, AccessResult> operation)
    {
        uint done = 0;
        for (; done < pageCount; done++)
        {
            PageNumber p = page.Plus(done);
            if (!region.Layout.IsOpen(p.Extent)) continue; // nothing is there
            if (operation(region.Protocol, p, _effects) != AccessResult.Hit) break;
        }
        Drain();
        return done;
    }

    /// <summary>Steps the protocol for a fault: resolves it, or lets it wait for what will.</summary>
    private void TryResolve(in Fault fault, bool isNew)
    {
        Mapping mapping = fault.Mapping;
        PagedRegion region = mapping.Region;
        if (mapping.IsGone) return;
        if (_isPaused)
        {
            _paused.Add(fault);
            return;
        }
        IRegionProtocol protocol = region.Protocol;
        PageCopy copy = isNew && region.Layout.IsOpen(fault.Page.Extent) ? protocol.CopyOf(fault.Page) : PageCopy.None;
        bool write = fault.Write || ExpectsWrite(in fault);
        RegionCapture? capture = CaptureOf(region);
        if (write && capture is not null && capture.IsPending(fault.Page) && !region.Taker!.HasRoom)
        {
            // It is copied first, and there is no room for that.
            if (region.Layout.IsOpen(fault.Page.Extent)) region.LocalAt(fault.Page).Mapped = 0; // it is to be mapped again
            _starved.Add(fault);
            return;
        }
        switch (protocol.Access(fault.Page, write, _effects))
        {
            case AccessResult.Hit:
                if (write && capture is not null && capture.IsSaved(fault.Page)) BeginWrite(in fault, capture);
                bool writable = protocol.CopyOf(fault.Page) == PageCopy.Writable;
                if (isNew || !IsMappedAlready(in fault)) MapForFault(in fault, writable);
                _reactor.Stages?.Mark(Stage.Mapped);
                Finish(in fault);
                break;
            case AccessResult.Pending:
                _waiting.Add(fault);
                region.LocalAt(fault.Page).IsAwaited = true;
                if (!isNew) break;
                if (copy != PageCopy.UnderWay) mapping.Forecast?.OnMiss(fault.Page, write);
                AskAhead(mapping, fault.Page, write, copy);
                break;
            case AccessResult.NeedsFrame:
                if (EvictNow(region.Run!)) TryResolve(in fault, isNew: false);
                else _starved.Add(fault);
                break;
            case AccessResult.NeedsTransaction:
                _starved.Add(fault);
                break;
            case AccessResult.NotReserved:
                PoisonUnreserved(in fault);
                break;
            case AccessResult.Frozen:
                _waiting.Add(fault);
                region.LocalAt(fault.Page).IsAwaited = true;
                break;
        }
    }

    /// <summary>
    /// Whether to ask for a page to write though it is only read now. Most data that are read are written soon after, and asking
    /// twice takes twice as long. To the protocol this is a store like any other.
    /// </summary>
    /// <remarks>
    /// Memory that a program has just got is nearly always written, and nobody else has it. (Ranks may well read what others are yet to write.)
    /// </remarks>
    private static bool ExpectsWrite(in Fault fault)
    {
        PagedRegion region = fault.Mapping.Region;
        PageNumber page = fault.Page;
        if (!region.Protocol.AsksBeforeWriting || !region.Layout.IsOpen(page.Extent) || region.Protocol.CopyOf(page) != PageCopy.None) return false;
        ref LocalPage local = ref region.LocalAt(page);
        if (!fault.Mapping.Guest.IsRank && region.Protocol.IsFresh(page))
        {
            local.WriteExpected = WritesExpectedAfterOne; // when it comes back, too
            return true;
        }
        if (local.WriteExpected == 0) return false;
        local.WriteExpected--;
        return true;
    }

    /// <summary>Whether the grant that this fault waited for has mapped the page already, as part of its run.</summary>
    private static bool IsMappedAlready(in Fault fault)
    {
        PagedRegion region = fault.Mapping.Region;
        return region.Mappings.Count == 1 && (region.LocalAt(fault.Page).Mapped & fault.Mapping.Mask) != 0;
    }

    private void Starved()
    {
        if (_starved.Count == 0) return;
        foreach (Fault f in _starved) _again.Enqueue(f);
        _starved.Clear();
    }

    /// <summary>Asks for the pages behind one that was missed, or around it, as far as they are in the same state.</summary>
    /// <param name="mapping">Whose guest missed it.</param>
    /// <param name="missed">The page.</param>
    /// <param name="write">Whether it was asked for to be written.</param>
    /// <param name="copy">What was here of it before.</param>
    private void AskAhead(Mapping mapping, PageNumber missed, bool write, PageCopy copy)
    {
        PagedRegion region = mapping.Region;
        IRegionProtocol protocol = region.Protocol;
        bool isUpgrade = copy is PageCopy.Clean or PageCopy.Dirty;
        bool isFresh = !isUpgrade && protocol.IsFresh(missed);
        ExtentNumber extent = missed.Extent;
        bool isHome = region.Layout.IsHome(extent);
        // Ranks share a region: what one never touches another may be about to.
        bool isRoomy = !mapping.Guest.IsRank && (isHome || region.Run!.Budget.FreePages > region.Run.Budget.LimitPages / RoomyShare);
        (PageNumber first, uint pageCount) = copy == PageCopy.UnderWay
            ? region.ReadAhead.OnCaughtUp(missed, isFresh, out isUpgrade)
            : region.ReadAhead.OnMiss(missed, isFresh, isUpgrade, isRoomy);
        if (pageCount == 0 || first.Extent != extent || !HasCreditAtHome(region, extent)) return;
        isFresh &= !isUpgrade;
        PageCopy from = isUpgrade ? PageCopy.Clean : PageCopy.None;
        uint asked = 0, gap = 0;
        for (uint i = 0; i < pageCount; i++)
        {
            PageNumber page = first.Plus(i);
            if (page.Extent != extent || page.Value >= region.Layout.PageCount) break;
            if (protocol.CopyOf(page) != from || region.LocalAt(page).IsPoisoned || (isFresh && !protocol.IsFresh(page)))
            {
                bool isInBlock = isFresh && isRoomy; // around the miss
                if (isInBlock || ++gap <= region.ReadAhead.Gap) continue;
                break;
            }
            gap = 0;
            if (!MayAskAhead(region, extent) || !protocol.TryAskAhead(page, write, _effects)) break;
            if (isFresh && write && !mapping.Guest.IsRank) region.LocalAt(page).WriteExpected = WritesExpectedAfterOne;
            asked = i + 1;
        }
        region.ReadAhead.AskedUpTo(first.Plus(asked));
    }

    /// <summary>Whether there is a frame for a page that nobody waits for.</summary>
    private static bool MayAskAhead(PagedRegion region, ExtentNumber extent) =>
        region.Layout.IsHome(extent) || region.Run!.Budget.FreePages >= LeastFreeToAskAhead;

    private void Finish(in Fault fault)
    {
        fault.Mapping.Guest.Run.Counters.FaultLatency.Add((Reactor.Clock() - fault.ArrivedMicroseconds) * 1000);
        Hold(in fault);
    }

    private static void PoisonUnreserved(in Fault fault)
    {
        Guest guest = fault.Mapping.Guest;
        guest.Tell($"process {guest.ProcessId} touched pooled memory that it has not allocated ({fault.Page} of region {fault.Mapping.Region.Layout.Name}); it gets SIGBUS");
        int error = Poison(fault.Mapping, fault.Page, wasPoisoned: false);
        if (error != 0) guest.Kill($"touched unallocated pooled memory, and it could not be poisoned ({Errno.Text(error)})");
    }

    /// <summary>Does everything that the last step asked for, what follows from that, and tries again what waited for it.</summary>
    private void Drain()
    {
        while (true)
        {
            ExecuteEffects(default, []);
            // Who waited goes first, and holds what it got: else a request that waits at this home behind the grant takes the page away
            // before it was used once, for ever (found by the model checker).
            if (_again.TryDequeue(out Fault fault))
            {
                TryResolve(in fault, isNew: false);
            }
            else if (_toSelf.TryDequeue(out Message message))
            {
                if (Find(message.Region) is { } region) Dispatch(region, in message, []);
            }
            else if (_effects.Count == 0)
            {
                return;
            }
        }
    }

    private void Dispatch(PagedRegion region, in Message message, ReadOnlySpan<byte> payload)
    {
        region.Protocol.OnMessage(in message, _effects);
        ExecuteEffects(in message, payload);
    }

    private PagedRegion Add(IRegionProtocol protocol, FrameFile frames, Run? run)
    {
        PagedRegion region = IsRecording ? NewRecorded(protocol, frames, run) : new PagedRegion(protocol, frames, run);
        _regions.Add(region.Id, region);
        return region;
    }

    /// <summary>A guest's thread that waits for a page.</summary>
    private readonly record struct Fault(Mapping Mapping, PageNumber Page, bool Write, bool IsProtection, uint ThreadId, long ArrivedMicroseconds);
}
