// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent.Interop;
using VSmp.Coherence;
using VSmp.Coherence.Checkpointing;
using VSmp.Coherence.Messages;
using VSmp.Coherence.Nodes;
using VSmp.Coherence.Protocols;

namespace VSmp.Agent.Paging;

/// <content>Checkpoints: what is to be copied is write-protected at the cut, and copied before it changes, or in passing. The protocol of it is <see cref="CheckpointMember"/>'s.</content>
internal sealed unsafe partial class Pager
{
    /// <summary>
    /// Pages that are made writable around one that is written for the first time since a cut: a fault for each of those that a program is about to write would cost more than saving a few
    /// that it is not.
    /// </summary>
    private const uint PagesAroundWrite = 16;

    /// <summary>Pages that need no protection, between two that do, for which it is not worth going on behind them: they cost less than another call.</summary>
    private const uint MostBetween = 64;

    private readonly List<PageRun> _toProtect = [];

    /// <summary>A node's part of a checkpoint.</summary>
    public CheckpointMember NewCheckpoint(IReadOnlyList<PagedRegion> regions) => new(Self, _node, [.. regions.Select(StateOf)]);

    /// <summary>Cuts a region: what is to be copied of it goes to a taker from now on.</summary>
    /// <param name="region">The region; nothing is under way for it anywhere.</param>
    /// <param name="isFull">Whether to take what was saved before, too.</param>
    /// <param name="taker">Gets the pages.</param>
    /// <returns>False if part of it is lost.</returns>
    public bool TryCut(PagedRegion region, bool isFull, IPageTaker taker)
    {
        Region state = StateOf(region);
        state.Capture ??= new RegionCapture(state.ExtentCount);
        _toProtect.Clear();
        if (!state.Capture.TryCut(state, isFull, _toProtect)) return false;
        for (int i = 0; i < _toProtect.Count;)
        {
            PageNumber first = _toProtect[i].First, behind = _toProtect[i].Behind;
            while (++i < _toProtect.Count && _toProtect[i].First.Value - behind.Value < MostBetween) behind = _toProtect[i].Behind;
            WriteProtect(region, first, (uint)(behind.Value - first.Value));
        }
        region.Taker = taker;
        return true;
    }

    /// <summary>A region is not held any more: who waited goes on.</summary>
    public void GoOn(PagedRegion region)
    {
        RetryAll(region);
        Drain();
        _hasProgressed = true; // what could not be thrown away, or evicted, can be now
    }

    /// <summary>Copies pages that are pending, and that nobody has asked for yet.</summary>
    /// <param name="region">The region.</param>
    /// <param name="from">Where to look first; moves on.</param>
    /// <param name="pageCount">How many to copy at most.</param>
    /// <returns>Whether there may be more.</returns>
    public static bool CopyPending(PagedRegion region, ref PageNumber from, int pageCount)
    {
        if (StateOf(region).Capture is not { } capture) return false;
        for (; pageCount > 0 && region.Taker is { HasRoom: true } taker; pageCount--)
        {
            if (!capture.TryFindPending(from, out PageNumber page)) return false;
            capture.Take(page);
            taker.Take(region, page);
            from = page.Plus(1);
        }
        return true;
    }

    /// <summary>Frames of a region that nobody uses yet were filled.</summary>
    public void OnLoaded(PagedRegion region, ReadOnlySpan<PageNumber> pages)
    {
        Region state = StateOf(region);
        foreach (PageNumber page in pages) state.OnLoaded(page);
        RecordAll(region);
    }

    /// <summary>Pages of a region that are yet to be copied.</summary>
    public static ulong PendingOf(PagedRegion region) => StateOf(region).Capture?.PendingCount ?? 0;

    /// <summary>A taker has room again: who waited to write tries again.</summary>
    public void OnTakerHasRoom() => _hasProgressed = true;

    private static RegionCapture? CaptureOf(PagedRegion region) => region.Protocol is DirectoryProtocol p ? p.Region.Capture : null;

    /// <summary>Frames are about to change, to go, or to be written to.</summary>
    private static void BeforeChange(PagedRegion region, RegionCapture capture, in Effect effect, in Message message)
    {
        if (!RegionCapture.Changes(effect.Kind, message.Flags)) return;
        for (uint i = 0; i < effect.Count; i++) BeforeChange(region, capture, effect.Page.Plus(i));
    }

    private static void BeforeChange(PagedRegion region, RegionCapture capture, PageNumber page)
    {
        if (capture.Take(page)) region.Taker!.Take(region, page);
        capture.OnChange(page);
    }

    /// <summary>A thread is about to write a page that this node may write, and that is write-protected since it was saved.</summary>
    private static void BeginWrite(in Fault fault, RegionCapture capture)
    {
        PagedRegion region = fault.Mapping.Region;
        BeforeChange(region, capture, fault.Page);
        PageNumber first = new(fault.Page.Value & ~(ulong)(PagesAroundWrite - 1));
        for (uint i = 0; i < PagesAroundWrite; i++)
        {
            PageNumber page = first.Plus(i);
            if (page == fault.Page || !capture.IsSaved(page) || StateOf(region).PageAt(page).State != NodeState.M || (region.LocalAt(page).Mapped & fault.Mapping.Mask) == 0) continue;
            if (capture.IsPending(page) && !region.Taker!.HasRoom) break;
            BeforeChange(region, capture, page);
            _ = Check(fault.Mapping, page, 1, Unprotect(fault.Mapping, page, 1));
        }
    }

    /// <summary>Who waits for a region tries again, whatever it waited for.</summary>
    private void RetryAll(PagedRegion region)
    {
        for (int i = _waiting.Count - 1; i >= 0; i--)
        {
            Fault fault = _waiting[i];
            if (fault.Mapping.Region != region) continue;
            _waiting.RemoveAt(i);
            ref LocalPage local = ref region.LocalAt(fault.Page);
            local.IsAwaited = false;
            // A reader may have become the owner meanwhile, or a page saved, with the page mapped as it was: who waits to write is to be mapped, and woken, all the same.
            local.Mapped = 0;
            _again.Enqueue(fault);
        }
    }
}
