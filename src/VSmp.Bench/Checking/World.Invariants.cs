// SPDX-License-Identifier: Apache-2.0
using VSmp.Coherence;
using VSmp.Coherence.Homes;
using VSmp.Coherence.Nodes;
using VSmp.Coherence.Protocols;

namespace VSmp.Bench.Checking;

// What must hold after every move.
internal sealed partial class World
{
    private bool IsRight(Contents contents, int page) => contents == (LatestIsZero[page] ? Contents.Zero : Contents.Latest);

    private void Check()
    {
        for (int page = 0; page < Scenario.Pages; page++)
        {
            CheckRights(page);
            CheckLastCopy(page);
        }
        for (int node = 0; node < Scenario.Nodes; node++) CheckBudget(node);
        if (Scenario.HasRecovery) CheckHomes();
        if (Scenario.Checkpoints > 0) CheckCheckpoint();
        if (IsQuiet()) CheckQuiet();
    }

    /// <summary>Single writer or many readers, and a read returns the last write.</summary>
    private void CheckRights(int page)
    {
        int writer = -1, reader = -1;
        for (int node = 0; node < Scenario.Nodes; node++)
        {
            Right most = Right.None;
            for (int m = 0; m < Scenario.Mappings; m++)
            {
                if (MappedOf(node, page, m) > most) most = MappedOf(node, page, m);
            }
            if (most == Right.None) continue;
            Contents frame = FrameOf(node, page);
            if (!IsRight(frame, page)) throw new InvariantException($"node {node} reads {frame} from page {page}, which is not what was written last");
            if (most == Right.Write)
            {
                if (writer >= 0) throw new InvariantException($"nodes {writer} and {node} may both write page {page}");
                writer = node;
            }
            else
            {
                reader = node;
            }
        }
        if (writer >= 0 && reader >= 0) throw new InvariantException($"node {writer} may write page {page} while node {reader} reads it");
    }

    /// <summary>What was written last is somewhere.</summary>
    private void CheckLastCopy(int page)
    {
        if (LatestIsZero[page] || IsRecovering || (HomeNode is >= 0 and int home && Regions[home].EntryAt(PageAt(page)).State == DirectoryState.Lost)) return;
        for (int node = 0; node < Scenario.Nodes; node++)
        {
            if (FrameOf(node, page) == Contents.Latest || KeptOf(node, page) == Contents.Latest) return;
        }
        foreach (List<Flight> wire in Wires)
        {
            foreach (Flight f in wire)
            {
                if (f.First == Contents.Latest && (int)f.Message.Page.Value == page) return;
                if (f.Second == Contents.Latest && (int)f.Message.Page.Value + 1 == page) return;
            }
        }
        throw new InvariantException($"the last copy of page {page} is gone");
    }

    private void CheckBudget(int node)
    {
        if (!IsUsing(node)) return;
        int frames = 0;
        for (int page = 0; page < Scenario.Pages; page++)
        {
            ref PageEntry entry = ref Regions[node].PageAt(PageAt(page));
            if ((entry.Flags & PageFlags.HasFrame) == 0) continue;
            frames++;
            if (entry.State is NodeState.I or NodeState.F) throw new InvariantException($"page {page} is {entry.State} at node {node}, and has a frame");
        }
        if (frames != Budgets[node].UsedPages)
            throw new InvariantException($"node {node} has {frames} frames, and {Budgets[node].UsedPages} are taken from its budget");
    }

    /// <summary>Nothing is under way: then nobody waits, nothing is kept, and directory and nodes agree.</summary>
    private void CheckQuiet()
    {
        if (Lost != KnownLost || Restarted != 0) return; // that will be learnt, sooner or later
        if (Scenario.HasRecovery) CheckRecovered();
        for (int node = 0; node < Scenario.Nodes; node++)
        {
            if (!IsUsing(node)) continue;
            if (Waiting[node].Count > 0) throw new InvariantException($"node {node} waits for page {Waiting[node][0].Page}, and nothing is under way");
            for (int page = 0; page < Scenario.Pages; page++)
            {
                ref PageEntry entry = ref Regions[node].PageAt(PageAt(page));
                if (!NodeStates.IsStable(entry.State)) throw new InvariantException($"page {page} stays {entry.State} at node {node}");
                if (entry.Slot != 0) throw new InvariantException($"a transaction for page {page} stays open at node {node}");
                if (KeptOf(node, page) != Contents.None) throw new InvariantException($"page {page} stays kept at node {node}");
            }
        }
        int waitingAtHome = Homes[HomeNode].WaitingCount;
        if (waitingAtHome > 0) throw new InvariantException($"{waitingAtHome} requests wait at the home, and nothing is under way");
        for (int page = 0; page < Scenario.Pages; page++) CheckDirectory(page);
    }

    private void CheckDirectory(int page)
    {
        int homeNode = HomeNode;
        ref DirectoryEntry entry = ref Regions[homeNode].EntryAt(PageAt(page));
        for (ushort node = 0; node < Scenario.Nodes; node++)
        {
            if (!IsUsing(node)) continue;
            NodeState state = Regions[node].PageAt(PageAt(page)).State;
            bool mayShare = entry.MayShare(new NodeId(node)), owns = entry.Owner.Value == node;
            if (!NodeStates.Agrees(entry.State, owns, mayShare, state))
                throw new InvariantException($"page {page} is {entry.State} (owner {entry.Owner}) at its home and {state} at node {node}");
        }
        if (!NodeStates.HomeIsValid(entry.State)) return;
        Contents home = (entry.Flags & DirectoryFlags.Zero) != 0 ? Contents.Zero : FrameOf(homeNode, page);
        if (!IsRight(home, page)) throw new InvariantException($"the home copy of page {page} is {home}, and the directory says {entry.State}");
        if (Scenario.HasRecovery) CheckMirror(homeNode, page, entry.State);
    }
}
