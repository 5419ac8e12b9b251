// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent.Guests;
using VSmp.Agent.Paging;
using VSmp.Coherence;
using VSmp.Coherence.Placement;

namespace VSmp.Agent.Jobs;

/// <content>What the run of a job's ranks at a node tells of their regions.</content>
internal sealed partial class JobServer
{
    /// <summary>A region is made, or dropped: its run, if it has one here, counts where the homes are.</summary>
    private static void CountHomes(PagedRegion region, int sign)
    {
        if (region.Run is not { } run || region.Layout.Homes is not { } map) return;
        for (uint e = 0; e < region.Layout.ExtentCount; e++) run.Counters.AddHome(map.HomeOf(new ExtentNumber(e)), sign);
    }
}
