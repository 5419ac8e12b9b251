// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent.Cli;
using Xunit;

namespace VSmp.Agent.Tests.Cli;

public sealed class SizesTests
{
    [Theory]
    [InlineData("4096", 4096ul)]
    [InlineData("512M", 512ul << 20)]
    [InlineData("2G", 2ul << 30)]
    [InlineData("1.5GiB", 3ul << 29)]
    [InlineData("10 kib", 10240ul)]
    [InlineData("1t", 1ul << 40)]
    [InlineData("7B", 7ul)]
    public void A_size_is_read_in_powers_of_1024(string text, ulong bytes)
    {
        Assert.True(Sizes.TryParse(text, out ulong parsed, out string? error), error);
        Assert.Equal(bytes, parsed);
    }

    [Theory]
    [InlineData("0", "above zero")]
    [InlineData("-1G", "above zero")]
    [InlineData("0.0001B", "less than a byte")]
    [InlineData("512X", "unit")]
    [InlineData("512MB", "unit")]
    [InlineData("lots", "is no size")]
    [InlineData("", "is no size")]
    [InlineData("1..5G", "is no size")]
    [InlineData("200T", "too large")]
    [InlineData("99999999999999999999999999999999999999999", "too large")]
    [InlineData("99999P", "too large")]
    public void A_bad_size_is_refused_with_what_is_wrong(string text, string expected)
    {
        Assert.False(Sizes.TryParse(text, out _, out string? error));
        Assert.Contains(expected, error, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(0ul, "0 B")]
    [InlineData(1023ul, "1023 B")]
    [InlineData(512ul << 20, "512 MiB")]
    [InlineData(3ul << 29, "1.5 GiB")]
    [InlineData((1ul << 30) - 1, "1 GiB")]
    [InlineData(12345678ul, "11.8 MiB")]
    public void A_size_is_shown_short(ulong bytes, string expected) => Assert.Equal(expected, Sizes.Format(bytes));
}
