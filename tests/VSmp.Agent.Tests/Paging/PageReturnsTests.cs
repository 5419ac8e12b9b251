// SPDX-License-Identifier: Apache-2.0
using System.Globalization;
using VSmp.Agent.Guests;
using VSmp.Agent.Paging;
using VSmp.Coherence;
using Xunit;

namespace VSmp.Agent.Tests.Paging;

/// <summary>Threads that never get to use their page hold it longer and longer; those that do use it are not taken for such.</summary>
public sealed class PageReturnsTests
{
    private static readonly RegionId Region = new(7);
    private static readonly PageNumber Page = new(42);
    private long _processor, _runs;

    [Fact]
    public void Whoever_comes_back_without_having_run_is_counted()
    {
        PageReturns returns = new(_ => new ThreadClock(_processor, _runs));
        Assert.Equal([0, 1, 2, 3, 4], Given(returns, 5, PageReturns.FruitlessNanoseconds));
    }

    [Fact]
    public void Whoever_has_run_meanwhile_is_counted_once_at_most()
    {
        PageReturns returns = new(_ => new ThreadClock(_processor, _runs));
        Assert.Equal([0, 1, 0, 0, 0], Given(returns, 5, PageReturns.FruitlessNanoseconds + 1));
        Assert.Equal([0, 1, 2, 3], Given(returns, 4, 1)); // and then gets nowhere
    }

    [Fact]
    public void Whoever_has_waited_for_something_else_has_used_its_page()
    {
        PageReturns returns = new(_ => new ThreadClock(_processor, _runs));
        Assert.Equal([0, 1, 2], Given(returns, 3, 1, runsBetween: PageReturns.FruitlessRuns));
        Assert.Equal([3, 0, 0], Given(returns, 3, 1, runsBetween: PageReturns.FruitlessRuns + 1));
    }

    [Fact]
    public void A_thread_has_run_when_it_was_given_a_processor_since_it_wanted_the_page()
    {
        PageReturns returns = new(_ => new ThreadClock(_processor, _runs));
        Given(returns, 3, PageReturns.FruitlessNanoseconds + 1); // the last time on, it is known to use what it gets
        Assert.Equal(0, Fault(returns, 1, Page));
        Assert.False(returns.HasRun(1, Region, Page));
        _runs++;
        Assert.True(returns.HasRun(1, Region, Page));
        Assert.False(returns.HasRun(1, Region, Page.Plus(1)));
        Assert.False(returns.HasRun(2, Region, Page));
    }

    [Fact]
    public void Whoever_came_back_in_vain_has_its_full_time()
    {
        PageReturns returns = new(_ => new ThreadClock(_processor, _runs));
        Assert.Equal([0, 1], Given(returns, 2, 1));
        _runs += 5;
        Assert.False(returns.HasRun(1, Region, Page));
    }

    [Fact]
    public void Of_a_page_that_is_wanted_for_the_first_time_it_is_not_known()
    {
        PageReturns returns = new(_ => new ThreadClock(_processor, _runs));
        Assert.Equal(0, Fault(returns, 1, Page));
        _runs++;
        Assert.False(returns.HasRun(1, Region, Page));
    }

    [Fact]
    public void Another_page_ends_the_row()
    {
        PageReturns returns = new(_ => new ThreadClock(_processor, _runs));
        Assert.Equal([0, 1, 2], Given(returns, 3, 1));
        Assert.Equal(0, Fault(returns, 1, Page.Plus(1)));
        Assert.Equal([0, 1], Given(returns, 2, 1));
    }

    [Fact]
    public void Each_thread_has_a_time_of_its_own()
    {
        long[] processor = new long[3];
        PageReturns returns = new(thread => new ThreadClock(processor[thread], Runs: 0));
        int[] starved = new int[5], busy = new int[5];
        for (int i = 0; i < 5; i++)
        {
            starved[i] = Fault(returns, 1, Page);
            busy[i] = Fault(returns, 2, new PageNumber(1000));
            processor[1] += 1000;
            processor[2] += 1_000_000;
        }
        Assert.Equal([0, 1, 2, 3, 4], starved);
        Assert.Equal([0, 1, 0, 0, 0], busy);
    }

    [Fact]
    public void Where_the_time_is_not_known_every_return_counts()
    {
        PageReturns returns = new(_ => ThreadClock.Unknown);
        Assert.Equal([0, 1, 2], Given(returns, 3, 0));
    }

    [Fact]
    public async Task The_kernel_tells_a_threads_time()
    {
        using ThreadClocks clocks = new(Environment.ProcessId);
        TaskCompletionSource<uint> begun = new(TaskCreationOptions.RunContinuationsAsynchronously);
        using SemaphoreSlim mayEnd = new(0);
        Thread thread = new(() =>
        {
            for (long until = Environment.TickCount64 + 20; Environment.TickCount64 < until;) Thread.SpinWait(100);
            // "/proc/thread-self" is PID/task/TID.
            begun.SetResult(uint.Parse(File.ResolveLinkTarget("/proc/thread-self", returnFinalTarget: false)!.Name, CultureInfo.InvariantCulture));
            mayEnd.Wait();
        });
        thread.Start();
        uint id = await begun.Task;
        Assert.InRange(clocks.Look(id).Nanoseconds, 2_000_000, 60_000_000_000);
        Assert.InRange(clocks.Look(id).Runs, 1, 1_000_000);
        mayEnd.Release();
        thread.Join();
        Assert.False(clocks.Look(int.MaxValue - 1).IsKnown);
        for (long until = Environment.TickCount64 + 10_000; clocks.Look(id).IsKnown; Thread.Yield()) Assert.True(Environment.TickCount64 < until);
    }

    [Fact]
    public void Of_a_page_that_it_does_not_want_any_more_nothing_is_counted()
    {
        PageReturns returns = new(_ => new ThreadClock(_processor, _runs));
        Given(returns, 3, 1);
        Fault(returns, 1, Page.Plus(1));
        Assert.Equal(0, returns.Of(1, Region, Page));
    }

    private static int Fault(PageReturns returns, uint threadId, PageNumber page)
    {
        returns.OnFault(threadId, Region, page);
        return returns.Of(threadId, Region, page);
    }

    private int[] Given(PageReturns returns, int times, long processorBetween, long runsBetween = 0)
    {
        int[] counted = new int[times];
        for (int i = 0; i < times; i++)
        {
            counted[i] = Fault(returns, 1, Page);
            _processor += processorBetween;
            _runs += runsBetween;
        }
        return counted;
    }
}
