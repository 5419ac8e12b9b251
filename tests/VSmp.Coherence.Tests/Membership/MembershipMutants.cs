// SPDX-License-Identifier: Apache-2.0
using VSmp.Coherence.Membership;

namespace VSmp.Coherence.Tests.Membership;

/// <summary>A wrong rule, to see that it is found by what it leads to.</summary>
internal sealed record MembershipMutant(string Name, MembershipRules Rules, bool StoreForgetsNumbers = false)
{
    public static IReadOnlyList<MembershipMutant> All { get; } =
    [
        new("the lease is ignored: votes while a promise is running", new VotesTooEarly()),
        new("a vote does not bind", new VoteDoesNotBind()),
        new("renewal does not void what others voted", new CountsOldVotes()),
        new("renewal does not void what a node voted itself", new KeepsItsVotes()),
        new("the lease runs from the receipt of the acknowledgement", new LeaseFromReceipt()),
        new("one peer's opinion is enough", new OneVoteIsEnough()),
        new("a number is given again", MembershipRules.Sound, StoreForgetsNumbers: true),
        new("a restarted agent takes its predecessor's place", new TakesOldPlace()),
        new("what a predecessor said is heard", new HearsPredecessors()),
        new("acknowledgements of later views count", new CountsLaterAcknowledgements()),
        new("a view follows before a majority stands in the last", new FollowsAtOnce()),
        new("a view follows before leases of earlier ones are over", new SettledAtOnce()),
    ];

    private sealed class VotesTooEarly : MembershipRules
    {
        public override bool MayVote(long nowTicks, long promisedUntilTicks) => true;
    }

    private sealed class VoteDoesNotBind : MembershipRules
    {
        public override bool MayAcknowledge(bool hasVotedOut, bool isOfThisIncarnation) => isOfThisIncarnation;
    }

    private sealed class CountsOldVotes : MembershipRules
    {
        public override bool CountsAsVote(ViewNumber said, ViewNumber own) => true;
    }

    private sealed class KeepsItsVotes : MembershipRules
    {
        public override bool KeepsOwnVotes => true;
    }

    private sealed class LeaseFromReceipt : MembershipRules
    {
        public override long LeaseFrom(long acknowledgedTicks, long receivedTicks) =>
            acknowledgedTicks == Heartbeat.NoTicks ? acknowledgedTicks : receivedTicks;
    }

    private sealed class OneVoteIsEnough : MembershipRules
    {
        public override bool IsVotedOut(int votes, int members) => votes > 0;
    }

    private sealed class TakesOldPlace : MembershipRules
    {
        public override bool MayTakeOldPlace => true;
    }

    private sealed class HearsPredecessors : MembershipRules
    {
        public override bool IsHeard(uint saidIncarnation, uint incarnation) => true;

        public override bool MayAcknowledge(bool hasVotedOut, bool isOfThisIncarnation) => !hasVotedOut;
    }

    private sealed class CountsLaterAcknowledgements : MembershipRules
    {
        public override bool CountsForLease(ViewNumber said, ViewNumber own) => said.Value >= own.Value;
    }

    private sealed class FollowsAtOnce : MembershipRules
    {
        public override bool MayFollow(int settled, int members) => true;
    }

    private sealed class SettledAtOnce : MembershipRules
    {
        public override bool IsSettled(long nowTicks, long settledAtTicks) => true;
    }
}
