// SPDX-License-Identifier: Apache-2.0
using VSmp.Coherence.Placement;

namespace VSmp.Coherence.Lazy;

/// <summary>What one node knows of a region under lazy release consistency.</summary>
public sealed class LazyRegion
{
    private readonly LazyPage[]?[] _pages;
    private readonly bool[]?[] _isTouched;

    /// <summary>Makes a region of which nothing is here yet.</summary>
    /// <param name="id">Its number.</param>
    /// <param name="extentCount">Its length in extents.</param>
    /// <param name="homes">Where its homes are; null at a node that is only a home.</param>
    /// <param name="budget">Frames for pages whose home is elsewhere; null at a node that is only a home.</param>
    public LazyRegion(RegionId id, int extentCount, HomeMap? homes, FrameBudget? budget)
    {
        Id = id;
        Homes = homes;
        Budget = budget;
        _pages = new LazyPage[]?[homes is null ? 0 : extentCount];
        _isTouched = new bool[]?[extentCount];
    }

    /// <summary>Its number.</summary>
    public RegionId Id { get; }

    /// <summary>Where its homes are, if guests of this node use it.</summary>
    public HomeMap? Homes { get; }

    /// <summary>Frames for pages whose home is elsewhere, if guests of this node use it.</summary>
    public FrameBudget? Budget { get; }

    /// <summary>Its length in extents.</summary>
    public int ExtentCount => _isTouched.Length;

    /// <summary>Pages written here since the last release.</summary>
    internal List<PageNumber> Dirty { get; } = [];

    /// <summary>Pages released here whose notices have not been taken yet.</summary>
    internal List<PageNumber> Unannounced { get; } = [];

    /// <summary>Diffs that the homes have not acknowledged yet.</summary>
    internal int DiffsOut { get; set; }

    /// <summary>Whether this node's guests use the extent.</summary>
    public bool IsOpen(ExtentNumber extent) => extent.Value < (uint)_pages.Length && _pages[extent.Value] is not null;

    /// <summary>Whether this node is the extent's home.</summary>
    public bool IsHome(ExtentNumber extent) => extent.Value < (uint)_isTouched.Length && _isTouched[extent.Value] is not null;

    /// <summary>Lets this node's guests use an extent.</summary>
    public void Open(ExtentNumber extent) => _pages[extent.Value] ??= new LazyPage[ExtentNumber.Pages];

    /// <summary>Makes this node the home of an extent, all of whose pages are zeros.</summary>
    public void BecomeHome(ExtentNumber extent) => _isTouched[extent.Value] ??= new bool[ExtentNumber.Pages];

    /// <summary>The page here. Its extent must be open.</summary>
    public ref LazyPage PageAt(PageNumber page) => ref _pages[page.Extent.Value]![page.Value & (ExtentNumber.Pages - 1)];

    /// <summary>Whether the home copy has a frame; before, it is zeros. This node must be the home.</summary>
    internal ref bool IsTouched(PageNumber page) => ref _isTouched[page.Extent.Value]![page.Value & (ExtentNumber.Pages - 1)];
}

/// <summary>A page at a node under lazy release consistency.</summary>
public struct LazyPage
{
    /// <summary>Its state.</summary>
    public LazyState State;

    /// <summary>A local frame is taken out of the budget for it.</summary>
    internal bool HasFrame;

    /// <summary>Written since the last release: among <see cref="LazyRegion.Dirty"/>.</summary>
    internal bool IsDirty;

    /// <summary>Just granted: must stay until the thread that faulted could use it.</summary>
    internal bool IsHeld;
}
