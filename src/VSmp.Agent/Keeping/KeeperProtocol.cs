// SPDX-License-Identifier: Apache-2.0
using System.Runtime.InteropServices;

namespace VSmp.Agent.Keeping;

/// <summary>What an agent asks of its keeper, and what that says unasked (<c>enum vsmp_keeper_type</c> of native/keeper/protocol.h, which
/// says what each field means).</summary>
internal enum KeeperRequest : ushort
{
    Hold = 1,
    Drop = 2,
    Clear = 3,
    List = 4,
    Lease = 5,
    State = 6,
    Kill = 7,
    Gone = 32,
    Fenced = 33,
    Resumed = 34,
    Reply = 0x8000,
}

/// <summary>What is held (<c>enum vsmp_keeper_kind</c>).</summary>
internal enum HoldKind : ushort
{
    /// <summary>Nothing, in messages that name no hold.</summary>
    None = 0,

    /// <summary>A process; its first descriptor is its pidfd.</summary>
    Guest = 1,

    /// <summary>Memory of a guest; its first descriptor is the userfaultfd.</summary>
    Mapping = 2,

    /// <summary>Any other descriptor: a listening socket, a lock.</summary>
    Other = 3,
}

/// <summary><c>struct vsmp_keeper_message</c> of native/keeper/protocol.h: 64 bytes.</summary>
[StructLayout(LayoutKind.Explicit, Size = Bytes)]
internal struct KeeperMessage
{
    public const int Bytes = 64;
    public const int MaxDataBytes = 4096;
    public const int MaxDescriptors = 4;
    public const int MaxHolds = 65536;
    public const uint MagicValue = 0x314B5356;
    public const ushort CurrentVersion = 1;

    /// <summary>Of a lease: with deadline 0.</summary>
    public const uint Release = 1;

    /// <summary>Of replies to <see cref="KeeperRequest.List"/>: the last.</summary>
    public const uint End = 1;

    /// <summary>Of replies to <see cref="KeeperRequest.List"/>: this guest is dead.</summary>
    public const uint IsGone = 2;

    [FieldOffset(0)] public uint Magic;
    [FieldOffset(4)] public ushort Version;
    [FieldOffset(6)] public KeeperRequest Type;
    [FieldOffset(8)] public uint Serial;
    [FieldOffset(12)] public int Status;
    [FieldOffset(16)] public ulong Key;
    [FieldOffset(24)] public ulong A;
    [FieldOffset(32)] public ulong B;
    [FieldOffset(40)] public ulong C;
    [FieldOffset(48)] public HoldKind Kind;
    [FieldOffset(50)] public ushort DescriptorCount;
    [FieldOffset(52)] public uint Flags;
    [FieldOffset(56)] public uint DataBytes;
    [FieldOffset(60)] public uint Reserved;
}

/// <summary><c>struct vsmp_keeper_state</c> of native/keeper/protocol.h: 48 bytes.</summary>
[StructLayout(LayoutKind.Explicit, Size = Bytes)]
internal struct KeeperStateRecord
{
    public const int Bytes = 48;

    /// <summary>Bits of <see cref="Flags"/>.</summary>
    public const uint IsStopping = 1, IsFenced = 2, IsRealtime = 4, IsLocked = 8;

    [FieldOffset(0)] public ulong DeadlineNs;
    [FieldOffset(8)] public ulong FencedAtNs;
    [FieldOffset(16)] public uint Flags;
    [FieldOffset(20)] public uint Restarts;
    [FieldOffset(24)] public uint Guests;
    [FieldOffset(28)] public uint Mappings;
    [FieldOffset(32)] public uint Others;
    [FieldOffset(36)] public uint Gone;
    [FieldOffset(40)] public uint Stopped;
    [FieldOffset(44)] public uint Running;
}
