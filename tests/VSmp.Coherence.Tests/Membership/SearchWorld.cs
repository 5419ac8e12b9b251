// SPDX-License-Identifier: Apache-2.0
using System.Net;
using VSmp.Coherence.Membership;

namespace VSmp.Coherence.Tests.Membership;

/// <summary>What goes wrong in a round.</summary>
/// <param name="Fates">Of each link that may fail, two bits: 0 delivers, 1 loses, 2 holds back.</param>
/// <param name="StoreAway">Whether the store does not answer.</param>
/// <param name="Kill">The host that dies; −1 for none.</param>
/// <param name="Stop">The agent that dies; −1 for none.</param>
/// <param name="Start">Whether the agent that died comes back.</param>
/// <param name="Miss">The node whose clock misses a tick; −1 for none.</param>
/// <param name="Refuse">The member that all others are told is gone; −1 for none.</param>
internal readonly record struct SearchMove(int Fates, bool StoreAway, int Kill, int Stop, bool Start, int Miss, int Refuse);

/// <summary>Three members, a network and a store, in rounds of one tick.</summary>
internal sealed class SearchWorld
{
    private const int Nodes = 3;
    private const int MaxHeldRounds = 4;

    private static readonly MembershipTimes Times = new(HeartbeatTicks: 1, LeaseTicks: 2, MarginTicks: 1, SuspectTicks: 2, RestartPatienceTicks: 5);
    private static readonly MembershipEffects Effects = new();

    private readonly SearchBounds _bounds;
    private readonly MembershipRules _rules;
    private MembershipMachine?[] _machines = new MembershipMachine?[Nodes];
    private int[] _behind = new int[Nodes]; // ticks that its clock has missed
    private long[] _guestsRunUntil = new long[Nodes]; // by its clock
    private bool[] _isDead = new bool[Nodes];
    private Heartbeat?[] _held = new Heartbeat?[Nodes * Nodes];
    private (MembershipView View, long Revision)?[] _swaps = new (MembershipView, long)?[Nodes]; // on their way for long
    private MembershipView _record;
    private long _now = 100;
    private int _kills, _restarts, _misses;
    private SearchMove _move;

    public SearchWorld(SearchBounds bounds, MembershipRules rules)
    {
        _bounds = bounds;
        _rules = rules;
        var address = new IPEndPoint(IPAddress.Loopback, 4000);
        MembershipView view = MembershipView.Found(new Epoch(7), "a", address, 1);
        _ = view.TryAdmit("b", address, 1, out view);
        _ = view.TryAdmit("c", address, 1, out _record);
        for (int i = 0; i < Nodes; i++)
        {
            _machines[i] = new MembershipMachine(new NodeId((ushort)i), bounds.DecidedBy, Times, rules);
            _machines[i]!.Enter(_record.Number.Value, _record, _now, Effects);
        }
        Effects.Clear();
    }

    /// <summary>Whether it is beyond what is searched.</summary>
    public bool IsBeyond => _record.Number.Value > _bounds.LastView;

    public SearchWorld Copy()
    {
        var copy = (SearchWorld)MemberwiseClone();
        copy._machines = Array.ConvertAll(_machines, machine => machine?.Copy());
        copy._behind = [.. _behind];
        copy._guestsRunUntil = [.. _guestsRunUntil];
        copy._isDead = [.. _isDead];
        copy._held = [.. _held];
        copy._swaps = [.. _swaps];
        return copy;
    }

    public void ListMoves(List<SearchMove> moves)
    {
        moves.Clear();
        int kinds = _bounds.Holds ? 3 : 2, fates = 1;
        for (int i = 0; i < (_bounds.Together ? 1 : _bounds.Links.Length); i++) fates *= kinds;
        for (int f = 0; f < fates; f++)
        {
            int bits = 0;
            for (int i = 0, rest = f; i < _bounds.Links.Length; i++, rest = _bounds.Together ? rest : rest / kinds) bits |= rest % kinds << (2 * i);
            var move = new SearchMove(bits, false, -1, -1, false, -1, -1);
            for (int away = 0; away < (_bounds.StoreFails ? 2 : 1); away++)
            {
                move = move with { StoreAway = away == 1 };
                moves.Add(move);
                if (_machines.Any(m => m is null)) moves.Add(move with { Start = true });
                for (int node = 0; node < Nodes; node++)
                {
                    if (_machines[node] is null) continue;
                    if (_kills < _bounds.Kills) moves.Add(move with { Kill = node });
                    if (_restarts < _bounds.Restarts) moves.Add(move with { Stop = node });
                    if (_misses < _bounds.Misses) moves.Add(move with { Miss = node });
                    if (_bounds.Refuses && node == 2) moves.Add(move with { Refuse = node });
                }
            }
        }
    }

    public void Do(SearchMove move)
    {
        _now++;
        _move = move;
        if (move.Kill >= 0)
        {
            _kills++;
            _isDead[move.Kill] = true;
            _machines[move.Kill] = null;
        }
        if (move.Stop >= 0)
        {
            _restarts++;
            _machines[move.Stop] = null;
        }
        if (move.Miss >= 0)
        {
            _misses++;
            _behind[move.Miss]++;
        }
        for (int i = 0; i < Nodes; i++)
        {
            if (_machines[i] is null) Learn(i);
            else if (i == move.Refuse) Each(i, m => m.OnEvidence(new NodeId((ushort)i), PeerEvidence.Refused, 0));
        }
        if (move.Start && !move.StoreAway)
        {
            int node = Array.FindIndex(_machines, m => m is null);
            if (node >= 0 && !_isDead[node])
            {
                _machines[node] = new MembershipMachine(new NodeId((ushort)node), _bounds.DecidedBy, Times, _rules);
                _machines[node]!.Restart(_record.Number.Value, _record, Clock(node), Effects);
                Carry(node);
            }
        }
        for (int link = 0; link < _held.Length; link++)
        {
            if (_held[link] is not { } held) continue;
            int fate = FateOf(link);
            if (fate == 2 && _now - held.SentTicks < MaxHeldRounds) continue;
            _held[link] = null;
            if (fate == 0) Deliver(link, in held);
        }
        if (!StoreIsAway(0)) CarryOutOldSwaps();
        for (int i = 0; i < Nodes; i++)
        {
            _machines[i]?.OnTick(Clock(i), Effects);
            Carry(i);
        }
    }

    public void Describe(List<long> to)
    {
        to.Add(_record.Number.Value);
        to.Add(_kills | (_restarts << 8) | (_misses << 16));
        for (int i = 0; i < Nodes; i++)
        {
            to.Add(_behind[i]);
            to.Add(_isDead[i] ? 0 : Math.Max(_guestsRunUntil[i] - Clock(i), 0));
            to.Add(_record.Find(new NodeId((ushort)i)) is { } member ? member.Incarnation + 1 : 0);
            to.Add(_isDead[i] ? 2 : _machines[i] is null ? 1 : 0);
            _machines[i]?.Describe(Clock(i), MaxHeldRounds + 1, to);
            if (_swaps[i] is { } swap && swap.Revision == _record.Number.Value)
            {
                to.Add(-1);
                foreach (Member m in swap.View.Members) to.Add(((long)m.Id.Value << 32) | m.Incarnation);
            }
        }
        for (int link = 0; link < _held.Length; link++)
        {
            if (_held[link] is not { } held) continue;
            to.Add(-2 - link);
            to.Add(((long)held.View.Value << 32) | held.Incarnation);
            to.Add((long)held.Flags);
            to.Add(held.SentTicks - _now);
            to.Add(Math.Max(held.AcknowledgedTicks - _now, -Times.PromiseTicks - MaxHeldRounds));
            for (int i = 0; i < Nodes; i++) to.Add(held.VotedOut.Contains(i) ? 1 : 0);
        }
    }

    private long Clock(int node) => _now - _behind[node];

    private bool StoreIsAway(int node) =>
        _move.StoreAway || (_bounds.DecidedBy == DecidedBy.Coordinator && node != 0 && (_machines[0] is null || FateOf(node * Nodes) != 0 || FateOf(node) != 0));

    /// <summary>0 delivers, 1 loses, 2 holds back.</summary>
    private int FateOf(int link)
    {
        int at = Array.IndexOf(_bounds.Links, link);
        return at < 0 ? 0 : (_move.Fates >> (2 * at)) & 3;
    }

    private void Each(int but, Action<MembershipMachine> act)
    {
        for (int i = 0; i < Nodes; i++)
        {
            if (i != but && _machines[i] is { } machine) act(machine);
        }
    }

    /// <summary>The others' transports find out about an agent that is not there.</summary>
    private void Learn(int node) =>
        Each(node, m => m.OnEvidence(new NodeId((ushort)node), _isDead[node] ? PeerEvidence.Refused : PeerEvidence.AgentDown, Clock(m.Self.Value)));

    private void Deliver(int link, in Heartbeat heartbeat)
    {
        int from = link / Nodes, to = link % Nodes;
        if (_machines[to] is not { } machine) return;
        machine.OnHeartbeat(new NodeId((ushort)from), in heartbeat, Clock(to), Effects);
        Carry(to);
    }

    /// <summary>Carries out the effects of a node, and what follows from them in the same round.</summary>
    private void Carry(int node)
    {
        if (Effects.Count == 0) return;
        var effects = new MembershipEffect[Effects.Count];
        for (int i = 0; i < effects.Length; i++) effects[i] = Effects[i];
        Effects.Clear();
        foreach (MembershipEffect effect in effects)
        {
            switch (effect.Kind)
            {
                case MembershipEffectKind.SendHeartbeat:
                    int link = (node * Nodes) + effect.Node.Value;
                    int fate = FateOf(link);
                    if (fate == 0) Deliver(link, in effect.Heartbeat);
                    else if (fate == 2) _held[link] ??= effect.Heartbeat;
                    break;
                case MembershipEffectKind.AskRecord:
                    if (!StoreIsAway(node)) TellRecord(node);
                    break;
                case MembershipEffectKind.Propose:
                    Swap(node, effect.View!, effect.Revision);
                    break;
                case MembershipEffectKind.LeaseUntil:
                    if (_record.Find(new NodeId((ushort)node)) is null) throw new MembershipBrokenException($"node {node} got a lease, and is excluded");
                    _guestsRunUntil[node] = Math.Max(_guestsRunUntil[node], effect.Ticks);
                    break;
                case MembershipEffectKind.Excluded:
                    MustNotRun(effect.Node.Value, $"node {node} acts on a view without it");
                    break;
                case MembershipEffectKind.Expelled:
                    if (_record.Find(new NodeId((ushort)node)) is not null) throw new MembershipBrokenException($"node {node} thinks that it is out");
                    _isDead[node] = true; // its guests have ended, or are about to: the clock still tells
                    _machines[node] = null;
                    break;
            }
        }
    }

    private void MustNotRun(int node, string what)
    {
        if (_guestsRunUntil[node] > Clock(node) && !_isDead[node]) throw new MembershipBrokenException($"guests of node {node} may run, and {what}");
    }

    private void TellRecord(int node)
    {
        if (_machines[node] is not { } machine) return;
        machine.OnRecord(_record.Number.Value, _record, Clock(node), Effects);
        Carry(node);
    }

    private void Swap(int node, MembershipView view, long revision)
    {
        if (StoreIsAway(node))
        {
            _swaps[node] = (view, revision); // on its way until the store is back
            _machines[node]!.OnStoreAway(Clock(node));
            return;
        }
        if (TrySwap(view, revision))
        {
            TellRecord(node);
            return;
        }
        _machines[node]!.OnSwapLost(Clock(node), Effects);
        Carry(node);
    }

    private void CarryOutOldSwaps()
    {
        for (int i = 0; i < Nodes; i++)
        {
            if (_swaps[i] is not { } swap) continue;
            _swaps[i] = null;
            _ = TrySwap(swap.View, swap.Revision);
        }
    }

    private bool TrySwap(MembershipView view, long revision)
    {
        if (revision != _record.Number.Value) return false;
        foreach (Member member in _record.Members)
        {
            if (view.Find(member.Id) is null) MustNotRun(member.Id.Value, "the record excludes it");
        }
        _record = view;
        return true;
    }
}
