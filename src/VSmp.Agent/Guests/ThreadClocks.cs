// SPDX-License-Identifier: Apache-2.0
using System.Buffers.Text;
using VSmp.Agent.Interop;

namespace VSmp.Agent.Guests;

/// <summary>
/// The processor time that the threads of a process have taken, from <c>/proc/PID/task/TID/schedstat</c> (Documentation/scheduler/sched-stats.rst):
/// of a thread that waits it is exact. The files stay open, so that a look costs one system call. Owned by the reactor.
/// </summary>
/// <param name="processId">The process.</param>
internal sealed unsafe class ThreadClocks(int processId) : IDisposable
{
    private const int MaxOpen = 256;

    private readonly Dictionary<uint, int> _files = [];

    /// <summary>What a thread has taken so far, in nanoseconds; −1 if that is not known.</summary>
    public long Nanoseconds(uint threadId)
    {
        if (!_files.TryGetValue(threadId, out int file))
        {
            if (_files.Count >= MaxOpen) Dispose(); // of threads that have ended long since
            file = Libc.Open($"/proc/{processId}/task/{threadId}/schedstat", Libc.O_RDONLY | Libc.O_CLOEXEC, 0);
            if (file < 0) return -1;
            _files.Add(threadId, file);
        }
        long time = Read(file);
        if (time >= 0) return time;
        // The thread has ended; another may have its number now.
        _files.Remove(threadId);
        _ = Libc.Close(file);
        return -1;
    }

    /// <summary>Closes the files.</summary>
    public void Dispose()
    {
        foreach (int file in _files.Values) _ = Libc.Close(file);
        _files.Clear();
    }

    private static long Read(int file)
    {
        const int Length = 64;
        byte* text = stackalloc byte[Length];
        // SAFETY: the buffer is as long as is said.
        nint read = Libc.PRead(file, text, Length, 0);
        return read > 0 && Utf8Parser.TryParse(new ReadOnlySpan<byte>(text, (int)read), out long time, out _) ? time : -1;
    }
}
