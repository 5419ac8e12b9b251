// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent.Membership;
using VSmp.Agent.Membership.Etcd;
using Xunit;
using static VSmp.Agent.Tests.Membership.Etcd.EtcdStores;

namespace VSmp.Agent.Tests.Membership.Etcd;

/// <summary>Watching the record.</summary>
public sealed class EtcdWatchTests(EtcdServer etcd) : IClassFixture<EtcdServer>
{
    private readonly string _cluster = NewCluster();

    [Fact]
    public async Task Every_change_is_told_in_order_from_any_revision_on()
    {
        using EtcdViewStore store = Open(etcd.Address, _cluster), other = Open(etcd.Address, _cluster);
        await using Watching all = new(store, 0);
        long revision = await other.WriteAsync(0, "0");
        Assert.Equal("0", await all.NextAsync());
        long middle = 0;
        for (int i = 1; i <= 20; i++)
        {
            revision = await other.WriteAsync(revision, $"{i}");
            if (i == 10) middle = revision;
        }
        await using Watching later = new(store, middle);
        for (int i = 1; i <= 20; i++)
        {
            Assert.Equal($"{i}", await all.NextAsync());
            if (i <= 10) continue;
            StoredRecord record = (await later.NextRecordAsync())!;
            Assert.Equal($"{i}", Text(record));
            if (i == 20) Assert.Equal(revision, record.Revision);
        }
        Assert.False(all.HasMore);
    }

    [Fact]
    public async Task A_deleted_record_is_told_once_and_one_that_comes_back_too()
    {
        using EtcdViewStore store = Open(etcd.Address, _cluster);
        long revision = await store.WriteAsync(0, "one");
        await using Watching watch = new(store, revision);
        await etcd.DeleteAsync($"/vsmp/{_cluster}/view");
        Assert.Null(await watch.NextRecordAsync());
        Assert.True(await store.WriteAsync(0, "two") > revision);
        Assert.Equal("two", await watch.NextAsync());
        Assert.False(watch.HasMore);
    }

    [Fact]
    public async Task Changes_that_etcd_has_forgotten_are_left_out_but_never_the_latest()
    {
        using EtcdViewStore store = Open(etcd.Address, _cluster);
        long first = await store.WriteAsync(0, "one");
        long third = await store.WriteAsync(await store.WriteAsync(first, "two"), "three");
        await etcd.CompactAsync(third);
        await using (Watching watch = new(store, first))
        {
            StoredRecord record = (await watch.NextRecordAsync())!;
            Assert.Equal("three", Text(record));
            Assert.Equal(third, record.Revision);
            third = await store.WriteAsync(third, "four");
            Assert.Equal("four", await watch.NextAsync());
        }
        await etcd.DeleteAsync($"/vsmp/{_cluster}/view");
        await etcd.PutAsync($"/vsmp/{_cluster}/other", "");
        await etcd.CompactAsync(third + 2);
        await using Watching gone = new(store, third);
        Assert.Null(await gone.NextRecordAsync());
    }

    [Fact]
    public async Task A_member_that_keeps_silent_about_changes_is_left_for_another()
    {
        using EtcdViewStore direct = Open(etcd.Address, _cluster);
        long revision = await direct.WriteAsync(0, "one");
        int watches = 0;
        // Answers reads, but of the watch only that it is there.
        await using FakeEtcd silent = new(async request =>
        {
            if (request.Path != "/v3/watch")
            {
                await request.PassOnAsync(etcd);
                return;
            }
            _ = Interlocked.Increment(ref watches);
            await request.SendAsync(System.Text.Encoding.ASCII.GetBytes("HTTP/1.1 200 OK\r\n\r\n"
                + $"{{\"result\":{{\"header\":{{\"cluster_id\":\"{await ClusterIdAsync()}\"}},\"created\":true}}}}\n"));
            await request.KeepSilentAsync();
        });
        List<string> log = [];
        using EtcdViewStore store = Open($"{silent.Address},127.0.0.1:{etcd.ClientPort}", _cluster, log: log.Add);
        await using Watching watch = new(store, revision);
        revision = await direct.WriteAsync(revision, "two");
        Assert.Equal("two", await watch.NextAsync());
        Assert.Equal(1, watches);
        Assert.Contains("does not tell of changes", Assert.Single(log, l => l.Contains("learnt late", StringComparison.Ordinal)),
            StringComparison.Ordinal);
        _ = await direct.WriteAsync(revision, "three");
        Assert.Equal("three", await watch.NextAsync());
    }

    [Fact]
    public async Task Connections_that_break_again_and_again_lose_nothing()
    {
        using EtcdViewStore direct = Open(etcd.Address, _cluster);
        // Every connection of a watch lives for one change.
        await using FakeEtcd line = new(async request =>
        {
            if (request.Path != "/v3/watch")
            {
                await request.PassOnAsync(etcd);
                return;
            }
            using HttpRequestMessage message = new(HttpMethod.Post, $"http://127.0.0.1:{etcd.ClientPort}/v3/watch");
            message.Content = new ByteArrayContent(request.Body);
            using HttpResponseMessage response = await request.Upstream.SendAsync(message, HttpCompletionOption.ResponseHeadersRead,
                request.Ending);
            using StreamReader lines = new(await response.Content.ReadAsStreamAsync(request.Ending));
            await request.SendAsync(System.Text.Encoding.ASCII.GetBytes("HTTP/1.1 200 OK\r\n\r\n"));
            for (int i = 0; i < 2; i++)
                await request.SendAsync(Bytes(await lines.ReadLineAsync(request.Ending) + "\n"));
        });
        using EtcdViewStore store = Open(line.Address, _cluster);
        await using Watching watch = new(store, 0);
        long revision = 0;
        for (int i = 0; i < 10; i++)
        {
            revision = await direct.WriteAsync(revision, $"{i}");
            StoredRecord told = (await watch.NextRecordAsync())!;
            Assert.Equal($"{i}", Text(told));
            Assert.Equal(revision, told.Revision);
        }
        Assert.False(watch.HasMore);
    }

    [Fact]
    public async Task What_the_caller_throws_ends_the_watch()
    {
        using EtcdViewStore store = Open(etcd.Address, _cluster);
        Task watch = store.WatchAsync(0, _ => throw new InvalidDataException("no view"), CancellationToken.None);
        _ = await store.WriteAsync(0, "one");
        _ = await Assert.ThrowsAsync<InvalidDataException>(() => watch.WaitAsync(Patience, TestContext.Current.CancellationToken));
    }

    private async Task<string> ClusterIdAsync() =>
        (string)(await etcd.PostAsync("kv/range", new { key = "AA==" }))["header"]!["cluster_id"]!;
}
