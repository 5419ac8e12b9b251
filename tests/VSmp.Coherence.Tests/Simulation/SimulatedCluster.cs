// SPDX-License-Identifier: Apache-2.0
using VSmp.Coherence.Homes;
using VSmp.Coherence.Messages;
using VSmp.Coherence.Nodes;
using VSmp.Coherence.Placement;
using VSmp.Coherence.Protocols;

namespace VSmp.Coherence.Tests.Simulation;

/// <summary>
/// The shipped protocol code on a few nodes, with every interleaving that the fabric allows drawn at random from a seed: frames are in
/// order per pair and virtual network, and in no order between those.
/// </summary>
internal sealed class SimulatedCluster
{
    private const int ExtentCount = 2;
    private const int PagesPerExtent = 4;

    private readonly SimulatedNode[] _nodes;
    private readonly SortedDictionary<(ushort From, ushort To, VirtualNetwork Network), Queue<(Message Message, long[] Values)>> _wires = [];
    private readonly Dictionary<PageNumber, long> _latest = [];
    private readonly List<string>? _trace;
    private long _lastValue;

    public SimulatedCluster(Protocol protocol, int seed, bool trace)
    {
        Random = new Random(seed);
        _trace = trace ? [] : null;
        NodeCount = Random.Next(2, 6);
        var homes = new HomeMap(ExtentCount);
        for (uint e = 0; e < ExtentCount; e++) homes.Place(new ExtentNumber(e), new NodeId((ushort)Random.Next(NodeCount)));
        int budget = Random.Next(1, 8);
        _nodes = Enumerable.Range(0, NodeCount).Select(n => new SimulatedNode(this, new NodeId((ushort)n), homes, ExtentCount, protocol, budget)).ToArray();
    }

    public Random Random { get; }

    public int NodeCount { get; }

    public IReadOnlyList<string> TraceLines => _trace ?? [];

    public void Trace(string line) => _trace?.Add(line);

    /// <summary>Random work, then quiet: everything must come to an end, and directory and nodes must agree.</summary>
    public void Run(int steps)
    {
        for (int i = 0; i < steps; i++)
        {
            if (Random.Next(3) == 0) Work();
            else DeliverOne();
            CheckSingleWriter();
        }
        for (int round = 0; IsBusy(); round++)
        {
            Assert.True(round < 20_000, "an access never ended");
            if (!DeliverOne())
            {
                foreach (SimulatedNode node in _nodes)
                {
                    node.UnholdAll();
                    node.RetryAll();
                }
            }
            CheckSingleWriter();
        }
        foreach (SimulatedNode node in _nodes) node.UnholdAll();
        while (DeliverOne())
        {
        }
        CheckQuiet();
    }

    public void Send(NodeId from, NodeId to, Message message, long[] values)
    {
        var wire = (from.Value, to.Value, MessageTypes.NetworkOf(message.Type));
        if (!_wires.TryGetValue(wire, out var queue)) _wires.Add(wire, queue = new());
        queue.Enqueue((message, values));
    }

    /// <summary>A guest reads or writes a page that it has the right to.</summary>
    public void OnGuestAccess(SimulatedNode node, PageNumber page, bool write)
    {
        long latest = _latest.GetValueOrDefault(page);
        Assert.True(node.Frames.TryGetValue(page, out long value), $"{node.Id} uses {page} without a frame");
        Assert.True(value == latest, $"{node.Id} reads {value} from {page}, last written was {latest}");
        if (!write) return;
        Assert.Equal(Right.Write, node.RightTo(page));
        node.Frames[page] = _latest[page] = ++_lastValue;
        Trace($"{node.Id}: wrote {_lastValue} to {page}");
    }

    public static void OnDiscardRefused(PageNumber page) => Assert.Fail($"{page} is used by one node only, and could not be thrown away");

    private static PageNumber PageAt(int index) =>
        new(((ulong)(index / PagesPerExtent) << ExtentNumber.PagesShift) + (ulong)(index % PagesPerExtent));

    /// <summary>The last page of each extent belongs to one node, which throws it away now and then.</summary>
    private static bool IsPrivate(int index, out int owner)
    {
        owner = index / PagesPerExtent;
        return index % PagesPerExtent == PagesPerExtent - 1;
    }

    private void Work()
    {
        SimulatedNode node = _nodes[Random.Next(NodeCount)];
        int index = Random.Next(ExtentCount * PagesPerExtent);
        bool isPrivate = IsPrivate(index, out int owner);
        if (isPrivate) node = _nodes[owner];
        PageNumber page = PageAt(index);
        switch (Random.Next(10))
        {
            case 0:
                _ = node.TryEvict(page);
                break;
            case 1 when isPrivate:
                if (node.Discard(page)) _latest[page] = 0;
                break;
            case 2:
                node.Hold(page);
                break;
            case 3:
                node.UnholdAll();
                break;
            case 4: // a hit that nobody hears of
                if (node.RightTo(page) != Right.None) OnGuestAccess(node, page, node.RightTo(page) == Right.Write && Random.Next(2) == 0);
                break;
            default:
                uint ahead = isPrivate ? 0 : (uint)Random.Next(Math.Min(3, PagesPerExtent - 1 - (index % PagesPerExtent)));
                node.Access(page, Random.Next(2) == 0, ahead);
                break;
        }
    }

    private bool DeliverOne()
    {
        var ready = _wires.Where(w => w.Value.Count > 0).ToArray();
        if (ready.Length == 0) return false;
        var wire = ready[Random.Next(ready.Length)];
        (Message message, long[] values) = wire.Value.Dequeue();
        Trace($"deliver {message} to node {wire.Key.To}");
        _nodes[wire.Key.To].Receive(in message, values);
        return true;
    }

    private bool IsBusy() => _wires.Values.Any(q => q.Count > 0) || _nodes.Any(n => n.WaitingCount > 0);

    private void CheckSingleWriter()
    {
        for (int i = 0; i < ExtentCount * PagesPerExtent; i++)
        {
            PageNumber page = PageAt(i);
            int writers = _nodes.Count(n => n.RightTo(page) == Right.Write);
            int readers = _nodes.Count(n => n.RightTo(page) == Right.Read);
            Assert.True(writers == 0 || (writers == 1 && readers == 0), $"{page} has {writers} writers and {readers} readers");
        }
    }

    private void CheckQuiet()
    {
        foreach (SimulatedNode node in _nodes)
        {
            Assert.Equal(0, node.KeptCount);
            Assert.Equal(0, node.Home.WaitingCount);
            int frames = 0;
            for (int i = 0; i < ExtentCount * PagesPerExtent; i++)
            {
                PageNumber page = PageAt(i);
                ref PageEntry entry = ref node.Region.PageAt(page);
                Assert.True(NodeStates.IsStable(entry.State), $"{page} stays {entry.State} at {node.Id}");
                Assert.Equal(0, entry.Slot);
                if ((entry.Flags & PageFlags.HasFrame) != 0) frames++;
                if (node.Region.IsHome(page.Extent)) CheckDirectory(node, page);
            }
            Assert.Equal(frames, node.Budget.UsedPages);
        }
    }

    private void CheckDirectory(SimulatedNode home, PageNumber page)
    {
        ref DirectoryEntry entry = ref home.Region.EntryAt(page);
        foreach (SimulatedNode node in _nodes)
        {
            NodeState state = node.Region.PageAt(page).State;
            bool agrees = NodeStates.Agrees(entry.State, entry.Owner == node.Id, entry.MayShare(node.Id), state);
            Assert.True(agrees, $"{page} is {entry.State} (owner {entry.Owner}) at its home and {state} at {node.Id}");
        }
        // Under MESI, who has not written counts on the home copy.
        bool isUnwritten = home.Region.Protocol == Mesi.Protocol && _nodes.Any(n => n.Region.PageAt(page).State == NodeState.E);
        if (!NodeStates.HomeIsValid(entry.State) && !isUnwritten) return;
        long expected = _latest.GetValueOrDefault(page);
        bool isZero = (entry.Flags & DirectoryFlags.Zero) != 0;
        Assert.Equal(expected, isZero ? 0 : home.Frames[page]);
    }
}
