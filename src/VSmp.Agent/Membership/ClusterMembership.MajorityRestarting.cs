// SPDX-License-Identifier: Apache-2.0
using System.Diagnostics;
using VSmp.Agent.Fabric;
using VSmp.Coherence.Membership;

namespace VSmp.Agent.Membership;

/// <content>Coming back as the next agent of a member where the record is in a store of its own.</content>
internal sealed partial class ClusterMembership
{
    /// <summary>Longer than this a store that is away is said to be waited for.</summary>
    private static readonly TimeSpan StoreSilence = TimeSpan.FromSeconds(1);

    /// <summary>
    /// The same as <see cref="RestartAsync(MemberIdentity)"/> where a majority decides: this node proposes itself the view that says that its agent is another one.
    /// Without the store nothing can be changed, so it is waited for; others exclude this node only when it is back as well.
    /// </summary>
    /// <param name="before">What the agent before has left.</param>
    /// <param name="store">The store; this disposes of it.</param>
    /// <param name="storeText">What people call it.</param>
    /// <param name="presence">For how long the node seems to be there when it is not.</param>
    /// <param name="cancel">Ends the wait for the store.</param>
    /// <exception cref="MembershipException">The node has been excluded meanwhile, the cluster is no more, or the wait was ended; the message says which.</exception>
    /// <exception cref="ViewStoreException">The store refuses.</exception>
    public async Task RestartAsync(MemberIdentity before, IViewStore store, string storeText, TimeSpan presence, CancellationToken cancel)
    {
        var etcd = new EtcdRecord(store, _reactor, this, _log);
        try
        {
            _ = await _reactor.Ask(() =>
            {
                (_decidedBy, _etcd, _storeText) = (DecidedBy.Majority, etcd, storeText);
                return true;
            }).ConfigureAwait(false);
            (long revision, MembershipView view) = await ReadStoredAsync(store, before, cancel).ConfigureAwait(false);
            etcd.Announce(view.Find(before.Self)!.Name, view.Epoch, presence); // in place of what the agent before has said
            Task done = await _reactor.Ask(() => BeginRestart(before.Self, revision, view)).ConfigureAwait(false);
            await done.WaitAsync(cancel).ConfigureAwait(false);
        }
        catch (Exception e)
        {
            await etcd.CloseAsync(0).ConfigureAwait(false); // so that nobody waits for this node
            if (e is OperationCanceledException && cancel.IsCancellationRequested)
                throw new MembershipException(HandshakeStatus.NotReady, "the agent was told to stop before it was a member again");
            throw;
        }
    }

    /// <summary>
    /// The record from the store itself, never from a member, who may be behind: an agent of this node that was killed on its way back may have had itself put there.
    /// </summary>
    private async Task<(long Revision, MembershipView View)> ReadStoredAsync(IViewStore store, MemberIdentity before, CancellationToken cancel)
    {
        long started = Stopwatch.GetTimestamp();
        bool isSaid = false;
        while (true)
        {
            try
            {
                StoredRecord record = await store.ReadAsync(cancel).ConfigureAwait(false)
                    ?? throw new MembershipException(HandshakeStatus.NotAMember, "the cluster is no more: its record is gone from etcd");
                MembershipView view = ViewRecord.Read(record.Value.Span)
                    ?? throw new MembershipException(HandshakeStatus.NotVSmp, "what etcd has in the place of the cluster's record is none; docs/etcd.md says which keys to look at");
                bool isIn = view.Epoch == before.View.Epoch && view.Find(before.Self) is not null;
                return isIn ? (record.Revision, view) : throw new MembershipException(HandshakeStatus.NotAMember, Excluded);
            }
            catch (ViewStoreException e) when (e.Failure == StoreFailure.Unreachable)
            {
                if (!isSaid && Stopwatch.GetElapsedTime(started) >= StoreSilence)
                {
                    isSaid = true;
                    _log($"membership: waiting for etcd, without which this node cannot be a member again: {e.Message}");
                }
            }
            await Task.Delay(AskAgainMilliseconds, cancel).ConfigureAwait(false);
        }
    }
}
