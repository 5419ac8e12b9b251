// SPDX-License-Identifier: Apache-2.0
using Xunit;

namespace VSmp.Agent.Tests;

/// <summary>What runs every so often runs while it is needed, and wakes nobody otherwise.</summary>
public sealed class TickerTests
{
    private const long PeriodMicroseconds = 1000;
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(30);

    [Fact]
    public async Task It_wakes_nobody_while_it_is_not_needed_and_goes_on_when_it_is()
    {
        using Reactor reactor = new(maxSpinMicroseconds: 0);
        TaskCompletionSource ticked = new(TaskCreationOptions.RunContinuationsAsynchronously);
        bool isNeeded = false;
        int ticks = 0;
        reactor.Every(PeriodMicroseconds, () =>
        {
            if (++ticks == 3) ticked.SetResult();
        }, () => isNeeded);
        Thread thread = new(reactor.Run);
        thread.Start();
        try
        {
            // Fifty periods go by, and nobody is woken but for this.
            TaskCompletionSource<ulong> slept = new(TaskCreationOptions.RunContinuationsAsynchronously);
            reactor.Post(() =>
            {
                ulong before = reactor.SleepCount;
                reactor.After(50 * PeriodMicroseconds, () => slept.SetResult(reactor.SleepCount - before));
            });
            Assert.InRange(await slept.Task.WaitAsync(Patience, TestContext.Current.CancellationToken), 1ul, 5ul);
            Assert.Equal(0, await reactor.Ask(() => ticks));

            reactor.Post(() => isNeeded = true);
            await ticked.Task.WaitAsync(Patience, TestContext.Current.CancellationToken);
        }
        finally
        {
            reactor.Stop();
            thread.Join();
        }
    }

    [Fact]
    public async Task Once_it_is_needed_it_runs_a_period_later()
    {
        using Reactor reactor = new(maxSpinMicroseconds: 0);
        TaskCompletionSource<long> ticked = new(TaskCreationOptions.RunContinuationsAsynchronously);
        long neededFrom = long.MaxValue;
        reactor.Every(50 * PeriodMicroseconds, () => ticked.TrySetResult(reactor.NowMicroseconds - neededFrom), () => neededFrom != long.MaxValue);
        Thread thread = new(reactor.Run);
        thread.Start();
        try
        {
            // By then it would have been due for long.
            reactor.Post(() => reactor.After(100 * PeriodMicroseconds, () => neededFrom = reactor.NowMicroseconds));
            Assert.True(await ticked.Task.WaitAsync(Patience, TestContext.Current.CancellationToken) >= 50 * PeriodMicroseconds);
        }
        finally
        {
            reactor.Stop();
            thread.Join();
        }
    }
}
