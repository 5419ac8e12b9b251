// SPDX-License-Identifier: Apache-2.0
using VSmp.Coherence.Messages;
using VSmp.Coherence.Protocols;
using VSmp.Coherence.Recovery;

namespace VSmp.Coherence.Nodes;

/// <content>What a node does when another was lost: freezes, says what it has, gives what it is asked for, goes on.</content>
public sealed partial class NodeController
{
    /// <summary>
    /// A node was lost, and the region's directories are to be rebuilt: whatever is under way is void, here and elsewhere. What may be the last copy
    /// of a page is kept until <see cref="Thaw"/>.
    /// </summary>
    /// <param name="region">The region, in its new generation.</param>
    /// <param name="effects">What is to be done.</param>
    public void Freeze(Region region, EffectBuffer effects)
    {
        _parked.RemoveAll(m => m.Region == region.Id);
        region.Capture?.Reset(); // which copies count is decided anew
        Message context = new() { Requestor = Self, Region = region.Id, Count = 1 };
        for (uint e = 0; e < region.ExtentCount; e++)
        {
            ExtentNumber extent = new(e);
            if (!region.IsOpen(extent)) continue;
            for (uint i = 0; i < ExtentNumber.Pages; i++)
            {
                PageNumber page = extent.FirstPage.Plus(i);
                NodeState before = region.PageAt(page).State;
                if (before is NodeState.I or NodeState.S or NodeState.M or NodeState.F) continue; // the table leaves them as they are
                Step(region, page, NodeEvent.Freeze, in context, effects);
                if (region.PageAt(page).State == NodeState.F) region.FrozenPages.Add(page);
            }
        }
    }

    /// <summary>An extent that this node may have copies of has its home here now: these live in the home's reservation, and cost the budget nothing.</summary>
    public static void OnBecameHome(Region region, ExtentNumber extent)
    {
        if (!region.IsOpen(extent)) return;
        for (uint i = 0; i < ExtentNumber.Pages; i++) ReturnFrame(region, ref region.PageAt(extent.FirstPage.Plus(i)));
    }

    /// <summary>The directories are there again: what was kept for them is dropped.</summary>
    public void Thaw(Region region, EffectBuffer effects)
    {
        Message context = new() { Requestor = Self, Region = region.Id, Count = 1 };
        foreach (PageNumber page in region.FrozenPages)
        {
            if (!region.IsOpen(page.Extent) || region.PageAt(page).State != NodeState.F) continue;
            Step(region, page, NodeEvent.Thaw, in context, effects);
            region.PageAt(page).Flags &= ~PageFlags.ThrownAway;
        }
        region.FrozenPages.Clear();
    }

    /// <summary>A page of an agent that was killed is taken over: what it had out of the budget, and what it was granted, is this one's.</summary>
    internal void Readopt(Region region, ref PageEntry entry)
    {
        if ((entry.Flags & PageFlags.HasFrame) != 0) region.Budget!.Reserve();
        if (!PageRecords.IsGranted(entry.State)) return;
        entry.Slot = _transactions.Take(_transactions.NextNumber());
        _transactions[entry.Slot].Version = entry.Version;
    }

    /// <summary>What this node has of an extent's pages, for their home to know.</summary>
    public static void ListClaims(Region region, ExtentNumber extent, List<Claim> claims)
    {
        if (!region.IsOpen(extent)) return;
        for (uint i = 0; i < ExtentNumber.Pages; i++)
        {
            PageNumber page = extent.FirstPage.Plus(i);
            ref PageEntry entry = ref region.PageAt(page);
            if (entry.State == NodeState.I) continue;
            var claim = new Claim(page, 1, entry.State switch
            {
                NodeState.S => ClaimKind.Shared,
                NodeState.O => ClaimKind.Owned,
                NodeState.M => ClaimKind.Modified,
                NodeState.F => (entry.Flags & PageFlags.ThrownAway) != 0 ? ClaimKind.ThrownAway : ClaimKind.Kept,
                _ => throw new InvalidOperationException($"{page} of {region.Id} is {entry.State}, and frozen"),
            }, entry.Version);
            if (claims.Count > 0 && claims[^1].TryExtend(claim, out Claim run)) claims[^1] = run;
            else claims.Add(claim);
        }
    }

    private void SendRecalled(Region region, PageNumber page, ref PageEntry entry, in Message m, EffectBuffer effects)
    {
        bool zero = (entry.Flags & PageFlags.KeptZero) != 0;
        bool isLive = entry.State != NodeState.F; // the frame is there
        MessageFlags flags = zero ? MessageFlags.Zero : 0;
        DataSource source = zero ? DataSource.None : isLive ? DataSource.Frame : DataSource.Kept;
        if (m.Source == Self && !zero)
        {
            // The home is here: what was kept goes back to where it came from.
            if (!isLive) effects.Add(EffectKind.RestoreKept, region.Id, page);
            flags = MessageFlags.NoData;
            source = DataSource.None;
        }
        Send(m.Source, MessageType.Recalled, flags, region, page, m.Transaction, entry.Version, effects, source, m.Requestor);
    }
}
