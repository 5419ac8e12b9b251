// SPDX-License-Identifier: Apache-2.0
using System.Runtime.InteropServices;

namespace VSmp.Agent.Interop;

/// <summary>What a file takes up.</summary>
internal static unsafe partial class FileUse
{
    private const int StatBytes = 144, BlocksOffset = 64; // struct stat, x86-64

    /// <summary>Bytes allocated to a file, holes not counted.</summary>
    public static ulong AllocatedBytes(int fd)
    {
        byte* status = stackalloc byte[StatBytes];
        // SAFETY: the buffer is as long as struct stat.
        return Status(fd, status) < 0 ? 0 : *(ulong*)(status + BlocksOffset) * 512;
    }

    [LibraryImport("libc", EntryPoint = "fstat", SetLastError = true)]
    private static partial int Status(int fd, byte* status);
}
