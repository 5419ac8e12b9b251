// SPDX-License-Identifier: Apache-2.0
using System.Text.Json.Serialization;

namespace VSmp.Agent.Checkpointing;

/// <summary>Where generations of a checkpoint are kept.</summary>
[JsonConverter(typeof(JsonStringEnumConverter<CheckpointTier>))]
internal enum CheckpointTier
{
    /// <summary>In files of a folder.</summary>
    Disk,
    /// <summary>In the memory of the node that has written it, and in that of another, its partner: one node may be lost.</summary>
    Partner,
    /// <summary>In the memory of the node that has written it; all nodes together have a little more, from which what one of them had can be computed: one node may be lost.</summary>
    Xor,
}
