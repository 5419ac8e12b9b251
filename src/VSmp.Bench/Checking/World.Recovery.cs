// SPDX-License-Identifier: Apache-2.0
using System.Numerics;
using VSmp.Coherence;
using VSmp.Coherence.Homes;
using VSmp.Coherence.Messages;
using VSmp.Coherence.Nodes;
using VSmp.Coherence.Protocols;
using VSmp.Coherence.Recovery;

namespace VSmp.Bench.Checking;

// Nodes that are lost, and what the others do about it, as the agent does it.
internal sealed partial class World
{
    private readonly List<Claim> _claims = [];
    private readonly List<PageNumber> _lostPages = [];

    /// <summary>Who is lost, a bit each.</summary>
    public int Lost { get; set; }

    /// <summary>Of these, of whom the leader knows.</summary>
    public int KnownLost { get; set; }

    /// <summary>Of these, whose loss is being dealt with.</summary>
    public int BeingRecovered { get; set; }

    /// <summary>Leads; at the last node.</summary>
    public RecoveryLeader Leader { get; } = new();

    /// <summary>Whether the home, when it froze, had reason to think that a page is lost if nobody who is left has it in use.</summary>
    public bool[] MayBeLost { get; }

    /// <summary>
    /// One more than the node that wrote a page under a grant that the home does not know to be installed; else 0. If that node is lost, the
    /// write may be undone: nobody has seen it.
    /// </summary>
    public byte[] UnackedWriter { get; }

    /// <summary>Whether what was written before that was zeros.</summary>
    public bool[] PriorIsZero { get; }

    /// <summary>The node that is home; −1 while there is none.</summary>
    public int HomeNode
    {
        get
        {
            int home = -1;
            for (int node = 0; node < Scenario.Nodes; node++)
            {
                // While the home moves, who is not frozen yet still serves.
                if (Regions[node].IsHome(Extent) && (home < 0 || !Regions[node].IsFrozen)) home = node;
            }
            return home;
        }
    }

    /// <summary>Whether a node was lost, and not everything is done about it yet.</summary>
    public bool IsRecovering => Lost != KnownLost || Restarted != 0 || Leader.Phase != RecoveryPhase.None;

    /// <summary>Whether nobody will be lost any more, and directories stay as they are.</summary>
    public bool IsSettled => !IsRecovering && BitOperations.PopCount((uint)Lost) == Scenario.Crashes && Restarts == Scenario.Restarts
        && HomeMovesDone == Scenario.HomeMoves;

    /// <summary>Whether a node's guests use the pages, and it is not lost.</summary>
    public bool IsUsing(int node) => Scenario.IsUser(node) && !IsLost(node);

    public bool IsLost(int node) => (Lost >> node & 1) != 0;

    /// <summary>Whether a message is one of recovery itself.</summary>
    public static bool IsControl(MessageType type) => type is >= MessageType.RegionFreeze and <= MessageType.RegionThaw;

    /// <summary>A set of nodes as bits, as nodes.</summary>
    public static IEnumerable<NodeId> NodesOf(int mask)
    {
        for (ushort node = 0; mask >> node != 0; node++)
        {
            if ((mask >> node & 1) != 0) yield return new NodeId(node);
        }
    }

    /// <summary>Nodes as bits.</summary>
    public static int MaskOf(IEnumerable<NodeId> nodes)
    {
        int mask = 0;
        foreach (NodeId node in nodes) mask |= 1 << node.Value;
        return mask;
    }

    /// <summary>What all are told when the loss of some is dealt with.</summary>
    public RecoveryPlan PlanFor(int lost) => new([.. NodesOf(lost)], [.. NodesOf(Alive).Where(n => Scenario.IsUser(n.Value) && IsAsked(n.Value))],
        NodesOf(lost).Any(n => Scenario.IsUser(n.Value)));

    private bool IsAsked(int user) => (_bugs & WorldBugs.OnlyLeaderClaims) == 0 || user == Scenario.Creator;

    private int Alive => ((1 << Scenario.Nodes) - 1) & ~Lost;

    private void ListLosses(List<Move> moves)
    {
        if (Lost != KnownLost || Restarted != 0) moves.Add(new Move(MoveKind.Learn, (byte)Scenario.Creator, 0, 0));
        if (BitOperations.PopCount((uint)Lost) >= Scenario.Crashes) return;
        for (byte node = 0; node < Scenario.Creator; node++)
        {
            if (!IsLost(node) && !(Scenario.UsersStay && Scenario.IsUser(node))) moves.Add(new Move(MoveKind.Crash, node, 0, 0));
        }
        if (Scenario.HasBystander && !IsLost(Scenario.Nodes)) moves.Add(new Move(MoveKind.Crash, (byte)Scenario.Nodes, 0, 0));
    }

    /// <summary>A control message goes on all wires, so that it overtakes nothing: to a peer, all networks are one session.</summary>
    private bool IsFirst(int from, int to)
    {
        for (int network = 1; network < Networks; network++)
        {
            List<Flight> wire = Wires[WireOf(from, to, network)];
            if (wire.Count == 0 || !IsControl(wire[0].Message.Type)) return false;
        }
        return true;
    }

    private void SendControl(int from, int to, Message message)
    {
        message.Source = message.Requestor = new NodeId((ushort)from);
        message.Region = RegionId;
        var flight = new Flight(message, Contents.None, Contents.None);
        Story?.Add($"node {from}: tells node {to}: {message.Type}");
        if (to == from)
        {
            _toSelf.Enqueue((message.Source, flight));
            return;
        }
        if (IsLost(to)) return;
        for (int network = 0; network < Networks; network++) _outbox.Add((WireOf(from, to, network), flight));
    }

    /// <summary>What it has sent may still arrive, until the receiver freezes.</summary>
    private void Crash(int node)
    {
        Lost |= 1 << node;
        if (node == Scenario.Nodes) return; // the bystander
        Forget(node);
        Members[node] = null;
        Regions[node].ResignHome(Extent);
        Regions[node].Mirrored.Remove(Extent);
        for (int peer = 0; peer < Scenario.Nodes; peer++)
        {
            for (int network = 0; network < Networks; network++) Wires[WireOf(peer, node, network)].Clear();
        }
    }

    /// <summary>Nothing is at a node any more; it is still home, or mirror, if it was.</summary>
    public void Forget(int node)
    {
        for (int page = 0; page < Scenario.Pages; page++)
        {
            FrameOf(node, page) = KeptOf(node, page) = Contents.None;
            for (int m = 0; m < Scenario.Mappings; m++) MappedOf(node, page, m) = Right.None;
        }
        ForgetState(node);
    }

    /// <summary>A node's agent knows nothing any more.</summary>
    private void ForgetState(int node)
    {
        Region region = Regions[node];
        for (int page = 0; page < Scenario.Pages; page++)
        {
            if (!Scenario.IsUser(node)) continue;
            ref PageEntry entry = ref region.PageAt(PageAt(page));
            if (entry.Slot != 0) Nodes[node].Transactions.Return(entry.Slot);
            entry = default;
        }
        Budgets[node].Release(Budgets[node].UsedPages);
        Waiting[node].Clear();
        Nodes[node].Parked.Clear();
        if (Homes[node].WaitingCount > 0) Homes[node].Drop(RegionId);
        Recoveries[node].Drop(RegionId);
        region.Rebuild = null;
        region.IsFrozen = region.IsDeaf = region.IsHeld = false;
        region.Capture?.Reset();
        region.FrozenPages.Clear();
    }

    private void Learn()
    {
        BeingRecovered |= Lost & ~KnownLost;
        KnownLost = Lost;
        Restarted = 0;
        if (Led is not null) GiveUp();
        Generation generation = Leader.Generation.Next();
        Leader.Begin(generation, NodesOf(Alive), [new NodeId((ushort)NextHome())]);
        if (MirrorNode is { } mirror && IsLost(mirror)) MirrorNode = null;
        if (MovingTo is { } moving && (IsLost(moving) || MirrorNode is null)) MovingTo = null;
        BeginFreeze(generation, Alive);
    }

    private void BeginFreeze(Generation generation, int mask)
    {
        int move = MovingTo is { } to ? to | MirrorNode!.Value << 2 : 0; // two numbers; the same if there is no move
        Message freeze = new() { Type = MessageType.RegionFreeze, Generation = generation, AckCount = (ushort)BeingRecovered, Flags = (MessageFlags)move };
        // The leader first: should its agent be killed, the next one knows which generation others may have heard of.
        OnControl(Scenario.Creator, in freeze);
        if (!_isKilled) RecordAll(Scenario.Creator);
        foreach (NodeId node in NodesOf(mask))
        {
            if (!_isKilled && node.Value != Scenario.Creator) SendControl(Scenario.Creator, node.Value, freeze);
        }
    }

    /// <summary>Where the home is once some are lost: where it was, or at the mirror, or at any node that is left.</summary>
    private int NextHome()
    {
        if (MovingTo is { } moving && !IsLost(moving)) return moving;
        int home = -1;
        for (int node = 0; node < Scenario.Nodes; node++)
        {
            if (IsLost(node)) continue;
            if (Regions[node].IsHome(Extent)) return node;
            if (home < 0 || Regions[node].Mirrored.Contains(Extent)) home = node;
        }
        return home;
    }

    private void OnControl(int node, in Message m)
    {
        Region region = Regions[node];
        switch (m.Type)
        {
            case MessageType.RegionFreeze:
                if (m.Generation.Value <= region.Generation.Value) break;
                Freeze(node, m.Generation, m.AckCount, moveTo: (int)m.Flags & 3, moveFrom: (int)m.Flags >> 2);
                Execute(node, default);
                if (_isKilled) break;
                SendControl(node, Scenario.Creator, new Message { Type = MessageType.RegionFrozen, Generation = m.Generation });
                if ((_bugs & WorldBugs.ClaimsTooEarly) != 0 && Scenario.IsUser(node)) SendClaims(node);
                break;
            case MessageType.RegionFrozen:
                if (!Leader.OnFrozen(m.Source, m.Generation) || (_bugs & WorldBugs.ClaimsTooEarly) != 0) break;
                foreach (NodeId user in PlanFor(0).Users)
                {
                    SendControl(node, user.Value, new Message { Type = MessageType.RegionRebuild, Generation = m.Generation });
                }
                break;
            case MessageType.RegionRebuild:
                if (m.Generation == region.Generation) SendClaims(node);
                break;
            case MessageType.RegionClaims:
                if (m.Generation.Value >= region.Generation.Value && !region.IsDeaf) OnClaims(node, in m);
                break;
            case MessageType.RegionRebuilt:
                if (!Leader.OnRebuilt(m.Source, m.Generation)) break;
                BeingRecovered = 0;
                MovingTo = null;
                foreach (NodeId other in NodesOf(Alive))
                {
                    SendControl(node, other.Value, new Message { Type = MessageType.RegionThaw, Generation = m.Generation });
                }
                break;
            case MessageType.RegionThaw:
                if (m.Generation == region.Generation) Thaw(node);
                break;
        }
    }

    private void Freeze(int node, Generation generation, int lost, int moveTo, int moveFrom)
    {
        Region region = Regions[node];
        foreach (NodeId from in NodesOf(lost & ((1 << Scenario.Nodes) - 1)))
        {
            for (int network = 0; network < Networks; network++) Wires[WireOf(from.Value, node, network)].Clear();
        }
        int home = moveTo != moveFrom ? moveTo : NextHome();
        RecoveryPlan plan = PlanFor(lost);
        if (moveTo != moveFrom) plan = plan with { Moves = [new HomeMove(Extent, 1, new NodeId((ushort)moveTo), new NodeId((ushort)moveFrom))] };
        if (!IsMirrorComplete) CopiedPages = 0; // it is begun anew
        if (region.IsHome(Extent)) Foresee(node, plan);
        bool isNewHome = node == home && !region.IsHome(Extent);
        if (isNewHome)
        {
            // A home that is new, or was the mirror, cannot know what its own users, if any, had.
            bool isMirrored = region.Mirrored.Contains(Extent);
            for (int page = 0; page < Scenario.Pages; page++) MayBeLost[page] = !isMirrored || !IsMirrorComplete || plan.IsAnyUserLost;
            if (!isMirrored) region.Mirrored.Add(Extent, plan.Lost[0], isFresh: false);
        }
        if ((_bugs & WorldBugs.MirrorPromotesItself) != 0 && region.Mirrored.Contains(Extent)) plan = plan with { Lost = [.. plan.Lost, new NodeId(0)] };
        region.Homes?.Place(Extent, new NodeId((ushort)home));
        bool[] areGrantedToSelf = (_bugs & WorldBugs.GrantToSelfBelieved) == 0 ? [] : [.. Enumerable.Range(0, Scenario.Pages).Select(page => IsGrantedToSelf(node, page))];
        Recoveries[node].Freeze(region, generation, plan, _effects);
        if (!region.IsHome(Extent)) return;
        for (int page = 0; page < areGrantedToSelf.Length; page++)
        {
            if (areGrantedToSelf[page]) region.EntryAt(PageAt(page)).Flags = DirectoryFlags.Dropped;
        }
        for (int page = 0; page < Scenario.Pages; page++)
        {
            ref DirectoryEntry entry = ref region.EntryAt(PageAt(page));
            if ((_bugs & WorldBugs.MirrorGapForgotten) != 0) entry.Flags &= ~DirectoryFlags.MirrorLacks;
            if ((_bugs & WorldBugs.LeftoversBelieved) != 0 && isNewHome) entry.Version = default;
        }
    }

    private bool IsGrantedToSelf(int node, int page) => Regions[node].IsHome(Extent)
        && Regions[node].EntryAt(PageAt(page)) is { State: DirectoryState.M_A } entry && entry.Owner.Value == node && (entry.Flags & DirectoryFlags.Forwarded) == 0;

    /// <summary>What the home of a page may lawfully make of what it knows: lose it, or go back to what it granted.</summary>
    private void Foresee(int node, RecoveryPlan plan)
    {
        for (int page = 0; page < Scenario.Pages; page++)
        {
            ref DirectoryEntry entry = ref Regions[node].EntryAt(PageAt(page));
            bool isOwnerLost = !entry.Owner.IsNone && plan.IsLost(entry.Owner);
            bool isUndecided = MayBeLost[page] && Regions[node].Rebuild is not null; // the recovery before did not come to its end
            MayBeLost[page] = isUndecided || (entry.State == DirectoryState.M_A
                ? ((entry.Flags & DirectoryFlags.Forwarded) != 0 && plan.IsAnyUserLost) || (isOwnerLost && (entry.Flags & DirectoryFlags.Dropped) != 0)
                : isOwnerLost && entry.State is DirectoryState.M or DirectoryState.E or DirectoryState.O or DirectoryState.S_D);
            if (entry.State != DirectoryState.M_A || !isOwnerLost || UnackedWriter[page] != entry.Owner.Value + 1) continue;
            Replace(page, Contents.Latest, Contents.Old);
            Replace(page, Contents.Prior, Contents.Latest);
            if (IsPriorCut[page]) IsPriorCut[page] = IsWrittenSinceCut[page] = false;
            LatestIsZero[page] = PriorIsZero[page];
            UnackedWriter[page] = 0;
            PriorIsZero[page] = false;
        }
    }

    private void SendClaims(int node)
    {
        Region region = Regions[node];
        _claims.Clear();
        NodeController.ListClaims(region, Extent, _claims);
        NodeId home = region.Homes!.HomeOf(Extent);
        Message m = new() { Type = MessageType.RegionClaims, Generation = region.Generation };
        foreach (Claim claim in _claims)
        {
            for (uint i = 0; i < claim.Count; i++)
            {
                m.Page = claim.Page.Plus(i);
                m.Count = 1;
                m.AckCount = (ushort)claim.Kind;
                m.Version = claim.Version;
                SendControl(node, home.Value, m);
            }
        }
        SendControl(node, home.Value, new Message { Type = MessageType.RegionClaims, Generation = region.Generation });
    }

    /// <summary>A message for each page; one without a page is the last.</summary>
    private void OnClaims(int node, in Message m)
    {
        var claim = new Claim(m.Page, m.Count, (ClaimKind)m.AckCount, m.Version);
        if ((_bugs & WorldBugs.KeptBelieved) != 0 && claim.Kind == ClaimKind.Kept) claim = claim with { Version = new PageVersion(uint.MaxValue - 1) };
        if ((_bugs & WorldBugs.HomeBelieved) != 0 && claim.Kind == ClaimKind.Shared) claim = claim with { Version = default };
        _lostPages.Clear();
        Recoveries[node].OnClaims(Regions[node], m.Source, m.Count == 0 ? [] : [claim], isLast: m.Count == 0, _effects, _lostPages);
        for (int i = 0; i < _effects.Count && (_bugs & WorldBugs.PromoteNotAwaited) != 0; i++)
        {
            if (_effects[i].Message.Type == MessageType.Promote) Regions[node].Rebuild!.AnswersOut--;
        }
        foreach (PageNumber page in _lostPages)
        {
            if (page.Value < (ulong)Scenario.Pages) CheckLost((int)page.Value);
        }
    }

    private bool ReportRebuilt(int node)
    {
        if (!RecoveryController.TryComplete(Regions[node])) return false;
        SendControl(node, Scenario.Creator, new Message { Type = MessageType.RegionRebuilt, Generation = Regions[node].Generation });
        return true;
    }

    private void Thaw(int node)
    {
        Recoveries[node].Thaw(Regions[node], _effects);
        if ((_bugs & WorldBugs.NotRetriedAtThaw) == 0) RetryAll(node);
    }

    private void RetryAll(int node)
    {
        foreach (Access access in Waiting[node])
        {
            Regions[node].PageAt(PageAt(access.Page)).Flags &= ~PageFlags.Awaited;
            _retry.Add(((byte)node, access));
        }
        Waiting[node].Clear();
    }

    private void Poison(int node, int page)
    {
        if (HomeNode is >= 0 and int home && Regions[home].EntryAt(PageAt(page)).State != DirectoryState.Lost)
            throw new InvariantException($"node {node} is told that page {page} is lost, and it is not");
        Regions[node].PageAt(PageAt(page)).Flags &= ~PageFlags.Awaited;
        Waiting[node].RemoveAll(a => a.Page == page);
    }

    /// <summary>Whether a write is the first under a grant that the home does not know to be installed.</summary>
    private bool BeginsUnacked(int node, int page)
    {
        if (Scenario.Crashes == 0 || UnackedWriter[page] != 0 || HomeNode is not (>= 0 and int home)) return false;
        ref DirectoryEntry entry = ref Regions[home].EntryAt(PageAt(page));
        if (entry.State != DirectoryState.M_A || entry.Owner.Value != node) return false;
        UnackedWriter[page] = (byte)(node + 1);
        return true;
    }

    /// <summary>A grant that the home knows to be installed cannot be undone any more.</summary>
    private void SettleUnacked()
    {
        for (int page = 0; page < Scenario.Pages; page++)
        {
            if (UnackedWriter[page] == 0) continue;
            if (HomeNode is >= 0 and int home && !IsSettled)
            {
                ref DirectoryEntry entry = ref Regions[home].EntryAt(PageAt(page));
                if (entry.State == DirectoryState.M_A && entry.Owner.Value + 1 == UnackedWriter[page]) continue;
            }
            Replace(page, Contents.Prior, IsPriorCut[page] ? Contents.Cut : Contents.Old);
            UnackedWriter[page] = 0;
            PriorIsZero[page] = IsPriorCut[page] = false;
        }
    }

    private void CheckHomes()
    {
        int home = HomeNode;
        for (int node = 0; node < Scenario.Nodes; node++)
        {
            if (node == home) continue;
            if (home >= 0 && Regions[node].IsHome(Extent) && Regions[node].Generation == Regions[home].Generation) throw new InvariantException($"nodes {home} and {node} are both home");
        }
        if (home < 0 || Regions[home].Rebuild is not null || Regions[home].IsFrozen) return;
        for (int page = 0; page < Scenario.Pages; page++)
        {
            DirectoryState state = Regions[home].EntryAt(PageAt(page)).State;
            // The home's would be the only copy. (What the home does not know yet is thrown away, it need not have passed on.)
            if (state == DirectoryState.I && !IsBeingThrownAway(page)) CheckMirror(home, page, state);
        }
    }

    private bool IsBeingThrownAway(int page)
    {
        for (int node = 0; node < Scenario.Nodes; node++)
        {
            if (!IsUsing(node)) continue;
            ref PageEntry entry = ref Regions[node].PageAt(PageAt(page));
            if (entry.State == NodeState.ZI_A || (entry.Flags & PageFlags.ThrownAway) != 0) return true;
        }
        return false;
    }

    /// <summary>The mirror has what the home has.</summary>
    private void CheckMirror(int home, int page, DirectoryState state)
    {
        NodeId mirror = Regions[home].MirrorOf(Extent);
        if (mirror.IsNone || IsLost(mirror.Value) || !IsMirrorComplete) return;
        // It is home already, and this home has yet to hear of it.
        if (!Regions[mirror.Value].Mirrored.Contains(Extent) && Regions[mirror.Value].Generation != Regions[home].Generation) return;
        ref MirrorEntry entry = ref Regions[mirror.Value].Mirrored.At(PageAt(page));
        Contents contents = entry.Contents switch
        {
            MirrorContents.Zero => Contents.Zero,
            MirrorContents.Data => FrameOf(mirror.Value, page),
            _ => Contents.None,
        };
        if (!IsRight(contents, page)) throw new InvariantException($"the mirror's copy of page {page} is {contents}, and the directory says {state}");
    }

    /// <summary>A page is lost only if it must be.</summary>
    private void CheckLost(int page)
    {
        if (!MayBeLost[page]) throw new InvariantException($"page {page} is taken for lost, though no owner of it is");
        for (int node = 0; node < Scenario.Nodes; node++)
        {
            if (!IsUsing(node)) continue;
            NodeState state = Regions[node].PageAt(PageAt(page)).State;
            if (NodeStates.MayRead(state)) throw new InvariantException($"page {page} is taken for lost, and node {node} has it in {state}");
        }
    }

    /// <summary>Nothing is under way: then nothing is frozen, and all agree.</summary>
    private void CheckRecovered()
    {
        if (Leader.Phase != RecoveryPhase.None) throw new InvariantException($"the recovery does not come to an end: it is {Leader.Phase}");
        int home = HomeNode;
        if (home < 0) throw new InvariantException("there is no home any more");
        foreach (NodeId id in NodesOf(Alive))
        {
            int node = id.Value;
            Region region = Regions[node];
            if (region.IsFrozen) throw new InvariantException($"node {node} stays frozen");
            if (region.Rebuild is not null) throw new InvariantException($"node {node} does not finish its directory");
            if (region.Generation != Leader.Generation) throw new InvariantException($"node {node} is of generation {region.Generation.Value}");
            if (region.Homes is { } homes && homes.HomeOf(Extent).Value != home) throw new InvariantException($"node {node} takes {homes.HomeOf(Extent)} for the home");
            if (region.FrozenPages.Count > 0) throw new InvariantException($"node {node} remembers frozen pages");
        }
    }
}
