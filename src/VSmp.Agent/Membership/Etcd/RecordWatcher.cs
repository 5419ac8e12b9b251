// SPDX-License-Identifier: Apache-2.0
namespace VSmp.Agent.Membership.Etcd;

/// <summary>
/// One watch of a record, over as many watches of etcd as it takes. A member of etcd that has lost the others, or a connection that died
/// without a word, keeps silent like a member that has nothing to tell; so the record is also read now and then, and a watch that does not
/// tell what was read is opened anew.
/// </summary>
internal sealed class RecordWatcher
{
    private const int FirstPauseMilliseconds = 100, LongestPauseMilliseconds = 2000;
    private const int GraceMilliseconds = 1000;

    private readonly EtcdViewStore _store;
    private readonly EtcdClient _client;
    private readonly byte[] _key;
    private readonly Action<StoredRecord?> _changed;
    private readonly Action<string> _log;
    private long _position; // every change up to that revision has been told, or need not be
    private bool _isAway;
    private int _pauseMilliseconds = FirstPauseMilliseconds;
    private bool _isGone; // what was told last is that there is no record

    public RecordWatcher(EtcdViewStore store, EtcdClient client, byte[] key, long afterRevision, Action<StoredRecord?> changed,
        Action<string> log)
    {
        _store = store;
        _client = client;
        _key = key;
        _changed = changed;
        _log = log;
        _position = afterRevision;
        _isGone = afterRevision == 0;
    }

    /// <summary>Watches until it is cancelled; see <see cref="IViewStore.WatchAsync"/>.</summary>
    public async Task RunAsync(CancellationToken cancellation)
    {
        while (true)
        {
            try
            {
                using EtcdWatch watch = await _client.WatchAsync(_key, _position + 1, cancellation).ConfigureAwait(false);
                await FollowAsync(watch, cancellation).ConfigureAwait(false);
            }
            catch (EtcdException e) when (e.Failure is StoreFailure.Unreachable or StoreFailure.NotAStore)
            {
                if (!_isAway) _log($"membership: changes of the view may be learnt late: {e.Message}");
                _isAway = true;
            }
            await Task.Delay(_pauseMilliseconds, cancellation).ConfigureAwait(false);
            _pauseMilliseconds = Math.Min(_pauseMilliseconds * 2, LongestPauseMilliseconds);
        }
    }

    /// <summary>etcd has told something that makes sense: that it can be connected to is not enough.</summary>
    private void OnGoodAnswer()
    {
        if (_isAway) _log("membership: etcd is watched again");
        _isAway = false;
        _pauseMilliseconds = FirstPauseMilliseconds;
    }

    /// <summary>Tells what a watch of etcd tells. Returns when another is to be opened at once.</summary>
    private async Task FollowAsync(EtcdWatch watch, CancellationToken cancellation)
    {
        using CancellationTokenSource ending = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        Task<WatchReply> next = watch.ReadAsync(ending.Token);
        Task<(EtcdKeyValue? Record, long Revision, long Least)> check = CheckAsync(_client.Timeouts.Check, ending.Token);
        try
        {
            long silentAt = -1;
            while (true)
            {
                if (await Task.WhenAny(next, check).ConfigureAwait(false) == next)
                {
                    if (!await TakeAsync(watch, await next.ConfigureAwait(false), cancellation).ConfigureAwait(false)) return;
                    OnGoodAnswer();
                    next = watch.ReadAsync(ending.Token);
                    continue;
                }
                (EtcdKeyValue? record, long revision, long least) = await check.ConfigureAwait(false);
                if (revision < least) throw _client.WentBack(revision, least);
                bool isBehind = record is null ? !_isGone : record.ModRevision > _position;
                if (isBehind && silentAt == _position)
                {
                    _client.Avoid(watch.Member);
                    throw EtcdTransport.Broken(watch.Member, "it does not tell of changes that were made");
                }
                if (!isBehind) OnGoodAnswer();
                silentAt = isBehind ? _position : -1;
                check = CheckAsync(isBehind ? TimeSpan.FromMilliseconds(GraceMilliseconds) : _client.Timeouts.Check, ending.Token);
            }
        }
        finally
        {
            // Both end before what they use does.
            await ending.CancelAsync().ConfigureAwait(false);
            await Task.WhenAll(next, check).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        }
    }

    /// <returns>The record; the revision of etcd; and the one that was known when it was asked: it may tell of later ones before it answers.</returns>
    private async Task<(EtcdKeyValue? Record, long Revision, long Least)> CheckAsync(TimeSpan after, CancellationToken cancellation)
    {
        await Task.Delay(after, cancellation).ConfigureAwait(false);
        long least = Volatile.Read(ref _position);
        (EtcdKeyValue? record, long revision) = await _store.RangeAsync(_key, 0, cancellation).ConfigureAwait(false);
        return (record, revision, least);
    }

    private async ValueTask<bool> TakeAsync(EtcdWatch watch, WatchReply reply, CancellationToken cancellation)
    {
        if (reply.CompactRevision > 0)
        {
            await CatchUpAsync(cancellation).ConfigureAwait(false);
            return false;
        }
        if (reply.Canceled) throw EtcdTransport.Broken(watch.Member, $"it ended the watch ({reply.CancelReason})");
        foreach (EtcdEvent? change in reply.Events)
        {
            EtcdKeyValue item = change!.Kv!;
            if (item.ModRevision <= _position) throw EtcdTransport.NotEtcd(watch.Member, "tells of changes in disorder");
            Tell(change.Type == "DELETE" ? null : item, item.ModRevision);
        }
        return true;
    }

    /// <summary>etcd has forgotten the changes that come next: goes on with the record as it is now.</summary>
    private async Task CatchUpAsync(CancellationToken cancellation)
    {
        (EtcdKeyValue? record, long revision) = await _store.RangeAsync(_key, 0, cancellation).ConfigureAwait(false);
        if (revision < _position) throw _client.WentBack(revision, _position);
        if (record is null ? !_isGone : record.ModRevision > _position) Tell(record, revision);
        else _position = revision;
    }

    private void Tell(EtcdKeyValue? item, long revision)
    {
        _position = revision;
        _isGone = item is null;
        _changed(EtcdViewStore.Record(item));
    }
}
