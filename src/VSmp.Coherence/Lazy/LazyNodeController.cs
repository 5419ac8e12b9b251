// SPDX-License-Identifier: Apache-2.0
using VSmp.Coherence.Messages;
using VSmp.Coherence.Nodes;
using VSmp.Coherence.Protocols;

namespace VSmp.Coherence.Lazy;

/// <summary>
/// The node's side of lazy release consistency: executes <see cref="LazyRelease.Node"/>. Deterministic and sans-I/O.
/// </summary>
/// <remarks>
/// A release is <see cref="Release"/>, then <see cref="TryTakeNotices"/> until it succeeds, then telling the pages to whoever keeps the
/// locks (<see cref="NoticeLog.OnRelease"/>), and only then letting the lock go. Several ranks of one node share what is here, so the
/// notices are the node's: whichever release completes first takes them all along, and what the others tell must not overtake it. An
/// acquire is getting the lock, with its notices, then <see cref="Acquire"/> or <see cref="AcquireAll"/>, and only then letting the guest
/// go on. Diff and GetS to one home must keep their order.
/// </remarks>
public sealed class LazyNodeController(NodeId self)
{
    /// <summary>The node.</summary>
    public NodeId Self { get; } = self;

    /// <summary>A guest reads or writes a page.</summary>
    /// <returns>As <see cref="NodeController.Access"/>: Hit (map it writable if it is <see cref="LazyState.W"/>), Pending, NeedsFrame or NotReserved.</returns>
    public AccessResult Access(LazyRegion region, PageNumber page, bool write, EffectBuffer effects)
    {
        if (!region.IsOpen(page.Extent)) return AccessResult.NotReserved;
        if (!IsHome(region, page) && !TakeFrames(region, write, ref region.PageAt(page))) return AccessResult.NeedsFrame;
        return Step(region, page, write ? LazyEvent.Store : LazyEvent.Load, effects) ? AccessResult.Hit : AccessResult.Pending;
    }

    /// <summary>Evicts a page; what was written goes to its home.</summary>
    /// <returns>False if it cannot go: it is held, under way, or the home copy itself; or it was written, and a release waits for the diffs
    /// that are out, which would never be none if evictions went on sending more.</returns>
    public bool TryEvict(LazyRegion region, PageNumber page, EffectBuffer effects)
    {
        ref LazyPage entry = ref region.PageAt(page);
        if (entry.State == LazyState.W && region.IsReleasing) return false;
        if (entry.State is not (LazyState.R or LazyState.W) || entry.IsHeld || IsHome(region, page)) return false;
        Step(region, page, LazyEvent.Evict, effects);
        return true;
    }

    /// <summary>A page was just granted: until <see cref="Unhold"/> it is not evicted. Notices do not wait for holds.</summary>
    public static void Hold(LazyRegion region, PageNumber page) => region.PageAt(page).IsHeld = true;

    /// <summary>Ends a hold.</summary>
    public static void Unhold(LazyRegion region, PageNumber page) => region.PageAt(page).IsHeld = false;

    /// <summary>A guest releases: what was written here since the last release goes to the homes.</summary>
    public void Release(LazyRegion region, EffectBuffer effects)
    {
        foreach (PageNumber page in region.Dirty)
        {
            region.PageAt(page).IsDirty = false;
            Step(region, page, LazyEvent.Release, effects);
            region.Unannounced.Add(page);
        }
        region.Dirty.Clear();
    }

    /// <summary>Completes the releases begun so far, if the homes have merged every diff that left this node.</summary>
    /// <param name="region">The region.</param>
    /// <param name="pages">Receives the pages written: the notices of these releases, each once.</param>
    /// <returns>False if diffs are still out: try again when a DiffAck has come.</returns>
    public static bool TryTakeNotices(LazyRegion region, ICollection<PageNumber> pages)
    {
        if (region.Unannounced.Count == 0) return true; // diffs that are out belong to releases yet to come
        if (region.DiffsOut > 0) return false;
        foreach (PageNumber page in region.Unannounced) pages.Add(page);
        region.Unannounced.Clear();
        return true;
    }

    /// <summary>A guest acquires: copies of pages that others wrote are invalidated, what was written of them here is sent home first.</summary>
    /// <exception cref="ProtocolViolationException">A page is not of the region.</exception>
    public void Acquire(LazyRegion region, ReadOnlySpan<PageNumber> pages, EffectBuffer effects)
    {
        foreach (PageNumber page in pages)
        {
            if (page.Extent.Value >= (uint)region.ExtentCount) throw new ProtocolViolationException($"a write notice for {page}, beyond {region.Id}");
            // The home copy has everything already.
            if (region.IsOpen(page.Extent) && !IsHome(region, page)) Step(region, page, LazyEvent.Notice, effects);
        }
    }

    /// <summary>A guest acquires, and nobody knows any more what was written since it acquired last.</summary>
    public void AcquireAll(LazyRegion region, EffectBuffer effects)
    {
        for (uint e = 0; e < region.ExtentCount; e++)
        {
            ExtentNumber extent = new(e);
            for (uint i = 0; i < ExtentNumber.Pages; i++) Acquire(region, [extent.FirstPage.Plus(i)], effects);
        }
    }

    /// <summary>A DataS or DiffAck.</summary>
    /// <exception cref="ProtocolViolationException">The message cannot be for this node in its present state.</exception>
    public void OnMessage(LazyRegion region, in Message message, EffectBuffer effects)
    {
        for (uint i = 0; i < message.Count; i++)
        {
            PageNumber page = message.Page.Plus(i);
            if (!region.IsOpen(page.Extent) || message.Source != region.Homes!.HomeOf(page.Extent))
                throw new ProtocolViolationException($"not from the home of a page in use here: {message}");
            switch (message.Type)
            {
                case MessageType.DataS:
                    Step(region, page, LazyEvent.Data, effects);
                    break;
                case MessageType.DiffAck:
                    if (region.DiffsOut == 0) throw new ProtocolViolationException($"no diff is out: {message}");
                    if (--region.DiffsOut == 0) effects.Add(EffectKind.Complete, region.Id, page);
                    break;
                default:
                    throw new ProtocolViolationException($"{message.Type} is no message to a node: {message}");
            }
        }
    }

    /// <summary>Takes what an access needs out of the budget: a frame for the copy, and one for its twin if it will be written.</summary>
    private static bool TakeFrames(LazyRegion region, bool write, ref LazyPage entry)
    {
        bool needsFrame = entry.State == LazyState.I, needsTwin = write && (entry.State is LazyState.I or LazyState.R);
        if (needsFrame && !region.Budget!.TryReserve()) return false;
        if (needsTwin && !region.Budget!.TryReserve())
        {
            if (needsFrame) region.Budget.Release();
            return false;
        }
        entry.HasFrame |= needsFrame;
        return true;
    }

    private bool IsHome(LazyRegion region, PageNumber page) => region.Homes!.HomeOf(page.Extent) == Self;

    private bool Step(LazyRegion region, PageNumber page, LazyEvent @event, EffectBuffer effects)
    {
        ref LazyPage entry = ref region.PageAt(page);
        ref readonly Cell<LazyState, LazyAction> cell = ref LazyRelease.Node[entry.State, @event];
        if (cell.Verdict == Verdict.Stall) return false;
        if (cell.Verdict != Verdict.Handle) throw new ProtocolViolationException($"{@event} cannot happen to {page} of {region.Id} in {entry.State}");
        bool hit = false;
        foreach (LazyAction action in cell.Actions) hit |= Execute(action, region, page, ref entry, effects);
        entry.State = cell.Next;
        return hit;
    }

    private bool Execute(LazyAction action, LazyRegion region, PageNumber page, ref LazyPage entry, EffectBuffer effects)
    {
        switch (action)
        {
            case LazyAction.Hit:
                return true;
            case LazyAction.SendGetS:
                Send(region, page, MessageType.GetS, DataSource.None, effects);
                break;
            case LazyAction.InstallReadable:
                effects.Add(EffectKind.InstallReadable, region.Id, page);
                break;
            case LazyAction.WriteFrame:
                effects.Add(EffectKind.WriteFrame, region.Id, page);
                break;
            case LazyAction.MakeTwin:
                if (!IsHome(region, page)) effects.Add(EffectKind.MakeTwin, region.Id, page);
                if (entry.IsDirty) break;
                entry.IsDirty = true;
                region.Dirty.Add(page);
                break;
            case LazyAction.MakeWritable:
                effects.Add(EffectKind.MakeWritable, region.Id, page);
                break;
            case LazyAction.WriteProtect:
                effects.Add(EffectKind.WriteProtect, region.Id, page);
                break;
            case LazyAction.SendDiff:
                if (IsHome(region, page)) break; // guests wrote the home copy itself
                Send(region, page, MessageType.Diff, DataSource.Diff, effects);
                effects.Add(EffectKind.DropTwin, region.Id, page);
                region.DiffsOut++;
                region.Budget!.Release();
                break;
            case LazyAction.Unmap:
                effects.Add(EffectKind.Unmap, region.Id, page);
                if (!entry.HasFrame) break;
                entry.HasFrame = false;
                region.Budget!.Release();
                break;
            default:
                throw new InvalidOperationException($"no such action: {action}");
        }
        return false;
    }

    private void Send(LazyRegion region, PageNumber page, MessageType type, DataSource source, EffectBuffer effects)
    {
        Message message = new()
        {
            Type = type,
            Source = Self,
            Requestor = Self,
            Count = 1,
            Region = region.Id,
            Page = page,
        };
        effects.AddSend(region.Homes!.HomeOf(page.Extent), source, in message);
    }
}
