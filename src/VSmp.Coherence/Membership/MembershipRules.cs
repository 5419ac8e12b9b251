// SPDX-License-Identifier: Apache-2.0
namespace VSmp.Coherence.Membership;

/// <summary>
/// The rules that safety rests on, one a method, so that tests can break each and see that the search finds it. docs/membership.md has the argument.
/// </summary>
internal class MembershipRules
{
    /// <summary>The rules.</summary>
    public static MembershipRules Sound { get; } = new();

    /// <summary>A lease runs from the sending of what was acknowledged: the promise began later, as that was heard.</summary>
    public virtual long LeaseFrom(long acknowledgedTicks, long receivedTicks) => acknowledgedTicks;

    /// <summary>A lease is of one view: it counts the acknowledgements of those who stand in the view in which its holder stands.</summary>
    public virtual bool CountsForLease(ViewNumber said, ViewNumber own) => said == own;

    /// <summary>A vote is cast when the last promise has run out.</summary>
    public virtual bool MayVote(long nowTicks, long promisedUntilTicks) => nowTicks >= promisedUntilTicks;

    /// <summary>A vote binds: who was voted out is not acknowledged again in this view, nor is an agent that is not the one of this view.</summary>
    public virtual bool MayAcknowledge(bool hasVotedOut, bool isOfThisIncarnation) => !hasVotedOut && isOfThisIncarnation;

    /// <summary>A vote is of one view.</summary>
    public virtual bool CountsAsVote(ViewNumber said, ViewNumber own) => said == own;

    /// <summary>A new view voids the votes of the one before.</summary>
    public virtual bool KeepsOwnVotes => false;

    /// <summary>A majority votes a member out.</summary>
    public virtual bool IsVotedOut(int votes, int members) => votes > members / 2;

    /// <summary>A view may follow when a majority is settled in the last one.</summary>
    public virtual bool MayFollow(int settled, int members) => settled > members / 2;

    /// <summary>Who is settled is done with the views before: promises and leases of then have run out.</summary>
    public virtual bool IsSettled(long nowTicks, long settledAtTicks) => nowTicks >= settledAtTicks;

    /// <summary>What another agent of the same node has said is not heard.</summary>
    public virtual bool IsHeard(uint saidIncarnation, uint incarnation) => saidIncarnation == incarnation;

    /// <summary>An agent that was restarted knows nothing of what it promised and voted: it takes part from a view on in which its incarnation is new.</summary>
    public virtual bool MayTakeOldPlace => false;
}
