// SPDX-License-Identifier: Apache-2.0
using VSmp.Coherence;

namespace VSmp.Agent.Paging;

/// <summary>Takes copies of a region's pages for a checkpoint.</summary>
internal interface IPageTaker
{
    /// <summary>Whether it has room: what can wait does until then.</summary>
    bool HasRoom { get; }

    /// <summary>Copies a page's frame, at once; whether it has room or not.</summary>
    void Take(PagedRegion region, PageNumber page);
}
