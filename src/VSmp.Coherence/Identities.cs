// SPDX-License-Identifier: Apache-2.0
namespace VSmp.Coherence;

/// <summary>A node of the cluster, numbered by the coordinator when it joins; numbers are not used again within an epoch.</summary>
/// <param name="Value">0 … 65534; 65535 stands for no node.</param>
public readonly record struct NodeId(ushort Value)
{
    /// <summary>No node.</summary>
    public static NodeId None => new(ushort.MaxValue);

    /// <summary>Whether this names no node.</summary>
    public bool IsNone => Value == ushort.MaxValue;

    /// <inheritdoc/>
    public override string ToString() => IsNone ? "none" : $"node {Value}";
}

/// <summary>A named coherent address range. The number is unique in an epoch: its top 16 bits are the node that made it.</summary>
/// <param name="Value">Creating node in bits 63…48, that node's counter below.</param>
public readonly record struct RegionId(ulong Value)
{
    /// <summary>The region that <paramref name="creator"/> makes as its <paramref name="counter"/>-th.</summary>
    public static RegionId Create(NodeId creator, ulong counter) => new(((ulong)creator.Value << 48) | (counter & 0xFFFF_FFFF_FFFF));

    /// <summary>The node that made the region.</summary>
    public NodeId Creator => new((ushort)(Value >> 48));

    /// <inheritdoc/>
    public override string ToString() => $"region {Creator.Value}.{Value & 0xFFFF_FFFF_FFFF}";
}

/// <summary>A 4 KiB page of a region: the unit of coherence.</summary>
/// <param name="Value">Offset in the region, in pages.</param>
public readonly record struct PageNumber(ulong Value)
{
    /// <summary>log2 of the page size.</summary>
    public const int Shift = 12;

    /// <summary>Bytes of a page.</summary>
    public const int Bytes = 1 << Shift;

    /// <summary>Byte offset in the region.</summary>
    public ulong Offset => Value << Shift;

    /// <summary>The extent that the page lies in.</summary>
    public ExtentNumber Extent => new((uint)(Value >> ExtentNumber.PagesShift));

    /// <summary>The page <paramref name="pageCount"/> pages further on.</summary>
    public PageNumber Plus(uint pageCount) => new(Value + pageCount);

    /// <inheritdoc/>
    public override string ToString() => $"page {Value}";
}

/// <summary>2 MiB of pages: the unit of placement and of reservation.</summary>
/// <param name="Value">Offset in the region, in extents.</param>
public readonly record struct ExtentNumber(uint Value)
{
    /// <summary>log2 of <see cref="Pages"/>.</summary>
    public const int PagesShift = 9;

    /// <summary>Pages of an extent.</summary>
    public const int Pages = 1 << PagesShift;

    /// <summary>Bytes of an extent.</summary>
    public const int Bytes = Pages * PageNumber.Bytes;

    /// <summary>The extent's first page.</summary>
    public PageNumber FirstPage => new((ulong)Value << PagesShift);

    /// <inheritdoc/>
    public override string ToString() => $"extent {Value}";
}

/// <summary>A generation of the membership.</summary>
/// <param name="Value">Counts up from 1.</param>
public readonly record struct ViewNumber(uint Value);

/// <summary>One life of the cluster: what another life sent is dropped.</summary>
/// <param name="Value">Drawn at random when the cluster is founded.</param>
public readonly record struct Epoch(uint Value);

/// <summary>
/// Counts how often a region's directories were rebuilt. What was sent before does not count after: it is dropped wherever it arrives.
/// </summary>
/// <param name="Value">0 when the region is made.</param>
public readonly record struct Generation(uint Value)
{
    /// <summary>The next one.</summary>
    public Generation Next() => new(checked(Value + 1));
}

/// <summary>Counts the write grants of a page: of two copies the one with the higher version is the newer.</summary>
/// <param name="Value">0 for a page that nobody has written.</param>
public readonly record struct PageVersion(uint Value)
{
    /// <summary>The version after one more write grant.</summary>
    public PageVersion Next() => new(checked(Value + 1));

    /// <summary>The version before the last write grant; there was one.</summary>
    public PageVersion Previous() => new(checked(Value - 1));
}
