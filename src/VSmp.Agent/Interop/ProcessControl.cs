// SPDX-License-Identifier: Apache-2.0
using System.Globalization;
using System.Runtime.InteropServices;
using Microsoft.Win32.SafeHandles;

namespace VSmp.Agent.Interop;

/// <summary>How a child ended (waitid(2)).</summary>
/// <param name="ProcessId">The child.</param>
/// <param name="IsSignaled">Whether a signal killed it.</param>
/// <param name="Status">Exit code, or number of the signal.</param>
internal readonly record struct ChildExit(int ProcessId, bool IsSignaled, int Status);

/// <summary>Waiting for, signalling and adopting processes.</summary>
internal static unsafe partial class ProcessControl
{
    private const int P_ALL = 0, P_PID = 1, WNOHANG = 1, WEXITED = 4, CLD_EXITED = 1;
    private const int PR_SET_DUMPABLE = 4, PR_SET_CHILD_SUBREAPER = 36;
    private const int SYS_pidfd_send_signal = 424, SYS_pidfd_open = 434;
    private const int RLIMIT_NOFILE = 7, RLIMIT_MEMLOCK = 8;
    private const int POLLIN = 1;

    /// <summary>Opens a process by number: the descriptor keeps meaning that process. Null if there is none.</summary>
    public static SafeFileHandle? Open(int processId)
    {
        long fd = SystemCall(SYS_pidfd_open, processId, 0, 0, 0);
        return fd < 0 ? null : new SafeFileHandle((nint)fd, ownsHandle: true);
    }

    /// <summary>Sends a signal to the process that the descriptor means; false if it is gone or not ours.</summary>
    public static bool Signal(SafeFileHandle process, int signal) =>
        SystemCall(SYS_pidfd_send_signal, process.DangerousGetHandle(), signal, 0, 0) == 0;

    /// <summary>Sends a signal to a process if it still is the one that was meant.</summary>
    public static bool Signal(ProcessIdentity process, int signal)
    {
        using SafeFileHandle? handle = Open(process.ProcessId);
        // Looked at after the descriptor was opened: from here on the number cannot come to mean another process.
        return handle is not null && process.IsAlive && Signal(handle, signal);
    }

    /// <summary>The processor time that a process has taken so far, all its threads together; −1 if there is no such process.</summary>
    public static long ProcessorMicroseconds(int processId)
    {
        const int CpuClockSched = 2;
        TimeSpec time;
        // SAFETY: fills the struct. The clock of a process is its number, inverted, above three bits that say which of its clocks.
        return ClockGetTime((~processId << 3) | CpuClockSched, &time) == 0 ? (time.Seconds * 1_000_000) + (time.Nanoseconds / 1000) : -1;
    }

    /// <summary>The memory of a process that is mapped to no file; 0 if there is no such process.</summary>
    public static ulong AnonymousBytes(int processId)
    {
        const int MostBytes = 128; // seven numbers
        int file = Libc.Open($"/proc/{processId}/statm", Libc.O_RDONLY | Libc.O_CLOEXEC, 0);
        if (file < 0) return 0;
        byte* text = stackalloc byte[MostBytes];
        // SAFETY: reads at most what the buffer holds.
        nint bytes = Libc.Read(file, text, MostBytes);
        _ = Libc.Close(file);
        return AnonymousBytes(new ReadOnlySpan<byte>(text, (int)Math.Max(bytes, 0)));
    }

    /// <summary>What such a file says: in pages all memory, what is resident of it, and what of that is mapped to files or shared; then others.</summary>
    internal static ulong AnonymousBytes(ReadOnlySpan<byte> text)
    {
        Span<ulong> pages = stackalloc ulong[3];
        int known = 0;
        foreach (Range field in text.Split((byte)' '))
        {
            if (known == pages.Length || !ulong.TryParse(text[field], CultureInfo.InvariantCulture, out pages[known])) break;
            known++;
        }
        return known == pages.Length && pages[1] > pages[2] ? (pages[1] - pages[2]) * (ulong)Environment.SystemPageSize : 0;
    }

    /// <summary>Waits until the process ends; false if it has not within the time. Works for processes that are not
    /// children.</summary>
    public static bool WaitForExit(ProcessIdentity process, int timeoutMilliseconds)
    {
        using SafeFileHandle? handle = Open(process.ProcessId);
        return handle is null || !process.IsAlive || WaitForExit(handle, timeoutMilliseconds);
    }

    /// <inheritdoc cref="WaitForExit(ProcessIdentity, int)"/>
    public static bool WaitForExit(SafeFileHandle process, int timeoutMilliseconds)
    {
        PollEntry entry = new() { Descriptor = (int)process.DangerousGetHandle(), Events = POLLIN };
        long deadline = Environment.TickCount64 + timeoutMilliseconds;
        while (true)
        {
            int left = (int)Math.Max(0, deadline - Environment.TickCount64);
            // SAFETY: one entry, on this stack.
            int ready = Poll(&entry, 1, left);
            if (ready > 0) return true;
            if (ready == 0) return false;
            if (Errno.Last != Errno.EINTR) throw Errno.Exception("cannot wait for a process");
        }
    }

    /// <summary>Blocks until any child ends, and reaps it; null if there is no child.</summary>
    public static ChildExit? WaitForAnyChild() => Wait(P_ALL, 0, WEXITED);

    /// <summary>Reaps a child that has ended; null if it has not (or is not our child).</summary>
    public static ChildExit? Reap(int processId) => Wait(P_PID, (uint)processId, WEXITED | WNOHANG);

    /// <summary>Makes orphaned descendants our children, so that a run's process tree stays in one piece.</summary>
    public static void AdoptDescendants()
    {
        if (ProcessControlOption(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) < 0) throw Errno.Exception("cannot adopt descendants");
    }

    /// <summary>Keeps this process from leaving a core file.</summary>
    public static void ForbidCore() => _ = ProcessControlOption(PR_SET_DUMPABLE, 0, 0, 0, 0);

    /// <summary>The soft and the hard limit of open files.</summary>
    public static (ulong Soft, ulong Hard) OpenFileLimit
    {
        get
        {
            ResourceLimit limit;
            // SAFETY: written by the kernel, on this stack.
            if (GetResourceLimit(RLIMIT_NOFILE, &limit) < 0) throw Errno.Exception("cannot read the limit of open files");
            return (limit.Soft, limit.Hard);
        }
        set
        {
            ResourceLimit limit = new() { Soft = value.Soft, Hard = value.Hard };
            // SAFETY: read by the kernel, on this stack.
            if (SetResourceLimit(RLIMIT_NOFILE, &limit) < 0) throw Errno.Exception("cannot set the limit of open files");
        }
    }

    /// <summary>The soft limit of memory that a process without privilege may lock, in bytes.</summary>
    public static ulong LockedMemoryLimit
    {
        get
        {
            ResourceLimit limit;
            // SAFETY: written by the kernel, on this stack.
            if (GetResourceLimit(RLIMIT_MEMLOCK, &limit) < 0) throw Errno.Exception("cannot read the limit of locked memory");
            return limit.Soft;
        }
    }

    private static ChildExit? Wait(int idType, uint id, int options)
    {
        SignalInfo info = default;
        // SAFETY: written by the kernel, on this stack; larger than the 128 bytes that it writes.
        while (WaitId(idType, id, &info, options) < 0)
        {
            if (Errno.Last != Errno.EINTR) return null;
        }
        return info.ProcessId == 0 ? null : new ChildExit(info.ProcessId, info.Code != CLD_EXITED, info.Status);
    }

    [LibraryImport("libc", EntryPoint = "syscall", SetLastError = true)]
    private static partial long SystemCall(long number, nint a, nint b, nint c, nint d);

    [LibraryImport("libc", EntryPoint = "clock_gettime", SetLastError = true)]
    internal static partial int ClockGetTime(int clock, TimeSpec* time);

    [LibraryImport("libc", EntryPoint = "waitid", SetLastError = true)]
    private static partial int WaitId(int idType, uint id, SignalInfo* info, int options);

    [LibraryImport("libc", EntryPoint = "prctl", SetLastError = true)]
    private static partial int ProcessControlOption(int option, nuint a, nuint b, nuint c, nuint d);

    [LibraryImport("libc", EntryPoint = "getrlimit", SetLastError = true)]
    private static partial int GetResourceLimit(int resource, ResourceLimit* limit);

    [LibraryImport("libc", EntryPoint = "setrlimit", SetLastError = true)]
    private static partial int SetResourceLimit(int resource, ResourceLimit* limit);

    [LibraryImport("libc", EntryPoint = "poll", SetLastError = true)]
    internal static partial int Poll(PollEntry* entries, nuint count, int timeoutMilliseconds);

    /// <summary><c>struct pollfd</c>.</summary>
    [StructLayout(LayoutKind.Sequential)]
    internal struct PollEntry
    {
        public int Descriptor;
        public short Events;
        public short Returned;
    }

    [StructLayout(LayoutKind.Sequential)]
    private struct ResourceLimit
    {
        public ulong Soft;
        public ulong Hard;
    }

    /// <summary><c>siginfo_t</c> of a SIGCHLD, x86-64.</summary>
    [StructLayout(LayoutKind.Explicit, Size = 128)]
    private struct SignalInfo
    {
        [FieldOffset(8)] public int Code;
        [FieldOffset(16)] public int ProcessId;
        [FieldOffset(24)] public int Status;
    }
}
