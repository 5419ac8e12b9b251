// SPDX-License-Identifier: Apache-2.0
using System.Runtime.CompilerServices;
using VSmp.Coherence.Homes;
using VSmp.Coherence.Nodes;
using VSmp.Coherence.Placement;
using VSmp.Coherence.Protocols;

namespace VSmp.Coherence;

/// <summary>What one node knows of a region: the states of its pages here, and the directory of the extents that it is home to.</summary>
public sealed class Region : RegionLayout
{
    /// <summary>Stands for the directory of an extent that this node is home to, and of which no page was ever asked for: a word is enough.</summary>
    private static readonly DirectoryEntry[] Untouched = [];

    private readonly PageEntry[]?[] _pages;
    private readonly DirectoryEntry[]?[] _directory;

    /// <summary>Makes a region of which nothing is here yet.</summary>
    /// <param name="id">Its number.</param>
    /// <param name="name">Its name, for messages.</param>
    /// <param name="homes">Where its homes are; null at a node that is only a home.</param>
    /// <param name="extentCount">Its length in extents.</param>
    /// <param name="protocol">What keeps it coherent; the same at every node.</param>
    /// <param name="budget">Frames for pages whose home is elsewhere; null at a node that is only a home.</param>
    public Region(RegionId id, string name, int extentCount, Protocol protocol, HomeMap? homes, FrameBudget? budget)
        : base(id, name, extentCount, homes, budget)
    {
        Protocol = protocol;
        _pages = new PageEntry[]?[homes is null ? 0 : extentCount];
        _directory = new DirectoryEntry[]?[extentCount];
    }

    /// <summary>What keeps it coherent.</summary>
    public Protocol Protocol { get; }

    /// <inheritdoc/>
    public override string ProtocolName => Protocol.Name;

    /// <inheritdoc/>
    public override bool IsOpen(ExtentNumber extent) => extent.Value < (uint)_pages.Length && _pages[extent.Value] is not null;

    /// <inheritdoc/>
    public override bool IsHome(ExtentNumber extent) => extent.Value < (uint)_directory.Length && _directory[extent.Value] is not null;

    /// <summary>The state of a page here. Its extent must be open.</summary>
    public ref PageEntry PageAt(PageNumber page) => ref _pages[page.Extent.Value]![page.Value & (ExtentNumber.Pages - 1)];

    /// <summary>The page's directory entry. This node must be its home.</summary>
    public ref DirectoryEntry EntryAt(PageNumber page)
    {
        DirectoryEntry[] entries = _directory[page.Extent.Value]!;
        if (entries.Length == 0) entries = Touch(page.Extent);
        return ref entries[page.Value & (ExtentNumber.Pages - 1)];
    }

    /// <inheritdoc/>
    public override void Open(ExtentNumber extent)
    {
        if (_pages[extent.Value] is not null) throw new InvalidOperationException($"{extent} of {Id} is open already");
        _pages[extent.Value] = new PageEntry[ExtentNumber.Pages];
    }

    /// <inheritdoc/>
    public override void Close(ExtentNumber extent)
    {
        foreach (ref PageEntry page in _pages[extent.Value].AsSpan())
        {
            if (page.State != NodeState.I) throw new InvalidOperationException($"{extent} of {Id} is closed with a page in {page.State}");
        }
        _pages[extent.Value] = null;
    }

    /// <inheritdoc/>
    public override bool BecomeHome(ExtentNumber extent)
    {
        if (_directory[extent.Value] is not null) return false;
        _directory[extent.Value] = Untouched;
        HomeExtentCount++;
        return true;
    }

    /// <inheritdoc/>
    public override bool ResignHome(ExtentNumber extent)
    {
        if (!IsHome(extent)) return false;
        _directory[extent.Value] = null;
        HomeExtentCount--;
        return true;
    }

    /// <summary>The first page of an extent is asked for: from now on each of its pages has an entry.</summary>
    [MethodImpl(MethodImplOptions.NoInlining)]
    private DirectoryEntry[] Touch(ExtentNumber extent)
    {
        var entries = new DirectoryEntry[ExtentNumber.Pages];
        Array.Fill(entries, DirectoryEntry.Zero);
        return _directory[extent.Value] = entries;
    }
}
