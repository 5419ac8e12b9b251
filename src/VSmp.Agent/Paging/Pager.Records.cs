// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent.Adopting;
using VSmp.Agent.Guests;
using VSmp.Coherence;
using VSmp.Coherence.Homes;
using VSmp.Coherence.Protocols;
using VSmp.Coherence.Recovery;

namespace VSmp.Agent.Paging;

/// <content>What outlives this agent of what it knows, in the order that makes it true (ADR 0017): data, then the record, then what cannot be taken back.</content>
internal sealed unsafe partial class Pager
{
    /// <summary>Whether what is known of regions is to outlive this agent: somebody will start another one, and keeps the guests until then.</summary>
    public bool IsRecording { get; init; }

    /// <summary>Called between any two things that are done, where an agent can be killed: tests throw from here, and go on with another pager.</summary>
    internal Action? Tripwire { get; set; }

    /// <summary>Records what has changed of regions but for their pages. To be called before anything that tells of it is sent.</summary>
    public void RecordLayouts()
    {
        if (!IsRecording) return;
        foreach (PagedRegion region in _regions.Values) region.RecordLayout();
    }

    /// <summary>Goes on with a region that another agent of this node has left. Nothing is heard of it until its directories have been rebuilt.</summary>
    /// <param name="state">What is known of it but for its pages: the extents that were open, homes and mirrors here.</param>
    /// <param name="region">The region here, with what is recorded of it.</param>
    /// <param name="aside">What was taken out of frames for a moment, to be put back.</param>
    /// <exception cref="InvalidDataException">What was recorded cannot be; nothing was adopted.</exception>
    internal void Adopt(Region state, PagedRegion region, IReadOnlyList<int> aside)
    {
        foreach (int slot in aside) region.Kept.PutBack(slot, region.Frames);
        try
        {
            Adoption.Adopt(state, region.Records!, _node, new FramesLeft(region, this), _effects);
        }
        catch (InvalidDataException)
        {
            _effects.Clear();
            region.Protocol.Drop();
            throw;
        }
        _regions.Add(region.Id, region);
        Drain();
        RecordAll(region);
        FreeLeftovers(state, region.Frames);
        if (region.Run is { } run) QueueCopies(region, run);
    }

    /// <summary>A region of which nothing is known yet but what is recorded.</summary>
    internal PagedRegion NewAdopted(Region state, FrameFile frames, KeptCopies kept, StateFile records, Run? run) =>
        new(new DirectoryProtocol(state, _node, _home, _mirror), frames, run) { Kept = kept, Records = records, Node = _node };

    private PagedRegion NewRecorded(IRegionProtocol protocol, FrameFile frames, Run? run)
    {
        StateFile? records = null;
        KeptFile? kept = null;
        try
        {
            records = StateFile.Create(frames.Path, protocol.Layout, Self);
            kept = KeptFile.Create(frames.Path);
        }
        catch (IOException e)
        {
            // The region can do without; whoever uses it should not have to.
            records?.Dispose();
            Log.Warn($"if this agent is killed, region {protocol.Layout.Name} is lost with it, as with the node: {e.Message}");
            return new PagedRegion(protocol, frames, run);
        }
        StateFile file = records;
        return new PagedRegion(protocol, frames, run) { Records = file, Kept = new KeptCopies(kept, file.Abandon), Node = _node };
    }

    private void RecordBefore(PagedRegion region, int index)
    {
        Tripwire?.Invoke();
        if (!PageRecords.MustRecordBefore(_effects, index)) return;
        Record(region, in _effects[index]);
        Tripwire?.Invoke();
    }

    private void Record(PagedRegion region, in Effect effect)
    {
        if (region.Records is not { IsLive: true } records) return;
        Region state = StateOf(region);
        for (uint i = 0; i < effect.Count; i++)
        {
            Tripwire?.Invoke();
            records.Record(state, _node, effect.Page.Plus(i));
        }
    }

    /// <summary>Everything that the steps were about, at their end. What they send leaves later.</summary>
    private void RecordAfter()
    {
        for (int i = 0; i < _effects.Count; i++)
        {
            if (Find(_effects[i].Region) is { } region) Record(region, in _effects[i]);
        }
    }

    /// <summary>All pages of a region: what has just changed them has no effects on each.</summary>
    private void RecordAll(PagedRegion region)
    {
        if (region.Records is not { IsLive: true } records) return;
        Tripwire?.Invoke();
        records.RecordAll(StateOf(region), _node);
        Tripwire?.Invoke();
    }

    /// <summary>The region is frozen, and no effect of that executed: first of all, the new generation is recorded.</summary>
    private void BeginFreeze(PagedRegion region)
    {
        if (region.Records is not { IsLive: true } records) return;
        Tripwire?.Invoke();
        if (records.HasTurned(StateOf(region))) records.BeginChange();
        records.Generation = StateOf(region).Generation;
        Tripwire?.Invoke();
        region.RecordLayout();
    }

    private void EndFreeze(PagedRegion region)
    {
        RecordAll(region);
        region.Records?.EndChange();
    }

    /// <summary>Frees frames that nobody stands for, those too that were never touched, which cannot be told from holes.</summary>
    private static void FreeLeftovers(Region region, FrameFile frames)
    {
        ulong first = 0;
        for (uint e = 0; e < (uint)region.ExtentCount; e++)
        {
            ExtentNumber extent = new(e);
            if (!region.IsOpen(extent) && !region.IsTouched(extent) && !region.Mirrored.IsTouched(extent)) continue; // most of them, where there is room to grow
            for (uint i = 0; i < ExtentNumber.Pages; i++)
            {
                PageNumber page = extent.FirstPage.Plus(i);
                if (!IsNeeded(region, page)) continue;
                if (page.Value > first) frames.Punch(new PageNumber(first), page.Value - first);
                first = page.Value + 1;
            }
        }
        if (first < region.PageCount) frames.Punch(new PageNumber(first), region.PageCount - first);
    }

    private static bool IsNeeded(Region region, PageNumber page)
    {
        if (region.IsOpen(page.Extent) && NodeStates.MayRead(region.PageAt(page).State)) return true;
        if (region.IsTouched(page.Extent))
        {
            ref readonly DirectoryEntry entry = ref region.EntryAt(page);
            return (entry.Flags & (DirectoryFlags.Kept | DirectoryFlags.Dropped | DirectoryFlags.Zero)) == 0 && entry.State != DirectoryState.Lost;
        }
        return region.Mirrored.IsTouched(page.Extent) && region.Mirrored.At(page).Contents == MirrorContents.Data;
    }

    /// <summary>Copies stand in the queue of eviction, in whatever order.</summary>
    private static void QueueCopies(PagedRegion region, Run run)
    {
        for (uint e = 0; e < (uint)region.Layout.ExtentCount; e++)
        {
            ExtentNumber extent = new(e);
            if (!region.Layout.IsOpen(extent) || region.Layout.IsHome(extent)) continue;
            for (uint i = 0; i < ExtentNumber.Pages; i++)
            {
                PageNumber page = extent.FirstPage.Plus(i);
                if (region.Protocol.CopyOf(page) != PageCopy.None) run.Copies.OnInstalled(region, page, run.Budget.LimitPages);
            }
        }
    }

    /// <summary>The frames and kept copies of a region, for who adopts it.</summary>
    /// <remarks>Pages are looked at in ascending order, and what is done to one changes no other: the file is asked once for each run of frames, or of holes.</remarks>
    private sealed class FramesLeft(PagedRegion region, Pager pager) : IFramesLeft
    {
        private PageNumber _runStart, _runEnd;
        private bool _isRunOfFrames;

        public bool HasFrame(PageNumber page)
        {
            if (page.Value < _runStart.Value || page.Value >= _runEnd.Value)
            {
                _runStart = page;
                (_isRunOfFrames, _runEnd) = region.Frames.RunAt(page);
            }
            return _isRunOfFrames;
        }

        public bool IsKept(PageNumber page) => region.Kept.Contains(page);

        public void Keep(PageNumber page)
        {
            pager.Tripwire?.Invoke();
            region.Kept.Keep(page, region.Frames);
        }

        public void ReleaseKept(PageNumber page)
        {
            pager.Tripwire?.Invoke();
            region.Kept.Release(page);
        }

        public void Free(PageNumber page)
        {
            pager.Tripwire?.Invoke();
            region.Frames.Punch(page, 1);
        }

        /// <remarks>
        /// Only a hole takes a page away from every mapping. While there is one, the contents are set aside: whoever is killed then leaves them to the next,
        /// who puts them back before anything else.
        /// </remarks>
        public void Unmap(PageNumber page)
        {
            pager.Tripwire?.Invoke();
            int slot = region.Kept.TakeAside(page, region.Frames);
            pager.Tripwire?.Invoke();
            region.Frames.Punch(page, 1);
            pager.Tripwire?.Invoke();
            region.Kept.PutBack(slot, region.Frames);
        }
    }
}
