// SPDX-License-Identifier: Apache-2.0
using System.Buffers.Binary;
using System.Net;
using System.Security.Cryptography;
using VSmp.Agent.Fabric;
using VSmp.Agent.Interop;
using VSmp.Coherence;
using VSmp.Coherence.Membership;
using VSmp.Coherence.Messages;
using ProtocolViolationException = VSmp.Coherence.ProtocolViolationException;

namespace VSmp.Agent.Membership;

/// <summary>
/// Who is in the cluster. A <see cref="MembershipMachine"/> decides (docs/membership.md); here it meets the fabric, the heartbeats and the clock. It sits
/// between the fabric and the agent: it takes the membership's frames and passes the others on. Everything but <see cref="JoinAsync"/>,
/// <see cref="FoundOrJoinAsync"/> and <see cref="LeaveAsync"/> belongs to the reactor.
/// </summary>
/// <remarks>
/// This file: what others see, and frames. ClusterMembership.Driving.cs: what the machine is told and wants. ClusterMembership.Joining.cs: founding,
/// joining and leaving. ClusterMembership.Majority.cs and .MajorityJoining.cs: the same without a coordinator, where the record is in etcd.
/// ClusterMembership.Restarting.cs and .MajorityRestarting.cs: coming back as a member's next agent.
/// </remarks>
internal sealed partial class ClusterMembership : IFrameReceiver, IDisposable
{
    private readonly Reactor _reactor;
    private readonly SessionFabric _fabric;
    private readonly PeerGate _gate;
    private readonly IFrameReceiver _next;
    private readonly Action<string> _log;
    private readonly MembershipTimes _times;
    private readonly HeartbeatPort _heartbeats;
    private readonly PeerProbes _probes;
    private readonly HashSet<NodeId> _shunned = []; // not heard any more, until they are out
    private ILease? _lease;

    /// <summary>Becomes the fabric's receiver; what is not the membership's goes to <paramref name="next"/>.</summary>
    public ClusterMembership(Reactor reactor, SessionFabric fabric, PeerGate gate, IFrameReceiver next, Action<string> log, MembershipTimes? times = null)
    {
        _reactor = reactor;
        _fabric = fabric;
        _gate = gate;
        _next = next;
        _log = log;
        _times = times ?? new MembershipTimes();
        _heartbeats = new HeartbeatPort(reactor, gate, fabric.Faults, OnHeartbeat);
        _probes = new PeerProbes(reactor, gate, fabric.Faults, OnEvidence);
        fabric.Receiver = this;
        fabric.Disowned = OnDisowned;
        fabric.Ended = OnSessionEnded;
        fabric.IsInDoubt = IsInDoubt;
        gate.JoinArrived = join => reactor.Post(() => OnJoin(join));
        reactor.Every(TickMicroseconds, Tick, () => _machine is not null);
    }

    /// <summary>
    /// A node is in the view now. Its session may still be about to connect: see <see cref="IFrameReceiver.OnPeerUp"/>.
    /// </summary>
    public event Action<Member>? NodeJoined;

    /// <summary>
    /// A node is out of the view and its guests are stopped: what it was home of may be re-homed. With the reason. That there is no session with it any more
    /// has been said before, by <see cref="IFrameReceiver.OnPeerDown"/>.
    /// </summary>
    public event Action<Member, string>? NodeLeft;

    /// <summary>
    /// The agent of a member is another one: whatever was asked of the last is void, and it remembers nothing but what it had recorded. Sessions are between
    /// agents: that there is none with the last has been said before, by <see cref="IFrameReceiver.OnPeerDown"/>; one with the next may be about to connect.
    /// </summary>
    public event Action<Member>? NodeRestarted;

    /// <summary>This node stands in another view; who has left it, joined it or was started again since the last one has been said, or is said next.</summary>
    public event Action<ViewNumber>? ViewAdopted;

    /// <summary>This node's guests may not run any more (false), or may again (true).</summary>
    public event Action<bool>? LeaseChanged;

    /// <summary>This node is no member any more, though it did not ask to leave, or the cluster is no more. With what to tell people.</summary>
    public event Action<string>? Expelled;

    /// <summary>This node's number; <see cref="NodeId.None"/> before it is a member.</summary>
    public NodeId Self { get; private set; } = NodeId.None;

    /// <summary>How often this node's agent has been started again since the node joined.</summary>
    public uint Incarnation => _machine?.Incarnation ?? 0;

    /// <summary>The current view's number; 0 before this node is a member.</summary>
    public ViewNumber View => Current?.Number ?? default;

    /// <summary>The cluster's life.</summary>
    public Epoch Epoch => Current?.Epoch ?? default;

    /// <summary>The members by ascending number, this node among them.</summary>
    public IReadOnlyList<Member> Members => Current?.Members ?? [];

    /// <summary>Whether this node's guests may run.</summary>
    public bool HasLease => _machine is { HasLease: true };

    /// <summary>What keeps guests within the lease; it is told where things stand. Null: nobody yet.</summary>
    public ILease? Lease
    {
        get => _lease;
        set
        {
            _lease = value;
            if (HasLease) _lease?.Extend(BootTimeOf(_machine!.LeaseUntilTicks));
            else _lease?.End();
        }
    }

    /// <summary>Who makes a majority.</summary>
    public bool IsDecidedByMajority => _decidedBy == DecidedBy.Majority;

    private MembershipView? Current { get; set; }

    /// <summary>The member of that number, or null.</summary>
    public Member? Find(NodeId id) => Current?.Find(id);

    /// <summary>Whether a member seems to be lost.</summary>
    public bool IsSuspected(NodeId node) => _machine is { } machine && machine.IsSuspected(node);

    /// <inheritdoc/>
    public void OnFrame(NodeId peer, in FrameHeader header, ReadOnlySpan<byte> payload)
    {
        switch (header.Type)
        {
            case MessageType.ViewChange:
                OnRecord((long)header.Argument0, ReadView(peer, payload));
                break;
            case MessageType.AskView:
                if (_machine is not null) SendView(peer);
                break;
            case MessageType.ProposeView:
                OnProposal(peer, (long)header.Argument0, ReadView(peer, payload));
                break;
            case MessageType.Leave:
                if (header.Requestor.Value <= peer.Value) throw new ProtocolViolationException($"{peer} wants {header.Requestor} gone, not itself");
                if (!_shunned.Contains(peer)) Shun(header.Requestor, $"{NameOf(peer)} cannot go on with it");
                break;
            default:
                _next.OnFrame(peer, header, payload);
                break;
        }
    }

    /// <inheritdoc/>
    public void OnPeerUp(NodeId peer) => _next.OnPeerUp(peer);

    /// <summary>
    /// The session is lost for good, with frames that somebody waits for: of the two nodes, one has to go, and both agree which. That of the higher number
    /// does, so never the coordinator.
    /// </summary>
    public void OnPeerDown(NodeId peer, string reason)
    {
        _next.OnPeerDown(peer, reason);
        if (Find(peer) is not { } member || _left is not null) return;
        if (Self.Value > peer.Value)
        {
            if (WaitsForDecision(peer, reason)) return;
            GoOut($"it cannot go on with node {member.Name}: {reason}. Of two such nodes the one that joined later goes");
            return;
        }
        Shun(peer, reason);
        foreach (Member other in Members)
        {
            if (other.Id == Self || other.Id == peer) continue;
            _fabric.Begin(other.Id, 0);
            _fabric.Commit(new FrameHeader { Type = MessageType.Leave, Requestor = peer });
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        _machine = null;
        _etcd?.Dispose();
        _heartbeats.Dispose();
    }

    private static MembershipView ReadView(NodeId peer, ReadOnlySpan<byte> payload) =>
        ViewRecord.Read(payload) ?? throw new ProtocolViolationException($"{peer} sent {payload.Length} bytes that are no view");

    private string NameOf(NodeId node) => Find(node)?.Name ?? node.ToString();

    /// <summary>A member is treated as if nothing came from it any more: after the suspicion's time it is voted out, as safely as if it were so.</summary>
    private void Shun(NodeId node, string reason)
    {
        if (node == Self || Find(node) is null || !_shunned.Add(node)) return;
        _log($"membership: {NameOf(node)} ({node}) is not heard any more, so that it goes: {reason}");
    }

    /// <summary>
    /// The peer has ended the session: it is about to stop, or this node is out of its view. The membership will tell; until then there is a session to
    /// lose nothing in.
    /// </summary>
    private void OnSessionEnded(NodeId peer)
    {
        if (_machine is null || _left is not null || Find(peer) is not { } member) return;
        if (IsDecidedByMajority) _record!.Read();
        else if (peer == MembershipView.Coordinator)
        {
            GoOut(WithoutCoordinator("it has left the cluster"));
            return;
        }
        _reactor.Post(() =>
        {
            if (Find(peer) == member && _left is null) _fabric.Add(peer, member.Address, member.Incarnation);
        });
    }

    /// <summary>Who is excluded while it has no connection to the coordinator learns of it when it tries to make one; where there is none, from the record.</summary>
    private void OnDisowned(NodeId peer)
    {
        if (Find(peer) is null || _machine is null) return;
        if (IsDecidedByMajority) _record!.Read();
        else if (peer == MembershipView.Coordinator) GoOut(Excluded);
    }

    // The record, between members.

    private void SendView(NodeId to) => SendView(to, _machine!.Revision, ViewRecord.Write(_machine.View!));

    private void SendView(NodeId to, long revision, ReadOnlySpan<byte> record) => Send(to, MessageType.ViewChange, revision, record);

    private void Send(NodeId to, MessageType type, long revision, ReadOnlySpan<byte> record)
    {
        record.CopyTo(_fabric.Begin(to, record.Length));
        _fabric.Commit(new FrameHeader { Type = type, Requestor = NodeId.None, Argument0 = (ulong)revision });
    }

    private void OnProposal(NodeId from, long revision, MembershipView view)
    {
        if (IsDecidedByMajority || Self != MembershipView.Coordinator) throw new ProtocolViolationException($"{from} proposes a view to {Self}, which keeps no record");
        if (_machine is null || Find(from) is null) return;
        // Whoever was overtaken gets what is there.
        if (revision == _machine.Revision)
        {
            MembershipView current = _machine.View!;
            bool isNext = view.Number.Value == current.Number.Value + 1 && current.CanBeFollowedBy(view) && view.NextId >= current.NextId;
            if (!isNext || view.Find(Self) is null) throw new ProtocolViolationException($"{from} proposes view {view.Number.Value}, which makes no sense");
            OnRecord(revision + 1, view);
        }
        if (_fabric.HasSession(from)) SendView(from);
    }

    /// <summary>The coordinator's own: the record is what its machine has.</summary>
    private sealed class CoordinatorRecord(ClusterMembership membership) : IViewRecord
    {
        public void Read()
        {
        }

        public void Propose(long revision, MembershipView view) => membership.OnRecord(revision + 1, view);
    }

    /// <summary>The coordinator has the record, and answers by ViewChange.</summary>
    private sealed class RemoteRecord(ClusterMembership membership) : IViewRecord
    {
        public void Read()
        {
            if (membership._fabric.IsConnected(MembershipView.Coordinator)) membership.AskMember(MembershipView.Coordinator);
            else membership.AskWithoutSession(proposedOn: 0); // one of the two agents may be another one now
        }

        public void Propose(long revision, MembershipView view)
        {
            if (!membership._machine!.IsMember)
            {
                membership.AskWithoutSession(proposedOn: revision);
                return;
            }
            // What cannot go now would be overtaken; the machine proposes again.
            if (!membership._fabric.IsConnected(MembershipView.Coordinator)) return;
            membership.Send(MembershipView.Coordinator, MessageType.ProposeView, revision, ViewRecord.Write(view));
        }
    }
}
