// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent.Fabric;
using VSmp.Agent.Fabric.FaultInjection;
using VSmp.Agent.Interop;
using VSmp.Coherence;
using VSmp.Coherence.Membership;

namespace VSmp.Agent.Membership;

/// <summary>
/// Tries the addresses of members that are silent: where the host is up and nobody listens, the agent is gone, and so are the guests that it served. Owned
/// by the reactor.
/// </summary>
/// <remarks>
/// What a connection that is taken says of a member that sends no heartbeats is for <see cref="EvidenceOf"/> to know: nothing, as long as the agent
/// itself listens (it is stopped, or slow). Where a keeper listens for it, it is <see cref="PeerEvidence.AgentDown"/>.
/// </remarks>
internal sealed class PeerProbes(Reactor reactor, PeerGate gate, FaultPlan? faults, Action<NodeId, PeerEvidence> found)
{
    /// <summary>Silence after which an address is tried: more than two heartbeats in a row are missing.</summary>
    public const long SilenceTicks = 150;

    private const long AgainTicks = 100;

    private readonly Dictionary<NodeId, State> _states = [];

    /// <summary>Whether the last look at a silent member found that its host refuses connections.</summary>
    public bool IsRefused(NodeId node) => _states.TryGetValue(node, out State? state) && state.IsRefused;

    /// <summary>A member has been silent for so long.</summary>
    public void OnSilent(Member member, long silentTicks, long now)
    {
        if (!_states.TryGetValue(member.Id, out State? state))
        {
            if (silentTicks < SilenceTicks) return;
            _states.Add(member.Id, state = new State());
        }
        if (silentTicks < SilenceTicks)
        {
            state.IsRefused = false;
            return;
        }
        if (state.IsUnderWay || now - state.TriedAt < AgainTicks || faults?.Toward(member.Id).Partition is not null) return;
        state.IsUnderWay = true;
        state.TriedAt = now;
        NodeId node = member.Id;
        gate.Probe(member.Address, error => reactor.Post(() => OnProbed(node, state, error)));
    }

    /// <summary>Forgets a member.</summary>
    public void Remove(NodeId node) => _states.Remove(node);

    /// <summary>What the outcome of an attempt to connect says; null: nothing.</summary>
    private static PeerEvidence? EvidenceOf(int error) => error == Errno.ECONNREFUSED ? PeerEvidence.Refused : null;

    private void OnProbed(NodeId node, State state, int error)
    {
        state.IsUnderWay = false;
        if (!_states.TryGetValue(node, out State? current) || current != state) return;
        PeerEvidence? evidence = EvidenceOf(error);
        state.IsRefused = evidence == PeerEvidence.Refused;
        if (evidence is { } what) found(node, what);
    }

    private sealed class State
    {
        public bool IsUnderWay { get; set; }

        public bool IsRefused { get; set; }

        public long TriedAt { get; set; } = Heartbeat.NoTicks;
    }
}
