// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent.Fabric;
using VSmp.Agent.Fabric.FaultInjection;
using VSmp.Agent.Interop;
using VSmp.Coherence;
using VSmp.Coherence.Membership;

namespace VSmp.Agent.Membership;

/// <summary>
/// Tries the addresses of members that are silent: where the host is up and nobody listens, the agent is gone, and so are the guests that it served. Where
/// a connection is taken, the node is there, and its agent is not at the moment: it stands still on a busy host, or its keeper is starting it again. Where nobody
/// answers at all, the host is gone or cut off, and that is so once it has lasted longer than it would with a network as it was lately. Owned by the reactor.
/// </summary>
internal sealed class PeerProbes(Reactor reactor, PeerGate gate, FaultPlan? faults, Action<NodeId, PeerEvidence> found)
{
    /// <summary>Silence after which an address is tried: more than two heartbeats in a row are missing.</summary>
    public const long SilenceTicks = 150;

    private const long AgainTicks = 100;

    private readonly Dictionary<NodeId, State> _states = [];

    /// <summary>Whether the last look at a silent member found that its host refuses connections.</summary>
    public bool IsRefused(NodeId node) => _states.TryGetValue(node, out State? state) && state.Found == PeerEvidence.Refused;

    /// <summary>Whether the last look at a silent member got no answer at all.</summary>
    public bool IsUnanswered(NodeId node) => _states.TryGetValue(node, out State? state) && state.Found == PeerEvidence.Unanswered;

    /// <summary>A member has been silent for so long.</summary>
    public void OnSilent(Member member, long silentTicks, long now)
    {
        if (!_states.TryGetValue(member.Id, out State? state)) _states.Add(member.Id, state = new State());
        state.Patience.OnSilent(silentTicks, now);
        if (silentTicks < SilenceTicks)
        {
            state.Found = null;
            return;
        }
        NodeId node = member.Id;
        if (state.Found == PeerEvidence.Unanswered && state.Patience.IsOver) found(node, PeerEvidence.Unanswered);
        if (state.IsUnderWay || now - state.TriedAt < AgainTicks) return;
        state.IsUnderWay = true;
        state.TriedAt = now;
        if (faults?.Toward(node).Partition is not null) reactor.After(PeerGate.ProbeDeadlineMicroseconds, () => OnProbed(node, state, Errno.ETIMEDOUT));
        else gate.Probe(member.Address, error => reactor.Post(() => OnProbed(node, state, error)));
    }

    /// <summary>Forgets a member.</summary>
    public void Remove(NodeId node) => _states.Remove(node);

    /// <summary>What the outcome of an attempt to connect says; null: nothing. Whoever listens for an agent, be it a keeper, decides by that how long it is waited for.</summary>
    private static PeerEvidence? EvidenceOf(int error) => error switch
    {
        0 => PeerEvidence.AgentDown,
        Errno.ECONNREFUSED => PeerEvidence.Refused,
        Errno.ETIMEDOUT or Errno.EHOSTUNREACH => PeerEvidence.Unanswered,
        _ => null,
    };

    private void OnProbed(NodeId node, State state, int error)
    {
        state.IsUnderWay = false;
        if (!_states.TryGetValue(node, out State? current) || current != state) return;
        state.Found = EvidenceOf(error);
        if (state.Found is { } what and not PeerEvidence.Unanswered) found(node, what); // that one takes longer to be believed
    }

    private sealed class State
    {
        public SilencePatience Patience { get; } = new();

        public bool IsUnderWay { get; set; }

        /// <summary>What the last look found, while the silence lasts; null: nothing.</summary>
        public PeerEvidence? Found { get; set; }

        public long TriedAt { get; set; } = Heartbeat.NoTicks;
    }
}
