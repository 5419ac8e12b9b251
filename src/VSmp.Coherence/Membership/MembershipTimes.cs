// SPDX-License-Identifier: Apache-2.0
namespace VSmp.Coherence.Membership;

/// <summary>
/// The times of a <see cref="MembershipMachine"/>, the same at all members, in ticks of whatever length the caller's clock has; the defaults are for
/// milliseconds. docs/membership.md says why they are what they are.
/// </summary>
/// <param name="HeartbeatTicks">Between two heartbeats to a member.</param>
/// <param name="LeaseTicks">How long guests may run after the sending of the heartbeat that a majority acknowledged.</param>
/// <param name="MarginTicks">How much longer an acknowledgement binds whoever gave it: for clocks that differ in rate, and for the stopping of guests.</param>
/// <param name="SuspectTicks">Silence after which a member is suspected.</param>
/// <param name="RestartPatienceTicks">Silence after which a member is suspected whose keeper says that the agent is being restarted.</param>
public sealed record MembershipTimes(
    long HeartbeatTicks = 50, long LeaseTicks = 300, long MarginTicks = 60, long SuspectTicks = 1000, long RestartPatienceTicks = 10_000)
{
    /// <summary>The longest time of all: no sum of a few of them and a clock overflows.</summary>
    public const long MaxTicks = 1L << 40;

    /// <summary>How long a promise binds, from the hearing of what it acknowledges.</summary>
    public long PromiseTicks => LeaseTicks + MarginTicks;

    /// <summary>What is wrong with these times, in words; null if nothing is.</summary>
    public string? Problem() => this switch
    {
        { HeartbeatTicks: < 1 or > MaxTicks } => "the time between heartbeats must be at least one tick",
        { LeaseTicks: > MaxTicks } or { MarginTicks: > MaxTicks } or { SuspectTicks: > MaxTicks } or { RestartPatienceTicks: > MaxTicks } => "a time is too long",
        _ when LeaseTicks < 2 * HeartbeatTicks => "a lease must outlast two heartbeats: an acknowledgement travels with the heartbeat after the one that it is of",
        _ when MarginTicks < 1 => "the margin must be at least one tick: clocks differ",
        _ when SuspectTicks < 2 * HeartbeatTicks => "a member must not be suspected for one heartbeat that is late",
        _ when RestartPatienceTicks < SuspectTicks => "the patience with an agent that is being restarted must not be less than with one that is silent",
        _ => null,
    };
}
