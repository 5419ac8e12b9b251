// SPDX-License-Identifier: Apache-2.0
using VSmp.Coherence;

namespace VSmp.Agent.Jobs;

/// <summary>A job: one <c>vsmp spmd</c>. Unique in an epoch: its top 16 bits are the node that leads it.</summary>
/// <param name="Value">Leading node in bits 63…48, that node's counter below.</param>
internal readonly record struct JobId(ulong Value)
{
    /// <summary>The job that <paramref name="leader"/> leads as its <paramref name="counter"/>-th.</summary>
    public static JobId Create(NodeId leader, ulong counter) => new(((ulong)leader.Value << 48) | (counter & 0xFFFF_FFFF_FFFF));

    /// <summary>The node that leads it.</summary>
    public NodeId Leader => new((ushort)(Value >> 48));

    /// <inheritdoc/>
    public override string ToString() => $"job {Leader.Value}.{Value & 0xFFFF_FFFF_FFFF}";
}
