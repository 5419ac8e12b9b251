// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent.Interop;
using VSmp.Agent.Paging;
using VSmp.Coherence;
using Xunit;

namespace VSmp.Agent.Tests.Paging;

/// <summary>Threads that never get to use their page hold it longer and longer; those that do use it are not taken for such.</summary>
public sealed class PageReturnsTests
{
    private const int Limit = 3;
    private static readonly RegionId Region = new(7);
    private static readonly PageNumber Page = new(42);
    private long _processor;

    [Fact]
    public void Whoever_comes_back_without_having_run_is_counted_up_to_the_limit()
    {
        PageReturns returns = new(() => _processor);
        Assert.Equal([0, 1, 2, 3, 3], Given(returns, 5, PageReturns.FruitlessMicroseconds));
    }

    [Fact]
    public void Whoever_has_run_meanwhile_is_counted_once_at_most()
    {
        PageReturns returns = new(() => _processor);
        Assert.Equal([0, 1, 0, 0, 0], Given(returns, 5, PageReturns.FruitlessMicroseconds + 1));
        Assert.Equal([0, 1, 2, 3], Given(returns, 4, 1)); // and then gets nowhere
    }

    [Fact]
    public void Another_page_ends_the_row()
    {
        PageReturns returns = new(() => _processor);
        Assert.Equal([0, 1, 2], Given(returns, 3, 1));
        Assert.Equal(0, returns.OnGiven(1, Region, Page.Plus(1), Limit));
        Assert.Equal([0, 1], Given(returns, 2, 1));
    }

    [Fact]
    public void Time_of_other_threads_that_fault_is_nobodys_use()
    {
        PageReturns returns = new(() => _processor);
        Assert.Equal(0, returns.OnGiven(2, Region, new PageNumber(1000), Limit));
        Assert.Equal([0, 1, 2, 3], Given(returns, 4, 1_000_000));
    }

    [Fact]
    public void Where_the_time_is_not_known_every_return_counts()
    {
        PageReturns returns = new(() => -1);
        Assert.Equal([0, 1, 2], Given(returns, 3, 0));
    }

    [Fact]
    public void The_kernel_tells_a_processes_time()
    {
        long before = ProcessControl.ProcessorMicroseconds(Environment.ProcessId);
        Assert.True(before > 0);
        for (long until = Environment.TickCount64 + 20; Environment.TickCount64 < until;) Thread.SpinWait(100);
        Assert.InRange(ProcessControl.ProcessorMicroseconds(Environment.ProcessId) - before, 5_000, 60_000_000);
        Assert.Equal(-1, ProcessControl.ProcessorMicroseconds(int.MaxValue - 1));
    }

    private int[] Given(PageReturns returns, int times, long processorBetween)
    {
        int[] counted = new int[times];
        for (int i = 0; i < times; i++)
        {
            counted[i] = returns.OnGiven(1, Region, Page, Limit);
            _processor += processorBetween;
        }
        return counted;
    }
}
