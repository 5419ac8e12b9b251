// SPDX-License-Identifier: Apache-2.0
using System.Runtime.InteropServices;
using System.Text;
using VSmp.Agent.Fabric;
using VSmp.Coherence;

namespace VSmp.Agent.Adopting;

/// <summary>Whether a region can be adopted from its state file. Values are in files.</summary>
internal enum Standing : uint
{
    /// <summary>The file is being made.</summary>
    Unfinished = 0,
    /// <summary>It can.</summary>
    Recorded = 1,
    /// <summary>Homes and mirrors change places, and what is recorded of their pages is partly of before and partly of after.</summary>
    Changing = 2,
    /// <summary>There was no room for what has to be recorded.</summary>
    NoRoom = 3,
    /// <summary>Its protocol says nothing that could be recorded.</summary>
    ProtocolWithoutRecords = 4,
}

/// <summary>What else is to be known of a region. Values are in files.</summary>
[Flags]
internal enum RegionTraits : uint
{
    /// <summary>Nothing.</summary>
    None = 0,
    /// <summary>Guests of this node use it; else the node is home or mirror only.</summary>
    IsUsed = 1,
    /// <summary>Ranks of a job share it.</summary>
    IsShared = 2,
    /// <summary>It was made to have second homes.</summary>
    IsMirrored = 4,
}

/// <summary>The first page of a state file: what the region is (checked by the checksum, never changed), then what changes, word by word.</summary>
[StructLayout(LayoutKind.Explicit, Size = Bytes)]
internal unsafe struct StateHeader
{
    /// <summary>Its length.</summary>
    public const int Bytes = 4096;

    /// <summary>The format's number.</summary>
    public const uint CurrentFormat = 1;

    /// <summary>Bytes of a build's mark.</summary>
    public const int BuildBytes = 32;

    private const ulong ExpectedMagic = 0x65746174_536D5356; // "VSmState"
    private const int MaxNameBytes = 512, MaxProtocolBytes = 24, FixedBytes = 1024;

    [FieldOffset(0)] private ulong _magic;
    [FieldOffset(8)] private uint _format;
    [FieldOffset(12)] private uint _checksum;
    [FieldOffset(16)] private fixed byte _build[BuildBytes];
    [FieldOffset(48)] private ulong _region;
    [FieldOffset(56)] private uint _extentCount;
    [FieldOffset(60)] private ushort _self;
    [FieldOffset(62)] private ushort _protocolBytes;
    [FieldOffset(64)] private ushort _nameBytes;
    [FieldOffset(72)] private fixed byte _protocol[MaxProtocolBytes];
    [FieldOffset(96)] private fixed byte _name[MaxNameBytes];

    /// <summary>Whether the region can be adopted.</summary>
    [FieldOffset(FixedBytes)] public Standing Standing;

    /// <summary>What else is to be known of it.</summary>
    [FieldOffset(FixedBytes + 4)] public RegionTraits Traits;

    /// <summary>Which generation of its directories counts.</summary>
    [FieldOffset(FixedBytes + 8)] public uint Generation;

    /// <summary>The mark of this build: what is recorded means what the code that recorded it says.</summary>
    public static byte[] Build { get; } =
    [
        .. typeof(StateHeader).Module.ModuleVersionId.ToByteArray(), .. typeof(Region).Module.ModuleVersionId.ToByteArray(),
    ];

    /// <summary>The region.</summary>
    public readonly RegionId Region => new(_region);

    /// <summary>Its length in extents.</summary>
    public readonly int ExtentCount => (int)_extentCount;

    /// <summary>The node whose agent recorded it.</summary>
    public readonly NodeId Self => new(_self);

    /// <summary>What users call the protocol that keeps it coherent.</summary>
    public readonly string Protocol
    {
        get
        {
            fixed (byte* text = _protocol) return Encoding.UTF8.GetString(text, _protocolBytes);
        }
    }

    /// <summary>Its name.</summary>
    public readonly string Name
    {
        get
        {
            fixed (byte* text = _name) return Encoding.UTF8.GetString(text, _nameBytes);
        }
    }

    /// <summary>Fills in what does not change.</summary>
    public void Describe(RegionLayout layout, NodeId self)
    {
        _magic = ExpectedMagic;
        _format = CurrentFormat;
        _region = layout.Id.Value;
        _extentCount = (uint)layout.ExtentCount;
        _self = self.Value;
        // SAFETY: each field is as long as is said.
        fixed (byte* build = _build, protocol = _protocol, name = _name)
        {
            Build.CopyTo(new Span<byte>(build, BuildBytes));
            _protocolBytes = Put(layout.ProtocolName, new Span<byte>(protocol, MaxProtocolBytes));
            _nameBytes = Put(layout.Name, new Span<byte>(name, MaxNameBytes));
        }
        _checksum = Checksum();
    }

    /// <summary>What is wrong with it; null if nothing is.</summary>
    public readonly string? Violation()
    {
        if (_magic != ExpectedMagic) return "it is no state file";
        if (_format != CurrentFormat) return $"it is of format {_format}, and this agent knows format {CurrentFormat}";
        fixed (byte* build = _build)
        {
            if (!new ReadOnlySpan<byte>(build, BuildBytes).SequenceEqual(Build)) return "it was recorded by another build of the agent";
        }
        if (_checksum != Checksum()) return "its header is damaged";
        if (_extentCount is 0 or > int.MaxValue / 2 || _protocolBytes > MaxProtocolBytes || _nameBytes > MaxNameBytes) return "its header makes no sense";
        if ((Traits & ~(RegionTraits.IsUsed | RegionTraits.IsShared | RegionTraits.IsMirrored)) != 0) return $"its traits are {(uint)Traits:x}";
        return Standing switch
        {
            Standing.Recorded => null,
            Standing.Unfinished => "it was being made when the agent died",
            Standing.Changing => "homes were changing places when the agent died",
            Standing.NoRoom => "there was no room to record it",
            Standing.ProtocolWithoutRecords => $"regions under the protocol {Protocol} are not recorded",
            _ => $"its standing is {(uint)Standing}",
        };
    }

    private readonly uint Checksum()
    {
        StateHeader copy = this;
        copy._checksum = 0;
        return Crc32C.Compute((byte*)&copy, FixedBytes);
    }

    /// <summary>As much of a text as there is room for.</summary>
    private static ushort Put(string text, Span<byte> room)
    {
        Encoding.UTF8.GetEncoder().Convert(text, room, flush: true, out _, out int bytes, out _);
        return (ushort)bytes;
    }
}

/// <summary>
/// What is recorded of an extent, in two words. The second is written first where the first begins to refer to it:
/// <code>roles 8 │ 0 24 │ home 16 │ mirror 16 ║ 0 16 │ mirror of the home here 16 │ its next mirror 16 │ home of the mirror here 16</code>
/// </summary>
/// <param name="Roles">What the node is to it.</param>
/// <param name="Home">Where its home is, as users of the region know; none if they do not.</param>
/// <param name="Mirror">Where it is mirrored, as the node that made the region knows.</param>
/// <param name="OwnMirror">Where it is mirrored, if its home is here.</param>
/// <param name="NextMirror">What is to take the mirror's place.</param>
/// <param name="MirroredHome">Where its home is, if it is mirrored here.</param>
internal readonly record struct ExtentRecord(ExtentRoles Roles, NodeId Home, NodeId Mirror, NodeId OwnMirror, NodeId NextMirror, NodeId MirroredHome)
{
    /// <summary>Bytes of it.</summary>
    public const int Bytes = 16;

    /// <summary>Nothing.</summary>
    public static ExtentRecord None { get; } = new(ExtentRoles.None, NodeId.None, NodeId.None, NodeId.None, NodeId.None, NodeId.None);

    // Numbers of nodes are inverted, so that nothing is 0: what was never written.
    private static ulong Word(NodeId node) => (ushort)~node.Value;

    private static NodeId Node(ulong word) => new((ushort)~(ushort)word);

    /// <summary>The first word.</summary>
    public ulong First => (byte)Roles | Word(Home) << 32 | Word(Mirror) << 48;

    /// <summary>The second word.</summary>
    public ulong Second => Word(OwnMirror) << 16 | Word(NextMirror) << 32 | Word(MirroredHome) << 48;

    /// <summary>From two words.</summary>
    public static ExtentRecord Of(ulong first, ulong second) =>
        new((ExtentRoles)(byte)first, Node(first >> 32), Node(first >> 48), Node(second >> 16), Node(second >> 32), Node(second >> 48));

    /// <summary>What is wrong with it; null if nothing is.</summary>
    /// <param name="first">Its first word.</param>
    /// <param name="second">Its second word.</param>
    /// <param name="traits">The region's.</param>
    public static string? Violation(ulong first, ulong second, RegionTraits traits)
    {
        ExtentRecord record = Of(first, second);
        const ExtentRoles Both = ExtentRoles.Home | ExtentRoles.Mirror;
        if (record.Roles > (ExtentRoles.Open | Both | ExtentRoles.Undecided) || (first >> 8 & 0xFF_FFFF) != 0 || (ushort)second != 0) return "it makes no sense";
        if ((record.Roles & Both) == Both) return "it is home and mirror at once";
        if ((record.Roles & (ExtentRoles.Home | ExtentRoles.Undecided)) == ExtentRoles.Undecided) return "it is undecided, and no home";
        if ((record.Roles & ExtentRoles.Mirror) != 0 && record.MirroredHome.IsNone) return "it is the mirror of nothing";
        bool isOpen = (record.Roles & ExtentRoles.Open) != 0;
        if (isOpen && ((traits & RegionTraits.IsUsed) == 0 || record.Home.IsNone)) return "it is open, and has no home";
        return null;
    }
}

/// <summary>What a node is to an extent. Values are in files.</summary>
[Flags]
internal enum ExtentRoles : byte
{
    /// <summary>Nothing.</summary>
    None = 0,
    /// <summary>Its guests use it.</summary>
    Open = 1,
    /// <summary>Its home.</summary>
    Home = 2,
    /// <summary>Its mirror.</summary>
    Mirror = 4,
    /// <summary>Its home, and was its mirror until a recovery that is not decided yet.</summary>
    Undecided = 8,
}
