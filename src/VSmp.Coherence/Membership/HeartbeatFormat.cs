// SPDX-License-Identifier: Apache-2.0
using System.Buffers.Binary;

namespace VSmp.Coherence.Membership;

/// <summary>
/// A heartbeat as bytes (docs/wire-format.md): view (32 bits), incarnation (32), the sender's clock (64), the clock that it acknowledges (64, −1: none),
/// flags (8), seven zeros, a bit for each member that it has voted out (512). Little-endian.
/// </summary>
public static class HeartbeatFormat
{
    /// <summary>How long it is, always.</summary>
    public const int Bytes = 32 + MemberSet.Bytes;

    private const HeartbeatFlags Known = HeartbeatFlags.Settled | HeartbeatFlags.WantsRenewal | HeartbeatFlags.Restarting;

    /// <summary>Writes it.</summary>
    public static void Write(Span<byte> to, in Heartbeat heartbeat)
    {
        to[..Bytes].Clear();
        BinaryPrimitives.WriteUInt32LittleEndian(to, heartbeat.View.Value);
        BinaryPrimitives.WriteUInt32LittleEndian(to[4..], heartbeat.Incarnation);
        BinaryPrimitives.WriteInt64LittleEndian(to[8..], heartbeat.SentTicks);
        BinaryPrimitives.WriteInt64LittleEndian(to[16..], Math.Max(heartbeat.AcknowledgedTicks, -1));
        to[24] = (byte)heartbeat.Flags;
        heartbeat.VotedOut.Write(to[32..]);
    }

    /// <summary>Reads it.</summary>
    /// <returns>False if the bytes are none: another length, times that no clock shows, no view, or flags that nobody knows.</returns>
    public static bool TryRead(ReadOnlySpan<byte> from, out Heartbeat heartbeat)
    {
        heartbeat = default;
        if (from.Length != Bytes || from[25..32].ContainsAnyExcept((byte)0)) return false;
        heartbeat.View = new ViewNumber(BinaryPrimitives.ReadUInt32LittleEndian(from));
        heartbeat.Incarnation = BinaryPrimitives.ReadUInt32LittleEndian(from[4..]);
        heartbeat.SentTicks = BinaryPrimitives.ReadInt64LittleEndian(from[8..]);
        long acknowledged = BinaryPrimitives.ReadInt64LittleEndian(from[16..]);
        heartbeat.AcknowledgedTicks = acknowledged < 0 ? Heartbeat.NoTicks : acknowledged;
        heartbeat.Flags = (HeartbeatFlags)from[24];
        heartbeat.VotedOut = MemberSet.Read(from[32..]);
        return heartbeat.View.Value != 0 && (heartbeat.Flags & ~Known) == 0 && acknowledged is >= -1 and <= MaxClock
            && heartbeat.SentTicks is >= 0 and <= MaxClock;
    }

    /// <summary>No sum of it and a few times overflows.</summary>
    private const long MaxClock = 1L << 56;
}
