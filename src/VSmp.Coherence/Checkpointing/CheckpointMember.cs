// SPDX-License-Identifier: Apache-2.0
using VSmp.Coherence.Nodes;

namespace VSmp.Coherence.Checkpointing;

/// <summary>A checkpoint at a node that takes part: which step it was told to do, and whether it has. Deterministic and sans-I/O.</summary>
/// <param name="self">The node.</param>
/// <param name="node">Its side of the protocol.</param>
/// <param name="regions">What it has of the checkpoint's regions.</param>
public sealed class CheckpointMember(NodeId self, NodeController node, IReadOnlyList<Region> regions)
{
    private readonly Generation[] _generations = [.. regions.Select(region => region.Generation)];

    /// <summary>The step that it was told to do.</summary>
    public CheckpointStep Step { get; private set; } = CheckpointStep.Prepare;

    /// <summary>Whether it has done that.</summary>
    public bool IsDone { get; private set; }

    /// <summary>The node.</summary>
    public NodeId Self => self;

    /// <summary>The regions that it has here.</summary>
    public IReadOnlyList<Region> Regions => regions;

    /// <summary>The generations of their directories when it began, for saving.</summary>
    internal IReadOnlyList<Generation> Generations => _generations;

    /// <summary>Whether a region was recovered since the checkpoint began: then it is of no use.</summary>
    public bool IsStale
    {
        get
        {
            for (int i = 0; i < regions.Count; i++)
            {
                if (regions[i].Generation != _generations[i] || regions[i].IsFrozen) return true;
            }
            return false;
        }
    }

    /// <summary>It is told to do the next step.</summary>
    /// <exception cref="ProtocolViolationException">The next step is another, or it has not done the one before.</exception>
    public void OnOrder(CheckpointStep step)
    {
        if (step == CheckpointStep.End)
        {
            Release();
            Step = step;
            return;
        }
        if (step != Step + 1 || !IsDone) throw new ProtocolViolationException($"a checkpoint is at {Step} here, and is told to {step}");
        (Step, IsDone) = (step, false);
        if (step == CheckpointStep.Hold)
        {
            foreach (Region region in regions) region.IsHeld = true;
        }
        else if (step == CheckpointStep.Copy)
        {
            Release();
        }
    }

    /// <summary>Whether the step is done that waits for the protocol: for Hold, and for Settle, that nothing is under way.</summary>
    public bool IsQuiet()
    {
        foreach (Region region in regions)
        {
            if (!RegionCapture.IsQuiet(region, node)) return false;
        }
        return true;
    }

    /// <summary>It has done its step: the leader is to be told.</summary>
    public void OnDone()
    {
        if (IsDone) throw new InvalidOperationException($"a checkpoint has done {Step} twice");
        IsDone = true;
    }

    /// <summary>The checkpoint is given up: nothing of its regions is saved.</summary>
    public void Abandon()
    {
        Release();
        foreach (Region region in regions) region.Capture?.Reset();
        Step = CheckpointStep.End;
    }

    /// <summary>As it was saved.</summary>
    internal void Restore(CheckpointStep step, bool isDone, Generation generation)
    {
        (Step, IsDone) = (step, isDone);
        Array.Fill(_generations, generation);
    }

    private void Release()
    {
        foreach (Region region in regions) region.IsHeld = false;
    }
}
