// SPDX-License-Identifier: Apache-2.0
using System.Runtime.InteropServices;
using Microsoft.Win32.SafeHandles;
using VSmp.Bench.Running;

namespace VSmp.Bench.Checkpoints;

/// <summary>What the kernel keeps of files in memory.</summary>
internal static partial class PageCache
{
    private const int DontNeed = 4;

    /// <summary>Has files read from the disk again: posix_fadvise(POSIX_FADV_DONTNEED) on each, after what was written has got there.</summary>
    /// <param name="folder">All files in it, and in folders in it.</param>
    /// <exception cref="BenchException">The kernel refuses.</exception>
    public static void Drop(string folder)
    {
        foreach (string file in Directory.GetFiles(folder, "*", SearchOption.AllDirectories))
        {
            using SafeFileHandle handle = File.OpenHandle(file, FileMode.Open, FileAccess.ReadWrite);
            RandomAccess.FlushToDisk(handle);
            int error = Advise(handle, 0, 0, DontNeed);
            if (error != 0) throw new BenchException($"{file} cannot be taken from the page cache: {Agent.Interop.Errno.Text(error)}");
        }
    }

    [LibraryImport("libc", EntryPoint = "posix_fadvise")]
    private static partial int Advise(SafeFileHandle file, long offset, long length, int advice);
}
