// SPDX-License-Identifier: Apache-2.0
using VSmp.Coherence;

namespace VSmp.Agent.Checkpointing;

/// <summary>What a checkpoint is taken of, and who hears how it goes.</summary>
internal abstract class CheckpointWork
{
    /// <summary>What ran.</summary>
    public abstract string Program { get; }

    /// <summary>How many ranks of it.</summary>
    public abstract int Ranks { get; }

    /// <summary>How it was run; null: it cannot be run again, or nobody knows how.</summary>
    public virtual SavedRun? Run => null;

    /// <summary>The regions.</summary>
    public abstract IReadOnlyList<(RegionId Id, SavedRegion Region)> Regions { get; }

    /// <summary>The nodes that have anything of them.</summary>
    public abstract IReadOnlyList<NodeId> Nodes { get; }

    /// <summary>All nodes have cut, and nobody has gone on: says what else is to be saved.</summary>
    /// <param name="state">Gives it, as it is now, as bytes: later, since everybody waits.</param>
    /// <param name="whyNot">Why nothing can be saved.</param>
    /// <returns>False if nothing can be saved now.</returns>
    public abstract bool TrySave(out Func<byte[]> state, out string? whyNot);

    /// <summary>The generation is cut: everybody goes on.</summary>
    public abstract void OnTaken(uint generation);

    /// <summary>It is safe.</summary>
    public abstract void OnStored(uint generation);

    /// <summary>It will not be.</summary>
    /// <param name="generation">Which.</param>
    /// <param name="wasTaken">Whether <see cref="OnTaken"/> was called.</param>
    /// <param name="why">Why not.</param>
    public abstract void OnGivenUp(uint generation, bool wasTaken, string why);
}
