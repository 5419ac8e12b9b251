// SPDX-License-Identifier: Apache-2.0
using System.Buffers.Binary;
using System.Text;
using VSmp.Coherence;

namespace VSmp.Agent.Guests;

/// <summary>What a node is to be to extents. Values are on the wire.</summary>
internal enum ExtentRole : byte
{
    /// <summary>Home of pages that are all zeros.</summary>
    Home = 0,
    /// <summary>Mirror of a home that is as new.</summary>
    Mirror = 1,
    /// <summary>Mirror of a home that has contents, which it is sent.</summary>
    LateMirror = 2,
}

/// <summary>What goes along with a ReserveExtents: <code>role 8 │ zero 8 │ partner 16 │ name of the region, UTF-8</code></summary>
/// <param name="Role">What the node is to be.</param>
/// <param name="Partner">To a home: its mirror, or none. To a mirror: its home.</param>
/// <param name="Name">The region's name, for messages.</param>
internal sealed record ExtentOrder(ExtentRole Role, NodeId Partner, string Name)
{
    private const int MaxNameBytes = 128;

    /// <summary>As bytes.</summary>
    public byte[] Write()
    {
        byte[] name = Encoding.UTF8.GetBytes(Name);
        byte[] bytes = new byte[4 + name.Length];
        bytes[0] = (byte)Role;
        BinaryPrimitives.WriteUInt16LittleEndian(bytes.AsSpan(2), Partner.Value);
        name.CopyTo(bytes, 4);
        return bytes;
    }

    /// <summary>From bytes; null if they are none.</summary>
    public static ExtentOrder? Read(ReadOnlySpan<byte> bytes) =>
        bytes.Length < 4 || bytes[0] > (byte)ExtentRole.LateMirror || bytes[1] != 0
            ? null
            : new ExtentOrder((ExtentRole)bytes[0], new NodeId(BinaryPrimitives.ReadUInt16LittleEndian(bytes[2..])),
                Encoding.UTF8.GetString(bytes[4..Math.Min(bytes.Length, 4 + MaxNameBytes)]));
}
