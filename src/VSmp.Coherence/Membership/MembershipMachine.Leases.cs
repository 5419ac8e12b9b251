// SPDX-License-Identifier: Apache-2.0
namespace VSmp.Coherence.Membership;

/// <content>Hearing, suspecting, voting, and the lease.</content>
public sealed partial class MembershipMachine
{
    /// <summary>Whether a member's word alone decides.</summary>
    private bool Decides(int place) => _decidedBy == DecidedBy.Coordinator && _peers[place].Id == MembershipView.Coordinator;

    /// <summary>Silence is counted while this node was awake to hear something: one that was stopped itself suspects nobody for it.</summary>
    private void ForgiveOwnAbsence(long now)
    {
        long absent = _tickedAt == Heartbeat.NoTicks ? 0 : now - _tickedAt - _times.HeartbeatTicks;
        _tickedAt = now;
        if (absent <= 0) return;
        foreach (ref Peer peer in _peers.AsSpan()) peer.HeardAt = Math.Min(now, peer.HeardAt + absent);
    }

    private void Suspect(long now, MembershipEffects effects)
    {
        for (int i = 0; i < _peers.Length; i++)
        {
            ref Peer peer = ref _peers[i];
            if (i == _self) continue;
            bool isSuspected = peer.IsGone
                || now - Math.Max(peer.HeardAt, peer.AgentDownAt) >= _times.SuspectTicks
                || now - peer.HeardAt >= _times.RestartPatienceTicks;
            if (isSuspected == peer.IsSuspected) continue;
            peer.IsSuspected = isSuspected;
            effects.Add(isSuspected ? MembershipEffectKind.Suspects : MembershipEffectKind.Unsuspects, peer.Id);
        }
    }

    /// <summary>Votes members out.</summary>
    /// <returns>Whether there is a new vote.</returns>
    private bool Vote(long now)
    {
        bool hasVoted = false;
        for (int i = 0; i < _peers.Length; i++)
        {
            ref Peer peer = ref _peers[i];
            if (i == _self || peer.IsVotedOut || !peer.IsSuspected || !_rules.MayVote(now, peer.PromisedUntil) || !CanBeVotedOut(i)) continue;
            peer.IsVotedOut = hasVoted = true;
        }
        return hasVoted;
    }

    /// <summary>Whether those who seem to be there could vote a member out: a vote that leads nowhere would only take its lease.</summary>
    private bool CanBeVotedOut(int place)
    {
        if (Decides(place)) return false;
        if (_decidedBy == DecidedBy.Majority) return AliveBeside(place) > _peers.Length / 2;
        int coordinator = PlaceOf(MembershipView.Coordinator);
        return coordinator >= 0 && !_peers[coordinator].IsSuspected;
    }

    /// <summary>
    /// Whether a member is voted out: by a majority, and never on one member's word if another is alive who could have said the same.
    /// </summary>
    private bool IsVotedOut(int place)
    {
        int votes = 0;
        bool isDecided = _decidedBy == DecidedBy.Majority;
        for (int i = 0; i < _peers.Length; i++)
        {
            ref readonly Peer peer = ref _peers[i];
            bool votesSo = i == _self ? _peers[place].IsVotedOut : _rules.CountsAsVote(peer.SaidIn, _view!.Number) && peer.SaidVotes.Contains(place);
            if (!votesSo) continue;
            votes++;
            isDecided |= Decides(i);
        }
        return isDecided && (_decidedBy == DecidedBy.Majority ? _rules.IsVotedOut(votes, _peers.Length) : votes >= Math.Min(2, AliveBeside(place)));
    }

    /// <summary>Members that are not suspected, this one among them, beside one.</summary>
    private int AliveBeside(int place)
    {
        int alive = 0;
        for (int i = 0; i < _peers.Length; i++)
        {
            if (i != place && !_peers[i].IsSuspected) alive++;
        }
        return alive;
    }

    private bool WantsRenewal()
    {
        foreach (ref readonly Peer peer in _peers.AsSpan())
        {
            if (peer.IsHeardSinceVote || (peer.SaidIn == _view!.Number && (peer.SaidFlags & HeartbeatFlags.WantsRenewal) != 0)) return true;
        }
        return false;
    }

    private void SendHeartbeats(long now, MembershipEffects effects)
    {
        _sentAt = now;
        var heartbeat = new Heartbeat { View = _view!.Number, Incarnation = _incarnation, SentTicks = now };
        if (_rules.IsSettled(now, _settledAt)) heartbeat.Flags |= HeartbeatFlags.Settled;
        if (_state == State.Restarting) heartbeat.Flags |= HeartbeatFlags.Restarting;
        for (int i = 0; i < _peers.Length; i++)
        {
            if (_peers[i].IsVotedOut) heartbeat.VotedOut.Add(i);
            if (_peers[i].IsHeardSinceVote) heartbeat.Flags |= HeartbeatFlags.WantsRenewal;
        }
        for (int i = 0; i < _peers.Length; i++)
        {
            if (i == _self) continue;
            heartbeat.AcknowledgedTicks = _peers[i].AcknowledgedClock;
            effects.Add(MembershipEffectKind.SendHeartbeat, _peers[i].Id).Heartbeat = heartbeat;
        }
    }

    /// <summary>Tells the others that there is a newer view, which is without this node: it may be the only one that knows.</summary>
    private void SayGoodbye(ViewNumber view, long now, MembershipEffects effects)
    {
        var heartbeat = new Heartbeat { View = view, Incarnation = _incarnation, SentTicks = now, AcknowledgedTicks = Heartbeat.NoTicks };
        for (int i = 0; i < _peers.Length; i++)
        {
            if (i != _self) effects.Add(MembershipEffectKind.SendHeartbeat, _peers[i].Id).Heartbeat = heartbeat;
        }
    }

    private void UpdateLease(long now, MembershipEffects effects)
    {
        if (_state == State.Member && !_isLeaving)
        {
            long until = AcknowledgedByMajority() + _times.LeaseTicks;
            if (until > _leaseUntil && until > now)
            {
                _leaseUntil = until;
                _hasLease = true;
                effects.Add(MembershipEffectKind.LeaseUntil, Self).Ticks = until;
            }
        }
        if (!_hasLease || now < _leaseUntil) return;
        _hasLease = false;
        effects.Add(MembershipEffectKind.LeaseRanOut, Self);
    }

    /// <summary>The latest of this node's heartbeats that a majority has acknowledged in this view; its own word counts as of the last.</summary>
    private long AcknowledgedByMajority()
    {
        for (int i = 0; i < _peers.Length; i++)
        {
            ref readonly Peer peer = ref _peers[i];
            if (i == _self) _scratch[i] = _sentAt;
            else if (_rules.CountsForLease(peer.SaidIn, _view!.Number)) _scratch[i] = Math.Min(peer.SaidAcknowledged, _sentAt); // nobody can have heard what was not sent
            else _scratch[i] = Heartbeat.NoTicks;
        }
        if (_decidedBy == DecidedBy.Coordinator)
        {
            int coordinator = PlaceOf(MembershipView.Coordinator);
            return coordinator < 0 ? Heartbeat.NoTicks : _scratch[coordinator];
        }
        Array.Sort(_scratch);
        return _scratch[(_peers.Length - 1) / 2]; // of N, N / 2 + 1 are as late as this one or later
    }
}
