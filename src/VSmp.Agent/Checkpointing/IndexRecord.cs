// SPDX-License-Identifier: Apache-2.0
using System.Buffers.Binary;
using VSmp.Coherence;

namespace VSmp.Agent.Checkpointing;

/// <summary>
/// A page of a checkpoint, as a part's index has it; the page itself is in another file, so that a disk that loses or mixes up what it wrote cannot do so with both
/// alike.
/// </summary>
/// <remarks><code>page 64 │ 0 32 │ CRC-32C of the page 32 │ generation 32 │ region 16 │ 0: the page is in the other file; 1: it is zero, and is not 16</code></remarks>
/// <param name="Region">Which region: its place in the manifest's list.</param>
/// <param name="Page">Which page of that.</param>
/// <param name="Crc">CRC-32C of its 4096 bytes; of a zero page, too.</param>
/// <param name="Generation">The generation of the checkpoint that it was captured for.</param>
/// <param name="IsZero">Whether it is zero: then no file has it.</param>
internal readonly record struct IndexRecord(ushort Region, PageNumber Page, uint Crc, uint Generation, bool IsZero)
{
    /// <summary>Its length in bytes.</summary>
    public const int Bytes = 24;

    /// <summary>As bytes.</summary>
    public void Write(Span<byte> to)
    {
        BinaryPrimitives.WriteUInt64LittleEndian(to, Page.Value);
        BinaryPrimitives.WriteUInt32LittleEndian(to[8..], 0);
        BinaryPrimitives.WriteUInt32LittleEndian(to[12..], Crc);
        BinaryPrimitives.WriteUInt32LittleEndian(to[16..], Generation);
        BinaryPrimitives.WriteUInt16LittleEndian(to[20..], Region);
        BinaryPrimitives.WriteUInt16LittleEndian(to[22..], IsZero ? (ushort)1 : (ushort)0);
    }

    /// <summary>From bytes.</summary>
    /// <exception cref="InvalidDataException">They are none.</exception>
    public static IndexRecord Read(ReadOnlySpan<byte> from)
    {
        ushort flags = BinaryPrimitives.ReadUInt16LittleEndian(from[22..]);
        if (flags > 1 || BinaryPrimitives.ReadUInt32LittleEndian(from[8..]) != 0) throw new InvalidDataException("a record of an index makes no sense");
        return new IndexRecord(BinaryPrimitives.ReadUInt16LittleEndian(from[20..]), new PageNumber(BinaryPrimitives.ReadUInt64LittleEndian(from)),
            BinaryPrimitives.ReadUInt32LittleEndian(from[12..]), BinaryPrimitives.ReadUInt32LittleEndian(from[16..]), flags == 1);
    }
}
