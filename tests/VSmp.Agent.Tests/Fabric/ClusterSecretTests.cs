// SPDX-License-Identifier: Apache-2.0
using System.Security.Cryptography;
using VSmp.Agent.Fabric;
using Xunit;

namespace VSmp.Agent.Tests.Fabric;

/// <summary>What may be a cluster's secret, and what may not.</summary>
public sealed class ClusterSecretTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("vsmp-secret-").FullName;

    private string File1 => Path.Combine(_folder, "secret");

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [Fact]
    public void A_secret_that_was_created_is_private_and_loads_as_the_same_key()
    {
        ClusterSecret created = ClusterSecret.Create(File1);
        Assert.Equal(UnixFileMode.UserRead | UnixFileMode.UserWrite, File.GetUnixFileMode(File1));
        Assert.Equal(MacOf(created), MacOf(ClusterSecret.Load(File1)));
        Assert.Contains("exists", Assert.Throws<ClusterSecretException>(() => ClusterSecret.Create(File1)).Message,
            StringComparison.OrdinalIgnoreCase);
    }

    [Fact]
    public void Hexadecimal_and_base64_are_the_same_secret()
    {
        byte[] key = RandomNumberGenerator.GetBytes(33);
        Write(Convert.ToHexString(key));
        byte[] fromHex = MacOf(ClusterSecret.Load(File1));
        Write(Convert.ToBase64String(key) + "\n");
        Assert.Equal(fromHex, MacOf(ClusterSecret.Load(File1)));
    }

    [Theory]
    [InlineData("0123456789abcdef", "has 8 bytes")]
    [InlineData("", "has 0 bytes")]
    [InlineData("correct horse battery staple, twice over!", "neither hexadecimal nor base64")]
    public void What_is_no_secret_is_refused_with_the_reason(string text, string reason)
    {
        Write(text);
        Assert.Contains(reason, Refusal(), StringComparison.Ordinal);
    }

    [Fact]
    public void A_file_that_others_may_read_or_that_is_not_there_or_no_file_is_refused_with_advice()
    {
        Assert.Contains("openssl rand", Refusal(), StringComparison.Ordinal);
        Write(Convert.ToHexString(new byte[32]));
        File.SetUnixFileMode(File1, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.GroupRead);
        Assert.Contains("chmod 600", Refusal(), StringComparison.Ordinal);
        Write(new string('a', 5000));
        Assert.Contains("longer than", Refusal(), StringComparison.Ordinal);
        File.Delete(File1);
        Directory.CreateDirectory(File1);
        Assert.Contains("not a regular file", Refusal(), StringComparison.Ordinal);
    }

    private string Refusal() => Assert.Throws<ClusterSecretException>(() => ClusterSecret.Load(File1)).Message;

    private void Write(string text)
    {
        File.WriteAllText(File1, text);
        File.SetUnixFileMode(File1, UnixFileMode.UserRead | UnixFileMode.UserWrite);
    }

    private static byte[] MacOf(ClusterSecret secret)
    {
        using IncrementalHash mac = secret.BeginMac();
        return mac.GetHashAndReset();
    }
}
