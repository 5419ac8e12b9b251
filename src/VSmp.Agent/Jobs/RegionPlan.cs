// SPDX-License-Identifier: Apache-2.0
using System.Buffers.Binary;
using System.Text;
using VSmp.Coherence;
using VSmp.Coherence.Placement;

namespace VSmp.Agent.Jobs;

/// <summary>What a leader tells the nodes of a region that they are to make: the payload of a JobAttach.</summary>
/// <remarks>
/// <code>pattern length 16 │ that many nodes, 16 each │ length 8, protocol │ length 8, name │ if it is mirrored: as many nodes as above, 16 each</code>
/// </remarks>
/// <param name="Pattern">Home of each extent, again and again.</param>
/// <param name="Protocol">What keeps it coherent.</param>
/// <param name="Name">Its name within the job.</param>
/// <param name="Mirrors">Mirror of each extent, again and again, <see cref="NodeId.None"/> for none; null if the region is not mirrored.</param>
internal sealed record RegionPlan(NodeId[] Pattern, string Protocol, string Name, NodeId[]? Mirrors = null)
{
    /// <summary>The home of an extent.</summary>
    public NodeId HomeOf(uint extent) => Pattern[extent % (uint)Pattern.Length];

    /// <summary>The mirror of an extent.</summary>
    public NodeId MirrorOf(uint extent) => Mirrors is null ? NodeId.None : Mirrors[extent % (uint)Mirrors.Length];

    /// <summary>For how many extents a node gives memory, as home or as mirror.</summary>
    public uint CountOf(int extentCount, NodeId node) =>
        HomePattern.CountOf(Pattern, extentCount, node) + (Mirrors is null ? 0 : HomePattern.CountOf(Mirrors, extentCount, node));

    /// <summary>Where homes and mirrors are, while none has moved.</summary>
    public HomeMap NewHomeMap(int extentCount)
    {
        var homes = new HomeMap(extentCount, Pattern);
        for (uint e = 0; e < extentCount; e++) homes.PlaceMirror(new ExtentNumber(e), MirrorOf(e));
        return homes;
    }

    /// <summary>As bytes.</summary>
    public byte[] Write()
    {
        byte[] protocol = Encoding.UTF8.GetBytes(Protocol), name = Encoding.UTF8.GetBytes(Name);
        byte[] bytes = new byte[2 + (2 * Pattern.Length) + 1 + protocol.Length + 1 + name.Length + (2 * (Mirrors?.Length ?? 0))];
        BinaryPrimitives.WriteUInt16LittleEndian(bytes, (ushort)Pattern.Length);
        int at = 2;
        WriteNodes(Pattern, bytes, ref at);
        foreach (byte[] text in new[] { protocol, name })
        {
            bytes[at++] = (byte)text.Length;
            text.CopyTo(bytes, at);
            at += text.Length;
        }
        if (Mirrors is not null) WriteNodes(Mirrors, bytes, ref at);
        return bytes;
    }

    /// <summary>From bytes; null if they are none.</summary>
    public static RegionPlan? Read(ReadOnlySpan<byte> bytes)
    {
        if (bytes.Length < 2) return null;
        int length = BinaryPrimitives.ReadUInt16LittleEndian(bytes);
        bytes = bytes[2..];
        if (length is 0 or > HomePattern.MaxLength || bytes.Length < 2 * length) return null;
        NodeId[] pattern = ReadNodes(ref bytes, length);
        if (ReadText(ref bytes) is not { } protocol || ReadText(ref bytes) is not { } name) return null;
        if (bytes.IsEmpty) return new RegionPlan(pattern, protocol, name);
        if (bytes.Length != 2 * length) return null;
        NodeId[] mirrors = ReadNodes(ref bytes, length);
        for (int i = 0; i < length; i++)
        {
            if (mirrors[i] == pattern[i]) return null; // a mirror beside its home is none
        }
        return new RegionPlan(pattern, protocol, name, mirrors);
    }

    private static void WriteNodes(NodeId[] nodes, byte[] bytes, ref int at)
    {
        foreach (NodeId node in nodes)
        {
            BinaryPrimitives.WriteUInt16LittleEndian(bytes.AsSpan(at), node.Value);
            at += 2;
        }
    }

    private static NodeId[] ReadNodes(ref ReadOnlySpan<byte> bytes, int count)
    {
        var nodes = new NodeId[count];
        for (int i = 0; i < count; i++) nodes[i] = new NodeId(BinaryPrimitives.ReadUInt16LittleEndian(bytes[(2 * i)..]));
        bytes = bytes[(2 * count)..];
        return nodes;
    }

    private static string? ReadText(ref ReadOnlySpan<byte> bytes)
    {
        if (bytes.IsEmpty || bytes.Length < 1 + bytes[0]) return null;
        string text = Encoding.UTF8.GetString(bytes.Slice(1, bytes[0]));
        bytes = bytes[(1 + bytes[0])..];
        return text;
    }
}
