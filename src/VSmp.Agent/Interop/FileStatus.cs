// SPDX-License-Identifier: Apache-2.0
using System.Runtime.InteropServices;

namespace VSmp.Agent.Interop;

/// <summary><c>struct stat</c> of x86-64 Linux, as far as the agent looks (stat(2)).</summary>
[StructLayout(LayoutKind.Explicit, Size = 144)]
internal unsafe partial struct FileStatus
{
    [FieldOffset(16)] public ulong Links;
    [FieldOffset(24)] public uint Mode;
    [FieldOffset(28)] public uint UserId;
    [FieldOffset(48)] public long Bytes;

    /// <summary>Whether it is a regular file.</summary>
    public readonly bool IsRegular => UnixFile.IsRegular(Mode);

    /// <summary>The permission bits.</summary>
    public readonly uint Permissions => Mode & 0xFFF;

    [LibraryImport("libc", SetLastError = true, EntryPoint = "fstat")]
    private static partial int FStat(int fd, FileStatus* status);

    /// <summary>What an open descriptor refers to.</summary>
    public static FileStatus Of(int fd)
    {
        // SAFETY: the struct has the size that the kernel's has.
        unsafe
        {
            FileStatus status;
            return FStat(fd, &status) == 0 ? status : throw Errno.Exception("cannot read a file's status");
        }
    }
}
