// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent.Interop;
using VSmp.Agent.Paging;

namespace VSmp.Agent.Adopting;

/// <summary>Where the slabs of a region's kept copies lie, beside its frame file: in tmpfs, so that they are there when the agent is not any more.</summary>
internal sealed unsafe class KeptFile : IDisposable
{
    /// <summary>What its name has behind the frame file's.</summary>
    public const string Suffix = ".kept";

    private readonly List<nint> _slabs = [];
    private int _fd;
    private bool _isFull;

    private KeptFile(string path, int fd)
    {
        Path = path;
        _fd = fd;
    }

    /// <summary>The file.</summary>
    public string Path { get; }

    /// <summary>Makes an empty one.</summary>
    /// <param name="framesPath">The region's frame file.</param>
    public static KeptFile Create(string framesPath) => Open(framesPath, Libc.O_CREAT | Libc.O_EXCL);

    /// <summary>Opens what another agent has left.</summary>
    /// <param name="framesPath">The region's frame file.</param>
    public static KeptFile Open(string framesPath) => Open(framesPath, Libc.O_NOFOLLOW | Libc.O_NONBLOCK);

    /// <summary>Maps the slabs of a file that was opened.</summary>
    /// <exception cref="InvalidDataException">It is damaged.</exception>
    public IReadOnlyList<nint> Load()
    {
        FileStatus status = FileStatus.Of(_fd);
        if (!status.IsRegular || status.Bytes % KeptCopies.SlabBytes != 0 || status.Bytes / KeptCopies.SlabBytes > int.MaxValue / KeptCopies.SlotsPerSlab)
        {
            throw Invalid($"it is {status.Bytes} bytes long");
        }
        // So that no load finds the file system full.
        if (status.Bytes > 0 && Libc.FAllocate(_fd, 0, 0, status.Bytes) < 0) throw Errno.Exception($"no room for {Path}");
        for (long at = 0; at < status.Bytes; at += KeptCopies.SlabBytes)
        {
            if (!TryMap(at, out _)) throw Errno.Exception($"cannot map {Path}");
        }
        return _slabs;
    }

    /// <summary>Adds a slab, of zeros.</summary>
    /// <returns>False, once and for all, if there is no room.</returns>
    public bool TryAddSlab(out byte* slab)
    {
        slab = null;
        if (_isFull) return false;
        long at = _slabs.Count * (long)KeptCopies.SlabBytes;
        if (Libc.FAllocate(_fd, 0, at, KeptCopies.SlabBytes) == 0 && TryMap(at, out slab)) return true;
        _isFull = true;
        return false;
    }

    /// <summary>What to throw where the file is not as it must be.</summary>
    public InvalidDataException Invalid(string why) => new($"{Path} cannot be adopted: {why}");

    /// <inheritdoc/>
    public void Dispose()
    {
        _ = Libc.Unlink(Path);
        Close();
    }

    /// <summary>Closes the file, and leaves it where it is.</summary>
    public void Close()
    {
        if (_fd < 0) return;
        // SAFETY: nothing refers to the slabs once the store is closed.
        foreach (nint slab in _slabs) _ = Libc.MUnmap((void*)slab, KeptCopies.SlabBytes);
        _slabs.Clear();
        _ = Libc.Close(_fd);
        _fd = -1;
    }

    private static KeptFile Open(string framesPath, int flags)
    {
        string path = framesPath + Suffix;
        int fd = Libc.Open(path, Libc.O_RDWR | Libc.O_CLOEXEC | flags, 0x180 /* 0600 */);
        return fd >= 0 ? new KeptFile(path, fd) : throw Errno.Exception($"cannot open {path}");
    }

    private bool TryMap(long at, out byte* slab)
    {
        // SAFETY: the kernel chooses where; the file is that long, and has memory for all of it.
        slab = Libc.MMap(null, KeptCopies.SlabBytes, Libc.PROT_READ | Libc.PROT_WRITE, Libc.MAP_SHARED, _fd, at);
        bool isMapped = (nint)slab != -1;
        if (isMapped) _slabs.Add((nint)slab);
        else slab = null;
        return isMapped;
    }
}
