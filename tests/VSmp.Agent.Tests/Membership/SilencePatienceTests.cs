// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent.Membership;
using Xunit;

namespace VSmp.Agent.Tests.Membership;

/// <summary>How long a host that answers nothing may be silent.</summary>
public sealed class SilencePatienceTests
{
    private const long Tick = 10, Never = long.MaxValue, Window = SilencePatience.WindowTicks;

    [Fact]
    public void A_network_that_is_always_quick_is_trusted_to_be() => Assert.Equal(SilencePatience.LeastTicks, PatienceAfter((60, 2 * Window)));

    [Fact]
    public void One_that_is_not_known_yet_is_not()
    {
        Assert.Equal(Never, PatienceAfter());
        Assert.Equal(Never, PatienceAfter((60, SilencePatience.UnknownTicks / 2)));
        Assert.Equal(SilencePatience.LeastTicks, PatienceAfter((60, SilencePatience.UnknownTicks + 100)));
    }

    [Fact]
    public void One_that_is_silent_now_and_then_gets_several_times_that()
    {
        Assert.Equal(1200, PatienceAfter((60, 2 * Window), (300, 600)));
        Assert.Equal(1200, PatienceAfter((60, 2 * Window), (300, 600), (60, Window / 2)));
        Assert.Equal(3600, PatienceAfter((60, 2 * Window), (900, 1800), (60, Window / 2)));
    }

    [Fact]
    public void What_was_long_ago_is_forgotten() =>
        Assert.Equal(SilencePatience.LeastTicks, PatienceAfter((60, 2 * Window), (900, 1800), (60, (2 * Window) + 200)));

    /// <summary>After stretches in which the member is heard so often, for so long: how long it may be silent.</summary>
    private static long PatienceAfter(params (long Period, long Ticks)[] stretches)
    {
        var patience = new SilencePatience();
        long now = 1;
        foreach ((long period, long ticks) in stretches)
        {
            for (long end = now + ticks; now < end;)
            {
                for (long silent = 0; silent <= period; silent += Tick, now += Tick) patience.OnSilent(silent, now);
            }
        }
        for (long silent = 0; silent < 100_000; silent += Tick, now += Tick)
        {
            patience.OnSilent(silent, now);
            if (patience.IsOver) return silent;
        }
        return Never;
    }
}
