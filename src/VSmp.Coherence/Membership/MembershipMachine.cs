// SPDX-License-Identifier: Apache-2.0
using System.Net;

namespace VSmp.Coherence.Membership;

/// <summary>Who makes a majority.</summary>
public enum DecidedBy
{
    /// <summary>More than half of the members; the record is in a store of its own (etcd).</summary>
    Majority,

    /// <summary>The coordinator, node 0, which holds the record: nothing is decided, and no guest runs for long, without it.</summary>
    Coordinator,
}

/// <summary>What a transport has found out about a peer that it cannot talk to.</summary>
public enum PeerEvidence
{
    /// <summary>Its host refuses connections: the host is up and the keeper is gone, and so are its guests.</summary>
    Refused,

    /// <summary>Its host takes connections, though nothing is heard of the agent: it is being restarted by its keeper, or stands still.</summary>
    AgentDown,

    /// <summary>Its host answers nothing, for longer than its network is known to be silent: it is gone, or cut off.</summary>
    Unanswered,
}

/// <summary>
/// One member's part in the membership: who is there, until when its own guests may run, and when a view without a lost node may be acted upon.
/// Pure: time is what the caller says, and everything that is to be done is an effect. docs/membership.md has the rules and why they are safe.
/// </summary>
/// <remarks>
/// Times are of one clock that never goes back while the host is up, also over a restart of the agent, and counts what the host sleeps. The caller
/// calls <see cref="OnTick"/> several times in the time of a heartbeat, after it has handed over what has arrived.
/// </remarks>
public sealed partial class MembershipMachine
{
    private readonly MembershipTimes _times;
    private readonly MembershipRules _rules;
    private readonly DecidedBy _decidedBy;

    private State _state;
    private MembershipView? _view;
    private long _revision;
    private uint _incarnation;
    private Peer[] _peers = []; // by place in the view, this node among them
    private int _self;
    private long _promisedBefore = Heartbeat.NoTicks; // until when a predecessor may have promised anything to anybody
    private long _settledAt = Heartbeat.NoTicks;
    private long _tickedAt = Heartbeat.NoTicks;
    private long _sentAt = Heartbeat.NoTicks;
    private long _leaseUntil = Heartbeat.NoTicks;
    private bool _hasLease;
    private long _proposedAt = Heartbeat.NoTicks;
    private long _askedAt = Heartbeat.NoTicks;
    private bool _isLeaving;
    private List<Departure> _departures = [];
    private List<Wish> _wishes = [];
    private long[] _scratch = [];

    /// <summary>Makes a machine that is no member yet: see <see cref="Enter"/> and <see cref="Restart"/>.</summary>
    /// <exception cref="ArgumentException">The times make no sense; the message says why.</exception>
    public MembershipMachine(NodeId self, DecidedBy decidedBy, MembershipTimes times) : this(self, decidedBy, times, MembershipRules.Sound)
    {
    }

    internal MembershipMachine(NodeId self, DecidedBy decidedBy, MembershipTimes times, MembershipRules rules)
    {
        if (times.Problem() is { } problem) throw new ArgumentException(problem, nameof(times));
        Self = self;
        _decidedBy = decidedBy;
        _times = times;
        _rules = rules;
    }

    private enum State : byte
    {
        Outside,
        Restarting,
        Member,
        Expelled,
    }

    /// <summary>This node.</summary>
    public NodeId Self { get; }

    /// <summary>The view in which this node stands, or, while its agent is not in the view yet, the newest it has seen; null before the first.</summary>
    public MembershipView? View => _view;

    /// <summary>The record's revision that had <see cref="View"/>.</summary>
    public long Revision => _revision;

    /// <summary>Whether this node stands in a view.</summary>
    public bool IsMember => _state == State.Member;

    /// <summary>This node's incarnation.</summary>
    public uint Incarnation => _incarnation;

    /// <summary>Until when this node's guests may run, by its clock; long ago if it never had a lease.</summary>
    public long LeaseUntilTicks => _leaseUntil;

    /// <summary>Whether a member's agent has been started again, and waits to be in the view as that; as of its last heartbeat.</summary>
    public bool IsComingBack(NodeId node) => PlaceOf(node) is >= 0 and var place && _peers[place].IsComingBack;

    /// <summary>Whether a member is suspected.</summary>
    public bool IsSuspected(NodeId node) => PlaceOf(node) is >= 0 and var place && _peers[place].IsSuspected;

    /// <summary>When a member was heard last, by this node's clock and without the time that this node slept itself; long ago if it is none.</summary>
    public long HeardTicks(NodeId node) => PlaceOf(node) is >= 0 and var place ? _peers[place].HeardAt : Heartbeat.NoTicks;

    /// <summary>The view in which a member stood when it was heard last; 0 if it has not been heard, or is none.</summary>
    public ViewNumber StandsIn(NodeId node) => PlaceOf(node) is >= 0 and var place ? _peers[place].SaidIn : default;

    /// <summary>Whether this node's guests may run, as of the last step.</summary>
    public bool HasLease => _hasLease;

    /// <summary>Becomes a member for the first time: the founder, or a node that was admitted.</summary>
    /// <param name="revision">The record's revision that has the view.</param>
    /// <param name="view">A view that this node is in.</param>
    /// <param name="nowTicks">The time.</param>
    /// <param name="effects">Where effects are added.</param>
    /// <exception cref="ArgumentException">It is not in it, or its agent has been restarted since it joined.</exception>
    public void Enter(long revision, MembershipView view, long nowTicks, MembershipEffects effects)
    {
        MustBe(State.Outside);
        if (view.Find(Self) is not { Incarnation: 0 }) throw new ArgumentException($"{Self} cannot enter view {view.Number.Value}: it is not new in it", nameof(view));
        Adopt(revision, view, nowTicks, effects);
    }

    /// <summary>
    /// Comes back as the restarted agent of a member. It listens, and proposes a view in which its incarnation is a new one; it is a member from then on.
    /// </summary>
    /// <param name="revision">The record's revision.</param>
    /// <param name="view">The record: read from the store itself after this agent was started, never from a member, who may be behind.</param>
    /// <param name="nowTicks">The time.</param>
    /// <param name="effects">Where effects are added: Expelled, if it is not in that view.</param>
    public void Restart(long revision, MembershipView view, long nowTicks, MembershipEffects effects)
    {
        MustBe(State.Outside);
        // Whatever the one before did, it did earlier than now.
        _promisedBefore = _settledAt = nowTicks + _times.PromiseTicks;
        if (view.Find(Self) is not { } member)
        {
            Expel(effects);
        }
        else if (_rules.MayTakeOldPlace)
        {
            _incarnation = member.Incarnation;
            Adopt(revision, view, nowTicks, effects);
        }
        else
        {
            _incarnation = checked(member.Incarnation + 1);
            _state = State.Restarting;
            TakeUp(revision, view, nowTicks);
        }
    }

    /// <summary>Time has passed.</summary>
    public void OnTick(long nowTicks, MembershipEffects effects)
    {
        if (_state is State.Outside or State.Expelled) return;
        ForgiveOwnAbsence(nowTicks);
        Suspect(nowTicks, effects);
        bool hasVoted = _state == State.Member && Vote(nowTicks);
        if (hasVoted || nowTicks - _sentAt >= _times.HeartbeatTicks) SendHeartbeats(nowTicks, effects);
        UpdateLease(nowTicks, effects);
        LetGo(nowTicks, effects);
        Propose(nowTicks, effects);
        if (!_hasLease) Ask(NodeId.None, _times.LeaseTicks, nowTicks, effects); // it may be out without having been told
    }

    /// <summary>A heartbeat has arrived.</summary>
    public void OnHeartbeat(NodeId from, in Heartbeat heartbeat, long nowTicks, MembershipEffects effects)
    {
        if (_state is State.Outside or State.Expelled || from == Self) return;
        if (heartbeat.View.Value > _view!.Number.Value) Ask(from, _times.HeartbeatTicks, nowTicks, effects);
        int place = PlaceOf(from);
        if (place < 0) return;
        ref Peer peer = ref _peers[place];
        if ((heartbeat.Flags & HeartbeatFlags.Restarting) != 0)
        {
            if (heartbeat.Incarnation <= peer.Incarnation) return; // sent before it was in the view
            if ((heartbeat.Flags & HeartbeatFlags.Settled) != 0) peer.RestartSettledIn = heartbeat.View;
            peer.IsComingBack = true;
            peer.HeardAt = nowTicks;
            peer.IsGone = false;
            return;
        }
        if (!_rules.IsHeard(heartbeat.Incarnation, peer.Incarnation) || heartbeat.SentTicks <= peer.SaidClock) return;
        peer.SaidClock = heartbeat.SentTicks;
        peer.SaidIn = heartbeat.View;
        peer.SaidFlags = heartbeat.Flags;
        peer.SaidAcknowledged = _rules.LeaseFrom(heartbeat.AcknowledgedTicks, nowTicks);
        peer.SaidVotes = heartbeat.VotedOut;
        peer.HeardAt = nowTicks;
        peer.IsGone = false;
        peer.IsHeardSinceVote = peer.IsVotedOut;
        if (_state == State.Member && _rules.MayAcknowledge(peer.IsVotedOut, heartbeat.Incarnation == peer.Incarnation))
        {
            peer.AcknowledgedClock = heartbeat.SentTicks;
            peer.PromisedUntil = nowTicks + _times.PromiseTicks;
        }
    }

    /// <summary>The transport has found out something about a peer; to be said again as long as it is so.</summary>
    public void OnEvidence(NodeId peer, PeerEvidence evidence, long nowTicks)
    {
        int place = PlaceOf(peer);
        if (place < 0 || place == _self) return;
        _peers[place].IsGone = evidence is PeerEvidence.Refused or PeerEvidence.Unanswered;
        if (evidence == PeerEvidence.AgentDown) _peers[place].AgentDownAt = nowTicks;
    }

    /// <summary>The record was read, or this node has changed it. Whoever has a record may be behind: what is older changes nothing.</summary>
    /// <exception cref="ProtocolViolationException">The record cannot follow the view in which this node stands: the store has lost its memory.</exception>
    public void OnRecord(long revision, MembershipView view, long nowTicks, MembershipEffects effects)
    {
        if (_state is State.Outside or State.Expelled) return;
        if (view.Epoch == _view!.Epoch && view.Number.Value <= _view.Number.Value) return;
        if (view.Epoch != _view.Epoch || view.Find(Self) is not { } member || member.Incarnation > _incarnation)
        {
            if (_isLeaving) SayGoodbye(view.Number, nowTicks, effects);
            Expel(effects);
            return;
        }
        if (!_view.CanBeFollowedBy(view) || view.NextId < _view.NextId || revision <= _revision)
            throw new ProtocolViolationException(
                $"view {view.Number.Value}, revision {revision}, cannot follow view {_view.Number.Value}, revision {_revision}: the membership's record was replaced by hand, or lost");
        if (member.Incarnation == _incarnation) Adopt(revision, view, nowTicks, effects);
        else TakeUp(revision, view, nowTicks);
    }

    /// <summary>The record had another revision than the proposal said.</summary>
    public void OnSwapLost(long nowTicks, MembershipEffects effects)
    {
        _proposedAt = nowTicks;
        Ask(NodeId.None, 0, nowTicks, effects);
    }

    /// <summary>The store gave no answer to a proposal: it was carried out, or was not, or will be. All three are safe.</summary>
    public void OnStoreAway(long nowTicks) => _proposedAt = nowTicks;

    /// <summary>
    /// Proposes to admit a node. It is admitted when a view that is adopted has a member of that name and address; if it is another's by then, it is not.
    /// </summary>
    /// <returns>Why it cannot be admitted, as far as is known now.</returns>
    public AdmissionError ProposeJoin(string name, IPEndPoint address, ulong contributedBytes)
    {
        MustBe(State.Member);
        AdmissionError error = _view!.TryAdmit(name, address, contributedBytes, out _);
        if (error == AdmissionError.None) _wishes.Add(new Wish(name, address, contributedBytes));
        return error;
    }

    /// <summary>
    /// Proposes to leave. The guests have been stopped for good before: there is no lease from now on. It ends with Expelled; the last member, and
    /// under <see cref="DecidedBy.Coordinator"/> the coordinator, just stop.
    /// </summary>
    public void ProposeLeave()
    {
        MustBe(State.Member);
        _isLeaving = true;
        _hasLease = false;
    }

    private void MustBe(State state)
    {
        if (_state != state) throw new InvalidOperationException($"{Self} is {_state}, not {state}");
    }

    private int PlaceOf(NodeId node)
    {
        int low = 0, high = _peers.Length - 1;
        while (low <= high)
        {
            int middle = (low + high) >> 1;
            int id = _peers[middle].Id.Value;
            if (id == node.Value) return middle;
            if (id < node.Value) low = middle + 1;
            else high = middle - 1;
        }
        return -1;
    }

    private void Expel(MembershipEffects effects)
    {
        _state = State.Expelled;
        _hasLease = false;
        effects.Add(MembershipEffectKind.Expelled, Self);
    }

    private readonly record struct Departure(NodeId Node, long PromisedUntil);

    private readonly record struct Wish(string Name, IPEndPoint Address, ulong ContributedBytes);
}
