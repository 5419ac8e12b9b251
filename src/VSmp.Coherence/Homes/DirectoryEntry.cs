// SPDX-License-Identifier: Apache-2.0
using VSmp.Coherence.Protocols;

namespace VSmp.Coherence.Homes;

/// <summary>
/// A page at its home, in 16 bytes: <code>state 8 │ flags 8 │ owner 16 │ version 32 │ sharers 64</code>
/// </summary>
public struct DirectoryEntry
{
    /// <summary>Its state.</summary>
    public DirectoryState State;
    /// <summary>What else is known of it.</summary>
    public DirectoryFlags Flags;
    /// <summary>The owner in M, S_D and M_A.</summary>
    public NodeId Owner;
    /// <summary>Counts the write grants.</summary>
    public PageVersion Version;
    /// <summary>Who may have a read copy.</summary>
    public SharerSet Sharers;

    /// <summary>Whether the sharers are a coarse vector.</summary>
    public readonly bool IsCoarse => (Flags & DirectoryFlags.Coarse) != 0;

    /// <summary>Whether a node may have a read copy.</summary>
    public readonly bool MayShare(NodeId node) => Sharers.Contains(node, IsCoarse);

    /// <summary>Adds a sharer.</summary>
    public void AddSharer(NodeId node)
    {
        bool coarse = IsCoarse;
        Sharers.Add(node, ref coarse);
        if (coarse) Flags |= DirectoryFlags.Coarse;
    }

    /// <summary>Forgets the sharers.</summary>
    public void ClearSharers()
    {
        Sharers = SharerSet.Empty;
        Flags &= ~DirectoryFlags.Coarse;
    }

    /// <summary>A page that nobody has written.</summary>
    public static DirectoryEntry Zero => new() { Flags = DirectoryFlags.Zero, Owner = NodeId.None, Sharers = SharerSet.Empty };
}

/// <summary>What a home knows of a page beside its state.</summary>
[Flags]
public enum DirectoryFlags : byte
{
    /// <summary>The home copy, where it is valid, is in the frame file.</summary>
    None = 0,
    /// <summary>The page is zeros and has no frame.</summary>
    Zero = 1,
    /// <summary>Requests wait for this page.</summary>
    HasWaiters = 2,
    /// <summary>The home copy was copied aside while a grant is under way.</summary>
    Kept = 4,
    /// <summary><see cref="DirectoryEntry.Sharers"/> is a coarse vector.</summary>
    Coarse = 8,
    /// <summary>There is no home copy: it was dropped when an owner had written.</summary>
    Dropped = 16,
    /// <summary>
    /// The grant under way comes from the former owner: a home copy that is still there may be older. While the directory is rebuilt: somebody who has
    /// not said so yet may have a newer copy than the one that is here.
    /// </summary>
    Forwarded = 32,
    /// <summary>While the directory is rebuilt: its owner is lost, and so are its contents if nobody has a copy.</summary>
    OwnerLost = 64,
    /// <summary>While the directory is rebuilt: the mirror may lack the home copy.</summary>
    MirrorLacks = 128,
}

/// <summary>
/// The nodes that may have a read copy: up to four by number; beyond that a coarse vector, whose bit <c>n mod 64</c> stands for all
/// nodes of that remainder. A coarse set names too many nodes in clusters of more than 64, never too few.
/// </summary>
public struct SharerSet
{
    private const int InlineCapacity = 4;
    private const ulong AllNone = ulong.MaxValue;

    private ulong _bits; // inline: four node numbers, 0xFFFF for none; coarse: the vector

    /// <summary>Nobody.</summary>
    public static SharerSet Empty => new() { _bits = AllNone };

    /// <summary>Adds a node. <paramref name="coarse"/> is a flag of the entry, and set once the inline places are taken.</summary>
    public void Add(NodeId node, ref bool coarse)
    {
        if (Contains(node, coarse)) return;
        if (!coarse)
        {
            for (int i = 0; i < InlineCapacity; i++)
            {
                if (At(i) != ushort.MaxValue) continue;
                _bits = (_bits & ~(0xFFFFul << (16 * i))) | ((ulong)node.Value << (16 * i));
                return;
            }
            ulong vector = 0;
            for (int i = 0; i < InlineCapacity; i++) vector |= 1ul << (At(i) & 63);
            _bits = vector;
            coarse = true;
        }
        _bits |= 1ul << (node.Value & 63);
    }

    /// <summary>Whether the set names a node.</summary>
    public readonly bool Contains(NodeId node, bool coarse)
    {
        if (coarse) return (_bits >> (node.Value & 63) & 1) != 0;
        for (int i = 0; i < InlineCapacity; i++)
        {
            if (At(i) == node.Value) return true;
        }
        return false;
    }

    private readonly ushort At(int index) => (ushort)(_bits >> (16 * index));
}
