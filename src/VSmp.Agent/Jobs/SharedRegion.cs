// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent.Recovery;
using VSmp.Coherence;
using VSmp.Coherence.Recovery;

namespace VSmp.Agent.Jobs;

/// <summary>A region of a job, as the job's leader sees it when a node is lost. The leader may be none of its nodes.</summary>
/// <param name="node">The node that leads the job.</param>
/// <param name="led">The job.</param>
/// <param name="region">The region.</param>
/// <param name="plan">Where its homes and mirrors were when it was made.</param>
/// <param name="nodes">The nodes that have made it.</param>
internal sealed class SharedRegion(ILeadingNode node, LedJob led, JobRegion region, RegionPlan plan, NodeId[] nodes)
    : LedRegion(region.Id, region.Name, plan.NewHomeMap(region.ExtentCount))
{
    private Generation _generation;

    /// <summary>Where its homes are now.</summary>
    public HashSet<NodeId> CurrentHomes()
    {
        var homes = new HashSet<NodeId>();
        for (uint e = 0; e < ExtentCount; e++) homes.Add(Homes.HomeOf(new ExtentNumber(e)));
        return homes;
    }

    /// <inheritdoc/>
    /// <remarks>The agent that comes after this one must know of every one that others may have heard of, and of where homes are in it.</remarks>
    public override Generation Generation
    {
        get => _generation;
        set
        {
            _generation = value;
            led.Record(SavePlaces());
        }
    }

    /// <inheritdoc/>
    public override bool IsOver => led.BrokenBecause is not null;

    /// <inheritdoc/>
    public override bool IsMirrored => led.IsMirrored;

    /// <inheritdoc/>
    public override bool IsMovable => false;

    /// <inheritdoc/>
    public override bool HasLostNode { get; set; }

    /// <inheritdoc/>
    public override IReadOnlyList<NodeId> Users { get; } = [.. led.Placement.Distinct()];

    /// <inheritdoc/>
    public override (int ProcessId, string Program) Guest => (0, led.Program);

    /// <inheritdoc/>
    public override bool IsBound(NodeId home) => led.IsBound(home);

    /// <inheritdoc/>
    public override void AddParticipants(HashSet<NodeId> participants) => participants.UnionWith(nodes);

    /// <inheritdoc/>
    public override IEnumerable<NodeId> HomesAmong(IReadOnlyCollection<NodeId> participants) => CurrentHomes();

    /// <inheritdoc/>
    public override NodeId Choose(NodeId home, HashSet<NodeId> lost, bool isHome) =>
        node.Roomiest(nodes.Where(n => n != home && !lost.Contains(n) && (isHome || !led.HasRanks(n))));

    /// <inheritdoc/>
    public override void OnHomeMoved(NodeId from, NodeId to)
    {
        // Each node that has ranks counts for itself.
    }

    /// <inheritdoc/>
    public override void OnMirrorPlaced(ExtentNumber extent) =>
        led.Record(new RegionPlaces(Id.Value, false, _generation.Value, [extent.Value, 1, Homes.HomeOf(extent).Value, Homes.MirrorOf(extent).Value]));

    /// <inheritdoc/>
    /// <remarks>Every node was told where they were when it was made.</remarks>
    public override List<HomeMove> Places() => Places(extent => Homes.HomeOf(extent) != plan.HomeOf(extent.Value) || Homes.MirrorOf(extent) != plan.MirrorOf(extent.Value));

    /// <summary>What is to be recorded of it.</summary>
    public SharedRegionState Save() => new(Id.Value, plan.Write(), [.. nodes.Select(n => n.Value)], SavePlaces());

    /// <summary>Takes what was recorded.</summary>
    /// <exception cref="InvalidDataException">It makes no sense.</exception>
    public void Load(RegionPlaces places)
    {
        _generation = new Generation(places.Generation);
        uint[] pieces = places.Extents;
        if (pieces.Length % 4 != 0) throw new InvalidDataException($"places of region {Name} are none");
        for (uint e = 0; e < ExtentCount && places.AreAll; e++)
        {
            Homes.Place(new ExtentNumber(e), NodeId.None); // as the plan has it
            Homes.PlaceMirror(new ExtentNumber(e), plan.MirrorOf(e));
        }
        for (int i = 0; i < pieces.Length; i += 4)
        {
            (uint first, uint count, uint home, uint mirror) = (pieces[i], pieces[i + 1], pieces[i + 2], pieces[i + 3]);
            if ((ulong)first + count > (ulong)ExtentCount || home >= ushort.MaxValue || mirror > ushort.MaxValue)
                throw new InvalidDataException($"places of region {Name} make no sense");
            for (uint e = first; e < first + count; e++)
            {
                Homes.Place(new ExtentNumber(e), new NodeId((ushort)home));
                Homes.PlaceMirror(new ExtentNumber(e), new NodeId((ushort)mirror));
            }
        }
    }

    private RegionPlaces SavePlaces() =>
        new(Id.Value, true, _generation.Value, [.. Places().SelectMany(p => new[] { p.First.Value, p.Count, (uint)p.Home.Value, p.Mirror.Value })]);

    /// <inheritdoc/>
    public override void Fail(string why) => node.Fail(led, why);

    /// <inheritdoc/>
    public override void TellOfLoss(string nodes, int pageCount)
    {
        if (led.IsRestartable) node.GoBack(led, $"with node {nodes} {pageCount} pages of region {Name} are lost");
        else led.Tell($"with node {nodes} {Math.Max(1, pageCount >> 8)} MiB of region {Name} are lost; the job goes on, and ranks that touch them get SIGBUS (vsmp report lost)");
    }
}
