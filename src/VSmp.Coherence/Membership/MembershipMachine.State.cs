// SPDX-License-Identifier: Apache-2.0
namespace VSmp.Coherence.Membership;

/// <content>For the search, which saves and compares machines between steps.</content>
public sealed partial class MembershipMachine
{
    /// <summary>A machine in the same state, that goes on by itself.</summary>
    internal MembershipMachine Copy()
    {
        var copy = (MembershipMachine)MemberwiseClone();
        copy._peers = [.. _peers];
        copy._scratch = new long[_scratch.Length];
        copy._departures = [.. _departures];
        copy._wishes = [.. _wishes];
        return copy;
    }

    /// <summary>Adds everything that decides what it does next: times relative to now, and alike where they are too long ago to matter.</summary>
    /// <param name="nowTicks">The time.</param>
    /// <param name="carriedTicks">How long heartbeats are on their way at most.</param>
    /// <param name="to">Where it is added.</param>
    internal void Describe(long nowTicks, long carriedTicks, List<long> to)
    {
        to.Add((long)_state);
        to.Add(_view?.Number.Value ?? 0);
        to.Add(_incarnation);
        to.Add((_hasLease ? 1 : 0) + (_isLeaving ? 2 : 0));
        AddTime(_promisedBefore, 0);
        AddTime(_settledAt, 0);
        AddTime(_leaseUntil, 0);
        AddTime(_tickedAt, _times.HeartbeatTicks);
        AddTime(_sentAt, _times.LeaseTicks);
        AddTime(_proposedAt, _times.LeaseTicks);
        AddTime(_askedAt, _times.LeaseTicks);
        foreach (ref readonly Peer peer in _peers.AsSpan())
        {
            if (peer.Id == Self) continue;
            to.Add(((long)peer.Id.Value << 32) | peer.Incarnation);
            AddTime(peer.HeardAt, _times.RestartPatienceTicks);
            AddTime(peer.AgentDownAt, _times.SuspectTicks);
            AddTime(peer.PromisedUntil, 0);
            AddTime(peer.AcknowledgedClock, _times.PromiseTicks + carriedTicks);
            AddTime(peer.SaidClock, _times.PromiseTicks + carriedTicks);
            to.Add((peer.IsGone ? 1 : 0) + (peer.IsSuspected ? 2 : 0) + (peer.IsVotedOut ? 4 : 0) + (peer.IsHeardSinceVote ? 8 : 0));
            to.Add(peer.RestartSettledIn.Value >= _view!.Number.Value ? peer.RestartSettledIn.Value : 0);
            if (peer.SaidIn.Value < _view.Number.Value) continue; // it counts for nothing any more
            to.Add(((long)peer.SaidIn.Value << 32) | (byte)peer.SaidFlags);
            AddTime(peer.SaidAcknowledged, _times.PromiseTicks);
            for (int i = 0; i < _peers.Length; i++) to.Add(peer.SaidVotes.Contains(i) ? 1 : 0);
        }
        foreach (Departure departure in _departures)
        {
            to.Add(departure.Node.Value);
            AddTime(departure.PromisedUntil, 0);
        }
        to.Add(_wishes.Count);

        void AddTime(long time, long matters) => to.Add(Math.Max(time - nowTicks, -matters));
    }
}
