// SPDX-License-Identifier: Apache-2.0
using System.Buffers.Binary;
using System.Net;
using System.Net.Sockets;
using System.Text;

namespace VSmp.Coherence.Membership;

/// <summary>
/// Members as bytes (docs/wire-format.md): a count (16 bits), then for each its number (16), incarnation (32), contributed bytes (64),
/// port (16), length of the address (8: 4 or 16) and the address, length of the name (8) and the name in ASCII. Little-endian.
/// </summary>
public static class MemberList
{
    /// <summary>Most bytes of one member.</summary>
    public const int MaxMemberBytes = 2 + 4 + 8 + 2 + 1 + 16 + 1 + Member.MaxNameLength;

    /// <summary>Most bytes of a list.</summary>
    public const int MaxBytes = 2 + (MembershipView.MaxMembers * MaxMemberBytes);

    /// <summary>Writes a list; the room of <see cref="MaxBytes"/> is always enough.</summary>
    /// <returns>Bytes written.</returns>
    public static int Write(Span<byte> to, IReadOnlyList<Member> members)
    {
        BinaryPrimitives.WriteUInt16LittleEndian(to, (ushort)members.Count);
        int at = 2;
        foreach (Member member in members) at += Write(to[at..], member);
        return at;
    }

    /// <summary>Writes one member.</summary>
    /// <returns>Bytes written.</returns>
    public static int Write(Span<byte> to, Member member)
    {
        BinaryPrimitives.WriteUInt16LittleEndian(to, member.Id.Value);
        BinaryPrimitives.WriteUInt32LittleEndian(to[2..], member.Incarnation);
        BinaryPrimitives.WriteUInt64LittleEndian(to[6..], member.ContributedBytes);
        BinaryPrimitives.WriteUInt16LittleEndian(to[14..], (ushort)member.Address.Port);
        int addressBytes = member.Address.AddressFamily == AddressFamily.InterNetworkV6 ? 16 : 4;
        to[16] = (byte)addressBytes;
        member.Address.Address.TryWriteBytes(to[17..], out _);
        int at = 17 + addressBytes;
        int nameBytes = Encoding.ASCII.GetBytes(member.Name, to[(at + 1)..]);
        to[at] = (byte)nameBytes;
        return at + 1 + nameBytes;
    }

    /// <summary>Reads a list that fills the bytes exactly.</summary>
    /// <returns>Null if the bytes are no list.</returns>
    public static List<Member>? Read(ReadOnlySpan<byte> from)
    {
        if (from.Length < 2) return null;
        int count = BinaryPrimitives.ReadUInt16LittleEndian(from);
        if (count > MembershipView.MaxMembers) return null;
        from = from[2..];
        var members = new List<Member>(count);
        for (int i = 0; i < count; i++)
        {
            if (!TryRead(ref from, out Member? member)) return null;
            members.Add(member!);
        }
        return from.IsEmpty ? members : null;
    }

    /// <summary>Reads one member from the front, and moves on.</summary>
    public static bool TryRead(ref ReadOnlySpan<byte> from, out Member? member)
    {
        member = null;
        if (from.Length < 17 || from[16] is not (4 or 16)) return false;
        int nameAt = 18 + from[16];
        if (from.Length < nameAt) return false;
        int nameBytes = from[nameAt - 1];
        if (nameBytes > Member.MaxNameLength || from.Length < nameAt + nameBytes) return false;
        string name = Encoding.ASCII.GetString(from.Slice(nameAt, nameBytes));
        if (!Member.IsName(name)) return false;
        var address = new IPEndPoint(new IPAddress(from[17..(nameAt - 1)]), BinaryPrimitives.ReadUInt16LittleEndian(from[14..]));
        var id = new NodeId(BinaryPrimitives.ReadUInt16LittleEndian(from));
        member = new Member(id, name, address, BinaryPrimitives.ReadUInt64LittleEndian(from[6..]),
            BinaryPrimitives.ReadUInt32LittleEndian(from[2..]));
        from = from[(nameAt + nameBytes)..];
        return true;
    }
}
