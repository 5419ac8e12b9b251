// SPDX-License-Identifier: Apache-2.0
namespace VSmp.Coherence.Membership;

/// <summary>What a member knows of another member of its view. All times are by this node's clock, but for those that are said not to be.</summary>
internal struct Peer
{
    public NodeId Id;
    public uint Incarnation;

    // Whether it is there.
    public long HeardAt;
    public long AgentDownAt;
    public bool IsGone;
    public bool IsSuspected;

    // What this node owes it.
    public long AcknowledgedClock; // its clock, as of the newest heartbeat that is acknowledged
    public long PromisedUntil;
    public bool IsVotedOut; // in this view
    public bool IsHeardSinceVote;

    // What it said last.
    public long SaidClock; // its clock
    public ViewNumber SaidIn;
    public HeartbeatFlags SaidFlags;
    public long SaidAcknowledged; // this node's clock
    public MemberSet SaidVotes;
    public ViewNumber RestartSettledIn; // said by an agent of it that is not in the view yet
    public bool IsComingBack; // there is such an agent; for others to know, nothing is decided by it

    public static Peer Of(Member member, long now, long promisedUntil) => new()
    {
        Id = member.Id,
        Incarnation = member.Incarnation,
        HeardAt = now,
        AgentDownAt = Heartbeat.NoTicks,
        AcknowledgedClock = Heartbeat.NoTicks,
        PromisedUntil = promisedUntil,
        SaidClock = Heartbeat.NoTicks,
        SaidAcknowledged = Heartbeat.NoTicks,
    };
}
