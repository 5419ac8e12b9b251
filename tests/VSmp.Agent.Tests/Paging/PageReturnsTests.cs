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
    private const int Limit = 3;
    private static readonly RegionId Region = new(7);
    private static readonly PageNumber Page = new(42);
    private long _processor;

    [Fact]
    public void Whoever_comes_back_without_having_run_is_counted_up_to_the_limit()
    {
        PageReturns returns = new(_ => _processor);
        Assert.Equal([0, 1, 2, 3, 3], Given(returns, 5, PageReturns.FruitlessNanoseconds));
    }

    [Fact]
    public void Whoever_has_run_meanwhile_is_counted_once_at_most()
    {
        PageReturns returns = new(_ => _processor);
        Assert.Equal([0, 1, 0, 0, 0], Given(returns, 5, PageReturns.FruitlessNanoseconds + 1));
        Assert.Equal([0, 1, 2, 3], Given(returns, 4, 1)); // and then gets nowhere
    }

    [Fact]
    public void Another_page_ends_the_row()
    {
        PageReturns returns = new(_ => _processor);
        Assert.Equal([0, 1, 2], Given(returns, 3, 1));
        Assert.Equal(0, returns.OnGiven(1, Region, Page.Plus(1), Limit));
        Assert.Equal([0, 1], Given(returns, 2, 1));
    }

    [Fact]
    public void Each_thread_has_a_time_of_its_own()
    {
        long[] processor = new long[3];
        PageReturns returns = new(thread => processor[thread]);
        int[] starved = new int[5], busy = new int[5];
        for (int i = 0; i < 5; i++)
        {
            starved[i] = returns.OnGiven(1, Region, Page, Limit);
            busy[i] = returns.OnGiven(2, Region, new PageNumber(1000), Limit);
            processor[1] += 1000;
            processor[2] += 1_000_000;
        }
        Assert.Equal([0, 1, 2, 3, 3], starved);
        Assert.Equal([0, 1, 0, 0, 0], busy);
    }

    [Fact]
    public void Where_the_time_is_not_known_every_return_counts()
    {
        PageReturns returns = new(_ => -1);
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
        Assert.InRange(clocks.Nanoseconds(id), 2_000_000, 60_000_000_000);
        mayEnd.Release();
        thread.Join();
        Assert.Equal(-1, clocks.Nanoseconds(int.MaxValue - 1));
        for (long until = Environment.TickCount64 + 10_000; clocks.Nanoseconds(id) != -1; Thread.Yield()) Assert.True(Environment.TickCount64 < until);
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
