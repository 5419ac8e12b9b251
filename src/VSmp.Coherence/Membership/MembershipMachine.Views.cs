// SPDX-License-Identifier: Apache-2.0
namespace VSmp.Coherence.Membership;

/// <content>Going from view to view.</content>
public sealed partial class MembershipMachine
{
    private void Adopt(long revision, MembershipView next, long now, MembershipEffects effects)
    {
        _settledAt = Math.Max(_settledAt, _leaseUntil);
        foreach (ref readonly Peer peer in _peers.AsSpan()) _settledAt = Math.Max(_settledAt, peer.PromisedUntil);
        Peer[] last = _state == State.Member ? _peers : [];
        _state = State.Member;
        TakeUp(revision, next, now);
        effects.Add(MembershipEffectKind.Adopt, Self).View = next;
        foreach (ref readonly Peer peer in last.AsSpan())
        {
            int place = PlaceOf(peer.Id);
            if (place < 0) _departures.Add(new Departure(peer.Id, peer.PromisedUntil));
            else if (_peers[place].Incarnation != peer.Incarnation) effects.Add(MembershipEffectKind.Restarted, peer.Id);
        }
        LetGo(now, effects);
        SendHeartbeats(now, effects); // whoever hears the new number asks for the record at once
    }

    /// <summary>Takes over what is known of those who stay.</summary>
    private void TakeUp(long revision, MembershipView next, long now)
    {
        var peers = new Peer[next.Members.Count];
        for (int i = 0; i < peers.Length; i++)
        {
            Member member = next.Members[i];
            int place = PlaceOf(member.Id);
            peers[i] = place < 0 ? Peer.Of(member, now, _promisedBefore) : Continued(in _peers[place], member, now);
            if (member.Id == Self) _self = i;
        }
        _peers = peers;
        _scratch = new long[peers.Length];
        _view = next;
        _revision = revision;
        _proposedAt = Heartbeat.NoTicks;
        _wishes.RemoveAll(wish => next.Find(wish.Name) is not null); // fulfilled, or another has taken the name
    }

    private Peer Continued(in Peer last, Member member, long now)
    {
        Peer peer = last;
        if (member.Incarnation != last.Incarnation)
        {
            // Another agent: nothing that was said counts; what was promised to the node is promised.
            peer = Peer.Of(member, now, last.PromisedUntil);
            peer.IsSuspected = last.IsSuspected;
        }
        peer.IsVotedOut &= _rules.KeepsOwnVotes;
        peer.IsHeardSinceVote = false;
        return peer;
    }

    /// <summary>Tells of those who are out of the view when the last promise to them has run out.</summary>
    private void LetGo(long now, MembershipEffects effects)
    {
        for (int i = 0; i < _departures.Count;)
        {
            if (now < _departures[i].PromisedUntil)
            {
                i++;
                continue;
            }
            effects.Add(MembershipEffectKind.Excluded, _departures[i].Node);
            _departures.RemoveAt(i);
        }
    }

    private void Ask(NodeId whom, long patience, long now, MembershipEffects effects)
    {
        if (now - _askedAt < patience) return;
        _askedAt = now;
        effects.Add(MembershipEffectKind.AskRecord, whom);
    }

    private void Propose(long now, MembershipEffects effects)
    {
        if (now - _proposedAt < _times.LeaseTicks || !IsMajoritySettled(now) || Next() is not { } next) return;
        _proposedAt = now;
        ref MembershipEffect effect = ref effects.Add(MembershipEffectKind.Propose, NodeId.None);
        effect.View = next;
        effect.Revision = _revision;
    }

    /// <summary>The view that this node wants next; null if it is content.</summary>
    private MembershipView? Next()
    {
        MembershipView view = _view!;
        if (_state == State.Restarting) return view.WithRestarted(Self);
        for (int i = 0; i < _peers.Length; i++)
        {
            if (i != _self && _peers[i].IsSuspected && IsVotedOut(i)) return view.Without(_peers[i].Id);
        }
        if (WantsRenewal()) return view.Renewed();
        if (_isLeaving && _peers.Length > 1 && !Decides(_self)) return view.Without(Self);
        while (_wishes.Count > 0)
        {
            Wish wish = _wishes[0];
            if (view.TryAdmit(wish.Name, wish.Address, wish.ContributedBytes, out MembershipView next) == AdmissionError.None) return next;
            _wishes.RemoveAt(0); // there is no room
        }
        return null;
    }

    /// <summary>
    /// Whether a majority stands in this view and is done with earlier ones. What decides by a majority of members needs it, for majorities of views
    /// that do not follow each other need not have a member in common. The coordinator is in all of them.
    /// </summary>
    private bool IsMajoritySettled(long now)
    {
        if (_decidedBy == DecidedBy.Coordinator) return true;
        int settled = 0;
        for (int i = 0; i < _peers.Length; i++)
        {
            ref readonly Peer peer = ref _peers[i];
            bool isSettled = i == _self
                ? _rules.IsSettled(now, _settledAt)
                : (peer.SaidIn == _view!.Number && (peer.SaidFlags & HeartbeatFlags.Settled) != 0) || peer.RestartSettledIn == _view.Number;
            if (isSettled) settled++;
        }
        return _rules.MayFollow(settled, _peers.Length);
    }
}
