// SPDX-License-Identifier: Apache-2.0
using VSmp.Coherence.Homes;
using VSmp.Coherence.Nodes;
using VSmp.Coherence.Protocols;

namespace VSmp.Coherence.Recovery;

/// <summary>What all who take part in the recovery of a region are told when it begins.</summary>
/// <param name="Lost">Nodes that are lost; none, where directories are rebuilt for another reason.</param>
/// <param name="Users">Nodes that use the region and are left: each says what it has.</param>
/// <param name="IsAnyUserLost">Whether a node is lost that used it.</param>
public sealed record RecoveryPlan(IReadOnlyList<NodeId> Lost, IReadOnlyList<NodeId> Users, bool IsAnyUserLost)
{
    /// <summary>Extents whose home and mirror change places. Nobody of them is lost.</summary>
    public IReadOnlyList<HomeMove> Moves { get; init; } = [];

    /// <summary>Of those that are lost, members all the same: their agents were started again, and know nothing of this region any more.</summary>
    public IReadOnlyList<NodeId> Forgetful { get; init; } = [];

    /// <summary>Whether a node is lost.</summary>
    public bool IsLost(NodeId node) => Lost.Contains(node);
}

/// <summary>What was the mirror of extents becomes their home, and the home the mirror; or did so when the region was frozen last.</summary>
/// <param name="First">The first extent.</param>
/// <param name="Count">How many.</param>
/// <param name="Home">Their home from now on.</param>
/// <param name="Mirror">Their mirror from now on.</param>
public readonly record struct HomeMove(ExtentNumber First, uint Count, NodeId Home, NodeId Mirror);

/// <summary>
/// A node's part in the recovery of regions. The node that made a region leads (<see cref="RecoveryLeader"/>): everybody freezes, then every user
/// tells every home what it has, then the homes rebuild their directories, then everybody goes on.
/// </summary>
/// <param name="self">The node.</param>
/// <param name="node">Its side as a user.</param>
/// <param name="home">Its side as a home.</param>
public sealed class RecoveryController(NodeId self, NodeController node, HomeController home)
{
    private readonly Dictionary<RegionId, (RecoveryPlan Plan, HashSet<NodeId> Silent)> _underWay = [];

    /// <summary>
    /// Freezes a region: nothing of the generation before counts any more. Mirrors of homes that are lost become homes.
    /// </summary>
    /// <param name="region">The region.</param>
    /// <param name="generation">Its new generation.</param>
    /// <param name="plan">Who is lost, and who is left.</param>
    /// <param name="effects">What is to be done.</param>
    /// <returns>Extents that have their home here now.</returns>
    public int Freeze(Region region, Generation generation, RecoveryPlan plan, EffectBuffer effects)
    {
        if (generation.Value <= region.Generation.Value)
        {
            throw new ProtocolViolationException($"{region.Id} is of generation {region.Generation.Value} already, and is to be frozen for {generation.Value}");
        }
        // An agent that was killed may have been in the middle of a recovery: what it recorded is looked at in the same way.
        bool beginsAnew = region.IsDeaf || region.Rebuild is { IsDecided: false };
        region.Generation = generation;
        region.IsFrozen = true;
        region.IsDeaf = false;
        region.MirrorCopiesOut = 0;
        node.Freeze(region, effects);
        home.Drop(region.Id);
        // What was a mirror until a recovery that is not decided yet was right for the losses of then.
        foreach (ExtentNumber extent in region.UndecidedHomes.Where(_ => plan.IsAnyUserLost)) region.DoubtHome(extent);
        foreach (HomeMove move in plan.Moves)
        {
            for (uint i = 0; i < move.Count; i++) Move(region, new ExtentNumber(move.First.Value + i), in move, plan, beginsAnew, effects);
        }
        int promoted = 0;
        for (uint e = 0; e < region.ExtentCount; e++)
        {
            ExtentNumber extent = new(e);
            region.SetNextMirror(extent, NodeId.None); // what was on its way there is dropped
            if (plan.IsLost(region.MirrorOf(extent))) region.SetMirror(extent, NodeId.None);
            if (!region.Mirrored.Contains(extent) || !plan.IsLost(region.Mirrored.HomeOf(extent))) continue;
            region.PromoteMirror(extent, plan.IsAnyUserLost);
            NodeController.OnBecameHome(region, extent);
            promoted++;
        }
        region.Rebuild = null;
        _underWay.Remove(region.Id);
        if (region.HomeExtentCount == 0) return promoted;
        region.Rebuild = new DirectoryRebuild(self, region);
        region.Rebuild.Begin(plan.IsLost, plan.IsAnyUserLost, beginsAnew, effects);
        _underWay.Add(region.Id, (plan, [.. plan.Users]));
        return promoted;
    }

    private void Move(Region region, ExtentNumber extent, in HomeMove move, RecoveryPlan plan, bool beginsAnew, EffectBuffer effects)
    {
        if (move.Home == self && region.Mirrored.Contains(extent))
        {
            region.PromoteMirror(extent, plan.IsAnyUserLost);
            NodeController.OnBecameHome(region, extent);
            region.SetMirror(extent, move.Mirror);
        }
        else if (move.Mirror == self && region.IsHome(extent))
        {
            // (To say again where homes are, as a leader does that was started again, is another matter.)
            if (region.Protocol != Msi.Protocol) throw new ProtocolViolationException($"{region.Id} is kept coherent by {region.Protocol.Name}: its homes cannot move");
            DirectoryRebuild.Reduce(self, region, extent, plan.IsLost, plan.IsAnyUserLost, beginsAnew, effects);
            region.DemoteHome(extent, move.Home);
        }
        else if (move.Home == self && region.IsHome(extent) && region.MirrorOf(extent) != move.Mirror)
        {
            // Its mirror was lost, and the leader that knew of it was killed before this node did: to the next one, that mirror never was.
            region.SetMirror(extent, move.Mirror);
        }
    }

    /// <summary>A user's claims; all of them have come when <paramref name="isLast"/>.</summary>
    /// <param name="region">The region.</param>
    /// <param name="from">The user.</param>
    /// <param name="claims">What it has of pages whose home is here.</param>
    /// <param name="isLast">Whether it has nothing more to say.</param>
    /// <param name="effects">What is to be done.</param>
    /// <param name="lost">Gets the pages that nobody has, once all users have spoken.</param>
    /// <exception cref="ProtocolViolationException">It was not asked, or contradicts another.</exception>
    public void OnClaims(Region region, NodeId from, ReadOnlySpan<Claim> claims, bool isLast, EffectBuffer effects, List<PageNumber> lost)
    {
        if (region.Rebuild is not { IsDecided: false } rebuild || !_underWay.TryGetValue(region.Id, out var recovery) || !recovery.Silent.Contains(from))
        {
            throw new ProtocolViolationException($"{from} was not asked what it has of {region.Id}");
        }
        foreach (ref readonly Claim claim in claims) rebuild.OnClaim(from, in claim);
        if (!isLast) return;
        recovery.Silent.Remove(from);
        if (recovery.Silent.Count > 0) return;
        _underWay.Remove(region.Id);
        rebuild.Finish(effects, lost);
    }

    /// <summary>Whether the directories of a region are there again here. Says so once.</summary>
    public static bool TryComplete(Region region)
    {
        if (region.Rebuild is not { IsDone: true }) return false;
        region.Rebuild = null;
        return true;
    }

    /// <summary>All directories are there: this node goes on.</summary>
    public void Thaw(Region region, EffectBuffer effects)
    {
        region.IsFrozen = false;
        node.Thaw(region, effects);
    }

    /// <summary>Users that have not said yet what they have of a region, for saving and restoring.</summary>
    internal IEnumerable<NodeId> SilentAbout(RegionId region) => _underWay.TryGetValue(region, out var recovery) ? recovery.Silent : [];

    /// <summary>Goes on where another controller was.</summary>
    internal void Restore(RegionId region, RecoveryPlan plan, IEnumerable<NodeId> silent)
    {
        _underWay.Remove(region);
        HashSet<NodeId> left = [.. silent];
        if (left.Count > 0) _underWay.Add(region, (plan, left));
    }

    /// <summary>The region is gone.</summary>
    public void Drop(RegionId region) => _underWay.Remove(region);
}
