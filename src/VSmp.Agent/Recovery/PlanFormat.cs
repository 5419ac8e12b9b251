// SPDX-License-Identifier: Apache-2.0
using System.Buffers.Binary;
using VSmp.Coherence;
using VSmp.Coherence.Recovery;

namespace VSmp.Agent.Recovery;

/// <summary>
/// A <see cref="RecoveryPlan"/> as bytes, the payload of a RegionFreeze:
/// <code>is any user lost 8 │ zero 8 │ lost nodes 16 │ users 16 │ their numbers, 16 each</code>
/// </summary>
internal static class PlanFormat
{
    private const int HeadBytes = 6;

    /// <summary>As bytes.</summary>
    public static byte[] Write(RecoveryPlan plan)
    {
        byte[] bytes = new byte[HeadBytes + (2 * (plan.Lost.Count + plan.Users.Count))];
        bytes[0] = plan.IsAnyUserLost ? (byte)1 : (byte)0;
        BinaryPrimitives.WriteUInt16LittleEndian(bytes.AsSpan(2), (ushort)plan.Lost.Count);
        BinaryPrimitives.WriteUInt16LittleEndian(bytes.AsSpan(4), (ushort)plan.Users.Count);
        int at = HeadBytes;
        foreach (NodeId node in plan.Lost.Concat(plan.Users))
        {
            BinaryPrimitives.WriteUInt16LittleEndian(bytes.AsSpan(at), node.Value);
            at += 2;
        }
        return bytes;
    }

    /// <summary>From bytes; null if they are none.</summary>
    public static RecoveryPlan? Read(ReadOnlySpan<byte> bytes)
    {
        if (bytes.Length < HeadBytes || bytes[0] > 1 || bytes[1] != 0) return null;
        int lost = BinaryPrimitives.ReadUInt16LittleEndian(bytes[2..]), users = BinaryPrimitives.ReadUInt16LittleEndian(bytes[4..]);
        if (bytes.Length != HeadBytes + (2 * (lost + users)) || users == 0) return null;
        var nodes = new NodeId[lost + users];
        for (int i = 0; i < nodes.Length; i++) nodes[i] = new NodeId(BinaryPrimitives.ReadUInt16LittleEndian(bytes[(HeadBytes + (2 * i))..]));
        return new RecoveryPlan(nodes[..lost], nodes[lost..], bytes[0] == 1);
    }
}
