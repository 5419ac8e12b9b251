// SPDX-License-Identifier: Apache-2.0
using System.Runtime.InteropServices;

namespace VSmp.Agent.Interop;

/// <summary>Owners, groups and modes of files.</summary>
internal static unsafe partial class UnixFile
{
    private const uint UnchangedId = uint.MaxValue;
    private const int StatxBytes = 256, AT_FDCWD = -100, AT_SYMLINK_NOFOLLOW = 0x100;
    private const uint STATX_TYPE = 1, STATX_MODE = 2, STATX_UID = 8, STATX_GID = 0x10;

    /// <summary>The owner alone, or the owner and a group, may use the file (0600/0660) or folder (0700/0750).</summary>
    public static void Restrict(string path, uint? groupId, bool isDirectory)
    {
        if (groupId is uint group && ChangeOwner(path, UnchangedId, group) < 0)
        {
            throw Errno.Exception($"cannot give {path} to the group {group}");
        }
        const UnixFileMode Owner = UnixFileMode.UserRead | UnixFileMode.UserWrite;
        UnixFileMode mode = (isDirectory, groupId is not null) switch
        {
            (true, true) => Owner | UnixFileMode.UserExecute | UnixFileMode.GroupRead | UnixFileMode.GroupExecute,
            (true, false) => Owner | UnixFileMode.UserExecute,
            (false, true) => Owner | UnixFileMode.GroupRead | UnixFileMode.GroupWrite,
            (false, false) => Owner,
        };
        File.SetUnixFileMode(path, mode);
    }

    /// <summary>Owner, group, mode bits (with the type in 0xF000) of a file; null if there is none. A link is not followed unless
    /// asked.</summary>
    public static (uint UserId, uint GroupId, uint Mode)? Look(string path, bool followLink)
    {
        byte* status = stackalloc byte[StatxBytes];
        // SAFETY: the buffer has the size of struct statx; the offsets below are its (statx(2)).
        int flags = followLink ? 0 : AT_SYMLINK_NOFOLLOW;
        if (ExtendedStatus(AT_FDCWD, path, flags, STATX_TYPE | STATX_MODE | STATX_UID | STATX_GID, status) < 0) return null;
        return (*(uint*)(status + 20), *(uint*)(status + 24), *(ushort*)(status + 28));
    }

    /// <summary>Whether a mode is that of a regular file.</summary>
    public static bool IsRegular(uint mode) => (mode & 0xF000) == 0x8000;

    /// <summary>Whether we may execute the file, as access(2) sees it (by effective ids).</summary>
    public static bool MayExecute(string path) => AccessAt(AT_FDCWD, path, 1, 0x200 /* AT_EACCESS */) == 0;

    /// <summary>Whether the file carries capabilities (capabilities(7)).</summary>
    public static bool HasCapabilities(string path) => GetAttribute(path, "security.capability", null, 0) > 0;

    /// <summary>The number of a group, or null if there is none of that name.</summary>
    public static uint? GroupId(string name)
    {
        byte* entry = GetGroup(name);
        // SAFETY: struct group begins with two pointers; the number follows. Nothing else here reads the group database, whose
        // answer lies in static memory.
        return entry == null ? null : *(uint*)(entry + (2 * sizeof(nint)));
    }

    /// <summary>The group of this process.</summary>
    public static uint EffectiveGroupId => GetEffectiveGroupId();

    [LibraryImport("libc", EntryPoint = "getegid")]
    private static partial uint GetEffectiveGroupId();

    [LibraryImport("libc", EntryPoint = "chown", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    private static partial int ChangeOwner(string path, uint user, uint group);

    [LibraryImport("libc", EntryPoint = "statx", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    private static partial int ExtendedStatus(int folder, string path, int flags, uint mask, byte* status);

    [LibraryImport("libc", EntryPoint = "faccessat", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    private static partial int AccessAt(int folder, string path, int mode, int flags);

    [LibraryImport("libc", EntryPoint = "getxattr", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    private static partial nint GetAttribute(string path, string name, byte* value, nuint bytes);

    [LibraryImport("libc", EntryPoint = "getgrnam", StringMarshalling = StringMarshalling.Utf8)]
    private static partial byte* GetGroup(string name);

    /// <summary>Whether a file system is mounted there.</summary>
    public static bool IsMounted(string path)
    {
        foreach (string line in File.ReadLines("/proc/self/mountinfo"))
        {
            // proc(5): the fifth field is the mount point; no name that we allow needs its octal escapes.
            string[] fields = line.Split(' ', 6);
            if (fields.Length > 5 && fields[4] == path) return true;
        }
        return false;
    }
}
