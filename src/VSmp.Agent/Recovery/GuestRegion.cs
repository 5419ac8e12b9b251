// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent.Control;
using VSmp.Agent.Guests;
using VSmp.Agent.Paging;
using VSmp.Coherence;

namespace VSmp.Agent.Recovery;

/// <summary>A guest's own region, at the guest's node: that made it, and is its only user.</summary>
/// <param name="self">This node.</param>
/// <param name="region">The region.</param>
/// <param name="peers">The other nodes.</param>
/// <param name="reservations">Knows who was asked for memory of it.</param>
internal sealed class GuestRegion(NodeId self, PagedRegion region, Peers peers, Reservations reservations)
    : LedRegion(region.Id, region.Layout.Name, region.Layout.Homes!)
{
    private readonly Guest? _guest = region.Mappings.Select(m => m.Guest).FirstOrDefault();

    /// <inheritdoc/>
    public override Generation Generation
    {
        get => Pager.GenerationOf(region);
        set { } // with its directories here
    }

    /// <inheritdoc/>
    public override bool IsOver => false;

    /// <inheritdoc/>
    public override bool IsMirrored => region.Run!.Request.Redundancy == Redundancy.Mirror;

    /// <inheritdoc/>
    public override bool IsMovable => true;

    /// <inheritdoc/>
    public override bool HasLostNode
    {
        get => region.Run!.HasLostNode;
        set => region.Run!.HasLostNode = value;
    }

    /// <inheritdoc/>
    public override IReadOnlyList<NodeId> Users { get; } = [self];

    /// <inheritdoc/>
    public override (int ProcessId, string Program) Guest => (_guest?.ProcessId ?? 0, region.Run!.Request.Program);

    /// <inheritdoc/>
    public override bool IsBound(NodeId home) => home == self;

    /// <inheritdoc/>
    public override void AddParticipants(HashSet<NodeId> participants)
    {
        participants.Add(self);
        if (_guest is not null) participants.UnionWith(reservations.AskedFor(_guest));
    }

    /// <inheritdoc/>
    /// <remarks>All: some may have become home of extents that are not placed yet.</remarks>
    public override IEnumerable<NodeId> HomesAmong(IReadOnlyCollection<NodeId> participants) => participants;

    /// <inheritdoc/>
    public override NodeId Choose(NodeId home, HashSet<NodeId> lost, bool isHome) => peers.Roomiest(lost, ask: false, otherThan: home);

    /// <inheritdoc/>
    public override void OnHomeMoved(NodeId from, NodeId to)
    {
        region.Run!.Counters.AddHome(from, -1);
        region.Run.Counters.AddHome(to, 1);
    }

    /// <inheritdoc/>
    public override void Fail(string why) => _guest?.Kill($"{why}, and with it memory of the process; no other node has room for what is left of that");

    /// <inheritdoc/>
    public override void TellOfLoss(string nodes, int pageCount)
    {
        region.LostWith = nodes;
        _guest?.Tell($"with node {nodes} {Math.Max(1, pageCount >> 8)} MiB of process {_guest.ProcessId}'s memory are lost; it goes on, "
            + "and gets SIGBUS if it touches them (vsmp report lost)");
    }
}
