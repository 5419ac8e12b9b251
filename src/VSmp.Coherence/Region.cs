// SPDX-License-Identifier: Apache-2.0
using System.Runtime.CompilerServices;
using VSmp.Coherence.Checkpointing;
using VSmp.Coherence.Homes;
using VSmp.Coherence.Nodes;
using VSmp.Coherence.Placement;
using VSmp.Coherence.Protocols;
using VSmp.Coherence.Recovery;

namespace VSmp.Coherence;

/// <summary>What one node knows of a region: the states of its pages here, and the directory of the extents that it is home to.</summary>
public sealed class Region : RegionLayout
{
    /// <summary>Stands for the directory of an extent that this node is home to, and of which no page was ever asked for: a word is enough.</summary>
    private static readonly DirectoryEntry[] Untouched = [];

    private readonly PageEntry[]?[] _pages;
    private readonly DirectoryEntry[]?[] _directory;
    private ushort[]? _mirrorOf; // of the extents whose home is here
    private ushort[]? _nextMirrorOf;
    private readonly HashSet<ExtentNumber> _undecidedHomes = [];
    private int _changes;

    /// <summary>Makes a region of which nothing is here yet.</summary>
    /// <param name="id">Its number.</param>
    /// <param name="name">Its name, for messages.</param>
    /// <param name="homes">Where its homes are; null at a node that is only a home.</param>
    /// <param name="extentCount">Its length in extents.</param>
    /// <param name="protocol">What keeps it coherent; the same at every node.</param>
    /// <param name="budget">Frames for pages whose home is elsewhere; null at a node that is only a home.</param>
    public Region(RegionId id, string name, int extentCount, Protocol protocol, HomeMap? homes, FrameBudget? budget)
        : base(id, name, extentCount, homes, budget)
    {
        Protocol = protocol;
        _pages = new PageEntry[]?[homes is null ? 0 : extentCount];
        _directory = new DirectoryEntry[]?[extentCount];
        Mirrored = new MirrorSet(extentCount);
    }

    /// <summary>What keeps it coherent.</summary>
    public Protocol Protocol { get; }

    /// <summary>Which generation of its directories counts; messages of others do not.</summary>
    public Generation Generation { get; set; }

    /// <summary>Whether its directories are being rebuilt: until they are there nothing is asked for, evicted or thrown away here.</summary>
    public bool IsFrozen { get; set; }

    /// <summary>Whether a checkpoint is about to be cut: nothing is begun here until then, so that what is under way ends.</summary>
    public bool IsHeld { get; set; }

    /// <summary>What checkpoints have of it here; null if none was ever taken.</summary>
    public RegionCapture? Capture { get; set; }

    /// <summary>
    /// Whether it was adopted from an agent that was killed: what that one was sent, and sent, is void, so that nothing is heard of it until its
    /// directories begin to be rebuilt.
    /// </summary>
    public bool IsDeaf { get; set; }

    /// <summary>The rebuilding of the directories that are here, while it is under way.</summary>
    public DirectoryRebuild? Rebuild { get; set; }

    /// <summary>Copies for younger mirrors that are not acknowledged yet.</summary>
    public int MirrorCopiesOut { get; internal set; }

    /// <summary>Second homes that are here.</summary>
    public MirrorSet Mirrored { get; }

    /// <summary>
    /// Homes that were mirrors until a recovery in which not everybody has said yet what he has: what is here of them is what was written home last, and not more.
    /// </summary>
    public IReadOnlySet<ExtentNumber> UndecidedHomes => _undecidedHomes;

    /// <summary>Pages in F, to be released when the directories are there again.</summary>
    internal List<PageNumber> FrozenPages { get; } = [];

    /// <inheritdoc/>
    public override string ProtocolName => Protocol.Name;

    /// <inheritdoc/>
    public override int LayoutChanges => base.LayoutChanges + Mirrored.Changes + _changes;

    /// <inheritdoc/>
    public override bool IsOpen(ExtentNumber extent) => extent.Value < (uint)_pages.Length && _pages[extent.Value] is not null;

    /// <inheritdoc/>
    public override bool IsHome(ExtentNumber extent) => extent.Value < (uint)_directory.Length && _directory[extent.Value] is not null;

    /// <summary>The state of a page here. Its extent must be open.</summary>
    public ref PageEntry PageAt(PageNumber page) => ref _pages[page.Extent.Value]![page.Value & (ExtentNumber.Pages - 1)];

    /// <summary>The page's directory entry. This node must be its home.</summary>
    public ref DirectoryEntry EntryAt(PageNumber page)
    {
        DirectoryEntry[] entries = _directory[page.Extent.Value]!;
        if (entries.Length == 0) entries = Touch(page.Extent);
        return ref entries[page.Value & (ExtentNumber.Pages - 1)];
    }

    /// <summary>The states of an extent's pages here; empty if it is not open.</summary>
    public ReadOnlySpan<PageEntry> PagesOf(ExtentNumber extent) => extent.Value < (uint)_pages.Length ? _pages[extent.Value] : [];

    /// <summary>The directory entries of an extent; empty if its home is not here, or no page of it was ever asked for.</summary>
    public ReadOnlySpan<DirectoryEntry> EntriesOf(ExtentNumber extent) => _directory[extent.Value];

    /// <summary>The mirror of an extent whose home is here; none if it has none.</summary>
    public NodeId MirrorOf(ExtentNumber extent) => _mirrorOf is null ? NodeId.None : new NodeId(_mirrorOf[extent.Value]);

    /// <summary>Says where an extent whose home is here is mirrored, or (with <see cref="NodeId.None"/>) that it is not any more.</summary>
    public void SetMirror(ExtentNumber extent, NodeId mirror)
    {
        if (_mirrorOf is null)
        {
            if (mirror.IsNone) return;
            _mirrorOf = new ushort[ExtentCount];
            Array.Fill(_mirrorOf, NodeId.None.Value);
        }
        _mirrorOf[extent.Value] = mirror.Value;
        _changes++;
    }

    /// <summary>Whether an answer of a mirror is awaited for a page of an extent whose home is here.</summary>
    public bool AwaitsMirror(ExtentNumber extent)
    {
        foreach (ref readonly DirectoryEntry entry in _directory[extent.Value].AsSpan())
        {
            if (entry.State is DirectoryState.I_W or DirectoryState.S_W or DirectoryState.I_AW) return true;
        }
        return false;
    }

    /// <summary>The node that is to take the place of the mirror of an extent whose home is here, and is written as the mirror is; none if there is none.</summary>
    public NodeId NextMirrorOf(ExtentNumber extent) => _nextMirrorOf is null ? NodeId.None : new NodeId(_nextMirrorOf[extent.Value]);

    /// <summary>Has a node written beside the mirror of an extent, whose place it is to take, or (with <see cref="NodeId.None"/>) no longer.</summary>
    public void SetNextMirror(ExtentNumber extent, NodeId mirror)
    {
        if (_nextMirrorOf is null)
        {
            if (mirror.IsNone) return;
            _nextMirrorOf = new ushort[ExtentCount];
            Array.Fill(_nextMirrorOf, NodeId.None.Value);
        }
        _nextMirrorOf[extent.Value] = mirror.Value;
        _changes++;
    }

    /// <summary>Whether any page of an extent whose home is here was ever asked for.</summary>
    public bool IsTouched(ExtentNumber extent) => _directory[extent.Value] is { Length: > 0 };

    /// <summary>The second home becomes the home: it has what was written home last, and does not know yet who has copies.</summary>
    /// <param name="extent">An extent that is mirrored here.</param>
    /// <param name="wasOwnerLost">
    /// Whether a node was lost that may have owned pages of it. What is here then is right only if somebody who is left says so.
    /// </param>
    public void PromoteMirror(ExtentNumber extent, bool wasOwnerLost)
    {
        if (!BecomeHome(extent)) throw new InvalidOperationException($"{extent} of {Id} has its home here already");
        if (Mirrored.IsTouched(extent) || wasOwnerLost)
        {
            for (uint i = 0; i < ExtentNumber.Pages; i++)
            {
                PageNumber page = extent.FirstPage.Plus(i);
                EntryAt(page) = Mirrored.At(page).AsDirectoryEntry(wasOwnerLost);
            }
        }
        Mirrored.Remove(extent);
        LeaveUndecided(extent);
    }

    /// <summary>A home that was a mirror until a recovery that is not decided yet.</summary>
    /// <param name="extent">An extent whose home is here.</param>
    public void LeaveUndecided(ExtentNumber extent)
    {
        if (_undecidedHomes.Add(extent)) _changes++;
    }

    /// <summary>Everybody has said what he has of the homes that are here.</summary>
    internal void Decide()
    {
        if (_undecidedHomes.Count == 0) return;
        _undecidedHomes.Clear();
        _changes++;
    }

    /// <summary>The home becomes the mirror of what was its mirror, and has what it had. Its entries are reduced to what is here.</summary>
    /// <param name="extent">An extent whose home is here.</param>
    /// <param name="home">Its home from now on.</param>
    public void DemoteHome(ExtentNumber extent, NodeId home)
    {
        bool isTouched = IsTouched(extent);
        Mirrored.Add(extent, home, isFresh: true);
        for (uint i = 0; isTouched && i < ExtentNumber.Pages; i++)
        {
            PageNumber page = extent.FirstPage.Plus(i);
            Mirrored.At(page) = MirrorEntry.Of(in EntryAt(page));
        }
        ResignHome(extent);
    }

    /// <summary>
    /// The frame of a page was filled, before anybody used the region: from now on the page is more than zeros. Home and mirror count alike.
    /// </summary>
    /// <param name="page">A page of an extent that has its home here, or is mirrored here.</param>
    public void OnLoaded(PageNumber page)
    {
        PageVersion first = default(PageVersion).Next();
        if (Mirrored.Contains(page.Extent)) Mirrored.At(page) = new MirrorEntry { Contents = MirrorContents.Data, Version = first };
        else EntryAt(page) = DirectoryEntry.Zero with { Flags = DirectoryFlags.None, Version = first };
    }

    /// <summary>
    /// What is here of an extent that was mirrored here until a recovery that is still under way does not count any more, unless somebody who is left has
    /// it in use: a node was lost that may have owned pages of it.
    /// </summary>
    internal void DoubtHome(ExtentNumber extent)
    {
        for (uint i = 0; i < ExtentNumber.Pages; i++)
            EntryAt(extent.FirstPage.Plus(i)) = new MirrorEntry { Contents = MirrorContents.Unknown }.AsDirectoryEntry(wasOwnerLost: true);
    }

    /// <inheritdoc/>
    public override void Open(ExtentNumber extent)
    {
        if (_pages[extent.Value] is not null) throw new InvalidOperationException($"{extent} of {Id} is open already");
        _pages[extent.Value] = new PageEntry[ExtentNumber.Pages];
        _changes++;
    }

    /// <inheritdoc/>
    public override void Close(ExtentNumber extent)
    {
        foreach (ref PageEntry page in _pages[extent.Value].AsSpan())
        {
            if (page.State != NodeState.I) throw new InvalidOperationException($"{extent} of {Id} is closed with a page in {page.State}");
        }
        _pages[extent.Value] = null;
        _changes++;
    }

    /// <inheritdoc/>
    public override bool BecomeHome(ExtentNumber extent)
    {
        if (_directory[extent.Value] is not null) return false;
        _directory[extent.Value] = Untouched;
        HomeExtentCount++;
        _changes++;
        return true;
    }

    /// <inheritdoc/>
    public override bool ResignHome(ExtentNumber extent)
    {
        if (!IsHome(extent)) return false;
        _directory[extent.Value] = null;
        _undecidedHomes.Remove(extent);
        SetMirror(extent, NodeId.None);
        SetNextMirror(extent, NodeId.None);
        HomeExtentCount--;
        _changes++;
        return true;
    }

    /// <summary>The first page of an extent is asked for: from now on each of its pages has an entry.</summary>
    [MethodImpl(MethodImplOptions.NoInlining)]
    private DirectoryEntry[] Touch(ExtentNumber extent)
    {
        var entries = new DirectoryEntry[ExtentNumber.Pages];
        Array.Fill(entries, DirectoryEntry.Zero);
        return _directory[extent.Value] = entries;
    }
}
