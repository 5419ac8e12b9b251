// SPDX-License-Identifier: Apache-2.0
using System.Buffers.Binary;
using System.Text;
using VSmp.Agent.Interop;
using VSmp.Coherence;

namespace VSmp.Agent.Keeping;

/// <summary>What is held with a guest's pidfd: all that a later agent has to know to take it for its own.</summary>
/// <remarks>
/// Little-endian:
/// <code>
///   0  format (1)   4  process id   8  its start time, in clock ticks   16  region (0: a rank)   24  rank (−1: none)
///  28  bytes of the run's token   30  bytes of the name   32  token   …  name
/// </code>
/// </remarks>
/// <param name="Process">The process.</param>
/// <param name="Region">A program's region; null for a rank, which shares regions.</param>
/// <param name="Rank">A rank's number; null for a program.</param>
/// <param name="RunToken">The run that it is of.</param>
/// <param name="Name">What it is called, in messages.</param>
internal sealed record GuestRecord(ProcessIdentity Process, RegionId? Region, int? Rank, string RunToken, string Name)
{
    private const uint Format = 1;
    private const int HeaderBytes = 32, MostNameBytes = 1024;

    /// <summary>As bytes; a name that is too long is cut.</summary>
    public byte[] ToBytes()
    {
        byte[] token = Encoding.UTF8.GetBytes(RunToken), name = Encoding.UTF8.GetBytes(Name);
        if (token.Length > MostNameBytes) throw new InvalidOperationException($"a run's token has {token.Length} bytes");
        int nameBytes = Math.Min(name.Length, MostNameBytes);
        var bytes = new byte[HeaderBytes + token.Length + nameBytes];
        BinaryPrimitives.WriteUInt32LittleEndian(bytes, Format);
        BinaryPrimitives.WriteInt32LittleEndian(bytes.AsSpan(4), Process.ProcessId);
        BinaryPrimitives.WriteUInt64LittleEndian(bytes.AsSpan(8), Process.StartTicks);
        BinaryPrimitives.WriteUInt64LittleEndian(bytes.AsSpan(16), Region?.Value ?? 0);
        BinaryPrimitives.WriteInt32LittleEndian(bytes.AsSpan(24), Rank ?? -1);
        BinaryPrimitives.WriteUInt16LittleEndian(bytes.AsSpan(28), (ushort)token.Length);
        BinaryPrimitives.WriteUInt16LittleEndian(bytes.AsSpan(30), (ushort)nameBytes);
        token.CopyTo(bytes, HeaderBytes);
        name.AsSpan(0, nameBytes).CopyTo(bytes.AsSpan(HeaderBytes + token.Length));
        return bytes;
    }

    /// <summary>Reads what <see cref="ToBytes"/> wrote; null for anything else.</summary>
    public static GuestRecord? TryRead(ReadOnlySpan<byte> from)
    {
        if (from.Length < HeaderBytes || BinaryPrimitives.ReadUInt32LittleEndian(from) != Format) return null;
        int processId = BinaryPrimitives.ReadInt32LittleEndian(from[4..]), rank = BinaryPrimitives.ReadInt32LittleEndian(from[24..]);
        ulong region = BinaryPrimitives.ReadUInt64LittleEndian(from[16..]);
        int tokenBytes = BinaryPrimitives.ReadUInt16LittleEndian(from[28..]), nameBytes = BinaryPrimitives.ReadUInt16LittleEndian(from[30..]);
        if (processId <= 0 || rank < -1 || (region == 0) != (rank >= 0) || from.Length != HeaderBytes + tokenBytes + nameBytes) return null;
        return new GuestRecord(new ProcessIdentity(processId, BinaryPrimitives.ReadUInt64LittleEndian(from[8..])),
            region == 0 ? null : new RegionId(region), rank < 0 ? null : rank,
            Encoding.UTF8.GetString(from.Slice(HeaderBytes, tokenBytes)), Encoding.UTF8.GetString(from[(HeaderBytes + tokenBytes)..]));
    }
}

/// <summary>What is held with a userfaultfd: whose memory, of what, and where.</summary>
/// <remarks>
/// Little-endian:
/// <code>
///   0  format (1)   4  zero   8  key of the guest's hold   16  region   24  address in the guest   32  first page   40  pages
/// </code>
/// </remarks>
/// <param name="Guest">The hold of the guest.</param>
/// <param name="Region">What is mapped.</param>
/// <param name="Address">Where the guest has it.</param>
/// <param name="First">The region's page that is there.</param>
/// <param name="PageCount">How many follow, this one counted.</param>
internal sealed record MappingRecord(HoldKey Guest, RegionId Region, ulong Address, PageNumber First, ulong PageCount)
{
    private const uint Format = 1;
    private const int Bytes = 48;

    /// <summary>As bytes.</summary>
    public byte[] ToBytes()
    {
        var bytes = new byte[Bytes];
        BinaryPrimitives.WriteUInt32LittleEndian(bytes, Format);
        BinaryPrimitives.WriteUInt64LittleEndian(bytes.AsSpan(8), Guest.Value);
        BinaryPrimitives.WriteUInt64LittleEndian(bytes.AsSpan(16), Region.Value);
        BinaryPrimitives.WriteUInt64LittleEndian(bytes.AsSpan(24), Address);
        BinaryPrimitives.WriteUInt64LittleEndian(bytes.AsSpan(32), First.Value);
        BinaryPrimitives.WriteUInt64LittleEndian(bytes.AsSpan(40), PageCount);
        return bytes;
    }

    /// <summary>Reads what <see cref="ToBytes"/> wrote; null for anything else.</summary>
    public static MappingRecord? TryRead(ReadOnlySpan<byte> from)
    {
        if (from.Length != Bytes || BinaryPrimitives.ReadUInt64LittleEndian(from) != Format) return null;
        ulong address = BinaryPrimitives.ReadUInt64LittleEndian(from[24..]), first = BinaryPrimitives.ReadUInt64LittleEndian(from[32..]),
            count = BinaryPrimitives.ReadUInt64LittleEndian(from[40..]);
        const ulong MostPages = ulong.MaxValue >> PageNumber.Shift;
        if (address % PageNumber.Bytes != 0 || count is 0 or > MostPages || first > MostPages - count
            || count > (ulong.MaxValue - address) >> PageNumber.Shift)
        {
            return null;
        }
        return new MappingRecord(new HoldKey(BinaryPrimitives.ReadUInt64LittleEndian(from[8..])),
            new RegionId(BinaryPrimitives.ReadUInt64LittleEndian(from[16..])), address, new PageNumber(first), count);
    }
}
