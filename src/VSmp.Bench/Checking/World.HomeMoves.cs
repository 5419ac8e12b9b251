// SPDX-License-Identifier: Apache-2.0
using VSmp.Coherence;
using VSmp.Coherence.Homes;

namespace VSmp.Bench.Checking;

// Homes that move while all are there: a mirror, which may first have to be filled, changes places with its home.
internal sealed partial class World
{
    /// <summary>Where the mirror is, as far as the leader knows; null if there is none any more.</summary>
    public int? MirrorNode { get; set; }

    /// <summary>Where the home is moving to; null while it does not.</summary>
    public int? MovingTo { get; set; }

    /// <summary>How many times the home has begun to move.</summary>
    public int HomeMovesDone { get; set; }

    /// <summary>Pages that a late mirror was sent, a bit each.</summary>
    public int CopiedPages { get; set; }

    /// <summary>Whether the mirror has all that the home has.</summary>
    public bool IsMirrorComplete { get; set; }

    private int AllPages => (1 << Scenario.Pages) - 1;

    private void ListHomeMoves(List<Move> moves)
    {
        int home = HomeNode;
        if (!IsMirrorComplete && home >= 0 && !Regions[home].IsFrozen && !Regions[home].MirrorOf(Extent).IsNone)
        {
            for (byte page = 0; page < Scenario.Pages; page++)
            {
                if ((CopiedPages >> page & 1) == 0) moves.Add(new Move(MoveKind.CopyToMirror, (byte)home, page, 0));
            }
        }
        // It may be that one of them is lost, and the leader has not heard of it.
        if (HomeMovesDone >= Scenario.HomeMoves || Leader.Phase != Coherence.Recovery.RecoveryPhase.None || MirrorNode is null || !IsMirrorComplete) return;
        moves.Add(new Move(MoveKind.MoveHome, (byte)Scenario.Creator, 0, 0));
    }

    private void MoveHome()
    {
        HomeMovesDone++;
        MovingTo = MirrorNode;
        MirrorNode = Regions[Scenario.Creator].Homes!.HomeOf(Extent).Value;
        int known = ((1 << Scenario.Nodes) - 1) & ~KnownLost;
        Generation generation = Leader.Generation.Next();
        Leader.Begin(generation, NodesOf(known), [new NodeId((ushort)MovingTo!)]);
        BeginFreeze(generation, known);
    }

    private void CopyToMirror(int node, int page)
    {
        if (Homes[node].TryCopyToMirror(Regions[node], PageAt(page), _effects)) CopiedPages |= 1 << page;
    }

    private void SettleMirror()
    {
        if (IsMirrorComplete || CopiedPages != AllPages || HomeNode is not (>= 0 and int home) || Regions[home].IsFrozen) return;
        IsMirrorComplete = Regions[home].MirrorCopiesOut == 0 && !Regions[home].MirrorOf(Extent).IsNone;
    }
}
