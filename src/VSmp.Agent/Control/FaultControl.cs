// SPDX-License-Identifier: Apache-2.0
using System.Globalization;
using VSmp.Agent.Fabric;
using VSmp.Agent.Fabric.FaultInjection;
using VSmp.Agent.Guests;
using VSmp.Coherence;

namespace VSmp.Agent.Control;

/// <summary>A fault to be injected into what a node sends, or the end of some.</summary>
/// <param name="Kind">What; null: ends what is in force.</param>
/// <param name="To">The nodes on the way to which; null: all.</param>
/// <param name="Share">The part of the messages that it happens to, from 0 (which ends it) to 1.</param>
/// <param name="DelayMicroseconds">Delay: the longest.</param>
/// <param name="Seed">What the choices follow from; null: chosen by the agent.</param>
internal sealed record FaultOrder(FaultKind? Kind, IReadOnlyList<string>? To, double Share = 1, long DelayMicroseconds = 0, int? Seed = null)
{
    /// <summary>The longest delay.</summary>
    public const long MaxDelayMicroseconds = 60_000_000;
}

/// <summary>A fault that is in force on what a node sends.</summary>
/// <param name="Node">The node that sends.</param>
/// <param name="To">The node to which; null: all that have no fault of this kind of their own.</param>
/// <param name="Kind">What.</param>
/// <param name="Share">The part of the messages that it happens to, from 0 (an exemption) to 1.</param>
/// <param name="DelayMicroseconds">Delay: the longest.</param>
/// <param name="Count">How often it has happened.</param>
/// <param name="Seed">What the choices follow from.</param>
internal sealed record FaultStatus(string Node, string? To, FaultKind Kind, double Share, long DelayMicroseconds, long Count, int Seed)
{
    /// <summary>In words: <c>delay up to 20 ms, 10 %</c>.</summary>
    public string Text => Kind switch
    {
        _ when Share <= 0 => $"no {Kind.ToString().ToLowerInvariant()}",
        FaultKind.Partition => "partition",
        FaultKind.Delay => string.Create(CultureInfo.InvariantCulture, $"delay up to {DelayMicroseconds / 1000.0:0.###} ms, {Share * 100:0.####} %"),
        _ => string.Create(CultureInfo.InvariantCulture, $"{Kind.ToString().ToLowerInvariant()} {Share * 100:0.####} %"),
    };
}

/// <summary>Something that is injected at a node, as people see it.</summary>
/// <param name="Node">The node.</param>
/// <param name="To">The node to which messages are affected, or "all"; null: it is not about messages.</param>
/// <param name="What">In words.</param>
/// <param name="Count">How often it has happened.</param>
/// <param name="Seed">What the choices follow from.</param>
internal sealed record InjectedFault(string Node, string? To, string What, long? Count, int? Seed);

/// <summary>What the control socket asks about faults. Owned by the reactor.</summary>
/// <param name="options">What the agent was told to be.</param>
/// <param name="plan">The faults; null where none may be injected.</param>
/// <param name="peers">The other nodes, by name.</param>
/// <param name="self">This node's number.</param>
internal sealed class FaultControl(AgentOptions options, FaultPlan? plan, Peers peers, Func<NodeId> self)
{
    /// <summary>What is in force.</summary>
    public IReadOnlyList<FaultStatus> InForce => plan is null ? [] : [.. plan.InForce.Select(way => new FaultStatus(options.Name,
        way.Peer is { } peer ? peers.NameOf(peer) : null, way.Fault.Kind, way.Fault.Share, way.Fault.DelayMicroseconds, way.Fault.Count, plan.Seed))];

    /// <summary>Does it, and says so in the log.</summary>
    /// <exception cref="ControlException">Not here, not to such a node, or not over this transport.</exception>
    public void Inject(FaultOrder order)
    {
        if (plan is null)
        {
            throw new ControlException($"agent {options.Name} is of no development cluster: faults may be injected where vsmp up has started the agents, "
                + "or vsmp agent was given --development", ExitCodes.Refused);
        }
        if (order.Kind is not { } kind)
        {
            Heal(plan, order.To);
            return;
        }
        if (!(order.Share is >= 0 and <= 1) || order.DelayMicroseconds is < 0 or > FaultOrder.MaxDelayMicroseconds || !Enum.IsDefined(kind))
            throw new ControlException("the request makes no sense", ExitCodes.Usage);
        if (kind == FaultKind.Corrupt && order.Share > 0 && options.Transport.Kind == TransportKind.Verbs)
        {
            throw new ControlException("over RDMA the device sends frames from where they lie, out of reach: corrupt is for --transport tcp; "
                + "partition, delay and drop work", ExitCodes.Refused);
        }
        NodeId[]? to = order.To?.Select(Find).ToArray();
        plan.UseSeed(order.Seed);
        foreach (NodeId? peer in to?.Cast<NodeId?>() ?? [null]) plan.Inject(peer, new Fault(kind, order.Share, order.DelayMicroseconds));
        string what = new FaultStatus(options.Name, null, kind, order.Share, order.DelayMicroseconds, 0, 0).Text;
        Log.Warn($"injected on the way to {(order.To is null ? "all others" : string.Join(", ", order.To))}: {what}; seed {plan.Seed}");
    }

    private void Heal(FaultPlan faults, IReadOnlyList<string>? to)
    {
        if (!faults.InForce.Any()) return;
        // A node that is gone by now has nothing to be healed.
        if (to is null) faults.Heal(null);
        else foreach (Peer peer in peers.All.Where(peer => to.Contains(peer.Name)).ToArray()) faults.Heal(peer.Node);
        Log.Warn($"healed on the way to {(to is null ? "all others" : string.Join(", ", to))}");
    }

    private NodeId Find(string name)
    {
        Peer? peer = peers.All.FirstOrDefault(peer => peer.Name == name && peer.Node != self());
        return peer?.Node ?? throw new ControlException($"node {options.Name} knows no other node {name}: vsmp status lists them", ExitCodes.Usage);
    }
}
