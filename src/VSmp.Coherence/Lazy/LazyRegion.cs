// SPDX-License-Identifier: Apache-2.0
using VSmp.Coherence.Placement;

namespace VSmp.Coherence.Lazy;

/// <summary>What one node knows of a region under lazy release consistency.</summary>
public sealed class LazyRegion : RegionLayout
{
    private readonly LazyPage[]?[] _pages;
    private readonly bool[]?[] _isTouched;

    /// <summary>Makes a region of which nothing is here yet.</summary>
    /// <param name="id">Its number.</param>
    /// <param name="name">Its name, for messages.</param>
    /// <param name="extentCount">Its length in extents.</param>
    /// <param name="homes">Where its homes are; null at a node that is only a home.</param>
    /// <param name="budget">Frames for pages whose home is elsewhere, and for their twins; null at a node that is only a home.</param>
    public LazyRegion(RegionId id, string name, int extentCount, HomeMap? homes, FrameBudget? budget)
        : base(id, name, extentCount, homes, budget)
    {
        _pages = new LazyPage[]?[homes is null ? 0 : extentCount];
        _isTouched = new bool[]?[extentCount];
    }

    /// <inheritdoc/>
    public override string ProtocolName => LazyRelease.Name;

    /// <summary>Whether a release has begun whose notices have not been taken yet (<see cref="LazyNodeController.TryTakeNotices"/>).</summary>
    public bool IsReleasing => Unannounced.Count > 0;

    /// <summary>Pages written here since the last release.</summary>
    internal List<PageNumber> Dirty { get; } = [];

    /// <summary>Pages released here whose notices have not been taken yet.</summary>
    internal List<PageNumber> Unannounced { get; } = [];

    /// <summary>Diffs that the homes have not acknowledged yet.</summary>
    internal int DiffsOut { get; set; }

    /// <inheritdoc/>
    public override bool IsOpen(ExtentNumber extent) => extent.Value < (uint)_pages.Length && _pages[extent.Value] is not null;

    /// <inheritdoc/>
    public override bool IsHome(ExtentNumber extent) => extent.Value < (uint)_isTouched.Length && _isTouched[extent.Value] is not null;

    /// <inheritdoc/>
    public override void Open(ExtentNumber extent) => _pages[extent.Value] ??= new LazyPage[ExtentNumber.Pages];

    /// <inheritdoc/>
    public override void Close(ExtentNumber extent)
    {
        foreach (ref LazyPage page in _pages[extent.Value].AsSpan())
        {
            if (page.State != LazyState.I) throw new InvalidOperationException($"{extent} of {Id} is closed with a page in {page.State}");
        }
        _pages[extent.Value] = null;
    }

    /// <inheritdoc/>
    public override bool BecomeHome(ExtentNumber extent)
    {
        if (_isTouched[extent.Value] is not null) return false;
        _isTouched[extent.Value] = new bool[ExtentNumber.Pages];
        HomeExtentCount++;
        return true;
    }

    /// <inheritdoc/>
    public override bool ResignHome(ExtentNumber extent)
    {
        if (!IsHome(extent)) return false;
        _isTouched[extent.Value] = null;
        HomeExtentCount--;
        return true;
    }

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
