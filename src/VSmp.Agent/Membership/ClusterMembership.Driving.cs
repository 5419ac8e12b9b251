// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent.Interop;
using VSmp.Coherence;
using VSmp.Coherence.Membership;
using VSmp.Coherence.Messages;

namespace VSmp.Agent.Membership;

/// <content>What the machine is told, and what it wants.</content>
internal sealed partial class ClusterMembership
{
    /// <summary>Four in the time of a heartbeat.</summary>
    private const long TickMicroseconds = 12_500;

    private const long NanosecondsPerTick = 1_000_000;

    private readonly MembershipEffects _effects = new();
    private readonly Dictionary<NodeId, string> _doubts = []; // why members are suspected
    private readonly Dictionary<NodeId, (Member Member, string Reason)> _departing = []; // out of the view, not to be acted upon yet
    private MembershipMachine? _machine; // there once this node is a member
    private IViewRecord? _record;
    private int _effectsDone;
    private bool _isCarryingOut;
    private bool _hadLease;
    private long _leaseEndedAt;
    private long _tickedAt;

    private static long Now => BootTime.Now.Nanoseconds / NanosecondsPerTick;

    private static BootTime BootTimeOf(long ticks) => new(ticks * NanosecondsPerTick);

    private void Tick()
    {
        if (_machine is not { } machine) return;
        long now = Now;
        TellOwnAbsence(now);
        for (int i = 0; i < Members.Count; i++)
        {
            Member member = Members[i];
            if (member.Id != Self && !_shunned.Contains(member.Id)) _probes.OnSilent(member, now - machine.HeardTicks(member.Id), now);
        }
        machine.OnTick(now, _effects);
        CarryOut();
        _etcd?.OnTick(now);
        if (_machine is null) return;
        TellJoined();
        DropEndedJoins();
        if (!IsDecidedByMajority && Self != MembershipView.Coordinator) LookForCoordinator(Now);
    }

    /// <summary>Others may have suspected this node meanwhile: the log is to say why.</summary>
    private void TellOwnAbsence(long now)
    {
        long absent = now - _tickedAt;
        if (_tickedAt != 0 && absent >= _times.LeaseTicks)
            _log($"membership: this agent stood still for {absent} ms: it was stopped, or this host is too busy; the others exclude it after {_times.RestartPatienceTicks} ms of that");
        _tickedAt = now;
    }

    private void OnHeartbeat(NodeId from, in Heartbeat heartbeat)
    {
        if (_machine is not { } machine || _shunned.Contains(from)) return;
        machine.OnHeartbeat(from, in heartbeat, Now, _effects);
        CarryOut();
    }

    private void OnEvidence(NodeId node, PeerEvidence evidence) =>
        _machine?.OnEvidence(node, _succeeded.Contains(node) ? PeerEvidence.Refused : evidence, Now);

    private void OnRecord(long revision, MembershipView view)
    {
        if (_machine is not { } machine) return;
        machine.OnRecord(revision, view, Now, _effects);
        CarryOut();
    }

    /// <summary>In order; what one of them brings about comes behind.</summary>
    private void CarryOut()
    {
        if (_isCarryingOut) return;
        _isCarryingOut = true;
        try
        {
            while (_effectsDone < _effects.Count && _machine is not null)
            {
                MembershipEffect effect = _effects[_effectsDone++];
                CarryOut(in effect);
            }
        }
        finally
        {
            _isCarryingOut = false;
            _effectsDone = 0;
            _effects.Clear();
        }
    }

    private void CarryOut(in MembershipEffect effect)
    {
        switch (effect.Kind)
        {
            case MembershipEffectKind.SendHeartbeat:
                _heartbeats.Send(effect.Node, in effect.Heartbeat);
                break;
            case MembershipEffectKind.Propose:
                _record!.Propose(effect.Revision, effect.View!);
                break;
            case MembershipEffectKind.AskRecord:
                if (!effect.Node.IsNone && _fabric.IsConnected(effect.Node)) AskMember(effect.Node);
                else _record!.Read();
                break;
            case MembershipEffectKind.Adopt:
                OnAdopted(effect.View!);
                break;
            case MembershipEffectKind.Excluded:
                if (_departing.Remove(effect.Node, out (Member Member, string Reason) gone)) NodeLeft?.Invoke(gone.Member, gone.Reason);
                break;
            case MembershipEffectKind.Restarted:
                if (Find(effect.Node) is { } restarted) NodeRestarted?.Invoke(restarted);
                break;
            case MembershipEffectKind.Expelled:
                GoOut(Excluded);
                break;
            case MembershipEffectKind.LeaseUntil:
                OnLease(effect.Ticks);
                break;
            case MembershipEffectKind.LeaseRanOut:
                OnLeaseRanOut();
                break;
            case MembershipEffectKind.Suspects:
                OnSuspected(effect.Node);
                break;
            case MembershipEffectKind.Unsuspects:
                _doubts.Remove(effect.Node);
                _log($"membership: {NameOf(effect.Node)} ({effect.Node}) is heard again");
                OnHeardAgain(effect.Node);
                break;
        }
    }

    /// <summary>Goes over to a new view. Whoever keeps the record, or has proposed the view, tells everybody, those that are out of it included.</summary>
    private void OnAdopted(MembershipView view)
    {
        if (!TryWriteIdentity()) return;
        MembershipView? old = Current;
        Current = view;
        if (_fabric.Self.IsNone) _fabric.SetIdentity(Self, view.Epoch, _machine!.Incarnation);
        _fabric.View = view.Number;
        if (old is not null && Announces(view)) Announce(old, view);
        foreach (Member member in old?.Members ?? [])
        {
            if (view.Find(member.Id) is null && member.Id != Self) Drop(member, view.Number);
        }
        foreach (Member member in view.Members)
        {
            if (old?.Find(member.Id) is { } known)
            {
                if (known.Incarnation != member.Incarnation && member.Id != Self) Renew(member);
                continue;
            }
            if (member.Id != Self)
            {
                _fabric.Add(member.Id, member.Address, member.Incarnation);
                _heartbeats.Add(member);
                _log($"membership: {member.Name} ({member.Id}, {member.Address}) is a member as of view {view.Number.Value}");
            }
            NodeJoined?.Invoke(member);
        }
        AnswerJoins();
        ViewAdopted?.Invoke(view.Number);
        _cameBack?.TrySetResult();
    }

    private void Announce(MembershipView old, MembershipView view)
    {
        byte[] record = ViewRecord.Write(view);
        foreach (Member member in old.Members)
        {
            if (member.Id != Self) SendView(member.Id, _machine!.Revision, record);
        }
        _fabric.Flush(); // what a member that is out has to be told goes before its session ends
    }

    private void Drop(Member member, ViewNumber view)
    {
        string reason = _doubts.Remove(member.Id, out string? doubt) ? doubt : "it left";
        _departing[member.Id] = (member, reason);
        _shunned.Remove(member.Id);
        _succeeded.Remove(member.Id);
        _lostInDoubt.Remove(member.Id);
        _probes.Remove(member.Id);
        _heartbeats.Remove(member.Id);
        _log($"membership: {member.Name} ({member.Id}) has left in view {view.Value}: {reason}");
        if (!_fabric.HasSession(member.Id)) return; // that has been said
        _fabric.Remove(member.Id);
        _next.OnPeerDown(member.Id, reason);
    }

    private void OnSuspected(NodeId node)
    {
        string why = _shunned.Contains(node) ? "members cannot go on with it"
            : _probes.IsRefused(node) ? "its agent is gone: its host refuses connections"
            : $"nothing was heard of it for {Now - _machine!.HeardTicks(node)} ms" + (_probes.IsUnanswered(node) ? ", and its host answers nothing" : "");
        _doubts[node] = why;
        _log($"membership: {NameOf(node)} ({node}) is suspected: {why}");
    }

    private void OnLease(long until)
    {
        Lease?.Extend(BootTimeOf(until));
        if (_hadLease) return;
        _hadLease = true;
        if (_leaseEndedAt != 0) _log($"membership: there is a lease again, after {Now - _leaseEndedAt} ms: guests go on");
        LeaseChanged?.Invoke(true);
    }

    private void OnLeaseRanOut()
    {
        if (!_hadLease) return;
        _hadLease = false;
        _leaseEndedAt = Now;
        Lease?.End();
        string whose = IsDecidedByMajority ? "a majority of the members" : $"the coordinator, {NameOf(MembershipView.Coordinator)},";
        _log($"membership: no lease: {whose} has not answered for {_times.LeaseTicks} ms; this node's guests are stopped until it does");
        LeaseChanged?.Invoke(false);
    }

    private void AskMember(NodeId node)
    {
        if (!_fabric.IsConnected(node)) return; // or questions would pile up; it is asked again
        _fabric.Begin(node, 0);
        _fabric.Commit(new FrameHeader { Type = MessageType.AskView, Requestor = NodeId.None });
    }

    /// <summary>A cluster does not outlive the coordinator that has its record: who certainly is without one ends, rather than wait for ever.</summary>
    private void LookForCoordinator(long now)
    {
        if (_left is not null || _machine!.View!.Members[0].Id != MembershipView.Coordinator) return;
        long silence = now - _machine!.HeardTicks(MembershipView.Coordinator);
        if (silence >= _times.SuspectTicks && _probes.IsRefused(MembershipView.Coordinator))
            GoOut(WithoutCoordinator("its agent is gone: its host refuses connections"));
        else if (silence >= _times.RestartPatienceTicks)
            GoOut(WithoutCoordinator($"nothing was heard of it for {silence / 1000.0:0.0} s"));
    }

    private string WithoutCoordinator(string why) => WithoutCoordinator(_machine!.View!.Find(MembershipView.Coordinator)!, why);

    private static string WithoutCoordinator(Member coordinator, string why) =>
        $"the coordinator, node {coordinator.Name} at {coordinator.Address}, is lost: {why}. A cluster ends with the agent that founded it, "
            + "and this node's guests with it: start the cluster anew";
}
