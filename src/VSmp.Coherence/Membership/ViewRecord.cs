// SPDX-License-Identifier: Apache-2.0
using System.Buffers.Binary;

namespace VSmp.Coherence.Membership;

/// <summary>
/// A view as bytes, as the store has it and members tell each other (docs/wire-format.md): "VSVW", format (16 bits: 1), zero (16), epoch (32), number
/// (32), the number of the next node that joins (32), the list of members. Little-endian.
/// </summary>
public static class ViewRecord
{
    /// <summary>Most bytes of a record.</summary>
    public const int MaxBytes = HeaderBytes + MemberList.MaxBytes;

    private const int HeaderBytes = 20;
    private const uint Magic = 0x57565356;
    private const ushort Format = 1;

    /// <summary>Writes it.</summary>
    public static byte[] Write(MembershipView view)
    {
        byte[] bytes = new byte[MaxBytes];
        BinaryPrimitives.WriteUInt32LittleEndian(bytes, Magic);
        BinaryPrimitives.WriteUInt16LittleEndian(bytes.AsSpan(4), Format);
        BinaryPrimitives.WriteUInt32LittleEndian(bytes.AsSpan(8), view.Epoch.Value);
        BinaryPrimitives.WriteUInt32LittleEndian(bytes.AsSpan(12), view.Number.Value);
        BinaryPrimitives.WriteInt32LittleEndian(bytes.AsSpan(16), view.NextId);
        int length = HeaderBytes + MemberList.Write(bytes.AsSpan(HeaderBytes), view.Members);
        return bytes[..length];
    }

    /// <summary>Reads it.</summary>
    /// <returns>Null if the bytes are no view.</returns>
    public static MembershipView? Read(ReadOnlySpan<byte> from)
    {
        if (from.Length < HeaderBytes || BinaryPrimitives.ReadUInt32LittleEndian(from) != Magic
            || BinaryPrimitives.ReadUInt16LittleEndian(from[4..]) != Format || BinaryPrimitives.ReadUInt16LittleEndian(from[6..]) != 0
            || MemberList.Read(from[HeaderBytes..]) is not { } members)
        {
            return null;
        }
        return MembershipView.FromRecord(new Epoch(BinaryPrimitives.ReadUInt32LittleEndian(from[8..])),
            new ViewNumber(BinaryPrimitives.ReadUInt32LittleEndian(from[12..])), members, BinaryPrimitives.ReadInt32LittleEndian(from[16..]));
    }
}
