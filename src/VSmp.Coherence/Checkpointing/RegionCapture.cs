// SPDX-License-Identifier: Apache-2.0
using System.Numerics;
using VSmp.Coherence.Homes;
using VSmp.Coherence.Messages;
using VSmp.Coherence.Nodes;
using VSmp.Coherence.Protocols;

namespace VSmp.Coherence.Checkpointing;

/// <summary>
/// What checkpoints have of a region at one node: two bits for each page. <em>Pending</em>: its frame here is to be copied for the generation that was cut last, and is still
/// as it was then. <em>Saved</em>: its frame here is as a generation has it, or as the one under way will have it; to be written it has to change first.
/// </summary>
/// <remarks>
/// Of each page one node answers at the cut: its owner, or where it has none its home. Nothing is under way then, so that is certain. Afterwards everything goes on; before a frame
/// changes, or goes, or may be written to, it is copied if it is pending. Whoever carries effects out asks for that (<see cref="Changes"/>, <see cref="Take"/>,
/// <see cref="OnChange"/>); a write to a page in M that is saved faults, since it is write-protected until then.
/// A bit that is not set where it could be costs a copy, one that is set where it must not be costs the page: whatever is not certain clears.
/// </remarks>
public sealed class RegionCapture
{
    private const int WordsPerExtent = (int)ExtentNumber.Pages / 64;

    private readonly ulong[]?[] _bits; // by extent: words of pending, then of saved

    /// <summary>Makes the bits of a region of which no checkpoint has anything.</summary>
    public RegionCapture(int extentCount) => _bits = new ulong[]?[extentCount];

    /// <summary>Pages that are pending.</summary>
    public ulong PendingCount { get; private set; }

    /// <summary>Whether an effect changes the frames that it is about, frees them, or lets guests write to them.</summary>
    /// <param name="kind">The effect.</param>
    /// <param name="flags">Flags of the message being handled.</param>
    public static bool Changes(EffectKind kind, MessageFlags flags) => kind switch
    {
        EffectKind.WriteFrame or EffectKind.InstallReadable => (flags & MessageFlags.NoData) == 0,
        EffectKind.InstallWritable or EffectKind.MakeWritable or EffectKind.Unmap or EffectKind.WriteHome or EffectKind.DropHome or EffectKind.RestoreKept
            or EffectKind.MergeDiff => true,
        _ => false,
    };

    /// <summary>Whether nothing is under way for a region at a node: no request, no eviction, no grant, no copy for a mirror.</summary>
    public static bool IsQuiet(Region region, NodeController node)
    {
        if (region.IsFrozen || region.IsDeaf || region.MirrorCopiesOut > 0 || node.HasParked(region.Id)) return false;
        for (uint e = 0; e < region.ExtentCount; e++)
        {
            foreach (ref readonly PageEntry page in region.PagesOf(new ExtentNumber(e)))
            {
                if (!NodeStates.IsStable(page.State)) return false;
            }
            foreach (ref readonly DirectoryEntry entry in region.EntriesOf(new ExtentNumber(e)))
            {
                if (NodeStates.IsBusy(entry.State)) return false;
            }
        }
        return true;
    }

    /// <summary>
    /// Cuts: every page that this node answers for, and that has changed since it was saved, is pending from now on, and saved. What guests may write of that must be write-protected
    /// before they, or anybody else, go on.
    /// </summary>
    /// <param name="region">The region; it is quiet at all nodes.</param>
    /// <param name="isFull">Whether to take what was saved before, too.</param>
    /// <param name="writable">Gets the pages of that which are in M, in runs and in order.</param>
    /// <returns>False if a page is lost: what is left of the region is not worth keeping as if it were all.</returns>
    public bool TryCut(Region region, bool isFull, List<PageRun> writable)
    {
        if (PendingCount > 0) throw new InvalidOperationException($"{region.Id} is cut while {PendingCount} pages of the last cut are pending");
        for (uint e = 0; e < region.ExtentCount; e++)
        {
            ExtentNumber extent = new(e);
            ReadOnlySpan<PageEntry> pages = region.PagesOf(extent);
            ReadOnlySpan<DirectoryEntry> entries = region.EntriesOf(extent);
            if (pages.IsEmpty && entries.IsEmpty) continue;
            for (int w = 0; w < WordsPerExtent; w++)
            {
                ulong owned = 0, written = 0, valid = 0;
                for (int i = 0; i < 64 && !pages.IsEmpty; i++)
                {
                    NodeState state = pages[(w * 64) + i].State;
                    if (state is NodeState.M or NodeState.E or NodeState.O) owned |= 1ul << i;
                    if (state == NodeState.M) written |= 1ul << i;
                }
                for (int i = 0; i < 64 && !entries.IsEmpty; i++)
                {
                    ref readonly DirectoryEntry entry = ref entries[(w * 64) + i];
                    if ((owned & (1ul << i)) != 0) continue; // the owner answers
                    if (entry.State == DirectoryState.Lost) return false;
                    // A page that was never granted to anybody for writing is zero, as is one of which no generation says anything.
                    if (!NodeStates.HomeIsValid(entry.State) || ((entry.Flags & DirectoryFlags.Zero) != 0 && entry.Version.Value == 0)) continue;
                    if ((entry.Flags & DirectoryFlags.Dropped) != 0) throw new InvalidOperationException($"{region.Id} is cut with a page that nobody has");
                    valid |= 1ul << i;
                }
                ulong pending = owned | valid;
                if (pending == 0) continue;
                ulong[] bits = _bits[e] ??= new ulong[2 * WordsPerExtent];
                ulong saved = bits[WordsPerExtent + w];
                if (!isFull) pending &= ~saved;
                bits[w] |= pending;
                bits[WordsPerExtent + w] |= pending;
                PendingCount += (ulong)BitOperations.PopCount(pending);
                PageRun.Add(writable, extent.FirstPage.Plus((uint)w * 64), written & ~saved);
            }
        }
        return true;
    }

    /// <summary>Whether the frame of a page is as a generation has it, or will have it.</summary>
    public bool IsSaved(PageNumber page) => (Word(page, WordsPerExtent) & Bit(page)) != 0;

    /// <summary>Whether the frame of a page is to be copied for the generation under way.</summary>
    public bool IsPending(PageNumber page) => (Word(page, 0) & Bit(page)) != 0;

    /// <summary>The frame of a page is about to be copied, unless that is done.</summary>
    /// <returns>Whether it has to be.</returns>
    public bool Take(PageNumber page)
    {
        if (!IsPending(page)) return false;
        _bits[page.Extent.Value]![IndexOf(page)] &= ~Bit(page);
        PendingCount--;
        return true;
    }

    /// <summary>The frame of a page changes, goes, or may be written to from now on.</summary>
    public void OnChange(PageNumber page)
    {
        if (IsPending(page)) throw new InvalidOperationException($"{page} changes before it is copied for a checkpoint");
        if (_bits[page.Extent.Value] is { } bits) bits[WordsPerExtent + IndexOf(page)] &= ~Bit(page);
    }

    /// <summary>The next page that is pending.</summary>
    /// <param name="from">Where to look first.</param>
    /// <param name="page">The page.</param>
    /// <returns>False if there is none from there on.</returns>
    public bool TryFindPending(PageNumber from, out PageNumber page)
    {
        for (uint e = from.Extent.Value; e < _bits.Length && PendingCount > 0; e++)
        {
            if (_bits[e] is not { } bits) continue;
            bool isFirst = e == from.Extent.Value;
            for (int w = isFirst ? IndexOf(from) : 0; w < WordsPerExtent; w++)
            {
                ulong word = bits[w];
                if (isFirst && w == IndexOf(from)) word &= ulong.MaxValue << (int)(from.Value % 64);
                if (word == 0) continue;
                page = new ExtentNumber(e).FirstPage.Plus((uint)((w * 64) + BitOperations.TrailingZeroCount(word)));
                return true;
            }
        }
        page = default;
        return false;
    }

    /// <summary>
    /// Nothing of the region is saved, and nothing pending: the generation under way was given up, or which node answers for what has changed otherwise than by the protocol.
    /// What is write-protected stays so until it is written.
    /// </summary>
    public void Reset()
    {
        Array.Clear(_bits);
        PendingCount = 0;
    }

    /// <summary>What is known of a page, as it was saved.</summary>
    internal void Restore(PageNumber page, bool isPending, bool isSaved)
    {
        if (Take(page) || IsSaved(page)) OnChange(page);
        if (isPending || isSaved) Set(page);
        if (!isPending) Take(page);
        if (!isSaved && isPending) _bits[page.Extent.Value]![WordsPerExtent + IndexOf(page)] &= ~Bit(page);
    }

    private static int IndexOf(PageNumber page) => (int)(page.Value & (ExtentNumber.Pages - 1)) / 64;

    private static ulong Bit(PageNumber page) => 1ul << (int)(page.Value % 64);

    private ulong Word(PageNumber page, int plane) => _bits[page.Extent.Value] is { } bits ? bits[plane + IndexOf(page)] : 0;

    private void Set(PageNumber page)
    {
        ulong[] bits = _bits[page.Extent.Value] ??= new ulong[2 * WordsPerExtent];
        bits[IndexOf(page)] |= Bit(page);
        bits[WordsPerExtent + IndexOf(page)] |= Bit(page);
        PendingCount++;
    }
}
