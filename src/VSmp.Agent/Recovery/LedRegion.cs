// SPDX-License-Identifier: Apache-2.0
using VSmp.Coherence;
using VSmp.Coherence.Placement;
using VSmp.Coherence.Recovery;

namespace VSmp.Agent.Recovery;

/// <summary>
/// A region as the node sees it that made it, and so leads its recovery and moves its homes: where its homes and mirrors are, who uses it, what becomes of it if it cannot be
/// recovered. One of a guest (<see cref="GuestRegion"/>), or one that the ranks of a job share. Owned by the reactor.
/// </summary>
/// <param name="id">Its number.</param>
/// <param name="name">Its name.</param>
/// <param name="homes">Where its homes and mirrors are.</param>
internal abstract class LedRegion(RegionId id, string name, HomeMap homes)
{
    /// <summary>Its number.</summary>
    public RegionId Id { get; } = id;

    /// <summary>Its name.</summary>
    public string Name { get; } = name;

    /// <summary>Where its homes and mirrors are.</summary>
    public HomeMap Homes { get; } = homes;

    /// <summary>Its length in extents.</summary>
    public int ExtentCount => Homes.ExtentCount;

    /// <summary>The generation of its directories that counts, or is being made.</summary>
    public abstract Generation Generation { get; set; }

    /// <summary>Whether nothing is left to recover: whoever used it is being ended.</summary>
    public abstract bool IsOver { get; }

    /// <summary>Whether it is to be mirrored.</summary>
    public abstract bool IsMirrored { get; }

    /// <summary>Whether its homes can be moved while all are there. (Those of ranks' regions stay where they are until a node is lost.)</summary>
    public abstract bool IsMovable { get; }

    /// <summary>Whether a node that was home or mirror of it was lost.</summary>
    public abstract bool HasLostNode { get; set; }

    /// <summary>The nodes whose guests use it.</summary>
    public abstract IReadOnlyList<NodeId> Users { get; }

    /// <summary>Who runs in it, for listings.</summary>
    public abstract (int ProcessId, string Program) Guest { get; }

    /// <summary>Whether the users are lost with a node, so that what has its home there needs no mirror.</summary>
    public abstract bool IsBound(NodeId home);

    /// <summary>Adds nodes that have to take part in its recovery though they may be neither home nor mirror.</summary>
    public abstract void AddParticipants(HashSet<NodeId> participants);

    /// <summary>Of those that take part, the nodes that users have to tell what they have.</summary>
    public abstract IEnumerable<NodeId> HomesAmong(IReadOnlyCollection<NodeId> participants);

    /// <summary>The node that has most room to become home or mirror of extents of it; none if none has any.</summary>
    /// <param name="home">Where their home is, or was.</param>
    /// <param name="lost">Nodes that are lost.</param>
    /// <param name="isHome">Whether it is to become home. (A mirror must not be a user: a page has one frame at a node.)</param>
    public abstract NodeId Choose(NodeId home, HashSet<NodeId> lost, bool isHome);

    /// <summary>An extent has got a mirror.</summary>
    public virtual void OnMirrorPlaced(ExtentNumber extent)
    {
    }

    /// <summary>Where homes and mirrors are, as what is to be done by those who may not know it yet.</summary>
    public virtual List<HomeMove> Places() => Places(_ => true);

    /// <summary>As above, of extents with a home that are to be told of.</summary>
    protected List<HomeMove> Places(Func<ExtentNumber, bool> isToBeTold)
    {
        var places = new List<HomeMove>();
        for (uint e = 0; e < ExtentCount; e++)
        {
            ExtentNumber extent = new(e);
            NodeId home = Homes.HomeOf(extent), mirror = Homes.MirrorOf(extent);
            if (home.IsNone || !isToBeTold(extent)) continue;
            bool isNext = places.Count > 0 && places[^1] is var last && last.Home == home && last.Mirror == mirror && last.First.Value + last.Count == e
                && last.Count < ushort.MaxValue;
            if (isNext) places[^1] = places[^1] with { Count = places[^1].Count + 1 };
            else places.Add(new HomeMove(extent, 1, home, mirror));
        }
        return places;
    }

    /// <summary>An extent has another home from now on.</summary>
    public abstract void OnHomeMoved(NodeId from, NodeId to);

    /// <summary>Nobody has room for what is left of it: its users are ended.</summary>
    public abstract void Fail(string why);

    /// <summary>A line for the user: pages of it are lost.</summary>
    /// <param name="nodes">Names of the nodes that they are lost with.</param>
    /// <param name="pageCount">How many.</param>
    public abstract void TellOfLoss(string nodes, int pageCount);

    /// <summary>Extents without a mirror that are to have one.</summary>
    public bool IsBare(ExtentNumber extent) => Homes.HomeOf(extent) is { IsNone: false } home && !IsBound(home) && Homes.MirrorOf(extent).IsNone;
}
