// SPDX-License-Identifier: Apache-2.0
using VSmp.Coherence.Homes;
using VSmp.Coherence.Nodes;
using VSmp.Coherence.Protocols;

namespace VSmp.Coherence.Recovery;

/// <summary>What is left of a region's frames when its agent was killed, and what an adopting agent can do with them.</summary>
public interface IFramesLeft
{
    /// <summary>Whether the page has a frame, and not just a hole in the file.</summary>
    bool HasFrame(PageNumber page);

    /// <summary>Whether a copy of the page is kept.</summary>
    bool IsKept(PageNumber page);

    /// <summary>Keeps a copy of the frame.</summary>
    void Keep(PageNumber page);

    /// <summary>Drops the copy that is kept.</summary>
    void ReleaseKept(PageNumber page);

    /// <summary>Frees the frame, and with that takes the page away from all mappings.</summary>
    void Free(PageNumber page);

    /// <summary>Takes the page away from all mappings, and leaves the frame as it is.</summary>
    void Unmap(PageNumber page);
}

/// <summary>
/// Makes what an agent that was killed has recorded of a region (<see cref="PageRecords"/>) a region again, and the frames agree with it: an agent
/// can be killed between any two effects. Then the region is as one whose directories are to be rebuilt, with nobody lost: what was under way is void, here as
/// elsewhere, once the node that made the region begins its recovery (<see cref="RecoveryController"/>). Until then nothing of it is heard.
/// </summary>
public static class Adoption
{
    /// <summary>Adopts a region.</summary>
    /// <param name="region">The region, with the extents that were open, homes and mirrors here, of which nothing is known yet but that, and its generation.</param>
    /// <param name="records">What was recorded.</param>
    /// <param name="node">This node's side as a user of it.</param>
    /// <param name="frames">What is left of its frames.</param>
    /// <param name="effects">What is to be done afterwards.</param>
    /// <exception cref="InvalidDataException">What was recorded cannot be; nothing of the region can be trusted.</exception>
    public static void Adopt(Region region, PageRecords records, NodeController node, IFramesLeft frames, EffectBuffer effects)
    {
        for (uint e = 0; e < region.ExtentCount; e++)
        {
            ExtentNumber extent = new(e);
            if (!region.IsOpen(extent) && !region.IsHome(extent) && !region.Mirrored.Contains(extent)) continue;
            for (uint i = 0; i < ExtentNumber.Pages; i++) Adopt(region, records, node, frames, extent.FirstPage.Plus(i));
        }
        region.IsFrozen = true;
        region.IsDeaf = true;
        node.Freeze(region, effects);
    }

    private static void Adopt(Region region, PageRecords records, NodeController node, IFramesLeft frames, PageNumber page)
    {
        bool isInUse = false, isKeptAtHome = false, isAtHome = false;
        if (region.IsHome(page.Extent))
        {
            ulong word = records.HomeWordOf(page);
            DirectoryEntry entry = PageRecords.HomeEntry(word);
            if (word != 0) region.EntryAt(page) = entry;
            isKeptAtHome = (entry.Flags & DirectoryFlags.Kept) != 0;
            // A copy that is set aside is so because the frame goes.
            isAtHome = !isKeptAtHome && (entry.Flags & (DirectoryFlags.Dropped | DirectoryFlags.Zero)) == 0 && entry.State != DirectoryState.Lost;
        }
        else if (region.Mirrored.Contains(page.Extent))
        {
            ulong word = records.HomeWordOf(page);
            MirrorEntry entry = PageRecords.MirrorEntry(word);
            if (word != 0) region.Mirrored.At(page) = entry;
            isAtHome = entry.Contents == MirrorContents.Data;
        }
        bool isKeptHere = false;
        if (region.IsOpen(page.Extent))
        {
            ref PageEntry entry = ref region.PageAt(page);
            entry = PageRecords.NodeEntry(records.NodeWordOf(page));
            node.Readopt(region, ref entry);
            if (entry.State == NodeState.F) region.FrozenPages.Add(page); // the agent was killed while the region was being recovered
            isInUse = HasFrame(entry.State);
            isKeptHere = Keeps(entry.State) && (entry.Flags & (PageFlags.KeptZero | PageFlags.ThrownAway)) == 0;
        }
        if (frames.IsKept(page))
        {
            if (!isKeptHere && !isKeptAtHome) frames.ReleaseKept(page);
        }
        else if (isKeptHere)
        {
            // One copy was to be dropped for another, or was put back into the frame: that is there.
            if (!frames.HasFrame(page)) throw new InvalidDataException($"{page} of {region.Id} is to be kept, and is not there");
            frames.Keep(page);
        }
        if (isInUse || !frames.HasFrame(page)) return;
        // A page may have been given up, and still be mapped.
        if (!isAtHome) frames.Free(page);
        else if (region.IsOpen(page.Extent)) frames.Unmap(page);
    }

    /// <summary>Whether a node in this state has the contents in the frame.</summary>
    private static bool HasFrame(NodeState state) => NodeStates.MayRead(state) || PageRecords.IsGranted(state)
        || state is NodeState.SM_AD or NodeState.SM_A or NodeState.OM_AD or NodeState.OM_A or NodeState.MS_K;

    /// <summary>Whether a node in this state keeps a copy of what it has given up.</summary>
    private static bool Keeps(NodeState state) => state is NodeState.MI_K or NodeState.MI_A or NodeState.SI_A or NodeState.II_A or NodeState.II_P
        or NodeState.EI_A or NodeState.OI_A or NodeState.IM_ADK or NodeState.IM_AK or NodeState.IM_K or NodeState.F;
}
