// SPDX-License-Identifier: Apache-2.0
using VSmp.Coherence;
using VSmp.Coherence.Homes;
using VSmp.Coherence.Messages;
using VSmp.Coherence.Nodes;
using VSmp.Coherence.Placement;
using VSmp.Coherence.Protocols;

namespace VSmp.Bench.Checking;

/// <summary>What is in a page, as far as it matters: whether it is what was written last.</summary>
internal enum Contents : byte
{
    /// <summary>Zeros: right as long as nobody has written since the page was new, or thrown away.</summary>
    Zero,
    /// <summary>Something that was overwritten since, elsewhere.</summary>
    Old,
    /// <summary>What was written last.</summary>
    Latest,
    /// <summary>No frame.</summary>
    None,
}

/// <summary>What a process may do with a page without being noticed.</summary>
internal enum Right : byte
{
    None,
    Read,
    Write,
}

/// <summary>A thread that waits for a page.</summary>
internal readonly record struct Access(byte Page, byte Mapping, bool Write);

/// <summary>A message under way, with the contents of the pages that it is about.</summary>
internal readonly record struct Flight(Message Message, Contents First, Contents Second);

/// <summary>
/// A cluster in one state: the shipped controllers, and around them what the agent and the kernel are to them: frames, kept
/// copies, mappings, threads that wait, messages under way. Effects are executed as the pager executes them.
/// </summary>
/// <remarks>
/// Contents are three values and their absence, which loses nothing: the protocol does not look at data, and a read is right or wrong.
/// A write makes all other copies <see cref="Contents.Old"/>; that covers any number of data values.
/// </remarks>
internal sealed class World
{
    public static readonly RegionId RegionId = new(1);
    private const int Networks = 3;

    /// <summary>What one node may do about one event, in steps: far more than there is to do.</summary>
    private const int TurnLimit = 1000;

    private readonly EffectBuffer _effects = new();
    private readonly Queue<(NodeId Node, Flight Flight)> _toSelf = new();
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
        Home = new HomeController(new NodeId(0), () => scenario.Nodes);
        Frames = new Contents[n * p];
        Kept = new Contents[n * p];
        Mapped = new Right[n * p * Scenario.MaxMappings];
        Waiting = new List<Access>[n];
        Wires = new List<Flight>[n * n * Networks];
        LatestIsZero = new bool[p];
        for (ushort i = 0; i < n; i++)
        {
            var homes = new HomeMap(1);
            homes.Place(new ExtentNumber(0), new NodeId(0));
            Nodes[i] = new NodeController(new NodeId(i), transactionCapacity: 8);
            Budgets[i] = new FrameBudget(p);
            Regions[i] = new Region(RegionId, "checked", 1, scenario.Protocol, homes, Budgets[i]);
            Regions[i].Open(new ExtentNumber(0));
            Waiting[i] = [];
        }
        Regions[0].BecomeHome(new ExtentNumber(0));
        for (int i = 0; i < Wires.Length; i++) Wires[i] = [];
        Array.Fill(Frames, Contents.None);
        Array.Fill(Kept, Contents.None);
        Array.Fill(LatestIsZero, true);
    }

    public Scenario Scenario { get; }
    public NodeController[] Nodes { get; }
    public Region[] Regions { get; }
    public FrameBudget[] Budgets { get; }
    public HomeController Home { get; }
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
            if (Scenario.IsPrivate && node != Scenario.Nodes - 1) continue;
            for (byte page = 0; page < Scenario.Pages; page++) ListLocalMoves(node, page, moves);
        }
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
        _retry.Clear();
        _refuses = false;
        if (move.IsDelivery)
        {
            Deliver(move);
        }
        else
        {
            DoLocal(move);
        }
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
        return true;
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
        if (node != 0 && mayGo && !IsHeld(in entry)) moves.Add(new Move(MoveKind.Evict, node, page, 0));
        if (Scenario.IsPrivate) moves.Add(new Move(MoveKind.Discard, node, page, 0));
        if (IsHeld(in entry)) moves.Add(new Move(MoveKind.Unhold, node, page, 0));
    }

    private void ListDeliveries(byte from, byte to, byte network, List<Move> moves)
    {
        List<Flight> wire = Wires[WireOf(from, to, network)];
        if (wire.Count == 0) return;
        moves.Add(new Move(MoveKind.Deliver, from, to, network));
        MessageType type = wire[0].Message.Type;
        if (Scenario.Refusals && type is MessageType.DataS or MessageType.DataM or MessageType.InvAck)
            moves.Add(new Move(MoveKind.DeliverRefused, from, to, network));
        if (wire.Count > 1 && (_bugs & WorldBugs.ForwardsReordered) != 0 && network == (byte)VirtualNetwork.Forward)
            moves.Add(new Move(MoveKind.DeliverSecond, from, to, network));
        if ((_bugs & WorldBugs.ResponsesDuplicated) != 0 && network == (byte)VirtualNetwork.Response)
            moves.Add(new Move(MoveKind.DeliverTwice, from, to, network));
        if ((_bugs & WorldBugs.InvAckLost) != 0 && type == MessageType.InvAck) moves.Add(new Move(MoveKind.Lose, from, to, network));
    }

    private void DoLocal(Move move)
    {
        int node = move.Node;
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
                if (Nodes[node].Discard(region, page, _effects) == AccessResult.Hit)
                {
                    Forget(move.Page);
                    LatestIsZero[move.Page] = true;
                }
                break;
            case MoveKind.Unhold:
                Nodes[node].Unhold(region, page, _effects);
                break;
        }
        Drain(node);
    }

    private void Deliver(Move move)
    {
        List<Flight> wire = Wires[WireOf(move.Node, move.Page, move.Mapping)];
        int at = move.Kind == MoveKind.DeliverSecond ? 1 : 0;
        Flight flight = wire[at];
        if (move.Kind != MoveKind.DeliverTwice) wire.RemoveAt(at);
        if (move.Kind == MoveKind.Lose) return;
        _refuses = move.Kind == MoveKind.DeliverRefused;
        Dispatch(move.Page, in flight);
        Drain(move.Page);
        _refuses = false;
    }

    /// <summary>A guest writes: every other copy is old now.</summary>
    private void Write(int node, int page)
    {
        if (FrameOf(node, page) == Contents.None) throw new InvariantException($"node {node} writes to page {page} without a frame");
        Forget(page);
        LatestIsZero[page] = false;
        FrameOf(node, page) = Contents.Latest;
    }

    private void Forget(int page)
    {
        for (int node = 0; node < Scenario.Nodes; node++)
        {
            Age(ref FrameOf(node, page));
            Age(ref KeptOf(node, page));
        }
        foreach (List<Flight> wire in Wires)
        {
            for (int i = 0; i < wire.Count; i++)
            {
                Flight f = wire[i];
                Contents first = f.First, second = f.Second;
                if ((int)f.Message.Page.Value == page) Age(ref first);
                else if ((int)f.Message.Page.Value + 1 == page) Age(ref second);
                wire[i] = f with { First = first, Second = second };
            }
        }
    }

    private static void Age(ref Contents contents)
    {
        if (contents == Contents.Latest) contents = Contents.Old;
    }

    private void Fault(int node, Access access, bool ahead)
    {
        Region region = Regions[node];
        bool hadData = region.PageAt(PageAt(access.Page)).State != NodeState.I;
        if (TryAccess(node, access) || !ahead) return;
        // As the pager asks ahead of a miss.
        var next = PageAt(access.Page + 1);
        bool isFresh = (region.PageAt(PageAt(access.Page)).Flags & PageFlags.MayBeWritten) == 0 && !hadData;
        ref PageEntry entry = ref region.PageAt(next);
        bool fresh = (entry.Flags & PageFlags.MayBeWritten) == 0;
        if (entry.State != (hadData ? NodeState.S : NodeState.I) || (!hadData && fresh != isFresh)) return;
        _ = Nodes[node].Access(region, next, access.Write, MessageFlags.None, _effects);
    }

    /// <returns>Whether the page is there with that right.</returns>
    private bool TryAccess(int node, Access access)
    {
        ref PageEntry entry = ref Regions[node].PageAt(PageAt(access.Page));
        switch (Nodes[node].Access(Regions[node], PageAt(access.Page), access.Write, MessageFlags.None, _effects))
        {
            case AccessResult.Hit:
                if (!_refuses) Map(node, access.Page, access.Mapping, entry.State);
                if (Scenario.Holds) NodeController.Hold(Regions[node], PageAt(access.Page));
                return true;
            case AccessResult.Pending:
                entry.Flags |= PageFlags.Awaited;
                Waiting[node].Add(access);
                return false;
            case AccessResult result:
                throw new InvariantException($"an access of node {node} to page {access.Page} gets {result}");
        }
    }

    private void Map(int node, int page, int mapping, NodeState state)
    {
        bool writable = NodeStates.MayWrite(state) || (_bugs & WorldBugs.MapsTooMuch) != 0;
        MappedOf(node, page, mapping) = writable ? Right.Write : Right.Read;
    }

    private void Drain(int node)
    {
        for (int steps = 0; ; steps++)
        {
            if (steps == TurnLimit) throw new InvariantException($"node {node} does not come to the end of its turn");
            Execute(node, default);
            // Who waited goes first: else what waits at the home behind a grant takes it away before it was used once.
            if ((_bugs & WorldBugs.RetriedLast) == 0 && RetryOne(node)) continue;
            if (_toSelf.TryDequeue(out var self)) Dispatch(node, in self.Flight);
            else if (!RetryOne(node) && _effects.Count == 0) return;
        }
    }

    private bool RetryOne(int node)
    {
        if (_retry.Count == 0) return false;
        (byte _, Access access) = _retry[0];
        _retry.RemoveAt(0);
        _ = TryAccess(node, access);
        return true;
    }

    private void Dispatch(int node, in Flight flight)
    {
        Message message = flight.Message;
        if (!HomeController.Takes(in message)) Nodes[node].OnMessage(Regions[node], in message, _effects);
        else if (node == 0) Home.OnMessage(Regions[0], in message, _effects);
        else throw new InvariantException($"{message} came to node {node}, which is no home");
        Execute(node, in flight);
    }

    private void Execute(int node, in Flight flight)
    {
        for (int i = 0; i < _effects.Count; i++)
        {
            Effect effect = _effects[i];
            Story?.Add($"node {node}: {effect}");
            if (effect.Kind == EffectKind.Send)
            {
                Send(node, in effect);
                continue;
            }
            for (uint p = 0; p < effect.Count; p++) Execute(node, effect.Kind, (int)(effect.Page.Value + p), in flight);
        }
        _effects.Clear();
    }

    private void Execute(int node, EffectKind kind, int page, in Flight flight)
    {
        ref Contents frame = ref FrameOf(node, page);
        switch (kind)
        {
            case EffectKind.WriteFrame:
                WriteFrame(node, page, in flight);
                break;
            case EffectKind.InstallReadable or EffectKind.InstallWritable:
                WriteFrame(node, page, in flight);
                MapGranted(node, page, kind == EffectKind.InstallWritable);
                break;
            case EffectKind.MakeWritable:
                if (frame == Contents.None) throw new InvariantException($"page {page} is made writable at node {node} without a frame");
                MapGranted(node, page, writable: true);
                break;
            case EffectKind.WriteProtect:
                for (int m = 0; m < Scenario.Mappings; m++)
                {
                    if (m > 0 && (_bugs & WorldBugs.OneMappingNotProtected) != 0) continue;
                    if (MappedOf(node, page, m) == Right.Write) MappedOf(node, page, m) = Right.Read;
                }
                break;
            case EffectKind.Keep:
                if (KeptOf(node, page) != Contents.None) throw new InvariantException($"page {page} is kept twice at node {node}");
                if (frame == Contents.None) throw new InvariantException($"page {page} is to be kept at node {node}, which has no frame of it");
                KeptOf(node, page) = frame;
                _ = WriteIfPossible(node, page); // to the frame: what is kept is old then
                break;
            case EffectKind.KeepZero:
                break;
            case EffectKind.Unmap:
                for (int m = 0; m < Scenario.Mappings; m++)
                {
                    if (m > 0 && (_bugs & WorldBugs.OneMappingNotUnmapped) != 0) continue;
                    MappedOf(node, page, m) = Right.None;
                }
                frame = Contents.None;
                break;
            case EffectKind.ReleaseKept:
                if (KeptOf(node, page) == Contents.None) throw new InvariantException($"page {page} is not kept at node {node}");
                KeptOf(node, page) = Contents.None;
                break;
            case EffectKind.WriteHome:
                if ((_bugs & WorldBugs.HomeNotWritten) != 0) break;
                frame = (flight.Message.Flags & MessageFlags.Zero) != 0 ? Contents.None : ContentsOf(in flight, page);
                break;
            case EffectKind.DropHome:
                frame = Contents.None;
                break;
            case EffectKind.Complete:
                Retry(node, page);
                break;
            case EffectKind.DiscardRefused:
                throw new InvariantException($"page {page} could not be thrown away, though only node {node} uses it");
            default:
                throw new InvalidOperationException($"no such effect: {kind}");
        }
    }

    private void MapGranted(int node, int page, bool writable)
    {
        writable |= (_bugs & WorldBugs.MapsTooMuch) != 0;
        // One mapping: at once. Several: each where it is asked for.
        if (Scenario.Mappings == 1 && !_refuses) MappedOf(node, page, 0) = writable ? Right.Write : Right.Read;
        Retry(node, page);
    }

    private void Retry(int node, int page)
    {
        ref PageEntry entry = ref Regions[node].PageAt(PageAt(page));
        if ((entry.Flags & PageFlags.Awaited) == 0 || (_bugs & WorldBugs.WakeLost) != 0) return;
        entry.Flags &= ~PageFlags.Awaited;
        List<Access> waiting = Waiting[node];
        for (int i = 0; i < waiting.Count; i++)
        {
            if (waiting[i].Page != page) continue;
            _retry.Add(((byte)node, waiting[i]));
            waiting.RemoveAt(i--);
        }
    }

    private void WriteFrame(int node, int page, in Flight flight)
    {
        ref Contents frame = ref FrameOf(node, page);
        MessageFlags flags = flight.Message.Flags;
        if ((flags & MessageFlags.NoData) != 0)
        {
            if (frame == Contents.None) throw new InvariantException($"node {node} was granted page {page} without data, and has no frame of it");
            return;
        }
        if ((flags & MessageFlags.Zero) != 0)
        {
            frame = Contents.Zero;
            return;
        }
        frame = ContentsOf(in flight, page);
    }

    private static Contents ContentsOf(in Flight flight, int page)
    {
        Contents contents = (ulong)page == flight.Message.Page.Value ? flight.First : flight.Second;
        return contents != Contents.None ? contents : throw new InvariantException($"{flight.Message} carries no data of page {page}");
    }

    private void Send(int node, in Effect effect)
    {
        Contents first = DataOf(node, effect.Source, (int)effect.Page.Value);
        Contents second = effect.Count > 1 ? DataOf(node, effect.Source, (int)effect.Page.Value + 1) : Contents.None;
        if (effect.Count > 1 && (_bugs & WorldBugs.RunDataShifted) != 0) second = first;
        var flight = new Flight(effect.Message, first, second);
        int to = effect.To.Value;
        if (to == node)
        {
            if (effect.Source != DataSource.None) throw new InvariantException($"node {node} sends itself data: {effect.Message}");
            _toSelf.Enqueue((effect.To, flight));
            return;
        }
        if (to >= Scenario.Nodes) throw new InvariantException($"a message to nobody: {effect}");
        Wires[WireOf(node, to, (int)MessageTypes.NetworkOf(effect.Message.Type))].Add(flight);
    }

    /// <summary>A guest that may still write while the agent copies the page does so, at the worst moment.</summary>
    private bool WriteIfPossible(int node, int page)
    {
        for (int m = 0; m < Scenario.Mappings; m++)
        {
            if (MappedOf(node, page, m) != Right.Write) continue;
            Write(node, page);
            return true;
        }
        return false;
    }

    private Contents DataOf(int node, DataSource source, int page)
    {
        if (source == DataSource.None) return Contents.None;
        Contents contents = source == DataSource.Frame ? FrameOf(node, page) : KeptOf(node, page);
        if (contents == Contents.None) throw new InvariantException($"node {node} sends page {page} from {source}, and has none there");
        if (source == DataSource.Kept) return contents;
        if (WriteIfPossible(node, page)) return Contents.Old;
        return (_bugs & WorldBugs.ReadsAfterPunch) != 0 ? Contents.Zero : contents;
    }

    private bool IsRight(Contents contents, int page) => contents == (LatestIsZero[page] ? Contents.Zero : Contents.Latest);

    private void Check()
    {
        for (int page = 0; page < Scenario.Pages; page++)
        {
            CheckRights(page);
            CheckLastCopy(page);
        }
        for (int node = 0; node < Scenario.Nodes; node++) CheckBudget(node);
        if (IsQuiet()) CheckQuiet();
    }

    /// <summary>Single writer or many readers, and a read returns the last write.</summary>
    private void CheckRights(int page)
    {
        int writer = -1, reader = -1;
        for (int node = 0; node < Scenario.Nodes; node++)
        {
            Right most = Right.None;
            for (int m = 0; m < Scenario.Mappings; m++)
            {
                if (MappedOf(node, page, m) > most) most = MappedOf(node, page, m);
            }
            if (most == Right.None) continue;
            Contents frame = FrameOf(node, page);
            if (!IsRight(frame, page)) throw new InvariantException($"node {node} reads {frame} from page {page}, which is not what was written last");
            if (most == Right.Write)
            {
                if (writer >= 0) throw new InvariantException($"nodes {writer} and {node} may both write page {page}");
                writer = node;
            }
            else
            {
                reader = node;
            }
        }
        if (writer >= 0 && reader >= 0) throw new InvariantException($"node {writer} may write page {page} while node {reader} reads it");
    }

    /// <summary>What was written last is somewhere.</summary>
    private void CheckLastCopy(int page)
    {
        if (LatestIsZero[page]) return;
        for (int node = 0; node < Scenario.Nodes; node++)
        {
            if (FrameOf(node, page) == Contents.Latest || KeptOf(node, page) == Contents.Latest) return;
        }
        foreach (List<Flight> wire in Wires)
        {
            foreach (Flight f in wire)
            {
                if (f.First == Contents.Latest && (int)f.Message.Page.Value == page) return;
                if (f.Second == Contents.Latest && (int)f.Message.Page.Value + 1 == page) return;
            }
        }
        throw new InvariantException($"the last copy of page {page} is gone");
    }

    private void CheckBudget(int node)
    {
        int frames = 0;
        for (int page = 0; page < Scenario.Pages; page++)
        {
            if ((Regions[node].PageAt(PageAt(page)).Flags & PageFlags.HasFrame) != 0) frames++;
        }
        if (frames != Budgets[node].UsedPages)
            throw new InvariantException($"node {node} has {frames} frames, and {Budgets[node].UsedPages} are taken from its budget");
    }

    /// <summary>Nothing is under way: then nobody waits, nothing is kept, and directory and nodes agree.</summary>
    private void CheckQuiet()
    {
        for (int node = 0; node < Scenario.Nodes; node++)
        {
            if (Waiting[node].Count > 0) throw new InvariantException($"node {node} waits for page {Waiting[node][0].Page}, and nothing is under way");
            for (int page = 0; page < Scenario.Pages; page++)
            {
                ref PageEntry entry = ref Regions[node].PageAt(PageAt(page));
                if (!NodeStates.IsStable(entry.State)) throw new InvariantException($"page {page} stays {entry.State} at node {node}");
                if (entry.Slot != 0) throw new InvariantException($"a transaction for page {page} stays open at node {node}");
                if (KeptOf(node, page) != Contents.None) throw new InvariantException($"page {page} stays kept at node {node}");
            }
        }
        if (Home.WaitingCount > 0) throw new InvariantException($"{Home.WaitingCount} requests wait at the home, and nothing is under way");
        for (int page = 0; page < Scenario.Pages; page++) CheckDirectory(page);
    }

    private void CheckDirectory(int page)
    {
        ref DirectoryEntry entry = ref Regions[0].EntryAt(PageAt(page));
        for (ushort node = 0; node < Scenario.Nodes; node++)
        {
            NodeState state = Regions[node].PageAt(PageAt(page)).State;
            bool mayShare = entry.MayShare(new NodeId(node)), owns = entry.Owner.Value == node;
            if (!NodeStates.Agrees(entry.State, owns, mayShare, state))
                throw new InvariantException($"page {page} is {entry.State} (owner {entry.Owner}) at its home and {state} at node {node}");
        }
        if (!NodeStates.HomeIsValid(entry.State)) return;
        Contents home = (entry.Flags & DirectoryFlags.Zero) != 0 ? Contents.Zero : FrameOf(0, page);
        if (!IsRight(home, page)) throw new InvariantException($"the home copy of page {page} is {home}, and the directory says {entry.State}");
    }
}
