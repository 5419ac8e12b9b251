// SPDX-License-Identifier: Apache-2.0
using System.Collections;
using System.Runtime.CompilerServices;
using VSmp.Agent.Interop;
using VSmp.Coherence;
using VSmp.Coherence.Nodes;
using VSmp.Coherence.Recovery;

namespace VSmp.Agent.Adopting;

/// <summary>
/// What outlives an agent of what it knows of a region: a sparse file beside the region's frames, mapped into the agent. It lies in tmpfs, so what was
/// stored is there when the agent is not any more. Every change is one store of a word.
/// </summary>
/// <remarks>
/// <code>header 4 KiB │ extents, 16 bytes each, up to a whole page │ words of pages at the node, 4 KiB an extent │ words of pages at home or mirror, 4 KiB an extent</code>
/// A block gets its memory before it is touched, so that no store finds the file system full. If there is none, the region cannot be adopted any more, and
/// goes on without being recorded. Whose role ends gives the block back: words that are found in a new one are zeros.
/// </remarks>
internal sealed unsafe class StateFile : PageRecords, IDisposable
{
    /// <summary>What its name has behind the frame file's.</summary>
    public const string Suffix = ".state";

    private const int BlockBytes = 4096;
    private const int ExtentsPerBlock = BlockBytes / ExtentRecord.Bytes;

    private readonly string _path;
    private readonly int _extentCount;
    private readonly BitArray _hasBlock;
    private int _fd;
    private byte* _map;
    private ulong _nowhere; // for words that there is no room for
    private int _layoutChanges = -1;

    private StateFile(string path, int fd, int extentCount)
    {
        _path = path;
        _fd = fd;
        _extentCount = extentCount;
        _hasBlock = new BitArray(checked((int)(LengthOf(extentCount) / BlockBytes)));
    }

    /// <summary>Whether pages are recorded: the region can be adopted, or will be adoptable.</summary>
    public bool IsLive { get; private set; }

    /// <summary>Whether the region can be adopted, and if not, why.</summary>
    public Standing Standing
    {
        get => Header.Standing;
        private set
        {
            Volatile.Write(ref Unsafe.As<Standing, uint>(ref Header.Standing), (uint)value);
            IsLive = value is Standing.Unfinished or Standing.Recorded or Standing.Changing;
        }
    }

    /// <summary>What the region is.</summary>
    public ref StateHeader Header => ref Unsafe.AsRef<StateHeader>(_map);

    /// <summary>Which generation of the region's directories counts.</summary>
    public Generation Generation
    {
        get => new(Header.Generation);
        set
        {
            if (Header.Generation != value.Value) Volatile.Write(ref Header.Generation, value.Value);
        }
    }

    /// <summary>Begins to record a region of which nothing is here yet.</summary>
    /// <param name="framesPath">Its frame file.</param>
    /// <param name="layout">The region.</param>
    /// <param name="self">This node.</param>
    /// <exception cref="IOException">There is no room.</exception>
    public static StateFile Create(string framesPath, RegionLayout layout, NodeId self)
    {
        string path = framesPath + Suffix;
        int fd = Libc.Open(path, Libc.O_RDWR | Libc.O_CREAT | Libc.O_EXCL | Libc.O_CLOEXEC, 0x180 /* 0600 */);
        if (fd < 0) throw Errno.Exception($"cannot create the state file {path}");
        var file = new StateFile(path, fd, layout.ExtentCount);
        try
        {
            if (Libc.FTruncate(fd, LengthOf(layout.ExtentCount)) < 0) throw Errno.Exception($"cannot make {path} as long as it must be");
            file.Map();
            if (!file.TryAllocate(0)) throw Errno.Exception($"no room for {path}");
        }
        catch (IOException)
        {
            file.Dispose();
            throw;
        }
        file.Header.Describe(layout, self);
        bool isRecorded = layout is Region;
        file.Header.Traits = layout.Homes is null ? RegionTraits.None : RegionTraits.IsUsed;
        if (layout is Region region) file.Generation = region.Generation;
        file.Standing = isRecorded ? Standing.Recorded : Standing.ProtocolWithoutRecords;
        return file;
    }

    /// <summary>Opens what another agent has left.</summary>
    /// <param name="framesPath">The region's frame file.</param>
    /// <param name="id">The region.</param>
    /// <param name="self">This node.</param>
    /// <exception cref="InvalidDataException">It is damaged, of another build, or says that the region cannot be adopted.</exception>
    /// <exception cref="IOException">It cannot be read, or there is no room.</exception>
    public static StateFile Open(string framesPath, RegionId id, NodeId self)
    {
        string path = framesPath + Suffix;
        int fd = Libc.Open(path, Libc.O_RDWR | Libc.O_NOFOLLOW | Libc.O_NONBLOCK | Libc.O_CLOEXEC, 0);
        if (fd < 0) throw Errno.Exception($"cannot open the state file {path}");
        StateFile? file = null;
        try
        {
            StateHeader header;
            FileStatus status = FileStatus.Of(fd);
            // SAFETY: the header is on this stack, and as long as is said.
            if (!status.IsRegular || Libc.PRead(fd, &header, StateHeader.Bytes, 0) != StateHeader.Bytes) throw Invalid(path, "it is no state file");
            if (header.Violation() is { } violation) throw Invalid(path, violation);
            if (header.Region != id || header.Self != self) throw Invalid(path, $"it is of {header.Region} at {header.Self}");
            if (status.Bytes != LengthOf(header.ExtentCount)) throw Invalid(path, $"it is {status.Bytes} bytes long");
            file = new StateFile(path, fd, header.ExtentCount);
            file.FindBlocks();
            file.Map();
            file.Check();
            file.IsLive = true;
            return file;
        }
        catch
        {
            if (file is null) _ = Libc.Close(fd);
            else file.Close();
            throw;
        }
    }

    /// <inheritdoc/>
    public override ref ulong NodeWordOf(PageNumber page) => ref WordOf(NodeBlockOf(page.Extent), page);

    /// <inheritdoc/>
    public override ref ulong HomeWordOf(PageNumber page) => ref WordOf(HomeBlockOf(page.Extent), page);

    /// <inheritdoc/>
    protected override void Write(ref ulong word, ulong value) => Volatile.Write(ref word, value);

    /// <summary>What is recorded of an extent.</summary>
    public ExtentRecord this[ExtentNumber extent]
    {
        get
        {
            if (!_hasBlock[TableBlockOf(extent)]) return ExtentRecord.None;
            ulong* words = RecordAt(extent);
            return ExtentRecord.Of(words[0], words[1]);
        }
    }

    /// <summary>Records what the node is to an extent, and where its home and mirror are. Its pages are recorded before it gets a role.</summary>
    public void RecordExtent(Region region, NodeController node, ExtentNumber extent)
    {
        ExtentRecord before = this[extent], now = RecordOf(region, extent);
        if (before == now || !IsLive) return;
        bool isOpen = (now.Roles & ExtentRoles.Open) != 0, isGiven = (now.Roles & ~ExtentRoles.Open) != 0;
        if (!TryHave(TableBlockOf(extent)) || (isOpen && !TryHave(NodeBlockOf(extent))) || (isGiven && !TryHave(HomeBlockOf(extent)))) return;
        if ((now.Roles & ~before.Roles) != 0)
        {
            for (uint i = 0; i < ExtentNumber.Pages; i++) Record(region, node, extent.FirstPage.Plus(i));
        }
        ulong* words = RecordAt(extent);
        bool isFirstFirst = (before.Roles & ~now.Roles) != 0; // what it refers to goes
        if (isFirstFirst) Volatile.Write(ref words[0], now.First);
        Volatile.Write(ref words[1], now.Second);
        Volatile.Write(ref words[0], now.First);
        if (!isOpen) Drop(NodeBlockOf(extent));
        if (!isGiven) Drop(HomeBlockOf(extent));
    }

    /// <summary>Records what has changed of a region's extents.</summary>
    /// <param name="region">The region.</param>
    /// <param name="node">This node's side as a user of it.</param>
    /// <param name="traits">What else is to be known of it.</param>
    public void RecordLayout(Region region, NodeController node, RegionTraits traits)
    {
        if (Header.Traits != traits) Header.Traits = traits;
        Generation = region.Generation;
        int changes = region.LayoutChanges;
        if (changes == _layoutChanges) return;
        for (uint e = 0; e < (uint)_extentCount; e++) RecordExtent(region, node, new ExtentNumber(e));
        _layoutChanges = changes;
    }

    /// <summary>
    /// Whether homes have become mirrors, or mirrors homes, of what is recorded: what pages' words mean changes with that, and all of them cannot change in one store.
    /// </summary>
    public bool HasTurned(Region region)
    {
        for (uint e = 0; e < (uint)_extentCount; e++)
        {
            ExtentNumber extent = new(e);
            ExtentRoles before = this[extent].Roles;
            if ((before & ExtentRoles.Home) != 0 ? region.Mirrored.Contains(extent) : (before & ExtentRoles.Mirror) != 0 && region.IsHome(extent)) return true;
        }
        return false;
    }

    /// <summary>From here on, and until <see cref="EndChange"/>, the region cannot be adopted.</summary>
    public void BeginChange()
    {
        if (Standing == Standing.Recorded) Standing = Standing.Changing;
    }

    /// <summary>All is recorded as it is.</summary>
    public void EndChange()
    {
        if (Standing == Standing.Changing) Standing = Standing.Recorded;
    }

    /// <summary>The region cannot be adopted any more.</summary>
    public void Abandon(string why)
    {
        if (!IsLive) return;
        Standing = Standing.NoRoom;
        Log.Warn($"{why}: if this agent is killed, region {Header.Name} is lost with it, as with the node");
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        if (_fd < 0) return;
        _ = Libc.Unlink(_path);
        Close();
    }

    /// <summary>Closes the file, and leaves it where it is.</summary>
    public void Close()
    {
        if (_fd < 0) return;
        // SAFETY: nothing refers to the mapping once the region is gone.
        if (_map != null) _ = Libc.MUnmap(_map, (nuint)LengthOf(_extentCount));
        _map = null;
        _ = Libc.Close(_fd);
        _fd = -1;
        IsLive = false;
    }

    private static long LengthOf(int extentCount) => (1L + TableBlocks(extentCount) + (2L * extentCount)) * BlockBytes;

    private static int TableBlocks(int extentCount) => (extentCount + ExtentsPerBlock - 1) / ExtentsPerBlock;

    private static ExtentRecord RecordOf(Region region, ExtentNumber extent)
    {
        bool isHome = region.IsHome(extent), isMirror = region.Mirrored.Contains(extent);
        ExtentRoles roles = (region.IsOpen(extent) ? ExtentRoles.Open : 0) | (isHome ? ExtentRoles.Home : 0) | (isMirror ? ExtentRoles.Mirror : 0)
            | (region.UndecidedHomes.Contains(extent) ? ExtentRoles.Undecided : 0);
        return new ExtentRecord(roles, region.Homes?.HomeOf(extent) ?? NodeId.None, region.Homes?.MirrorOf(extent) ?? NodeId.None,
            isHome ? region.MirrorOf(extent) : NodeId.None, isHome ? region.NextMirrorOf(extent) : NodeId.None,
            isMirror ? region.Mirrored.HomeOf(extent) : NodeId.None);
    }

    private static InvalidDataException Invalid(string path, string why) => new($"{path} cannot be adopted: {why}");

    private static int TableBlockOf(ExtentNumber extent) => 1 + (int)(extent.Value / ExtentsPerBlock);

    private int NodeBlockOf(ExtentNumber extent) => 1 + TableBlocks(_extentCount) + (int)extent.Value;

    private int HomeBlockOf(ExtentNumber extent) => NodeBlockOf(extent) + _extentCount;

    private ulong* RecordAt(ExtentNumber extent) => (ulong*)(_map + BlockBytes + (extent.Value * (long)ExtentRecord.Bytes));

    private ref ulong WordOf(int block, PageNumber page)
    {
        if (!_hasBlock[block] && !TryHave(block))
        {
            _nowhere = 0;
            return ref _nowhere;
        }
        // SAFETY: the block is in the mapping, and has memory; a page of an extent has a word in it.
        return ref ((ulong*)(_map + ((long)block * BlockBytes)))[page.Value & (ExtentNumber.Pages - 1)];
    }

    private bool TryHave(int block)
    {
        if (_hasBlock[block] || TryAllocate(block)) return true;
        Abandon($"there is no room to record more of it ({Errno.Text(Errno.Last)})");
        return false;
    }

    private bool TryAllocate(int block)
    {
        if (Libc.FAllocate(_fd, Libc.FALLOC_FL_KEEP_SIZE, (long)block * BlockBytes, BlockBytes) < 0) return false;
        return _hasBlock[block] = true;
    }

    private void Drop(int block)
    {
        if (!_hasBlock[block]) return;
        const int Mode = Libc.FALLOC_FL_PUNCH_HOLE | Libc.FALLOC_FL_KEEP_SIZE;
        if (Libc.FAllocate(_fd, Mode, (long)block * BlockBytes, BlockBytes) < 0) throw Errno.Exception($"cannot free a block of {_path}");
        _hasBlock[block] = false;
    }

    private void Map()
    {
        const int Protection = Libc.PROT_READ | Libc.PROT_WRITE, Flags = Libc.MAP_SHARED | Libc.MAP_NORESERVE;
        // SAFETY: the kernel chooses where.
        byte* map = Libc.MMap(null, (nuint)LengthOf(_extentCount), Protection, Flags, _fd, 0);
        if ((nint)map == -1) throw Errno.Exception($"cannot map {_path}");
        _map = map;
    }

    /// <summary>Which blocks were written. (Those that have memory, and were not, are found to be without, and get it again.)</summary>
    private void FindBlocks()
    {
        for (long at = 0; (at = Libc.LSeek(_fd, at, Libc.SEEK_DATA)) >= 0;)
        {
            long end = Libc.LSeek(_fd, at, Libc.SEEK_HOLE);
            if (end < 0) throw Errno.Exception($"cannot read {_path}");
            for (long block = at / BlockBytes; block < (end + BlockBytes - 1) / BlockBytes; block++) _hasBlock[(int)block] = true;
            at = end;
        }
        if (Errno.Last != Errno.ENXIO) throw Errno.Exception($"cannot read {_path}");
    }

    /// <summary>Everything but the words of pages, which are looked at as they are adopted; and what no role refers to goes.</summary>
    private void Check()
    {
        for (uint e = 0; e < (uint)_extentCount; e++)
        {
            ExtentNumber extent = new(e);
            ExtentRoles roles = ExtentRoles.None;
            if (_hasBlock[TableBlockOf(extent)])
            {
                ulong* words = RecordAt(extent);
                if (ExtentRecord.Violation(words[0], words[1], Header.Traits) is { } violation) throw Invalid(_path, $"of {extent} it is recorded that {violation}");
                roles = this[extent].Roles;
            }
            if ((roles & ExtentRoles.Open) == 0) Drop(NodeBlockOf(extent));
            else if (!_hasBlock[NodeBlockOf(extent)] && !TryAllocate(NodeBlockOf(extent))) throw Errno.Exception($"no room for {_path}");
            if ((roles & ~ExtentRoles.Open) == 0) Drop(HomeBlockOf(extent));
            else if (!_hasBlock[HomeBlockOf(extent)] && !TryAllocate(HomeBlockOf(extent))) throw Errno.Exception($"no room for {_path}");
        }
    }
}
