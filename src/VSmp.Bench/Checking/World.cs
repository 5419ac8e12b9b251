// SPDX-License-Identifier: Apache-2.0
using VSmp.Coherence;
using VSmp.Coherence.Checkpointing;
using VSmp.Coherence.Homes;
using VSmp.Coherence.Messages;
using VSmp.Coherence.Nodes;
using VSmp.Coherence.Placement;
using VSmp.Coherence.Protocols;
using VSmp.Coherence.Recovery;

namespace VSmp.Bench.Checking;

/// <summary>
/// A cluster in one state: the shipped controllers, and around them what the agent and the kernel are to them: frames, kept
/// copies, mappings, threads that wait, messages under way. Effects are executed as the pager executes them.
/// </summary>
/// <remarks>
/// Contents are three values and their absence, which loses nothing: the protocol does not look at data, and a read is right or
/// wrong. A write makes all other copies <see cref="Contents.Old"/>; that covers any number of data values.
/// </remarks>
internal sealed partial class World
{
    public static readonly RegionId RegionId = new(1);
    public static readonly ExtentNumber Extent = new(0);
    private const int Networks = 3;

    /// <summary>What one node may do about one event, in steps: far more than there is to do.</summary>
    private const int TurnLimit = 1000;

    private readonly EffectBuffer _effects = new();
    private readonly Queue<(NodeId Node, Flight Flight)> _toSelf = new();
    private readonly List<(int Wire, Flight Flight)> _outbox = [];
    private readonly List<(byte Node, Access Access)> _retry = [];
    private readonly WorldBugs _bugs;
    private bool _refuses;

    public World(Scenario scenario)
    {
        Scenario = scenario;
        _bugs = scenario.Planted?.World ?? WorldBugs.None;
        int n = scenario.Nodes, p = scenario.Pages;
        Nodes = new NodeController[n];
        Regions = new Region[n];
        Budgets = new FrameBudget[n];
        Homes = new HomeController[n];
        Mirrors = new MirrorController[n];
        Recoveries = new RecoveryController[n];
        Frames = new Contents[n * p];
        Kept = new Contents[n * p];
        Mapped = new Right[n * p * Scenario.MaxMappings];
        Waiting = new List<Access>[n];
        Wires = new List<Flight>[n * n * Networks];
        LatestIsZero = new bool[p];
        for (ushort i = 0; i < n; i++)
        {
            var homes = new HomeMap(1);
            homes.Place(Extent, new NodeId(0));
            Nodes[i] = new NodeController(new NodeId(i), transactionCapacity: 8);
            Budgets[i] = new FrameBudget(p);
            bool isUser = scenario.IsUser(i);
            Regions[i] = new Region(RegionId, "checked", 1, scenario.Protocol, isUser ? homes : null, isUser ? Budgets[i] : null);
            if (isUser) Regions[i].Open(Extent);
            Waiting[i] = [];
            Homes[i] = new HomeController(new NodeId(i), () => scenario.Nodes);
            Mirrors[i] = new MirrorController(new NodeId(i));
            Recoveries[i] = new RecoveryController(new NodeId(i), Nodes[i], Homes[i]);
        }
        Regions[0].BecomeHome(Extent);
        if (scenario.Mirror is { } mirror)
        {
            Regions[0].SetMirror(Extent, new NodeId(mirror));
            Regions[mirror].Mirrored.Add(Extent, new NodeId(0), isFresh: !scenario.IsMirrorLate);
            MirrorNode = mirror;
        }
        IsMirrorComplete = !scenario.IsMirrorLate;
        MayBeLost = new bool[p];
        UnackedWriter = new byte[p];
        PriorIsZero = new bool[p];
        _nodeWords = new ulong[n * p];
        _homeWords = new ulong[n * p];
        _records = [.. Enumerable.Range(0, n).Select(node => new Records(this, node))];
        Members = new CheckpointMember?[n];
        Captured = new Contents[p];
        Composed = new Contents[p];
        CutIsZero = new bool[p];
        IsWrittenSinceCut = new bool[p];
        IsPriorCut = new bool[p];
        Array.Fill(Captured, Contents.None);
        for (int i = 0; i < n && scenario.Checkpoints > 0; i++) Regions[i].Capture = new RegionCapture(1);
        for (int i = 0; i < Wires.Length; i++) Wires[i] = [];
        Array.Fill(Frames, Contents.None);
        Array.Fill(Kept, Contents.None);
        Array.Fill(LatestIsZero, true);
    }

    public Scenario Scenario { get; }
    public NodeController[] Nodes { get; }
    public Region[] Regions { get; }
    public FrameBudget[] Budgets { get; }
    public HomeController[] Homes { get; }
    public MirrorController[] Mirrors { get; }
    public RecoveryController[] Recoveries { get; }
    public Contents[] Frames { get; }
    public Contents[] Kept { get; }
    public Right[] Mapped { get; }
    public List<Access>[] Waiting { get; }
    public List<Flight>[] Wires { get; }
    public bool[] LatestIsZero { get; }

    /// <summary>What the last move led to, for people; collected where it is not null.</summary>
    public List<string>? Story { get; set; }

    public int WireOf(int from, int to, int network) => (((from * Scenario.Nodes) + to) * Networks) + network;

    public ref Contents FrameOf(int node, int page) => ref Frames[(node * Scenario.Pages) + page];

    public ref Contents KeptOf(int node, int page) => ref Kept[(node * Scenario.Pages) + page];

    public ref Right MappedOf(int node, int page, int mapping) =>
        ref Mapped[(((node * Scenario.Pages) + page) * Scenario.MaxMappings) + mapping];

    /// <summary>All that can happen now.</summary>
    public void ListMoves(List<Move> moves)
    {
        moves.Clear();
        for (byte node = 0; node < Scenario.Nodes; node++)
        {
            if ((Scenario.IsPrivate && node != Scenario.Nodes - 1) || !IsUsing(node)) continue;
            for (byte page = 0; page < Scenario.Pages; page++) ListLocalMoves(node, page, moves);
        }
        if (Scenario.Crashes > 0 || Restarted != 0) ListLosses(moves);
        for (byte node = 0; node < Scenario.Nodes && Restarts < Scenario.Restarts; node++)
        {
            if (!IsLost(node)) moves.Add(new Move(MoveKind.Restart, node, 0, 0));
        }
        if (Scenario.Mirror is not null) ListHomeMoves(moves);
        if (Scenario.Checkpoints > 0) ListCheckpointMoves(moves);
        for (byte from = 0; from < Scenario.Nodes; from++)
        {
            for (byte to = 0; to < Scenario.Nodes; to++)
            {
                for (byte network = 0; network < Networks; network++) ListDeliveries(from, to, network, moves);
            }
        }
    }

    /// <summary>Does a move, and checks what must always hold.</summary>
    /// <exception cref="InvariantException">It does not.</exception>
    /// <exception cref="ProtocolViolationException">The protocol says that this cannot be.</exception>
    public void Do(Move move)
    {
        // What a move that broke an invariant left undone is no part of the state that was loaded since.
        _effects.Clear();
        _toSelf.Clear();
        _outbox.Clear();
        _retry.Clear();
        _refuses = false;
        _isKilled = false;
        _killAt = move.KillAt;
        Points = 0;
        if (move.Kind == MoveKind.Restart) _isKilled = true;
        else if (move.IsDelivery) Deliver(move);
        else DoLocal(move);
        int actor = move.IsDelivery ? move.Page : move.Node;
        if (_isKilled) Restart(actor);
        else CheckRecorded(actor);
        if (Scenario.HasRecovery) SettleUnacked();
        SettleMirror();
        Check();
    }

    /// <summary>Whether nothing is under way: no message, no thread that waits, nothing held back.</summary>
    public bool IsQuiet()
    {
        foreach (List<Flight> wire in Wires)
        {
            if (wire.Count > 0) return false;
        }
        foreach (NodeController node in Nodes)
        {
            if (node.Parked.Count > 0) return false;
        }
        return Scenario.Checkpoints == 0 || !IsTaking;
    }

    private static bool IsHeld(in PageEntry entry) => (entry.Flags & PageFlags.Held) != 0;

    private static PageNumber PageAt(int page) => new((ulong)page);

    private void ListLocalMoves(byte node, byte page, List<Move> moves)
    {
        ref PageEntry entry = ref Regions[node].PageAt(PageAt(page));
        for (byte mapping = 0; mapping < Scenario.Mappings; mapping++)
        {
            Right right = MappedOf(node, page, mapping);
            if (right == Right.Write) moves.Add(new Move(MoveKind.WriteHit, node, page, mapping));
            if (Waiting[node].Count >= Scenario.Outstanding) continue;
            moves.Add(new Move(MoveKind.ReadFault, node, page, mapping));
            moves.Add(new Move(MoveKind.WriteFault, node, page, mapping));
            if (!Scenario.AsksAhead || page + 1 >= Scenario.Pages) continue;
            moves.Add(new Move(MoveKind.ReadFaultAhead, node, page, mapping));
            moves.Add(new Move(MoveKind.WriteFaultAhead, node, page, mapping));
        }
        bool mayGo = NodeStates.IsStable(entry.State) && entry.State != NodeState.I;
        if (!Regions[node].IsHome(Extent) && mayGo && !IsHeld(in entry) && !Regions[node].IsFrozen && !Regions[node].IsHeld) moves.Add(new Move(MoveKind.Evict, node, page, 0));
        if (Scenario.IsPrivate) moves.Add(new Move(MoveKind.Discard, node, page, 0));
        if (IsHeld(in entry)) moves.Add(new Move(MoveKind.Unhold, node, page, 0));
    }

    private void ListDeliveries(byte from, byte to, byte network, List<Move> moves)
    {
        List<Flight> wire = Wires[WireOf(from, to, network)];
        if (wire.Count == 0) return;
        if (IsControl(wire[0].Message.Type))
        {
            if (network == 0 && IsFirst(from, to)) moves.Add(new Move(MoveKind.Deliver, from, to, network));
            return;
        }
        moves.Add(new Move(MoveKind.Deliver, from, to, network));
        MessageType type = wire[0].Message.Type;
        // Directly behind the delivery that it is compared with (see ModelChecker).
        if (Scenario.Refusals && MayMap(type)) moves.Add(new Move(MoveKind.DeliverRefused, from, to, network));
        bool mayBeHeld = Scenario.Holds && MayBeHeld(to, wire[0].Message);
        if (mayBeHeld) moves.Add(new Move(MoveKind.DeliverHeld, from, to, network));
        if (wire[0].Message.Count > 1)
        {
            moves.Add(new Move(MoveKind.DeliverFirst, from, to, network));
            if (mayBeHeld) moves.Add(new Move(MoveKind.DeliverFirstHeld, from, to, network));
        }
        if (wire.Count > 1 && (_bugs & WorldBugs.ForwardsReordered) != 0 && network == (byte)VirtualNetwork.Forward)
            moves.Add(new Move(MoveKind.DeliverSecond, from, to, network));
        if ((_bugs & WorldBugs.ResponsesDuplicated) != 0 && network == (byte)VirtualNetwork.Response)
            moves.Add(new Move(MoveKind.DeliverTwice, from, to, network));
        if ((_bugs & WorldBugs.InvAckLost) != 0 && type == MessageType.InvAck) moves.Add(new Move(MoveKind.Lose, from, to, network));
    }

    /// <summary>
    /// Whether it makes a difference to a message that a page is held at its receiver. A hold begins with any access, and ends
    /// whenever it likes; so it is not part of a state, unless something waits for its end, but of the move that it stands in the
    /// way of.
    /// </summary>
    private bool MayBeHeld(int node, in Message message)
    {
        // At the home, what a message sets free may be for the home's own page.
        bool isForward = MessageTypes.NetworkOf(message.Type) == VirtualNetwork.Forward;
        bool isHome = Regions[node].IsHome(Extent);
        if ((!isHome && !isForward) || !IsUsing(node)) return false;
        for (uint i = 0; i < message.Count; i++)
        {
            ref PageEntry entry = ref Regions[node].PageAt(message.Page.Plus(i));
            if (!IsHeld(in entry) && (isHome ? entry.State != NodeState.I : NodeStates.MayRead(entry.State))) return true;
        }
        return false;
    }

    /// <summary>Whether a page may be mapped when a message of a type comes.</summary>
    private static bool MayMap(MessageType type) => type is MessageType.DataS or MessageType.DataE or MessageType.DataM
        or MessageType.OwnerGrant or MessageType.SoleGrant or MessageType.InvAck or MessageType.InstallAck;

    private void DoLocal(Move move)
    {
        int node = move.Node;
        if (move.Kind == MoveKind.Crash)
        {
            Crash(node);
            return;
        }
        if (move.Kind is >= MoveKind.CheckpointBegin and <= MoveKind.CheckpointGiveUp)
        {
            DoCheckpoint(move);
            return;
        }
        var page = PageAt(move.Page);
        Region region = Regions[node];
        switch (move.Kind)
        {
            case MoveKind.WriteHit:
                Write(node, move.Page);
                return;
            case MoveKind.ReadFault or MoveKind.WriteFault:
                Fault(node, new Access(move.Page, move.Mapping, move.Kind == MoveKind.WriteFault), ahead: false);
                break;
            case MoveKind.ReadFaultAhead or MoveKind.WriteFaultAhead:
                Fault(node, new Access(move.Page, move.Mapping, move.Kind == MoveKind.WriteFaultAhead), ahead: true);
                break;
            case MoveKind.Evict:
                if (!Nodes[node].TryEvict(region, page, _effects)) throw new InvariantException("a page that may go was not evicted");
                break;
            case MoveKind.Discard:
                ulong before = _nodeWords[(node * Scenario.Pages) + move.Page];
                bool isThrownAway = Nodes[node].Discard(region, page, _effects) == AccessResult.Hit;
                Drain(node);
                // Killed before it was recorded, it has not happened; who was to be told tries again.
                if (!isThrownAway || (_isKilled && before == _nodeWords[(node * Scenario.Pages) + move.Page])) return;
                Forget(move.Page, Contents.Old);
                LatestIsZero[move.Page] = true;
                return;
            case MoveKind.Unhold:
                Nodes[node].Unhold(region, page, _effects);
                break;
            case MoveKind.Learn:
                Learn();
                break;
            case MoveKind.MoveHome:
                MoveHome();
                break;
            case MoveKind.CopyToMirror:
                CopyToMirror(node, move.Page);
                break;
        }
        Drain(node);
    }

    private void Deliver(Move move)
    {
        List<Flight> wire = Wires[WireOf(move.Node, move.Page, move.Mapping)];
        int at = move.Kind == MoveKind.DeliverSecond ? 1 : 0;
        Flight flight = wire[at];
        if (move.Kind is MoveKind.DeliverFirst or MoveKind.DeliverFirstHeld)
        {
            wire[at] = flight.Rest;
            flight = flight.FirstPage;
        }
        else if (IsControl(flight.Message.Type))
        {
            for (int network = 0; network < Networks; network++) Wires[WireOf(move.Node, move.Page, network)].RemoveAt(0);
        }
        else if (move.Kind != MoveKind.DeliverTwice)
        {
            wire.RemoveAt(at);
        }
        if (move.Kind == MoveKind.Lose) return;
        if (move.Kind is MoveKind.DeliverHeld or MoveKind.DeliverFirstHeld)
        {
            for (uint i = 0; i < flight.Message.Count; i++) NodeController.Hold(Regions[move.Page], flight.Message.Page.Plus(i));
        }
        _refuses = move.Kind == MoveKind.DeliverRefused;
        Dispatch(move.Page, in flight);
        Drain(move.Page);
        _refuses = false;
    }

    /// <summary>A guest writes: every other copy is old now.</summary>
    private void Write(int node, int page)
    {
        if (FrameOf(node, page) == Contents.None) throw new InvariantException($"node {node} writes to page {page} without a frame");
        CheckCutStands(node, page);
        Forget(page, BeginsUnacked(node, page) ? Contents.Prior : Contents.Old);
        LatestIsZero[page] = false;
        FrameOf(node, page) = Contents.Latest;
    }

    /// <summary>What was written last is not that any more, wherever it is, but something else.</summary>
    private void Forget(int page, Contents becomes)
    {
        bool isCut = IsPastCut && !IsWrittenSinceCut[page];
        IsWrittenSinceCut[page] |= isCut;
        Replace(page, Contents.Latest, becomes == Contents.Old && isCut ? Contents.Cut : becomes);
        if (becomes == Contents.Old) return;
        PriorIsZero[page] = LatestIsZero[page];
        IsPriorCut[page] = isCut;
    }

    private void Replace(int page, Contents what, Contents by)
    {
        for (int node = 0; node < Scenario.Nodes; node++)
        {
            Replace(ref FrameOf(node, page), what, by);
            Replace(ref KeptOf(node, page), what, by);
        }
        Replace(ref Captured[page], what, by);
        Replace(ref Composed[page], what, by);
        foreach (List<Flight> wire in Wires)
        {
            for (int i = 0; i < wire.Count; i++)
            {
                Flight f = wire[i];
                Contents first = f.First, second = f.Second;
                if ((int)f.Message.Page.Value == page) Replace(ref first, what, by);
                else if ((int)f.Message.Page.Value + 1 == page) Replace(ref second, what, by);
                wire[i] = f with { First = first, Second = second };
            }
        }
    }

    private static void Replace(ref Contents contents, Contents what, Contents by)
    {
        if (contents == what) contents = by;
    }

    private void Fault(int node, Access access, bool ahead)
    {
        Region region = Regions[node];
        bool hadData = region.PageAt(PageAt(access.Page)).State != NodeState.I;
        if (TryAccess(node, access) || !ahead) return;
        // As the pager asks ahead of a miss; whether it wants to is for it to say.
        if (region.PageAt(PageAt(access.Page + 1)).State != (hadData ? NodeState.S : NodeState.I)) return;
        _ = Nodes[node].Access(region, PageAt(access.Page + 1), access.Write, MessageFlags.None, _effects);
    }

    /// <returns>Whether the page is there with that right.</returns>
    private bool TryAccess(int node, Access access)
    {
        ref PageEntry entry = ref Regions[node].PageAt(PageAt(access.Page));
        switch (Nodes[node].Access(Regions[node], PageAt(access.Page), access.Write, MessageFlags.None, _effects))
        {
            case AccessResult.Hit:
                if (access.Write) BeginWrite(node, access.Page);
                if (!_refuses) Map(node, access.Page, access.Mapping, entry.State);
                if (Scenario.Holds) NodeController.Hold(Regions[node], PageAt(access.Page));
                return true;
            case AccessResult.Pending or AccessResult.Frozen:
                entry.Flags |= PageFlags.Awaited;
                Waiting[node].Add(access);
                return false;
            case AccessResult result:
                throw new InvariantException($"an access of node {node} to page {access.Page} gets {result}");
        }
    }

    private void Map(int node, int page, int mapping, NodeState state)
    {
        // What is saved is write-protected until it is written again.
        bool isSaved = Regions[node].Capture is { } capture && capture.IsSaved(PageAt(page)) && (_bugs & WorldBugs.SavedMappedWritable) == 0;
        bool writable = (NodeStates.MayWrite(state) && !isSaved) || (_bugs & WorldBugs.MapsTooMuch) != 0;
        MappedOf(node, page, mapping) = writable ? Right.Write : Right.Read;
    }
}
