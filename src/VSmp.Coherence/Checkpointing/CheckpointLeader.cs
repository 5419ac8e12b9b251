// SPDX-License-Identifier: Apache-2.0
namespace VSmp.Coherence.Checkpointing;

/// <summary>
/// A checkpoint, as the node sees it that leads it: each step is ordered when all nodes have done the one before. Deterministic and sans-I/O, as the nodes' part is
/// (<see cref="CheckpointMember"/>).
/// </summary>
/// <remarks>
/// <code>
///   Prepare ──all──► Hold ──all──► Settle ──all──► Cut ──all──► Copy ──all──► committed ──► End
///      └───────────────┴─────────────┴──────────────┴────────────┴── one cannot, or is lost: given up ──► End
///                   └──────── nobody begins anything ───────────┘
/// </code>
/// Why Hold and Settle are two: after Hold nobody waits for anything that he has asked for, and asks for nothing more. What is on its way then is acknowledgements and writebacks, which
/// lead to nothing new; a home that has none to wait for will have none.
/// </remarks>
public sealed class CheckpointLeader
{
    private readonly NodeId[] _nodes;
    private readonly HashSet<NodeId> _awaited;

    /// <summary>Begins a checkpoint: all nodes are to be told to prepare.</summary>
    /// <param name="nodes">The nodes that have anything of its regions.</param>
    public CheckpointLeader(IEnumerable<NodeId> nodes)
    {
        _nodes = [.. nodes];
        _awaited = [.. _nodes];
    }

    /// <summary>The nodes that take part.</summary>
    public IReadOnlyList<NodeId> Nodes => _nodes;

    /// <summary>The step that was ordered last.</summary>
    public CheckpointStep Step { get; private set; } = CheckpointStep.Prepare;

    /// <summary>Who has yet to do it.</summary>
    public IReadOnlySet<NodeId> Awaited => _awaited;

    /// <summary>Whether it is over, one way or the other.</summary>
    public bool IsOver => Step == CheckpointStep.End;

    /// <summary>A node has done a step.</summary>
    /// <returns>Whether that was the last one: then the next step is to be ordered, or, after <see cref="CheckpointStep.Copy"/>, the generation committed.</returns>
    /// <exception cref="ProtocolViolationException">It was not told to.</exception>
    public bool OnDone(NodeId node, CheckpointStep step)
    {
        if (IsOver) return false; // given up meanwhile
        if (step != Step || !_awaited.Remove(node)) throw new ProtocolViolationException($"{node} has done {step} of a checkpoint, which it was not told to: that is at {Step}");
        return _awaited.Count == 0;
    }

    /// <summary>Goes on with the next step.</summary>
    public CheckpointStep Advance()
    {
        if (_awaited.Count > 0 || IsOver) throw new InvalidOperationException($"a checkpoint goes on from {Step}, for which {_awaited.Count} nodes are awaited");
        Step++;
        if (!IsOver) _awaited.UnionWith(_nodes);
        return Step;
    }

    /// <summary>As it was saved.</summary>
    internal void Restore(CheckpointStep step, IEnumerable<NodeId> awaited)
    {
        Step = step;
        _awaited.Clear();
        _awaited.UnionWith(awaited);
    }

    /// <summary>It cannot be completed: all are to be told that it ends.</summary>
    /// <returns>False if it is over already.</returns>
    public bool GiveUp()
    {
        if (IsOver) return false;
        Step = CheckpointStep.End;
        _awaited.Clear();
        return true;
    }
}
