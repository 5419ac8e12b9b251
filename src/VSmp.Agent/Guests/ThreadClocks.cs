// SPDX-License-Identifier: Apache-2.0
using System.Buffers.Text;
using VSmp.Agent.Interop;

namespace VSmp.Agent.Guests;

/// <summary>What the scheduler has counted of a thread.</summary>
/// <param name="Nanoseconds">The processor time that it has taken; of a thread that waits it is exact.</param>
/// <param name="Runs">How often it was given a processor.</param>
internal readonly record struct ThreadClock(long Nanoseconds, long Runs)
{
    /// <summary>It is not known.</summary>
    public static ThreadClock Unknown => new(-1, -1);

    /// <summary>Whether it is known.</summary>
    public bool IsKnown => Nanoseconds >= 0;
}

/// <summary>
/// What the scheduler has counted of the threads of a process, from <c>/proc/PID/task/TID/schedstat</c> (Documentation/scheduler/sched-stats.rst).
/// The files stay open, so that a look costs one system call. Owned by the reactor.
/// </summary>
/// <param name="processId">The process.</param>
internal sealed unsafe class ThreadClocks(int processId) : IDisposable
{
    private const int MaxOpen = 256;

    private readonly Dictionary<uint, int> _files = [];

    /// <summary>What a thread has taken so far.</summary>
    public ThreadClock Look(uint threadId)
    {
        if (!_files.TryGetValue(threadId, out int file))
        {
            if (_files.Count >= MaxOpen) Dispose(); // of threads that have ended long since
            file = Libc.Open($"/proc/{processId}/task/{threadId}/schedstat", Libc.O_RDONLY | Libc.O_CLOEXEC, 0);
            if (file < 0) return ThreadClock.Unknown;
            _files.Add(threadId, file);
        }
        ThreadClock clock = Read(file);
        if (clock.IsKnown) return clock;
        // The thread has ended; another may have its number now.
        _files.Remove(threadId);
        _ = Libc.Close(file);
        return ThreadClock.Unknown;
    }

    /// <summary>Closes the files.</summary>
    public void Dispose()
    {
        foreach (int file in _files.Values) _ = Libc.Close(file);
        _files.Clear();
    }

    private static ThreadClock Read(int file)
    {
        const int Length = 64; // three numbers of 20 digits
        byte* text = stackalloc byte[Length];
        // SAFETY: the buffer is as long as is said.
        nint read = Libc.PRead(file, text, Length, 0);
        if (read <= 0) return ThreadClock.Unknown;
        ReadOnlySpan<byte> left = new(text, (int)read);
        return TryTake(ref left, out long nanoseconds) && TryTake(ref left, out _) && TryTake(ref left, out long runs)
            ? new ThreadClock(nanoseconds, runs)
            : ThreadClock.Unknown;
    }

    private static bool TryTake(ref ReadOnlySpan<byte> text, out long number)
    {
        if (!Utf8Parser.TryParse(text, out number, out int length)) return false;
        text = text[Math.Min(length + 1, text.Length)..];
        return true;
    }
}
