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
    None,
    LosesNotices,
    AnnouncesBeforeTheHomeHasMerged,
    SendsWholePages,
    DiffAfterTwinIsRenewed,
}

/// <summary>
/// A rank on each of a few nodes, one page, homed at node 0, and two of its bytes side by side, each with a lock. A rank takes either lock,
/// reads or writes that lock's byte, and releases, a bounded number of times; pages are evicted at any time. What is right: a read sees
/// the last write under the lock. The controllers are the shipped ones.
/// </summary>
internal sealed class LazyWorld
{
    private const int LockCount = 2;
    private static readonly PageNumber Page = new(0);
    private static readonly RegionId Id = new(1);

    private readonly int _nodeCount, _accesses;
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

    public LazyWorld(int nodeCount, int sections, int accesses, LazyBug bug)
    {
        _nodeCount = nodeCount;
        _accesses = accesses;
        _bug = bug;
        _homes.Place(new ExtentNumber(0), new NodeId(0));
        _controllers = [.. Enumerable.Range(0, nodeCount).Select(n => new LazyNodeController(new NodeId((ushort)n)))];
        Reset();
        foreach (Node node in _nodes) node.SectionsLeft = sections;
    }

    private enum Doing : byte
    {
        Nothing,
        Works,
        Releases,
    }

    /// <summary>The moves: deliver from a wire, evict at a node, a rank's next step in one of its ways.</summary>
    public int MoveCount => _wires.Length + _nodeCount + (_nodeCount * 3);

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
            bool evicted = _controllers[move].TryEvict(_nodes[move].Region, Page, _effects);
            Drain(move);
            return evicted;
        }
        move -= _nodeCount;
        return TryAdvance(move / 3, move % 3);
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
        if (_nodes.Any(n => n.Doing != Doing.Nothing || n.SectionsLeft > 0)) return;
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
        Node node = _nodes[move / 3];
        return $"rank {move / 3} " + node.Doing switch
        {
            Doing.Nothing => $"takes lock {move % 3}",
            Doing.Works when node.Blocked != 0 => "tries again",
            Doing.Works => move % 3 == 0 ? $"reads byte {node.Lock}" : move % 3 == 1 ? $"writes byte {node.Lock}" : "begins to release",
            _ => "lets the lock go, if all is merged",
        };
    }

    private bool TryAdvance(int n, int way)
    {
        Node node = _nodes[n];
        switch (node.Doing)
        {
            case Doing.Nothing:
                if (node.SectionsLeft == 0 || way >= LockCount || _holder[way] >= 0) return false;
                _holder[way] = n;
                node.Lock = way;
                node.Doing = Doing.Works;
                node.AccessesLeft = _accesses;
                var pages = new List<PageNumber>();
                bool reaches = _log.OnAcquire(new NodeId((ushort)n), pages);
                if (!reaches) throw new InvariantException("the log does not reach back, short as it is");
                if (_bug != LazyBug.LosesNotices) _controllers[n].Acquire(node.Region, pages.ToArray(), _effects);
                Drain(n);
                return true;
            case Doing.Works when node.Blocked != 0:
                return way == 0 && Access(n, node.Blocked == 2);
            case Doing.Works when way == 2:
                _controllers[n].Release(node.Region, _effects);
                Drain(n);
                node.Doing = Doing.Releases;
                return true;
            case Doing.Works:
                if (node.AccessesLeft == 0) return false;
                node.AccessesLeft--;
                Access(n, way == 1);
                return true;
            default:
                if (way != 0) return false;
                if (_bug == LazyBug.AnnouncesBeforeTheHomeHasMerged)
                {
                    int diffsOut = node.Region.DiffsOut;
                    node.Region.DiffsOut = 0;
                    Announce(n);
                    node.Region.DiffsOut = diffsOut;
                    return true;
                }
                return Announce(n);
        }
    }

    private bool Announce(int n)
    {
        Node node = _nodes[n];
        var pages = new List<PageNumber>();
        if (!LazyNodeController.TryTakeNotices(node.Region, pages)) return false;
        _log.OnRelease(new NodeId((ushort)n), pages.ToArray());
        _holder[node.Lock] = -1;
        node.Lock = 0;
        node.Doing = Doing.Nothing;
        node.AccessesLeft = 0;
        node.SectionsLeft--;
        return true;
    }

    /// <summary>One access to the byte of the lock that the rank has; a write writes another value than was there.</summary>
    private bool Access(int n, bool write)
    {
        Node node = _nodes[n];
        byte before = node.Blocked;
        node.Blocked = write ? (byte)2 : (byte)1;
        AccessResult result = _controllers[n].Access(node.Region, Page, write, _effects);
        Drain(n);
        if (result != AccessResult.Hit) return before == 0;
        node.Blocked = 0;
        byte[] contents = node.Contents ?? throw new InvariantException($"node {n} uses the page without a frame");
        if (write)
        {
            if (!node.IsWritable) throw new InvariantException($"rank {n} writes a page that is not mapped writable");
            contents[node.Lock] = _latest[node.Lock] = (byte)(1 + (_latest[node.Lock] % 2));
        }
        else if (contents[node.Lock] != _latest[node.Lock])
        {
            throw new InvariantException($"rank {n} reads {contents[node.Lock]} from byte {node.Lock}; the last write before is {_latest[node.Lock]}");
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
                    node.Twin = [.. node.Contents!];
                    break;
                case EffectKind.DropTwin:
                    node.Twin = null;
                    break;
                case EffectKind.MakeWritable:
                    node.IsWritable = true;
                    break;
                case EffectKind.WriteProtect:
                    node.IsWritable = false;
                    break;
                case EffectKind.Unmap:
                    if (node.IsWritable) throw new InvariantException($"node {n} unmaps a page that can still be written");
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
                LazyBug.SendsWholePages => [.. node.Contents!.Select(b => (byte)~b)],
                LazyBug.DiffAfterTwinIsRenewed => node.Contents!,
                _ => node.Twin!,
            };
            byte[] room = new byte[PageDiff.MaxBytes];
            payload = room[..PageDiff.Write(twin, node.Contents, room)];
        }
        int network = MessageTypes.NetworkOf(effect.Message.Type) == VirtualNetwork.Request ? 0 : 1;
        _wires[(((n * _nodeCount) + effect.To.Value) * 2) + network].Enqueue(new Frame(effect.Message, payload));
    }

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
                Bit(node.IsWritable), (byte)node.Doing, (byte)node.Lock, (byte)node.SectionsLeft, (byte)node.AccessesLeft, node.Blocked,
                (byte)(_log.Last - _log.SeenBy(new NodeId(n))));
            foreach (byte[]? contents in new[] { node.Contents, node.Twin })
            {
                bytes.Add(Bit(contents is not null));
                if (contents is not null) bytes.AddRange(contents.AsSpan(0, LockCount));
            }
        }
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
            node.Doing = (Doing)reader.Next();
            node.Lock = reader.Next();
            node.SectionsLeft = reader.Next();
            node.AccessesLeft = reader.Next();
            node.Blocked = reader.Next();
            seen[n] = last - reader.Next();
            node.Contents = reader.Next() != 0 ? reader.NextPage() : null;
            node.Twin = reader.Next() != 0 ? reader.NextPage() : null;
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
