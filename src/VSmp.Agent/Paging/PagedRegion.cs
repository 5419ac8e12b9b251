// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent.Adopting;
using VSmp.Agent.Guests;
using VSmp.Coherence;
using VSmp.Coherence.Homes;
using VSmp.Coherence.Nodes;

namespace VSmp.Agent.Paging;

/// <summary>A region at this node: its protocol state, its frames, and the guests that map it.</summary>
/// <param name="protocol">What keeps it coherent, and its state.</param>
/// <param name="frames">Frames.</param>
/// <param name="run">Whose budget its guests use; null where this node is only a home of it.</param>
internal sealed class PagedRegion(IRegionProtocol protocol, FrameFile frames, Run? run)
{
    /// <summary>Mappings of one region at one node at most: a page has one bit for each.</summary>
    public const int MaxMappings = 32;

    private readonly LocalPage[]?[] _local = new LocalPage[]?[run is null ? 0 : protocol.Layout.ExtentCount];

    /// <summary>What keeps it coherent.</summary>
    public IRegionProtocol Protocol { get; } = protocol;

    /// <summary>Its size, and where its homes are.</summary>
    public RegionLayout Layout => Protocol.Layout;

    /// <summary>Frames.</summary>
    public FrameFile Frames { get; } = frames;

    /// <summary>Whose budget its guests use.</summary>
    public Run? Run { get; } = run;

    /// <summary>Copies of pages that are kept until others have them.</summary>
    public KeptCopies Kept { get; init; } = new();

    /// <summary>Copies of pages as they were before they were written here, under a protocol that compares.</summary>
    public KeptCopies Twins { get; } = new();

    /// <summary>What outlives this agent of what it knows of the region; null where nothing is to.</summary>
    public StateFile? Records { get; init; }

    /// <summary>This node's side as a user of it, where it is recorded.</summary>
    public NodeController? Node { get; init; }

    /// <summary>Its number.</summary>
    public RegionId Id => Layout.Id;

    /// <summary>The guests' mappings.</summary>
    public List<Mapping> Mappings { get; } = [];

    /// <summary>Second homes that are here; null under a protocol that knows none.</summary>
    public MirrorSet? Mirrored => (Protocol as DirectoryProtocol)?.Region.Mirrored;

    /// <summary>Extents that this node has given memory for, as home or as mirror.</summary>
    public uint GivenExtents => (uint)(Layout.HomeExtentCount + (Mirrored?.Count ?? 0));

    /// <summary>Whether ranks of a job share it: its homes move only when a node is lost, and it is there until the job's leader drops it.</summary>
    public bool IsShared { get; set; }

    /// <summary>Whether it was made to have second homes wherever the loss of a home would not end its job.</summary>
    public bool IsMirrored { get; set; }

    /// <summary>Gets the pages of the checkpoint under way.</summary>
    public IPageTaker? Taker { get; set; }

    /// <summary>Pages whose home is here that were lost in the last recovery.</summary>
    public List<PageNumber> LostHere { get; } = [];

    /// <summary>Names of the nodes with which pages of it were lost, for messages.</summary>
    public string LostWith { get; set; } = "";

    /// <summary>Where faults have been, to read ahead.</summary>
    public ReadAhead ReadAhead { get; } = new();

    /// <summary>What the pager knows of a page. Its extent must be open.</summary>
    public ref LocalPage LocalAt(PageNumber page) => ref _local[page.Extent.Value]![page.Value & (ExtentNumber.Pages - 1)];

    /// <summary>A bit that no mapping has; the caller has checked that there are fewer than <see cref="MaxMappings"/>.</summary>
    public int FreeBit()
    {
        int bit = 0;
        while (Mappings.Exists(m => m.Bit == bit)) bit++;
        return bit;
    }

    /// <summary>A mapping is gone: its bit may be given to another, which has no page present.</summary>
    public void RemoveMapping(Mapping mapping)
    {
        if (!Mappings.Remove(mapping)) return;
        foreach (LocalPage[]? pages in _local)
        {
            foreach (ref LocalPage page in pages.AsSpan()) page.Mapped &= ~mapping.Mask;
        }
    }

    /// <summary>This node's guests may use the extent from now on.</summary>
    public void Open(ExtentNumber extent)
    {
        Layout.Open(extent);
        _local[extent.Value] = new LocalPage[ExtentNumber.Pages];
        RecordExtent(extent);
        if (!Layout.IsHome(extent)) Run!.Copies.OnOpened(ExtentNumber.Pages, Run.Budget.LimitPages);
    }

    /// <summary>This node's guests do not use the extent any more.</summary>
    public void Close(ExtentNumber extent)
    {
        Layout.Close(extent);
        _local[extent.Value] = null;
        RecordExtent(extent);
    }

    /// <summary>
    /// Records what this node is to an extent, where that must not wait for the end of the turn: before anybody is told of it, or frames are freed for it.
    /// </summary>
    public void RecordExtent(ExtentNumber extent)
    {
        if (Records is { IsLive: true } records) records.RecordExtent(((DirectoryProtocol)Protocol).Region, Node!, extent);
    }

    /// <summary>Records what has changed of the region but for its pages.</summary>
    public void RecordLayout()
    {
        if (Records is not { IsLive: true } records) return;
        RegionTraits traits = (Run is null ? 0 : RegionTraits.IsUsed) | (IsShared ? RegionTraits.IsShared : 0) | (IsMirrored ? RegionTraits.IsMirrored : 0);
        records.RecordLayout(((DirectoryProtocol)Protocol).Region, Node!, traits);
    }
}

/// <summary>What the pager knows of a page, beside its protocol state.</summary>
internal struct LocalPage
{
    /// <summary>Which mappings have it present: bit i for mapping i.</summary>
    public uint Mapped;

    /// <summary>Rounds that it may yet stay when its turn to be evicted comes.</summary>
    public byte Chances;

    /// <summary>
    /// Expected to be written when it is fetched for reading: it was written the last time that it was here. Counts down each time
    /// that it is granted on that expectation alone, so that a page that is only read now is found out.
    /// </summary>
    public byte WriteExpected;

    /// <summary>Whether it stands in the queue of eviction.</summary>
    public bool IsQueued;

    /// <summary>Whether faults wait for it.</summary>
    public bool IsAwaited;

    /// <summary>Whether it is lost, and touching it was made SIGBUS; until it is present in a mapping again.</summary>
    public bool IsPoisoned;

    /// <summary>How many threads hold it now.</summary>
    public byte Holds;

    /// <summary>The run's count of evictions when it was evicted last; 0 if never.</summary>
    public uint EvictedAt;
}

/// <summary>One guest's mapping of a region: address range, offset in the frame file, userfaultfd.</summary>
internal sealed class Mapping(Guest guest, PagedRegion region, int userfaultfd, ulong address, ulong length, ulong fileOffset)
{
    /// <summary>Whose.</summary>
    public Guest Guest { get; } = guest;

    /// <summary>Of what.</summary>
    public PagedRegion Region { get; } = region;

    /// <summary>The agent's copy of the guest's userfaultfd.</summary>
    public int Userfaultfd { get; } = userfaultfd;

    /// <summary>Where it begins in the guest.</summary>
    public ulong Address => address;

    /// <summary>How long it is.</summary>
    public ulong Bytes => length;

    /// <summary>Whether it is held by whoever outlives this agent, if anybody does: before that the guest is not told that it has it.</summary>
    public bool IsHeld { get; set; }

    /// <summary>The number of its bit in <see cref="LocalPage.Mapped"/>.</summary>
    public int Bit { get; init; }

    /// <summary>Its bit in <see cref="LocalPage.Mapped"/>.</summary>
    public uint Mask => 1u << Bit;

    /// <summary>What a rank will miss behind barriers; null for a program, which has none.</summary>
    public BarrierForecast? Forecast { get; } = guest.IsRank ? new BarrierForecast() : null;

    /// <summary>Whether the guest's address space is gone.</summary>
    public bool IsGone { get; set; }

    /// <summary>The page at an address, if it lies in this mapping.</summary>
    public bool TryTranslate(ulong at, out PageNumber page)
    {
        page = new PageNumber((at - address + fileOffset) >> PageNumber.Shift);
        return at >= address && at - address < length;
    }

    /// <summary>Where the guest has a page.</summary>
    public ulong AddressOf(PageNumber page) => page.Offset - fileOffset + address;
}
