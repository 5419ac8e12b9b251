// SPDX-License-Identifier: Apache-2.0
using System.Collections.Concurrent;
using VSmp.Coherence;

namespace VSmp.Agent.Fabric.FaultInjection;

/// <summary>
/// The faults that are injected into what this node sends: to everybody, or to one peer, where a fault of the same kind to everybody does
/// not count. The reactor owns and changes it; the gate's thread reads it too. Only agents of development clusters have one.
/// </summary>
/// <remarks>
/// Every fault is the sender's, so that there is one place to look. A network that is cut in both directions is two nodes that do not reach
/// each other. Faults act on messages: what goes to a peer at once, one frame or many.
/// </remarks>
internal sealed class FaultPlan
{
    private readonly ConcurrentDictionary<ushort, int> _randomsMade = new();
    private readonly Dictionary<NodeId, FaultSet> _toOne = []; // the reactor's, as the next
    private FaultSet _toAll = FaultSet.None;
    private volatile Table _table = new(FaultSet.None, []);

    /// <summary>
    /// How long a connection that is partitioned stands, as the kernel lets it (TCP_USER_TIMEOUT, keep-alive probes). Healed before, it
    /// goes on as if nothing had been.
    /// </summary>
    public long CutMicroseconds { get; init; } = 4_000_000;

    /// <summary>How long a connection that has lost a message stands still before it breaks: the kernel's first wait for a retransmission.</summary>
    public long StallMicroseconds { get; init; } = 200_000;

    /// <summary>What the choices follow from.</summary>
    public int Seed { get; private set; }

    /// <summary>Hears of every change, on the reactor's thread.</summary>
    public event Action? Changed;

    /// <summary>Everything in force; a peer of null is everybody.</summary>
    public IEnumerable<(NodeId? Peer, Fault Fault)> InForce => _toAll.All.Select(fault => ((NodeId?)null, fault))
        .Concat(_toOne.OrderBy(way => way.Key.Value).SelectMany(way => way.Value.All.Select(fault => ((NodeId?)way.Key, fault))));

    /// <summary>Makes the choices that follow depend on a seed and on nothing else; a random seed if none is given and nothing is in force.</summary>
    public void UseSeed(int? seed)
    {
        if (seed is null && InForce.Any()) return;
        Seed = seed ?? Random.Shared.Next();
        _randomsMade.Clear();
        Publish();
    }

    /// <summary>Puts a fault in force, in place of one of the same kind. A share of 0 ends it; to one peer, it exempts that one.</summary>
    public void Inject(NodeId? peer, Fault fault)
    {
        if (peer is { } one)
        {
            bool isExemption = fault.Share > 0 || _toAll.All.Any(general => general.Kind == fault.Kind);
            Set(one, _toOne.GetValueOrDefault(one, FaultSet.None).With(fault.Kind, isExemption ? fault : null));
        }
        else
        {
            _toAll = _toAll.With(fault.Kind, fault.Share > 0 ? fault : null);
            foreach ((NodeId each, FaultSet faults) in _toOne.ToArray()) Set(each, faults.With(fault.Kind, null));
        }
        Publish();
    }

    /// <summary>Ends all faults, or those to one peer alone.</summary>
    public void Heal(NodeId? peer)
    {
        if (peer is { } one)
        {
            _toOne.Remove(one);
        }
        else
        {
            _toOne.Clear();
            _toAll = FaultSet.None;
        }
        Publish();
    }

    /// <summary>What is in force on the way to a peer. From any thread.</summary>
    public FaultSet Toward(NodeId peer) => _table.Toward(peer);

    /// <summary>A source of choices for the next connection to a peer, or attempt at one. From any thread.</summary>
    public Random NewRandom(NodeId peer)
    {
        int number = _randomsMade.AddOrUpdate(peer.Value, 0, static (_, last) => last + 1);
        return new Random(unchecked((Seed * 31) + (peer.Value * 65_599) + (number * 7919)));
    }

    private void Set(NodeId peer, FaultSet faults)
    {
        if (faults.IsNone) _toOne.Remove(peer);
        else _toOne[peer] = faults;
    }

    private void Publish()
    {
        _table = new Table(_toAll, _toOne.ToDictionary(way => way.Key, way => way.Value.Or(_toAll)));
        Changed?.Invoke();
    }

    /// <summary>What threads other than the reactor see: never changed, only replaced.</summary>
    private sealed class Table(FaultSet toAll, Dictionary<NodeId, FaultSet> toOne)
    {
        public FaultSet Toward(NodeId peer) => toOne.GetValueOrDefault(peer, toAll);
    }
}
