// SPDX-License-Identifier: Apache-2.0
using System.Runtime.InteropServices;

namespace VSmp.SystemTests;

/// <summary>System calls that .NET does not wrap, for reaching into other processes.</summary>
internal static partial class Native
{
    public const int SIGKILL = 9, SIGTERM = 15, SIGCONT = 18, SIGSTOP = 19;
    private const long SYS_pidfd_open = 434, SYS_pidfd_getfd = 438;
    private const int SHUT_RDWR = 2;

    [LibraryImport("libc", EntryPoint = "kill", SetLastError = true)]
    public static partial int Kill(int processId, int signal);

    /// <summary>
    /// Cuts the established TCP connections of a process, from outside: its sockets are duplicated (pidfd_getfd) and shut down, which
    /// it sees as its peer does: the stream ends.
    /// </summary>
    /// <returns>How many were cut.</returns>
    public static int CutTcpConnections(int processId)
    {
        HashSet<string> established = [];
        foreach (string file in new[] { "tcp", "tcp6" })
        {
            foreach (string line in File.ReadLines($"/proc/{processId}/net/{file}").Skip(1))
            {
                string[] fields = line.Split(' ', StringSplitOptions.RemoveEmptyEntries);
                if (fields[3] == "01") established.Add($"socket:[{fields[9]}]");
            }
        }
        int cut = 0;
        long pidfd = Syscall(SYS_pidfd_open, processId, 0, 0);
        if (pidfd < 0) return 0;
        foreach (string link in Directory.EnumerateFiles($"/proc/{processId}/fd"))
        {
            if (new FileInfo(link).LinkTarget is not { } target || !established.Contains(target)) continue;
            long socket = Syscall(SYS_pidfd_getfd, pidfd, int.Parse(Path.GetFileName(link)), 0);
            if (socket < 0) continue; // closed since
            if (Shutdown((int)socket, SHUT_RDWR) == 0) cut++;
            _ = Close((int)socket);
        }
        _ = Close((int)pidfd);
        return cut;
    }

    [LibraryImport("libc", EntryPoint = "syscall", SetLastError = true)]
    private static partial long Syscall(long number, long a, long b, long c);

    [LibraryImport("libc", EntryPoint = "shutdown", SetLastError = true)]
    private static partial int Shutdown(int socket, int how);

    [LibraryImport("libc", EntryPoint = "close", SetLastError = true)]
    private static partial int Close(int fd);
}
