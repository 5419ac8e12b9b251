// SPDX-License-Identifier: Apache-2.0
using System.Net;
using System.Runtime.InteropServices;
using VSmp.Agent.Adopting;
using VSmp.Agent.Checkpointing;
using VSmp.Agent.Checkpointing.Files;
using VSmp.Agent.Control;
using VSmp.Agent.Elasticity;
using VSmp.Agent.Fabric;
using VSmp.Agent.Fabric.FaultInjection;
using VSmp.Agent.Fabric.Verbs;
using VSmp.Agent.Guests;
using VSmp.Agent.Interop;
using VSmp.Agent.Jobs;
using VSmp.Agent.Keeping;
using VSmp.Agent.Membership;
using VSmp.Agent.Membership.Etcd;
using VSmp.Agent.Paging;
using VSmp.Agent.Recovery;
using VSmp.Coherence;
using VSmp.Coherence.Membership;
using VSmp.Coherence.Messages;

namespace VSmp.Agent;

/// <summary>One node of a cluster: puts the parts together, runs the reactor, takes everything down again in order.</summary>
internal sealed class AgentHost : IFrameReceiver, IDisposable
{
    private const long ReportPeriodMicroseconds = 200_000;

    /// <summary>A region's address space, in relation to all memory that it could get: room for fragmentation.</summary>
    private const ulong WindowFactor = 8;

    private const ulong LeastWindowBytes = 64ul << 30;
    /// <summary>How long a session with a node that is heard may be without a connection: something is wrong with the network between the two.</summary>
    private const long SessionLossMicroseconds = 20_000_000;

    private static readonly TimeSpan LeaveTimeout = TimeSpan.FromSeconds(1);

    /// <summary>A majority has to have gone over to the last view, before it can agree on another.</summary>
    private static readonly TimeSpan MajorityLeaveTimeout = TimeSpan.FromSeconds(3);

    private readonly AgentOptions _options;
    private readonly Reactor _reactor;
    private readonly List<IDisposable> _parts = []; // taken down in reverse order
    private readonly Capacity _capacity;
    private readonly Peers _peers = new();
    private PeerGate _gate = null!;
    private SessionFabric _fabric = null!;
    private ClusterMembership _membership = null!;
    private IPEndPoint _address = null!;
    private bool _isReady; // the parts are there; before that, peers are only taken note of
    private Pager _pager = null!;
    private Reservations _reservations = null!;
    private RecoveryServer _recovery = null!;
    private MirrorServer _mirrors = null!;
    private HomeMover _mover = null!;
    private DrainServer _drain = null!;
    private NodeQueries _queries = null!;
    private Runs _runs = null!;
    private CheckpointFiles _files = null!;
    private CheckpointServer _checkpoints = null!;
    private JobServer _jobs = null!;
    private GuestServer _guests = null!;
    private AgentControl _control = null!;
    private Sampler _sampler = null!;
    private GuestStops? _guestStops;
    private KeptNode? _left; // what a keeper has of the agent before this one
    private string? _ending;
    private int _exitCode = ExitCodes.Ok;

    private AgentHost(AgentOptions options)
    {
        _options = options;
        _reactor = new Reactor { RunsFirst = true, Stages = StageTrace.FromEnvironment(options.Name) };
        _capacity = new Capacity(options.MemoryBytes);
    }

    /// <summary>Runs an agent until it is told to stop.</summary>
    /// <returns>The exit code.</returns>
    /// <exception cref="CommandException">It cannot start; the message says why and what to do.</exception>
    public static async Task<int> RunAsync(AgentOptions options, CancellationToken cancel)
    {
        using var host = new AgentHost(options);
        Exception? failure = null;
        var thread = new Thread(() =>
        {
            try { host._reactor.Run(); }
#pragma warning disable CA1031 // the thread's last words: whatever it was ends the agent
            catch (Exception e)
#pragma warning restore CA1031
            {
                failure = e;
            }
        })
        { Name = "reactor" };
        try
        {
            host.Open();
            thread.Start();
            await host.BecomeMemberAsync(cancel).ConfigureAwait(false);
            await host._reactor.Ask(host.Build).ConfigureAwait(false);
        }
        catch (Exception e) when (ExplainFailure(e, options) is { } explained)
        {
            await host.StopAsync(thread).ConfigureAwait(false);
            throw explained;
        }
        using CancellationTokenRegistration registration = cancel.Register(() => host.ShutDown("the agent was told to stop"));
        options.OnReady(host._address);
        await Task.Run(thread.Join, CancellationToken.None).ConfigureAwait(false);
        if (failure is not null)
        {
            Log.Error($"the agent failed: {failure}");
            host.EndGuests("its agent failed");
            return ExitCodes.Failed;
        }
        return host._exitCode;
    }

    /// <inheritdoc/>
    public void OnFrame(NodeId peer, in FrameHeader header, ReadOnlySpan<byte> payload)
    {
        switch (header.Type)
        {
            case MessageType.DropRegion when _isReady && _jobs.OnForgotten(peer, header.Region):
                break;
            case MessageType.ReserveExtents or MessageType.ReserveReply or MessageType.ReleaseExtents or MessageType.DropRegion:
                // Before this node has reported its room, no peer that keeps to the rules asks for any.
                if (_isReady) _reservations.OnFrame(peer, in header, payload);
                break;
            case (>= MessageType.JobCall and <= MessageType.JobWrites) or (>= MessageType.JobStart and <= MessageType.JobInputAck):
                if (_isReady) _jobs.OnFrame(peer, in header, payload);
                break;
            case MessageType.RegionMirror or MessageType.RegionMirrored:
                if (_isReady) _mirrors.OnFrame(peer, in header);
                break;
            case (>= MessageType.RegionFreeze and <= MessageType.RegionThaw) or MessageType.RegionsHeld:
                if (_isReady) _recovery.OnFrame(peer, in header, payload);
                break;
            case >= MessageType.CheckpointOrder and <= MessageType.CheckpointLoaded:
                if (_isReady) _checkpoints.OnFrame(peer, in header, payload);
                break;
            case MessageType.NodeAsk or MessageType.NodeAnswer:
                if (_isReady) _queries.OnFrame(peer, in header, payload);
                break;
            case MessageType.NodeReport:
                if (payload.Length != NodeReport.Bytes) break;
                _peers.Find(peer)?.OnReport(MemoryMarshal.Read<NodeReport>(payload));
                if (_isReady) _jobs.PlanWaiting();
                break;
            default:
                if (!_isReady) break; // nothing was granted to anybody yet
                Message message = header.ToMessage();
                _pager.OnMessage(in message, payload);
                break;
        }
    }

    /// <inheritdoc/>
    public void OnPeerUp(NodeId peer)
    {
        if (_peers.Find(peer) is not { } p) return;
        p.IsConnected = true;
        p.IsUp = !p.IsReturning;
        if (_isReady && p.IsReturning) _recovery.AskHeld(peer);
        else if (_isReady) SendReport(peer);
    }

    /// <inheritdoc/>
    public void OnPeerDown(NodeId peer, string reason)
    {
        // Nothing is decided by that: the membership tells when the node may be treated as lost.
        if (_peers.Find(peer) is { } p) p.IsConnected = p.IsUp = false;
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        for (int i = _parts.Count - 1; i >= 0; i--) _parts[i].Dispose();
        _reactor.Stages?.Save();
        _reactor.Dispose();
    }

    /// <summary>What can be had without the others: memory and an address.</summary>
    private void Open()
    {
        _parts.Add(_options.Predecessor is null
            ? FramesMount.Create(_options.Folder.Frames, _options.MemoryBytes, isRecording: _options.Keeper is not null)
            : FramesMount.TakeOver(_options.Folder.Frames));
        _gate = new PeerGate(_options.Cluster, ClusterSecret.Load(_options.SecretFile), Log.Warn);
        _parts.Add(_gate);
        _address = Listen();
        ITransport transport = _options.Transport.Kind == TransportKind.Tcp
            ? new TcpTransport()
            : new VerbsTransport(_reactor, _address, _options.Transport.Device, Log.Warn);
        _gate.Transport = transport.Kind;
        _gate.Faults = _options.IsDevelopment ? new FaultPlan() : null;
        _fabric = new SessionFabric(_reactor, _gate, transport, new FabricOptions { LossTimeoutMicroseconds = SessionLossMicroseconds }, Log.Warn) { Faults = _gate.Faults };
        _parts.Add(_fabric);
        _membership = new ClusterMembership(_reactor, _fabric, _gate, this, Log.Info) { IdentityFile = _options.Folder.MemberFile };
        _membership.NodeJoined += OnNodeJoined;
        _membership.NodeLeft += OnNodeLeft;
        _membership.NodeRestarted += OnNodeRestarted;
        _membership.LeaseChanged += OnLeaseChanged;
        // The others have dropped what this node's guests had with them.
        _membership.Expelled += reason => ShutDown($"this node is in the cluster no more: {reason}", ExitCodes.AgentLost);
        _parts.Add(_membership);
        _gate.Start();
    }

    /// <summary>
    /// Where the agent before this one listened, if a keeper has started both: peers find the node where it was. Otherwise where it was told to; the
    /// keeper gets copies, so that the host goes on taking connections while no agent runs.
    /// </summary>
    private IPEndPoint Listen()
    {
        if (_options.Keeper is not { } keeper) return _gate.Listen(_options.Listen);
        _parts.Add(keeper);
        _left = KeptNode.Of(keeper.List());
        _parts.Add(_left);
        if (_left.Sockets is { } kept) return _gate.Listen(kept.Listener, kept.Datagrams);
        IPEndPoint address = _gate.Listen(_options.Listen);
        int error = keeper.Hold(KeptNode.SocketsKey, HoldKind.Other, [_gate.Descriptors.Listener, _gate.Descriptors.Datagrams], default);
        return error == 0 ? address : throw new IOException($"the keeper does not hold the sockets: {Errno.Text(error)}");
    }

    private async Task BecomeMemberAsync(CancellationToken cancel)
    {
        if (_options.Membership is { } etcd)
        {
            var store = new EtcdViewStore(etcd, _options.Cluster, _ => { }); // whether etcd can be reached, the membership says
            if (_options.Predecessor is { } last) await _membership.RestartAsync(last, store, etcd.ToString(), EtcdRecord.PresenceTimeToLive, cancel).ConfigureAwait(false);
            else await _membership.FoundOrJoinAsync(store, etcd.ToString(), _options.Name, _address, _options.MemoryBytes, EtcdRecord.PresenceTimeToLive).ConfigureAwait(false);
            return;
        }
        if (_options.Predecessor is { } before)
        {
            await _membership.RestartAsync(before).ConfigureAwait(false);
            return;
        }
        if (_options.Join is { } seed)
        {
            await _membership.JoinAsync(seed, _options.Name, _address, _options.MemoryBytes).ConfigureAwait(false);
            return;
        }
        await _reactor.Ask(() =>
        {
            _membership.Found(_options.Name, _address, _options.MemoryBytes);
            return true;
        }).ConfigureAwait(false);
    }

    /// <summary>The parts that need to know who we are. On the reactor's thread.</summary>
    private bool Build()
    {
        NodeId self = _membership.Self;
        _pager = new Pager(self, _reactor, _fabric, () => _peers.NodeLimit) { IsRecording = _options.Keeper is not null };
        _parts.Add(_pager);
        _reservations = new Reservations(self, _pager, _fabric, _capacity, _peers, _options.Folder.Frames);
        _recovery = new RecoveryServer(self, _pager, _fabric, _peers, _reservations);
        _recovery.OnViewAdopted(_fabric.View);
        _membership.ViewAdopted += _recovery.OnViewAdopted;
        _mirrors = new MirrorServer(self, _reactor, _pager, _fabric, _reservations, _recovery);
        _mover = new HomeMover(self, _reactor, _pager, _peers, _reservations, _recovery, _mirrors);
        _runs = new Runs(_capacity, _pager, _reactor, _options.Keeper is null ? null : _options.Folder.RunsFolder);
        _drain = new DrainServer(self, _reactor, _pager, _peers, _reservations, _runs, SendReports, ShutDown) { IsCoordinator = !_membership.IsDecidedByMajority && self == MembershipView.Coordinator };
        var memory = new MemoryFiles(Path.Combine(_options.Folder.Frames, "checkpoints"), bytes => _reactor.Ask(() => _capacity.TryAddCheckpoint(bytes)).GetAwaiter().GetResult(),
            bytes => _reactor.Post(() => _capacity.RemoveCheckpoint(bytes)), out ulong left);
        _ = _capacity.TryAddCheckpoint(left);
        _files = new CheckpointFiles(self, _options.CheckpointsFolder, _reactor, _peers, memory, (node, data) => _queries.Ask(node, NodeQuestion.CheckpointFile, data));
        _checkpoints = new CheckpointServer(self, _reactor, _pager, _fabric, _peers, _files) { Incarnation = _membership.Incarnation };
        _jobs = new JobServer(self, _reactor, _pager, _fabric, _capacity, _peers, _recovery, _checkpoints, _options.Folder) { Incarnation = _membership.Incarnation, IsRecording = _options.Keeper is not null };
        _pager.Progressed += _jobs.ContinueReleases;
        _pager.Progressed += _reservations.Continue;
        UnixSocket socket = UnixSocket.Listen(_options.Folder.GuestSocket, UnixSocketType.SequencedPacket, _options.GroupId);
        KeptGuests? kept = _options.Keeper is null ? null : new KeptGuests(_options.Keeper, _runs, _left!.NextKey);
        _guests = new GuestServer(_reactor, _pager, _reservations, _runs, _jobs, socket, OpenDevice(), _options.Name,
            _options.Folder.Frames, WindowExtents, kept);
        _guests.GuestsChanged += OnGuestsChanged;
        _parts.Add(_guests);
        _sampler = new Sampler(_reactor, _runs, _pager);
        _parts.Add(_sampler);
        _queries = new NodeQueries(self, _reactor, _fabric, _peers, new NodeAnswers(_pager, _peers, _capacity, _runs, _reservations, _recovery, _drain, _mover, new CheckpointRequests(_reactor, _pager, _recovery, _jobs, _checkpoints), _files).Answer);
        var parts = new AgentParts(_pager, _runs, _reservations, _jobs, _recovery, _mirrors, _drain, _queries, _peers, Report,
            SendReports, () => FabricStatistics.Of(_fabric, _pager), _membership,
            new FaultControl(_options, _gate.Faults, _peers, () => _membership.Self), _files);
        _control = new AgentControl(_options, _reactor, parts, ShutDown);
        _jobs.RegionsChanged += () => _reactor.Post(_control.FinishEnding); // not while a region is being dropped
        _parts.Add(new ControlServer(_options.Folder, _options.GroupId, _control));
        _reactor.AtTurnEnd(_pager.RecordLayouts); // before anybody hears of it
        _reactor.AtTurnEnd(_fabric.Flush); // requests go out before room is made
        _reactor.AtTurnEnd(_pager.OnTurnEnd);
        _reactor.AtTurnEnd(_checkpoints.OnTurnEnd);
        _reactor.AtTurnEnd(_fabric.Flush);
        _reactor.Every(ReportPeriodMicroseconds, SendReports);
        if (_left is not null) TakeOver(_left);
        _control.AwaitSupervisors();
        _isReady = true;
        AwaitReturning();
        KeepToLease();
        OnLeaseChanged(_membership.HasLease);
        SendReports();
        return true;
    }

    /// <summary>What an agent before this one has left here: as a member it is taken over, otherwise there can be nothing.</summary>
    private void TakeOver(KeptNode left)
    {
        KeeperClient keeper = _options.Keeper!;
        foreach (RunRecord run in RunRecord.ReadAll(_options.Folder.RunsFolder, Log.Warn)) RestoreRun(run);
        if (_options.Predecessor is null)
        {
            _jobs.DiscardLeft();
            _ = KeptGuests.End(keeper, left, left.Guests, "its agent was killed before it was a member of the cluster");
            left.Dispose();
            return;
        }
        _jobs.Restore();
        Log.Info(new NodeAdopter(keeper, left, new RegionAdopter(_pager, _capacity, _options.Folder.Frames), _runs, _guests, _jobs).Adopt());
        left.Dispose();
    }

    private void RestoreRun(RunRecord record)
    {
        if (_runs.Restore(record) is { Request.Job: { } membership } run) _jobs.BeginRun(run, membership);
    }

    private void OnNodeJoined(Member member) => _peers.Add(member.Id, member.Name, member.Address.ToString());

    /// <summary>A node is out of the view, and its guests are stopped: it is treated as lost from now on, not before.</summary>
    private void OnNodeLeft(Member member, string reason)
    {
        Log.Error($"node {member.Name} is lost: {reason}");
        if (_peers.Find(member.Id) is { } peer) peer.IsUp = false; // nothing is to be asked of it any more
        if (_isReady)
        {
            _checkpoints.OnPeerLost(member.Id, $"node {member.Name} is lost: {reason}");
            _jobs.OnPeerLost(member.Id, $"node {member.Name} is lost: {reason}");
            _reservations.OnPeerLost(member.Id);
            _queries.OnPeerLost(member.Id, $"node {member.Name} is gone");
        }
        _peers.Remove(member.Id);
        if (!_isReady) return;
        _recovery.OnNodeLost(member.Id, member.Name);
        _reservations.OnPeerReturned();
        _jobs.PlanWaiting();
    }

    /// <summary>
    /// The agent of a node is another one, with what the last had recorded: what was asked of that is answered here, or asked anew once it has said what it has.
    /// </summary>
    private void OnNodeRestarted(Member member)
    {
        string text = $"the agent of node {member.Name} was started again";
        Log.Warn(text);
        _peers.Find(member.Id)?.OnRestarted();
        if (!_isReady) return;
        _checkpoints.OnPeerLost(member.Id, text);
        _jobs.OnPeerRestarted(member.Id, text);
        _queries.OnPeerLost(member.Id, text);
        _recovery.OnNodeRestarted(member.Id);
        _reservations.OnPeerRestarted(member.Id);
    }

    /// <summary>Who takes the place of an agent before it asks all others what they have of its regions, and tells them what it has of theirs.</summary>
    private void AwaitReturning()
    {
        _recovery.Returned += OnReturned;
        Peer[] others = [.. _peers.All.Where(p => p.Node != _membership.Self)];
        if (_membership.Incarnation > 0)
        {
            foreach (Peer peer in others) peer.OnRestarted();
            _recovery.OnRestartedHere(others.Select(p => p.Node));
        }
        foreach (Peer peer in others.Where(p => p.IsReturning)) _recovery.OnNodeRestarted(peer.Node);
        _jobs.ContinueRestored();
    }

    private void OnReturned(NodeId node)
    {
        if (_peers.Find(node) is not { } peer) return;
        peer.OnReturned();
        SendReport(node);
        _reservations.OnPeerReturned();
        _jobs.OnPeerReturned(node);
    }

    /// <summary>Guests may run no more, or again: without a lease no fault is resolved.</summary>
    private void OnLeaseChanged(bool hasLease)
    {
        if (!_isReady) return;
        if (hasLease) _pager.Resume();
        else _pager.Pause();
    }

    /// <summary>The keeper that started this agent keeps guests within the lease; without one the agent does so itself.</summary>
    private void KeepToLease()
    {
        if (_options.Keeper is { } keeper)
        {
            // Nobody would stop the guests without a lease, nor keep them from reading zeros if this agent died.
            keeper.Lost += () => ShutDown("vsmp-keeper, which started this agent, is dead or does not answer", ExitCodes.AgentLost);
            keeper.Watch(_reactor);
            _membership.Lease = new KeeperLease(keeper);
        }
        else
        {
            _membership.Lease = _guestStops = new GuestStops(_reactor, _runs);
        }
    }

    private static CommandException? ExplainFailure(Exception e, AgentOptions options) => e switch
    {
        CommandException c => c,
        ClusterSecretException s => new CommandException(ExitCodes.Refused, s.Message),
        MembershipException m when options.Predecessor is not null => new CommandException(ExitCodes.AgentLost, m.Message),
        MembershipException m => new CommandException(m.Status switch
        {
            HandshakeStatus.NameTaken => ExitCodes.Taken,
            HandshakeStatus.Unreachable => ExitCodes.NoAgent,
            _ => ExitCodes.Refused,
        }, m.Message),
        ViewStoreException { Failure: StoreFailure.Unreachable or StoreFailure.OutcomeUnknown } v => new CommandException(ExitCodes.NoAgent, v.Message),
        ViewStoreException v => new CommandException(ExitCodes.Refused, v.Message),
        ArgumentException a => new CommandException(ExitCodes.Usage, a.Message),
        IOException { HResult: Errno.EADDRNOTAVAIL } i => new CommandException(ExitCodes.Usage, $"--listen: {i.Message}"),
        IOException { HResult: Errno.EADDRINUSE } i => new CommandException(ExitCodes.Taken, i.Message),
        InvalidDataException d => new CommandException(ExitCodes.Failed, $"agent {options.Name} cannot start: {d.Message}"),
        IOException i => new CommandException(ExitCodes.Failed, $"agent {options.Name} cannot start: {i.Message}"),
        _ => null,
    };

    private async Task StopAsync(Thread thread)
    {
        if (!thread.IsAlive) return;
        _reactor.Stop();
        await Task.Run(thread.Join).ConfigureAwait(false);
    }

    /// <summary>Guests that are not root get the device: /dev/userfaultfd makes descriptors that see faults in system calls too.</summary>
    private static int OpenDevice()
    {
        int device = Libc.Open("/dev/userfaultfd", Libc.O_RDWR | Libc.O_CLOEXEC, 0);
        if (device >= 0) return device;
        int error = Errno.Last;
        if (UserfaultfdProbe.TrySystemCall().Error == 0) return -1; // guests of the same user may use it as well
        throw new CommandException(ExitCodes.NotPermitted,
            $"userfaultfd is not permitted: cannot open /dev/userfaultfd: {Errno.Text(error)}; install the udev rule, or run the agent as root (see vsmp doctor)");
    }

    private int WindowExtents()
    {
        ulong pool = _options.MemoryBytes;
        foreach (Peer peer in _peers.All) pool += peer.Report.ContributedBytes;
        return (int)(Math.Max(LeastWindowBytes, pool * WindowFactor) / ExtentNumber.Bytes);
    }

    private NodeReport Report() => new()
    {
        ContributedBytes = _capacity.ContributedBytes,
        HomeBytes = _capacity.HomeBytes,
        CacheBytes = _capacity.CacheBytes,
        PrivateBytes = _sampler.PrivateBytes,
        UsedBytes = _sampler.UsedBytes,
        Guests = (ulong)_runs.Guests.Count(),
        MilliFaultsPerSecond = (ulong)(_sampler.FaultsPerSecond * 1000),
        IsDraining = _drain is { IsDraining: true } ? 1ul : 0,
    };

    private void SendReports()
    {
        foreach (Peer peer in _peers.All)
        {
            if (peer is { IsReturning: true, IsConnected: true }) _recovery.AskHeld(peer.Node); // again: it may not have been ready
            else SendReport(peer.Node);
        }
    }

    private void SendReport(NodeId peer)
    {
        if (peer == _membership.Self || !_peers.IsUp(peer)) return;
        NodeReport report = Report();
        ReadOnlySpan<byte> bytes = MemoryMarshal.AsBytes(new ReadOnlySpan<NodeReport>(in report));
        bytes.CopyTo(_fabric.Begin(peer, bytes.Length));
        FrameHeader header = new() { Type = MessageType.NodeReport, Requestor = _membership.Self, Count = 1, Network = VirtualNetwork.Request };
        _fabric.Commit(in header);
    }

    private void OnGuestsChanged()
    {
        _control.FinishEnding();
        _guestStops?.OnGuestsChanged();
        _options.Folder.WriteGuests(_runs.Guests.Select(g => g.Identity).OfType<ProcessIdentity>());
        if (_ending is not null && !_runs.Guests.Any()) StopReactor();
    }

    /// <summary>Ends the guests, then the agent. From any thread.</summary>
    private void ShutDown(string reason) => ShutDown(reason, ExitCodes.Ok);

    private void ShutDown(string reason, int exitCode) => _reactor.Post(() =>
    {
        if (_ending is not null) return;
        _ending = reason;
        _exitCode = exitCode;
        if (exitCode == ExitCodes.Ok) Log.Info($"shutting down: {reason}");
        else Log.Error($"shutting down: {reason}");
        if (!_isReady || !_runs.Guests.Any())
        {
            StopReactor();
            return;
        }
        foreach (Guest guest in _runs.Guests.ToArray()) guest.Kill(reason);
    });

    /// <summary>Leaves the cluster, then stops: the others need not wait to find out.</summary>
    private void StopReactor() => _ = Task.Run(async () =>
    {
        await _membership.LeaveAsync(_membership.IsDecidedByMajority ? MajorityLeaveTimeout : LeaveTimeout).ConfigureAwait(false);
        _reactor.Stop();
    });

    private void EndGuests(string why)
    {
        foreach (Guest guest in _runs.Guests.ToArray()) guest.Kill(why);
    }
}
