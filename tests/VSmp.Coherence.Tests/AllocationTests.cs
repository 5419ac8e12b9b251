// SPDX-License-Identifier: Apache-2.0
using System.Runtime.InteropServices;
using VSmp.Coherence.Homes;
using VSmp.Coherence.Lazy;
using VSmp.Coherence.Messages;
using VSmp.Coherence.Nodes;
using VSmp.Coherence.Placement;
using VSmp.Coherence.Protocols;

namespace VSmp.Coherence.Tests;

public sealed class AllocationTests
{
    public static TheoryData<string> Protocols => [.. ProtocolCatalog.All.Select(p => p.Name)];

    /// <summary>
    /// Three nodes read, write, evict, throw away and fight for a few pages: everything that a fault can lead to, without the world.
    /// </summary>
    [Theory]
    [MemberData(nameof(Protocols))]
    public void Steps_of_the_protocol_allocate_nothing(string name)
    {
        var nodes = new Ring(ProtocolCatalog.Find(name)!);
        for (int i = 0; i < 2000; i++) nodes.Turn(); // queues and buffers find their size
        long before = GC.GetAllocatedBytesForCurrentThread();
        long stepsBefore = nodes.Steps;
        for (int i = 0; i < 2000; i++) nodes.Turn();
        long bytes = GC.GetAllocatedBytesForCurrentThread() - before;
        Assert.True(nodes.Steps - stepsBefore > 10_000, $"only {nodes.Steps - stepsBefore} steps were made");
        Assert.Equal(0, bytes);
    }

    /// <summary>Three nodes write parts of the same pages, release and acquire, fetch, evict and invalidate.</summary>
    [Fact]
    public void Steps_of_lazy_release_allocate_nothing()
    {
        var nodes = new LazyRing();
        for (int i = 0; i < 2000; i++) nodes.Turn();
        long before = GC.GetAllocatedBytesForCurrentThread();
        long stepsBefore = nodes.Steps, diffsBefore = nodes.Diffs;
        for (int i = 0; i < 2000; i++) nodes.Turn();
        long bytes = GC.GetAllocatedBytesForCurrentThread() - before;
        Assert.True(nodes.Steps - stepsBefore > 10_000, $"only {nodes.Steps - stepsBefore} steps were made");
        Assert.True(nodes.Diffs - diffsBefore > 2_000, $"only {nodes.Diffs - diffsBefore} diffs were sent");
        Assert.Equal(0, bytes);
    }

    private sealed class LazyRing
    {
        private const int NodeCount = 3;
        private const int PageCount = 4;

        private readonly LazyNodeController[] _nodes = new LazyNodeController[NodeCount];
        private readonly LazyHomeController _home = new(new NodeId(0));
        private readonly LazyRegion[] _regions = new LazyRegion[NodeCount];
        private readonly EffectBuffer _effects = new();
        private readonly Queue<(NodeId To, Message Message)> _wire = new(1024);
        private readonly List<PageNumber> _notices = new(64);
        private ulong _turn;

        public LazyRing()
        {
            for (ushort n = 0; n < NodeCount; n++)
            {
                var homes = new HomeMap(1);
                homes.Place(new ExtentNumber(0), new NodeId(0));
                _nodes[n] = new LazyNodeController(new NodeId(n));
                _regions[n] = new LazyRegion(new RegionId(1), "allocation", 1, homes, new FrameBudget(2 * PageCount));
                _regions[n].Open(new ExtentNumber(0));
            }
            _regions[0].BecomeHome(new ExtentNumber(0));
        }

        public long Steps { get; private set; }

        public long Diffs { get; private set; }

        public void Turn()
        {
            _turn++;
            // All write the same page, and read another, before any answer is delivered.
            for (int n = 0; n < NodeCount; n++)
            {
                Access(n, new PageNumber(_turn % PageCount), write: true);
                Access(n, new PageNumber((_turn + 1) % PageCount), write: false);
            }
            Deliver();
            for (int n = 0; n < NodeCount; n++) Access(n, new PageNumber(_turn % PageCount), write: true);
            Deliver();
            _ = _nodes[2].TryEvict(_regions[2], new PageNumber(_turn % PageCount), _effects);
            Send();
            for (int n = 0; n < NodeCount; n++)
            {
                Steps++;
                _nodes[n].Release(_regions[n], _effects);
                Send();
            }
            Deliver();
            _notices.Clear();
            for (int n = 0; n < NodeCount; n++) Announce(n);
            for (int n = 0; n < NodeCount; n++) Acquire(n);
            Deliver();
        }

        private void Access(int node, PageNumber page, bool write)
        {
            Steps++;
            _ = _nodes[node].Access(_regions[node], page, write, _effects);
            Send();
        }

        private void Announce(int node)
        {
            Steps++;
            if (!LazyNodeController.TryTakeNotices(_regions[node], _notices)) throw new InvalidOperationException("diffs are still out");
        }

        private void Acquire(int node)
        {
            Steps++;
            _nodes[node].Acquire(_regions[node], CollectionsMarshal.AsSpan(_notices), _effects);
            Send();
        }

        private void Send()
        {
            for (int i = 0; i < _effects.Count; i++)
            {
                ref readonly Effect effect = ref _effects[i];
                if (effect.Kind != EffectKind.Send) continue;
                if (effect.Source == DataSource.Diff) Diffs++;
                _wire.Enqueue((effect.To, effect.Message));
            }
            _effects.Clear();
        }

        private void Deliver()
        {
            while (_wire.TryDequeue(out var item))
            {
                Steps++;
                int to = item.To.Value;
                if (LazyHomeController.Takes(item.Message.Type)) _home.OnMessage(_regions[to], in item.Message, _effects);
                else _nodes[to].OnMessage(_regions[to], in item.Message, _effects);
                Send();
            }
        }
    }

    private sealed class Ring
    {
        private const int NodeCount = 3;
        private const int PageCount = 4;

        private readonly NodeController[] _nodes;
        private readonly HomeController[] _homes;
        private readonly Region[] _regions;
        private readonly EffectBuffer _effects = new();
        private readonly Queue<(NodeId To, Message Message)> _wire = new(1024);
        private ulong _turn;

        public Ring(Protocol protocol)
        {
            var home = new NodeId(0);
            _nodes = new NodeController[NodeCount];
            _homes = new HomeController[NodeCount];
            _regions = new Region[NodeCount];
            for (ushort n = 0; n < NodeCount; n++)
            {
                var homes = new HomeMap(1);
                homes.Place(new ExtentNumber(0), home);
                _nodes[n] = new NodeController(new NodeId(n));
                _homes[n] = new HomeController(new NodeId(n), static () => NodeCount);
                _regions[n] = new Region(new RegionId(1), "allocation", 1, protocol, homes, new FrameBudget(PageCount));
                _regions[n].Open(new ExtentNumber(0));
            }
            _regions[0].BecomeHome(new ExtentNumber(0));
        }

        public long Steps { get; private set; }

        public void Turn()
        {
            _turn++;
            // Contended first: all nodes ask for one page before any answer is delivered.
            var page = new PageNumber(_turn % PageCount);
            for (int n = 0; n < NodeCount; n++) Access(n, page, write: (_turn + (ulong)n) % 3 != 0);
            Deliver();
            for (ulong p = 0; p < PageCount; p++) Access((int)(_turn % NodeCount), new PageNumber(p), write: _turn % 2 == 0);
            Deliver();
            for (ulong p = 0; p < PageCount; p++)
            {
                _ = _nodes[1].TryEvict(_regions[1], new PageNumber(p), _effects);
                Send();
            }
            Deliver();
            // The last page is thrown away by the node that alone uses it now.
            Access(2, new PageNumber(PageCount - 1), write: true);
            Deliver();
            _ = _nodes[2].Discard(_regions[2], new PageNumber(PageCount - 1), _effects);
            Send();
            Deliver();
        }

        private void Access(int node, PageNumber page, bool write)
        {
            Steps++;
            _ = _nodes[node].Access(_regions[node], page, write, MessageFlags.None, _effects);
            Send();
        }

        private void Send()
        {
            for (int i = 0; i < _effects.Count; i++)
            {
                ref readonly Effect effect = ref _effects[i];
                if (effect.Kind == EffectKind.Send) _wire.Enqueue((effect.To, effect.Message));
            }
            _effects.Clear();
        }

        private void Deliver()
        {
            while (_wire.TryDequeue(out var item))
            {
                Steps++;
                int to = item.To.Value;
                if (HomeController.Takes(in item.Message)) _homes[to].OnMessage(_regions[to], in item.Message, _effects);
                else _nodes[to].OnMessage(_regions[to], in item.Message, _effects);
                Send();
            }
        }
    }
}
