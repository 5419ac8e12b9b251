// SPDX-License-Identifier: Apache-2.0
using System.Runtime.InteropServices;

namespace VSmp.Agent.Interop;

/// <summary>The operations of userfaultfd(2) that the pager needs. They may block on the guest's locks: never mark them for a suppressed
/// GC transition.</summary>
internal static unsafe partial class Userfaultfd
{
    public const byte EventPageFault = 0x12;
    public const ulong FaultWrite = 1, FaultWriteProtected = 2, FaultMinor = 4;

    // _IOWR(0xAA, nr, size) of linux/userfaultfd.h, x86-64.
    private const uint IoctlWake = 0x8010AA02, IoctlWriteProtect = 0xC018AA06, IoctlContinue = 0xC020AA07, IoctlPoison = 0xC020AA08;
    private const ulong ContinueDontWake = 1, ContinueWriteProtected = 2;
    private const ulong WriteProtectOn = 1, WriteProtectDontWake = 2;

    /// <summary>Maps frames of the file into the guest and wakes who waits there.</summary>
    /// <param name="fd">The userfaultfd.</param>
    /// <param name="address">Where, page-aligned.</param>
    /// <param name="bytes">How much.</param>
    /// <param name="writable">Otherwise write-protected.</param>
    /// <param name="mappedBytes">How far it got, if it failed.</param>
    /// <returns>0 or an errno value: EEXIST (mapped already), EAGAIN, ENOENT, ESRCH (the guest is gone), EFAULT (no frame).</returns>
    public static int Continue(int fd, ulong address, ulong bytes, bool writable, out long mappedBytes)
    {
        ContinueArguments a = new() { Start = address, Length = bytes, Mode = writable ? 0 : ContinueWriteProtected };
        // SAFETY: the structure is laid out as struct uffdio_continue and lives on this stack.
        int result = Ioctl(fd, IoctlContinue, &a);
        mappedBytes = a.Mapped;
        return result < 0 ? Errno.Last : 0;
    }

    /// <summary>Takes the right to write away from a range, or gives it back (and wakes).</summary>
    /// <returns>0 or an errno value.</returns>
    public static int WriteProtect(int fd, ulong address, ulong bytes, bool on)
    {
        WriteProtectArguments a = new() { Start = address, Length = bytes, Mode = on ? WriteProtectOn : 0 };
        // SAFETY: laid out as struct uffdio_writeprotect, on this stack.
        return Ioctl(fd, IoctlWriteProtect, &a) < 0 ? Errno.Last : 0;
    }

    /// <summary>Wakes the threads that wait for a range: they fault again if they must.</summary>
    public static int Wake(int fd, ulong address, ulong bytes)
    {
        Range a = new() { Start = address, Length = bytes };
        // SAFETY: laid out as struct uffdio_range, on this stack.
        return Ioctl(fd, IoctlWake, &a) < 0 ? Errno.Last : 0;
    }

    /// <summary>Makes every access to a range fail with SIGBUS.</summary>
    public static int Poison(int fd, ulong address, ulong bytes)
    {
        ContinueArguments a = new() { Start = address, Length = bytes };
        // SAFETY: laid out as struct uffdio_poison (same shape as uffdio_continue), on this stack.
        return Ioctl(fd, IoctlPoison, &a) < 0 ? Errno.Last : 0;
    }

    [LibraryImport("libc", EntryPoint = "ioctl", SetLastError = true)]
    private static partial int Ioctl(int fd, nuint request, void* argument);

    [StructLayout(LayoutKind.Sequential)]
    private struct Range
    {
        public ulong Start, Length;
    }

    [StructLayout(LayoutKind.Sequential)]
    private struct ContinueArguments
    {
        public ulong Start, Length, Mode;
        public long Mapped;
    }

    [StructLayout(LayoutKind.Sequential)]
    private struct WriteProtectArguments
    {
        public ulong Start, Length, Mode;
    }
}

/// <summary><c>struct uffd_msg</c>, as it reads for a page fault.</summary>
[StructLayout(LayoutKind.Explicit, Size = 32)]
internal struct UserfaultMessage
{
    [FieldOffset(0)] public byte Event;
    [FieldOffset(8)] public ulong Flags;
    [FieldOffset(16)] public ulong Address;
    [FieldOffset(24)] public uint ThreadId;
}
