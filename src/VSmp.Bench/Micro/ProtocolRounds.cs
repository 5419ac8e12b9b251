// SPDX-License-Identifier: Apache-2.0
using BenchmarkDotNet.Attributes;
using VSmp.Coherence;
using VSmp.Coherence.Homes;
using VSmp.Coherence.Messages;
using VSmp.Coherence.Nodes;
using VSmp.Coherence.Placement;
using VSmp.Coherence.Protocols;

namespace VSmp.Bench.Micro;

/// <summary>
/// Rounds of protocol steps at three nodes, through the shipped controllers: effects go into a buffer, messages from there to the
/// controller that they are for, and nothing else happens. Each round ends in the state in which it began.
/// </summary>
#pragma warning disable CA1515 // the benchmark library wants a public class
public class ProtocolRounds
#pragma warning restore CA1515
{
    private const int NodeCount = 3;

    private static readonly PageNumber Shared = new(1), Moving = new(2), Handed = new(3), Evicted = new(4);

    private readonly NodeController[] _nodes = new NodeController[NodeCount];
    private readonly HomeController[] _homes = new HomeController[NodeCount];
    private readonly Region[] _regions = new Region[NodeCount];
    private readonly EffectBuffer _effects = new();
    private readonly (int To, Message Message)[] _wire = new (int, Message)[16]; // a round is far from filling it
    private int _sent, _taken;

    /// <summary>What the protocols are called.</summary>
    public static IEnumerable<string> Protocols => ProtocolCatalog.All.Select(p => p.Name);

    /// <summary>The protocol's name.</summary>
    [ParamsSource(nameof(Protocols))]
    public string Protocol { get; set; } = ProtocolCatalog.All[0].Name;

    /// <summary>Steps made so far: calls of a controller.</summary>
    internal long Steps { get; private set; }

    /// <summary>Brings the pages into the states in which the rounds begin.</summary>
    [GlobalSetup]
    public void Setup()
    {
        for (ushort n = 0; n < NodeCount; n++)
        {
            var homes = new HomeMap(1);
            homes.Place(new ExtentNumber(0), new NodeId(0));
            _nodes[n] = new NodeController(new NodeId(n));
            _homes[n] = new HomeController(new NodeId(n), static () => NodeCount);
            _regions[n] = new Region(new RegionId(1), "micro", 1, ProtocolCatalog.Find(Protocol)!, homes, new FrameBudget(16));
            _regions[n].Open(new ExtentNumber(0));
        }
        _regions[0].BecomeHome(new ExtentNumber(0));
        // Written once, so that what is granted afterwards has contents.
        foreach (PageNumber page in (ReadOnlySpan<PageNumber>)[Shared, Moving, Handed, Evicted]) Access(1, page, write: true);
        Evict(1, Evicted);
        Access(2, Shared, write: false);
        Access(2, Moving, write: false);
    }

    /// <summary>A fault on a page that is there.</summary>
    [Benchmark]
    public void Hit() => Access(2, Shared, write: false);

    /// <summary>A node reads a page that others have, and evicts it silently: GetS, DataS.</summary>
    [Benchmark]
    public void ReadMiss()
    {
        Access(0, Shared, write: false);
        Evict(0, Shared);
    }

    /// <summary>One of two readers writes, the other one reads again: Upgrade, Inv, InvAck, InstallAck; then a forward to the writer.</summary>
    [Benchmark]
    public void Upgrade()
    {
        Access(1, Moving, write: true);
        Access(2, Moving, write: false);
    }

    /// <summary>A page is handed over between two writers, and back: GetM, FwdGetM, DataM, InstallAck to both.</summary>
    [Benchmark]
    public void Forward()
    {
        Access(2, Handed, write: true);
        Access(1, Handed, write: true);
    }

    /// <summary>A page is written, and evicted dirty: GetM, DataM, InstallAck, PutM, PutAck.</summary>
    [Benchmark]
    public void Eviction()
    {
        Access(1, Evicted, write: true);
        Evict(1, Evicted);
    }

    private void Access(int node, PageNumber page, bool write)
    {
        Steps++;
        _ = _nodes[node].Access(_regions[node], page, write, MessageFlags.None, _effects);
        Finish();
    }

    private void Evict(int node, PageNumber page)
    {
        Steps++;
        _ = _nodes[node].TryEvict(_regions[node], page, _effects);
        Finish();
    }

    /// <summary>Delivers until nothing is under way.</summary>
    private void Finish()
    {
        TakeEffects();
        while (_taken < _sent)
        {
            Steps++;
            (int to, Message message) = _wire[_taken++];
            if (HomeController.Takes(in message)) _homes[to].OnMessage(_regions[to], in message, _effects);
            else _nodes[to].OnMessage(_regions[to], in message, _effects);
            TakeEffects();
        }
        _sent = _taken = 0;
    }

    private void TakeEffects()
    {
        for (int i = 0; i < _effects.Count; i++)
        {
            ref readonly Effect effect = ref _effects[i];
            if (effect.Kind == EffectKind.Send) _wire[_sent++] = (effect.To.Value, effect.Message);
        }
        _effects.Clear();
    }
}
