// SPDX-License-Identifier: Apache-2.0
using System.Net;
using VSmp.Coherence;
using VSmp.Coherence.Membership;
using ProtocolViolationException = VSmp.Coherence.ProtocolViolationException;

namespace VSmp.Agent.Membership;

/// <content>What is different where a majority decides and the record is in a store of its own: no node has to be there for ever.</content>
internal sealed partial class ClusterMembership : IRecordReader
{
    private readonly HashSet<NodeId> _succeeded = []; // another agent has the name and address of these: theirs are gone
    private readonly Dictionary<NodeId, string> _lostInDoubt = []; // sessions lost for good with members that are suspected, and why
    private DecidedBy _decidedBy = DecidedBy.Coordinator;
    private EtcdRecord? _etcd;
    private string? _storeText;
    private long _lastRevision; // the record's, once the last member has left

    /// <summary>How views are decided, in words.</summary>
    public string Decision => IsDecidedByMajority ? $"by majority, with the record in {_storeText}" : $"by node {NameOf(MembershipView.Coordinator)}, the coordinator";

    /// <summary>Why nobody can join, leave or be excluded at the moment; null if nothing is in the way that this node knows of.</summary>
    public string? StoreProblem => _etcd?.Problem;

    /// <inheritdoc/>
    void IRecordReader.OnRecord(long revision, MembershipView view)
    {
        if (_left is { Task.IsCompleted: true }) return;
        try
        {
            OnRecord(revision, view);
        }
        catch (ProtocolViolationException e)
        {
            GoOut(e.Message);
        }
    }

    /// <inheritdoc/>
    void IRecordReader.OnRecordGone()
    {
        if (_machine is null || _left is not null) return;
        // With a lease, a majority goes on with this node: somebody has deleted what nobody should.
        if (HasLease) _etcd!.Complain("the cluster's record is gone from etcd: stop all agents of the cluster, then start them anew");
        else GoOut("the cluster is no more: its record is gone from etcd");
    }

    /// <inheritdoc/>
    void IRecordReader.OnStoreAway() => _machine?.OnStoreAway(Now);

    /// <summary>
    /// Whether this node tells the others of a view: the coordinator does, or whoever has proposed it. The others would learn of it from the store, or from any
    /// heartbeat; this is sooner.
    /// </summary>
    private bool Announces(MembershipView view) => IsDecidedByMajority ? view.Number == _etcd!.Proposed : Self == MembershipView.Coordinator;

    /// <summary>Somebody wants the name of a member: if it has its address, too, that member's agent listens there no more.</summary>
    private void OnNameTaken(string name, IPEndPoint address)
    {
        if (Current!.Find(name) is not { } member || member.Id == Self || !member.Address.Equals(address) || !_succeeded.Add(member.Id)) return;
        _log($"membership: another agent has the place of {name} ({member.Id}), {address}: that one is gone");
        OnEvidence(member.Id, PeerEvidence.Refused);
    }

    /// <summary>
    /// A session that is lost with a member that is suspected decides nothing while others may be about to exclude that member, and cannot, for want of
    /// the store. If it is heard again, this node goes, as it would have at once.
    /// </summary>
    private bool WaitsForDecision(NodeId peer, string reason)
    {
        if (!IsDecidedByMajority || !IsSuspected(peer)) return false;
        _lostInDoubt[peer] = reason;
        return true;
    }

    private void OnHeardAgain(NodeId node)
    {
        if (_lostInDoubt.Remove(node, out string? reason)) OnPeerDown(node, reason);
    }
}
