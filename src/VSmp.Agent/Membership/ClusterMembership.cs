// SPDX-License-Identifier: Apache-2.0
using System.Buffers.Binary;
using System.Diagnostics;
using System.Net;
using System.Security.Cryptography;
using VSmp.Agent.Fabric;
using VSmp.Coherence;
using VSmp.Coherence.Membership;
using VSmp.Coherence.Messages;

namespace VSmp.Agent.Membership;

/// <summary>
/// Who is in the cluster. The node that founded it coordinates: it alone admits and removes members, and announces each new view
/// to all. Everything but <see cref="JoinAsync"/> and <see cref="LeaveAsync"/> belongs to the reactor. It sits between the fabric
/// and the agent: it takes the membership's frames and passes the others on.
/// </summary>
internal sealed class ClusterMembership : IFrameReceiver
{
    private const int MaxRedirects = 3;
    private const int AskAgainMilliseconds = 200;

    /// <summary>
    /// How long a newcomer asks again where it got no answer, or heard that the agent there is not in a cluster yet: agents that are
    /// started together come up in any order.
    /// </summary>
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(20);

    private const string Removed = "the coordinator has removed this node from the cluster: another node could not reach it";

    private readonly Reactor _reactor;
    private readonly SessionFabric _fabric;
    private readonly PeerGate _gate;
    private readonly IFrameReceiver _next;
    private readonly Action<string> _log;
    private readonly List<PendingJoin> _pendingJoins = [];
    private MembershipView? _view;
    private TaskCompletionSource? _left; // there once this node wants to leave or is out
    private bool _coordinatorLost;

    /// <summary>Becomes the fabric's receiver; what is not the membership's goes to <paramref name="next"/>.</summary>
    public ClusterMembership(Reactor reactor, SessionFabric fabric, PeerGate gate, IFrameReceiver next, Action<string> log)
    {
        _reactor = reactor;
        _fabric = fabric;
        _gate = gate;
        _next = next;
        _log = log;
        fabric.Receiver = this;
        fabric.Disowned = OnDisowned;
        gate.JoinArrived = join => reactor.Post(() => OnJoin(join));
        reactor.AtTurnEnd(AnswerPendingJoins);
    }

    /// <summary>
    /// A node is in the view now. Its session may still be about to connect: see <see cref="IFrameReceiver.OnPeerUp"/>.
    /// </summary>
    public event Action<Member>? NodeJoined;

    /// <summary>A node is out of the view, with the reason.</summary>
    public event Action<Member, string>? NodeLeft;

    /// <summary>This node is no member any more, though it did not ask to leave.</summary>
    public event Action<string>? Expelled;

    /// <summary>This node's number; <see cref="NodeId.None"/> before it is a member.</summary>
    public NodeId Self { get; private set; } = NodeId.None;

    /// <summary>The current view's number; 0 before this node is a member.</summary>
    public ViewNumber View => _view?.Number ?? default;

    /// <summary>The cluster's life.</summary>
    public Epoch Epoch => _view?.Epoch ?? default;

    /// <summary>The members by ascending number, this node among them.</summary>
    public IReadOnlyList<Member> Members => _view?.Members ?? [];

    /// <summary>Whether this node coordinates.</summary>
    public bool IsCoordinator => Self == MembershipView.Coordinator;

    /// <summary>Whether somebody is there to decide what becomes of a member that this node has lost.</summary>
    public bool Decides(NodeId lost) => IsCoordinator || (lost != MembershipView.Coordinator && !_coordinatorLost);

    /// <summary>The member of that number, or null.</summary>
    public Member? Find(NodeId id) => _view?.Find(id);

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
        Enter(MembershipView.Found(epoch, name, address, contributedBytes), MembershipView.Coordinator);
    }

    /// <summary>Becomes a member of a running cluster. From any thread but the reactor's, which must run.</summary>
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
            if (result.Status is HandshakeStatus.NotReady or HandshakeStatus.TimedOut or HandshakeStatus.Closed && Stopwatch.GetElapsedTime(started) < Patience)
            {
                await Task.Delay(AskAgainMilliseconds).ConfigureAwait(false);
                continue;
            }
            if (result.Status != HandshakeStatus.Ok)
                throw new MembershipException(result.Status, $"cannot join the cluster at {at}: {result.Text}");
            if (ReadAdmission(result.Body) is not var (self, view))
                throw new MembershipException(HandshakeStatus.NotVSmp,
                    $"cannot join the cluster at {at}: its answer makes no sense");
            await _reactor.Ask(() =>
            {
                Enter(view, self);
                return true;
            }).ConfigureAwait(false);
            return;
        }
        throw new MembershipException(HandshakeStatus.Redirect,
            $"cannot join the cluster at {seed}: its members send us from one to the other");
    }

    /// <summary>
    /// Leaves the cluster: returns when the coordinator has announced it, or is lost, or after the timeout. From any thread
    /// but the reactor's. A coordinator that leaves leaves the others without one.
    /// </summary>
    public async Task LeaveAsync(TimeSpan timeout)
    {
        Task left = await _reactor.Ask(BeginLeave).ConfigureAwait(false);
        await Task.WhenAny(left, Task.Delay(timeout)).ConfigureAwait(false);
    }

    /// <inheritdoc/>
    public void OnFrame(NodeId peer, in FrameHeader header, ReadOnlySpan<byte> payload)
    {
        switch (header.Type)
        {
            case MessageType.ViewChange: OnViewChange(peer, header, payload); break;
            case MessageType.Leave: OnLeave(peer, header); break;
            default: _next.OnFrame(peer, header, payload); break;
        }
    }

    /// <inheritdoc/>
    public void OnPeerUp(NodeId peer) => _next.OnPeerUp(peer);

    /// <inheritdoc/>
    public void OnPeerDown(NodeId peer, string reason)
    {
        _next.OnPeerDown(peer, reason);
        if (_view?.Find(peer) is null) return;
        if (IsCoordinator)
        {
            Announce(_view.Without(peer), reason);
        }
        else if (peer == MembershipView.Coordinator)
        {
            OnCoordinatorLost(reason);
        }
        else if (!_coordinatorLost && _left is null)
        {
            // The session is lost for good, so one of the two has to go: the coordinator decides.
            SendLeave(peer);
        }
    }

    private void Enter(MembershipView view, NodeId self)
    {
        if (_view is not null) throw new InvalidOperationException("this node is a member already");
        Self = self;
        _fabric.SetIdentity(self, view.Epoch);
        Adopt(view, "");
    }

    private void Adopt(MembershipView view, string reason)
    {
        MembershipView? old = _view;
        _view = view;
        _fabric.View = view.Number;
        foreach (Member member in old?.Members ?? [])
        {
            if (view.Find(member.Id) is not null || member.Id == Self) continue;
            _fabric.Remove(member.Id);
            _log($"membership: {member.Name} ({member.Id}) has left in view {view.Number.Value}: {reason}");
            NodeLeft?.Invoke(member, reason);
        }
        foreach (Member member in view.Members)
        {
            if (old?.Find(member.Id) is not null) continue;
            if (member.Id != Self)
            {
                _fabric.Add(member.Id, member.Address);
                _log($"membership: {member.Name} ({member.Id}, {member.Address}) is a member as of view {view.Number.Value}");
            }
            NodeJoined?.Invoke(member);
        }
    }

    private void OnViewChange(NodeId peer, in FrameHeader header, ReadOnlySpan<byte> payload)
    {
        if (peer != MembershipView.Coordinator || _view is null) return;
        if (MemberList.Read(payload) is not { } members
            || MembershipView.FromAnnouncement(header.Epoch, header.View, members) is not { } next)
        {
            _log($"membership: the coordinator announced a view that makes no sense ({payload.Length} bytes); it is ignored");
            return;
        }
        if (!_view.CanBeFollowedBy(next)) return; // announced before this node had joined
        if (next.Find(Self) is null)
        {
            GoOut(Removed);
            return;
        }
        Adopt(next, "the coordinator announced it");
    }

    /// <summary>
    /// Without its coordinator a cluster keeps its members and its view: what is between the others goes on. (Had the coordinator
    /// removed this node instead, the others would end their sessions with it too.)
    /// </summary>
    private void OnCoordinatorLost(string reason)
    {
        _coordinatorLost = true;
        _left?.TrySetResult();
        if (_left is not null) return;
        _log($"membership: the coordinator is lost ({reason}): no node can join, and none that is lost is removed; "
            + "restart the cluster when what runs has ended");
    }

    /// <summary>Who is removed while it has no connection to the coordinator learns of it when it tries to make one.</summary>
    private void OnDisowned(NodeId peer)
    {
        if (peer == MembershipView.Coordinator) GoOut(Removed);
    }

    /// <summary>This node is out, as it wished or not; what is said of it later changes nothing.</summary>
    private void GoOut(string reason)
    {
        bool wished = _left is not null;
        (_left ??= new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously)).TrySetResult();
        if (!wished) Expelled?.Invoke(reason);
    }

    private void OnLeave(NodeId peer, in FrameHeader header)
    {
        if (!IsCoordinator || _view!.Find(header.Requestor) is not { } leaving) return;
        if (leaving.Id == Self) return; // a member that cannot reach the coordinator cannot remove it either
        string reason = leaving.Id == peer ? "it left" : $"{peer} could not reach it";
        Announce(_view.Without(leaving.Id), reason);
    }

    /// <summary>Goes over to a new view and tells everybody, those that are removed by it included.</summary>
    private void Announce(MembershipView next, string reason)
    {
        MembershipView old = _view!;
        Span<byte> payload = stackalloc byte[MemberList.MaxBytes];
        payload = payload[..MemberList.Write(payload, next.Members)];
        _fabric.View = next.Number;
        foreach (Member member in old.Members)
        {
            if (member.Id == Self) continue;
            payload.CopyTo(_fabric.Begin(member.Id, payload.Length));
            _fabric.Commit(new FrameHeader { Type = MessageType.ViewChange, Requestor = NodeId.None });
        }
        _fabric.Flush(); // what a removed member has to be told goes out before its session ends
        Adopt(next, reason);
    }

    private void SendLeave(NodeId leaving)
    {
        _fabric.Begin(MembershipView.Coordinator, 0);
        _fabric.Commit(new FrameHeader { Type = MessageType.Leave, Requestor = leaving });
    }

    private Task BeginLeave()
    {
        if (_view is null) return Task.CompletedTask;
        if (_left is not null) return _left.Task;
        _left = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        if (!IsCoordinator && !_coordinatorLost)
        {
            SendLeave(Self);
            return _left.Task;
        }
        // There is nobody to announce it: each of the others is told that the session ends.
        foreach (Member member in _view.Members)
            if (member.Id != Self) _fabric.Remove(member.Id);
        _left.SetResult();
        return _left.Task;
    }

    // Admission.

    private void OnJoin(IncomingJoin join)
    {
        if (_view is null || _left is not null)
        {
            join.Reply(HandshakeStatus.NotReady, []);
            return;
        }
        if (!IsCoordinator)
        {
            if (_view.Find(MembershipView.Coordinator) is not { } coordinator) join.Reply(HandshakeStatus.NotReady, []);
            else join.Reply(HandshakeStatus.Redirect, WriteMember(coordinator));
            return;
        }
        ReadOnlySpan<byte> request = join.Request;
        if (!MemberList.TryRead(ref request, out Member? wish) || !request.IsEmpty || wish!.Address.Port == 0)
        {
            join.Reply(HandshakeStatus.BadRequest, []);
            return;
        }
        IPEndPoint address = wish.Address;
        if (IsWildcard(address.Address)) address = new IPEndPoint(join.Remote.Address, address.Port);
        AdmissionError error = _view.TryAdmit(wish.Name, address, wish.ContributedBytes, out MembershipView next);
        if (error != AdmissionError.None)
        {
            join.Reply(error switch
            {
                AdmissionError.NameTaken => HandshakeStatus.NameTaken,
                AdmissionError.Full => HandshakeStatus.Full,
                _ => HandshakeStatus.BadRequest,
            }, []);
            return;
        }
        Announce(next, "");
        _pendingJoins.Add(new PendingJoin(join, _view.Find(wish.Name)!.Id,
            [.. _view.Members.Where(m => m.Id != Self && m.Name != wish.Name).Select(m => (m.Id, _fabric.LastSequence(m.Id)))]));
        AnswerPendingJoins();
    }

    /// <summary>
    /// A new member gets its answer when all others have taken the view that it is in: whatever it asks of one of them, on behalf
    /// of itself or through a third, finds a node that knows it.
    /// </summary>
    private void AnswerPendingJoins()
    {
        for (int i = _pendingJoins.Count - 1; i >= 0; i--)
        {
            PendingJoin pending = _pendingJoins[i];
            if (pending.Join.HasEnded)
            {
                _pendingJoins.RemoveAt(i);
                if (_view!.Find(pending.Id) is not null) Announce(_view.Without(pending.Id), "it went away before it was answered");
                continue;
            }
            if (!pending.MustKnow.TrueForAll(wait => _fabric.IsTakenUpTo(wait.Member, wait.Sequence))) continue;
            _pendingJoins.RemoveAt(i);
            if (_view!.Find(pending.Id) is null) pending.Join.Reply(HandshakeStatus.NotReady, []);
            else pending.Join.Reply(HandshakeStatus.Ok, WriteAdmission(pending.Id));
        }
    }

    private async Task<HandshakeResult> AskToJoinAsync(IPEndPoint at, byte[] body)
    {
        var answer = new TaskCompletionSource<HandshakeResult>(TaskCreationOptions.RunContinuationsAsynchronously);
        var request = new OutgoingRequest(at, HandshakePurpose.Join, default, NodeId.None, NodeId.None, body);
        _gate.Connect(request, result => answer.TrySetResult(result));
        return await answer.Task.ConfigureAwait(false);
    }

    /// <summary>The answer to a join: epoch (32 bits), view (32), the new member's number (16), the list of members.</summary>
    private byte[] WriteAdmission(NodeId id)
    {
        byte[] body = new byte[10 + MemberList.MaxBytes];
        BinaryPrimitives.WriteUInt32LittleEndian(body, Epoch.Value);
        BinaryPrimitives.WriteUInt32LittleEndian(body.AsSpan(4), View.Value);
        BinaryPrimitives.WriteUInt16LittleEndian(body.AsSpan(8), id.Value);
        int bytes = 10 + MemberList.Write(body.AsSpan(10), Members);
        return body[..bytes];
    }

    private static (NodeId Self, MembershipView View)? ReadAdmission(ReadOnlySpan<byte> body)
    {
        if (body.Length < 10 || MemberList.Read(body[10..]) is not { } members) return null;
        var epoch = new Epoch(BinaryPrimitives.ReadUInt32LittleEndian(body));
        var number = new ViewNumber(BinaryPrimitives.ReadUInt32LittleEndian(body[4..]));
        var self = new NodeId(BinaryPrimitives.ReadUInt16LittleEndian(body[8..]));
        MembershipView? view = MembershipView.FromAnnouncement(epoch, number, members);
        return view?.Find(self) is null ? null : (self, view);
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

    private sealed record PendingJoin(IncomingJoin Join, NodeId Id, List<(NodeId Member, ulong Sequence)> MustKnow);
}

/// <summary>A node could not become a member; the message says why and what to do.</summary>
internal sealed class MembershipException(HandshakeStatus status, string message) : Exception(message)
{
    /// <summary>The cause, to tell exit codes apart.</summary>
    public HandshakeStatus Status => status;
}
