// SPDX-License-Identifier: Apache-2.0
using System.Runtime.InteropServices;
using VSmp.Agent.Interop;
using VSmp.Agent.Paging;

namespace VSmp.Agent.Tests.Adopting;

/// <summary>
/// What a guest has of a region: a shared mapping of its frame file, registered with a userfaultfd. It outlives agents. The kernel reads and writes there on
/// behalf of the test's threads: one that waits for a page in managed code would stop the garbage collector.
/// </summary>
internal sealed unsafe partial class GuestMemory : IDisposable
{
    private const nuint UFFDIO_API = 0xC018AA3F, UFFDIO_REGISTER = 0xC020AA00;
    private const ulong Features = 1 << 0 | 1 << 5 | 1 << 8 | 1 << 10 | 1 << 12; // as the guest library asks for
    private const ulong MissingWriteProtectMinor = 7;
    private readonly byte* _at;
    private readonly ulong _bytes;

    public GuestMemory(FrameFile frames, ulong bytes)
    {
        _bytes = bytes;
        _at = Libc.MMap(null, (nuint)bytes, Libc.PROT_READ | Libc.PROT_WRITE, Libc.MAP_SHARED | Libc.MAP_NORESERVE, frames.Descriptor, 0);
        if ((nint)_at == -1) throw Errno.Exception("cannot map the frame file");
        Userfaultfd = (int)SystemCall(323, Libc.O_CLOEXEC | Libc.O_NONBLOCK);
        if (Userfaultfd < 0) throw Errno.Exception("no userfaultfd");
        ulong* arguments = stackalloc ulong[] { 0xAA, Features, 0 };
        if (IoControl(Userfaultfd, UFFDIO_API, arguments) < 0) throw Errno.Exception("UFFDIO_API");
        ulong* range = stackalloc ulong[] { Address, bytes, MissingWriteProtectMinor, 0 };
        if (IoControl(Userfaultfd, UFFDIO_REGISTER, range) < 0) throw Errno.Exception("UFFDIO_REGISTER");
    }

    public int Userfaultfd { get; }

    public ulong Address => (ulong)_at;

    /// <summary>Reads a word of guest memory.</summary>
    public ulong Load(int scratch, ulong offset)
    {
        ulong value = 0;
        // SAFETY: the offset lies in the mapping; the kernel takes what faults there are.
        if (Libc.PWrite(scratch, _at + offset, sizeof(ulong), 0) != sizeof(ulong)) throw Errno.Exception($"a load from {offset:x}");
        if (Libc.PRead(scratch, &value, sizeof(ulong), 0) != sizeof(ulong)) throw Errno.Exception("the scratch file");
        return value;
    }

    /// <summary>Writes a word of guest memory.</summary>
    public void Store(int scratch, ulong offset, ulong value)
    {
        if (Libc.PWrite(scratch, &value, sizeof(ulong), 8) != sizeof(ulong)) throw Errno.Exception("the scratch file");
        // SAFETY: the offset lies in the mapping; the kernel takes what faults there are.
        if (Libc.PRead(scratch, _at + offset, sizeof(ulong), 8) != sizeof(ulong)) throw Errno.Exception($"a store to {offset:x}");
    }

    public void Dispose()
    {
        _ = Libc.Close(Userfaultfd);
        _ = Libc.MUnmap(_at, (nuint)_bytes);
    }

    [LibraryImport("libc", EntryPoint = "ioctl", SetLastError = true)]
    private static partial int IoControl(int fd, nuint request, void* argument);

    [LibraryImport("libc", EntryPoint = "syscall", SetLastError = true)]
    private static partial long SystemCall(long number, nint flags);
}
