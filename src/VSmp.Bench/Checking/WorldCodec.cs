// SPDX-License-Identifier: Apache-2.0
using VSmp.Coherence;
using VSmp.Coherence.Homes;
using VSmp.Coherence.Messages;
using VSmp.Coherence.Nodes;
using VSmp.Coherence.Protocols;

namespace VSmp.Bench.Checking;

/// <summary>
/// Worlds as bytes, such that worlds that behave alike have the same bytes: nodes that can stand for one another are put into the order that
/// gives the least bytes; versions and transaction numbers, which are only ever compared for equality, are counted through.
/// </summary>
internal sealed class WorldCodec
{
    /// <summary>Most bytes of a world; more than that is under way only if something is wrong.</summary>
    public const int MaxBytes = 4096;

    private readonly World _world;
    private readonly byte[][] _orders; // each: old name → new name
    private readonly byte[] _buffer = new byte[MaxBytes];
    private readonly byte[] _best = new byte[MaxBytes];
    private readonly List<uint> _versions = [];
    private readonly List<uint>[] _numbers;
    private readonly List<Message> _queue = [];
    private byte[] _order = [];
    private int _at;

    public WorldCodec(World world)
    {
        _world = world;
        Scenario scenario = world.Scenario;
        _numbers = [.. Enumerable.Range(0, scenario.Nodes).Select(_ => new List<uint>())];
        // The home is like no other node; nor is the one that has private pages.
        int last = scenario.IsPrivate ? scenario.Nodes - 1 : scenario.Nodes;
        _orders = [.. Permutations([.. Enumerable.Range(1, Math.Max(0, last - 1)).Select(n => (byte)n)])
            .Select(p => (byte[])[0, .. p, .. Enumerable.Range(last, scenario.Nodes - last).Select(n => (byte)n)])];
    }

    /// <summary>The old → new names of the nodes in the last result of <see cref="Save"/>.</summary>
    public ReadOnlySpan<byte> Order => _order;

    /// <summary>The world as bytes, valid until the next call.</summary>
    public ReadOnlySpan<byte> Save()
    {
        CountThrough();
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

    /// <summary>Puts the world into a saved state.</summary>
    public void Load(ReadOnlySpan<byte> bytes)
    {
        bytes.CopyTo(_buffer);
        _at = 0;
        Scenario scenario = _world.Scenario;
        for (int page = 0; page < scenario.Pages; page++)
        {
            _world.LatestIsZero[page] = Byte() != 0;
            LoadDirectory(page);
        }
        for (int node = 0; node < scenario.Nodes; node++) LoadNode(node);
        foreach (List<Flight> wire in _world.Wires) wire.Clear();
        for (int count = Byte(); count > 0; count--)
        {
            List<Flight> wire = _world.Wires[Byte()];
            for (int flights = Byte(); flights > 0; flights--)
            {
                Message message = ReadMessage();
                byte contents = Byte();
                wire.Add(new Flight(message, (Contents)(contents & 3), (Contents)(contents >> 2)));
            }
        }
    }

    private static IEnumerable<byte[]> Permutations(byte[] of)
    {
        if (of.Length == 0) return [[]];
        return of.SelectMany(first => Permutations([.. of.Where(b => b != first)]).Select(rest => (byte[])[first, .. rest]));
    }

    // ---- counting through

    private void CountThrough()
    {
        _versions.Clear();
        foreach (List<uint> numbers in _numbers) numbers.Clear();
        Scenario scenario = _world.Scenario;
        for (int page = 0; page < scenario.Pages; page++)
        {
            _versions.Add(_world.Regions[0].EntryAt(new PageNumber((ulong)page)).Version.Value);
            CollectQueue(page);
            foreach (Message m in _queue) Count(in m);
        }
        for (int node = 0; node < scenario.Nodes; node++)
        {
            for (int page = 0; page < scenario.Pages; page++)
            {
                ref PageEntry entry = ref _world.Regions[node].PageAt(new PageNumber((ulong)page));
                _versions.Add(entry.Version.Value);
                if (entry.Slot == 0) continue;
                ref Transaction t = ref _world.Nodes[node].Transactions[entry.Slot];
                _versions.Add(t.Version.Value);
                _numbers[node].Add(t.Number);
            }
            foreach (Message m in _world.Nodes[node].Parked) Count(in m);
        }
        foreach (List<Flight> wire in _world.Wires)
        {
            foreach (Flight f in wire) Count(f.Message);
        }
        SortDistinct(_versions);
        foreach (List<uint> numbers in _numbers) SortDistinct(numbers);
    }

    private void Count(in Message m)
    {
        _versions.Add(m.Version.Value);
        if (m.Requestor.Value < _numbers.Length) _numbers[m.Requestor.Value].Add(m.Transaction);
    }

    private static void SortDistinct(List<uint> values)
    {
        values.Add(0); // none stays none
        values.Sort();
        int kept = 0;
        for (int i = 1; i < values.Count; i++)
        {
            if (values[i] != values[kept]) values[++kept] = values[i];
        }
        values.RemoveRange(kept + 1, values.Count - kept - 1);
    }

    private byte VersionIndex(PageVersion version) => (byte)_versions.BinarySearch(version.Value);

    private byte NumberIndex(int node, uint number) => (byte)_numbers[node].BinarySearch(number);

    // ---- writing

    private void Write(byte[] order)
    {
        _at = 0;
        Scenario scenario = _world.Scenario;
        Span<byte> old = stackalloc byte[scenario.Nodes];
        for (byte node = 0; node < scenario.Nodes; node++) old[order[node]] = node;
        for (int page = 0; page < scenario.Pages; page++)
        {
            Put(_world.LatestIsZero[page] ? (byte)1 : (byte)0);
            WriteDirectory(page, order);
        }
        foreach (byte node in old) WriteNode(node, order);
        int countAt = _at++;
        byte wires = 0;
        for (byte from = 0; from < scenario.Nodes; from++)
        {
            for (byte to = 0; to < scenario.Nodes; to++)
            {
                for (byte network = 0; network < 3; network++)
                {
                    List<Flight> wire = _world.Wires[_world.WireOf(old[from], old[to], network)];
                    if (wire.Count == 0) continue;
                    wires++;
                    Put((byte)_world.WireOf(from, to, network));
                    Put((byte)wire.Count);
                    foreach (Flight f in wire)
                    {
                        WriteMessage(f.Message, order);
                        Put((byte)((byte)f.First | (byte)f.Second << 2));
                    }
                }
            }
        }
        _buffer[countAt] = wires;
    }

    private void WriteDirectory(int page, byte[] order)
    {
        ref DirectoryEntry entry = ref _world.Regions[0].EntryAt(new PageNumber((ulong)page));
        Put((byte)entry.State);
        Put((byte)entry.Flags);
        Put(Name(entry.Owner, order));
        Put(VersionIndex(entry.Version));
        byte sharers = 0;
        for (ushort node = 0; node < _world.Scenario.Nodes; node++)
        {
            if (entry.MayShare(new NodeId(node))) sharers |= (byte)(1 << order[node]);
        }
        Put(sharers);
        CollectQueue(page);
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
            Put((byte)entry.Flags);
            Put(VersionIndex(entry.Version));
            byte right = 0;
            for (int m = 0; m < scenario.Mappings; m++) right |= (byte)((byte)_world.MappedOf(node, page, m) << (2 * m));
            Put((byte)((byte)_world.FrameOf(node, page) | (byte)_world.KeptOf(node, page) << 2 | right << 4));
            Put(entry.Slot == 0 ? (byte)0 : (byte)1);
            if (entry.Slot == 0) continue;
            ref Transaction t = ref controller.Transactions[entry.Slot];
            Put(NumberIndex(node, t.Number));
            Put((byte)t.AcksReceived);
            Put((byte)t.AcksExpected);
            Put(VersionIndex(t.Version));
            Put(Name(t.Supplier, order));
        }
        List<Access> waiting = _world.Waiting[node];
        Put((byte)waiting.Count);
        foreach (Access a in waiting) Put((byte)(a.Page | a.Mapping << 2 | (a.Write ? 16 : 0)));
        Put((byte)controller.Parked.Count);
        foreach (Message m in controller.Parked) WriteMessage(in m, order);
    }

    private void WriteMessage(in Message m, byte[] order)
    {
        Put((byte)m.Type);
        Put((byte)m.Flags);
        Put((byte)(Name(m.Source, order) << 4 | Name(m.Requestor, order)));
        Put((byte)m.AckCount);
        Put(NumberIndex(m.Requestor.Value, m.Transaction));
        Put((byte)((byte)m.Page.Value << 4 | (byte)m.Count));
        Put(VersionIndex(m.Version));
    }

    private static byte Name(NodeId node, byte[] order) => node.IsNone ? (byte)15 : order[node.Value];

    private void Put(byte value)
    {
        if (_at == MaxBytes) throw new InvariantException("messages pile up without end");
        _buffer[_at++] = value;
    }

    private void CollectQueue(int page)
    {
        _queue.Clear();
        _world.Home.Waiting.CopyTo(World.RegionId, new PageNumber((ulong)page), _queue);
    }

    // ---- reading

    private void LoadDirectory(int page)
    {
        if (page == 0) _world.Home.Drop(World.RegionId);
        ref DirectoryEntry entry = ref _world.Regions[0].EntryAt(new PageNumber((ulong)page));
        entry = DirectoryEntry.Zero;
        entry.State = (DirectoryState)Byte();
        entry.Flags = (DirectoryFlags)Byte();
        entry.Owner = ReadName(Byte());
        entry.Version = new PageVersion(Byte());
        byte sharers = Byte();
        for (ushort node = 0; node < _world.Scenario.Nodes; node++)
        {
            if ((sharers >> node & 1) != 0) entry.AddSharer(new NodeId(node));
        }
        for (int count = Byte(); count > 0; count--)
        {
            Message m = ReadMessage();
            _world.Home.Waiting.Enqueue(in m);
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
            entry = new PageEntry { State = (NodeState)Byte(), Flags = (PageFlags)Byte(), Version = new PageVersion(Byte()) };
            if ((entry.Flags & PageFlags.HasFrame) != 0) frames++;
            byte contents = Byte();
            _world.FrameOf(node, page) = (Contents)(contents & 3);
            _world.KeptOf(node, page) = (Contents)(contents >> 2 & 3);
            for (int m = 0; m < scenario.Mappings; m++) _world.MappedOf(node, page, m) = (Right)(contents >> (4 + (2 * m)) & 3);
            if (Byte() == 0) continue;
            entry.Slot = controller.Transactions.Take(Byte());
            ref Transaction t = ref controller.Transactions[entry.Slot];
            t.AcksReceived = Byte();
            t.AcksExpected = Byte();
            t.Version = new PageVersion(Byte());
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
        // Above every number that may still be on its way.
        controller.Transactions.LastNumber = byte.MaxValue;
    }

    private Message ReadMessage()
    {
        Message m = new() { Region = World.RegionId, Type = (MessageType)Byte(), Flags = (MessageFlags)Byte() };
        byte names = Byte();
        m.Source = ReadName((byte)(names >> 4));
        m.Requestor = ReadName((byte)(names & 15));
        m.AckCount = Byte();
        m.Transaction = Byte();
        byte pages = Byte();
        m.Page = new PageNumber((ulong)(pages >> 4));
        m.Count = (uint)(pages & 15);
        m.Version = new PageVersion(Byte());
        return m;
    }

    private static NodeId ReadName(byte name) => name == 15 ? NodeId.None : new NodeId(name);

    private byte Byte() => _buffer[_at++];
}
