// SPDX-License-Identifier: Apache-2.0
using System.Runtime.InteropServices;

namespace VSmp.Agent.Guests;

/// <summary>What a guest asks (<c>enum vsmp_guest_type</c> of native/guest/protocol.h, which says what each field means).</summary>
internal enum GuestRequest : ushort
{
    Hello = 1,
    Map = 2,
    Reserve = 3,
    Release = 4,
    Discard = 5,
    Resume = 6,
    Join = 16,
    Attach = 17,
    Mapped = 18,
    Detach = 19,
    AllocAll = 20,
    Alloc = 21,
    Free = 22,
    Barrier = 23,
    Lock = 24,
    Unlock = 25,
    FetchAdd = 26,
    Broadcast = 27,
    Acquire = 28,
    ReleaseRegion = 29,
    Finish = 30,
    Rejoin = 31,
    Repeat = 32,
    Checkpoint = 33,
    Reply = 0x8000,
}

/// <summary><c>struct vsmp_guest_message</c> of native/guest/protocol.h: 64 bytes.</summary>
[StructLayout(LayoutKind.Explicit, Size = Bytes)]
internal struct GuestMessage
{
    public const int Bytes = 64;
    public const int MaxTextBytes = 960;
    public const int MaxDataBytes = 32 << 10;
    public const uint MagicValue = 0x31475356;
    public const ushort CurrentVersion = 5;
    public const ulong HasDevice = 1, IsKept = 2;

    [FieldOffset(0)] public uint Magic;
    [FieldOffset(4)] public ushort Version;
    [FieldOffset(6)] public GuestRequest Type;
    [FieldOffset(8)] public uint Serial;
    [FieldOffset(12)] public int Status;
    [FieldOffset(16)] public ulong A;
    [FieldOffset(24)] public ulong B;
    [FieldOffset(32)] public ulong C;
    [FieldOffset(40)] public ulong D;
    [FieldOffset(48)] public uint TextBytes;
    [FieldOffset(52)] public uint Slot;
}
