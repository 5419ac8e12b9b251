// SPDX-License-Identifier: Apache-2.0
using System.Buffers.Binary;
using System.Runtime.InteropServices;
using VSmp.Coherence;
using VSmp.Coherence.Homes;
using VSmp.Coherence.Nodes;
using VSmp.Coherence.Protocols;

namespace VSmp.Agent.Auditing;

/// <summary>As what a node has something of a page.</summary>
internal enum PageRole : byte
{
    /// <summary>As one whose guests use it.</summary>
    User = 1,
    /// <summary>As its home.</summary>
    Home = 2,
    /// <summary>As its mirror.</summary>
    Mirror = 3,
}

/// <summary>What a node has of neighbouring pages that are all alike: 32 bytes, as they travel.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct PageRun
{
    /// <summary>Its size.</summary>
    public const int Bytes = 32;

    /// <summary>The first page's number.</summary>
    public ulong Page;
    /// <summary>Whom the directory takes for sharers, a bit for each remainder of 64.</summary>
    public ulong Sharers;
    /// <summary>How many.</summary>
    public uint Count;
    /// <summary>Version of the contents, or of the last grant.</summary>
    public uint Version;
    /// <summary>The owner, at the home.</summary>
    public ushort Owner;
    /// <summary>As what.</summary>
    public PageRole Role;
    /// <summary>A <see cref="NodeState"/>, <see cref="DirectoryState"/> or <see cref="MirrorContents"/>.</summary>
    public byte State;
    /// <summary>At the home: <see cref="DirectoryFlags"/>.</summary>
    public byte Flags;
    private readonly byte _zero0;
    private readonly ushort _zero1;

    /// <summary>Whether a page of the other run is like one of this.</summary>
    public readonly bool IsLike(in PageRun other) => Role == other.Role && State == other.State && Flags == other.Flags && Version == other.Version
        && Owner == other.Owner && Sharers == other.Sharers;
}

/// <summary>What one node has of the pages of some extents, at one moment.</summary>
/// <param name="Node">The node.</param>
/// <param name="Generation">The region's generation there.</param>
/// <param name="IsFrozen">Whether its directories are being rebuilt.</param>
/// <param name="Runs">What it has; of pages that it has nothing of it says nothing, and nothing of fresh pages at a home.</param>
internal sealed record PagesAudit(NodeId Node, uint Generation, bool IsFrozen, PageRun[] Runs)
{
    private const int HeadBytes = 8;

    /// <summary>Looks.</summary>
    public static PagesAudit Of(NodeId self, Region region, ExtentNumber first, uint count, int nodeLimit)
    {
        var runs = new List<PageRun>();
        for (uint e = 0; e < count && first.Value + e < region.ExtentCount; e++)
        {
            ExtentNumber extent = new(first.Value + e);
            bool isOpen = region.IsOpen(extent), isHome = region.IsHome(extent) && region.IsTouched(extent), isMirror = region.Mirrored.IsTouched(extent);
            for (uint i = 0; isOpen && i < ExtentNumber.Pages; i++) AddUser(runs, region, extent.FirstPage.Plus(i));
            for (uint i = 0; isHome && i < ExtentNumber.Pages; i++) AddHome(runs, region, extent.FirstPage.Plus(i), nodeLimit);
            for (uint i = 0; isMirror && i < ExtentNumber.Pages; i++)
            {
                ref MirrorEntry entry = ref region.Mirrored.At(extent.FirstPage.Plus(i));
                Add(runs, new PageRun { Page = extent.FirstPage.Value + i, Count = 1, Role = PageRole.Mirror, State = (byte)entry.Contents, Version = entry.Version.Value });
            }
        }
        return new PagesAudit(self, region.Generation.Value, region.IsFrozen, [.. runs]);
    }

    /// <summary>As bytes: <code>generation 32 │ is frozen 8 │ zero 24 │ runs</code></summary>
    public byte[] Write()
    {
        byte[] bytes = new byte[HeadBytes + (Runs.Length * PageRun.Bytes)];
        BinaryPrimitives.WriteUInt32LittleEndian(bytes, Generation);
        bytes[4] = IsFrozen ? (byte)1 : (byte)0;
        MemoryMarshal.AsBytes(Runs.AsSpan()).CopyTo(bytes.AsSpan(HeadBytes));
        return bytes;
    }

    /// <summary>From bytes.</summary>
    /// <exception cref="FormatException">They are none.</exception>
    public static PagesAudit Read(NodeId node, ReadOnlySpan<byte> bytes)
    {
        if (bytes.Length < HeadBytes || (bytes.Length - HeadBytes) % PageRun.Bytes != 0) throw new FormatException($"{node} has answered {bytes.Length} bytes");
        return new PagesAudit(node, BinaryPrimitives.ReadUInt32LittleEndian(bytes), bytes[4] != 0, MemoryMarshal.Cast<byte, PageRun>(bytes[HeadBytes..]).ToArray());
    }

    private static void AddUser(List<PageRun> runs, Region region, PageNumber page)
    {
        ref PageEntry entry = ref region.PageAt(page);
        if (entry.State == NodeState.I) return;
        Add(runs, new PageRun { Page = page.Value, Count = 1, Role = PageRole.User, State = (byte)entry.State, Version = entry.Version.Value });
    }

    private static void AddHome(List<PageRun> runs, Region region, PageNumber page, int nodeLimit)
    {
        ref DirectoryEntry entry = ref region.EntryAt(page);
        ulong sharers = 0;
        for (ushort n = 0; entry.State is not (DirectoryState.I or DirectoryState.M) && n < nodeLimit; n++)
        {
            if (entry.MayShare(new NodeId(n))) sharers |= 1ul << (n & 63);
        }
        Add(runs, new PageRun
        {
            Page = page.Value,
            Count = 1,
            Role = PageRole.Home,
            State = (byte)entry.State,
            Flags = (byte)entry.Flags,
            Version = entry.Version.Value,
            Owner = entry.Owner.Value,
            Sharers = sharers,
        });
    }

    private static void Add(List<PageRun> runs, PageRun next)
    {
        if (runs.Count > 0 && runs[^1] is var last && last.Page + last.Count == next.Page && last.IsLike(in next)) runs[^1] = last with { Count = last.Count + 1 };
        else runs.Add(next);
    }
}
