// SPDX-License-Identifier: Apache-2.0
using System.Globalization;
using System.Net;
using VSmp.Coherence.Membership;

namespace VSmp.Coherence.Tests.Membership;

/// <summary>What must never happen has happened.</summary>
internal sealed class MembershipBrokenException(string message) : Exception(message);

/// <summary>
/// Nodes that run the production code over a network, a store and clocks that misbehave as a seed says; one millisecond of true time is one step.
/// It watches what must hold at any time, and that all is well a while after the last fault.
/// </summary>
internal sealed partial class SimulatedMembers
{
    public const int MaxSlots = 8;

    private const int FaultsEnd = 3500;
    private const int LastTime = 9500;
    private const int TickEvery = 10;

    /// <summary>How long a keeper takes to stop the guests when the lease has run out.</summary>
    private const int KeeperLag = 30;

    private static readonly MembershipTimes Times = new(RestartPatienceTicks: 2500);
    private static readonly IPEndPoint Address = new(IPAddress.Loopback, 4000);

    private readonly Agenda _agenda = new(LastTime);
    private readonly MembershipEffects _effects = new();
    private readonly Slot[] _slots = [.. Enumerable.Range(0, MaxSlots).Select(i => new Slot(i))];
    private readonly bool[,] _isCut = new bool[MaxSlots, MaxSlots];
    private readonly bool[] _isStoreCut = new bool[MaxSlots];
    private readonly Dictionary<int, string> _names = [];
    private readonly List<string>? _trace;
    private MembershipMutant? _mutant;
    private ulong _random;
    private Profile _profile;
    private long _now;
    private int _used; // slots
    private MembershipView _record = null!;
    private long _revision;
    private bool _isStoreDown;
    private int _stranded;

    public SimulatedMembers(bool trace) => _trace = trace ? [] : null;

    private enum Life : byte
    {
        Unborn,
        Joining,
        Up,
        AgentDown,
        Dead,
        Gone, // left, or expelled
    }

    public IReadOnlyList<string> Trace => _trace ?? [];

    /// <summary>Views that were made in all runs.</summary>
    public long Views { get; private set; }

    /// <summary>Members that were voted out in all runs.</summary>
    public long Evictions { get; private set; }

    /// <summary>Milliseconds simulated in all runs.</summary>
    public long Elapsed { get; private set; }

    private DecidedBy DecidedBy => _profile.DecidedBy;

    /// <summary>Runs one seed.</summary>
    /// <exception cref="MembershipBrokenException">Something broke.</exception>
    public void Run(int seed, MembershipMutant? mutant)
    {
        _random = ((ulong)(uint)seed * 0x9E3779B97F4A7C15) ^ 0xD1B54A32D192ED03;
        _mutant = mutant;
        _agenda.Clear();
        _names.Clear();
        Array.Clear(_isCut);
        Array.Clear(_isStoreCut);
        _isStoreDown = false;
        _stranded = -1;
        _trace?.Clear();
        _now = 0;
        _profile = Profile.Draw(seed, this);
        Tell($"{_profile}");
        Found();
        if (!_profile.IsCalm) DrawFaults();
        for (_now = 0; _now <= LastTime; _now++)
        {
            while (_agenda.TryTake(_now, out Entry entry)) Happen(ref entry);
            if (_now > FaultsEnd && _now % 50 == 0 && Trouble() is null) break;
        }
        Elapsed += _now;
        if (Trouble() is { } trouble) throw new MembershipBrokenException($"{LastTime - FaultsEnd} ms after the last fault {trouble}");
    }

    private int Draw(int below)
    {
        _random ^= _random << 13;
        _random ^= _random >> 7;
        _random ^= _random << 17;
        return (int)((_random >> 33) % (uint)below);
    }

    private bool Happens(int percent) => percent > 0 && Draw(100) < percent;

    private void Tell(FormattableString line) => _trace?.Add(string.Create(CultureInfo.InvariantCulture, $"{_now,5} ") + line.ToString(CultureInfo.InvariantCulture));

    private void Found()
    {
        MembershipView view = MembershipView.Found(new Epoch(7), "n0", Address, 1);
        _names[0] = "n0";
        for (int i = 1; i < _profile.Nodes; i++)
        {
            _ = view.TryAdmit(_slots[i].Name, Address, 1, out view);
            _names[i] = _slots[i].Name;
        }
        _record = view;
        _revision = 1;
        _used = _profile.Nodes;
        foreach (Slot slot in _slots) slot.Reset();
        for (int i = 0; i < _used; i++)
        {
            Slot slot = _slots[i];
            slot.Id = new NodeId((ushort)i);
            Start(slot);
            slot.Machine!.Enter(_revision, _record, LocalTime(slot), _effects);
            Do(slot);
        }
    }

    /// <summary>Starts an agent, with a clock of its own.</summary>
    private void Start(Slot slot)
    {
        if (slot.Lives == 0 || _profile.ClocksStartAnew)
        {
            slot.Offset = Draw(2) == 0 ? Draw(1_000_000) : Draw(2000) - 1000;
            slot.DriftPerMille = Draw(41) - 20;
        }
        slot.Lives++;
        slot.Life = Life.Up;
        slot.Machine = new MembershipMachine(slot.Id, DecidedBy, Times, _mutant?.Rules ?? MembershipRules.Sound);
        _agenda.Add(_now + 1 + Draw(TickEvery), Happening.Tick, slot.Index, slot.Lives);
    }

    private static long LocalTime(Slot slot, long now) => slot.Offset + now + (now * slot.DriftPerMille / 1000);

    private long LocalTime(Slot slot) => LocalTime(slot, _now);

    /// <summary>When a node's clock gets to some time.</summary>
    private static long TrueTime(Slot slot, long local)
    {
        long time = (local - slot.Offset) * 1000 / (1000 + slot.DriftPerMille);
        while (LocalTime(slot, time) < local) time++;
        return time;
    }

    private int SlotOf(NodeId id) => Array.FindIndex(_slots, 0, _used, slot => slot.Id == id);

    private void Happen(ref Entry entry)
    {
        Slot slot = _slots[entry.Node];
        switch (entry.What)
        {
            case Happening.Fault:
                DoFault(entry.Argument);
                return;
            case Happening.Heal:
                Heal(entry.Argument, entry.From, entry.Node);
                return;
            case Happening.ReadArrives:
                AnswerRead(slot, entry.Life, entry.Argument);
                return;
            case Happening.SwapArrives:
                Swap(ref entry);
                return;
            case Happening.Restart:
                if (slot.Life == Life.AgentDown) BeginRestart(slot);
                return;
            case Happening.RestartRead:
                ReadForRestart(slot, entry.Life);
                return;
            case Happening.Poll:
                Poll(slot, entry.Argument);
                return;
        }
        if (slot.Life != Life.Up || slot.Lives != entry.Life) return;
        if (slot.PausedUntil > _now)
        {
            ref Entry later = ref _agenda.Add(slot.PausedUntil, entry.What, entry.Node, entry.Life);
            int next = later.Next;
            later = entry;
            later.Next = next;
            return;
        }
        MembershipMachine machine = slot.Machine!;
        long local = LocalTime(slot);
        switch (entry.What)
        {
            case Happening.Tick:
                GatherEvidence(slot);
                machine.OnTick(local, _effects);
                _agenda.Add(_now + TickEvery, Happening.Tick, slot.Index, slot.Lives);
                break;
            case Happening.Deliver:
                machine.OnHeartbeat(_slots[entry.From].Id, in entry.Heartbeat, local, _effects);
                break;
            case Happening.Answer:
                if (machine.View is null)
                {
                    machine.Restart(entry.Revision, entry.View!, local, _effects);
                    Tell($"{slot.Name} restarts in view {entry.View!.Number.Value}");
                }
                else
                {
                    machine.OnRecord(entry.Revision, entry.View!, local, _effects);
                }
                break;
            case Happening.SwapLost:
                machine.OnSwapLost(local, _effects);
                break;
            case Happening.Away:
                machine.OnStoreAway(local);
                break;
        }
        Do(slot);
    }

    private void Do(Slot slot)
    {
        for (int i = 0; i < _effects.Count; i++)
        {
            ref readonly MembershipEffect effect = ref _effects[i];
            if (effect.Kind is not (MembershipEffectKind.SendHeartbeat or MembershipEffectKind.LeaseUntil)) Tell($"{slot.Name}: {effect}");
            switch (effect.Kind)
            {
                case MembershipEffectKind.SendHeartbeat:
                    Send(slot, SlotOf(effect.Node), in effect.Heartbeat);
                    break;
                case MembershipEffectKind.Propose:
                    AskStore(slot, effect.View, effect.Revision);
                    break;
                case MembershipEffectKind.AskRecord:
                    AskStore(slot, null, 0);
                    if (!effect.Node.IsNone && _profile.MembersAnswer) AskMember(slot, SlotOf(effect.Node));
                    break;
                case MembershipEffectKind.Adopt:
                    CheckAdopted(slot, effect.View!);
                    break;
                case MembershipEffectKind.Excluded:
                    CheckActed(slot, SlotOf(effect.Node));
                    break;
                case MembershipEffectKind.Expelled:
                    if (_record.Find(slot.Id) is { } member && member.Incarnation <= slot.Machine!.Incarnation) Break($"{slot.Name} thinks that it is expelled");
                    slot.Life = Life.Gone;
                    slot.Machine = null;
                    break;
                case MembershipEffectKind.LeaseUntil:
                    slot.GuestsRunUntil = Math.Max(slot.GuestsRunUntil, TrueTime(slot, effect.Ticks) + KeeperLag);
                    if (_record.Find(slot.Id) is null) Break($"{slot.Name} got a lease, and the record has excluded it");
                    break;
            }
        }
        _effects.Clear();
    }

    private void Send(Slot from, int to, in Heartbeat heartbeat)
    {
        if (to < 0) return;
        if (_isCut[from.Index, to] || Happens(_profile.LossPercent)) return;
        Carry(from, to, in heartbeat);
        if (Happens(_profile.TwicePercent)) Carry(from, to, in heartbeat);
    }

    private void Carry(Slot from, int to, in Heartbeat heartbeat)
    {
        int delay = Happens(_profile.DelayPercent) ? Draw(250) : Draw(4);
        ref Entry entry = ref _agenda.Add(_now + delay, Happening.Deliver, to, _slots[to].Lives);
        entry.From = from.Index;
        entry.Heartbeat = heartbeat;
    }

    /// <summary>What the transport finds out as it tries to connect.</summary>
    private void GatherEvidence(Slot slot)
    {
        if (--slot.EvidenceIn > 0) return;
        slot.EvidenceIn = 5 + Draw(10);
        for (int i = 0; i < _used; i++)
        {
            Slot peer = _slots[i];
            bool isCut = _isCut[slot.Index, i] || _isCut[i, slot.Index];
            if (i == slot.Index || (isCut && i != _stranded)) continue;
            PeerEvidence evidence = PeerEvidence.Refused;
            if (peer.Life == Life.AgentDown) evidence = PeerEvidence.AgentDown;
            else if (!isCut && !(peer.Life == Life.Dead && peer.Refuses) && !Happens(_now < FaultsEnd ? _profile.FalselyRefusedPercent : 0)) continue;
            slot.Machine!.OnEvidence(peer.Id, evidence, LocalTime(slot));
        }
    }

    private void CheckAdopted(Slot slot, MembershipView view)
    {
        if (view.Find(slot.Id) is not { } member || !string.Equals(member.Name, slot.Name, StringComparison.Ordinal)) Break($"{slot.Name} adopted view {view.Number.Value} as {slot.Id}, which is another there");
    }

    private void CheckActed(Slot slot, int excluded)
    {
        if (excluded >= 0 && _slots[excluded].GuestsRunUntil > _now)
            Break($"{slot.Name} acts on a view without {_slots[excluded].Name}, whose guests may run for another {_slots[excluded].GuestsRunUntil - _now} ms");
    }

    private void Break(FormattableString what) => throw new MembershipBrokenException($"at {_now} ms: {what.ToString(CultureInfo.InvariantCulture)}");

    /// <summary>What is not as it should be once there are no faults any more; null if all is well.</summary>
    private string? Trouble()
    {
        int alive = 0;
        foreach (Member member in _record.Members)
        {
            int slot = SlotOf(member.Id);
            if (slot >= 0 && _slots[slot].Life is (Life.Up or Life.AgentDown or Life.Joining)) alive++;
        }
        bool canDecide = DecidedBy == DecidedBy.Majority ? alive > _record.Members.Count / 2 : _slots[0].Life is Life.Up;
        if (canDecide && _record.Members.Any(member => SlotOf(member.Id) < 0)) return "nobody is a member";
        foreach (Slot slot in _slots)
        {
            bool isMember = slot.Index < _used && _record.Find(slot.Id) is not null;
            if (slot.Life is Life.Dead && isMember && canDecide) return $"{slot.Name} is dead and a member";
            if (slot.Life is Life.Joining or Life.AgentDown && isMember && canDecide) return $"{slot.Name} has not come up";
            if (slot.Life != Life.Up) continue;
            if (!isMember && canDecide) return $"{slot.Name} does not know that it is out";
            if (!canDecide || slot.IsLeaving)
            {
                if (slot.GuestsRunUntil > _now) return $"{slot.Name} has a lease though nothing can be decided";
                if (canDecide && slot.IsLeaving && isMember && alive > 1 && !(DecidedBy == DecidedBy.Coordinator && slot.Index == 0)) return $"{slot.Name} has not left";
                continue;
            }
            if (!slot.Machine!.IsMember || slot.Machine.View!.Number != _record.Number) return $"{slot.Name} does not stand in view {_record.Number.Value}";
            if (slot.GuestsRunUntil <= _now + KeeperLag) return $"{slot.Name} has no lease";
        }
        return null;
    }

    private sealed class Slot(int index)
    {
        public int Index => index;
        public string Name { get; } = string.Create(CultureInfo.InvariantCulture, $"n{index}");
        public NodeId Id;
        public Life Life;
        public int Lives; // agents that it has had
        public MembershipMachine? Machine;
        public long Offset;
        public int DriftPerMille;
        public long GuestsRunUntil;
        public long PausedUntil;
        public bool Refuses;
        public bool IsLeaving;
        public int EvidenceIn;

        public void Reset()
        {
            Id = NodeId.None;
            Life = Life.Unborn;
            Lives = 0;
            Machine = null;
            GuestsRunUntil = PausedUntil = 0;
            Refuses = IsLeaving = false;
            EvidenceIn = 0;
        }
    }
}
