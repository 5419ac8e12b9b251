// SPDX-License-Identifier: Apache-2.0
namespace VSmp.Agent.Membership.Etcd;

/// <summary>
/// A key that is there as long as its lease is kept alive. Every third of the time to live the lease is renewed and the key looked at; if
/// the lease ran out, or the key is gone or bound to another lease, they are made anew: a living node must never look dead for long, or
/// a second cluster could be founded beside the first.
/// </summary>
internal sealed class EtcdPresence : IPresence
{
    private static readonly TimeSpan LongestFarewell = TimeSpan.FromSeconds(2), LongestPauseAfterFailure = TimeSpan.FromSeconds(1);

    private readonly EtcdClient _client;
    private readonly byte[] _key;
    private readonly byte[] _value;
    private readonly long _ttlSeconds;
    private readonly Action<string> _log;
    private readonly CancellationTokenSource _ending = new();
    private Task _keeping = Task.CompletedTask;
    private long _lease; // the keeping task's, and before and after it the owner's
    private long _grantedSeconds;
    private int _isDisposed;

    private EtcdPresence(EtcdClient client, string name, byte[] key, byte[] value, TimeSpan timeToLive, Action<string> log)
    {
        _client = client;
        Name = name;
        _key = key;
        _value = value;
        _ttlSeconds = (long)Math.Ceiling(timeToLive.TotalSeconds);
        _log = log;
    }

    /// <inheritdoc/>
    public string Name { get; }

    /// <inheritdoc/>
    public TimeSpan TimeToLive => TimeSpan.FromSeconds(Volatile.Read(ref _grantedSeconds));

    /// <summary>Announces, and keeps announcing.</summary>
    public static async Task<EtcdPresence> AnnounceAsync(EtcdClient client, string name, byte[] key, byte[] value, TimeSpan timeToLive,
        Action<string> log, CancellationToken cancellation)
    {
        EtcdPresence presence = new(client, name, key, value, timeToLive, log);
        try
        {
            await presence.AnnounceAnewAsync(cancellation).ConfigureAwait(false);
        }
        catch
        {
            presence._ending.Dispose();
            throw;
        }
        presence._keeping = Task.Run(presence.KeepAsync, CancellationToken.None);
        return presence;
    }

    /// <summary>Takes the announcement back: the key goes with its lease. If etcd is away, that takes its course.</summary>
    public async ValueTask DisposeAsync()
    {
        if (Interlocked.Exchange(ref _isDisposed, 1) != 0) return;
        await _ending.CancelAsync().ConfigureAwait(false);
        await _keeping.ConfigureAwait(false);
        _ending.Dispose();
        using CancellationTokenSource farewell = new(LongestFarewell);
        try
        {
            _ = await _client.CallAsync(EtcdCalls.LeaseRevoke, new LeaseRequest { Id = _lease }, farewell.Token).ConfigureAwait(false);
        }
        catch (Exception e) when (e is ViewStoreException or OperationCanceledException)
        {
            // It runs out by itself.
        }
    }

    private async Task KeepAsync()
    {
        CancellationToken ending = _ending.Token;
        bool isAway = false;
        try
        {
            while (true)
            {
                TimeSpan pause = TimeToLive / 3;
                if (isAway && pause > LongestPauseAfterFailure) pause = LongestPauseAfterFailure;
                await Task.Delay(pause, ending).ConfigureAwait(false);
                try
                {
                    await RenewAsync(ending).ConfigureAwait(false);
                    if (isAway) _log($"membership: {Name} is announced in etcd again");
                    isAway = false;
                }
                catch (ViewStoreException e)
                {
                    if (!isAway) _log($"membership: cannot renew {Name}'s presence in etcd; without it for {TimeToLive.TotalSeconds} s, others "
                        + $"take this node for dead: {e.Message}");
                    isAway = true;
                }
            }
        }
        catch (OperationCanceledException) when (ending.IsCancellationRequested)
        {
            // Disposed of.
        }
    }

    private async Task RenewAsync(CancellationToken cancellation)
    {
        LeaseKeepAlive kept = (await _client.CallAsync(EtcdCalls.LeaseKeepAlive, new LeaseRequest { Id = _lease }, cancellation)
            .ConfigureAwait(false)).Reply.Result!;
        if (kept.TtlSeconds <= 0)
        {
            await AnnounceAnewAsync(cancellation).ConfigureAwait(false);
            return;
        }
        // Any member may say whether the key is there: if it is wrong, the key is written once too often.
        RangeRequest look = new() { Key = _key, Serializable = true, KeysOnly = true };
        RangeReply reply = (await _client.CallAsync(EtcdCalls.Range, look, cancellation).ConfigureAwait(false)).Reply;
        if (reply.Kvs is not [{ } item] || item.Lease != _lease) await AnnounceAnewAsync(cancellation).ConfigureAwait(false);
    }

    private async Task AnnounceAnewAsync(CancellationToken cancellation)
    {
        LeaseGrantReply lease = (await _client.CallAsync(EtcdCalls.LeaseGrant, new LeaseGrantRequest { TtlSeconds = _ttlSeconds },
            cancellation).ConfigureAwait(false)).Reply;
        if (lease.Id == 0 || lease.TtlSeconds is <= 0 or > int.MaxValue)
            throw new EtcdException(StoreFailure.NotAStore, $"{_client}: something else than etcd 3.4 or newer answers there: it grants no lease");
        _lease = lease.Id;
        Volatile.Write(ref _grantedSeconds, lease.TtlSeconds);
        PutRequest put = new() { Key = _key, Value = _value, Lease = _lease };
        _ = await _client.CallAsync(EtcdCalls.Put, put, cancellation).ConfigureAwait(false);
    }
}
