// SPDX-License-Identifier: Apache-2.0
using System.Buffers.Binary;
using System.Net;
using VSmp.Agent.Interop;
using VSmp.Coherence;
using VSmp.Coherence.Membership;

namespace VSmp.Agent.Membership;

/// <summary>
/// What an agent leaves on its node of its membership, for the one that is started after it: which member it is, and the last view in which it stood. Where
/// this agent is the coordinator, that is the membership's record.
/// </summary>
/// <remarks>
/// The file: "VSID" (4), format 1 (16 bits), number (16), revision (64), the view as <see cref="ViewRecord"/>. It is replaced whole, before anything is done
/// in the view; that it outlives the agent's process is enough, for with the host the node's memory is gone as well.
/// </remarks>
/// <param name="Self">The member.</param>
/// <param name="Revision">The record's revision that had the view.</param>
/// <param name="View">A view that the member is in.</param>
internal sealed record MemberIdentity(NodeId Self, long Revision, MembershipView View)
{
    private const int HeadBytes = 16;
    private const uint Magic = 0x44495356;
    private const ushort Format = 1;

    /// <summary>The member, as the view has it.</summary>
    public Member Member => View.Find(Self)!;

    /// <summary>Puts it in place of what the file had.</summary>
    /// <exception cref="IOException">It could not be written; the file is as it was.</exception>
    public void Write(string path)
    {
        byte[] record = ViewRecord.Write(View);
        byte[] bytes = new byte[HeadBytes + record.Length];
        BinaryPrimitives.WriteUInt32LittleEndian(bytes, Magic);
        BinaryPrimitives.WriteUInt16LittleEndian(bytes.AsSpan(4), Format);
        BinaryPrimitives.WriteUInt16LittleEndian(bytes.AsSpan(6), Self.Value);
        BinaryPrimitives.WriteInt64LittleEndian(bytes.AsSpan(8), Revision);
        record.CopyTo(bytes, HeadBytes);
        WholeFile.Replace(path, bytes);
    }

    /// <summary>Reads it.</summary>
    /// <returns>Null if there is none: the agent was no member yet, or has left.</returns>
    /// <exception cref="InvalidDataException">There is something else.</exception>
    public static MemberIdentity? Read(string path)
    {
        byte[] bytes;
        try { bytes = File.ReadAllBytes(path); }
        catch (Exception e) when (e is FileNotFoundException or DirectoryNotFoundException) { return null; }
        bool isOne = bytes.Length > HeadBytes && BinaryPrimitives.ReadUInt32LittleEndian(bytes) == Magic && BinaryPrimitives.ReadUInt16LittleEndian(bytes.AsSpan(4)) == Format;
        var self = isOne ? new NodeId(BinaryPrimitives.ReadUInt16LittleEndian(bytes.AsSpan(6))) : NodeId.None;
        if (!isOne || ViewRecord.Read(bytes.AsSpan(HeadBytes)) is not { } view || view.Find(self) is null)
            throw new InvalidDataException($"{path} does not say which member of which cluster the agent before this one was");
        return new MemberIdentity(self, BinaryPrimitives.ReadInt64LittleEndian(bytes.AsSpan(8)), view);
    }
}
