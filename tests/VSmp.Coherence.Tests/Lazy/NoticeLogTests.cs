// SPDX-License-Identifier: Apache-2.0
using VSmp.Coherence.Lazy;

namespace VSmp.Coherence.Tests.Lazy;

public sealed class NoticeLogTests
{
    private static readonly NodeId A = new(1), B = new(2), C = new(300);

    [Fact]
    public void Who_acquires_hears_once_what_others_have_written_since()
    {
        var log = new NoticeLog();
        log.Add(A);
        log.Add(B);
        log.Add(C);
        log.OnRelease(A, [new PageNumber(1), new PageNumber(2)]);
        log.OnRelease(B, [new PageNumber(2)]);
        Assert.Equal([2ul], Acquire(log, A));
        Assert.Equal([1ul, 2ul], Acquire(log, B));
        Assert.Empty(Acquire(log, A));
        Assert.Equal(3, log.Count); // C has not heard of them
        Assert.Equal([1ul, 2ul, 2ul], Acquire(log, C));
        Assert.Equal(0, log.Count);
    }

    [Fact]
    public void Who_is_further_behind_than_the_log_reaches_is_told_to_invalidate_everything()
    {
        var log = new NoticeLog(capacity: 2);
        log.Add(A);
        log.Add(B);
        log.OnRelease(A, [new PageNumber(1), new PageNumber(2), new PageNumber(3)]);
        Assert.False(log.OnAcquire(B, []));
        log.OnRelease(A, [new PageNumber(4), new PageNumber(5)]);
        Assert.Equal([4ul, 5ul], Acquire(log, B));
    }

    [Fact]
    public void A_node_that_is_gone_holds_nothing_up_and_one_that_comes_starts_afresh()
    {
        var log = new NoticeLog();
        log.Add(A);
        log.Add(B);
        log.OnRelease(A, [new PageNumber(1)]);
        _ = Acquire(log, A);
        log.Remove(B);
        Assert.Equal(0, log.Count);
        log.Add(C);
        Assert.Empty(Acquire(log, C));
        Assert.Throws<InvalidOperationException>(() => Acquire(log, B));
    }

    private static ulong[] Acquire(NoticeLog log, NodeId node)
    {
        var pages = new List<PageNumber>();
        Assert.True(log.OnAcquire(node, pages));
        return [.. pages.Select(p => p.Value)];
    }
}
