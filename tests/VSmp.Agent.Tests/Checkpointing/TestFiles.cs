// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent.Checkpointing.Files;
using VSmp.Agent.Guests;
using VSmp.Coherence;

namespace VSmp.Agent.Tests.Checkpointing;

/// <summary>Where checkpoints of a node are that is alone.</summary>
internal static class TestFiles
{
    /// <summary>In a folder; what is to be in memory is in another.</summary>
    public static CheckpointFiles At(string root, Reactor reactor) => new(new NodeId(0), root, reactor, new Peers(),
        new MemoryFiles(Path.Combine(root, "memory"), _ => true, _ => { }, out _), (_, _) => throw new InvalidOperationException("there is no other node"));
}
