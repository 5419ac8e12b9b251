// SPDX-License-Identifier: Apache-2.0
using System.Text;

namespace VSmp.Agent.Interop;

/// <summary>Short files that hold a secret: read only if nobody else could have read or written them.</summary>
internal static class PrivateFile
{
    /// <summary>Most bytes of such a file.</summary>
    public const int MaximumBytes = 64 * 1024;

    /// <summary>The text of a file that belongs to us or to root and that nobody else may use.</summary>
    /// <param name="path">The file.</param>
    /// <param name="what">What it is, for messages: "the cluster secret".</param>
    /// <param name="maximumBytes">More than that cannot be such a secret; at most <see cref="MaximumBytes"/>.</param>
    /// <param name="ifMissing">What to do if there is no such file.</param>
    /// <exception cref="PrivateFileException">It is not there, not ours, not private, or too long.</exception>
    public static string ReadText(string path, string what, int maximumBytes, string ifMissing)
    {
        int fd = Libc.Open(path, Libc.O_RDONLY | Libc.O_CLOEXEC | Libc.O_NONBLOCK, 0);
        if (fd < 0)
        {
            string advice = Errno.Last == Errno.ENOENT ? $"; {ifMissing}" : "";
            throw new PrivateFileException($"cannot open {what} {path}: {Errno.Text(Errno.Last)}{advice}");
        }
        try
        {
            FileStatus status = FileStatus.Of(fd);
            if (!status.IsRegular) throw new PrivateFileException($"{what} {path} is not a regular file");
            uint user = Libc.GetEffectiveUserId();
            if (status.UserId != user && status.UserId != 0)
                throw new PrivateFileException(
                    $"{what} {path} belongs to user {status.UserId}, not to you (user {user}) or root: chown it");
            if ((status.Permissions & 0x3F) != 0)
                throw new PrivateFileException(
                    $"others may read {what} {path} (mode {Convert.ToString(status.Permissions, 8)}): chmod 600 {path}");
            return Read(path, what, fd, maximumBytes);
        }
        finally
        {
            _ = Libc.Close(fd);
        }
    }

    private static unsafe string Read(string path, string what, int fd, int maximumBytes)
    {
        byte[] buffer = new byte[Math.Min(maximumBytes, MaximumBytes) + 1];
        int have = 0;
        // SAFETY: the array is pinned, and each call reads at most what is left of it.
        fixed (byte* start = buffer)
        {
            while (have < buffer.Length)
            {
                nint got = Libc.Read(fd, start + have, (nuint)(buffer.Length - have));
                if (got < 0) throw new PrivateFileException($"cannot read {what} {path}: {Errno.Text(Errno.Last)}");
                if (got == 0) return Encoding.UTF8.GetString(buffer, 0, have);
                have += (int)got;
            }
        }
        throw new PrivateFileException($"{what} {path} is longer than {buffer.Length - 1} bytes: is it the right file?");
    }
}

/// <summary>A file that cannot be used as a secret; the message says why and what to do.</summary>
internal sealed class PrivateFileException(string message) : Exception(message);
