// SPDX-License-Identifier: Apache-2.0
using System.Buffers.Binary;
using System.Diagnostics;
using VSmp.Agent.Fabric;
using VSmp.Coherence;
using VSmp.Coherence.Membership;

namespace VSmp.Agent.Membership;

/// <content>Coming back as the next agent of a member, and what others do about one that does.</content>
internal sealed partial class ClusterMembership
{
    private const int QuestionBytes = 12;

    private TaskCompletionSource? _cameBack; // who waits to be in the view again
    private bool _isAsking; // without a session

    /// <summary>
    /// Where this node's <see cref="MemberIdentity"/> is kept while it is a member; null: nowhere, and no agent comes after this one. Before it founds, joins or
    /// restarts.
    /// </summary>
    public string? IdentityFile { get; init; }

    /// <summary>
    /// Takes the place of an agent of this node that is no more: returns when this one is a member under the same number, in a view that says that it is another
    /// agent. From any thread but the reactor's, which must run.
    /// </summary>
    /// <param name="before">What the agent before has left.</param>
    /// <exception cref="MembershipException">The node has been excluded meanwhile, or the cluster is no more; the message says which.</exception>
    public async Task RestartAsync(MemberIdentity before)
    {
        (long revision, MembershipView view) = before.Self == MembershipView.Coordinator
            ? (before.Revision, before.View) // which is the record
            : await ReadRecordAsync(before).ConfigureAwait(false);
        Task done = await _reactor.Ask(() => BeginRestart(before.Self, revision, view)).ConfigureAwait(false);
        await done.ConfigureAwait(false);
    }

    private Task BeginRestart(NodeId self, long revision, MembershipView view)
    {
        if (_machine is not null) throw new InvalidOperationException("this node is a member already");
        _cameBack = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        MakeMachine(self, view.Epoch);
        _etcd?.Watch(revision);
        foreach (Member member in view.Members)
        {
            if (member.Id != self) _heartbeats.Add(member);
        }
        _machine!.Restart(revision, view, Now, _effects);
        _machine.OnTick(Now, _effects);
        CarryOut();
        return _cameBack.Task;
    }

    /// <summary>The record, from the coordinator: what this node has may be behind. As long as that may itself be about to come back.</summary>
    private async Task<(long Revision, MembershipView View)> ReadRecordAsync(MemberIdentity before)
    {
        Member coordinator = before.View.Find(MembershipView.Coordinator)
            ?? throw new MembershipException(HandshakeStatus.NotReady, "the view that the agent before this one left has no coordinator");
        long started = Stopwatch.GetTimestamp();
        while (true)
        {
            HandshakeResult result = await AskForRecordAsync(coordinator, before.Self, before.View.Epoch, incarnation: 0, proposedOn: 0).ConfigureAwait(false);
            if (result.Status == HandshakeStatus.Ok && ReadAdmission(result.Body) is var (revision, self, view) && self == before.Self) return (revision, view);
            if (IsFinal(result.Status)) throw new MembershipException(HandshakeStatus.NotAMember, Excluded);
            if (Stopwatch.GetElapsedTime(started).TotalMilliseconds >= _times.RestartPatienceTicks)
                throw new MembershipException(result.Status, WithoutCoordinator(coordinator, $"it has not answered for {_times.RestartPatienceTicks / 1000.0:0.0} s ({result.Text})"));
            await Task.Delay(AskAgainMilliseconds / 10).ConfigureAwait(false);
        }
    }

    private static bool IsFinal(HandshakeStatus status) => status is HandshakeStatus.NotAMember or HandshakeStatus.OtherEpoch;

    /// <summary>
    /// Asks the coordinator for the record where there is no session with it: this agent is not in the view yet, or the coordinator's is another one. On the
    /// reactor; the answer comes later, if one does.
    /// </summary>
    /// <param name="proposedOn">The revision on which this node's agent is to be said to be another one; 0: the record is only read.</param>
    private void AskWithoutSession(long proposedOn)
    {
        if (_isAsking || _machine is not { } machine || machine.View!.Find(MembershipView.Coordinator) is not { } coordinator) return;
        _isAsking = true;
        Task<HandshakeResult> asked = AskForRecordAsync(coordinator, Self, machine.View!.Epoch, machine.Incarnation, proposedOn);
        _ = asked.ContinueWith(answer => _reactor.Post(() =>
        {
            _isAsking = false;
            if (_machine == machine) OnAnswered(answer.Result);
        }), CancellationToken.None, TaskContinuationOptions.ExecuteSynchronously, TaskScheduler.Default);
    }

    private void OnAnswered(HandshakeResult result)
    {
        if (result.Status == HandshakeStatus.Ok && ReadAdmission(result.Body) is var (revision, _, view)) OnRecord(revision, view);
        else if (IsFinal(result.Status) && _left is null) GoOut(Excluded);
    }

    private async Task<HandshakeResult> AskForRecordAsync(Member coordinator, NodeId self, Epoch epoch, uint incarnation, long proposedOn)
    {
        byte[] body = new byte[QuestionBytes];
        BinaryPrimitives.WriteInt64LittleEndian(body, proposedOn);
        BinaryPrimitives.WriteUInt32LittleEndian(body.AsSpan(8), incarnation);
        var answer = new TaskCompletionSource<HandshakeResult>(TaskCreationOptions.RunContinuationsAsynchronously);
        _gate.Connect(new OutgoingRequest(coordinator.Address, HandshakePurpose.Record, epoch, self, coordinator.Id, body), result => answer.TrySetResult(result));
        return await answer.Task.ConfigureAwait(false);
    }

    // At the coordinator.

    private void OnAskedForRecord(IncomingJoin asked)
    {
        if (_machine is not { IsMember: true } machine || IsDecidedByMajority || Self != MembershipView.Coordinator)
        {
            asked.Reply(IsDecidedByMajority ? HandshakeStatus.OtherMembership : HandshakeStatus.NotReady, []); // the record is in the store
            return;
        }
        ReadOnlySpan<byte> body = asked.Request;
        if (body.Length != QuestionBytes || asked.Epoch != Epoch || Find(asked.Client) is not { } member)
        {
            asked.Reply(body.Length != QuestionBytes ? HandshakeStatus.BadRequest : asked.Epoch != Epoch ? HandshakeStatus.OtherEpoch : HandshakeStatus.NotAMember, []);
            return;
        }
        long proposedOn = BinaryPrimitives.ReadInt64LittleEndian(body);
        // Whoever was overtaken gets what is there.
        if (proposedOn == machine.Revision && BinaryPrimitives.ReadUInt32LittleEndian(body[8..]) == member.Incarnation + 1 && member.Id != Self)
            OnRecord(proposedOn + 1, machine.View!.WithRestarted(member.Id));
        if (_machine is not null) asked.Reply(HandshakeStatus.Ok, WriteAdmission(asked.Client));
    }

    // At those who go on.

    /// <summary>The agent of a member is another one. Of the session with the last nothing is left: neither side may be told what was meant for the other.</summary>
    private void Renew(Member member)
    {
        _shunned.Remove(member.Id);
        _doubts.Remove(member.Id);
        _succeeded.Remove(member.Id);
        _lostInDoubt.Remove(member.Id); // that session is void for both
        _log($"membership: the agent of {member.Name} ({member.Id}) was started again, for the {member.Incarnation}. time");
        if (_fabric.HasSession(member.Id))
        {
            _fabric.Remove(member.Id);
            _next.OnPeerDown(member.Id, "its agent was started again");
        }
        _fabric.Add(member.Id, member.Address, member.Incarnation);
    }

    /// <summary>Whether nothing may be decided by a session with a peer that cannot be reached: it is about to be voted out, or to come back.</summary>
    private bool IsInDoubt(NodeId node) => _machine is { } machine && (machine.IsSuspected(node) || machine.IsComingBack(node));

    // What is left for the agent after this one.

    /// <returns>Whether it can go on: whoever comes after it must not be behind what others were told.</returns>
    private bool TryWriteIdentity()
    {
        if (IdentityFile is null) return true;
        try
        {
            new MemberIdentity(Self, _machine!.Revision, _machine.View!).Write(IdentityFile);
            return true;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            GoOut($"it cannot write down which member it is: {e.Message}");
            return false;
        }
    }

    private void ForgetIdentity()
    {
        if (IdentityFile is null) return;
        try { File.Delete(IdentityFile); }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            _log($"membership: cannot remove {IdentityFile}: {e.Message}");
        }
    }
}
