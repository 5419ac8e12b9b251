// SPDX-License-Identifier: Apache-2.0
using System.Diagnostics;
using System.Text;
using System.Threading.Channels;
using VSmp.Agent.Membership;
using VSmp.Agent.Membership.Etcd;
using Xunit;

namespace VSmp.Agent.Tests.Membership.Etcd;

/// <summary>What the tests of etcd have in common.</summary>
internal static class EtcdStores
{
    /// <summary>No test waits longer for anything.</summary>
    public static readonly TimeSpan Patience = TimeSpan.FromSeconds(60);

    /// <summary>Of a store that is expected to get good answers, on however slow a host.</summary>
    public static readonly EtcdTimeouts Patient =
        new(TimeSpan.FromSeconds(5), TimeSpan.FromSeconds(10), TimeSpan.FromSeconds(30), TimeSpan.FromMilliseconds(200));

    /// <summary>Of a store that is expected to get none.</summary>
    public static readonly EtcdTimeouts Impatient =
        new(TimeSpan.FromSeconds(1), TimeSpan.FromSeconds(1), TimeSpan.FromSeconds(2), TimeSpan.FromMilliseconds(200));

    private static int _clusters;

    public static string NewCluster() => $"c{Interlocked.Increment(ref _clusters)}";

    public static EtcdViewStore Open(string address, string cluster, EtcdTimeouts? timeouts = null, Action<string>? log = null) =>
        new(EtcdAddress.Parse(address), cluster, log ?? (_ => { }), timeouts ?? Patient);

    public static byte[] Bytes(string text) => Encoding.UTF8.GetBytes(text);

    public static string Text(StoredRecord? record) => record is null ? "(none)" : Encoding.UTF8.GetString(record.Value.Span);

    /// <summary>Swaps, and wants to win.</summary>
    public static async Task<long> WriteAsync(this IViewStore store, long expectedRevision, string value)
    {
        SwapResult result = await store.TryReplaceAsync(expectedRevision, Bytes(value), CancellationToken.None);
        Assert.True(result.IsDone, $"instead of revision {expectedRevision} there is {Text(result.Present)} of revision {result.Present?.Revision}");
        return result.Revision;
    }

    public static Task<StoredRecord?> ReadAsync(this IViewStore store) => store.ReadAsync(CancellationToken.None);

    public static Task<IPresence> AnnounceAsync(this IViewStore store, string name, int seconds) =>
        store.AnnounceAsync(name, Bytes("x"), TimeSpan.FromSeconds(seconds), CancellationToken.None);

    public static Task<ViewStoreException> FailureAsync(Func<Task> call) =>
        Assert.ThrowsAnyAsync<ViewStoreException>(() => call().WaitAsync(Patience));

    /// <summary>Waits until exactly these nodes are present, in the order of their names.</summary>
    public static async Task UntilPresentAsync(this IViewStore store, params string[] names)
    {
        long started = Stopwatch.GetTimestamp();
        while (true)
        {
            IReadOnlyList<string> present = await store.PresentAsync(CancellationToken.None);
            if (present.SequenceEqual(names)) return;
            Assert.True(Stopwatch.GetElapsedTime(started) < Patience,
                $"present are still [{string.Join(' ', present)}], not [{string.Join(' ', names)}]");
            await Task.Delay(20);
        }
    }
}

/// <summary>A watch that a test reads from.</summary>
internal sealed class Watching : IAsyncDisposable
{
    private readonly Channel<StoredRecord?> _told = Channel.CreateUnbounded<StoredRecord?>();
    private readonly CancellationTokenSource _ending = new();

    public Watching(IViewStore store, long afterRevision) =>
        Ended = store.WatchAsync(afterRevision, record => _told.Writer.TryWrite(record), _ending.Token);

    /// <summary>Ends as the watch does.</summary>
    public Task Ended { get; }

    /// <summary>What it told next, as text.</summary>
    public async Task<string> NextAsync() => EtcdStores.Text(await NextRecordAsync());

    public async Task<StoredRecord?> NextRecordAsync()
    {
        Task<StoredRecord?> next = _told.Reader.ReadAsync().AsTask();
        if (await Task.WhenAny(next, Ended).WaitAsync(EtcdStores.Patience) != next) await Ended;
        return await next;
    }

    /// <summary>Whether it has told something that was not looked at.</summary>
    public bool HasMore => _told.Reader.TryPeek(out _);

    public async ValueTask DisposeAsync()
    {
        await _ending.CancelAsync();
        await Ended.WaitAsync(EtcdStores.Patience).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        Assert.True(Ended.IsCompleted, "a watch does not end when it is cancelled");
        _ending.Dispose();
    }
}
