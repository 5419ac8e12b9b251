// SPDX-License-Identifier: Apache-2.0
using System.Globalization;
using System.Net;
using VSmp.Coherence;
using VSmp.Coherence.Membership;

namespace VSmp.Bench.Simulation;

/// <summary>
/// Who is in a simulated cluster, decided by the shipped <see cref="MembershipMachine"/> of each node: heartbeats that are lost or late, clocks that
/// differ, and a store that is slow, cut off, and leaves open what became of a proposal.
/// </summary>
internal sealed class SimulatedMembership
{
    private const int TickEvery = 40, KeeperLag = 60, StoreTimeout = 300, LookEvery = 500, PollEvery = 100;

    private static readonly MembershipTimes Times = new(HeartbeatTicks: 150, LeaseTicks: 900, MarginTicks: 200, SuspectTicks: 1200, RestartPatienceTicks: 2400);
    private static readonly IPEndPoint Address = new(IPAddress.Loopback, 4000);

    private readonly SimulatedCluster _cluster;
    private readonly List<Slot> _slots = []; // by node number
    private readonly int _lostOf1000, _lateOf1000, _unclearOf1000;
    private readonly int _unansweredAfter; // so long a host that answers nothing must be silent
    private MembershipView _record;
    private long _revision = 1;
    private int _joins;
    private uint _settledIn;

    /// <summary>All nodes of a cluster become members.</summary>
    public SimulatedMembership(SimulatedCluster cluster)
    {
        _cluster = cluster;
        Random random = cluster.Random;
        DecidedBy = random.Next(3) == 0 ? DecidedBy.Coordinator : DecidedBy.Majority;
        _lostOf1000 = random.Next(3) == 0 ? random.Next(200) : 0;
        _lateOf1000 = random.Next(3) == 0 ? random.Next(100) : 0;
        _unclearOf1000 = random.Next(3) == 0 ? random.Next(200) : 0;
        _unansweredAfter = random.Next((int)Times.HeartbeatTicks * 3, (int)Times.SuspectTicks * 2);
        _record = MembershipView.Found(cluster.Epoch, "n0", Address, 1);
        for (int i = 1; i < cluster.Nodes.Count; i++) _ = _record.TryAdmit(NameOf(i), Address, 1, out _record);
        foreach (SimulatedNode node in cluster.Nodes) _slots.Add(new Slot(node, random));
    }

    /// <summary>Begins.</summary>
    public void Start()
    {
        foreach (Slot slot in _slots) Enter(slot);
        _cluster.After(LookEvery, Look);
    }

    /// <summary>Who makes a majority.</summary>
    public DecidedBy DecidedBy { get; }

    /// <summary>Whether faults are over, all is settled, and nobody needs a lease any more: the end of the simulation.</summary>
    public bool IsOver { get; private set; }

    /// <summary>Whether so many are lost at once that the others decide nothing any more, and rightly wait for ever.</summary>
    public bool IsStuck { get; private set; }

    /// <summary>Whether a node is in the newest view.</summary>
    public bool IsMember(NodeId node) => _record.Find(node) is not null;

    /// <summary>Whether a node's agent stands in a view.</summary>
    public bool IsStanding(NodeId node) => _slots[node.Value] is { IsExpelled: false, Machine.IsMember: true };

    /// <summary>The agent of a node is gone; its guests run on as long as they may.</summary>
    public void OnKilled(NodeId node)
    {
        Slot slot = _slots[node.Value];
        slot.Machine = null;
        slot.Effects.Clear();
        slot.Life++;
    }

    /// <summary>The next agent of a node adopts what is left, and comes back as a member if it still is one.</summary>
    public void Restart(NodeId node)
    {
        Slot slot = _slots[node.Value];
        if (slot.Node.IsDown || IsOver) return;
        if (!ReachesStore(slot))
        {
            _cluster.After(PollEvery, () => Restart(node));
            return;
        }
        _cluster.Tell($"{node}: its agent is started again");
        slot.Excluded.Clear();
        slot.Known.Clear();
        slot.Known.UnionWith(_record.Members.Select(m => m.Id));
        slot.FirstUnknown = _record.NextId;
        slot.IsReturning = true;
        slot.Machine = new MembershipMachine(node, DecidedBy, Times);
        slot.Node.Adopt();
        slot.Machine.Restart(_revision, _record, LocalTime(slot), slot.Effects);
        Do(slot);
    }

    /// <summary>Whether guests of a node may run now.</summary>
    public bool MayRun(NodeId node)
    {
        if ((_cluster.Planted & SimulationBugs.LeaseIgnored) != 0) return true;
        Slot slot = _slots[node.Value];
        return !slot.IsExpelled && ((IsOver && !IsStuck) || slot.GuestsRunUntil > _cluster.Now);
    }

    /// <summary>Members, as a node knows them, that it has not been told to be excluded.</summary>
    public IEnumerable<NodeId> MembersSeenBy(NodeId node) => _slots[node.Value].Machine?.View!.Members.Select(m => m.Id) ?? [];

    /// <summary>The view in which a node's agent stands, or comes back.</summary>
    public ViewNumber ViewOf(NodeId node) => _slots[node.Value].Machine?.View?.Number ?? default;

    /// <summary>Whether a node may act as if another one were gone.</summary>
    public bool HasExcluded(NodeId node, NodeId other)
    {
        Slot slot = _slots[node.Value];
        return slot.Excluded.Contains(other) || (slot.Machine is not null && other.Value < slot.FirstUnknown && !slot.Known.Contains(other));
    }

    /// <summary>Whether so many members could be lost, and the others go on.</summary>
    public bool MayLose(NodeId node)
    {
        if (DecidedBy == DecidedBy.Coordinator) return node != MembershipView.Coordinator;
        int alive = _record.Members.Count(m => m.Id != node && !_cluster.Nodes[m.Id.Value].IsDown);
        return alive > _record.Members.Count / 2;
    }

    /// <summary>A new node wants to be admitted.</summary>
    public void Join() => Poll(string.Create(CultureInfo.InvariantCulture, $"late{_joins++}"), 0);

    private static string NameOf(int node) => string.Create(CultureInfo.InvariantCulture, $"n{node}");

    private static long LocalTime(Slot slot, long now) => slot.Offset + now + (now * slot.DriftPerMille / 1000);

    private long LocalTime(Slot slot) => LocalTime(slot, _cluster.Now);

    private static long TrueTime(Slot slot, long local)
    {
        long time = (local - slot.Offset) * 1000 / (1000 + slot.DriftPerMille);
        while (LocalTime(slot, time) < local) time++;
        return time;
    }

    private bool Happens(int of1000) => _cluster.IsWorking && of1000 > 0 && _cluster.Random.Next(1000) < of1000;

    private void Enter(Slot slot)
    {
        slot.Machine = new MembershipMachine(slot.Node.Id, DecidedBy, Times);
        slot.FirstUnknown = _record.NextId;
        slot.Known.UnionWith(_record.Members.Select(m => m.Id));
        slot.Machine.Enter(_revision, _record, LocalTime(slot), slot.Effects);
        Do(slot);
        _cluster.After(1 + _cluster.Random.Next(TickEvery), () => Tick(slot));
    }

    private void Tick(Slot slot)
    {
        if (IsOver || slot.Node.IsDown || slot.IsExpelled) return;
        _cluster.After(TickEvery, () => Tick(slot));
        if (slot.Machine is null || slot.Node.IsSuspended || slot.Node.PausedUntil > _cluster.Now) return;
        foreach (Slot peer in _slots)
        {
            if (EvidenceOf(slot, peer) is { } evidence) slot.Machine.OnEvidence(peer.Node.Id, evidence, LocalTime(slot));
        }
        slot.Machine.OnTick(LocalTime(slot), slot.Effects);
        Do(slot);
    }

    /// <summary>What a node finds out when it tries to connect to another one.</summary>
    private PeerEvidence? EvidenceOf(Slot slot, Slot peer)
    {
        bool isCut = _cluster.Network.IsCut(slot.Node.Id, peer.Node.Id);
        if (peer.Node.IsDown && peer.Refuses && !isCut) return PeerEvidence.Refused;
        if (peer.Node.IsDown || isCut)
        {
            long heard = slot.Machine!.HeardTicks(peer.Node.Id);
            return heard != Heartbeat.NoTicks && LocalTime(slot) - heard >= _unansweredAfter ? PeerEvidence.Unanswered : null;
        }
        return peer.Node.IsKilled ? PeerEvidence.AgentDown : null;
    }

    /// <summary>A node's agent is told something when it is awake, if it is there then.</summary>
    private void Tell(Slot slot, Action<MembershipMachine, long> what, int life)
    {
        if (slot.Node.IsDown || slot.IsExpelled || slot.Machine is null || slot.Life != life) return;
        if (slot.Node.IsSuspended) slot.Node.WhenAwake(() => Tell(slot, what, life));
        else if (slot.Node.PausedUntil > _cluster.Now) _cluster.After(slot.Node.PausedUntil - _cluster.Now, () => Tell(slot, what, life));
        else
        {
            what(slot.Machine, LocalTime(slot));
            Do(slot);
        }
    }

    private void Do(Slot slot)
    {
        MembershipEffect[] effects = new MembershipEffect[slot.Effects.Count];
        for (int i = 0; i < effects.Length; i++) effects[i] = slot.Effects[i];
        slot.Effects.Clear();
        foreach (MembershipEffect effect in effects)
        {
            if (_cluster.IsTracing && effect.Kind is not (MembershipEffectKind.SendHeartbeat or MembershipEffectKind.LeaseUntil))
                _cluster.Tell($"{slot.Node.Id}: {effect}");
            switch (effect.Kind)
            {
                case MembershipEffectKind.SendHeartbeat:
                    Send(slot, effect.Node, effect.Heartbeat);
                    break;
                case MembershipEffectKind.Propose:
                    Propose(slot, effect.View!, effect.Revision);
                    break;
                case MembershipEffectKind.AskRecord:
                    AskRecord(slot);
                    break;
                case MembershipEffectKind.Adopt:
                    slot.Known.UnionWith(effect.View!.Members.Select(m => m.Id));
                    slot.FirstUnknown = effect.View.NextId;
                    if (_cluster.Restarts) StandIn(slot, effect.View);
                    slot.Node.OnViewAdopted();
                    break;
                case MembershipEffectKind.Excluded:
                    slot.Excluded.Add(effect.Node);
                    slot.Node.OnNodeLost(effect.Node);
                    break;
                case MembershipEffectKind.Restarted:
                    slot.Node.OnNodeRestarted(effect.Node);
                    break;
                case MembershipEffectKind.Expelled:
                    slot.IsExpelled = true;
                    slot.Node.OnExpelled();
                    break;
                case MembershipEffectKind.LeaseUntil:
                    slot.GuestsRunUntil = Math.Max(slot.GuestsRunUntil, TrueTime(slot, effect.Ticks) + KeeperLag);
                    break;
            }
        }
    }

    /// <summary>A node and those that it knows as members may hear of each other, unless the agent of one is another one than the other knows.</summary>
    private void StandIn(Slot slot, MembershipView view)
    {
        _cluster.Network.Stand(slot.Node.Id, slot.Machine!.Incarnation);
        foreach (Member member in view.Members)
        {
            if (member.Id != slot.Node.Id) _cluster.Network.Know(slot.Node.Id, member.Id, member.Incarnation);
        }
        if (!slot.IsReturning) return;
        slot.IsReturning = false;
        // Who went while it came back is gone as far as it is concerned.
        slot.Known.Clear();
        slot.Known.UnionWith(view.Members.Select(m => m.Id));
        slot.Node.OnRestartedHere(_slots.Select(s => s.Node.Id).Where(n => n.Value < view.NextId && view.Find(n) is null));
    }

    private void Send(Slot from, NodeId to, Heartbeat heartbeat)
    {
        if (to.Value >= _slots.Count || _cluster.Network.IsCut(from.Node.Id, to) || Happens(_lostOf1000)) return;
        Slot peer = _slots[to.Value];
        int delay = 1 + _cluster.Random.Next(Happens(_lateOf1000) ? 1000 : 60);
        _cluster.After(delay, () => Tell(peer, (machine, now) => machine.OnHeartbeat(from.Node.Id, in heartbeat, now, peer.Effects), peer.Life));
    }

    private bool ReachesStore(Slot slot)
    {
        if (DecidedBy == DecidedBy.Majority) return !_cluster.IsStoreCut(slot.Node.Id);
        SimulatedNode coordinator = _cluster.Nodes[MembershipView.Coordinator.Value];
        return slot.Node == coordinator || (!coordinator.IsDown && !coordinator.IsKilled && coordinator.PausedUntil <= _cluster.Now && !_cluster.Network.IsCut(slot.Node.Id, coordinator.Id));
    }

    private int StoreDelay() => 1 + _cluster.Random.Next(Happens(_unclearOf1000) ? 1500 : 60);

    private void AskRecord(Slot slot)
    {
        if (!ReachesStore(slot)) return;
        _cluster.After(StoreDelay(), () => Reply(slot));
    }

    private void Reply(Slot slot)
    {
        MembershipView record = _record;
        long revision = _revision;
        int life = slot.Life;
        _cluster.After(StoreDelay(), () => Tell(slot, (machine, now) => machine.OnRecord(revision, record, now, slot.Effects), life));
    }

    private void Propose(Slot slot, MembershipView view, long revision)
    {
        int life = slot.Life;
        if (!ReachesStore(slot))
        {
            _cluster.After(StoreTimeout, () => Tell(slot, static (machine, now) => machine.OnStoreAway(now), life));
            return;
        }
        bool answers = !Happens(_unclearOf1000);
        if (!answers) _cluster.After(StoreTimeout, () => Tell(slot, static (machine, now) => machine.OnStoreAway(now), life));
        _cluster.After(StoreDelay(), () =>
        {
            if (revision == _revision) Swap(view);
            else if (answers) _cluster.After(StoreDelay(), () => Tell(slot, (machine, now) => machine.OnSwapLost(now, slot.Effects), life));
            else return;
            if (answers) Reply(slot);
        });
    }

    private void Swap(MembershipView view)
    {
        _record = view;
        _revision++;
        _cluster.View = view.Number;
        _cluster.Tell($"store: view {view.Number.Value}, members {string.Join(' ', view.Members.Select(m => m.Id.Value))}");
        foreach (Member member in view.Members)
        {
            if (member.Id.Value == _slots.Count) _slots.Add(new Slot(_cluster.AddNode(member.Id), _cluster.Random));
        }
        foreach (Slot slot in _slots)
        {
            if (slot.Machine is not null && !slot.Node.IsDown && ReachesStore(slot) && _cluster.Random.Next(4) != 0) Reply(slot);
        }
    }

    private void Poll(string name, int polls)
    {
        if (IsOver) return;
        if (_record.Find(name) is { } admitted)
        {
            Slot slot = _slots[admitted.Id.Value];
            if (!slot.Node.IsDown && slot.Life == 0) Enter(slot);
            return;
        }
        if (polls % 10 == 0 && _cluster.IsWorking)
        {
            Slot sponsor = _slots[_cluster.Random.Next(_slots.Count)];
            if (sponsor is { Node.IsDown: false, IsExpelled: false, Machine.IsMember: true }) _ = sponsor.Machine.ProposeJoin(name, Address, 1);
        }
        _cluster.After(PollEvery, () => Poll(name, polls + 1));
    }

    /// <summary>Looks whether the end has come: twice the same.</summary>
    private void Look()
    {
        if (!_cluster.IsWorking)
        {
            if (!CanDecide())
            {
                IsOver = IsStuck = true;
                _cluster.Tell("too many are lost");
                return;
            }
            bool isSettled = Trouble() is null;
            if (isSettled && _settledIn == _record.Number.Value)
            {
                IsOver = true;
                _cluster.Tell("all is settled");
                return;
            }
            _settledIn = isSettled ? _record.Number.Value : 0;
        }
        _cluster.After(LookEvery, Look);
    }

    private bool CanDecide()
    {
        if (DecidedBy == DecidedBy.Coordinator) return !_cluster.Nodes[MembershipView.Coordinator.Value].IsDown;
        return _record.Members.Count(m => !_cluster.Nodes[m.Id.Value].IsDown && !_slots[m.Id.Value].IsExpelled) > _record.Members.Count / 2;
    }

    /// <summary>What is not as it should be once there are no faults any more; null if all is well.</summary>
    public string? Trouble()
    {
        foreach (Slot slot in _slots)
        {
            NodeId node = slot.Node.Id;
            if (slot.Node.IsDown || slot.IsExpelled)
            {
                if (slot.Node.IsDown && IsMember(node)) return $"{node} is dead and a member";
                continue;
            }
            if (slot.Machine is null) return $"{node} has not come up";
            if (!slot.Machine.IsMember) return $"{node} has not come back";
            if (!IsMember(node)) return $"{node} does not know that it is out";
            if (slot.Machine.View!.Number != _record.Number) return $"{node} does not stand in view {_record.Number.Value}";
            if (slot.GuestsRunUntil <= _cluster.Now + KeeperLag) return $"{node} has no lease";
            foreach (Slot peer in _slots)
            {
                if (!IsMember(peer.Node.Id) && !HasExcluded(node, peer.Node.Id)) return $"{node} has not excluded {peer.Node.Id}";
            }
        }
        return _cluster.RecoveryUnderWay;
    }

    private sealed class Slot(SimulatedNode node, Random random)
    {
        public SimulatedNode Node => node;
        public MembershipEffects Effects { get; } = new();
        public long Offset { get; } = random.Next(1_000_000);
        public int DriftPerMille { get; } = random.Next(41) - 20;
        public bool Refuses { get; } = random.Next(2) == 0;
        public HashSet<NodeId> Known { get; } = []; // was in a view of this node
        public HashSet<NodeId> Excluded { get; } = [];
        public MembershipMachine? Machine { get; set; }
        public int FirstUnknown { get; set; }
        public bool IsExpelled { get; set; }
        public bool IsReturning { get; set; }
        public int Life { get; set; }
        public long GuestsRunUntil { get; set; }
    }
}
