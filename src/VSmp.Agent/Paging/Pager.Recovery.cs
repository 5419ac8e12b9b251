// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent.Guests;
using VSmp.Agent.Interop;
using VSmp.Coherence;
using VSmp.Coherence.Nodes;
using VSmp.Coherence.Recovery;

namespace VSmp.Agent.Paging;

/// <content>After a node was lost: regions are frozen, their directories rebuilt. The protocol of it is <see cref="RecoveryController"/>'s.</content>
internal sealed unsafe partial class Pager
{
    private const int MaxPoisonAttempts = 100;

    private readonly List<PagedRegion> _rebuilding = [];
    private readonly List<PageNumber> _lostPages = [];

    /// <summary>Raised when the directories of a region are there again here.</summary>
    public event Action<PagedRegion>? Rebuilt;

    /// <summary>Raised when a region is gone.</summary>
    public event Action<RegionId>? Removed;

    /// <summary>Freezes a region for a new generation.</summary>
    /// <returns>Extents that were mirrored here, and have their home here now.</returns>
    public int Freeze(PagedRegion region, Generation generation, RecoveryPlan plan)
    {
        Region state = StateOf(region);
        region.LostHere.Clear();
        int promoted = _recovery.Freeze(state, generation, plan, _effects);
        _rebuilding.Remove(region);
        if (state.Rebuild is not null) _rebuilding.Add(region);
        BeginFreeze(region);
        Drain();
        EndFreeze(region);
        return promoted;
    }

    /// <summary>What this node has of an extent.</summary>
    public static void ListClaims(PagedRegion region, ExtentNumber extent, List<Claim> claims) =>
        NodeController.ListClaims(StateOf(region), extent, claims);

    /// <summary>What a user of a region has of pages whose home is here.</summary>
    public void OnClaims(PagedRegion region, NodeId from, ReadOnlySpan<Claim> claims, bool isLast)
    {
        _lostPages.Clear();
        _recovery.OnClaims(StateOf(region), from, claims, isLast, _effects, _lostPages);
        region.LostHere.AddRange(_lostPages);
        Drain();
        if (isLast) RecordAll(region);
        ReportRebuilt();
    }

    /// <summary>All directories of a region are there again: who waited goes on.</summary>
    public void Thaw(PagedRegion region)
    {
        _recovery.Thaw(StateOf(region), _effects);
        RetryAll(region);
        Drain();
        RecordAll(region);
        _hasProgressed = true;
    }

    /// <summary>Whether the directories of a region are being rebuilt.</summary>
    public static bool IsFrozen(PagedRegion region) => region.Protocol is DirectoryProtocol { Region.IsFrozen: true };

    /// <summary>Whether a region was adopted, and nothing is to be heard of it before it is frozen again.</summary>
    public static bool IsDeaf(PagedRegion region) => region.Protocol is DirectoryProtocol { Region.IsDeaf: true };

    /// <summary>Whether directories of a region that are here are being rebuilt.</summary>
    public static bool IsRebuilding(PagedRegion region) => StateOf(region).Rebuild is not null;

    /// <summary>The node that made a region speaks of a later generation: this node took no part in its last recovery, and so has nothing of it that counts.</summary>
    public static void CatchUp(PagedRegion region, Generation generation)
    {
        Region state = StateOf(region);
        if (generation.Value > state.Generation.Value) state.Generation = generation;
    }

    /// <summary>Which generation of a region's directories counts here.</summary>
    public static Generation GenerationOf(PagedRegion region) => region.Protocol is DirectoryProtocol p ? p.Region.Generation : default;

    /// <summary>Says where an extent whose home is here is mirrored.</summary>
    public static void SetMirror(PagedRegion region, ExtentNumber extent, NodeId mirror) => StateOf(region).SetMirror(extent, mirror);

    /// <summary>Has a node written beside the mirror of an extent whose home is here, in order to take its place.</summary>
    public static void SetNextMirror(PagedRegion region, ExtentNumber extent, NodeId mirror) => StateOf(region).SetNextMirror(extent, mirror);

    /// <summary>Whether an answer of a mirror is awaited for a page of an extent whose home is here.</summary>
    public static bool AwaitsMirror(PagedRegion region, ExtentNumber extent) => StateOf(region).AwaitsMirror(extent);

    /// <summary>Where an extent whose home is here is mirrored; none if it is not.</summary>
    public static NodeId MirrorOf(PagedRegion region, ExtentNumber extent) => region.Protocol is DirectoryProtocol p ? p.Region.MirrorOf(extent) : NodeId.None;

    /// <summary>Copies for younger mirrors that are not acknowledged yet.</summary>
    public static int MirrorCopiesOut(PagedRegion region) => StateOf(region).MirrorCopiesOut;

    /// <summary>Sends the mirror of an extent, ahead of need, what its home here has of some pages more.</summary>
    /// <param name="region">The region.</param>
    /// <param name="extent">An extent whose home is here.</param>
    /// <param name="next">The next page, counted from the extent's first; moves on.</param>
    /// <param name="busy">Pages that something is under way for.</param>
    /// <param name="pageCount">How many pages to send at most.</param>
    /// <returns>Whether all are sent.</returns>
    public bool CopyToMirror(PagedRegion region, ExtentNumber extent, ref uint next, Queue<PageNumber> busy, uint pageCount)
    {
        Region state = StateOf(region);
        // Of pages that were never asked for a word is enough: they go in one frame, however many.
        if (!state.IsTouched(extent)) pageCount = ExtentNumber.Pages;
        for (; next < ExtentNumber.Pages && pageCount > 0; next++, pageCount--)
        {
            PageNumber page = extent.FirstPage.Plus(next);
            if (!_home.TryCopyToMirror(state, page, _effects)) busy.Enqueue(page);
        }
        for (int i = busy.Count; i > 0 && pageCount > 0; i--, pageCount--)
        {
            PageNumber page = busy.Dequeue();
            if (!_home.TryCopyToMirror(state, page, _effects)) busy.Enqueue(page);
        }
        Drain();
        return next == ExtentNumber.Pages && busy.Count == 0;
    }

    /// <summary>The protocol's state of a region; null if no directory keeps it coherent.</summary>
    internal static Region? DirectoryOf(PagedRegion region) => (region.Protocol as DirectoryProtocol)?.Region;

    private static Region StateOf(PagedRegion region) => ((DirectoryProtocol)region.Protocol).Region;

    private void ReportRebuilt()
    {
        for (int i = _rebuilding.Count - 1; i >= 0; i--)
        {
            PagedRegion region = _rebuilding[i];
            if (!RecoveryController.TryComplete(StateOf(region))) continue;
            _rebuilding.RemoveAt(i);
            Rebuilt?.Invoke(region);
        }
    }

    /// <summary>The copy that was kept goes back to where it came from.</summary>
    private static void RestoreKept(PagedRegion region, PageNumber page)
    {
        byte* copy = region.Kept.Find(page);
        if (copy is null) region.Frames.MakeZeros(page, 1);
        else region.Frames.Write(page, copy, 1);
    }

    /// <summary>The page is lost: who waits for it, or touches it later, gets SIGBUS.</summary>
    private void Poison(PagedRegion region, PageNumber page)
    {
        for (int i = _waiting.Count - 1; i >= 0; i--)
        {
            if (_waiting[i].Mapping.Region == region && _waiting[i].Page == page) _waiting.RemoveAt(i);
        }
        ref LocalPage local = ref region.LocalAt(page);
        local.IsAwaited = false;
        bool wasPoisoned = local.IsPoisoned;
        local.IsPoisoned = true;
        foreach (Mapping mapping in region.Mappings)
        {
            if (mapping.IsGone) continue;
            Guest guest = mapping.Guest;
            if (!guest.WasToldOfLoss)
            {
                guest.WasToldOfLoss = true;
                guest.Tell($"process {guest.ProcessId} touched memory that was lost with node {region.LostWith} ({page} of region {region.Layout.Name}); it gets SIGBUS; "
                    + "vsmp report lost lists what is lost");
            }
            int error = Poison(mapping, page, wasPoisoned);
            if (error is not (0 or Errno.ESRCH)) guest.Kill($"touched lost memory, and it could not be poisoned ({Errno.Text(error)})");
        }
    }

    /// <param name="mapping">Where.</param>
    /// <param name="page">The page, which is not present.</param>
    /// <param name="wasPoisoned">
    /// Whether it has been poisoned before, and not been present since: it was asked for ahead then, or the fault was late. The kernel refuses what is poisoned already.
    /// </param>
    /// <returns>0 or an errno value.</returns>
    private static int Poison(Mapping mapping, PageNumber page, bool wasPoisoned)
    {
        ulong address = mapping.AddressOf(page);
        for (int attempt = 0; ; attempt++)
        {
            int error = Userfaultfd.Poison(mapping.Userfaultfd, address, PageNumber.Bytes);
            if (error == Errno.EEXIST && wasPoisoned && attempt > 0) return Userfaultfd.Wake(mapping.Userfaultfd, address, PageNumber.Bytes);
            if (error is not (Errno.EEXIST or Errno.EAGAIN) || attempt == MaxPoisonAttempts) return error;
            // A page that was here before has left a mark that it was write-protected, and the kernel poisons only where there is nothing.
            _ = Userfaultfd.WriteProtect(mapping.Userfaultfd, address, PageNumber.Bytes, on: false);
        }
    }
}
