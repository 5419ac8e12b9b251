// SPDX-License-Identifier: Apache-2.0
namespace VSmp.Coherence.Checkpointing;

/// <summary>What nodes do for a checkpoint, one after the other. Values are on the wire.</summary>
public enum CheckpointStep : byte
{
    /// <summary>Get ready; guests go on.</summary>
    Prepare = 1,
    /// <summary>Begin nothing any more; done when nothing that this node has begun is under way.</summary>
    Hold = 2,
    /// <summary>Nobody has anything under way that he has begun; done when nothing at all is, at the homes that are here either.</summary>
    Settle = 3,
    /// <summary>Write-protect what is to be copied, and note what that is.</summary>
    Cut = 4,
    /// <summary>Everybody has cut: go on, and copy; done when all is copied, and safe.</summary>
    Copy = 5,
    /// <summary>The generation is there, or the checkpoint is given up: forget it. Nobody waits for an answer.</summary>
    End = 6,
}
