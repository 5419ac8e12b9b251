// SPDX-License-Identifier: Apache-2.0
namespace VSmp.Agent.Membership;

/// <summary>
/// Where the members of a cluster agree on views: one record, changed only by compare-and-swap, and the names of the nodes that are
/// alive. For any thread; nothing here blocks. A call ends within a bounded time, with a <see cref="ViewStoreException"/> if the
/// store gave no good answer until then.
/// </summary>
internal interface IViewStore : IDisposable
{
    /// <summary>The record as it is now, confirmed by a majority of the store; null if there is none.</summary>
    Task<StoredRecord?> ReadAsync(CancellationToken cancellation);

    /// <summary>Replaces the record if it is still the one of a revision.</summary>
    /// <param name="expectedRevision">The record's revision; 0: there must be none.</param>
    /// <param name="value">What is to be there.</param>
    /// <param name="cancellation">Whoever cancels does not learn whether the swap has happened, or will.</param>
    /// <exception cref="ViewStoreException"><see cref="StoreFailure.OutcomeUnknown"/>: it may have happened, or may yet (then it will show
    /// in the record); <see cref="StoreFailure.WentBack"/>: what has happened is worth nothing. Otherwise it has not.</exception>
    Task<SwapResult> TryReplaceAsync(long expectedRevision, ReadOnlyMemory<byte> value, CancellationToken cancellation);

    /// <summary>Removes the record if it is still the one of a revision: the cluster is no more.</summary>
    /// <param name="expectedRevision">The record's revision.</param>
    /// <param name="cancellation">Whoever cancels does not learn whether it has happened, or will.</param>
    /// <returns>Whether it is gone by this call; if its answer was lost on the way and it was sent again, it may be false nevertheless.</returns>
    Task<bool> TryRemoveAsync(long expectedRevision, CancellationToken cancellation);

    /// <summary>
    /// Tells of every change of the record after a revision, in order, one at a time, until it is cancelled. What the store has
    /// forgotten meanwhile (<c>etcd</c> compacts its history) is left out, never the latest.
    /// </summary>
    /// <param name="afterRevision">The last revision that the caller knows; 0: none.</param>
    /// <param name="changed">Gets the record, or null when it was deleted. What it throws ends the watch.</param>
    /// <param name="cancellation">Ends it, with an <see cref="OperationCanceledException"/>.</param>
    /// <exception cref="ViewStoreException">The store refuses, or went back. That it cannot be reached does not end a
    /// watch.</exception>
    Task WatchAsync(long afterRevision, Action<StoredRecord?> changed, CancellationToken cancellation);

    /// <summary>Says that a node is alive, from now on until the result is disposed of, or the node fell silent for the time to
    /// live.</summary>
    /// <param name="name">The node's name.</param>
    /// <param name="value">Kept beside the name.</param>
    /// <param name="timeToLive">At least a second; the store may make it longer.</param>
    /// <param name="cancellation">Ends the attempt.</param>
    Task<IPresence> AnnounceAsync(string name, ReadOnlyMemory<byte> value, TimeSpan timeToLive, CancellationToken cancellation);

    /// <summary>The names of the nodes that are alive, or were until their time to live ago.</summary>
    Task<IReadOnlyList<string>> PresentAsync(CancellationToken cancellation);

    /// <summary>The same, but only of those that have this value beside their name.</summary>
    Task<IReadOnlyList<string>> PresentAsync(ReadOnlyMemory<byte> value, CancellationToken cancellation);

    /// <summary>Why the store cannot be reached at the moment, as far as calls and watches have found out; null if the last answer was good.</summary>
    string? Problem { get; }
}

/// <summary>The record.</summary>
/// <param name="Value">Its bytes.</param>
/// <param name="Revision">When it was written, in the store's own count, which only grows.</param>
internal sealed record StoredRecord(ReadOnlyMemory<byte> Value, long Revision);

/// <summary>How a swap went.</summary>
/// <param name="IsDone">Whether the record was replaced.</param>
/// <param name="Revision">If it was: the revision that it got. Somebody else may have replaced it since.</param>
/// <param name="Present">If it was not: the record that was there instead; null if there was none.</param>
internal readonly record struct SwapResult(bool IsDone, long Revision, StoredRecord? Present)
{
    /// <summary>The record was replaced.</summary>
    public static SwapResult Done(long revision) => new(true, revision, null);

    /// <summary>Somebody else was first.</summary>
    public static SwapResult Lost(StoredRecord? present) => new(false, 0, present);
}

/// <summary>A node that is announced as alive. Disposing of it takes the announcement back, if the store can be reached.</summary>
internal interface IPresence : IAsyncDisposable
{
    /// <summary>The node's name.</summary>
    string Name { get; }

    /// <summary>For how long others see the node after it fell silent, as the store granted it.</summary>
    TimeSpan TimeToLive { get; }
}
