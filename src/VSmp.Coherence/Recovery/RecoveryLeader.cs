// SPDX-License-Identifier: Apache-2.0
namespace VSmp.Coherence.Recovery;

/// <summary>How far the recovery of a region is.</summary>
public enum RecoveryPhase
{
    /// <summary>There is none.</summary>
    None,
    /// <summary>All who take part are told to freeze.</summary>
    Freezing,
    /// <summary>All have; users say what they have, homes rebuild their directories.</summary>
    Rebuilding,
}

/// <summary>
/// Leads the recovery of a region, at the node that made it: waits until all have frozen it, then until all homes have rebuilt their directories.
/// If another node is lost meanwhile, it begins anew with the next generation.
/// </summary>
/// <remarks>Two rounds, and not one: a claim must not reach a home that still serves requests, nor a mirror be written by a home that is younger than it.</remarks>
public sealed class RecoveryLeader
{
    private readonly HashSet<NodeId> _awaited = [];
    private NodeId[] _homes = [];

    /// <summary>How far it is.</summary>
    public RecoveryPhase Phase { get; private set; }

    /// <summary>The generation that is made.</summary>
    public Generation Generation { get; private set; }

    /// <summary>Who has to answer before it goes on, for saving and restoring.</summary>
    internal IEnumerable<NodeId> Awaited => _awaited;

    /// <summary>The homes, for saving and restoring.</summary>
    internal IEnumerable<NodeId> Homes => _homes;

    /// <summary>Goes on where another leader was.</summary>
    internal void Restore(RecoveryPhase phase, Generation generation, IEnumerable<NodeId> awaited, IEnumerable<NodeId> homes)
    {
        Phase = phase;
        Generation = generation;
        _homes = [.. homes];
        _awaited.Clear();
        _awaited.UnionWith(awaited);
    }

    /// <summary>Begins; all who take part are to be told to freeze.</summary>
    /// <param name="generation">The new generation.</param>
    /// <param name="participants">Homes, mirrors and users that are left.</param>
    /// <param name="homes">Of these, the homes (those that were mirrors of homes that are lost among them).</param>
    public void Begin(Generation generation, IEnumerable<NodeId> participants, IEnumerable<NodeId> homes)
    {
        if (generation.Value <= Generation.Value) throw new InvalidOperationException("generations only grow");
        Generation = generation;
        Phase = RecoveryPhase.Freezing;
        _homes = [.. homes];
        _awaited.Clear();
        _awaited.UnionWith(participants);
    }

    /// <summary>A node has frozen the region.</summary>
    /// <returns>Whether it was the last: now the users are to say what they have.</returns>
    public bool OnFrozen(NodeId node, Generation generation)
    {
        if (Phase != RecoveryPhase.Freezing || generation != Generation || !_awaited.Remove(node) || _awaited.Count > 0) return false;
        Phase = RecoveryPhase.Rebuilding;
        _awaited.UnionWith(_homes);
        return true;
    }

    /// <summary>A home has rebuilt its directory.</summary>
    /// <returns>Whether it was the last: now all are to go on.</returns>
    public bool OnRebuilt(NodeId node, Generation generation)
    {
        if (Phase != RecoveryPhase.Rebuilding || generation != Generation || !_awaited.Remove(node) || _awaited.Count > 0) return false;
        Phase = RecoveryPhase.None;
        return true;
    }
}
