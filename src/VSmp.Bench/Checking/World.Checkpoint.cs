// SPDX-License-Identifier: Apache-2.0
using VSmp.Coherence;
using VSmp.Coherence.Checkpointing;
using VSmp.Coherence.Homes;
using VSmp.Coherence.Messages;
using VSmp.Coherence.Nodes;
using VSmp.Coherence.Protocols;

namespace VSmp.Bench.Checking;

// Checkpoints: the shipped machines of leader and nodes, and what the pager does for them.
//
// Orders and answers are no messages here. A node hears an order at any moment after it was given, and is held, quiet, has cut or goes on at any moment after that. That an answer takes
// its time as well shows nothing new: what the leader makes of the last one is known to each node only when that hears the next order. To prepare changes nothing, nor does the end of a
// checkpoint that is complete: that all nodes do at once. That there may be no room for a copy delays a write as a later fault does, and that neighbours of a page that is written are made
// writable with it is what faults of theirs would do.
internal sealed partial class World
{
    private readonly List<PageRun> _toProtect = [];

    /// <summary>The leader of the checkpoint under way; null if there is none.</summary>
    public CheckpointLeader? Led { get; set; }

    /// <summary>Each node's part in a checkpoint, until it hears that it is over.</summary>
    public CheckpointMember?[] Members { get; }

    /// <summary>Checkpoints so far.</summary>
    public int CheckpointsBegun { get; set; }

    /// <summary>Of these, given up without need.</summary>
    public int GiveUpsDone { get; set; }

    /// <summary>What was copied of each page for the generation under way; none if nothing was.</summary>
    public Contents[] Captured { get; }

    /// <summary>What each page is in the generations that are complete, the later over the earlier: zero if they say nothing of it.</summary>
    public Contents[] Composed { get; }

    /// <summary>Whether a page was zero at the cut of the generation under way.</summary>
    public bool[] CutIsZero { get; }

    /// <summary>Whether it was written, or thrown away, since.</summary>
    public bool[] IsWrittenSinceCut { get; }

    /// <summary>Whether <see cref="Contents.Prior"/> is what was there at the cut.</summary>
    public bool[] IsPriorCut { get; }

    /// <summary>Whether a checkpoint is not over at all nodes.</summary>
    public bool IsTaking => Led is not null || Array.Exists(Members, m => m is not null);

    /// <summary>Whether a checkpoint is under way, or will be.</summary>
    public bool MayBeTaken => Led is not null || CheckpointsBegun < Scenario.Checkpoints;

    private bool IsPastCut => Led?.Step == CheckpointStep.Copy;

    /// <summary>A node's part, as the agent makes it.</summary>
    public CheckpointMember NewMember(int node) => new(new NodeId((ushort)node), Nodes[node], [Regions[node]]);

    /// <summary>Holds a node's region if that follows from its part.</summary>
    public void HoldAsMember(int node) => Regions[node].IsHeld = Members[node] is { Step: CheckpointStep.Hold or CheckpointStep.Settle or CheckpointStep.Cut } member
        && (_bugs & WorldBugs.NotHeld) == 0 && ((_bugs & WorldBugs.GoOnAfterCut) == 0 || member.Step != CheckpointStep.Cut);

    private bool IsSaved(int node, int page) => Regions[node].Capture is { } capture && capture.IsSaved(PageAt(page));

    private void ListCheckpointMoves(List<Move> moves)
    {
        if (!IsTaking)
        {
            if (CheckpointsBegun < Scenario.Checkpoints) moves.Add(new Move(MoveKind.CheckpointBegin, 0, 0, 0));
            return;
        }
        for (byte node = 0; node < Scenario.Nodes; node++)
        {
            if (Members[node] is not { } member) continue;
            if (MayStep(member)) moves.Add(new Move(MoveKind.CheckpointStep, node, 0, 0));
            for (byte page = 0; page < Scenario.Pages && Led is not null && member.Step == CheckpointStep.Copy; page++)
            {
                if (Regions[node].Capture!.IsPending(PageAt(page))) moves.Add(new Move(MoveKind.CheckpointCopy, node, page, 0));
            }
        }
        if (Led is null) return;
        if (IsPastCut && Led.Awaited.Count == 0 && IsEverybodyThere) moves.Add(new Move(MoveKind.CheckpointCommit, 0, 0, 0));
        if (GiveUpsDone < Scenario.GiveUps) moves.Add(new Move(MoveKind.CheckpointGiveUp, 0, 0, 0));
    }

    /// <summary>Whether nobody is lost of whom the leader has yet to hear: what others do for a checkpoint then, they might as well have done before.</summary>
    private bool IsEverybodyThere => Lost == KnownLost;

    private bool MayStep(CheckpointMember member)
    {
        if (Led is not { } led || member.IsStale) return true;
        bool isQuiet = (_bugs & WorldBugs.CutAtOnce) != 0 || member.IsQuiet();
        if (!IsEverybodyThere) return false;
        if (member.Step == led.Step) return !member.IsDone && (member.Step == CheckpointStep.Hold ? isQuiet : Regions[member.Self.Value].Capture!.PendingCount == 0);
        return led.Step != CheckpointStep.Settle || isQuiet || (_bugs & WorldBugs.NotSettled) != 0;
    }

    private void DoCheckpoint(Move move)
    {
        switch (move.Kind)
        {
            case MoveKind.CheckpointBegin:
                BeginCheckpoint();
                break;
            case MoveKind.CheckpointStep:
                StepCheckpoint(move.Node, Members[move.Node]!);
                Drain(move.Node);
                break;
            case MoveKind.CheckpointCopy:
                Capture(move.Node, move.Page);
                break;
            case MoveKind.CheckpointCommit:
                Commit();
                break;
            case MoveKind.CheckpointGiveUp:
                GiveUpsDone++;
                GiveUp();
                break;
        }
    }

    private void BeginCheckpoint()
    {
        CheckpointsBegun++;
        Led = new CheckpointLeader(NodesOf(Alive));
        foreach (NodeId node in Led.Nodes)
        {
            CheckpointMember member = Members[node.Value] = NewMember(node.Value);
            member.OnDone();
            if (Led.OnDone(node, CheckpointStep.Prepare)) Led.Advance();
        }
    }

    private void StepCheckpoint(int node, CheckpointMember member)
    {
        if (Led is not null && member.IsStale) GiveUp();
        if (Led is not { } led)
        {
            Abandon(node, member);
            return;
        }
        if (member.Step != led.Step)
        {
            member.OnOrder(led.Step);
            HoldAsMember(node);
            if (led.Step == CheckpointStep.Hold) return; // it is done when it is quiet
            if (led.Step == CheckpointStep.Copy)
            {
                RetryAll(node);
                return;
            }
            if (led.Step == CheckpointStep.Cut && !TryCut(node))
            {
                GiveUp();
                return;
            }
            if ((_bugs & WorldBugs.GoOnAfterCut) != 0 && led.Step == CheckpointStep.Cut) RetryAll(node);
        }
        member.OnDone();
        if (!led.OnDone(member.Self, member.Step) || led.Step == CheckpointStep.Copy) return;
        if (led.Step == CheckpointStep.Cut) CheckCut();
        led.Advance();
    }

    /// <returns>False if a page is lost.</returns>
    private bool TryCut(int node)
    {
        Region region = Regions[node];
        RegionCapture capture = region.Capture!;
        _toProtect.Clear();
        if (!capture.TryCut(region, isFull: false, _toProtect)) return false;
        int mappings = (_bugs & WorldBugs.OneMappingNotCut) != 0 ? 1 : Scenario.Mappings;
        foreach (PageRun run in _toProtect)
        {
            for (int p = (int)run.First.Value; p < (int)run.Behind.Value; p++)
            {
                for (int m = 0; m < mappings; m++)
                {
                    if (MappedOf(node, p, m) == Right.Write) MappedOf(node, p, m) = Right.Read;
                }
            }
        }
        for (int p = 0; p < Scenario.Pages; p++)
        {
            PageNumber page = PageAt(p);
            bool isOwner = Scenario.IsUser(node) && region.PageAt(page).State is NodeState.M or NodeState.E or NodeState.O;
            if ((_bugs & WorldBugs.HomeAnswersToo) != 0 && region.IsHome(Extent) && !isOwner && !region.EntryAt(page).Owner.IsNone) capture.Restore(page, isPending: true, isSaved: true);
            if ((_bugs & WorldBugs.OwnerDoesNotAnswer) != 0 && isOwner && !region.IsHome(Extent)) capture.Restore(page, isPending: false, isSaved: false);
        }
        return true;
    }

    private void Abandon(int node, CheckpointMember member)
    {
        bool isHeld = member.Step is CheckpointStep.Hold or CheckpointStep.Settle or CheckpointStep.Cut;
        Span<bool> areSaved = stackalloc bool[Scenario.Pages];
        for (int page = 0; page < Scenario.Pages; page++) areSaved[page] = IsSaved(node, page);
        member.Abandon();
        for (int page = 0; page < Scenario.Pages && (_bugs & WorldBugs.SavedThoughGivenUp) != 0; page++) Regions[node].Capture!.Restore(PageAt(page), isPending: false, areSaved[page]);
        Members[node] = null;
        if (isHeld) RetryAll(node);
    }

    /// <summary>The nodes hear of it when they hear of it.</summary>
    private void GiveUp()
    {
        Led!.GiveUp();
        EndGeneration();
    }

    private void Commit()
    {
        for (int page = 0; page < Scenario.Pages; page++)
        {
            if (Captured[page] != Contents.None) Composed[page] = Captured[page];
            if (!IsAsCut(Composed[page], page)) throw new InvariantException($"page {page} is {Composed[page]} in the checkpoint, which is not what was written last when that was cut");
        }
        Led!.Advance();
        EndGeneration();
        for (int node = 0; node < Scenario.Nodes; node++)
        {
            Members[node]?.OnOrder(CheckpointStep.End);
            Members[node] = null;
        }
    }

    private void EndGeneration()
    {
        Led = null;
        for (int page = 0; page < Scenario.Pages; page++)
        {
            Captured[page] = Contents.None;
            Replace(page, Contents.Cut, Contents.Old);
            CutIsZero[page] = IsWrittenSinceCut[page] = IsPriorCut[page] = false;
        }
    }

    private bool IsAsCut(Contents contents, int page) => CutIsZero[page] ? contents == Contents.Zero
        : contents == (!IsWrittenSinceCut[page] ? Contents.Latest : IsPriorCut[page] ? Contents.Prior : Contents.Cut);

    // ---- as the pager does it

    /// <summary>Carries an effect out; what it changes is copied before.</summary>
    private void ExecuteAndCapture(int node, EffectKind kind, int page, in Flight flight)
    {
        bool changes = Scenario.Checkpoints > 0 && RegionCapture.Changes(kind, flight.Message.Flags);
        bool isLate = ((_bugs & WorldBugs.CopiedAfterUnmap) != 0 && kind == EffectKind.Unmap)
            || ((_bugs & WorldBugs.CopiedAfterGrant) != 0 && kind is EffectKind.MakeWritable or EffectKind.InstallWritable);
        if (changes && !isLate && !(kind == EffectKind.WriteHome && (_bugs & WorldBugs.HomeWriteNotNoted) != 0)) BeforeChange(node, page);
        Execute(node, kind, page, in flight);
        if (changes && isLate) BeforeChange(node, page);
    }

    private void BeforeChange(int node, int page)
    {
        Capture(node, page);
        Regions[node].Capture!.OnChange(PageAt(page));
    }

    private void BeginWrite(int node, int page)
    {
        if (!IsSaved(node, page)) return;
        if ((_bugs & WorldBugs.WrittenUncopied) == 0) BeforeChange(node, page);
        else Regions[node].Capture!.Restore(PageAt(page), Regions[node].Capture!.IsPending(PageAt(page)), isSaved: false);
    }

    /// <summary>Copies a page's frame, if that is pending; where there is none, zeros.</summary>
    private void Capture(int node, int page)
    {
        if (!Regions[node].Capture!.Take(PageAt(page))) return;
        Contents contents = FrameOf(node, page) == Contents.None ? Contents.Zero : FrameOf(node, page);
        if (WriteIfPossible(node, page)) contents = Contents.Old;
        if (Led is null) return; // it was given up, and this node has yet to hear of it
        if (Captured[page] != Contents.None) throw new InvariantException($"page {page} is copied twice for the checkpoint, the second time at node {node}");
        Captured[page] = contents;
    }

    // ---- what must hold

    /// <summary>Who has cut writes nothing until all have.</summary>
    private void CheckCutStands(int node, int page)
    {
        if (Led?.Step == CheckpointStep.Cut && Members[node] is { Step: CheckpointStep.Cut, IsDone: true })
            throw new InvariantException($"node {node} writes to page {page} after it has cut, and before all have");
    }

    /// <summary>All have cut: of each page one node answers, or it is as the generations before have it.</summary>
    private void CheckCut()
    {
        for (int page = 0; page < Scenario.Pages; page++)
        {
            int answers = Captured[page] != Contents.None ? 1 : 0;
            for (int node = 0; node < Scenario.Nodes; node++)
            {
                if (Members[node] is not null && Regions[node].Capture!.IsPending(PageAt(page))) answers++;
            }
            CutIsZero[page] = LatestIsZero[page];
            if (answers > 1) throw new InvariantException($"{answers} nodes answer for page {page} at the cut");
            if (answers == 0 && !IsRight(Composed[page], page))
                throw new InvariantException($"nobody answers for page {page} at the cut, and the checkpoints before have {Composed[page]}, which is not what was written last");
        }
    }

    private void CheckCheckpoint()
    {
        for (int page = 0; page < Scenario.Pages && IsPastCut; page++)
        {
            if (Captured[page] != Contents.None && !IsAsCut(Captured[page], page))
                throw new InvariantException($"{Captured[page]} was copied of page {page} for the checkpoint, which is not what was written last when that was cut");
        }
        if (!IsTaking || IsRecovering || Array.Exists(Wires, w => w.Count > 0) || Array.Exists(Nodes, n => n.Parked.Count > 0)) return;
        // Nothing is under way but the checkpoint: somebody must be able to go on with it.
        if (Led is { Awaited.Count: 0 } || Array.Exists(Members, m => m is not null && (MayStep(m) || Regions[m.Self.Value].Capture!.PendingCount > 0))) return;
        throw new InvariantException($"the checkpoint stays at {Led?.Step}, and nothing is under way");
    }
}
