// SPDX-License-Identifier: Apache-2.0
using System.Buffers.Binary;
using VSmp.Coherence;
using VSmp.Coherence.Recovery;

namespace VSmp.Agent.Recovery;

/// <summary>
/// A <see cref="RecoveryPlan"/> as bytes, the payload of a RegionFreeze, or of several:
/// <code>is any user lost 8 │ zero 8 │ lost nodes 16 │ users 16 │ forgetful nodes 16 │ moves 32 │ numbers of lost nodes (forgetful ones last) and users, 16 each
/// │ moves: first extent 32, count 16, home 16, mirror 16</code>
/// </summary>
internal static class PlanFormat
{
    /// <summary>More than that cannot be a plan: it is one of every extent of many terabytes.</summary>
    public const int MaxBytes = 64 << 20;

    private const int HeadBytes = 12;
    private const int MoveBytes = 10;

    /// <summary>As bytes.</summary>
    public static byte[] Write(RecoveryPlan plan)
    {
        byte[] bytes = new byte[HeadBytes + (2 * (plan.Lost.Count + plan.Users.Count)) + (MoveBytes * plan.Moves.Count)];
        bytes[0] = plan.IsAnyUserLost ? (byte)1 : (byte)0;
        BinaryPrimitives.WriteUInt16LittleEndian(bytes.AsSpan(2), (ushort)plan.Lost.Count);
        BinaryPrimitives.WriteUInt16LittleEndian(bytes.AsSpan(4), (ushort)plan.Users.Count);
        BinaryPrimitives.WriteUInt16LittleEndian(bytes.AsSpan(6), (ushort)plan.Forgetful.Count);
        BinaryPrimitives.WriteInt32LittleEndian(bytes.AsSpan(8), plan.Moves.Count);
        int at = HeadBytes;
        foreach (NodeId node in plan.Lost.Except(plan.Forgetful).Concat(plan.Forgetful).Concat(plan.Users))
        {
            BinaryPrimitives.WriteUInt16LittleEndian(bytes.AsSpan(at), node.Value);
            at += 2;
        }
        foreach (HomeMove move in plan.Moves)
        {
            BinaryPrimitives.WriteUInt32LittleEndian(bytes.AsSpan(at), move.First.Value);
            BinaryPrimitives.WriteUInt16LittleEndian(bytes.AsSpan(at + 4), (ushort)move.Count);
            BinaryPrimitives.WriteUInt16LittleEndian(bytes.AsSpan(at + 6), move.Home.Value);
            BinaryPrimitives.WriteUInt16LittleEndian(bytes.AsSpan(at + 8), move.Mirror.Value);
            at += MoveBytes;
        }
        return bytes;
    }

    /// <summary>From bytes; null if they are none.</summary>
    public static RecoveryPlan? Read(ReadOnlySpan<byte> bytes)
    {
        if (bytes.Length < HeadBytes || bytes[0] > 1 || bytes[1] != 0) return null;
        int lost = BinaryPrimitives.ReadUInt16LittleEndian(bytes[2..]), users = BinaryPrimitives.ReadUInt16LittleEndian(bytes[4..]);
        int forgetful = BinaryPrimitives.ReadUInt16LittleEndian(bytes[6..]), movesAt = HeadBytes + (2 * (lost + users));
        int moved = (int)Math.Min(BinaryPrimitives.ReadUInt32LittleEndian(bytes[8..]), MaxBytes);
        if (bytes.Length != movesAt + ((long)MoveBytes * moved) || users == 0 || forgetful > lost) return null;
        var nodes = new NodeId[lost + users];
        for (int i = 0; i < nodes.Length; i++) nodes[i] = new NodeId(BinaryPrimitives.ReadUInt16LittleEndian(bytes[(HeadBytes + (2 * i))..]));
        var moves = new HomeMove[moved];
        for (int i = 0; i < moved; i++)
        {
            ReadOnlySpan<byte> move = bytes[(movesAt + (MoveBytes * i))..];
            moves[i] = new HomeMove(new ExtentNumber(BinaryPrimitives.ReadUInt32LittleEndian(move)), BinaryPrimitives.ReadUInt16LittleEndian(move[4..]),
                new NodeId(BinaryPrimitives.ReadUInt16LittleEndian(move[6..])), new NodeId(BinaryPrimitives.ReadUInt16LittleEndian(move[8..])));
        }
        return new RecoveryPlan(nodes[..lost], nodes[lost..], bytes[0] == 1) { Moves = moves, Forgetful = nodes[(lost - forgetful)..lost] };
    }
}
