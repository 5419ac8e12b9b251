// SPDX-License-Identifier: Apache-2.0
using System.Security.Cryptography;
using System.Text;
using VSmp.Coherence.Membership;

namespace VSmp.Agent.Membership.Etcd;

/// <summary>
/// The views of one cluster in etcd (docs/etcd.md): <c>/vsmp/CLUSTER/view</c> is the record, and <c>/vsmp/CLUSTER/present/NAME</c> is
/// there as long as the node's lease is alive. Every swap also writes a random mark of its own to <c>/vsmp/CLUSTER/view-writer</c>, in the
/// same transaction: by that a swap whose answer was lost finds out whether it has happened, even if others have followed.
/// </summary>
internal sealed class EtcdViewStore : IViewStore
{
    /// <summary>Most bytes of a record; etcd's own limit is 1.5 MiB for a whole request.</summary>
    public const int MaximumRecordBytes = 1 << 20;

    private const int MarkBytes = 16;

    private readonly EtcdClient _client;
    private readonly Action<string> _log;
    private readonly byte[] _viewKey, _writerKey;
    private readonly string _presentPrefix;

    /// <param name="address">Where etcd is.</param>
    /// <param name="cluster">The cluster's name.</param>
    /// <param name="log">Is told when etcd is away and when it is back; from any thread.</param>
    /// <param name="timeouts">How long etcd is waited for; null: the default.</param>
    /// <exception cref="ViewStoreException">A file that the address names cannot be used.</exception>
    public EtcdViewStore(EtcdAddress address, string cluster, Action<string> log, EtcdTimeouts? timeouts = null)
    {
        if (!Member.IsName(cluster)) throw new ArgumentException($"'{cluster}' cannot be a cluster's name", nameof(cluster));
        string prefix = $"/vsmp/{cluster}/";
        _viewKey = Encoding.ASCII.GetBytes(prefix + "view");
        _writerKey = Encoding.ASCII.GetBytes(prefix + "view-writer");
        _presentPrefix = prefix + "present/";
        _log = log;
        _client = new EtcdClient(address, timeouts ?? EtcdTimeouts.Default);
    }

    /// <inheritdoc/>
    public async Task<StoredRecord?> ReadAsync(CancellationToken cancellation) =>
        Record((await RangeAsync(_viewKey, 0, cancellation).ConfigureAwait(false)).Record);

    /// <inheritdoc/>
    public async Task<SwapResult> TryReplaceAsync(long expectedRevision, ReadOnlyMemory<byte> value, CancellationToken cancellation)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(expectedRevision);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(value.Length, MaximumRecordBytes);
        byte[] mark = RandomNumberGenerator.GetBytes(MarkBytes);
        TxnRequest swap = new()
        {
            Compare = [new EtcdCompare { Key = _viewKey, ModRevision = expectedRevision }],
            Success =
            [
                new EtcdOperation { RequestPut = new PutRequest { Key = _viewKey, Value = value.ToArray() } },
                new EtcdOperation { RequestPut = new PutRequest { Key = _writerKey, Value = mark } },
            ],
            Failure =
            [
                new EtcdOperation { RequestRange = new RangeRequest { Key = _viewKey } },
                new EtcdOperation { RequestRange = new RangeRequest { Key = _writerKey } },
            ],
        };
        try
        {
            // Sent again, it does no harm: it succeeds once at most, since it changes what it compares.
            EtcdAnswer<TxnReply> answer = await _client.CallMajorityAsync(EtcdCalls.Txn, swap, cancellation).ConfigureAwait(false);
            TxnReply reply = answer.Reply;
            if (reply.Succeeded) return SwapResult.Done(reply.Header!.Revision);
            if (reply.Responses is not [{ ResponseRange: { } viewReply }, { ResponseRange: { } writerReply }])
                throw NotEtcd("answers a transaction with something else");
            EtcdKeyValue? view = Single(viewReply, _viewKey), writer = Single(writerReply, _writerKey);
            if (IsOurs(writer)) return SwapResult.Done(writer!.ModRevision);
            if (answer.MayHaveRunBefore && await FindAsync(writer).ConfigureAwait(false) is long revision) return SwapResult.Done(revision);
            return SwapResult.Lost(Record(view));
        }
        catch (EtcdException e) when (e.MayHaveRun && e.Failure != StoreFailure.WentBack)
        {
            throw OutcomeUnknown(e.Message);
        }

        bool IsOurs(EtcdKeyValue? writer) => writer is not null && writer.Value.AsSpan().SequenceEqual(mark);

        // An earlier attempt may have happened, and others after it: looks at who wrote, one after the other back to the expected record.
        async Task<long?> FindAsync(EtcdKeyValue? writer)
        {
            for (bool isFirst = true; ; isFirst = false)
            {
                if (writer is null)
                {
                    // Before the first of all there was none, as expected. Else somebody has deleted keys, and what they told.
                    return !isFirst && expectedRevision == 0 ? null : throw OutcomeUnknown("the record was deleted meanwhile");
                }
                if (IsOurs(writer)) return writer.ModRevision;
                if (writer.ModRevision <= expectedRevision) return null;
                try
                {
                    writer = (await RangeAsync(_writerKey, writer.ModRevision - 1, cancellation).ConfigureAwait(false)).Record;
                }
                catch (EtcdException e)
                {
                    throw OutcomeUnknown(e.Message);
                }
            }
        }

        ViewStoreException OutcomeUnknown(string why) => new(StoreFailure.OutcomeUnknown,
            $"whether the record of revision {expectedRevision} in {_client} was replaced is not known: {why}");
    }

    /// <inheritdoc/>
    public async Task<bool> TryRemoveAsync(long expectedRevision, CancellationToken cancellation)
    {
        ArgumentOutOfRangeException.ThrowIfNegativeOrZero(expectedRevision);
        TxnRequest removal = new()
        {
            Compare = [new EtcdCompare { Key = _viewKey, ModRevision = expectedRevision }],
            Success =
            [
                new EtcdOperation { RequestDeleteRange = new DeleteRequest { Key = _viewKey } },
                new EtcdOperation { RequestDeleteRange = new DeleteRequest { Key = _writerKey } },
            ],
            Failure = [],
        };
        return (await _client.CallMajorityAsync(EtcdCalls.Txn, removal, cancellation).ConfigureAwait(false)).Reply.Succeeded;
    }

    /// <inheritdoc/>
    public Task WatchAsync(long afterRevision, Action<StoredRecord?> changed, CancellationToken cancellation)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(afterRevision);
        return new RecordWatcher(this, _client, _viewKey, afterRevision, changed, _log).RunAsync(cancellation);
    }

    /// <inheritdoc/>
    public async Task<IPresence> AnnounceAsync(string name, ReadOnlyMemory<byte> value, TimeSpan timeToLive, CancellationToken cancellation)
    {
        if (!Member.IsName(name)) throw new ArgumentException($"'{name}' cannot be a node's name", nameof(name));
        ArgumentOutOfRangeException.ThrowIfGreaterThan(value.Length, MaximumRecordBytes);
        ArgumentOutOfRangeException.ThrowIfLessThan(timeToLive, TimeSpan.FromSeconds(1));
        byte[] key = Encoding.ASCII.GetBytes(_presentPrefix + name);
        return await EtcdPresence.AnnounceAsync(_client, name, key, value.ToArray(), timeToLive, _log, cancellation).ConfigureAwait(false);
    }

    /// <inheritdoc/>
    public string? Problem => _client.Problem;

    /// <inheritdoc/>
    public Task<IReadOnlyList<string>> PresentAsync(CancellationToken cancellation) => ListPresentAsync(null, cancellation);

    /// <inheritdoc/>
    public Task<IReadOnlyList<string>> PresentAsync(ReadOnlyMemory<byte> value, CancellationToken cancellation) =>
        ListPresentAsync(value, cancellation);

    private async Task<IReadOnlyList<string>> ListPresentAsync(ReadOnlyMemory<byte>? value, CancellationToken cancellation)
    {
        RangeRequest request = new()
        {
            Key = Encoding.ASCII.GetBytes(_presentPrefix),
            RangeEnd = Encoding.ASCII.GetBytes(_presentPrefix[..^1] + (char)('/' + 1)),
            KeysOnly = value is null,
        };
        RangeReply reply = (await _client.CallMajorityAsync(EtcdCalls.Range, request, cancellation).ConfigureAwait(false)).Reply;
        List<string> names = [];
        foreach (EtcdKeyValue? item in reply.Kvs)
        {
            string key = Encoding.ASCII.GetString(item?.Key ?? []);
            if (!key.StartsWith(_presentPrefix, StringComparison.Ordinal)) throw NotEtcd("answers with keys that were not asked for");
            if (value is null || item!.Value.AsSpan().SequenceEqual(value.Value.Span)) names.Add(key[_presentPrefix.Length..]);
        }
        return names;
    }

    /// <inheritdoc/>
    public void Dispose() => _client.Dispose();

    /// <summary>The key as the majority has it (of a revision, or of now if that is 0), and at which revision that is so.</summary>
    internal async Task<(EtcdKeyValue? Record, long Revision)> RangeAsync(byte[] key, long revision, CancellationToken cancellation)
    {
        RangeRequest request = new() { Key = key, Revision = revision };
        RangeReply reply = (await _client.CallMajorityAsync(EtcdCalls.Range, request, cancellation).ConfigureAwait(false)).Reply;
        return (Single(reply, key), reply.Header!.Revision);
    }

    /// <summary>What callers get of a key and its value.</summary>
    internal static StoredRecord? Record(EtcdKeyValue? item) => item is null ? null : new StoredRecord(item.Value, item.ModRevision);

    private EtcdKeyValue? Single(RangeReply reply, byte[] key) => reply.Kvs switch
    {
        [] => null,
        // The first change of all has revision 2.
        [{ ModRevision: > 1 } item] when item.Key.AsSpan().SequenceEqual(key) => item,
        _ => throw NotEtcd("answers with keys that were not asked for"),
    };

    private EtcdException NotEtcd(string what) => new(StoreFailure.NotAStore,
        $"{_client}: something else than etcd 3.4 or newer answers there: it {what}", mayHaveRun: true);
}
