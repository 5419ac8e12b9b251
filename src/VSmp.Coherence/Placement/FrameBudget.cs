// SPDX-License-Identifier: Apache-2.0
namespace VSmp.Coherence.Placement;

/// <summary>
/// How many local frames the guests of one budget may have for pages whose home is elsewhere. A requestor takes a frame out of it
/// before it asks for a page, so that a response never waits for an eviction.
/// </summary>
/// <param name="limitPages">Frames allowed; at least one.</param>
public sealed class FrameBudget(long limitPages)
{
    /// <summary>Frames allowed.</summary>
    public long LimitPages { get; private set; } = limitPages;

    /// <summary>Frames taken: filled, or reserved for data under way.</summary>
    public long UsedPages { get; private set; }

    /// <summary>Frames that can still be taken; negative after the limit was lowered.</summary>
    public long FreePages => LimitPages - UsedPages;

    /// <summary>Takes a frame if there is one.</summary>
    public bool TryReserve()
    {
        if (UsedPages >= LimitPages) return false;
        UsedPages++;
        return true;
    }

    /// <summary>Takes a frame that is there already, allowed or not.</summary>
    public void Reserve() => UsedPages++;

    /// <summary>Gives frames back.</summary>
    public void Release(long pageCount = 1)
    {
        if (pageCount > UsedPages) throw new InvalidOperationException("more frames given back than were taken");
        UsedPages -= pageCount;
    }

    /// <summary>Changes what is allowed; what is used beyond it must be evicted.</summary>
    public void SetLimit(long pages) => LimitPages = Math.Max(1, pages);
}
