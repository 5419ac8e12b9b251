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
        try
        {
            return new ClusterSecret(Parse(path, PrivateFile.ReadText(path, "the cluster secret", MaximumFileBytes,
                $"copy it from another node of the cluster, or make one: {Recipe(path)}").Trim()));
        }
        catch (PrivateFileException e)
        {
            throw new ClusterSecretException(e.Message);
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

    /// <summary>A key for one purpose, from which neither the secret nor another purpose's key follows.</summary>
    internal byte[] DeriveKey(string purpose) => HMACSHA256.HashData(_key, Encoding.ASCII.GetBytes(purpose));

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
