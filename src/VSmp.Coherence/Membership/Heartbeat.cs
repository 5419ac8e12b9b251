// SPDX-License-Identifier: Apache-2.0
using System.Buffers.Binary;
using System.Numerics;
using System.Runtime.CompilerServices;

namespace VSmp.Coherence.Membership;

/// <summary>What a member sends each other member, all the time. The newest one says all that is to be said: any may be lost, late or there twice.</summary>
public struct Heartbeat
{
    /// <summary>A clock value that stands for none.</summary>
    public const long NoTicks = long.MinValue / 4;

    /// <summary>The view in which the sender stands. All else that it says is said in this view.</summary>
    public ViewNumber View;

    /// <summary>The sender's incarnation.</summary>
    public uint Incarnation;

    /// <summary>What the sender is, wants and has done.</summary>
    public HeartbeatFlags Flags;

    /// <summary>The sender's clock as it sent.</summary>
    public long SentTicks;

    /// <summary>
    /// The acknowledgement: the newest of the receiver's <see cref="SentTicks"/> that the sender has acknowledged; <see cref="NoTicks"/> if none.
    /// </summary>
    public long AcknowledgedTicks;

    /// <summary>The members that the sender has voted out in this view, by their place in it.</summary>
    public MemberSet VotedOut;
}

/// <summary>What a sender of a heartbeat is, wants and has done.</summary>
[Flags]
public enum HeartbeatFlags : byte
{
    /// <summary>Nothing particular.</summary>
    None = 0,

    /// <summary>Nothing that it promised in an earlier view, and no lease that it got in one, is still running.</summary>
    Settled = 1,

    /// <summary>It hears a member again that it has voted out: it wants a view in which that vote is void.</summary>
    WantsRenewal = 2,

    /// <summary>It is an agent that has been restarted and is not in the view yet: it acknowledges nothing and votes nobody out.</summary>
    Restarting = 4,
}

/// <summary>A set of members of one view, by their place in <see cref="MembershipView.Members"/>.</summary>
public struct MemberSet
{
    private Words _words;

    /// <summary>How many there are.</summary>
    public readonly int Count
    {
        get
        {
            int count = 0;
            foreach (ulong word in _words) count += BitOperations.PopCount(word);
            return count;
        }
    }

    /// <summary>Adds a member.</summary>
    /// <param name="place">0 … <see cref="MembershipView.MaxMembers"/> − 1.</param>
    public void Add(int place) => _words[place >> 6] |= 1UL << (place & 63);

    /// <summary>Whether a member is one of them.</summary>
    public readonly bool Contains(int place) => (_words[place >> 6] >> (place & 63) & 1) != 0;

    /// <summary>Bytes of <see cref="Write"/>.</summary>
    internal const int Bytes = MembershipView.MaxMembers / 8;

    /// <summary>Writes a bit for each place, the lowest of the first byte for place 0.</summary>
    internal readonly void Write(Span<byte> to)
    {
        for (int i = 0; i < Bytes / sizeof(ulong); i++) BinaryPrimitives.WriteUInt64LittleEndian(to[(i * sizeof(ulong))..], _words[i]);
    }

    /// <summary>Reads what <see cref="Write"/> wrote.</summary>
    internal static MemberSet Read(ReadOnlySpan<byte> from)
    {
        MemberSet set = default;
        for (int i = 0; i < Bytes / sizeof(ulong); i++) set._words[i] = BinaryPrimitives.ReadUInt64LittleEndian(from[(i * sizeof(ulong))..]);
        return set;
    }

    [InlineArray(MembershipView.MaxMembers / 64)]
    private struct Words
    {
        private ulong _first;
    }
}
