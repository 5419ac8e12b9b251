// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent.Membership;
using VSmp.Agent.Membership.Etcd;
using Xunit;
using static VSmp.Agent.Tests.Membership.Etcd.EtcdStores;

namespace VSmp.Agent.Tests.Membership.Etcd;

/// <summary>Reading and swapping the record, also over connections that lose requests and answers.</summary>
public sealed class EtcdSwapTests(EtcdServer etcd) : IClassFixture<EtcdServer>
{
    private const string TxnPath = "/v3/kv/txn";

    private readonly string _cluster = NewCluster();

    [Fact]
    public async Task A_record_is_created_read_and_replaced_and_who_is_late_gets_what_is_there()
    {
        using EtcdViewStore store = Open(etcd.Address, _cluster), other = Open(etcd.Address, NewCluster());
        Assert.Null(await store.ReadAsync());

        SwapResult none = await store.TryReplaceAsync(3, Bytes("x"), CancellationToken.None);
        Assert.Equal(SwapResult.Lost(null), none);

        long first = await store.WriteAsync(0, "one");
        StoredRecord? read = await store.ReadAsync();
        Assert.Equal("one", Text(read));
        Assert.Equal(first, read!.Revision);
        Assert.Null(await other.ReadAsync());

        long second = await store.WriteAsync(first, "two");
        Assert.True(second > first);
        foreach (long stale in new[] { 0, first })
        {
            SwapResult late = await store.TryReplaceAsync(stale, Bytes("three"), CancellationToken.None);
            Assert.False(late.IsDone);
            Assert.Equal("two", Text(late.Present));
            Assert.Equal(second, late.Present!.Revision);
        }
        Assert.Equal("two", Text(await store.ReadAsync()));
    }

    [Fact]
    public async Task Any_bytes_can_be_a_record_up_to_the_largest()
    {
        using EtcdViewStore store = Open(etcd.Address, _cluster);
        long revision = await store.WriteAsync(0, "");
        Assert.Equal(0, (await store.ReadAsync())!.Value.Length);
        byte[] large = new byte[EtcdViewStore.MaximumRecordBytes];
        for (int i = 0; i < large.Length; i++) large[i] = (byte)(i * 7);
        Assert.True((await store.TryReplaceAsync(revision, large, CancellationToken.None)).IsDone);
        Assert.Equal(large, (await store.ReadAsync())!.Value.ToArray());
        Assert.Equal(large, (await store.TryReplaceAsync(revision, large, CancellationToken.None)).Present!.Value.ToArray());
    }

    [Fact]
    public async Task Of_two_that_replace_the_same_revision_exactly_one_wins()
    {
        using EtcdViewStore a = Open(etcd.Address, _cluster), b = Open(etcd.Address, _cluster);
        long revision = 0;
        for (int round = 0; round < 200; round++)
        {
            long expected = revision;
            // The same bytes, so that only who won can tell them apart.
            SwapResult[] results = await Task.WhenAll(
                Task.Run(() => a.TryReplaceAsync(expected, Bytes($"{round}"), CancellationToken.None)),
                Task.Run(() => b.TryReplaceAsync(expected, Bytes($"{round}"), CancellationToken.None)));
            SwapResult won = Assert.Single(results, r => r.IsDone), lost = Assert.Single(results, r => !r.IsDone);
            revision = won.Revision;
            Assert.True(revision > expected);
            Assert.Equal(revision, lost.Present!.Revision);
        }
    }

    [Fact]
    public async Task A_swap_whose_answer_is_lost_was_done()
    {
        await using FakeEtcd line = LosesOnce(async request => _ = await request.AskAsync(etcd));
        using EtcdViewStore store = Open(line.Address, _cluster);
        long revision = await store.WriteAsync(0, "one");
        Assert.Equal(revision, (await store.ReadAsync())!.Revision);
    }

    [Fact]
    public async Task A_swap_whose_request_is_lost_is_done_all_the_same()
    {
        await using FakeEtcd line = LosesOnce(_ => Task.CompletedTask);
        using EtcdViewStore store = Open(line.Address, _cluster);
        long revision = await store.WriteAsync(0, "one");
        Assert.Equal(revision, (await store.ReadAsync())!.Revision);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task A_swap_whose_answer_is_lost_was_done_even_if_others_have_followed(bool isFirst)
    {
        using EtcdViewStore direct = Open(etcd.Address, _cluster);
        long before = isFirst ? 0 : await direct.WriteAsync(0, "before"), done = 0;
        await using FakeEtcd line = LosesOnce(async request =>
        {
            _ = await request.AskAsync(etcd);
            done = (await direct.ReadAsync())!.Revision;
            _ = await direct.WriteAsync(await direct.WriteAsync(done, "others"), "others again");
        });
        using EtcdViewStore store = Open(line.Address, _cluster);
        SwapResult result = await store.TryReplaceAsync(before, Bytes("ours"), CancellationToken.None);
        Assert.Equal(SwapResult.Done(done), result);
        Assert.Equal("others again", Text(await direct.ReadAsync()));
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task A_swap_whose_request_is_lost_is_lost_to_others_even_if_they_wrote_the_same(bool isFirst)
    {
        using EtcdViewStore direct = Open(etcd.Address, _cluster);
        long before = isFirst ? 0 : await direct.WriteAsync(0, "before"), others = 0;
        await using FakeEtcd line = LosesOnce(async _ => others = await direct.WriteAsync(await direct.WriteAsync(before, "same"), "same"));
        using EtcdViewStore store = Open(line.Address, _cluster);
        SwapResult result = await store.TryReplaceAsync(before, Bytes("same"), CancellationToken.None);
        Assert.False(result.IsDone);
        Assert.Equal(others, result.Present!.Revision);
    }

    [Fact]
    public async Task Where_etcd_has_forgotten_what_happened_the_outcome_is_called_unknown()
    {
        using EtcdViewStore direct = Open(etcd.Address, _cluster);
        long before = await direct.WriteAsync(0, "before");
        await using FakeEtcd line = LosesOnce(async request =>
        {
            _ = await request.AskAsync(etcd);
            long last = await direct.WriteAsync((await direct.ReadAsync())!.Revision, "others");
            await etcd.CompactAsync(last);
        });
        using EtcdViewStore store = Open(line.Address, _cluster);
        ViewStoreException failure = await FailureAsync(() => store.TryReplaceAsync(before, Bytes("ours"), CancellationToken.None));
        Assert.Equal(StoreFailure.OutcomeUnknown, failure.Failure);
        Assert.Contains("compacted", failure.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Where_the_record_was_deleted_meanwhile_the_outcome_is_called_unknown()
    {
        using EtcdViewStore direct = Open(etcd.Address, _cluster);
        long before = await direct.WriteAsync(0, "before");
        await using FakeEtcd line = LosesOnce(async request =>
        {
            _ = await request.AskAsync(etcd);
            await etcd.DeleteAsync($"/vsmp/{_cluster}/view");
            await etcd.DeleteAsync($"/vsmp/{_cluster}/view-writer");
        });
        using EtcdViewStore store = Open(line.Address, _cluster);
        ViewStoreException failure = await FailureAsync(() => store.TryReplaceAsync(before, Bytes("ours"), CancellationToken.None));
        Assert.Equal(StoreFailure.OutcomeUnknown, failure.Failure);
    }

    [Fact]
    public async Task Where_no_answer_ever_comes_the_outcome_is_called_unknown()
    {
        await using FakeEtcd line = new(async request => _ = await request.AskAsync(etcd));
        using EtcdViewStore store = Open(line.Address, _cluster, Impatient);
        ViewStoreException failure = await FailureAsync(() => store.TryReplaceAsync(0, Bytes("ours"), CancellationToken.None));
        Assert.Equal(StoreFailure.OutcomeUnknown, failure.Failure);
        Assert.Contains($"127.0.0.1:{line.Port}", failure.Message, StringComparison.Ordinal);
        using EtcdViewStore direct = Open(etcd.Address, _cluster);
        Assert.Equal("ours", Text(await direct.ReadAsync()));
    }

    [Fact]
    public async Task The_members_of_etcd_are_asked_in_turn()
    {
        await using FakeEtcd silent = new(request => request.KeepSilentAsync());
        await using EtcdServer absent = new();
        EtcdTimeouts timeouts = Patient with { Attempt = TimeSpan.FromSeconds(2) };
        using EtcdViewStore store = Open($"etcd://127.0.0.1:{absent.ClientPort},127.0.0.1:{silent.Port},127.0.0.1:{etcd.ClientPort}", _cluster,
            timeouts);
        long revision = await store.WriteAsync(0, "one");
        Assert.Equal(revision, (await store.ReadAsync())!.Revision);
    }

    [Fact]
    public async Task Members_of_two_clusters_of_etcd_are_refused()
    {
        await using EtcdServer another = new();
        await another.StartAsync();
        bool isCut = false;
        await using FakeEtcd line = new(request => isCut ? Task.CompletedTask : request.PassOnAsync(etcd));
        using EtcdViewStore store = Open($"{line.Address},127.0.0.1:{another.ClientPort}", _cluster);
        _ = await store.ReadAsync();
        isCut = true;
        ViewStoreException failure = await FailureAsync(() => store.ReadAsync());
        Assert.Equal(StoreFailure.Refused, failure.Failure);
        Assert.Contains("another cluster of etcd", failure.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Who_cancels_a_call_is_not_kept_waiting()
    {
        TaskCompletionSource asked = new(TaskCreationOptions.RunContinuationsAsynchronously);
        await using FakeEtcd silent = new(request =>
        {
            asked.SetResult();
            return request.KeepSilentAsync();
        });
        using EtcdViewStore store = Open(silent.Address, _cluster);
        using CancellationTokenSource cancel = new();
        Task reading = store.ReadAsync(cancel.Token);
        await asked.Task.WaitAsync(Patience, TestContext.Current.CancellationToken);
        await cancel.CancelAsync();
        _ = await Assert.ThrowsAnyAsync<OperationCanceledException>(() => reading.WaitAsync(Patience, TestContext.Current.CancellationToken));
    }

    /// <summary>A line to etcd that does something else with the first swap, and hangs up.</summary>
    private FakeEtcd LosesOnce(Func<FakeEtcd.Request, Task> instead)
    {
        int swaps = 0;
        return new FakeEtcd(request => request.Path == TxnPath && Interlocked.Increment(ref swaps) == 1
            ? instead(request)
            : request.PassOnAsync(etcd));
    }
}
