// SPDX-License-Identifier: Apache-2.0
using VSmp.Coherence.Homes;
using VSmp.Coherence.Nodes;
using VSmp.Coherence.Protocols;

namespace VSmp.Coherence.Recovery;

/// <summary>
/// What outlives an agent of what it knows of a region's pages: a word for each page at the node, and one for each page that is home, or mirrored, there.
/// A word is written at once or not at all. <see cref="Adoption"/> makes an agent of it again.
/// </summary>
/// <remarks>
/// <code>state 8 │ flags 8 │ owner 16 │ version 32</code>
/// At a home the state is one more than the directory's, at a mirror 128 more than what is there, so that 0 is a page of which nothing was ever heard.
/// Who executes effects records pages before what cannot be taken back (<see cref="MustRecordBefore"/>), and all that a step was about at its end. What is
/// sent leaves the node after that.
/// </remarks>
public abstract class PageRecords
{
    private const PageFlags Lasting = PageFlags.HasFrame | PageFlags.MayBeWritten | PageFlags.KeptZero | PageFlags.ThrownAway;
    private const DirectoryFlags LastingAtHome = ~(DirectoryFlags.HasWaiters | DirectoryFlags.Coarse);
    private const byte MirrorMark = 128;

    /// <summary>The word of a page of an extent that is open.</summary>
    public abstract ref ulong NodeWordOf(PageNumber page);

    /// <summary>The word of a page of an extent that has its home here, or is mirrored here.</summary>
    public abstract ref ulong HomeWordOf(PageNumber page);

    /// <summary>
    /// Whether pages must be recorded before an effect on them: data are put into frames, and copies kept, before that; pages are mapped, freed and not
    /// kept any more after it.
    /// </summary>
    /// <param name="effects">The effects of one or several steps, of which none is forgotten yet.</param>
    /// <param name="index">The effect.</param>
    /// <remarks>Installing is writing the frame, then recording, then mapping.</remarks>
    public static bool MustRecordBefore(EffectBuffer effects, int index)
    {
        ref readonly Effect effect = ref effects[index];
        if (effect.Kind is not (EffectKind.MakeWritable or EffectKind.Unmap or EffectKind.DropHome or EffectKind.ReleaseKept)) return false;
        for (int i = index + 1; i < effects.Count; i++)
        {
            // The page is recorded as it is after all these steps: not before the data are there that it then has.
            ref readonly Effect later = ref effects[i];
            if (BringsData(later.Kind) && later.Region == effect.Region && later.Page.Value < effect.Page.Value + effect.Count
                && effect.Page.Value < later.Page.Value + later.Count) return false;
        }
        return true;
    }

    /// <summary>Records a page as it is after the steps so far.</summary>
    public void Record(Region region, NodeController node, PageNumber page)
    {
        ExtentNumber extent = page.Extent;
        if (region.IsOpen(extent)) Put(ref NodeWordOf(page), WordOf(in region.PageAt(page), node.Transactions));
        if (region.IsHome(extent))
        {
            if (region.IsTouched(extent)) Put(ref HomeWordOf(page), WordOf(in region.EntryAt(page)));
        }
        else if (region.Mirrored.IsTouched(extent))
        {
            Put(ref HomeWordOf(page), WordOf(in region.Mirrored.At(page)));
        }
    }

    /// <summary>Records all pages: after what changes many of them without an effect on each.</summary>
    public void RecordAll(Region region, NodeController node)
    {
        for (uint e = 0; e < region.ExtentCount; e++)
        {
            ExtentNumber extent = new(e);
            if (!region.IsOpen(extent) && !region.IsTouched(extent) && !region.Mirrored.IsTouched(extent)) continue;
            for (uint i = 0; i < ExtentNumber.Pages; i++) Record(region, node, extent.FirstPage.Plus(i));
        }
    }

    /// <summary>A page at a node.</summary>
    internal static ulong WordOf(in PageEntry entry, TransactionTable transactions)
    {
        // What was granted, and not installed yet, is known by the grant's version from now on.
        PageVersion version = entry.Slot != 0 && IsGranted(entry.State) ? transactions[entry.Slot].Version : entry.Version;
        return Word((byte)entry.State, (byte)(entry.Flags & Lasting), 0, version);
    }

    /// <summary>A page at its home.</summary>
    internal static ulong WordOf(in DirectoryEntry entry)
    {
        DirectoryFlags flags = entry.Flags & LastingAtHome;
        bool isUntouched = entry.State == DirectoryState.I && flags == DirectoryFlags.Zero && entry.Version.Value == 0;
        return isUntouched ? 0 : Word((byte)(entry.State + 1), (byte)flags, entry.Owner.Value, entry.Version);
    }

    /// <summary>A page at its mirror.</summary>
    internal static ulong WordOf(in MirrorEntry entry) => Word((byte)(MirrorMark + (byte)entry.Contents), 0, 0, entry.Version);

    /// <summary>A page at a node, but for its transaction.</summary>
    /// <exception cref="InvalidDataException">The word is none.</exception>
    internal static PageEntry NodeEntry(ulong word)
    {
        var entry = new PageEntry { State = (NodeState)(byte)word, Flags = (PageFlags)(byte)(word >> 8), Version = new PageVersion((uint)(word >> 32)) };
        return Enum.IsDefined(entry.State) && (entry.Flags & ~Lasting) == 0 && (ushort)(word >> 16) == 0 ? entry : throw Nonsense(word);
    }

    /// <summary>A page at its home. Who has read copies is not recorded: they say so themselves.</summary>
    /// <exception cref="InvalidDataException">The word is none.</exception>
    internal static DirectoryEntry HomeEntry(ulong word)
    {
        DirectoryEntry entry = DirectoryEntry.Zero;
        if (word == 0) return entry;
        entry.State = (DirectoryState)((byte)word - 1);
        entry.Flags = (DirectoryFlags)(byte)(word >> 8);
        entry.Owner = new NodeId((ushort)(word >> 16));
        entry.Version = new PageVersion((uint)(word >> 32));
        return (byte)word is > 0 and < MirrorMark && Enum.IsDefined(entry.State) && (entry.Flags & ~LastingAtHome) == 0 ? entry : throw Nonsense(word);
    }

    /// <summary>A page at its mirror.</summary>
    /// <exception cref="InvalidDataException">The word is none.</exception>
    internal static MirrorEntry MirrorEntry(ulong word)
    {
        if (word == 0) return new MirrorEntry { Contents = MirrorContents.Zero };
        var entry = new MirrorEntry { Contents = (MirrorContents)((byte)word - MirrorMark), Version = new PageVersion((uint)(word >> 32)) };
        return (byte)word >= MirrorMark && Enum.IsDefined(entry.Contents) && (uint)word >> 8 == 0 ? entry : throw Nonsense(word);
    }

    /// <summary>Whether a node in this state has a grant that is not installed yet.</summary>
    internal static bool IsGranted(NodeState state) => state is NodeState.IM_A or NodeState.IM_AK or NodeState.IM_K;

    private static bool BringsData(EffectKind kind) => kind is EffectKind.WriteFrame or EffectKind.InstallReadable or EffectKind.InstallWritable
        or EffectKind.WriteHome or EffectKind.Keep or EffectKind.KeepInstead or EffectKind.RestoreKept;

    private static ulong Word(byte state, byte flags, ushort owner, PageVersion version) =>
        state | (ulong)flags << 8 | (ulong)owner << 16 | (ulong)version.Value << 32;

    /// <summary>Writes a word at once, after all that was written before it.</summary>
    protected abstract void Write(ref ulong word, ulong value);

    private void Put(ref ulong word, ulong value)
    {
        if (word != value) Write(ref word, value); // pages of a file that are never written take no memory
    }

    private static InvalidDataException Nonsense(ulong word) => new($"0x{word:x16} is no record of a page");
}
