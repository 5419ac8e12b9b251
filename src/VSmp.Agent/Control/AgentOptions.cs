// SPDX-License-Identifier: Apache-2.0
using System.Net;
using VSmp.Agent.Keeping;
using VSmp.Agent.Membership;
using VSmp.Agent.Membership.Etcd;

namespace VSmp.Agent.Control;

/// <summary>What an agent was told to be, checked: names valid, sizes in range, the run folder claimed.</summary>
internal sealed record AgentOptions
{
    /// <summary>The cluster's name.</summary>
    public required string Cluster { get; init; }

    /// <summary>The node's name, unique in the cluster.</summary>
    public required string Name { get; init; }

    /// <summary>What the node contributes to the pool, a multiple of the extent (2 MiB).</summary>
    public required ulong MemoryBytes { get; init; }

    /// <summary>Where peers connect; port 0 lets the kernel choose.</summary>
    public required IPEndPoint Listen { get; init; }

    /// <summary>What carries frames between agents.</summary>
    public TransportChoice Transport { get; init; } = TransportChoice.Tcp;

    /// <summary>What memory survives where a run does not say.</summary>
    public Redundancy Redundancy { get; init; }

    /// <summary>Where etcd is that has the membership's record, or null: the node that founds the cluster has it.</summary>
    public EtcdAddress? Membership { get; init; }

    /// <summary>Without etcd: an agent of the cluster to join, or null to found the cluster.</summary>
    public IPEndPoint? Join { get; init; }

    /// <summary>What an agent of this node that was killed has left of its membership, whose place this one takes; null: it founds, or joins.</summary>
    public MemberIdentity? Predecessor { get; init; }

    /// <summary>The cluster's secret: a file that only its owner may read.</summary>
    public required string SecretFile { get; init; }

    /// <summary>The agent's folder (sockets, frames), which it holds alone while it runs.</summary>
    public required AgentFolder Folder { get; init; }

    /// <summary>The folder that checkpoints are in.</summary>
    public required string CheckpointsFolder { get; init; }

    /// <summary>The keeper that started this agent, or null. Whoever connected with it closes the connection.</summary>
    public KeeperClient? Keeper { get; init; }

    /// <summary>A group whose members may use the agent besides its owner and root, or null.</summary>
    public uint? GroupId { get; init; }

    /// <summary>Whether faults may be injected here: agents of <c>vsmp up</c> only.</summary>
    public bool IsDevelopment { get; init; }

    /// <summary>Called once, when guests can attach; with where the agent listens (the port that the kernel chose).</summary>
    public required Action<IPEndPoint> OnReady { get; init; }
}
