// SPDX-License-Identifier: Apache-2.0
using System.Text;
using VSmp.Agent.Membership;
using VSmp.Agent.Membership.Etcd;
using Xunit;
using static VSmp.Agent.Tests.Membership.Etcd.EtcdStores;

namespace VSmp.Agent.Tests.Membership.Etcd;

/// <summary>Servers that are not etcd, or want to harm.</summary>
public sealed class EtcdGarbageTests
{
    private const string Header = "\"header\":{\"cluster_id\":\"7\",\"revision\":\"5\"}";
    private const string View = "L3ZzbXAvYy92aWV3"; // /vsmp/c/view

    public static TheoryData<string, string> Answers => new()
    {
        { "nothing", "" },
        { "no HTTP", "SSH-2.0-OpenSSH_9.2p1\r\n" },
        { "a web page", Http("200 OK", "<html>hello</html>") },
        { "not found", Http("404 Not Found", "Not Found") },
        { "elsewhere", "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n" },
        { "an error that is none", Http("500 Internal Server Error", "[]") },
        { "an error of a wrong type", Http("400 Bad Request", "{\"message\":7,\"code\":\"x\"}") },
        { "an error within null", Http("400 Bad Request", "{\"error\":null}") },
        { "null", Http("200 OK", "null") },
        { "a list", Http("200 OK", "[]") },
        { "an empty object", Http("200 OK", "{}") },
        { "half an object", Http("200 OK", "{" + Header) },
        { "two objects", Http("200 OK", "{" + Header + "}{" + Header + "}") },
        { "a header of a wrong type", Http("200 OK", "{\"header\":[]}") },
        { "a header of nothing", Http("200 OK", "{\"header\":{}}") },
        { "a number out of range", Http("200 OK", "{\"header\":{\"cluster_id\":\"7\",\"revision\":\"99999999999999999999\"}}") },
        { "deep nesting", Http("200 OK", new string('[', 100_000)) },
        { "an endless name", Http("200 OK", "{\"" + new string('x', 1_000_000)) },
        { "no UTF-8", Http("200 OK", "{\"header\":\"\uFFFF\"") },
        { "less than it promised", "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{" + Header },
        { "chunks that are none", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n" },
        { "endless headers", "HTTP/1.1 200 OK\r\n" + string.Concat(Enumerable.Repeat("X-A: " + new string('a', 1000) + "\r\n", 1000)) },
    };

    /// <summary>Of calls about keys alone: with a good header, so that other calls take them for answers.</summary>
    public static TheoryData<string> Keys => new()
    {
        "\"kvs\":null",
        "\"kvs\":7",
        "\"kvs\":[null]",
        "\"kvs\":[{}]",
        "\"kvs\":[{\"key\":\"!!!\",\"mod_revision\":\"3\"}]",
        "\"kvs\":[{\"key\":\"" + View + "\"}]",
        "\"kvs\":[{\"key\":\"" + View + "\",\"mod_revision\":\"-3\"}]",
        "\"kvs\":[{\"key\":\"" + View + "\",\"mod_revision\":\"3\",\"value\":5}]",
        "\"kvs\":[{\"key\":\"AAAA\",\"mod_revision\":\"3\"}]",
        "\"kvs\":[{\"key\":\"" + View + "\",\"mod_revision\":\"3\"},{\"key\":\"" + View + "\",\"mod_revision\":\"4\"}]",
        "\"succeeded\":\"yes\",\"kvs\":7",
    };

    [Theory]
    [MemberData(nameof(Answers))]
    public async Task What_makes_no_sense_is_an_error_and_ends_every_call(string what, string answer)
    {
        await using FakeEtcd fake = new(request => request.SendAsync(Encoding.UTF8.GetBytes(answer)));
        using EtcdViewStore store = Open(fake.Address, "c", Impatient);
        await AllFailAsync(store, fake, what);
    }

    [Theory]
    [MemberData(nameof(Keys))]
    public async Task Keys_that_make_no_sense_are_an_error(string members)
    {
        await using FakeEtcd fake = new(request => request.SendAsync(FakeEtcd.Ok($"{{{Header},{members}}}")));
        using EtcdViewStore store = Open(fake.Address, "c", Impatient);
        Assert.Equal(StoreFailure.NotAStore, (await FailureAsync(() => store.ReadAsync())).Failure);
    }

    [Fact]
    public async Task Answers_to_other_questions_are_an_error()
    {
        await using FakeEtcd fake = new(request => request.SendAsync(FakeEtcd.Ok($"{{{Header}}}")));
        using EtcdViewStore store = Open(fake.Address, "c", Impatient);
        Assert.Equal(StoreFailure.OutcomeUnknown,
            (await FailureAsync(() => store.TryReplaceAsync(0, Bytes("x"), CancellationToken.None))).Failure);
        Assert.Equal(StoreFailure.NotAStore, (await FailureAsync(() => store.AnnounceAsync("alpha", 1))).Failure);
    }

    [Fact]
    public async Task Endless_bodies_are_an_error()
    {
        byte[] megabyte = Enumerable.Repeat((byte)' ', 1 << 20).ToArray();
        await using FakeEtcd fake = new(async request =>
        {
            await request.SendAsync(Encoding.ASCII.GetBytes("HTTP/1.1 200 OK\r\n\r\n"));
            while (true) await request.SendAsync(megabyte);
        });
        using EtcdViewStore store = Open(fake.Address, "c", Patient);
        await AllFailAsync(store, fake, "more than");
    }

    [Fact]
    public async Task Bodies_that_drip_are_an_error()
    {
        await using FakeEtcd fake = new(async request =>
        {
            await request.SendAsync(Encoding.ASCII.GetBytes("HTTP/1.1 200 OK\r\n\r\n"));
            while (true)
            {
                await request.SendAsync(" "u8.ToArray());
                await Task.Delay(50, request.Ending);
            }
        });
        using EtcdViewStore store = Open(fake.Address, "c", Impatient);
        await AllFailAsync(store, fake, "no answer in time");
    }

    [Fact]
    public async Task Who_says_nothing_at_all_is_an_error()
    {
        await using FakeEtcd fake = new(request => request.KeepSilentAsync());
        using EtcdViewStore store = Open(fake.Address, "c", Impatient);
        await AllFailAsync(store, fake, "no answer in time");
    }

    [Theory]
    [InlineData("garbage")]
    [InlineData("{}")]
    [InlineData("{\"result\":null}")]
    [InlineData("{\"error\":{\"grpc_code\":14,\"message\":\"no leader\"}}")]
    [InlineData("{\"result\":{" + Header + ",\"events\":null}}")]
    [InlineData("{\"result\":{" + Header + ",\"events\":[null]}}")]
    [InlineData("{\"result\":{" + Header + ",\"events\":[{}]}}")]
    [InlineData("{\"result\":{" + Header + ",\"events\":[{\"kv\":{\"key\":\"AAAA\",\"mod_revision\":\"9\"}}]}}")]
    [InlineData("{\"result\":{" + Header + ",\"events\":[{\"kv\":{\"key\":\"" + View + "\",\"mod_revision\":\"4\"}}]}}")]
    [InlineData("{\"result\":{" + Header + ",\"events\":[{\"type\":\"JOKE\",\"kv\":{\"key\":\"" + View + "\",\"mod_revision\":\"9\"}}]}}")]
    [InlineData("{\"result\":{" + Header + ",\"canceled\":true}}")]
    public async Task A_watch_that_makes_no_sense_tells_nothing_and_says_so_in_the_log(string element)
    {
        await using FakeEtcd fake = new(request => request.SendAsync(Encoding.UTF8.GetBytes(
            $"HTTP/1.1 200 OK\r\n\r\n{{\"result\":{{{Header},\"created\":true}}}}\n\n{element}\n")));
        await SilentWatchAsync(fake, afterRevision: 4);
    }

    [Fact]
    public async Task A_watch_without_end_of_line_tells_nothing_and_says_so_in_the_log()
    {
        byte[] megabyte = Enumerable.Repeat((byte)'x', 1 << 20).ToArray();
        await using FakeEtcd fake = new(async request =>
        {
            await request.SendAsync(Encoding.UTF8.GetBytes($"HTTP/1.1 200 OK\r\n\r\n{{\"result\":{{{Header},\"created\":true}}}}\n"));
            while (true) await request.SendAsync(megabyte);
        });
        await SilentWatchAsync(fake, afterRevision: 0);
    }

    private static async Task SilentWatchAsync(FakeEtcd fake, long afterRevision)
    {
        TaskCompletionSource<string> said = new(TaskCreationOptions.RunContinuationsAsynchronously);
        using EtcdViewStore store = Open(fake.Address, "c", Impatient, line => said.TrySetResult(line));
        await using Watching watch = new(store, afterRevision);
        Assert.Contains($"127.0.0.1:{fake.Port}", await said.Task.WaitAsync(Patience, TestContext.Current.CancellationToken), StringComparison.Ordinal);
        Assert.False(watch.HasMore);
        Assert.False(watch.Ended.IsCompleted);
    }

    private static async Task AllFailAsync(EtcdViewStore store, FakeEtcd fake, string what)
    {
        Task<ViewStoreException>[] calls =
        [
            FailureAsync(() => store.ReadAsync()),
            FailureAsync(() => store.TryReplaceAsync(0, Bytes("x"), CancellationToken.None)),
            FailureAsync(() => store.PresentAsync(CancellationToken.None)),
            FailureAsync(() => store.AnnounceAsync("alpha", 1)),
        ];
        ViewStoreException[] failures = await Task.WhenAll(calls);
        Assert.Equal(StoreFailure.OutcomeUnknown, failures[1].Failure);
        Assert.All(failures, f => Assert.True(f.Message.Contains($"127.0.0.1:{fake.Port}", StringComparison.Ordinal) && f.Message.Length < 1000,
            $"{what}: {f.Message}"));
        Assert.All(failures.Where((_, i) => i != 1), f => Assert.True(f.Failure is StoreFailure.NotAStore or StoreFailure.Unreachable, $"{what}: {f}"));
    }

    private static string Http(string status, string body) => Encoding.UTF8.GetString(FakeEtcd.Reply(status, body));
}
