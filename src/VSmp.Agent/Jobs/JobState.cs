// SPDX-License-Identifier: Apache-2.0
using System.Runtime.CompilerServices;
using VSmp.Agent.Guests;

namespace VSmp.Agent.Jobs;

/// <summary>Where a <see cref="Job"/> stands: all that the answers to later calls depend on.</summary>
/// <param name="Ranks">State of each rank.</param>
/// <param name="GoneText">Which rank ended first, and how.</param>
/// <param name="LostText">Which agent was lost.</param>
/// <param name="NextAddress">Where the next region will lie.</param>
/// <param name="Making">The region that is being made.</param>
/// <param name="Pending">The collective calls that ranks are in.</param>
/// <param name="Answers">What ranks were answered, and may ask for again.</param>
/// <param name="Locks">Locks that are held, or whose last holder ended.</param>
/// <param name="Counters">Numbers of counters.</param>
/// <param name="Counts">And the value of each.</param>
/// <param name="Regions">The regions.</param>
/// <param name="Checkpoint">Where it stands with checkpoints.</param>
internal sealed record JobState(byte[] Ranks, string? GoneText, string? LostText, ulong NextAddress, ulong? Making, RankCall[] Pending, RankAnswer[] Answers,
    LockState[] Locks, ulong[] Counters, long[] Counts, JobRegionState[] Regions, CheckpointState Checkpoint);

/// <summary>Where a job stands with checkpoints.</summary>
/// <param name="Restored">The generation that it has gone on from; 0: none.</param>
/// <param name="IsTaking">Whether all ranks are in vsmp_checkpoint.</param>
/// <param name="IsStoring">Whether a generation is cut, and not safe yet.</param>
/// <param name="ToRestore">Regions that ranks have yet to attach again.</param>
internal sealed record CheckpointState(uint Restored, bool IsTaking, bool IsStoring, RestorableRegion[] ToRestore);

/// <summary>A call of a rank.</summary>
/// <param name="Rank">Whose.</param>
/// <param name="Call">The message.</param>
/// <param name="Data">What goes with it.</param>
internal sealed record RankCall(int Rank, byte[] Call, byte[] Data);

/// <summary>A call of a rank that was answered, or is under way.</summary>
/// <param name="Rank">Whose.</param>
/// <param name="Slot">Which of its slots.</param>
/// <param name="Serial">The last call in that.</param>
/// <param name="Reply">The answer; empty: there is none yet.</param>
/// <param name="Data">What goes with that.</param>
internal sealed record RankAnswer(int Rank, int Slot, uint Serial, byte[] Reply, byte[] Data);

/// <summary>A lock.</summary>
/// <param name="Number">Its number.</param>
/// <param name="Holder">The rank that holds it; −1: none does, and the one that did ended.</param>
/// <param name="OwnerDied">Whether the next holder is to be told that the last one ended.</param>
/// <param name="Waiting">Calls that wait for it, first come first.</param>
internal sealed record LockState(ulong Number, int Holder, bool OwnerDied, RankCall[] Waiting);

/// <summary>A region of a job.</summary>
/// <param name="Id">Its number.</param>
/// <param name="Name">Its name within the job.</param>
/// <param name="Bytes">What the ranks asked for.</param>
/// <param name="Address">Where it lies in every rank.</param>
/// <param name="IsReady">Whether every node of the job has made it.</param>
/// <param name="HasIt">Ranks that have it, or are about to.</param>
/// <param name="Blocks">Offset and length of each block that is allocated, in turn.</param>
/// <param name="HighWater">Memory below it may have been used.</param>
/// <param name="RestoredFrom">The region of a checkpoint that it is filled with, or was.</param>
internal sealed record JobRegionState(ulong Id, string Name, ulong Bytes, ulong Address, bool IsReady, int[] HasIt, ulong[] Blocks, ulong HighWater, int? RestoredFrom);

/// <summary>Messages of ranks as bytes, for records.</summary>
internal static class RankMessages
{
    /// <summary>As bytes.</summary>
    public static byte[] Write(in GuestMessage message)
    {
        byte[] bytes = new byte[GuestMessage.Bytes];
        Unsafe.WriteUnaligned(ref bytes[0], message);
        return bytes;
    }

    /// <summary>From bytes.</summary>
    /// <exception cref="InvalidDataException">They are none.</exception>
    public static GuestMessage Read(ReadOnlySpan<byte> bytes) => bytes.Length == GuestMessage.Bytes
        ? Unsafe.ReadUnaligned<GuestMessage>(in bytes[0])
        : throw new InvalidDataException($"a message of {bytes.Length} bytes is none");
}
