// SPDX-License-Identifier: Apache-2.0
using VSmp.Coherence;
using VSmp.Coherence.Messages;
using VSmp.Coherence.Nodes;

namespace VSmp.Agent.Paging;

/// <summary>
/// A region's protocol as the pager sees it: what happens goes in, effects come out. One implementation for each family of protocols:
/// <see cref="DirectoryProtocol"/>, <see cref="LazyProtocol"/>.
/// </summary>
internal interface IRegionProtocol
{
    /// <summary>Where the region's extents are.</summary>
    RegionLayout Layout { get; }

    /// <summary>
    /// Whether asking for a page to write when it is only read yet saves a round trip later. (Where the right to write is taken without
    /// asking, it saves nothing.)
    /// </summary>
    bool AsksBeforeWriting { get; }

    /// <summary>What is here of a page. Its extent must be open.</summary>
    PageCopy CopyOf(PageNumber page);

    /// <summary>
    /// Whether this node was never granted to write a page since it was reserved: unless others use the region, too, what comes will be zeros. Its extent must be open.
    /// </summary>
    bool IsFresh(PageNumber page);

    /// <summary>A guest reads or writes a page.</summary>
    AccessResult Access(PageNumber page, bool write, EffectBuffer effects);

    /// <summary>Asks for a page that nobody touches yet, on the guess that somebody will.</summary>
    /// <returns>False if nothing was asked.</returns>
    bool TryAskAhead(PageNumber page, bool write, EffectBuffer effects);

    /// <summary>Starts to evict a copy.</summary>
    /// <returns>False if it cannot go now.</returns>
    bool TryEvict(PageNumber page, EffectBuffer effects);

    /// <summary>A page was just granted: it stays until <see cref="Unhold"/>.</summary>
    void Hold(PageNumber page);

    /// <summary>Ends a hold.</summary>
    void Unhold(PageNumber page, EffectBuffer effects);

    /// <summary>A message of a peer, or of this node to itself.</summary>
    /// <exception cref="ProtocolViolationException">It cannot be for this node in its present state.</exception>
    void OnMessage(in Message message, EffectBuffer effects);

    /// <summary>Throws a page's contents away. Its extent must be open.</summary>
    AccessResult Discard(PageNumber page, EffectBuffer effects);

    /// <summary>Drops a page whose extent is being given back. Its extent must be open.</summary>
    AccessResult Forget(PageNumber page, EffectBuffer effects);

    /// <summary>The region is gone.</summary>
    void Drop();
}

/// <summary>What a node has of a page.</summary>
internal enum PageCopy : byte
{
    /// <summary>Nothing.</summary>
    None,
    /// <summary>It is asked for, or on its way out.</summary>
    UnderWay,
    /// <summary>It may be read; the home has the same.</summary>
    Clean,
    /// <summary>It may be read; the home may lack it.</summary>
    Dirty,
    /// <summary>It is mapped writable; the home may lack it.</summary>
    Writable,
}
