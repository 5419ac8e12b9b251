// SPDX-License-Identifier: Apache-2.0
using System.Runtime.InteropServices;
using VSmp.Coherence;
using VSmp.Coherence.Homes;
using VSmp.Coherence.Messages;
using VSmp.Coherence.Nodes;
using VSmp.Coherence.Protocols;

namespace VSmp.Bench.Checking;

/// <summary>
/// Worlds as bytes, such that worlds that behave alike have the same bytes. Every difference that is dropped is argued where it
/// is dropped.
/// </summary>
/// <remarks>
/// Nodes that can stand for one another are put into the order that gives the least bytes. Numbers that are only ever compared
/// for equality are replaced by which of them are equal (<see cref="VersionIndex"/>, <see cref="NumberIndex"/>). What nobody will
/// look at again is left out.
/// </remarks>
internal sealed partial class WorldCodec
{
    /// <summary>Most bytes of a world; more than that is under way only if something is wrong.</summary>
    public const int MaxBytes = 4096;

    private const byte CurrentVersion = 50; // of every page at its home, in a world that was loaded
    private const byte CurrentIndex = 1; // of that version
    private const byte OpenNumber = 1, OtherNumber = 2; // of transactions, likewise

    private readonly World _world;
    private readonly VersionLiveness _liveness;
    private readonly byte[][] _orders; // each: old name → new name
    private readonly byte[] _buffer = new byte[MaxBytes];
    private readonly byte[] _best = new byte[MaxBytes];
    private readonly List<uint>[] _versions; // by page, in the order in which they are met; the home's first
    private readonly List<Message> _queue = [];
    private byte[] _order = [];
    private int _at;
    private bool _leavesOutRights;

    /// <summary>Makes a codec.</summary>
    /// <param name="world">The world that is saved and loaded.</param>
    public WorldCodec(World world)
    {
        _world = world;
        Scenario scenario = world.Scenario;
        _liveness = new VersionLiveness(scenario.Protocol);
        _versions = [.. Enumerable.Range(0, scenario.Pages).Select(_ => new List<uint>())];
        // The home is like no other node; nor is the one that has private pages.
        int last = scenario.IsPrivate ? scenario.Nodes - 1 : scenario.Nodes;
        _isOrdered = scenario.HasRecovery;
        _isNeverGranted = new bool[scenario.Pages];
        _orders = _isOrdered ? [[.. Enumerable.Range(0, scenario.Nodes).Select(n => (byte)n)]] : [.. Permutations([.. Enumerable.Range(1, Math.Max(0, last - 1)).Select(n => (byte)n)])
            .Select(p => (byte[])[0, .. p, .. Enumerable.Range(last, scenario.Nodes - last).Select(n => (byte)n)])];
    }

    /// <summary>The old → new names of the nodes in the last result of <see cref="Save"/>.</summary>
    public ReadOnlySpan<byte> Order => _order;

    /// <summary>The world as bytes, valid until the next call.</summary>
    public ReadOnlySpan<byte> Save()
    {
        int bestLength = 0;
        foreach (byte[] order in _orders)
        {
            Write(order);
            if (bestLength > 0 && _buffer.AsSpan(0, _at).SequenceCompareTo(_best.AsSpan(0, bestLength)) >= 0) continue;
            bestLength = _at;
            _order = order;
            _buffer.AsSpan(0, _at).CopyTo(_best);
        }
        return _best.AsSpan(0, bestLength);
    }

    /// <summary>The world as bytes with every node under its own name, valid until the next call.</summary>
    /// <param name="leavesOutRights">Without what is mapped.</param>
    public ReadOnlySpan<byte> SaveAsIs(bool leavesOutRights = false)
    {
        _leavesOutRights = leavesOutRights;
        Write(_orders[0]);
        _leavesOutRights = false;
        return _buffer.AsSpan(0, _at);
    }

    /// <summary>Puts the world into a saved state.</summary>
    public void Load(ReadOnlySpan<byte> bytes)
    {
        bytes.CopyTo(_buffer);
        _at = 0;
        Scenario scenario = _world.Scenario;
        if (_isOrdered)
        {
            LoadRecovery();
        }
        else
        {
            for (int page = 0; page < scenario.Pages; page++)
            {
                byte flags = Byte();
                _world.LatestIsZero[page] = (flags & 1) != 0;
                _isNeverGranted[page] = (flags & 2) != 0;
                LoadDirectory(page, 0);
            }
        }
        for (int node = 0; node < scenario.Nodes; node++)
        {
            if (_world.IsUsing(node)) LoadNode(node);
        }
        if (scenario.Checkpoints > 0) LoadCheckpoint();
        foreach (List<Flight> wire in _world.Wires) wire.Clear();
        for (int count = Byte(); count > 0; count--)
        {
            List<Flight> wire = _world.Wires[Byte()];
            for (int flights = Byte(); flights > 0; flights--)
            {
                Message message = ReadMessage();
                byte contents = Byte();
                wire.Add(new Flight(message, (Contents)(contents & 15), (Contents)(contents >> 4)));
            }
        }
        _world.RecordAll();
    }

    private static IEnumerable<byte[]> Permutations(byte[] of)
    {
        if (of.Length == 0) return [[]];
        return of.SelectMany(first => Permutations([.. of.Where(b => b != first)]).Select(rest => (byte[])[first, .. rest]));
    }

    // ---- what is left out

    /// <summary>
    /// Versions of a page are compared with others of the same page, for equality, and a new one is new: so it is enough to know
    /// which are equal. They are numbered in the order in which they are met, the home's first, as 1; 0 is one that nobody looks
    /// at.
    /// </summary>
    /// <remarks>
    /// Versions of different pages meet in one place only: two messages, sent in one step, become a run if they are equal. Here
    /// they always are; that they are not is the move <see cref="MoveKind.DeliverFirst"/>.
    /// </remarks>
    private byte VersionIndex(int page, PageVersion version)
    {
        if (_isOrdered) return RankOf(page, version);
        List<uint> versions = _versions[page];
        for (int i = 0; i < versions.Count; i++)
        {
            if (versions[i] == version.Value) return (byte)(i + 1);
        }
        versions.Add(version.Value);
        return (byte)versions.Count;
    }

    /// <summary>
    /// The number in a message is compared with that of the requestor's open transaction for the page: what matters is whether it
    /// is that one. Numbers of different pages meet where those of <see cref="VersionIndex"/> do.
    /// </summary>
    private byte NumberIndex(in Message m, int page)
    {
        if (!CarriesTransaction(m.Type)) return 0;
        ushort slot = _world.Regions[m.Requestor.Value].PageAt(new PageNumber((ulong)page)).Slot;
        return slot != 0 && _world.Nodes[m.Requestor.Value].Transactions[slot].Number == m.Transaction ? OpenNumber : OtherNumber;
    }

    /// <summary>Whether the receiver compares the transaction's number, or whoever gets what it sends for it.</summary>
    private static bool CarriesTransaction(MessageType type) => type is MessageType.GetS or MessageType.GetM
        or MessageType.Upgrade
        or MessageType.FwdGetS or MessageType.FwdGetM or MessageType.Inv or MessageType.OwnerGrant or MessageType.SoleGrant
        or MessageType.DataS or MessageType.DataE or MessageType.DataM or MessageType.InvAck or MessageType.Poisoned;

    /// <summary>
    /// That a page may have been written is looked at where it is thrown away, and nowhere else. That it is held matters to who
    /// waits for the end of that; otherwise it is part of the moves (<see cref="MoveKind.DeliverHeld"/>), and the page may as
    /// well not be held.
    /// </summary>
    private PageFlags FlagsOf(int node, int page, in PageEntry entry)
    {
        PageFlags flags = entry.Flags;
        bool throwsAway = _world.Scenario.IsPrivate && node == _world.Scenario.Nodes - 1;
        if (!throwsAway) flags &= ~PageFlags.MayBeWritten;
        if ((flags & PageFlags.Held) == 0) return flags;
        foreach (Message m in _world.Nodes[node].Parked)
        {
            if ((int)m.Page.Value == page) return flags;
        }
        return flags & ~PageFlags.Held;
    }

    /// <summary>Once a page was written, zeros are as old as anything, until it is thrown away.</summary>
    private Contents ContentsOf(Contents contents, int page) =>
        contents == Contents.Zero && !_world.LatestIsZero[page] && !_world.PriorIsZero[page] && !_world.CutIsZero[page] && !_world.Scenario.IsPrivate ? Contents.Old : contents;

    // ---- writing

    private void Write(byte[] order)
    {
        _at = 0;
        Scenario scenario = _world.Scenario;
        Span<byte> old = stackalloc byte[scenario.Nodes];
        for (byte node = 0; node < scenario.Nodes; node++) old[order[node]] = node;
        if (_isOrdered)
        {
            WriteRecovery(order);
        }
        else
        {
            for (int page = 0; page < scenario.Pages; page++)
            {
                Put((byte)((_world.LatestIsZero[page] ? 1 : 0) | (IsNeverGranted(page) ? 2 : 0)));
                WriteDirectory(page, 0, order);
            }
        }
        foreach (byte node in old)
        {
            if (_world.IsUsing(node)) WriteNode(node, order);
        }
        if (scenario.Checkpoints > 0) WriteCheckpoint(old);
        int countAt = _at++;
        byte wires = 0;
        for (byte from = 0; from < scenario.Nodes; from++)
        {
            for (byte to = 0; to < scenario.Nodes; to++)
            {
                for (byte network = 0; network < 3; network++)
                {
                    List<Flight> wire = _world.Wires[_world.WireOf(old[from], old[to], network)];
                    if (_isOrdered && wire.Count > 0) wire = WithoutStale(wire, to);
                    if (wire.Count == 0) continue;
                    wires++;
                    WriteWire(_world.WireOf(from, to, network), wire, order);
                }
            }
        }
        _buffer[countAt] = wires;
    }

    /// <summary>
    /// Of two messages that follow one another and could be one run, and of the run, one is as good as the other: the run can
    /// arrive as a whole or one page after the other, and so can they. It is written as a run where it can be one.
    /// </summary>
    private void WriteWire(int number, List<Flight> wire, byte[] order)
    {
        Put((byte)number);
        ref readonly Flight only = ref CollectionsMarshal.AsSpan(wire)[0];
        if (wire.Count == 1 && only.Message.Count == 1)
        {
            Put(1);
            WriteFlight(in only, order);
            return;
        }
        int countAt = _at++;
        byte count = 0;
        Flight? last = null;
        foreach (Flight flight in wire)
        {
            bool splits = flight.Message.Count > 1 && !IsOneRun(flight.Message, flight.Rest.Message);
            Flight next = splits ? flight.FirstPage : flight;
            if (last is { Message.Count: 1 } before && IsOneRun(before.Message, next.Message))
            {
                next = new Flight(before.Message with { Count = 2 }, before.First, next.First);
                count--;
            }
            else if (last is not null)
            {
                WriteFlight(last.Value, order);
            }
            count++;
            last = next;
            if (!splits) continue;
            WriteFlight(next, order);
            last = flight.Rest;
            count++;
        }
        WriteFlight(last!.Value, order);
        _buffer[countAt] = count;
    }

    /// <summary>Whether two messages, each about a page if the second is, are one run.</summary>
    private bool IsOneRun(in Message first, in Message second)
    {
        if (second.Count != 1 || first.Page.Plus(1) != second.Page || first.Type != second.Type || first.Flags != second.Flags
            || first.Requestor != second.Requestor || first.AckCount != second.AckCount) return false;
        int page = (int)first.Page.Value;
        return NumberIndex(in first, page) == NumberIndex(in second, page + 1)
            && (!IsLive(first.Type) || VersionIndex(page, first.Version) == VersionIndex(page + 1, second.Version));
    }

    private void WriteFlight(in Flight flight, byte[] order)
    {
        int page = (int)flight.Message.Page.Value;
        WriteMessage(flight.Message, order);
        Contents first = ContentsOf(flight.First, page);
        Contents second = flight.Message.Count > 1 ? ContentsOf(flight.Second, page + 1) : Contents.None;
        Put((byte)((byte)first | (byte)second << 4));
    }

    private void WriteDirectory(int page, int home, byte[] order)
    {
        ref DirectoryEntry entry = ref _world.Regions[home].EntryAt(new PageNumber((ulong)page));
        if (_isOrdered)
        {
            Put(RankOf(page, entry.Version));
        }
        else
        {
            _versions[page].Clear();
            _versions[page].Add(entry.Version.Value);
        }
        Put((byte)entry.State);
        Put((byte)entry.Flags);
        byte sharers = 0;
        for (ushort node = 0; node < _world.Scenario.Nodes; node++)
        {
            if (entry.MayShare(new NodeId(node))) sharers |= (byte)(1 << order[node]);
        }
        Put((byte)(Name(entry.Owner, order) << 4 | sharers));
        _queue.Clear();
        if ((entry.Flags & DirectoryFlags.HasWaiters) != 0) _world.Homes[home].Waiting.CopyTo(World.RegionId, new PageNumber((ulong)page), _queue);
        Put((byte)_queue.Count);
        foreach (Message m in _queue) WriteMessage(in m, order);
    }

    private void WriteNode(int node, byte[] order)
    {
        Scenario scenario = _world.Scenario;
        NodeController controller = _world.Nodes[node];
        for (int page = 0; page < scenario.Pages; page++)
        {
            ref PageEntry entry = ref _world.Regions[node].PageAt(new PageNumber((ulong)page));
            Put((byte)entry.State);
            Put((byte)((byte)FlagsOf(node, page, in entry) | (entry.Slot != 0 ? 128 : 0)));
            Put(IsLive(entry.State) ? VersionIndex(page, entry.Version) : (byte)0);
            int right = 0;
            for (int m = 0; m < scenario.Mappings && !_leavesOutRights; m++) right |= (int)_world.MappedOf(node, page, m) << (2 * m);
            Contents frame = ContentsOf(_world.FrameOf(node, page), page), kept = ContentsOf(_world.KeptOf(node, page), page);
            Put((byte)((byte)frame | (byte)kept << 4));
            Put((byte)right);
            if (entry.Slot == 0) continue;
            ref Transaction t = ref controller.Transactions[entry.Slot];
            Put((byte)(t.AcksReceived << 4 | t.AcksExpected));
            Put(t.Version.Value == 0 ? (byte)0 : VersionIndex(page, t.Version)); // 0: not granted yet
            Put(Name(t.Supplier, order));
        }
        WriteWaiting(_world.Waiting[node]);
        Put((byte)controller.Parked.Count);
        if (controller.Parked.Count == 0) return;
        for (int page = 0; page < scenario.Pages; page++)
        {
            foreach (Message m in controller.Parked)
            {
                if ((int)m.Page.Value == page) WriteMessage(in m, order);
            }
        }
    }

    /// <summary>
    /// Who waits for one page is woken together, and tried in order: of different pages the order does not matter; and of two
    /// threads that want the same of the same mapping, whatever happens to the first happens to the second, so one stands for
    /// both.
    /// </summary>
    private void WriteWaiting(List<Access> waiting)
    {
        int countAt = _at++;
        _buffer[countAt] = 0;
        if (waiting.Count == 0) return;
        byte count = 0;
        for (int page = 0; page < _world.Scenario.Pages; page++)
        {
            for (int i = 0; i < waiting.Count; i++)
            {
                Access a = waiting[i];
                if (a.Page != page || waiting.IndexOf(a) < i) continue;
                Put((byte)(a.Page | a.Mapping << 2 | (a.Write ? 16 : 0)));
                count++;
            }
        }
        _buffer[countAt] = count;
    }

    private void WriteMessage(in Message m, byte[] order)
    {
        int page = (int)m.Page.Value;
        Put((byte)m.Type);
        Put((byte)((byte)m.Flags | m.AckCount << 4));
        Put((byte)(Name(m.Source, order) << 4 | Name(m.Requestor, order)));
        Put((byte)(page << 4 | (byte)m.Count << 2 | NumberIndex(in m, page)));
        Put(IsLive(m.Type) ? VersionIndex(page, m.Version) : (byte)0);
        if (_isOrdered) Put((byte)m.Generation.Value);
    }

    private static byte Name(NodeId node, byte[] order) => node.IsNone ? (byte)15 : order[node.Value];

    private void Put(byte value)
    {
        if (_at == MaxBytes) throw new InvariantException("messages pile up without end");
        _buffer[_at++] = value;
    }

    // ---- reading

    private void LoadDirectory(int page, int home)
    {
        HomeController controller = _world.Homes[home];
        if (page == 0 && controller.WaitingCount > 0) controller.Drop(World.RegionId);
        ref DirectoryEntry entry = ref _world.Regions[home].EntryAt(new PageNumber((ulong)page));
        entry = DirectoryEntry.Zero;
        entry.Version = _isOrdered ? ReadVersion(page) : ReadVersion(page, CurrentIndex);
        entry.State = (DirectoryState)Byte();
        entry.Flags = (DirectoryFlags)Byte();
        byte names = Byte();
        entry.Owner = ReadName((byte)(names >> 4));
        for (ushort node = 0; node < _world.Scenario.Nodes; node++)
        {
            if ((names >> node & 1) != 0) entry.AddSharer(new NodeId(node));
        }
        for (int count = Byte(); count > 0; count--)
        {
            Message m = ReadMessage();
            controller.Waiting.Enqueue(in m);
        }
    }

    private void LoadNode(int node)
    {
        Scenario scenario = _world.Scenario;
        NodeController controller = _world.Nodes[node];
        long frames = 0;
        for (int page = 0; page < scenario.Pages; page++)
        {
            ref PageEntry entry = ref _world.Regions[node].PageAt(new PageNumber((ulong)page));
            if (entry.Slot != 0) controller.Transactions.Return(entry.Slot);
            entry = new PageEntry { State = (NodeState)Byte() };
            byte flags = Byte();
            entry.Flags = (PageFlags)(flags & 127);
            entry.Version = ReadVersion(page);
            if ((entry.Flags & PageFlags.HasFrame) != 0) frames++;
            byte contents = Byte();
            _world.FrameOf(node, page) = (Contents)(contents & 15);
            _world.KeptOf(node, page) = (Contents)(contents >> 4);
            byte right = Byte();
            for (int m = 0; m < scenario.Mappings; m++) _world.MappedOf(node, page, m) = (Right)(right >> (2 * m) & 3);
            if (flags < 128) continue;
            entry.Slot = controller.Transactions.Take(OpenNumber);
            ref Transaction t = ref controller.Transactions[entry.Slot];
            byte acks = Byte();
            t.AcksReceived = (ushort)(acks >> 4);
            t.AcksExpected = (ushort)(acks & 15);
            t.Version = ReadVersion(page);
            t.Supplier = ReadName(Byte());
        }
        _world.Budgets[node].Release(_world.Budgets[node].UsedPages);
        while (frames-- > 0) _ = _world.Budgets[node].TryReserve();
        _world.Waiting[node].Clear();
        for (int count = Byte(); count > 0; count--)
        {
            byte a = Byte();
            _world.Waiting[node].Add(new Access((byte)(a & 3), (byte)(a >> 2 & 3), (a & 16) != 0));
        }
        controller.Parked.Clear();
        for (int count = Byte(); count > 0; count--) controller.Parked.Add(ReadMessage());
        controller.Transactions.LastNumber = OtherNumber;
    }

    private Message ReadMessage()
    {
        Message m = new() { Region = World.RegionId, Type = (MessageType)Byte() };
        byte flags = Byte();
        m.Flags = (MessageFlags)(flags & 15);
        m.AckCount = (ushort)(flags >> 4);
        byte names = Byte();
        m.Source = ReadName((byte)(names >> 4));
        m.Requestor = ReadName((byte)(names & 15));
        byte pages = Byte();
        m.Page = new PageNumber((ulong)(pages >> 4));
        m.Count = (uint)(pages >> 2 & 3);
        m.Transaction = (uint)(pages & 3);
        m.Version = ReadVersion((int)m.Page.Value);
        if (_isOrdered) m.Generation = new Generation(Byte());
        return m;
    }

    /// <summary>The home's version is the highest, so that the next one is new.</summary>
    private PageVersion ReadVersion(int page) => ReadVersion(page, Byte());

    private PageVersion ReadVersion(int page, byte index)
    {
        if (_isOrdered) return new PageVersion(index == LastRank ? uint.MaxValue : index);
        return index == 0 || _isNeverGranted[page] ? default : new PageVersion((uint)(CurrentVersion + CurrentIndex - index));
    }

    private static NodeId ReadName(byte name) => name == 15 ? NodeId.None : new NodeId(name);

    private byte Byte() => _buffer[_at++];
}
