// SPDX-License-Identifier: Apache-2.0
using System.Runtime.InteropServices;
using System.Text;
using VSmp.Agent.Fabric;
using VSmp.Coherence;
using VSmp.Coherence.Messages;
using Xunit;

namespace VSmp.Agent.Tests.Fabric;

/// <summary>
/// Freezes what agents of one wire version say to each other. A change here breaks running clusters: it needs an ADR and another
/// <see cref="FrameHeader.CurrentVersion"/>.
/// </summary>
public sealed class WireFormatTests
{
    [Fact]
    public void A_header_has_every_field_where_the_format_says()
    {
        var header = new FrameHeader
        {
            Magic = FrameHeader.MagicValue,
            Version = FrameHeader.CurrentVersion,
            Type = MessageType.DataM,
            Flags = MessageFlags.NoData,
            View = new ViewNumber(0x04030201),
            Epoch = new Epoch(0x14131211),
            Source = new NodeId(0x2221),
            Requestor = new NodeId(0x3231),
            AckCount = 0x4241,
            Network = VirtualNetwork.Response,
            Reserved0 = 0x51,
            Transaction = 0x64636261,
            Count = 0x74737271,
            Sequence = 0x8887868584838281,
            CumulativeAck = 0x9897969594939291,
            Region = new RegionId(0xA8A7A6A5A4A3A2A1),
            Page = new PageNumber(0xB8B7B6B5B4B3B2B1),
            PageVersion = new PageVersion(0xC4C3C2C1),
            PayloadBytes = 0xD4D3D2D1,
            Crc = 0xE4E3E2E1,
            Generation = new Generation(0xF4F3F2F1),
            Argument0 = 0x0807060504030201,
            Argument1 = 0x1817161514131211,
            Tag0 = 0x2827262524232221,
            Tag1 = 0x3837363534333231,
            Reserved2 = 0x4847464544434241,
            Reserved3 = 0x5857565554535251,
        };
        Assert.Equal(
            "56534D50" + "0800" + "21" + "02" + "01020304" + "11121314"
            + "2122" + "3132" + "4142" + "02" + "51" + "61626364" + "71727374"
            + "8182838485868788" + "9192939495969798"
            + "A1A2A3A4A5A6A7A8" + "B1B2B3B4B5B6B7B8"
            + "C1C2C3C4" + "D1D2D3D4" + "E1E2E3E4" + "F1F2F3F4"
            + "0102030405060708" + "1112131415161718"
            + "2122232425262728" + "3132333435363738"
            + "4142434445464748" + "5152535455565758",
            Convert.ToHexString(MemoryMarshal.AsBytes(new ReadOnlySpan<FrameHeader>(in header))));
    }

    [Fact]
    public void A_message_comes_out_of_a_frame_as_it_went_in_and_the_source_is_the_frames()
    {
        Message sent = new()
        {
            Type = MessageType.FwdGetM,
            Flags = MessageFlags.Prefetch,
            Source = new NodeId(1), // says nothing: sessions know who sends
            Requestor = new NodeId(2),
            AckCount = 3,
            Transaction = 4,
            Count = 5,
            Region = new RegionId(6),
            Page = new PageNumber(7),
            Version = new PageVersion(8),
            Generation = new Generation(9),
        };
        foreach (System.Reflection.FieldInfo field in typeof(Message).GetFields())
        {
            Assert.NotEqual(Activator.CreateInstance(field.FieldType), field.GetValue(sent)); // one that is added belongs in here
        }
        FrameHeader frame = FrameHeader.Of(in sent) with { Source = new NodeId(10) };
        Assert.Equal(VirtualNetwork.Forward, frame.Network);
        Assert.Equal(sent with { Source = new NodeId(10) }, frame.ToMessage());
    }

    [Fact]
    public void Enumerations_on_the_wire_have_the_values_that_they_always_had()
    {
        Assert.Equal(
            "None=0 GetS=1 GetM=2 Upgrade=3 PutM=4 PutZ=5 PutE=6 PutO=7 Diff=8 MirrorPut=9 FwdGetS=16 FwdGetM=17 Inv=18 PutAck=19 WritebackAck=20 OwnerGrant=21 SoleGrant=22 Recall=23 Promote=24 DataS=32 DataM=33 InvAck=34 "
            + "InstallAck=35 Nack=37 Writeback=38 DataE=39 WritebackClean=40 DiffAck=41 MirrorAck=42 Poisoned=43 Recalled=44 ReserveExtents=64 ReserveReply=65 ReleaseExtents=66 DropRegion=67 "
            + "DropRegionAck=68 JobCall=72 JobReply=73 JobRankGone=74 JobAttach=75 JobAttachReply=76 JobDetach=77 JobAbort=78 JobWrites=79 "
            + "NodeReport=80 ViewChange=81 Leave=82 AskView=83 ProposeView=84 NodeAsk=85 NodeAnswer=86 JobStart=88 JobOutput=89 JobOutputAck=90 JobSignal=91 JobNotices=92 JobInput=93 JobInputAck=94 "
            + "RegionFreeze=96 RegionFrozen=97 RegionRebuild=98 RegionClaims=99 RegionRebuilt=100 RegionThaw=101 RegionMirror=102 RegionMirrored=103 RegionsHeld=104 CheckpointOrder=112 CheckpointDone=113 CheckpointLoad=114 CheckpointLoaded=115 "
            + "SessionAck=128 SessionClose=129", Values<MessageType>());
        Assert.Equal("None=0 Zero=1 NoData=2 Prefetch=4 FromOwner=8", Values<MessageFlags>());
        Assert.Equal("Request=0 Forward=1 Response=2", Values<VirtualNetwork>());
        Assert.Equal("Session=1 Join=2 Record=3", Values<HandshakePurpose>());
        Assert.StartsWith(
            "Ok=0 OtherVersion=1 OtherCluster=2 WrongSecret=3 OtherEpoch=4 NotAMember=5 OtherSession=6 NameTaken=7 Redirect=8 "
            + "Full=9 NotReady=10 BadRequest=11 OtherTransport=12 OtherMembership=13 ", Values<HandshakeStatus>(), StringComparison.Ordinal);
        Assert.Equal((8, 128, 65536), (FrameHeader.CurrentVersion, FrameHeader.Bytes, FrameHeader.MaxPayloadBytes));
    }

    [Fact]
    public void Every_message_type_has_rules_and_a_frame_that_satisfies_them()
    {
        foreach (MessageType type in Enum.GetValues<MessageType>())
        {
            var header = new FrameHeader
            {
                Type = type,
                Network = MessageTypes.NetworkOf(type),
                Count = 1,
                Flags = MessageFlags.Zero
            };
            if (type == MessageType.None) Assert.Equal("an unknown type", FrameRules.Violation(header));
            else Assert.Null(FrameRules.Violation(header));
        }
    }

    [Theory]
    [InlineData(MessageType.DataS, MessageFlags.None, 1u, 4095u)]
    [InlineData(MessageType.DataS, MessageFlags.None, 2u, 4096u)]
    [InlineData(MessageType.DataM, MessageFlags.None, 17u, 17u * 4096)]
    [InlineData(MessageType.DataM, MessageFlags.NoData, 1u, 4096u)]
    [InlineData(MessageType.PutM, MessageFlags.Zero, 1u, 4096u)]
    [InlineData(MessageType.GetS, MessageFlags.None, 0u, 0u)]
    [InlineData(MessageType.GetS, MessageFlags.None, FrameRules.MaxCount + 1, 0u)]
    [InlineData(MessageType.Inv, MessageFlags.None, 1u, 1u)]
    [InlineData(MessageType.NodeReport, MessageFlags.None, 0u, 65537u)]
    [InlineData(MessageType.Diff, MessageFlags.None, 2u, 5u)]
    [InlineData(MessageType.Diff, MessageFlags.None, 1u, 10241u)]
    [InlineData(MessageType.SessionAck, MessageFlags.None, 0u, 8u)]
    [InlineData(MessageType.GetS, (MessageFlags)8, 1u, 0u)]
    [InlineData((MessageType)200, MessageFlags.None, 1u, 0u)]
    public void Counts_flags_and_lengths_that_do_not_fit_together_are_violations(MessageType type, MessageFlags flags,
        uint count, uint bytes)
    {
        var header = new FrameHeader
        {
            Type = type,
            Network = MessageTypes.NetworkOf(type),
            Flags = flags,
            Count = count,
            PayloadBytes = bytes
        };
        Assert.NotNull(FrameRules.Violation(header));
    }

    [Fact]
    public void A_page_range_that_wraps_around_is_a_violation()
    {
        var header = new FrameHeader { Type = MessageType.GetS, Count = 2, Page = new PageNumber((1ul << 52) - 2) };
        Assert.Null(FrameRules.Violation(header));
        header.Page = new PageNumber((1ul << 52) - 1);
        Assert.NotNull(FrameRules.Violation(header));
        header.Page = new PageNumber(ulong.MaxValue);
        Assert.NotNull(FrameRules.Violation(header));
    }

    [Fact]
    public void The_checksum_is_CRC_32C()
    {
        Assert.Equal(0xE3069283u, Crc("123456789"u8.ToArray())); // the check value of the catalogue
        Assert.Equal(0x8A9136AAu, Crc(new byte[32])); // RFC 3720, B.4
        Assert.Equal(0u, Crc([]));
        var random = new Random(3);
        foreach (int length in (int[])[1, 7, 8, 9, 127, 128, 383, 384, 385, 1151, 3071, 3072, 3073, 4096, 4224, 10_000, 65_664])
        {
            byte[] bytes = new byte[length];
            random.NextBytes(bytes);
            Assert.Equal(BitwiseCrc(bytes), Crc(bytes));
        }
    }

    private static string Values<T>() where T : struct, Enum
    {
        var text = new StringBuilder();
        foreach (T value in Enum.GetValues<T>()) text.Append($"{value}={Convert.ToInt32(value)} ");
        return text.ToString().Trim();
    }

    private static unsafe uint Crc(byte[] bytes)
    {
        // SAFETY: the array is pinned during the call.
        fixed (byte* start = bytes) return Crc32C.Compute(start, bytes.Length);
    }

    private static uint BitwiseCrc(byte[] bytes)
    {
        uint crc = uint.MaxValue;
        foreach (byte b in bytes)
        {
            crc ^= b;
            for (int i = 0; i < 8; i++) crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0x82F63B78 : 0);
        }
        return ~crc;
    }
}
