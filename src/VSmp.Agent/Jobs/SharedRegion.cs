// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent.Recovery;
using VSmp.Coherence;
using VSmp.Coherence.Placement;

namespace VSmp.Agent.Jobs;

/// <summary>A region of a job, as the job's leader sees it when a node is lost. The leader may be none of its nodes.</summary>
/// <param name="server">Knows the nodes.</param>
/// <param name="led">The job.</param>
/// <param name="region">The region.</param>
/// <param name="homes">Where its homes and mirrors are.</param>
/// <param name="nodes">The nodes that have made it.</param>
internal sealed class SharedRegion(JobServer server, LedJob led, JobRegion region, HomeMap homes, NodeId[] nodes) : LedRegion(region.Id, region.Name, homes)
{
    /// <inheritdoc/>
    public override Generation Generation { get; set; }

    /// <inheritdoc/>
    public override bool IsOver => led.IsBroken;

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
    public override IEnumerable<NodeId> HomesAmong(IReadOnlyCollection<NodeId> participants)
    {
        var all = new HashSet<NodeId>();
        for (uint e = 0; e < ExtentCount; e++) all.Add(Homes.HomeOf(new ExtentNumber(e)));
        return all;
    }

    /// <inheritdoc/>
    public override NodeId Choose(NodeId home, HashSet<NodeId> lost, bool isHome) =>
        server.Roomiest(nodes.Where(n => n != home && !lost.Contains(n) && (isHome || !led.HasRanks(n))));

    /// <inheritdoc/>
    public override void OnHomeMoved(NodeId from, NodeId to)
    {
        // Each node that has ranks counts for itself.
    }

    /// <inheritdoc/>
    public override void Fail(string why) => server.Fail(led, why);

    /// <inheritdoc/>
    public override void TellOfLoss(string nodes, int pageCount) =>
        led.Tell($"with node {nodes} {Math.Max(1, pageCount >> 8)} MiB of region {Name} are lost; the job goes on, and ranks that touch them get SIGBUS (vsmp report lost)");
}
