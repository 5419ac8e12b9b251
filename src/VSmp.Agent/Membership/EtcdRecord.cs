// SPDX-License-Identifier: Apache-2.0
using System.Text;
using VSmp.Coherence;
using VSmp.Coherence.Membership;

namespace VSmp.Agent.Membership;

/// <summary>
/// The record of a cluster that decides by majority: in a store of its own, which a member asks beside the reactor and whose answers come back to it, one
/// read and one swap at a time. It watches the record, says that this node is there, and says once when the store cannot be reached, and when it can.
/// Owned by the reactor, but for what returns a task.
/// </summary>
/// <param name="store">Where the record is; disposed of with this.</param>
/// <param name="reactor">Where answers go.</param>
/// <param name="reader">What is told.</param>
/// <param name="log">For people.</param>
internal sealed class EtcdRecord(IViewStore store, Reactor reactor, IRecordReader reader, Action<string> log) : IViewRecord, IDisposable
{
    /// <summary>
    /// How long a node that was killed seems to be there to those who find a record of which no member answers: longer than a pause of etcd itself, such as
    /// the choice of a new leader.
    /// </summary>
    public static readonly TimeSpan PresenceTimeToLive = TimeSpan.FromSeconds(15);

    /// <summary>Nobody has to be told of less: a member of etcd that is busy, or a new leader.</summary>
    private const long AwayTicks = 1000;

    private static readonly TimeSpan FirstPause = TimeSpan.FromMilliseconds(500), LongestPause = TimeSpan.FromSeconds(30), Farewell = TimeSpan.FromSeconds(2);

    private readonly CancellationTokenSource _closing = new();
    private Task _watching = Task.CompletedTask, _announcing = Task.CompletedTask;
    private IPresence? _presence; // the announcing task's, and before and after it the owner's
    private bool _isReading;
    private bool _isProposing;
    private string? _complaint;
    private long _problemSince; // 0: there is none
    private long _awaySince; // 0: it is not, or that has not been said
    private int _isClosed;

    /// <summary>The number of the view that this node has proposed last; 0: none.</summary>
    public ViewNumber Proposed { get; private set; }

    /// <summary>Why nothing can be agreed on at the moment, as far as is known; null: nothing is in the way.</summary>
    public string? Problem => store.Problem ?? _complaint;

    /// <summary>What a node says of itself while it is a member in that life of the cluster.</summary>
    public static byte[] PresenceIn(Epoch epoch) => Encoding.ASCII.GetBytes($"epoch {epoch.Value:x8}");

    /// <summary>Watches the record from the view on with which this node becomes a member.</summary>
    public void Watch(long revision) => _watching = Task.Run(() => WatchAsync(revision));

    /// <summary>Says that this node is there, until this is closed, as soon as the store can be reached.</summary>
    /// <param name="name">The node's name.</param>
    /// <param name="epoch">The life of the cluster that it is a member in.</param>
    /// <param name="timeToLive">How long it seems to be there when it is not.</param>
    public void Announce(string name, Epoch epoch, TimeSpan timeToLive) => _announcing = Task.Run(() => AnnounceAsync(name, epoch, timeToLive));

    /// <summary>The same, done already.</summary>
    public void Announced(IPresence presence) => _presence = presence;

    /// <inheritdoc/>
    public void Read()
    {
        if (_isReading) return;
        _isReading = true;
        _ = Task.Run(ReadAsync);
    }

    /// <inheritdoc/>
    public void Propose(long revision, MembershipView view)
    {
        if (_isProposing) return; // the machine proposes again
        _isProposing = true;
        Proposed = view.Number;
        _ = Task.Run(() => ProposeAsync(revision, view));
    }

    /// <summary>Time has passed: says when the store has gone away or has come back.</summary>
    /// <param name="nowTicks">In milliseconds.</param>
    public void OnTick(long nowTicks)
    {
        string? problem = store.Problem;
        if (problem is null)
        {
            _problemSince = 0;
            if (_awaySince == 0) return;
            log($"membership: etcd is back after {(nowTicks - _awaySince) / 1000.0:0.0} s");
            _awaySince = 0;
            return;
        }
        if (_problemSince == 0) _problemSince = nowTicks;
        if (_awaySince != 0 || nowTicks - _problemSince < AwayTicks) return;
        _awaySince = _problemSince;
        log($"membership: etcd cannot be reached; members go on, but nobody can join, leave or be excluded until it is back: {problem}");
    }

    /// <summary>Says once that the store cannot be used, and why.</summary>
    public void Complain(string what)
    {
        if (_complaint == what) return;
        _complaint = what;
        log($"membership: members go on, but nobody can join, leave or be excluded: {what}");
    }

    /// <summary>Takes this node's announcement back and lets go of the store. From any thread, more than once.</summary>
    /// <param name="lastRevision">The record's revision, if this node was the last member and the record is to go; else 0.</param>
    public async Task CloseAsync(long lastRevision)
    {
        if (Interlocked.Exchange(ref _isClosed, 1) != 0) return;
        if (lastRevision != 0) await RemoveAsync(lastRevision).ConfigureAwait(false);
        await _closing.CancelAsync().ConfigureAwait(false);
        await Task.WhenAll(_watching, _announcing).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        if (_presence is not null) await _presence.DisposeAsync().ConfigureAwait(false);
        store.Dispose();
        _closing.Dispose();
    }

    /// <summary>Ends without a word to anybody, as a crash does; after <see cref="CloseAsync"/> it does nothing.</summary>
    public void Dispose()
    {
        if (Interlocked.Exchange(ref _isClosed, 1) != 0) return;
        _closing.Cancel();
        store.Dispose();
        _closing.Dispose();
    }

    private async Task RemoveAsync(long revision)
    {
        using CancellationTokenSource farewell = new(Farewell);
        try
        {
            _ = await store.TryRemoveAsync(revision, farewell.Token).ConfigureAwait(false);
        }
        catch (Exception e) when (e is ViewStoreException or OperationCanceledException)
        {
            log("membership: the last member leaves, but etcd cannot be reached: the record stays there, until the next founder replaces it");
        }
    }

    private async Task ReadAsync()
    {
        Action answer;
        try
        {
            StoredRecord? record = await store.ReadAsync(_closing.Token).ConfigureAwait(false);
            answer = () => Tell(record);
        }
        catch (ViewStoreException e)
        {
            answer = () => Complain(e);
        }
        catch (Exception e) when (e is OperationCanceledException or ObjectDisposedException)
        {
            return; // closed
        }
        reactor.Post(() =>
        {
            _isReading = false;
            answer();
        });
    }

    private async Task ProposeAsync(long revision, MembershipView view)
    {
        Action answer;
        try
        {
            SwapResult swap = await store.TryReplaceAsync(revision, ViewRecord.Write(view), _closing.Token).ConfigureAwait(false);
            answer = swap.IsDone ? () => Tell(swap.Revision, view) : () => Tell(swap.Present);
        }
        catch (ViewStoreException e)
        {
            answer = () =>
            {
                Complain(e);
                reader.OnStoreAway();
            };
        }
        catch (Exception e) when (e is OperationCanceledException or ObjectDisposedException)
        {
            return; // closed
        }
        reactor.Post(() =>
        {
            _isProposing = false;
            answer();
        });
    }

    /// <summary>That the store is away ends no watch; what does is tried again, ever more rarely.</summary>
    private async Task WatchAsync(long after)
    {
        TimeSpan pause = FirstPause;
        try
        {
            while (true)
            {
                try
                {
                    await store.WatchAsync(after, OnChanged, _closing.Token).ConfigureAwait(false);
                }
                catch (ViewStoreException e)
                {
                    reactor.Post(() => Complain(e));
                }
                await Task.Delay(pause, _closing.Token).ConfigureAwait(false);
                pause = pause * 2 < LongestPause ? pause * 2 : LongestPause;
            }
        }
        catch (Exception e) when (_closing.IsCancellationRequested && e is OperationCanceledException or ObjectDisposedException)
        {
            // Closed.
        }

        void OnChanged(StoredRecord? record)
        {
            pause = FirstPause;
            after = record?.Revision ?? after;
            reactor.Post(() => Tell(record));
        }
    }

    private async Task AnnounceAsync(string name, Epoch epoch, TimeSpan timeToLive)
    {
        TimeSpan pause = FirstPause;
        try
        {
            while (_presence is null)
            {
                try
                {
                    _presence = await store.AnnounceAsync(name, PresenceIn(epoch), timeToLive, _closing.Token).ConfigureAwait(false);
                }
                catch (ViewStoreException e)
                {
                    reactor.Post(() => Complain(e));
                    await Task.Delay(pause, _closing.Token).ConfigureAwait(false);
                    pause = pause * 2 < LongestPause ? pause * 2 : LongestPause;
                }
            }
        }
        catch (Exception e) when (_closing.IsCancellationRequested && e is OperationCanceledException or ObjectDisposedException)
        {
            // Closed.
        }
    }

    private void Tell(StoredRecord? record)
    {
        if (record is null) reader.OnRecordGone();
        else if (ViewRecord.Read(record.Value.Span) is { } view) Tell(record.Revision, view);
        else Complain("what is in the place of the record is none");
    }

    private void Tell(long revision, MembershipView view)
    {
        _complaint = null;
        reader.OnRecord(revision, view);
    }

    /// <summary>That the store is away is said elsewhere; that it refuses is said here, once.</summary>
    private void Complain(ViewStoreException e)
    {
        if (e.Failure is StoreFailure.Refused or StoreFailure.WentBack) Complain(e.Message);
    }

}

/// <summary>Who wants to know of the record. On the reactor.</summary>
internal interface IRecordReader
{
    /// <summary>The record as it is, or was a short while ago.</summary>
    void OnRecord(long revision, MembershipView view);

    /// <summary>There is none.</summary>
    void OnRecordGone();

    /// <summary>What became of a proposal is not known.</summary>
    void OnStoreAway();
}
