// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent.Paging;
using VSmp.Coherence;
using Xunit;

namespace VSmp.Agent.Tests.Paging;

/// <summary>What a rank will miss behind a barrier.</summary>
public sealed class BarrierForecastTests
{
    private readonly BarrierForecast _forecast = new();

    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(8)]
    public void What_was_missed_at_equal_distances_is_due_at_the_same_distance(int period)
    {
        for (int miss = 0; miss < 3; miss++)
        {
            _forecast.OnMiss(new PageNumber(10), write: false);
            for (int i = 1; i < period; i++) Assert.Empty(Barrier());
            if (miss < 2) Assert.Empty(Barrier());
        }
        Assert.Equal([(10ul, false)], Barrier());
        for (int i = 1; i < period; i++) Assert.Empty(Barrier());
        Assert.Equal([(10ul, false)], Barrier()); // though it was not missed any more
    }

    [Fact]
    public void What_was_missed_too_rarely_or_now_and_then_is_not_due()
    {
        foreach (int distance in (int[])[1, 2, 1, 3, 2, 4, 5, 1, 9, 9, 9, 9])
        {
            _forecast.OnMiss(new PageNumber(10), write: false);
            for (int i = 0; i < distance; i++) Assert.Empty(Barrier());
        }
    }

    [Fact]
    public void It_is_asked_for_as_it_was_missed_last()
    {
        Learn((10, false), (11, true));
        Assert.Equal([(10ul, false), (11ul, true)], Barrier().Order());
    }

    [Fact]
    public void What_is_read_and_then_written_between_barriers_is_asked_for_to_be_written()
    {
        for (int i = 0; i < 3; i++)
        {
            if (i > 0) Assert.Empty(Barrier());
            _forecast.OnMiss(new PageNumber(10), write: false);
            _forecast.OnMiss(new PageNumber(10), write: true);
        }
        Assert.Equal([(10ul, true)], Barrier());
    }

    [Fact]
    public void Once_in_a_while_it_is_left_to_be_missed_and_goes_if_it_is_not()
    {
        Learn((10, false));
        for (int i = 1; i < BarrierForecast.Trusted; i++) Assert.Single(Barrier());
        Assert.Empty(Barrier());
        _forecast.OnMiss(new PageNumber(10), write: false); // it still is
        for (int i = 1; i < BarrierForecast.Trusted; i++) Assert.Single(Barrier());
        for (int i = 0; i < 100; i++) Assert.Empty(Barrier());
    }

    [Fact]
    public void What_was_asked_for_and_missed_all_the_same_is_learnt_anew()
    {
        Learn((10, false));
        Assert.Single(Barrier());
        _forecast.OnMiss(new PageNumber(10), write: false); // somebody has taken it away meanwhile
        Assert.Empty(Barrier());
        _forecast.OnMiss(new PageNumber(10), write: false);
        Assert.Empty(Barrier());
        _forecast.OnMiss(new PageNumber(10), write: false);
        Assert.Single(Barrier());
    }

    [Fact]
    public void What_was_here_all_the_time_is_forgotten()
    {
        Learn((10, false));
        Assert.Single(Barrier());
        _forecast.Forget(new PageNumber(10));
        _forecast.Forget(new PageNumber(11)); // which is not known
        for (int i = 0; i < 100; i++) Assert.Empty(Barrier());
    }

    [Fact]
    public void Of_more_pages_than_it_can_remember_it_keeps_those_that_it_has_learnt()
    {
        Learn([.. Enumerable.Range(0, 100).Select(page => ((ulong)page, false))]);
        (ulong Page, bool)[] learnt = [.. Barrier()];
        Assert.InRange(learnt.Length, 80, 100); // some share a place
        for (ulong page = 1000; page < 100_000; page++) _forecast.OnMiss(new PageNumber(page), write: true);
        Assert.Equal(learnt, Barrier());
    }

    /// <summary>Misses the pages behind each of three barriers.</summary>
    private void Learn(params (ulong Page, bool Write)[] pages)
    {
        for (int step = 0; step < 3; step++)
        {
            if (step > 0) _forecast.OnBarrier();
            foreach ((ulong page, bool write) in pages) _forecast.OnMiss(new PageNumber(page), write);
        }
    }

    private List<(ulong Page, bool Write)> Barrier()
    {
        _forecast.OnBarrier();
        List<(ulong, bool)> due = [];
        for (int at = 0; _forecast.TryNext(ref at, out PageNumber page, out bool write);) due.Add((page.Value, write));
        return due;
    }
}
