// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent.Membership;
using VSmp.Agent.Membership.Etcd;
using Xunit;
using static VSmp.Agent.Tests.Membership.Etcd.EtcdStores;

namespace VSmp.Agent.Tests.Membership.Etcd;

/// <summary>etcd that is stopped, killed, started again, or emptied.</summary>
public sealed class EtcdRestartTests : IAsyncLifetime
{
    private readonly EtcdServer _etcd = new();
    private readonly string _cluster = NewCluster();

    public async ValueTask InitializeAsync() => await _etcd.StartAsync();

    public async ValueTask DisposeAsync() => await _etcd.DisposeAsync();

    [Fact]
    public async Task A_watch_survives_kills_and_restarts_and_a_compaction_meanwhile()
    {
        List<string> log = [];
        using EtcdViewStore watched = Open(_etcd.Address, _cluster, log: log.Add), store = Open(_etcd.Address, _cluster);
        await using Watching watch = new(watched, 0);
        long revision = await store.WriteAsync(0, "one");
        Assert.Equal("one", await watch.NextAsync());

        await _etcd.RestartAsync();
        revision = await store.WriteAsync(revision, "two");
        Assert.Equal("two", await watch.NextAsync());

        await _etcd.KillAsync();
        await _etcd.StartAsync();
        revision = await store.WriteAsync(await store.WriteAsync(revision, "three"), "four");
        await _etcd.CompactAsync(revision);
        string told = await watch.NextAsync(); // before the compaction, or after it
        if (told == "three") told = await watch.NextAsync();
        Assert.Equal("four", told);

        await _etcd.StopAsync();
        await _etcd.StartAsync();
        revision = await store.WriteAsync(revision, "five");
        StoredRecord last = (await watch.NextRecordAsync())!;
        Assert.Equal("five", Text(last));
        Assert.Equal(revision, last.Revision);
        Assert.False(watch.HasMore);
    }

    [Fact]
    public async Task Swaps_that_are_under_way_when_etcd_is_killed_are_reported_as_they_went()
    {
        using EtcdViewStore store = Open(_etcd.Address, _cluster), direct = Open(_etcd.Address, _cluster);
        await using Watching watch = new(direct, 0);
        long revision = await store.WriteAsync(0, "start");
        for (int round = 0; round < 3; round++)
        {
            Task killed = _etcd.RestartAsync();
            int swaps = 0;
            do revision = await store.WriteAsync(revision, $"{round}.{swaps++}");
            while (!killed.IsCompleted);
            await killed;
        }
        StoredRecord? last;
        do last = await watch.NextRecordAsync();
        while (last!.Revision < revision);
        Assert.Equal(revision, (await direct.ReadAsync())!.Revision);
        Assert.Equal(revision, last.Revision);
    }

    [Fact]
    public async Task A_call_goes_on_when_etcd_comes_back_in_time()
    {
        using EtcdViewStore store = Open(_etcd.Address, _cluster);
        long revision = await store.WriteAsync(0, "one");
        await _etcd.KillAsync();
        Task<StoredRecord?> reading = store.ReadAsync();
        await _etcd.StartAsync();
        Assert.Equal(revision, (await reading)!.Revision);
    }

    [Fact]
    public async Task With_etcd_away_calls_end_with_a_message_that_names_the_endpoint()
    {
        using EtcdViewStore store = Open(_etcd.Address, _cluster, Impatient);
        await _etcd.KillAsync();
        foreach (Func<Task> call in new Func<Task>[]
        {
            () => store.ReadAsync(),
            () => store.TryReplaceAsync(0, Bytes("x"), CancellationToken.None),
            () => store.PresentAsync(CancellationToken.None),
            () => store.AnnounceAsync("alpha", 1),
        })
        {
            ViewStoreException failure = await FailureAsync(call);
            Assert.Equal(StoreFailure.Unreachable, failure.Failure); // also of the swap: nothing was sent
            Assert.Contains($"http://127.0.0.1:{_etcd.ClientPort}: Connection refused", failure.Message, StringComparison.Ordinal);
        }
    }

    [Fact]
    public async Task An_etcd_that_was_emptied_is_not_believed()
    {
        using EtcdViewStore store = Open(_etcd.Address, _cluster);
        long revision = await store.WriteAsync(await store.WriteAsync(0, "one"), "two");
        await using Watching watch = new(store, revision);
        await _etcd.KillAsync();
        _etcd.Empty();
        await _etcd.StartAsync();
        Assert.Equal(StoreFailure.WentBack, (await FailureAsync(() => watch.Ended)).Failure);
        Assert.Equal(StoreFailure.WentBack, (await FailureAsync(() => store.ReadAsync())).Failure);
        Assert.Equal(StoreFailure.WentBack, (await FailureAsync(() => store.TryReplaceAsync(revision, Bytes("x"), CancellationToken.None))).Failure);
    }

    [Fact]
    public async Task A_node_is_present_again_after_etcd_was_killed()
    {
        using EtcdViewStore store = Open(_etcd.Address, _cluster);
        await using IPresence alpha = await store.AnnounceAsync("alpha", 2);
        await _etcd.KillAsync();
        await _etcd.StartAsync();
        await store.UntilPresentAsync("alpha");
        await _etcd.RevokeAllLeasesAsync();
        await store.UntilPresentAsync("alpha");
    }
}
