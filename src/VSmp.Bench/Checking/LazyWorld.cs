// SPDX-License-Identifier: Apache-2.0
using VSmp.Coherence;
using VSmp.Coherence.Lazy;
using VSmp.Coherence.Messages;
using VSmp.Coherence.Nodes;
using VSmp.Coherence.Placement;

namespace VSmp.Bench.Checking;

/// <summary>What to break in lazy release, to see whether the search finds it.</summary>
internal enum LazyBug
{
    /// <summary>Nothing.</summary>
    None,
    /// <summary>An acquire does not invalidate what others wrote.</summary>
    AcquireDoesNotInvalidate,
    /// <summary>A release does not tell which pages it wrote.</summary>
    NoticeDropped,
    /// <summary>A release does not tell of pages that were evicted since they were written.</summary>
    EvictedNotNoticed,
    /// <summary>Notices are told, and the lock goes, before the home has merged the diffs.</summary>
    MergedTooLate,
    /// <summary>A diff carries the whole page, not only what changed.</summary>
    DiffOfWholePage,
    /// <summary>A diff is taken against what is in the frame now, as if there were no twin.</summary>
    DiffWithoutTwin,
    /// <summary>The twin of the first write to a page serves all later ones.</summary>
    TwinOutlivesItsDiff,
    /// <summary>A GetS travels on another network than diffs, and may overtake them.</summary>
    FetchOvertakesDiff,
    /// <summary>A notice for a page that is being fetched is forgotten: the data are installed all the same.</summary>
    StaleDataInstalled,
    /// <summary>Released pages stay mapped writable.</summary>
    NotWriteProtected,
    /// <summary>Pages are invalidated, and what was written of them here goes with them.</summary>
    InvalidatedWithoutDiff,
}

/// <summary>
/// Ranks on a few nodes, one page, homed at node 0, and two of its bytes side by side, each with a lock. A rank takes either
/// lock, reads or writes that lock's byte, and releases, a bounded number of times; pages are evicted at any time. What is right:
/// a read sees the last write under the lock. The controllers are the shipped ones.
/// </summary>
internal sealed class LazyWorld
{
    private const int LockCount = 2;
    private static readonly PageNumber Page = new(0);
    private static readonly RegionId Id = new(1);

    private readonly int _nodeCount, _accesses;
    private readonly Rank[] _ranks;
    private readonly LazyBug _bug;
    private readonly LazyNodeController[] _controllers;
    private readonly LazyHomeController _home = new(new NodeId(0));
    private readonly EffectBuffer _effects = new();
    private readonly HomeMap _homes = new(1);
    private Node[] _nodes = [];
    private Queue<Frame>[] _wires = [];
    private readonly byte[] _latest = new byte[LockCount];
    private readonly int[] _holder = new int[LockCount];
    private NoticeLog _log = new();
    private bool _isAcquiring;

    public LazyWorld(LazyBounds bounds, LazyBug bug)
    {
        int nodeCount = _nodeCount = bounds.Nodes;
        _accesses = bounds.Accesses;
        _bug = bug;
        // The last node gets the first rank, and the first one of those that share a node: it is no home, and fetches.
        _ranks = [.. Enumerable.Range(0, bounds.Ranks)
            .Select(r => new Rank(r, nodeCount - 1 - (r % nodeCount)) { SectionsLeft = bounds.Sections })];
        _homes.Place(new ExtentNumber(0), new NodeId(0));
        _controllers = [.. Enumerable.Range(0, nodeCount).Select(n => new LazyNodeController(new NodeId((ushort)n)))];
        Reset();
    }

    private enum Doing : byte
    {
        Nothing,
        Works,
        Releases,
    }

    /// <summary>The moves: deliver from a wire, evict at a node, a rank's next step in one of its ways.</summary>
    public int MoveCount => _wires.Length + _nodeCount + (_ranks.Length * 3);

    /// <summary>Does a move, if there is one of that number now.</summary>
    /// <exception cref="InvariantException">A read was not what was written last.</exception>
    public bool TryMove(int move)
    {
        if (move < _wires.Length)
        {
            if (!_wires[move].TryDequeue(out Frame? frame)) return false;
            Dispatch(move / 2 % _nodeCount, frame);
            return true;
        }
        move -= _wires.Length;
        if (move < _nodeCount)
        {
            LazyRegion region = _nodes[move].Region;
            bool evicted = _controllers[move].TryEvict(region, Page, _effects);
            if (_bug == LazyBug.EvictedNotNoticed && evicted && region.Dirty.Remove(Page)) region.PageAt(Page).IsDirty = false;
            Drain(move);
            return evicted;
        }
        move -= _nodeCount;
        return TryAdvance(_ranks[move / 3], move % 3);
    }

    /// <summary>Whether nothing is on its way; then whoever waits waits for ever, and what was released is at home.</summary>
    public void CheckQuiet()
    {
        if (_wires.Any(w => w.Count > 0)) return;
        for (int n = 0; n < _nodeCount; n++)
        {
            bool isReady = _nodes[n].Region.PageAt(Page).State is LazyState.I or LazyState.R or LazyState.W;
            if (!isReady || _nodes[n].Region.DiffsOut != 0) throw new InvariantException($"node {n} waits for what never comes");
        }
        if (_ranks.Any(n => n.Doing != Doing.Nothing || n.SectionsLeft > 0)) return;
        for (int b = 0; b < LockCount; b++)
        {
            byte home = _nodes[0].Contents is { } contents ? contents[b] : (byte)0;
            if (home != _latest[b]) throw new InvariantException($"all is released; byte {b} is {home} at home, {_latest[b]} was written last");
        }
    }

    public string Tell(int move)
    {
        if (move < _wires.Length)
        {
            return $"node {move / 2 % _nodeCount} gets {_wires[move].First().Message} from node {move / 2 / _nodeCount}";
        }
        move -= _wires.Length;
        if (move < _nodeCount) return $"node {move} evicts the page";
        move -= _nodeCount;
        Rank rank = _ranks[move / 3];
        return $"rank {rank.Number} on node {rank.Node} " + rank.Doing switch
        {
            Doing.Nothing => $"takes lock {move % 3}",
            Doing.Works when rank.Blocked != 0 => "tries again",
            Doing.Works when move % 3 == 2 => "begins to release",
            Doing.Works => $"{(move % 3 == 0 ? "reads" : "writes")} byte {rank.Lock}",
            _ => "lets the lock go, if all is merged",
        };
    }

    private bool TryAdvance(Rank rank, int way)
    {
        switch (rank.Doing)
        {
            case Doing.Nothing:
                if (rank.SectionsLeft == 0 || way >= LockCount || _holder[way] >= 0) return false;
                _holder[way] = rank.Number;
                rank.Lock = way;
                rank.Doing = Doing.Works;
                rank.AccessesLeft = _accesses;
                Acquire(rank.Node);
                return true;
            case Doing.Works when rank.Blocked != 0:
                return way == 0 && Access(rank, rank.Blocked == 2);
            case Doing.Works when way == 2:
                _controllers[rank.Node].Release(_nodes[rank.Node].Region, _effects);
                Drain(rank.Node);
                rank.Doing = Doing.Releases;
                return true;
            case Doing.Works:
                if (rank.AccessesLeft == 0) return false;
                rank.AccessesLeft--;
                Access(rank, way == 1);
                return true;
            default:
                return way == 0 && TryLetGo(rank);
        }
    }

    private void Acquire(int n)
    {
        LazyRegion region = _nodes[n].Region;
        var pages = new List<PageNumber>();
        bool reaches = _log.OnAcquire(new NodeId((ushort)n), pages);
        if (!reaches) throw new InvariantException("the log does not reach back, short as it is");
        bool isFetched = region.PageAt(Page).State is not (LazyState.I or LazyState.R or LazyState.W);
        if (_bug == LazyBug.AcquireDoesNotInvalidate || (_bug == LazyBug.StaleDataInstalled && isFetched)) return;
        _isAcquiring = true;
        _controllers[n].Acquire(region, pages.ToArray(), _effects);
        Drain(n);
        _isAcquiring = false;
    }

    private bool TryLetGo(Rank rank)
    {
        LazyRegion region = _nodes[rank.Node].Region;
        var pages = new List<PageNumber>();
        int diffsOut = region.DiffsOut;
        if (_bug == LazyBug.MergedTooLate) region.DiffsOut = 0;
        if (!LazyNodeController.TryTakeNotices(region, pages)) return false;
        region.DiffsOut = diffsOut;
        if (_bug == LazyBug.NoticeDropped) pages.Clear();
        _log.OnRelease(new NodeId((ushort)rank.Node), pages.ToArray());
        _holder[rank.Lock] = -1;
        rank.Lock = 0;
        rank.Doing = Doing.Nothing;
        rank.AccessesLeft = 0;
        rank.SectionsLeft--;
        return true;
    }

    /// <summary>One access to the byte of the lock that the rank has; a write writes another value than was there.</summary>
    private bool Access(Rank rank, bool write)
    {
        int n = rank.Node;
        Node node = _nodes[n];
        byte before = rank.Blocked;
        rank.Blocked = write ? (byte)2 : (byte)1;
        // What the mapping lets it write it writes, and nobody hears of it.
        bool isHit = (write && node.IsWritable) || _controllers[n].Access(node.Region, Page, write, _effects) == AccessResult.Hit;
        Drain(n);
        if (!isHit) return before == 0;
        rank.Blocked = 0;
        byte[] contents = node.Contents ?? throw new InvariantException($"node {n} uses the page without a frame");
        if (write)
        {
            if (!node.IsWritable) throw new InvariantException($"rank {rank.Number} writes a page that is not mapped writable");
            Write(rank);
        }
        else if (contents[rank.Lock] != _latest[rank.Lock])
        {
            throw new InvariantException(
                $"rank {rank.Number} reads {contents[rank.Lock]} from byte {rank.Lock}; last written was {_latest[rank.Lock]}");
        }
        return true;
    }

    private void Dispatch(int n, Frame frame)
    {
        Message message = frame.Message;
        if (message.Type == MessageType.Diff && PageDiff.Violation(frame.Payload) is { } violation) throw new InvariantException(violation);
        if (LazyHomeController.Takes(message.Type)) _home.OnMessage(_nodes[n].Region, in message, _effects);
        else _controllers[n].OnMessage(_nodes[n].Region, in message, _effects);
        Execute(n, frame);
        Drain(n);
    }

    private void Drain(int n)
    {
        Execute(n, new Frame(default, []));
        while (_nodes[n].ToSelf.TryDequeue(out Message message))
        {
            if (LazyHomeController.Takes(message.Type)) _home.OnMessage(_nodes[n].Region, in message, _effects);
            else _controllers[n].OnMessage(_nodes[n].Region, in message, _effects);
            Execute(n, new Frame(message, []));
        }
    }

    private void Execute(int n, Frame frame)
    {
        Node node = _nodes[n];
        for (int i = 0; i < _effects.Count; i++)
        {
            Effect effect = _effects[i];
            switch (effect.Kind)
            {
                case EffectKind.Send:
                    Send(n, in effect);
                    break;
                case EffectKind.WriteFrame or EffectKind.InstallReadable:
                    if ((frame.Message.Flags & MessageFlags.Zero) != 0) node.Contents = new byte[PageNumber.Bytes];
                    else if ((frame.Message.Flags & MessageFlags.NoData) == 0) node.Contents = [.. frame.Payload];
                    break;
                case EffectKind.MakeTwin:
                    if (_bug == LazyBug.TwinOutlivesItsDiff && node.Twin is not null) break;
                    node.Twin = [.. node.Contents!];
                    break;
                case EffectKind.DropTwin:
                    if (_bug != LazyBug.TwinOutlivesItsDiff) node.Twin = null;
                    break;
                case EffectKind.MakeWritable:
                    node.IsWritable = true;
                    break;
                case EffectKind.WriteProtect:
                    if (_bug != LazyBug.NotWriteProtected) node.IsWritable = false;
                    break;
                case EffectKind.Unmap:
                    node.IsWritable = false;
                    node.Contents = null;
                    break;
                case EffectKind.MergeDiff:
                    PageDiff.Apply(frame.Payload, node.Contents ??= new byte[PageNumber.Bytes]);
                    break;
                case EffectKind.Complete:
                    break; // taking the notices is a move of its own, made whenever it may be
                default:
                    throw new InvariantException($"{effect.Kind} is no effect of lazy release");
            }
        }
        _effects.Clear();
    }

    private void Send(int n, in Effect effect)
    {
        Node node = _nodes[n];
        if (effect.To.Value == n)
        {
            node.ToSelf.Enqueue(effect.Message);
            return;
        }
        byte[] payload = [];
        if (effect.Source == DataSource.Frame) payload = [.. node.Contents!];
        if (effect.Source == DataSource.Diff)
        {
            byte[] twin = _bug switch
            {
                LazyBug.DiffOfWholePage => [.. node.Contents!.Select(b => (byte)~b)],
                LazyBug.DiffWithoutTwin => node.Contents!,
                LazyBug.InvalidatedWithoutDiff when _isAcquiring => node.Contents!,
                _ => node.Twin!,
            };
            byte[] room = new byte[PageDiff.MaxBytes];
            payload = room[..PageDiff.Write(twin, node.Contents, room)];
            WriteIfPossible(n);
        }
        int network = MessageTypes.NetworkOf(effect.Message.Type) == VirtualNetwork.Request ? 0 : 1;
        if (_bug == LazyBug.FetchOvertakesDiff && effect.Message.Type == MessageType.GetS) network = 1;
        _wires[(((n * _nodeCount) + effect.To.Value) * 2) + network].Enqueue(new Frame(effect.Message, payload));
    }

    /// <summary>A rank that may still write while the agent looks for what changed does so, at the worst moment.</summary>
    private void WriteIfPossible(int n)
    {
        Rank? rank = _ranks.FirstOrDefault(r => r.Node == n && r.Doing == Doing.Works && r.Blocked == 0 && r.AccessesLeft > 0);
        if (rank is null || !_nodes[n].IsWritable) return;
        rank.AccessesLeft--;
        Write(rank);
    }

    private void Write(Rank rank) =>
        _nodes[rank.Node].Contents![rank.Lock] = _latest[rank.Lock] = (byte)(1 + (_latest[rank.Lock] % 2));

    private void Reset()
    {
        _nodes = [.. Enumerable.Range(0, _nodeCount).Select(_ => new Node(new LazyRegion(Id, "checked", 1, _homes, new FrameBudget(2))))];
        foreach (Node node in _nodes) node.Region.Open(new ExtentNumber(0));
        _nodes[0].Region.BecomeHome(new ExtentNumber(0));
        _wires = [.. Enumerable.Range(0, _nodeCount * _nodeCount * 2).Select(_ => new Queue<Frame>())];
        Array.Fill(_holder, -1);
        _log = new NoticeLog();
        for (ushort n = 0; n < _nodeCount; n++) _log.Add(new NodeId(n));
    }

    /// <summary>The whole state; of pages, the bytes that are ever written. Two that differ in numbers only are the same.</summary>
    public byte[] Save()
    {
        var bytes = new List<byte>(256);
        bytes.AddRange(_latest);
        foreach (int holder in _holder) bytes.Add((byte)holder);
        for (ushort n = 0; n < _nodeCount; n++)
        {
            Node node = _nodes[n];
            ref LazyPage page = ref node.Region.PageAt(Page);
            bytes.AddRange((byte)page.State, Bit(page.HasFrame), Bit(page.IsDirty), (byte)node.Region.DiffsOut, (byte)node.Region.Unannounced.Count,
                Bit(node.IsWritable), (byte)(_log.Last - _log.SeenBy(new NodeId(n))));
            foreach (byte[]? contents in new[] { node.Contents, node.Twin })
            {
                bytes.Add(Bit(contents is not null));
                if (contents is not null) bytes.AddRange(contents.AsSpan(0, LockCount));
            }
        }
        foreach (Rank rank in _ranks)
            bytes.AddRange((byte)rank.Doing, (byte)rank.Lock, (byte)rank.SectionsLeft, (byte)rank.AccessesLeft, rank.Blocked);
        bytes.Add(Bit(_nodes[0].Region.IsTouched(Page)));
        bytes.Add((byte)_log.Count);
        foreach (NoticeLog.Notice notice in _log.Notices) bytes.AddRange((byte)(_log.Last - notice.Number), (byte)notice.Writer.Value);
        foreach (Queue<Frame> wire in _wires)
        {
            bytes.Add((byte)wire.Count);
            foreach (Frame frame in wire)
            {
                int length = frame.Payload.Length == PageNumber.Bytes ? LockCount : frame.Payload.Length;
                bytes.AddRange((byte)frame.Message.Type, (byte)frame.Message.Flags, Bit(frame.Payload.Length == PageNumber.Bytes), (byte)(length >> 8), (byte)length);
                bytes.AddRange(frame.Payload.AsSpan(0, length));
            }
        }
        return [.. bytes];
    }

    /// <summary>Puts everything back to what it was.</summary>
    public void Restore(ReadOnlySpan<byte> saved)
    {
        const ulong last = 1 << 20;
        Reset();
        Span<ulong> seen = stackalloc ulong[_nodeCount];
        var reader = new Reader(saved);
        for (int b = 0; b < LockCount; b++) _latest[b] = reader.Next();
        for (int b = 0; b < LockCount; b++) _holder[b] = (sbyte)reader.Next();
        for (int n = 0; n < _nodeCount; n++)
        {
            Node node = _nodes[n];
            ref LazyPage page = ref node.Region.PageAt(Page);
            page.State = (LazyState)reader.Next();
            page.HasFrame = reader.Next() != 0;
            if (page.HasFrame) node.Region.Budget!.TryReserve();
            // Where it is written away from home, or will be, its twin has one, too.
            if (page.HasFrame && page.State is (LazyState.W or LazyState.IW_D or LazyState.IW_D_I)) node.Region.Budget!.TryReserve();
            page.IsDirty = reader.Next() != 0;
            if (page.IsDirty) node.Region.Dirty.Add(Page);
            node.Region.DiffsOut = reader.Next();
            for (int i = reader.Next(); i > 0; i--) node.Region.Unannounced.Add(Page);
            node.IsWritable = reader.Next() != 0;
            seen[n] = last - reader.Next();
            node.Contents = reader.Next() != 0 ? reader.NextPage() : null;
            node.Twin = reader.Next() != 0 ? reader.NextPage() : null;
        }
        foreach (Rank rank in _ranks)
        {
            rank.Doing = (Doing)reader.Next();
            rank.Lock = reader.Next();
            rank.SectionsLeft = reader.Next();
            rank.AccessesLeft = reader.Next();
            rank.Blocked = reader.Next();
        }
        _nodes[0].Region.IsTouched(Page) = reader.Next() != 0;
        var notices = new NoticeLog.Notice[reader.Next()];
        for (int i = 0; i < notices.Length; i++) notices[i] = new NoticeLog.Notice(last - reader.Next(), new NodeId(reader.Next()), Page);
        _log.Restore(last, notices, seen);
        for (int w = 0; w < _wires.Length; w++)
        {
            for (int i = reader.Next(); i > 0; i--)
            {
                Message message = new()
                {
                    Type = (MessageType)reader.Next(),
                    Flags = (MessageFlags)reader.Next(),
                    Source = new NodeId((ushort)(w / 2 / _nodeCount)),
                    Count = 1,
                    Region = Id,
                    Page = Page,
                };
                bool isPage = reader.Next() != 0;
                int length = (reader.Next() << 8) | reader.Next();
                _wires[w].Enqueue(new Frame(message, isPage ? reader.NextPage() : reader.NextBytes(length)));
            }
        }
    }

    private static byte Bit(bool value) => value ? (byte)1 : (byte)0;

    private sealed record Frame(Message Message, byte[] Payload);

    private sealed class Node(LazyRegion region)
    {
        public LazyRegion Region { get; } = region;
        public Queue<Message> ToSelf { get; } = new();
        public byte[]? Contents { get; set; }
        public byte[]? Twin { get; set; }
        public bool IsWritable { get; set; }
    }

    private sealed class Rank(int number, int node)
    {
        public int Number { get; } = number;
        public int Node { get; } = node;
        public Doing Doing { get; set; }
        public int Lock { get; set; }
        public int SectionsLeft { get; set; }
        public int AccessesLeft { get; set; }
        public byte Blocked { get; set; } // 1: by a read, 2: by a write
    }

    private ref struct Reader(ReadOnlySpan<byte> bytes)
    {
        private ReadOnlySpan<byte> _left = bytes;

        public byte Next()
        {
            byte value = _left[0];
            _left = _left[1..];
            return value;
        }

        public byte[] NextBytes(int length)
        {
            byte[] value = _left[..length].ToArray();
            _left = _left[length..];
            return value;
        }

        public byte[] NextPage()
        {
            byte[] page = new byte[PageNumber.Bytes];
            NextBytes(LockCount).CopyTo(page, 0);
            return page;
        }
    }
}
