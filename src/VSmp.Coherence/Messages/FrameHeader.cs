// SPDX-License-Identifier: Apache-2.0
using System.Runtime.InteropServices;

namespace VSmp.Coherence.Messages;

/// <summary>
/// The header of every frame between agents: 128 bytes, two cache lines, little-endian.
/// </summary>
/// <remarks>
/// <code>
///   0  magic        4  version 6 type 7 flags      8  view          12 epoch
///  16  source 18 requestor 20 acks 22 vnet 23 –   24  transaction   28 count
///  32  sequence                                   40  cumulative acknowledgement
///  48  region                                     56  page
///  64  page version 68 payload bytes              72  CRC32C        76 generation
///  80  argument 0                                 88  argument 1
///  96  room for an authentication tag (16 bytes)  112 – (16 bytes)
/// </code>
/// The fields from <see cref="Magic"/> to <see cref="Type"/>, the sequence numbers, <see cref="PayloadBytes"/> and
/// <see cref="Crc"/> belong to the session; all others to the layer that sends. Reserved bytes are zero.
/// A payload of data is whole pages, <see cref="Count"/> of them, all of one version.
/// </remarks>
[StructLayout(LayoutKind.Explicit, Size = Bytes)]
public struct FrameHeader
{
    /// <summary>Size on the wire.</summary>
    public const int Bytes = 128;

    /// <summary>"VSMP".</summary>
    public const uint MagicValue = 0x504D5356;

    /// <summary>Version of the wire format; peers of different versions do not talk.</summary>
    public const ushort CurrentVersion = 8;

    /// <summary>Pages of data in one frame at most, so that a demand fault never queues behind more than 64 KiB.</summary>
    public const int MaxPages = 16;

    /// <summary>Longest payload: <see cref="MaxPages"/> pages.</summary>
    public const int MaxPayloadBytes = MaxPages * PageNumber.Bytes;

    /// <summary><see cref="MagicValue"/>.</summary>
    [FieldOffset(0)] public uint Magic;
    /// <summary><see cref="CurrentVersion"/>.</summary>
    [FieldOffset(4)] public ushort Version;
    /// <summary>What the frame is.</summary>
    [FieldOffset(6)] public MessageType Type;
    /// <summary>Qualifies the type.</summary>
    [FieldOffset(7)] public MessageFlags Flags;
    /// <summary>The sender's view.</summary>
    [FieldOffset(8)] public ViewNumber View;
    /// <summary>The cluster's life.</summary>
    [FieldOffset(12)] public Epoch Epoch;
    /// <summary>The sender.</summary>
    [FieldOffset(16)] public NodeId Source;
    /// <summary>The node on whose behalf this travels.</summary>
    [FieldOffset(18)] public NodeId Requestor;
    /// <summary>DataM: how many InvAcks the requestor must collect.</summary>
    [FieldOffset(20)] public ushort AckCount;
    /// <summary>The virtual network.</summary>
    [FieldOffset(22)] public VirtualNetwork Network;
    /// <summary>Zero.</summary>
    [FieldOffset(23)] public byte Reserved0;
    /// <summary>The requestor's transaction.</summary>
    [FieldOffset(24)] public uint Transaction;
    /// <summary>Pages (or extents) that this is about, from <see cref="Page"/> on.</summary>
    [FieldOffset(28)] public uint Count;
    /// <summary>Position in the session's stream to this peer, from 1.</summary>
    [FieldOffset(32)] public ulong Sequence;
    /// <summary>The last sequence number of the peer that has been taken.</summary>
    [FieldOffset(40)] public ulong CumulativeAck;
    /// <summary>The region.</summary>
    [FieldOffset(48)] public RegionId Region;
    /// <summary>The first page.</summary>
    [FieldOffset(56)] public PageNumber Page;
    /// <summary>Version of the pages.</summary>
    [FieldOffset(64)] public PageVersion PageVersion;
    /// <summary>Bytes that follow the header.</summary>
    [FieldOffset(68)] public uint PayloadBytes;
    /// <summary>CRC32C of header (with this field zero) and payload.</summary>
    [FieldOffset(72)] public uint Crc;
    /// <summary>Coherence and recovery: the generation of the region's directories that this belongs to; else zero.</summary>
    [FieldOffset(76)] public Generation Generation;
    /// <summary>Depends on the type.</summary>
    [FieldOffset(80)] public ulong Argument0;
    /// <summary>Depends on the type.</summary>
    [FieldOffset(88)] public ulong Argument1;
    /// <summary>Room for an authentication tag; zero.</summary>
    [FieldOffset(96)] public ulong Tag0;
    /// <summary>Room for an authentication tag; zero.</summary>
    [FieldOffset(104)] public ulong Tag1;
    /// <summary>Zero.</summary>
    [FieldOffset(112)] public ulong Reserved2;
    /// <summary>Zero.</summary>
    [FieldOffset(120)] public ulong Reserved3;

    /// <summary>The fields of a frame that carry a message; its sender is the session's to say.</summary>
    public static FrameHeader Of(in Message message) => new()
    {
        Type = message.Type,
        Flags = message.Flags,
        Requestor = message.Requestor,
        AckCount = message.AckCount,
        Network = MessageTypes.NetworkOf(message.Type),
        Transaction = message.Transaction,
        Count = message.Count,
        Region = message.Region,
        Page = message.Page,
        PageVersion = message.Version,
        Generation = message.Generation,
    };

    /// <summary>The message that a frame carries.</summary>
    public readonly Message ToMessage() => new()
    {
        Type = Type,
        Flags = Flags,
        Source = Source,
        Requestor = Requestor,
        AckCount = AckCount,
        Transaction = Transaction,
        Count = Count,
        Region = Region,
        Page = Page,
        Version = PageVersion,
        Generation = Generation,
    };
}
