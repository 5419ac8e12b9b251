// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent.Cli;
using Xunit;

namespace VSmp.Agent.Tests.Cli;

public sealed class DurationsTests
{
    [Theory]
    [InlineData("20ms", 20_000L)]
    [InlineData("500us", 500L)]
    [InlineData("500µs", 500L)]
    [InlineData("1.5s", 1_500_000L)]
    [InlineData("2 s", 2_000_000L)]
    [InlineData("0", 0L)]
    [InlineData("20", null)]
    [InlineData("-1s", null)]
    [InlineData("s", null)]
    [InlineData("", null)]
    [InlineData("1m", 60_000_000L)]
    [InlineData("2h", 7_200_000_000L)]
    [InlineData("1d", 86_400_000_000L)]
    [InlineData("1w", null)]
    [InlineData("99999999999999999999s", null)]
    public void A_time_is_read_with_its_unit_or_not_at_all(string text, long? microseconds) =>
        Assert.Equal(microseconds, Durations.ParseMicroseconds(text));

    [Theory]
    [InlineData("5", 0.05)]
    [InlineData("0.1%", 0.001)]
    [InlineData("100 %", 1.0)]
    [InlineData("0", 0.0)]
    [InlineData("101", null)]
    [InlineData("-1", null)]
    [InlineData("%", null)]
    [InlineData("x", null)]
    public void A_share_is_read_in_percent_or_not_at_all(string text, double? share) => Assert.Equal(share, Durations.ParsePercent(text));
}
