// SPDX-License-Identifier: Apache-2.0
using System.Buffers.Binary;
using System.Diagnostics;
using System.Net;
using System.Security.Cryptography;
using VSmp.Agent.Fabric;
using VSmp.Coherence;
using VSmp.Coherence.Membership;

namespace VSmp.Agent.Membership;

/// <content>Founding, joining and leaving.</content>
internal sealed partial class ClusterMembership
{
    private const int MaxRedirects = 3;
    private const int AskAgainMilliseconds = 200;
    private const int AdmissionBytes = 10;

    private const string Excluded = "the others have excluded this node from the cluster: they did not hear it in time, or could not go on with it";

    /// <summary>
    /// How long a newcomer asks again where it got no answer, or heard that the agent there is not in a cluster yet: agents that are
    /// started together come up in any order. And how long it waits for all others to know it.
    /// </summary>
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(20);

    /// <summary>How long a name seems to be taken by this node's own attempt before, whose answer was lost: until that is voted out.</summary>
    private static readonly TimeSpan OwnNamePatience = TimeSpan.FromSeconds(3);

    private readonly List<PendingJoin> _pendingJoins = [];
    private TaskCompletionSource? _joined; // who waits to be known by all
    private ViewNumber _joinedIn;
    private TaskCompletionSource? _left; // there once this node wants to leave or is out

    /// <summary>Founds a cluster of which this node is the first member and the coordinator.</summary>
    /// <param name="name">This node's name.</param>
    /// <param name="address">Where others reach it: the address that the gate bound, never a wildcard.</param>
    /// <param name="contributedBytes">Memory that it gives to the pool.</param>
    public void Found(string name, IPEndPoint address, ulong contributedBytes)
    {
        CheckName(name);
        if (IsWildcard(address.Address))
            throw new ArgumentException(
                $"the founding node cannot tell others to reach it at {address}: listen on the address that they shall use");
        var epoch = new Epoch(BinaryPrimitives.ReadUInt32LittleEndian(RandomNumberGenerator.GetBytes(4)) | 1);
        Enter(1, MembershipView.Found(epoch, name, address, contributedBytes), MembershipView.Coordinator);
    }

    /// <summary>
    /// Becomes a member of a running cluster: returns when all others know it, and it has a lease. From any thread but the reactor's, which must run.
    /// </summary>
    /// <param name="seed">Any member's address.</param>
    /// <param name="name">This node's name.</param>
    /// <param name="address">Where others reach it; of a wildcard the coordinator takes the address that it sees.</param>
    /// <param name="contributedBytes">Memory that it gives to the pool.</param>
    /// <exception cref="MembershipException">It did not work; the message says why.</exception>
    public async Task JoinAsync(IPEndPoint seed, string name, IPEndPoint address, ulong contributedBytes)
    {
        CheckName(name);
        byte[] body = new byte[MemberList.MaxMemberBytes];
        int bodyBytes = MemberList.Write(body, new Member(NodeId.None, name, address, contributedBytes));
        Array.Resize(ref body, bodyBytes);
        IPEndPoint at = seed;
        long started = Stopwatch.GetTimestamp();
        bool wasBrokenOff = false;
        for (int hop = 0; hop <= MaxRedirects;)
        {
            HandshakeResult result = await AskToJoinAsync(at, body).ConfigureAwait(false);
            if (result.Status == HandshakeStatus.Redirect && ReadCoordinator(result.Body) is { } coordinator)
            {
                at = coordinator;
                hop++;
                continue;
            }
            // Closed: on a busy host, an agent there that had not the patience to hear the request to its end.
            bool isBrokenOff = result.Status is HandshakeStatus.TimedOut or HandshakeStatus.Closed;
            TimeSpan patience = isBrokenOff || result.Status == HandshakeStatus.NotReady ? Patience
                : wasBrokenOff && result.Status == HandshakeStatus.NameTaken ? OwnNamePatience : TimeSpan.Zero;
            if (Stopwatch.GetElapsedTime(started) < patience)
            {
                wasBrokenOff |= isBrokenOff;
                await Task.Delay(AskAgainMilliseconds).ConfigureAwait(false);
                continue;
            }
            if (result.Status != HandshakeStatus.Ok)
                throw new MembershipException(result.Status, $"cannot join the cluster at {at}: {result.Text}");
            if (ReadAdmission(result.Body) is not var (revision, self, view) || view.Find(self)!.Incarnation != 0)
                throw new MembershipException(HandshakeStatus.NotVSmp,
                    $"cannot join the cluster at {at}: its answer makes no sense");
            await EnterAsync(revision, view, self).ConfigureAwait(false);
            return;
        }
        throw new MembershipException(HandshakeStatus.Redirect,
            $"cannot join the cluster at {seed}: its members send us from one to the other");
    }

    /// <summary>
    /// Leaves the cluster: returns when it is out of the view, or nobody is there to leave, or after the timeout. From any thread
    /// but the reactor's. Guests have ended before. A coordinator that leaves takes the cluster with it, and so does the last member.
    /// </summary>
    public async Task LeaveAsync(TimeSpan timeout)
    {
        Task left = await _reactor.Ask(BeginLeave).ConfigureAwait(false);
        await Task.WhenAny(left, Task.Delay(timeout)).ConfigureAwait(false);
        if (_etcd is not null) await _etcd.CloseAsync(_lastRevision).ConfigureAwait(false);
    }

    private async Task EnterAsync(long revision, MembershipView view, NodeId self)
    {
        Task joined = await _reactor.Ask(() =>
        {
            _joined = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
            _joinedIn = view.Number;
            Enter(revision, view, self);
            return _joined.Task;
        }).ConfigureAwait(false);
        await Task.WhenAny(joined, Task.Delay(Patience)).ConfigureAwait(false);
        if (joined.IsCompleted)
        {
            await joined.ConfigureAwait(false);
            return;
        }
        throw new MembershipException(HandshakeStatus.TimedOut, await _reactor.Ask(DescribeUnheard).ConfigureAwait(false));
    }

    private void Enter(long revision, MembershipView view, NodeId self)
    {
        if (_machine is not null) throw new InvalidOperationException("this node is a member already");
        MakeMachine(self, view.Epoch);
        _fabric.SetIdentity(self, view.Epoch);
        _etcd?.Watch(revision);
        _machine!.Enter(revision, view, Now, _effects);
        _machine.OnTick(Now, _effects);
        CarryOut();
    }

    private void MakeMachine(NodeId self, Epoch epoch)
    {
        Self = self;
        _machine = new MembershipMachine(self, _decidedBy, _times);
        _record = _etcd ?? (self == MembershipView.Coordinator ? new CoordinatorRecord(this) : new RemoteRecord(this) as IViewRecord);
        _heartbeats.Start(self, epoch);
    }

    /// <summary>
    /// Whatever this node asks of another, on behalf of itself or through a third, is to find a node that knows it: each member has said that it stands in
    /// the view with this node, or a later one.
    /// </summary>
    private void TellJoined()
    {
        if (_joined is null || !HasLease) return;
        foreach (Member member in Members)
        {
            if (member.Id != Self && _machine!.StandsIn(member.Id).Value < _joinedIn.Value) return;
        }
        _joined.TrySetResult();
        _joined = null;
    }

    private string DescribeUnheard()
    {
        string[] unheard = [.. Members.Where(m => m.Id != Self && _machine!.StandsIn(m.Id).Value == 0).Select(m => $"{m.Name} ({m.Address})")];
        string what = unheard.Length == 0 ? "not all members have taken note of it" : $"no heartbeats come from {string.Join(", ", unheard)}";
        return $"admitted to the cluster, but {what}: agents also send each other UDP datagrams, from and to the port on which they listen; does a firewall keep them out?";
    }

    private Task BeginLeave()
    {
        if (_left is not null || _machine is not { IsMember: true } machine) return _left?.Task ?? Task.CompletedTask;
        _left = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        if ((IsDecidedByMajority || Self != MembershipView.Coordinator) && Members.Count > 1)
        {
            machine.ProposeLeave();
            machine.OnTick(Now, _effects);
            CarryOut();
            return _left.Task;
        }
        // Nobody can go on without it: each of the others is told that the session ends.
        foreach (Member member in Members)
        {
            if (member.Id != Self) _fabric.Remove(member.Id);
        }
        _lastRevision = machine.Revision;
        _machine = null;
        ForgetIdentity();
        _left.SetResult();
        return _left.Task;
    }

    /// <summary>This node is out, as it wished or not; what is said of it later changes nothing.</summary>
    private void GoOut(string reason)
    {
        bool wished = _left is not null;
        ForgetIdentity();
        (_left ??= new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously)).TrySetResult();
        _joined?.TrySetException(new MembershipException(HandshakeStatus.NotAMember, reason));
        _cameBack?.TrySetException(new MembershipException(HandshakeStatus.NotAMember, reason));
        OnLeaseRanOut();
        _machine = null; // it is silent from now on
        if (!wished) Expelled?.Invoke(reason);
    }

    // Admission.

    private void OnJoin(IncomingJoin join)
    {
        if (join.AsksForRecord)
        {
            OnAskedForRecord(join);
            return;
        }
        if (_machine is not { IsMember: true } machine || _left is not null)
        {
            join.Reply(HandshakeStatus.NotReady, []);
            return;
        }
        ReadOnlySpan<byte> request = join.Request;
        if (!MemberList.TryRead(ref request, out Member? wish) || request is not ([] or [ByMajority]) || wish!.Address.Port == 0)
        {
            join.Reply(HandshakeStatus.BadRequest, []);
            return;
        }
        if (request.IsEmpty == IsDecidedByMajority)
        {
            join.Reply(HandshakeStatus.OtherMembership, []); // it would take its leases from those who must not give them
            return;
        }
        if (!IsDecidedByMajority && Self != MembershipView.Coordinator)
        {
            if (Find(MembershipView.Coordinator) is not { } coordinator) join.Reply(HandshakeStatus.NotReady, []);
            else join.Reply(HandshakeStatus.Redirect, WriteMember(coordinator));
            return;
        }
        IPEndPoint address = wish.Address;
        if (IsWildcard(address.Address)) address = new IPEndPoint(join.Remote.Address, address.Port);
        AdmissionError error = machine.ProposeJoin(wish.Name, address, wish.ContributedBytes);
        if (error != AdmissionError.None)
        {
            if (error == AdmissionError.NameTaken) OnNameTaken(wish.Name, address);
            join.Reply(error switch
            {
                AdmissionError.NameTaken => HandshakeStatus.NameTaken,
                AdmissionError.Full => HandshakeStatus.Full,
                _ => HandshakeStatus.BadRequest,
            }, []);
            return;
        }
        _pendingJoins.Add(new PendingJoin(join, wish.Name, address));
        machine.OnTick(Now, _effects);
        CarryOut();
    }

    /// <summary>Answers those who are in the view now. One whose answer is lost is silent, and voted out.</summary>
    private void AnswerJoins()
    {
        for (int i = _pendingJoins.Count - 1; i >= 0; i--)
        {
            PendingJoin pending = _pendingJoins[i];
            if (Members.FirstOrDefault(m => m.Name == pending.Name) is not { } member) continue;
            _pendingJoins.RemoveAt(i);
            if (member.Address.Equals(pending.Address)) pending.Join.Reply(HandshakeStatus.Ok, WriteAdmission(member.Id));
            else pending.Join.Reply(HandshakeStatus.NameTaken, []);
        }
    }

    private void DropEndedJoins()
    {
        for (int i = _pendingJoins.Count - 1; i >= 0; i--)
        {
            if (_pendingJoins[i].Join.HasEnded) _pendingJoins.RemoveAt(i);
        }
    }

    private async Task<HandshakeResult> AskToJoinAsync(IPEndPoint at, byte[] body)
    {
        var answer = new TaskCompletionSource<HandshakeResult>(TaskCreationOptions.RunContinuationsAsynchronously);
        var request = new OutgoingRequest(at, HandshakePurpose.Join, default, NodeId.None, NodeId.None, body);
        _gate.Connect(request, result => answer.TrySetResult(result));
        return await answer.Task.ConfigureAwait(false);
    }

    /// <summary>The answer to a join: the record's revision (64 bits), the new member's number (16), the record.</summary>
    private byte[] WriteAdmission(NodeId id)
    {
        byte[] record = ViewRecord.Write(_machine!.View!);
        byte[] body = new byte[AdmissionBytes + record.Length];
        BinaryPrimitives.WriteInt64LittleEndian(body, _machine.Revision);
        BinaryPrimitives.WriteUInt16LittleEndian(body.AsSpan(8), id.Value);
        record.CopyTo(body, AdmissionBytes);
        return body;
    }

    private static (long Revision, NodeId Self, MembershipView View)? ReadAdmission(ReadOnlySpan<byte> body)
    {
        if (body.Length < AdmissionBytes || ViewRecord.Read(body[AdmissionBytes..]) is not { } view) return null;
        var self = new NodeId(BinaryPrimitives.ReadUInt16LittleEndian(body[8..]));
        return view.Find(self) is null ? null : (BinaryPrimitives.ReadInt64LittleEndian(body), self, view);
    }

    private static byte[] WriteMember(Member member)
    {
        byte[] body = new byte[MemberList.MaxMemberBytes];
        return body[..MemberList.Write(body, member)];
    }

    private static IPEndPoint? ReadCoordinator(ReadOnlySpan<byte> body) =>
        MemberList.TryRead(ref body, out Member? member) ? member!.Address : null;

    private static bool IsWildcard(IPAddress address) => address.Equals(IPAddress.Any) || address.Equals(IPAddress.IPv6Any);

    private static void CheckName(string name)
    {
        if (!Member.IsName(name))
            throw new ArgumentException(
                $"'{name}' cannot be a node's name: 1 to {Member.MaxNameLength} letters, digits, '-', '_' and '.', "
                + "a letter or digit first");
    }

    private sealed record PendingJoin(IncomingJoin Join, string Name, IPEndPoint Address);
}

/// <summary>A node could not become a member; the message says why and what to do.</summary>
internal sealed class MembershipException(HandshakeStatus status, string message) : Exception(message)
{
    /// <summary>The cause, to tell exit codes apart.</summary>
    public HandshakeStatus Status => status;
}
