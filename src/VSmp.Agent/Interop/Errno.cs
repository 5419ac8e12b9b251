// SPDX-License-Identifier: Apache-2.0
using System.Runtime.InteropServices;

namespace VSmp.Agent.Interop;

/// <summary>The errno values that the agent tells apart (x86-64 Linux, errno(3)).</summary>
internal static class Errno
{
    public const int EPERM = 1, ENOENT = 2, ESRCH = 3, EINTR = 4, EIO = 5, ENXIO = 6, EBADF = 9, EAGAIN = 11, ENOMEM = 12, EACCES = 13,
        EFAULT = 14, EBUSY = 16, EEXIST = 17, ENODEV = 19, EINVAL = 22, ENOSPC = 28, EPIPE = 32, EDEADLK = 35, ENOSYS = 38, EPROTO = 71, EADDRINUSE = 98, EADDRNOTAVAIL = 99,
        ECONNRESET = 104, EOPNOTSUPP = 95, ENOTCONN = 107, ETIMEDOUT = 110, ECONNREFUSED = 111, EHOSTUNREACH = 113, EALREADY = 114, EINPROGRESS = 115, EOWNERDEAD = 130;

    /// <summary>The error of the last <c>SetLastError</c> import on this thread.</summary>
    public static int Last => Marshal.GetLastPInvokeError();

    /// <summary>What the C library says of an error.</summary>
    public static string Text(int errno) => Marshal.GetPInvokeErrorMessage(errno);

    /// <summary>An exception that says what was tried and what the kernel answered.</summary>
    public static IOException Exception(string what) => Exception(what, Last);

    /// <inheritdoc cref="Exception(string)"/>
    public static IOException Exception(string what, int errno) => new($"{what}: {Text(errno)} (errno {errno})", errno);
}
