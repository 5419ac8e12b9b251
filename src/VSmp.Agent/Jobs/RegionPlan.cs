// SPDX-License-Identifier: Apache-2.0
using System.Buffers.Binary;
using System.Text;
using VSmp.Coherence;

namespace VSmp.Agent.Jobs;

/// <summary>What a leader tells the nodes of a region that they are to make: the payload of a JobAttach.</summary>
/// <remarks><code>pattern length 16 │ that many nodes, 16 each │ length 8, protocol │ length 8, name</code></remarks>
/// <param name="Pattern">Home of each extent, again and again.</param>
/// <param name="Protocol">What keeps it coherent.</param>
/// <param name="Name">Its name within the job.</param>
internal sealed record RegionPlan(NodeId[] Pattern, string Protocol, string Name)
{
    /// <summary>As bytes.</summary>
    public byte[] Write()
    {
        byte[] protocol = Encoding.UTF8.GetBytes(Protocol), name = Encoding.UTF8.GetBytes(Name);
        byte[] bytes = new byte[2 + (2 * Pattern.Length) + 1 + protocol.Length + 1 + name.Length];
        BinaryPrimitives.WriteUInt16LittleEndian(bytes, (ushort)Pattern.Length);
        int at = 2;
        foreach (NodeId node in Pattern)
        {
            BinaryPrimitives.WriteUInt16LittleEndian(bytes.AsSpan(at), node.Value);
            at += 2;
        }
        foreach (byte[] text in new[] { protocol, name })
        {
            bytes[at++] = (byte)text.Length;
            text.CopyTo(bytes, at);
            at += text.Length;
        }
        return bytes;
    }

    /// <summary>From bytes; null if they are none.</summary>
    public static RegionPlan? Read(ReadOnlySpan<byte> bytes)
    {
        if (bytes.Length < 2) return null;
        int length = BinaryPrimitives.ReadUInt16LittleEndian(bytes);
        bytes = bytes[2..];
        if (length is 0 or > HomePattern.MaxLength || bytes.Length < 2 * length) return null;
        var pattern = new NodeId[length];
        for (int i = 0; i < length; i++) pattern[i] = new NodeId(BinaryPrimitives.ReadUInt16LittleEndian(bytes[(2 * i)..]));
        bytes = bytes[(2 * length)..];
        return ReadText(ref bytes) is { } protocol && ReadText(ref bytes) is { } name && bytes.IsEmpty
            ? new RegionPlan(pattern, protocol, name)
            : null;
    }

    private static string? ReadText(ref ReadOnlySpan<byte> bytes)
    {
        if (bytes.IsEmpty || bytes.Length < 1 + bytes[0]) return null;
        string text = Encoding.UTF8.GetString(bytes.Slice(1, bytes[0]));
        bytes = bytes[(1 + bytes[0])..];
        return text;
    }
}
