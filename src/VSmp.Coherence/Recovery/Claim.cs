// SPDX-License-Identifier: Apache-2.0
using System.Buffers.Binary;

namespace VSmp.Coherence.Recovery;

/// <summary>What a node has of a page. Values are on the wire.</summary>
public enum ClaimKind : byte
{
    /// <summary>A read copy. It is what was written last, since nobody may write while it is there.</summary>
    Shared = 1,
    /// <summary>The copy that all readers have theirs from.</summary>
    Owned = 2,
    /// <summary>The only copy.</summary>
    Modified = 3,
    /// <summary>A copy that was being given up; the last one, if nobody has a newer.</summary>
    Kept = 4,
    /// <summary>It was being thrown away: it reads zeros.</summary>
    ThrownAway = 5,
}

/// <summary>What a node says, after others were lost, that it has of a run of pages.</summary>
/// <param name="Page">The first.</param>
/// <param name="Count">How many: 1 … 512, of one extent.</param>
/// <param name="Kind">What.</param>
/// <param name="Version">Version of the contents.</param>
public readonly record struct Claim(PageNumber Page, uint Count, ClaimKind Kind, PageVersion Version)
{
    /// <summary>Bytes on the wire: first page (32 bits), count − 1 (16), kind (8), zero (8), version (32).</summary>
    public const int Bytes = 12;

    /// <summary>Takes the next page's claim along, if it is the same.</summary>
    public bool TryExtend(in Claim next, out Claim run)
    {
        run = this with { Count = Count + next.Count };
        return next.Page.Value == Page.Value + Count && next.Kind == Kind && next.Version == Version && next.Page.Extent == Page.Extent;
    }

    /// <summary>Writes it.</summary>
    public void Write(Span<byte> to)
    {
        BinaryPrimitives.WriteUInt32LittleEndian(to, checked((uint)Page.Value));
        BinaryPrimitives.WriteUInt16LittleEndian(to[4..], (ushort)(Count - 1));
        to[6] = (byte)Kind;
        to[7] = 0;
        BinaryPrimitives.WriteUInt32LittleEndian(to[8..], Version.Value);
    }

    /// <summary>Reads one.</summary>
    /// <returns>False if the bytes are none.</returns>
    public static bool TryRead(ReadOnlySpan<byte> from, out Claim claim)
    {
        claim = new Claim(new PageNumber(BinaryPrimitives.ReadUInt32LittleEndian(from)), BinaryPrimitives.ReadUInt16LittleEndian(from[4..]) + 1u,
            (ClaimKind)from[6], new PageVersion(BinaryPrimitives.ReadUInt32LittleEndian(from[8..])));
        return claim.Kind is >= ClaimKind.Shared and <= ClaimKind.ThrownAway && from[7] == 0
            && claim.Page.Extent == claim.Page.Plus(claim.Count - 1).Extent;
    }
}
