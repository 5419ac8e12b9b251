// SPDX-License-Identifier: Apache-2.0
using VSmp.Coherence;
using VSmp.Coherence.Homes;
using VSmp.Coherence.Messages;
using VSmp.Coherence.Nodes;
using VSmp.Coherence.Protocols;

namespace VSmp.Agent.Paging;

/// <summary>A region whose pages have single writers, kept track of by directories: MSI and its kin.</summary>
/// <param name="region">The region.</param>
/// <param name="node">This node's side of the protocol.</param>
/// <param name="home">The home's side, for the extents whose home is here.</param>
/// <param name="mirror">The mirror's side, for the extents that are mirrored here.</param>
internal sealed class DirectoryProtocol(Region region, NodeController node, HomeController home, MirrorController mirror) : IRegionProtocol
{
    /// <summary>Its state.</summary>
    public Region Region => region;

    /// <inheritdoc/>
    public RegionLayout Layout => region;

    /// <inheritdoc/>
    public bool AsksBeforeWriting => true;

    /// <inheritdoc/>
    public PageCopy CopyOf(PageNumber page)
    {
        NodeState state = region.PageAt(page).State;
        if (state == NodeState.I) return PageCopy.None;
        if (!NodeStates.MayRead(state)) return PageCopy.UnderWay;
        // What is saved is write-protected until it is written again.
        if (NodeStates.MayWrite(state)) return region.Capture is { } capture && capture.IsSaved(page) ? PageCopy.Dirty : PageCopy.Writable;
        return NodeStates.IsDirty(state) ? PageCopy.Dirty : PageCopy.Clean;
    }

    /// <inheritdoc/>
    public bool IsFresh(PageNumber page) => (region.PageAt(page).Flags & PageFlags.MayBeWritten) == 0;

    /// <inheritdoc/>
    public AccessResult Access(PageNumber page, bool write, EffectBuffer effects) => node.Access(region, page, write, MessageFlags.None, effects);

    /// <inheritdoc/>
    public bool TryAskAhead(PageNumber page, bool write, EffectBuffer effects) => Access(page, write, effects) == AccessResult.Pending;

    /// <inheritdoc/>
    public bool TryEvict(PageNumber page, EffectBuffer effects) => node.TryEvict(region, page, effects);

    /// <inheritdoc/>
    public void Hold(PageNumber page) => NodeController.Hold(region, page);

    /// <inheritdoc/>
    public void Unhold(PageNumber page, EffectBuffer effects) => node.Unhold(region, page, effects);

    /// <inheritdoc/>
    public void OnMessage(in Message message, EffectBuffer effects)
    {
        if (message.Type == MessageType.MirrorPut) mirror.OnMessage(region, in message, effects);
        else if (HomeController.Takes(in message)) home.OnMessage(region, in message, effects);
        else node.OnMessage(region, in message, effects);
    }

    /// <inheritdoc/>
    public AccessResult Discard(PageNumber page, EffectBuffer effects) => node.Discard(region, page, effects);

    /// <inheritdoc/>
    public AccessResult Forget(PageNumber page, EffectBuffer effects) => NodeController.Forget(region, page, effects);

    /// <inheritdoc/>
    public void Drop()
    {
        node.Drop(region);
        home.Drop(region.Id);
    }
}
