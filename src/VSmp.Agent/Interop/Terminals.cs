// SPDX-License-Identifier: Apache-2.0
using System.Runtime.InteropServices;

namespace VSmp.Agent.Interop;

/// <summary>Whether a person looks at a descriptor, and how much fits.</summary>
internal static unsafe partial class Terminals
{
    private const nuint TIOCGWINSZ = 0x5413;
    private const int UsualColumns = 80, UsualRows = 24;

    /// <summary>Whether the descriptor is a terminal.</summary>
    public static bool IsTerminal(int fd) => IsATty(fd) == 1;

    /// <summary>Columns and rows of the terminal; the usual ones if it does not tell.</summary>
    public static (int Columns, int Rows) Size(int fd)
    {
        ushort* size = stackalloc ushort[4];
        // SAFETY: struct winsize is four 16-bit numbers: rows, columns, and two for pixels.
        bool isTold = IoControl(fd, TIOCGWINSZ, size) == 0;
        return (isTold && size[1] > 0 ? size[1] : UsualColumns, isTold && size[0] > 0 ? size[0] : UsualRows);
    }

    /// <summary>Whether our process group may read from the terminal: it is in the foreground.</summary>
    public static bool IsOurs(int fd) => GetForegroundGroup(fd) == GetProcessGroup();

    [LibraryImport("libc", EntryPoint = "tcgetpgrp", SetLastError = true)]
    private static partial int GetForegroundGroup(int fd);

    [LibraryImport("libc", EntryPoint = "getpgrp")]
    private static partial int GetProcessGroup();

    [LibraryImport("libc", EntryPoint = "isatty", SetLastError = true)]
    private static partial int IsATty(int fd);

    [LibraryImport("libc", EntryPoint = "ioctl", SetLastError = true)]
    private static partial int IoControl(int fd, nuint request, void* argument);
}
