// SPDX-License-Identifier: Apache-2.0
using System.Runtime.InteropServices;

namespace VSmp.Agent.Interop;

/// <summary>What userfaultfd offers (linux/userfaultfd.h; constants beyond what Debian 12's headers have).</summary>
[Flags]
internal enum UserfaultfdFeatures : ulong
{
    None = 0,
    WriteProtect = 1 << 0,
    MissingShared = 1 << 5,
    ThreadId = 1 << 8,
    MinorShared = 1 << 10,
    WriteProtectShared = 1 << 12,
    Poison = 1 << 14,
}

/// <summary>Finds out what the kernel's userfaultfd can do, and by which way we may have one.</summary>
internal static unsafe partial class UserfaultfdProbe
{
    private const string Device = "/dev/userfaultfd";
    private const nuint USERFAULTFD_IOC_NEW = 0xAA00, UFFDIO_API = 0xC018AA3F;
    private const ulong UFFD_API = 0xAA;
    private const int SYS_userfaultfd = 323;
    private const int Flags = Libc.O_CLOEXEC | Libc.O_NONBLOCK;

    /// <summary>Tries the device.</summary>
    /// <returns>What it offers, or the errno value of what went wrong.</returns>
    public static (UserfaultfdFeatures Features, int Error) TryDevice()
    {
        int device = Libc.Open(Device, Libc.O_RDWR | Libc.O_CLOEXEC, 0);
        if (device < 0) return (UserfaultfdFeatures.None, Errno.Last);
        int fd = IoControl(device, USERFAULTFD_IOC_NEW, (void*)Flags);
        int error = fd < 0 ? Errno.Last : 0;
        _ = Libc.Close(device);
        return error != 0 ? (UserfaultfdFeatures.None, error) : Ask(fd);
    }

    /// <summary>Tries the system call, with faults that the kernel takes included.</summary>
    /// <inheritdoc cref="TryDevice" path="/returns"/>
    public static (UserfaultfdFeatures Features, int Error) TrySystemCall()
    {
        int fd = (int)SystemCall(SYS_userfaultfd, Flags);
        return fd < 0 ? (UserfaultfdFeatures.None, Errno.Last) : Ask(fd);
    }

    private static (UserfaultfdFeatures Features, int Error) Ask(int fd)
    {
        ulong* api = stackalloc ulong[3];
        api[0] = UFFD_API;
        api[1] = api[2] = 0;
        // SAFETY: struct uffdio_api is three 64-bit words: version, features, ioctls. Asked for none, the kernel lists all.
        int error = IoControl(fd, UFFDIO_API, api) < 0 ? Errno.Last : 0;
        _ = Libc.Close(fd);
        return ((UserfaultfdFeatures)api[1], error);
    }

    [LibraryImport("libc", EntryPoint = "ioctl", SetLastError = true)]
    private static partial int IoControl(int fd, nuint request, void* argument);

    [LibraryImport("libc", EntryPoint = "syscall", SetLastError = true)]
    private static partial long SystemCall(long number, nint flags);
}
