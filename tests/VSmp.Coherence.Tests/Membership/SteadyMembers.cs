// SPDX-License-Identifier: Apache-2.0
using System.Globalization;
using System.Net;
using VSmp.Coherence.Membership;

namespace VSmp.Coherence.Tests.Membership;

/// <summary>Members whose network and store do what the test says and nothing else; a tick is a millisecond, and machines tick every ten.</summary>
internal sealed class SteadyMembers
{
    public static readonly IPEndPoint Address = new(IPAddress.Loopback, 4000);

    private readonly MembershipMachine?[] _machines = new MembershipMachine?[16];
    private readonly MembershipEffects _effects = new();
    private readonly Queue<(int From, int To, Heartbeat Heartbeat)> _wire = new();
    private readonly List<(long Time, int Node, MembershipEffectKind Kind, int About)> _seen = [];
    private readonly DecidedBy _decidedBy;

    public SteadyMembers(DecidedBy decidedBy, int nodes)
    {
        _decidedBy = decidedBy;
        MembershipView view = MembershipView.Found(new Epoch(7), "n0", Address, 1);
        for (int i = 1; i < nodes; i++) _ = view.TryAdmit(Name(i), Address, 1, out view);
        Record = view;
        Revision = 10;
        for (int i = 0; i < nodes; i++) Enter(i);
        Run(1000); // all leases of before are long over, all are settled
        _seen.Clear();
    }

    public long Now { get; private set; } = 1_000_000;

    public MembershipView Record { get; private set; }

    public long Revision { get; private set; }

    /// <summary>Whether a link is cut, from and to.</summary>
    public HashSet<(int From, int To)> Cuts { get; } = [];

    /// <summary>What the transports of all others say of a node, every ten milliseconds.</summary>
    public Dictionary<int, PeerEvidence> Evidence { get; } = [];

    public bool StoreIsAway { get; set; }

    public MembershipMachine this[int node] => _machines[node]!;

    public int[] Ids => [.. Record.Members.Select(member => (int)member.Id.Value)];

    public static string Name(int node) => string.Create(CultureInfo.InvariantCulture, $"n{node}");

    public bool HasLease(int node) => _machines[node]!.LeaseUntilTicks > Now;

    public void Cut(int a, int b)
    {
        _ = Cuts.Add((a, b));
        _ = Cuts.Add((b, a));
    }

    public void Kill(int node) => _machines[node] = null;

    public void Enter(int node)
    {
        _machines[node] = new MembershipMachine(new NodeId((ushort)node), _decidedBy, new MembershipTimes());
        _machines[node]!.Enter(Revision, Record, Now, _effects);
        Do(node);
    }

    public void Restart(int node)
    {
        _machines[node] = new MembershipMachine(new NodeId((ushort)node), _decidedBy, new MembershipTimes());
        _machines[node]!.Restart(Revision, Record, Now, _effects);
        Do(node);
    }

    public void Run(long ticks)
    {
        for (long end = Now + ticks; Now < end;)
        {
            Now += 10;
            foreach ((int about, PeerEvidence evidence) in Evidence)
            {
                foreach (MembershipMachine? machine in _machines) machine?.OnEvidence(new NodeId((ushort)about), evidence, Now);
            }
            for (int i = 0; i < _machines.Length; i++)
            {
                _machines[i]?.OnTick(Now, _effects);
                Do(i);
            }
            while (_wire.TryDequeue(out var item))
            {
                _machines[item.To]?.OnHeartbeat(new NodeId((ushort)item.From), in item.Heartbeat, Now, _effects);
                Do(item.To);
            }
        }
    }

    /// <summary>When a node first said something of another, since the start or the last call of <see cref="Forget"/>; null if it did not.</summary>
    public long? When(int node, MembershipEffectKind kind, int about)
    {
        foreach (var seen in _seen)
        {
            if (seen.Node == node && seen.Kind == kind && seen.About == about) return seen.Time;
        }
        return null;
    }

    public void Forget() => _seen.Clear();

    private void Do(int node)
    {
        var effects = new List<MembershipEffect>();
        for (int i = 0; i < _effects.Count; i++) effects.Add(_effects[i]);
        _effects.Clear();
        foreach (MembershipEffect effect in effects)
        {
            if (_machines[node] is not { } machine) return; // it has been expelled by what followed from an earlier one
            _seen.Add((Now, node, effect.Kind, effect.Node.Value));
            switch (effect.Kind)
            {
                case MembershipEffectKind.SendHeartbeat when !Cuts.Contains((node, effect.Node.Value)):
                    _wire.Enqueue((node, effect.Node.Value, effect.Heartbeat));
                    break;
                case MembershipEffectKind.AskRecord when !StoreIsAway:
                    machine.OnRecord(Revision, Record, Now, _effects);
                    Do(node);
                    break;
                case MembershipEffectKind.Propose:
                    if (StoreIsAway)
                    {
                        machine.OnStoreAway(Now);
                    }
                    else if (effect.Revision != Revision)
                    {
                        machine.OnSwapLost(Now, _effects);
                        Do(node);
                    }
                    else
                    {
                        Record = effect.View!;
                        Revision += 3;
                        machine.OnRecord(Revision, Record, Now, _effects);
                        Do(node);
                    }
                    break;
                case MembershipEffectKind.Expelled:
                    _machines[node] = null;
                    break;
            }
        }
    }
}
