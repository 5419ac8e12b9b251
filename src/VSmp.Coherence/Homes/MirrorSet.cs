// SPDX-License-Identifier: Apache-2.0
namespace VSmp.Coherence.Homes;

/// <summary>What a mirror has of a page.</summary>
public enum MirrorContents : byte
{
    /// <summary>Nothing yet: the mirror is younger than the home copy, and has not been sent it.</summary>
    Unknown,
    /// <summary>It is zeros and has no frame.</summary>
    Zero,
    /// <summary>Its contents are in the frame file.</summary>
    Data,
    /// <summary>An owner has it, in that version or a newer one; the home has no copy that counts, and neither has the mirror.</summary>
    Elsewhere,
}

/// <summary>A page at its mirror.</summary>
public struct MirrorEntry
{
    /// <summary>Version of the contents.</summary>
    public PageVersion Version;
    /// <summary>What is here.</summary>
    public MirrorContents Contents;

    /// <summary>What the directory has of the page if the mirror becomes its home, before anybody has said what he has.</summary>
    internal readonly DirectoryEntry AsDirectoryEntry(bool wasOwnerLost)
    {
        DirectoryEntry entry = DirectoryEntry.Zero;
        entry.Version = Version;
        if (Contents != MirrorContents.Zero) entry.Flags = Contents == MirrorContents.Elsewhere ? DirectoryFlags.Dropped : DirectoryFlags.None;
        if (Contents == MirrorContents.Unknown || wasOwnerLost)
        {
            // Whatever is left over may be older than what the lost owner, or the lost home itself, had: no copy counts but those in use.
            entry.Version = new PageVersion(uint.MaxValue);
            entry.Flags |= DirectoryFlags.Dropped;
        }
        if (wasOwnerLost) entry.Flags |= DirectoryFlags.OwnerLost;
        return entry;
    }

    /// <summary>What a mirror has that was the home until now.</summary>
    /// <param name="entry">The page's entry, reduced to what the home itself has of it.</param>
    internal static MirrorEntry Of(in DirectoryEntry entry) => new()
    {
        Version = entry.Version,
        Contents = entry.State == Protocols.DirectoryState.Lost ? MirrorContents.Unknown
            : (entry.Flags & DirectoryFlags.Dropped) != 0 ? MirrorContents.Elsewhere
            : (entry.Flags & DirectoryFlags.Zero) != 0 ? MirrorContents.Zero : MirrorContents.Data,
    };
}

/// <summary>The extents of a region that are mirrored at a node: second homes, which are written before a writeback is acknowledged.</summary>
/// <param name="extentCount">Extents of the region.</param>
public sealed class MirrorSet(int extentCount)
{
    /// <summary>Stands for an extent of zeros.</summary>
    private static readonly MirrorEntry[] Untouched = [];

    private MirrorEntry[]?[] _extents = []; // as many as the region has once one is mirrored here
    private ushort[] _homes = [];

    /// <summary>Extents mirrored here.</summary>
    public int Count { get; private set; }

    /// <summary>Counts what was added and removed.</summary>
    public int Changes { get; private set; }

    /// <summary>Whether an extent is mirrored here.</summary>
    public bool Contains(ExtentNumber extent) => extent.Value < (uint)_extents.Length && _extents[extent.Value] is not null;

    /// <summary>Whether anything of an extent was ever written here, or is not known.</summary>
    public bool IsTouched(ExtentNumber extent) => extent.Value < (uint)_extents.Length && _extents[extent.Value] is { Length: > 0 };

    /// <summary>Where the home of an extent is that is mirrored here.</summary>
    public NodeId HomeOf(ExtentNumber extent) => new(_homes[extent.Value]);

    /// <summary>Begins to mirror an extent.</summary>
    /// <param name="extent">Which.</param>
    /// <param name="home">Where its home is.</param>
    /// <param name="isFresh">Whether it is as young as its home, so that all its pages are zeros; else nothing is known of them yet.</param>
    /// <returns>False if it is mirrored here already.</returns>
    public bool Add(ExtentNumber extent, NodeId home, bool isFresh)
    {
        if (_extents.Length == 0)
        {
            _extents = new MirrorEntry[]?[extentCount];
            _homes = new ushort[extentCount];
        }
        if (_extents[extent.Value] is not null) return false;
        _homes[extent.Value] = home.Value;
        _extents[extent.Value] = isFresh ? Untouched : new MirrorEntry[ExtentNumber.Pages];
        Count++;
        Changes++;
        return true;
    }

    /// <summary>Ends to mirror an extent.</summary>
    /// <returns>False if it was not mirrored here.</returns>
    public bool Remove(ExtentNumber extent)
    {
        if (!Contains(extent)) return false;
        _extents[extent.Value] = null;
        Count--;
        Changes++;
        return true;
    }

    /// <summary>A page. Its extent must be mirrored here.</summary>
    public ref MirrorEntry At(PageNumber page)
    {
        MirrorEntry[] entries = _extents[page.Extent.Value]!;
        if (entries.Length == 0)
        {
            entries = new MirrorEntry[ExtentNumber.Pages];
            Array.Fill(entries, new MirrorEntry { Contents = MirrorContents.Zero });
            _extents[page.Extent.Value] = entries;
        }
        return ref entries[page.Value & (ExtentNumber.Pages - 1)];
    }
}
