// SPDX-License-Identifier: Apache-2.0
using System.Security.Cryptography;
using System.Text;
using VSmp.Agent.Interop;

namespace VSmp.Agent.Fabric;

/// <summary>
/// What the agents of a cluster have in common and nobody else has: at least 32 random bytes in a file that only its owner reads.
/// Whoever knows it is a member of the cluster.
/// </summary>
internal sealed class ClusterSecret
{
    /// <summary>Random bytes that <see cref="Create"/> draws, and the fewest that are accepted.</summary>
    public const int MinimumBytes = 32;

    private const int MaximumFileBytes = 4096;

    private readonly byte[] _key;

    private ClusterSecret(byte[] key) => _key = key;

    /// <summary>A secret from bytes at hand.</summary>
    public static ClusterSecret FromBytes(ReadOnlySpan<byte> key) => key.Length >= MinimumBytes
        ? new ClusterSecret(key.ToArray())
        : throw new ArgumentException($"a cluster secret has at least {MinimumBytes} bytes, not {key.Length}");

    /// <summary>Reads a secret, hexadecimal or base64.</summary>
    /// <exception cref="ClusterSecretException">The file is not there, not ours, not private, or not a secret.</exception>
    public static ClusterSecret Load(string path)
    {
        int fd = Libc.Open(path, Libc.O_RDONLY | Libc.O_CLOEXEC | Libc.O_NONBLOCK, 0);
        if (fd < 0)
        {
            string advice = Errno.Last == Errno.ENOENT
                ? $"; copy it from another node of the cluster, or make one: {Recipe(path)}"
                : "";
            throw new ClusterSecretException($"cannot open the cluster secret {path}: {Errno.Text(Errno.Last)}{advice}");
        }
        try
        {
            FileStatus status = FileStatus.Of(fd);
            if (!status.IsRegular) throw new ClusterSecretException($"the cluster secret {path} is not a regular file");
            uint user = Libc.GetEffectiveUserId();
            if (status.UserId != user && status.UserId != 0)
                throw new ClusterSecretException(
                    $"the cluster secret {path} belongs to user {status.UserId}, not to you (user {user}) or root: chown it");
            if ((status.Permissions & 0x3F) != 0)
                throw new ClusterSecretException(
                    $"others may read the cluster secret {path} (mode {Convert.ToString(status.Permissions, 8)}): chmod 600 {path}");
            return new ClusterSecret(Parse(path, Read(path, fd)));
        }
        finally
        {
            _ = Libc.Close(fd);
        }
    }

    /// <summary>Writes a fresh secret to a file that must not exist (mode 0600), and gives it.</summary>
    /// <exception cref="ClusterSecretException">The file is there already or cannot be written.</exception>
    public static ClusterSecret Create(string path)
    {
        byte[] key = RandomNumberGenerator.GetBytes(MinimumBytes);
        int fd = Libc.Open(path, Libc.O_RDWR | Libc.O_CREAT | Libc.O_EXCL | Libc.O_CLOEXEC, 0b110_000_000);
        if (fd < 0) throw new ClusterSecretException($"cannot create the cluster secret {path}: {Errno.Text(Errno.Last)}");
        byte[] text = Encoding.ASCII.GetBytes(Convert.ToHexStringLower(key) + "\n");
        nint written;
        int error;
        // SAFETY: the array is pinned during the call.
        unsafe
        {
            fixed (byte* bytes = text) written = Libc.Write(fd, bytes, (nuint)text.Length);
            error = Errno.Last;
        }
        _ = Libc.Close(fd);
        if (written == text.Length) return new ClusterSecret(key);
        _ = Libc.Unlink(path);
        throw new ClusterSecretException(
            $"cannot write the cluster secret {path}: {(written < 0 ? Errno.Text(error) : "the file system is full")}");
    }

    /// <summary>A keyed hash (HMAC-SHA256) to be fed and finished.</summary>
    internal IncrementalHash BeginMac() => IncrementalHash.CreateHMAC(HashAlgorithmName.SHA256, _key);

    private static unsafe string Read(string path, int fd)
    {
        byte* buffer = stackalloc byte[MaximumFileBytes + 1];
        int have = 0;
        while (have <= MaximumFileBytes)
        {
            // SAFETY: reads at most what is left of the buffer.
            nint got = Libc.Read(fd, buffer + have, (nuint)(MaximumFileBytes + 1 - have));
            if (got < 0) throw new ClusterSecretException($"cannot read the cluster secret {path}: {Errno.Text(Errno.Last)}");
            if (got == 0) return Encoding.ASCII.GetString(buffer, have).Trim();
            have += (int)got;
        }
        throw new ClusterSecretException(
            $"the cluster secret {path} is longer than {MaximumFileBytes} bytes: is it the right file?");
    }

    private static string Recipe(string path) => $"(umask 077; openssl rand -hex {MinimumBytes} > {path})";

    private static byte[] Parse(string path, string text)
    {
        byte[]? key = null;
        if (text.Length % 2 == 0 && text.All(char.IsAsciiHexDigit)) key = Convert.FromHexString(text);
        else
        {
            byte[] decoded = new byte[text.Length];
            if (Convert.TryFromBase64String(text, decoded, out int bytes)) key = decoded[..bytes];
        }
        if (key is null)
            throw new ClusterSecretException($"the cluster secret {path} is neither hexadecimal nor base64");
        if (key.Length < MinimumBytes)
            throw new ClusterSecretException(
                $"the cluster secret {path} has {key.Length} bytes, at least {MinimumBytes} are needed: {Recipe(path)}");
        return key;
    }
}

/// <summary>A cluster secret that cannot be used; the message says why and what to do.</summary>
internal sealed class ClusterSecretException(string message) : Exception(message);
