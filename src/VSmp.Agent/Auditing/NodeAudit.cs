// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent.Elasticity;
using VSmp.Agent.Guests;
using VSmp.Agent.Paging;
using VSmp.Agent.Recovery;
using VSmp.Coherence;
using VSmp.Coherence.Homes;
using VSmp.Coherence.Placement;

namespace VSmp.Agent.Auditing;

/// <summary>What a node says of its memory and its regions, at one moment.</summary>
/// <param name="Node">Its number.</param>
/// <param name="ContributedBytes">What it gives to the pool.</param>
/// <param name="HomeBytes">Of that, reserved as homes and mirrors.</param>
/// <param name="CacheBytes">Of that, set aside for copies.</param>
/// <param name="RunCacheBytes">What its runs, and checkpoints in its memory, say is set aside for them.</param>
/// <param name="UsedBytes">What its frame files hold.</param>
/// <param name="Regions">Its regions.</param>
internal sealed record NodeAudit(ushort Node, ulong ContributedBytes, ulong HomeBytes, ulong CacheBytes, ulong RunCacheBytes, ulong UsedBytes, RegionAudit[] Regions)
{
    /// <summary>Looks.</summary>
    public static NodeAudit Of(NodeId self, Pager pager, Capacity capacity, Runs runs, HomeMover mover, Reservations reservations, RecoveryServer recovery) =>
        new(self.Value, capacity.ContributedBytes, capacity.HomeBytes, capacity.CacheBytes, runs.All.Aggregate(capacity.CheckpointBytes, (sum, run) => sum + run.CacheBytes),
            pager.Regions.Aggregate(0ul, (sum, region) => sum + Interop.FileUse.AllocatedBytes(region.Frames.Descriptor)),
            [.. pager.Regions.Select(region => RegionAudit.Of(region, mover, reservations, recovery))]);
}

/// <summary>What a node says of a region.</summary>
/// <param name="Id">The region's number.</param>
/// <param name="Name">Its name.</param>
/// <param name="Creator">Who made it.</param>
/// <param name="ExtentCount">Its length.</param>
/// <param name="HasDirectory">Whether directories keep it coherent: only then is there something to compare.</param>
/// <param name="IsUnsettled">Whether its directories are being rebuilt, or memory for it is being asked for.</param>
/// <param name="Generation">Of its directories.</param>
/// <param name="Map">Where its homes and mirrors are by this node's home map; null where none is kept.</param>
/// <param name="Homes">Extents whose home is here, with their mirrors.</param>
/// <param name="Mirrors">Extents that are mirrored here, with their homes.</param>
/// <param name="Moving">Extents that something is being done with.</param>
internal sealed record RegionAudit(ulong Id, string Name, ushort Creator, int ExtentCount, bool HasDirectory, bool IsUnsettled, uint Generation, ExtentRun[]? Map, ExtentRun[] Homes,
    ExtentRun[] Mirrors, ExtentRun[] Moving)
{
    /// <summary>Looks.</summary>
    public static RegionAudit Of(PagedRegion region, HomeMover mover, Reservations reservations, RecoveryServer recovery)
    {
        // Of a region of ranks the leader keeps a map of its own: users are not told where mirrors are.
        HomeMap? led = recovery.FindLed(region.Id)?.Homes, known = region.Layout.Homes ?? led;
        List<ExtentRun>? map = known is null ? null : [];
        List<ExtentRun> homes = [], mirrors = [], moving = [];
        for (uint e = 0; e < region.Layout.ExtentCount; e++)
        {
            ExtentNumber extent = new(e);
            if (map is not null && known!.HomeOf(extent) is { IsNone: false } home) ExtentRun.Add(map, e, home, (led ?? known).MirrorOf(extent));
            if (region.Layout.IsHome(extent)) ExtentRun.Add(homes, e, NodeId.None, Pager.MirrorOf(region, extent));
            if (region.Mirrored is { } set && set.Contains(extent)) ExtentRun.Add(mirrors, e, set.HomeOf(extent), NodeId.None);
            if (mover.IsMoving(region.Id, extent)) ExtentRun.Add(moving, e, NodeId.None, NodeId.None);
        }
        bool isAsking = region.Mappings.Exists(m => reservations.AskedFor(m.Guest).Any());
        return new RegionAudit(region.Id.Value, region.Layout.Name, region.Id.Creator.Value, region.Layout.ExtentCount, Pager.DirectoryOf(region) is not null,
            Pager.IsFrozen(region) || isAsking, Pager.GenerationOf(region).Value, map?.ToArray(), [.. homes], [.. mirrors], [.. moving]);
    }
}

/// <summary>Neighbouring extents that are alike.</summary>
/// <param name="First">The first.</param>
/// <param name="Count">How many.</param>
/// <param name="Home">Their home, where that is said.</param>
/// <param name="Mirror">Their mirror, where that is said.</param>
internal sealed record ExtentRun(uint First, uint Count, ushort Home, ushort Mirror)
{
    /// <summary>Adds an extent, to the last run if it is like that.</summary>
    public static void Add(List<ExtentRun> runs, uint extent, NodeId home, NodeId mirror)
    {
        if (runs.Count > 0 && runs[^1] is var last && last.First + last.Count == extent && last.Home == home.Value && last.Mirror == mirror.Value)
        {
            runs[^1] = last with { Count = last.Count + 1 };
        }
        else
        {
            runs.Add(new ExtentRun(extent, 1, home.Value, mirror.Value));
        }
    }

    /// <summary>One by one.</summary>
    public static IEnumerable<(uint Extent, ushort Home, ushort Mirror)> Each(IEnumerable<ExtentRun> runs) =>
        runs.SelectMany(run => Enumerable.Range(0, (int)run.Count).Select(i => (run.First + (uint)i, run.Home, run.Mirror)));
}
