// SPDX-License-Identifier: Apache-2.0
using System.Runtime.InteropServices;

namespace VSmp.Agent.Interop;

/// <summary>System calls of general use. All are thin: they return what the C library returns.</summary>
internal static unsafe partial class Libc
{
    private const string Name = "libc";

    [LibraryImport(Name, SetLastError = true, EntryPoint = "close")]
    public static partial int Close(int fd);

    [LibraryImport(Name, SetLastError = true, EntryPoint = "read")]
    public static partial nint Read(int fd, void* buffer, nuint bytes);

    [LibraryImport(Name, SetLastError = true, EntryPoint = "write")]
    public static partial nint Write(int fd, void* buffer, nuint bytes);

    [LibraryImport(Name, SetLastError = true, EntryPoint = "pread")]
    public static partial nint PRead(int fd, void* buffer, nuint bytes, long offset);

    [LibraryImport(Name, SetLastError = true, EntryPoint = "pwrite")]
    public static partial nint PWrite(int fd, void* buffer, nuint bytes, long offset);

    [LibraryImport(Name, SetLastError = true, EntryPoint = "fallocate")]
    public static partial int FAllocate(int fd, int mode, long offset, long bytes);

    [LibraryImport(Name, SetLastError = true, EntryPoint = "fsync")]
    public static partial int FSync(int fd);

    /// <summary>With 0 and 0: of the calling thread (on Linux).</summary>
    [LibraryImport(Name, SetLastError = true, EntryPoint = "setpriority")]
    public static partial int SetPriority(int which, uint who, int priority);

    [LibraryImport(Name, SetLastError = true, EntryPoint = "flock")]
    public static partial int FLock(int fd, int operation);

    [LibraryImport(Name, SetLastError = true, EntryPoint = "lseek")]
    public static partial long LSeek(int fd, long offset, int whence);

    [LibraryImport(Name, SetLastError = true, EntryPoint = "ftruncate")]
    public static partial int FTruncate(int fd, long bytes);

    [LibraryImport(Name, SetLastError = true, EntryPoint = "open", StringMarshalling = StringMarshalling.Utf8)]
    public static partial int Open(string path, int flags, uint mode);

    [LibraryImport(Name, SetLastError = true, EntryPoint = "unlink", StringMarshalling = StringMarshalling.Utf8)]
    public static partial int Unlink(string path);

    [LibraryImport(Name, SetLastError = true, EntryPoint = "mmap")]
    public static partial byte* MMap(void* at, nuint bytes, int protection, int flags, int fd, long offset);

    [LibraryImport(Name, SetLastError = true, EntryPoint = "munmap")]
    public static partial int MUnmap(void* at, nuint bytes);

    [LibraryImport(Name, SetLastError = true, EntryPoint = "mount", StringMarshalling = StringMarshalling.Utf8)]
    public static partial int Mount(string source, string target, string type, ulong flags, string data);

    [LibraryImport(Name, SetLastError = true, EntryPoint = "umount2", StringMarshalling = StringMarshalling.Utf8)]
    public static partial int Unmount(string target, int flags);

    [LibraryImport(Name, SetLastError = true, EntryPoint = "eventfd")]
    public static partial int EventFd(uint initial, int flags);

    [LibraryImport(Name, SetLastError = true, EntryPoint = "epoll_create1")]
    public static partial int EpollCreate(int flags);

    [LibraryImport(Name, SetLastError = true, EntryPoint = "epoll_ctl")]
    public static partial int EpollControl(int epoll, int operation, int fd, EpollEvent* change);

    [LibraryImport(Name, SetLastError = true, EntryPoint = "epoll_pwait2")]
    private static partial int EpollWaitPrecise(int epoll, EpollEvent* events, int capacity, TimeSpec* timeout, void* signals);

    /// <summary>Waits for events, at most so long, to the microsecond (epoll_pwait2(2)); a negative time waits for ever.</summary>
    public static int EpollWait(int epoll, EpollEvent* events, int capacity, long timeoutMicroseconds)
    {
        if (timeoutMicroseconds < 0) return EpollWaitPrecise(epoll, events, capacity, null, null);
        TimeSpec timeout = new() { Seconds = timeoutMicroseconds / 1_000_000, Nanoseconds = timeoutMicroseconds % 1_000_000 * 1000 };
        // SAFETY: read by the kernel, on this stack.
        return EpollWaitPrecise(epoll, events, capacity, &timeout, null);
    }

    [LibraryImport(Name, SetLastError = true, EntryPoint = "geteuid")]
    public static partial uint GetEffectiveUserId();

    [LibraryImport(Name, SetLastError = true, EntryPoint = "pipe2")]
    public static partial int Pipe(int* ends, int flags);

    [LibraryImport(Name, SetLastError = true, EntryPoint = "setgroups")]
    public static partial int SetGroups(nuint count, uint* groups);

    [LibraryImport(Name, SetLastError = true, EntryPoint = "setgid")]
    public static partial int SetGroupId(uint groupId);

    [LibraryImport(Name, SetLastError = true, EntryPoint = "setuid")]
    public static partial int SetUserId(uint userId);

    [LibraryImport(Name, SetLastError = true, EntryPoint = "kill")]
    public static partial int Kill(int pid, int signal);

    // The calling thread, for 0.
    [LibraryImport(Name, SetLastError = true, EntryPoint = "sched_setscheduler")]
    public static partial int SetScheduler(int threadId, int policy, int* priority);

    public const int SCHED_OTHER = 0, SCHED_FIFO = 1, SCHED_RESET_ON_FORK = 0x40000000;
    public const int O_RDONLY = 0, O_RDWR = 2, O_CREAT = 0x40, O_EXCL = 0x80, O_NONBLOCK = 0x800, O_CLOEXEC = 0x80000;
    public const int FALLOC_FL_KEEP_SIZE = 1, FALLOC_FL_PUNCH_HOLE = 2;
    public const int LOCK_EX = 2, LOCK_NB = 4;
    public const int SEEK_DATA = 3, SEEK_HOLE = 4;
    public const int PROT_READ = 1, PROT_WRITE = 2, MAP_SHARED = 1, MAP_NORESERVE = 0x4000;
    public const int O_NOFOLLOW = 0x20000;
    public const int EFD_CLOEXEC = 0x80000, EFD_NONBLOCK = 0x800;
    public const int EPOLL_CLOEXEC = 0x80000, EPOLL_CTL_ADD = 1, EPOLL_CTL_DEL = 2, EPOLL_CTL_MOD = 3;
    public const int MNT_DETACH = 2;
}

/// <summary><c>struct timespec</c>.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct TimeSpec
{
    public long Seconds;
    public long Nanoseconds;
}

/// <summary><c>struct epoll_event</c>: packed on x86-64.</summary>
[StructLayout(LayoutKind.Sequential, Pack = 1)]
internal struct EpollEvent
{
    public EpollEvents Events;
    public ulong Data;
}

/// <summary>What to wait for, and what has come (epoll_ctl(2)).</summary>
[Flags]
internal enum EpollEvents : uint
{
    None = 0,
    Readable = 0x1,
    Writable = 0x4,
    Error = 0x8,
    HangUp = 0x10,
    PeerClosed = 0x2000,
}
