// SPDX-License-Identifier: Apache-2.0
using VSmp.Coherence.Lazy;
using VSmp.Coherence.Messages;
using VSmp.Coherence.Placement;

namespace VSmp.Coherence.Tests.Lazy;

/// <summary>What to break, to see whether it is found.</summary>
internal enum LazyBug
{
    None,
    LosesNotices,
    DoesNotWaitForTheHome,
    SendsWholePages,
}

/// <summary>
/// Ranks without data races on a few nodes, two on each: every byte belongs to a lock, or to one rank between two barriers. What is right
/// is what such programs rely on: a read sees the last write that happens before it. Interleavings are drawn from a seed.
/// </summary>
internal sealed class LazyCluster
{
    public const int PageCount = 4;

    private const int LockCount = 3;
    private const int RanksPerNode = 2;

    /// <summary>The bytes used of each page, densely shared: byte b belongs to lock b % 4, or to the barriers where that is 3.</summary>
    private static readonly int[] Bytes = [.. Enumerable.Range(0, 8), .. Enumerable.Range(4088, 8)];

    private readonly LazyNode[] _nodes;
    private readonly Rank[] _ranks;
    private readonly SortedDictionary<(ushort From, ushort To, VirtualNetwork Network), Queue<(Message Message, byte[] Payload)>> _wires = [];
    private readonly NoticeLog _log;
    private readonly int[] _holder = [-1, -1, -1];
    private readonly byte[][] _latest = [.. Enumerable.Range(0, PageCount).Select(_ => new byte[PageNumber.Bytes])];
    private readonly int _evictOneIn, _deliverOneIn;
    private int _phase;
    private int _atBarrier;

    public LazyCluster(int seed, LazyBug bug = LazyBug.None)
    {
        Random = new Random(seed);
        Bug = bug;
        _evictOneIn = 4 << Random.Next(6);
        _deliverOneIn = Random.Next(2, 10);
        _log = new NoticeLog(capacity: Random.Next(2) == 0 ? 3 : 1000);
        int nodeCount = Random.Next(2, 5);
        var homes = new HomeMap(2);
        for (uint e = 0; e < 2; e++) homes.Place(new ExtentNumber(e), new NodeId((ushort)Random.Next(nodeCount)));
        long budget = Random.Next(2, 7); // a written page needs two: its twin has one
        _nodes = [.. Enumerable.Range(0, nodeCount).Select(n => new LazyNode(this, new NodeId((ushort)n), homes, budget))];
        foreach (LazyNode node in _nodes) _log.Add(node.Id);
        _ranks = [.. Enumerable.Range(0, nodeCount * RanksPerNode).Select(r => new Rank(r, _nodes[r / RanksPerNode]))];
    }

    public Random Random { get; }

    public LazyBug Bug { get; }

    public int Reads { get; private set; }

    public void Run(int steps)
    {
        for (int i = 0; i < steps; i++) Step(mayBegin: true);
        for (int i = 0; _ranks.Any(r => r.Doing != Doing.Nothing) || _wires.Values.Any(q => q.Count > 0); i++)
        {
            Assert.True(i < 100_000, "something never ended");
            Step(mayBegin: false);
        }
        // What was written since the last barrier is released, too; then the homes have it all.
        foreach (LazyNode node in _nodes) node.Release();
        while (_wires.Values.Any(q => q.Count > 0)) Step(mayBegin: false);
        foreach (LazyNode node in _nodes)
        {
            Assert.True(TryAnnounce(node));
            node.CheckQuiet();
        }
        for (int p = 0; p < PageCount; p++)
        {
            byte[]? home = _nodes.Single(n => n.Region.IsHome(PageAt(p).Extent)).Frames.GetValueOrDefault(PageAt(p));
            Assert.Equal(_latest[p], home ?? new byte[PageNumber.Bytes]);
        }
    }

    public void Send(NodeId from, NodeId to, Message message, byte[] payload)
    {
        var wire = (from.Value, to.Value, MessageTypes.NetworkOf(message.Type));
        if (!_wires.TryGetValue(wire, out var queue)) _wires.Add(wire, queue = new());
        queue.Enqueue((message, payload));
    }

    public static PageNumber PageAt(int index) => new(((ulong)(index / 2) << ExtentNumber.PagesShift) + (ulong)(index % 2));

    private void Step(bool mayBegin)
    {
        if (Random.Next(_deliverOneIn) == 0)
        {
            var ready = _wires.Where(w => w.Value.Count > 0).ToArray();
            if (ready.Length > 0)
            {
                var wire = ready[Random.Next(ready.Length)];
                (Message message, byte[] payload) = wire.Value.Dequeue();
                _nodes[wire.Key.To].Receive(in message, payload);
                return;
            }
        }
        if (Random.Next(_evictOneIn) == 0) _nodes[Random.Next(_nodes.Length)].TryEvict(PageAt(Random.Next(PageCount)));
        Advance(_ranks[Random.Next(_ranks.Length)], mayBegin);
    }

    private void Advance(Rank rank, bool mayBegin)
    {
        switch (rank.Doing)
        {
            case Doing.Nothing:
                if (mayBegin && Random.Next(4) != 0) rank.Doing = Doing.WantsLock;
                else if (mayBegin || _atBarrier > 0) Release(rank, Doing.ReleasesForBarrier);
                rank.Lock = Random.Next(LockCount);
                break;
            case Doing.WantsLock:
                if (_holder[rank.Lock] >= 0) break;
                _holder[rank.Lock] = rank.Number;
                AcquireAt(rank.Node);
                rank.Doing = Doing.Works;
                rank.AccessesLeft = Random.Next(16);
                break;
            case Doing.Works:
                if (rank.AccessesLeft-- <= 0 && !rank.IsBlocked) Release(rank, Doing.ReleasesLock);
                else if (!TryUse(rank, owner: rank.Lock)) rank.AccessesLeft++;
                break;
            case Doing.ReleasesLock:
                if (!TryAnnounce(rank.Node)) break;
                _holder[rank.Lock] = -1;
                rank.Doing = Doing.Nothing;
                break;
            case Doing.ReleasesForBarrier:
                if (!TryAnnounce(rank.Node)) break;
                rank.Doing = Doing.AtBarrier;
                if (++_atBarrier == _ranks.Length) OpenBarrier();
                break;
            case Doing.AtBarrier:
                break;
            case Doing.Phase:
                // Between barriers each rank has bytes of its own to write, and reads anybody's in every other phase.
                if (rank.AccessesLeft-- <= 0 && !rank.IsBlocked) rank.Doing = Doing.Nothing;
                else if (!TryUse(rank, owner: LockCount)) rank.AccessesLeft++;
                break;
        }
    }

    private void OpenBarrier()
    {
        _phase++;
        _atBarrier = 0;
        foreach (LazyNode node in _nodes) AcquireAt(node);
        foreach (Rank rank in _ranks)
        {
            rank.Doing = Doing.Phase;
            rank.AccessesLeft = Random.Next(16);
        }
    }

    private void AcquireAt(LazyNode node)
    {
        var pages = new List<PageNumber>();
        bool reaches = _log.OnAcquire(node.Id, pages);
        if (Bug != LazyBug.LosesNotices) node.Acquire(reaches ? pages : null);
    }

    private static void Release(Rank rank, Doing next)
    {
        rank.Node.Release();
        rank.Doing = next;
    }

    private bool TryAnnounce(LazyNode node)
    {
        var pages = new List<PageNumber>();
        if (!LazyNodeController.TryTakeNotices(node.Region, pages)) return false;
        _log.OnRelease(node.Id, pages.ToArray());
        return true;
    }

    /// <summary>One access to a byte that the rank may use now, drawn at random and then kept until it succeeds.</summary>
    private bool TryUse(Rank rank, int owner)
    {
        if (!rank.IsBlocked)
        {
            rank.Page = Random.Next(PageCount);
            rank.Byte = Bytes[Random.Next(Bytes.Length / 4) * 4 + owner];
            rank.Writes = owner < LockCount ? Random.Next(2) == 0 : _phase % 2 == 0;
            // In a writing phase a byte is one rank's alone, another one's in the next.
            if (owner == LockCount && rank.Writes && (rank.Byte / 4 + _phase) % _ranks.Length != rank.Number) return true;
        }
        rank.IsBlocked = !rank.Node.TryAccess(PageAt(rank.Page), rank.Writes);
        if (rank.IsBlocked) return false;
        ref byte value = ref rank.Node.Frames[PageAt(rank.Page)][rank.Byte];
        if (rank.Writes)
        {
            value = _latest[rank.Page][rank.Byte] = (byte)Random.Next(256);
            return true;
        }
        Reads++;
        Assert.True(value == _latest[rank.Page][rank.Byte],
            $"rank {rank.Number} reads {value} from byte {rank.Byte} of page {rank.Page}; the last write that happens before is {_latest[rank.Page][rank.Byte]}");
        return true;
    }

    private enum Doing
    {
        Nothing,
        WantsLock,
        Works,
        ReleasesLock,
        ReleasesForBarrier,
        AtBarrier,
        Phase,
    }

    private sealed class Rank(int number, LazyNode node)
    {
        public int Number { get; } = number;
        public LazyNode Node { get; } = node;
        public Doing Doing { get; set; }
        public int Lock { get; set; }
        public int AccessesLeft { get; set; }
        public bool IsBlocked { get; set; }
        public int Page { get; set; }
        public int Byte { get; set; }
        public bool Writes { get; set; }
    }
}
