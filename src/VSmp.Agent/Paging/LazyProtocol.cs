// SPDX-License-Identifier: Apache-2.0
using VSmp.Coherence;
using VSmp.Coherence.Lazy;
using VSmp.Coherence.Messages;
using VSmp.Coherence.Nodes;

namespace VSmp.Agent.Paging;

/// <summary>A region under lazy release consistency: many writers, made coherent at acquire and release.</summary>
/// <param name="region">The region.</param>
/// <param name="node">This node's side of the protocol.</param>
/// <param name="home">The home's side, for the extents whose home is here.</param>
internal sealed class LazyProtocol(LazyRegion region, LazyNodeController node, LazyHomeController home) : IRegionProtocol
{
    /// <summary>The region.</summary>
    public LazyRegion Region => region;

    /// <inheritdoc/>
    public RegionLayout Layout => region;

    /// <inheritdoc/>
    public bool AsksBeforeWriting => false;

    /// <inheritdoc/>
    public PageCopy CopyOf(PageNumber page) => region.PageAt(page).State switch
    {
        LazyState.I => PageCopy.None,
        LazyState.R => PageCopy.Clean,
        LazyState.W => PageCopy.Writable,
        _ => PageCopy.UnderWay,
    };

    /// <inheritdoc/>
    public bool IsFresh(PageNumber page) => false; // only the home knows

    /// <inheritdoc/>
    public AccessResult Access(PageNumber page, bool write, EffectBuffer effects) => node.Access(region, page, write, effects);

    /// <inheritdoc/>
    /// <remarks>To read only: a twin costs a frame, and a page that is not written after all would be noticed for nothing.</remarks>
    public bool TryAskAhead(PageNumber page, bool write, EffectBuffer effects) =>
        region.PageAt(page).State == LazyState.I && Access(page, write: false, effects) == AccessResult.Pending;

    /// <inheritdoc/>
    public bool TryEvict(PageNumber page, EffectBuffer effects) => node.TryEvict(region, page, effects);

    /// <inheritdoc/>
    public void Hold(PageNumber page) => LazyNodeController.Hold(region, page);

    /// <inheritdoc/>
    public void Unhold(PageNumber page, EffectBuffer effects) => LazyNodeController.Unhold(region, page);

    /// <inheritdoc/>
    public void OnMessage(in Message message, EffectBuffer effects)
    {
        if (LazyHomeController.Takes(message.Type)) home.OnMessage(region, in message, effects);
        else node.OnMessage(region, in message, effects);
    }

    /// <inheritdoc/>
    public AccessResult Discard(PageNumber page, EffectBuffer effects) => throw Unsupported();

    /// <inheritdoc/>
    public AccessResult Forget(PageNumber page, EffectBuffer effects) => throw Unsupported();

    /// <inheritdoc/>
    public void Drop()
    {
    }

    private static NotSupportedException Unsupported() => new("the pages of a region that ranks share stay until the region goes");
}
