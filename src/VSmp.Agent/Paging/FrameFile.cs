// SPDX-License-Identifier: Apache-2.0
using System.Runtime.InteropServices;
using VSmp.Agent.Interop;
using VSmp.Coherence;

namespace VSmp.Agent.Paging;

/// <summary>
/// A region's frames at this node: a sparse file in the agent's tmpfs, in which each page has its own offset. The file's allocation is
/// the memory in use. Frames are read and written by pread and pwrite, never through a mapping: a load from a mapping would turn a
/// hole into a frame.
/// </summary>
internal sealed unsafe class FrameFile : IDisposable
{
    private static readonly byte* Zeros = (byte*)NativeMemory.AllocZeroed(PageNumber.Bytes); // lives as long as the process

    private FrameFile(string path, int fd)
    {
        Path = path;
        Descriptor = fd;
    }

    /// <summary>Where it is.</summary>
    public string Path { get; }

    /// <summary>The file, for passing to guests.</summary>
    public int Descriptor { get; private set; }

    /// <summary>Makes a region's file, of holes only.</summary>
    public static FrameFile Create(string folder, RegionId region, ulong bytes)
    {
        string path = PathOf(folder, region);
        int fd = Libc.Open(path, Libc.O_RDWR | Libc.O_CREAT | Libc.O_EXCL | Libc.O_CLOEXEC, 0x180 /* 0600 */);
        if (fd < 0) throw Errno.Exception($"cannot create the frame file {path}");
        var file = new FrameFile(path, fd);
        if (Libc.FTruncate(fd, (long)bytes) == 0) return file;
        IOException failure = Errno.Exception($"cannot make {path} {bytes} bytes long");
        file.Dispose();
        throw failure;
    }

    /// <summary>Opens what another agent has left.</summary>
    /// <param name="folder">Where.</param>
    /// <param name="region">The region.</param>
    /// <param name="bytes">How long it must be.</param>
    /// <exception cref="InvalidDataException">It is no such file.</exception>
    /// <exception cref="IOException">It cannot be opened.</exception>
    public static FrameFile Open(string folder, RegionId region, ulong bytes)
    {
        string path = PathOf(folder, region);
        int fd = Libc.Open(path, Libc.O_RDWR | Libc.O_NOFOLLOW | Libc.O_NONBLOCK | Libc.O_CLOEXEC, 0);
        if (fd < 0) throw Errno.Exception($"cannot open the frame file {path}");
        FileStatus status = FileStatus.Of(fd);
        if (status.IsRegular && (ulong)status.Bytes == bytes) return new FrameFile(path, fd);
        _ = Libc.Close(fd);
        throw new InvalidDataException($"{path} cannot be adopted: it is {status.Bytes} bytes long, and is to be {bytes}");
    }

    /// <summary>Where the frame file of a region is.</summary>
    public static string PathOf(string folder, RegionId region) => System.IO.Path.Combine(folder, $"{region.Value:x16}");

    /// <summary>Whether there are frames from a page on, or none, and up to which page.</summary>
    public (bool IsOfFrames, PageNumber End) RunAt(PageNumber page)
    {
        const long Whole = long.MaxValue - (PageNumber.Bytes - 1);
        long at = (long)page.Offset, next = Libc.LSeek(Descriptor, at, Libc.SEEK_DATA);
        if (next < 0 && Errno.Last != Errno.ENXIO) throw Errno.Exception("cannot read the frame file");
        bool isOfFrames = next == at;
        if (isOfFrames && (next = Libc.LSeek(Descriptor, at, Libc.SEEK_HOLE)) < 0) throw Errno.Exception("cannot read the frame file");
        return (isOfFrames, new PageNumber((ulong)(next < 0 ? Whole : next) >> PageNumber.Shift)); // no frames up to the end
    }

    /// <summary>Whether a page has a frame that was written, or mapped.</summary>
    public bool Has(PageNumber page) => Libc.LSeek(Descriptor, (long)page.Offset, Libc.SEEK_DATA) == (long)page.Offset;

    /// <summary>Reads whole pages; holes read zeros.</summary>
    public void Read(PageNumber page, byte* buffer, uint pageCount)
    {
        nuint bytes = pageCount * (nuint)PageNumber.Bytes;
        // SAFETY: the caller's buffer holds that many pages.
        nint got = Libc.PRead(Descriptor, buffer, bytes, (long)page.Offset);
        if (got != (nint)bytes) Throw("read", page, got);
    }

    /// <summary>Writes whole pages.</summary>
    public void Write(PageNumber page, byte* data, uint pageCount)
    {
        nuint bytes = pageCount * (nuint)PageNumber.Bytes;
        // SAFETY: the caller's buffer holds that many pages.
        nint put = Libc.PWrite(Descriptor, data, bytes, (long)page.Offset);
        if (put != (nint)bytes) Throw("write", page, put);
    }

    /// <summary>Writes some bytes of a page.</summary>
    public void WriteBytes(PageNumber page, int offset, ReadOnlySpan<byte> bytes)
    {
        // SAFETY: the bytes are pinned while they are written, and as many as are said.
        fixed (byte* first = bytes)
        {
            nint put = Libc.PWrite(Descriptor, first, (nuint)bytes.Length, (long)page.Offset + offset);
            if (put != bytes.Length) Throw("write", page, put);
        }
    }

    /// <summary>Makes pages zeros, with frames.</summary>
    /// <remarks>
    /// Where there are only holes, as nearly always, frames are allocated without being written: the kernel clears them when they are
    /// mapped, once, where zeros that are written would be copied.
    /// </remarks>
    public void MakeZeros(PageNumber page, uint pageCount)
    {
        long bytes = (long)pageCount * PageNumber.Bytes;
        long data = Libc.LSeek(Descriptor, (long)page.Offset, Libc.SEEK_DATA);
        if (data < 0 ? Errno.Last == Errno.ENXIO : data >= (long)page.Offset + bytes)
        {
            if (Libc.FAllocate(Descriptor, Libc.FALLOC_FL_KEEP_SIZE, (long)page.Offset, bytes) < 0) Throw("allocate", page, -1);
            return;
        }
        for (uint i = 0; i < pageCount; i++) Write(page.Plus(i), Zeros, 1);
    }

    /// <summary>Frees the frames of pages, and with that takes the pages away from all mappings of this node.</summary>
    public void Punch(PageNumber page, ulong pageCount)
    {
        const int Mode = Libc.FALLOC_FL_PUNCH_HOLE | Libc.FALLOC_FL_KEEP_SIZE;
        if (Libc.FAllocate(Descriptor, Mode, (long)page.Offset, (long)(pageCount * PageNumber.Bytes)) < 0) Throw("free", page, -1);
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        if (Descriptor < 0) return;
        _ = Libc.Unlink(Path);
        Close();
    }

    /// <summary>Closes the file, and leaves it where it is.</summary>
    public void Close()
    {
        if (Descriptor < 0) return;
        _ = Libc.Close(Descriptor);
        Descriptor = -1;
    }

    private void Throw(string what, PageNumber page, nint result) =>
        throw (result < 0
            ? Errno.Exception($"cannot {what} {page} of {Path}")
            : new IOException($"cannot {what} {page} of {Path}: only {result} bytes were transferred"));
}
