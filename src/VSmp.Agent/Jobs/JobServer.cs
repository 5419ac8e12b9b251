// SPDX-License-Identifier: Apache-2.0
using System.Runtime.CompilerServices;
using System.Security.Cryptography;
using System.Text;
using VSmp.Agent.Checkpointing;
using VSmp.Agent.Control;
using VSmp.Agent.Fabric;
using VSmp.Agent.Guests;
using VSmp.Agent.Interop;
using VSmp.Agent.Paging;
using VSmp.Agent.Recovery;
using VSmp.Coherence;
using VSmp.Coherence.Lazy;
using VSmp.Coherence.Messages;
using VSmp.Coherence.Placement;
using VSmp.Coherence.Protocols;
using ProtocolViolationException = VSmp.Coherence.ProtocolViolationException;

namespace VSmp.Agent.Jobs;

/// <summary>
/// The jobs of a node: those that it leads, and those that it has ranks or homes of. Takes calls from ranks to leaders and answers
/// back; makes and drops regions. Owned by the reactor.
/// </summary>
/// <remarks>This file: the leader's side. JobServer.Regions.cs: where it has regions made. JobServer.Nodes.cs: the side of the nodes. JobServer.Restoring.cs: jobs
/// that an agent before this one led. JobServer.Checkpoints.cs: checkpoints. JobServer.Notices.cs: lazy release consistency. JobServer.Remote.cs: ranks on other hosts than their vsmp spmd.</remarks>
internal sealed partial class JobServer(NodeId self, Reactor reactor, Pager pager, IFabric fabric, Capacity capacity, Peers peers, RecoveryServer recovery,
    CheckpointServer checkpoints, AgentFolder folder) : ILeadingNode
{
    private const string DefaultRegion = "region";

    private readonly Dictionary<JobId, LedJob> _led = [];
    private ulong _lastJob;
    private ulong _lastRegion;

    /// <summary>How often this node's agent has been started again: numbers that those before have given are not given again.</summary>
    public uint Incarnation
    {
        init => _lastJob = _lastRegion = (ulong)value << 32;
    }

    /// <inheritdoc/>
    public RegionId NewRegionId() => RegionId.Create(self, ++_lastRegion);

    /// <summary>Opens a job that this node leads.</summary>
    /// <param name="request">What is wanted.</param>
    /// <param name="userId">Who wants it.</param>
    /// <param name="processId">With which <c>vsmp spmd</c>.</param>
    /// <param name="series">Its checkpoints, if it wants any; the job's from now on, unless it cannot be.</param>
    /// <param name="observer">Hears of it.</param>
    /// <exception cref="ControlException">It cannot be: a node is not there, the protocol is not known.</exception>
    public JobTicket Begin(JobRequest request, uint userId, int processId, CheckpointSeries? series, IRunObserver observer)
    {
        if (request.Ranks is < 1 or > JobLimits.MaxRanks) throw new ControlException($"a job has 1 to {JobLimits.MaxRanks} ranks", ExitCodes.Usage);
        string protocol = request.Protocol ?? ProtocolCatalog.Names[0];
        if (!ProtocolCatalog.Names.Contains(protocol))
        {
            throw new ControlException($"there is no protocol {protocol}: there is {string.Join(", ", ProtocolCatalog.Names)}", ExitCodes.Usage);
        }
        bool isMirrored = request.Redundancy == Redundancy.Mirror;
        if (isMirrored && protocol == LazyRelease.Name)
        {
            throw new ControlException($"regions under the protocol {protocol} cannot be mirrored: say --redundancy none, or another --protocol", ExitCodes.Usage);
        }
        if (request.Checkpoint is not null && protocol == LazyRelease.Name)
        {
            throw new ControlException($"regions under the protocol {protocol} cannot be checkpointed: say another --protocol", ExitCodes.Usage);
        }
        NodeId[] nodes = request.Nodes is { Count: > 0 } names ? [.. names.Select(NodeOf)] : [.. peers.All.Where(p => IsUp(p.Node) && !p.IsDraining).OrderBy(p => p.Name, NaturalOrder.Instance).Select(p => p.Node)];
        if (nodes.Distinct().Count() != nodes.Length) throw new ControlException("a node is named twice", ExitCodes.Usage);
        if ((request.Ranks + nodes.Length - 1) / nodes.Length > PagedRegion.MaxMappings)
        {
            throw new ControlException($"{request.Ranks} ranks on {nodes.Length} nodes: a node runs {PagedRegion.MaxMappings} ranks of a job at most", ExitCodes.Usage);
        }
        NodeId[] placement = [.. Enumerable.Range(0, request.Ranks).Select(rank => nodes[rank % nodes.Length])];
        string token = Convert.ToHexString(RandomNumberGenerator.GetBytes(16));
        JobId id = JobId.Create(self, ++_lastJob);
        LedJob led = new(this, new JobHeader(JobHeader.CurrentFormat, id.Value, token, request.Name ?? DefaultRegion, protocol, isMirrored, [.. placement.Select(node => node.Value)],
            [.. nodes.Select(node => node.Value)], request.Program, userId, processId, request.Checkpoint,
            request is { Command: { } command, Directory: { } directory } ? new SavedRun(command, directory, request.Name, protocol, isMirrored) : null), observer);
        OpenSeries(led, series);
        _led.Add(id, led);
        if (!led.IsLazy) Record(led, led.Job.Restored > 0 ? led.Save() : null);
        return TicketOf(led);
    }

    /// <summary>A rank has ended, says whoever started it.</summary>
    public void OnRankEnded(JobId job, int rank, string how)
    {
        if (_led.TryGetValue(job, out LedJob? led) && rank >= 0 && rank < led.Job.Size) led.OnRankGone(rank, how);
    }

    /// <summary>The job is over, as far as whoever began it is concerned: what is left of it is ended.</summary>
    public void End(JobId job)
    {
        if (!_led.TryGetValue(job, out LedJob? led)) return;
        if (led.Job.RanksLeft > 0)
        {
            foreach (NodeId node in led.Placement.Distinct()) SendAbort(node, job, "vsmp spmd has ended");
            for (int rank = 0; rank < led.Job.Size; rank++) led.OnRankGone(rank, $"rank {rank} lost vsmp spmd, which had started it");
        }
        if (led.Making is { Plan: not null } making)
        {
            foreach (NodeId node in making.Nodes) SendDetach(node, making.Region.Id); // they may have made it, or be about to
        }
        GiveUpCheckpoint(led, "the job has ended");
        led.TellWanters(0, "the job has ended");
        led.StopRecording();
        _led.Remove(job);
        if (led.Job is { RanksLeft: 0, IsBroken: false }) led.Series?.OnDone();
        led.Series?.Dispose();
    }

    /// <summary>A peer is out of the view: jobs that need it cannot go on. Where it was only home of part of a job's memory, that is recovered.</summary>
    /// <param name="peer">Which.</param>
    /// <param name="text">That, and why.</param>
    public void OnPeerLost(NodeId peer, string text)
    {
        foreach (LedJob led in _led.Values.ToArray())
        {
            led.Series?.OnNodeLost();
            if (led.Nodes.Contains(peer)) OnNodeLost(led, peer, text);
        }
        OnLeaderLost(peer, text);
    }

    /// <summary>The agent of a peer was started again. What the one before was asked, or had asked, is asked again; jobs go on, but those of which too little outlives it.</summary>
    /// <param name="peer">Which.</param>
    /// <param name="text">That.</param>
    public void OnPeerRestarted(NodeId peer, string text)
    {
        foreach (LedJob led in _led.Values.ToArray())
        {
            if (!led.Nodes.Contains(peer)) continue;
            if (led.EndsWithAgent(peer)) OnNodeLost(led, peer, text);
            else LeaveOut(led, peer, text);
        }
        OnLeaderRestarted(peer, text);
    }

    /// <summary>A peer has said what it has, and may be asked for things: that of which it was waited for, or that it has missed.</summary>
    public void OnPeerReturned(NodeId peer)
    {
        foreach (LedJob led in _led.Values.ToArray())
        {
            if (led.BrokenBecause is { } text && led.HasRanks(peer)) SendAbort(peer, led.Job.Id, text);
            else PlanWaiting(led);
        }
        foreach (NodeJob job in _here.Values.Where(j => j.Id.Leader == peer))
        {
            foreach ((int rank, string how) in job.Gone) SendGone(job.Id, rank, how);
            job.AskToRepeat();
        }
    }

    private void OnNodeLost(LedJob led, NodeId peer, string text)
    {
        if (led.IsBound(peer)) Break(led, peer, $"{text}; ranks of the job ran there: the job ends");
        else if (led.IsLazy) Break(led, peer, $"{text}; memory of the job was there, which under the protocol {led.Job.Protocol} cannot be recovered: the job ends");
        else LeaveOut(led, peer, text); // its regions that are there are recovered
    }

    /// <summary>The region that is being made is planned anew: a node of it is no more, or its agent is another one, which knows nothing of it.</summary>
    private void LeaveOut(LedJob led, NodeId peer, string text)
    {
        if (led.Making is not { IsWaiting: false } making) return;
        making.Refused.Add(text);
        making.Made.Remove(peer);
        making.Rounds = 0;
        making.Awaited.Remove(peer);
        Proceed(led, making);
    }

    /// <summary>A job cannot go on.</summary>
    private void Break(LedJob led, NodeId lost, string text)
    {
        if (led.BrokenBecause is not null) return;
        CancelCheckpoint(led, text);
        led.OnLost(text);
        foreach (NodeId node in led.Placement.Distinct())
        {
            if (node != lost) SendAbort(node, led.Job.Id, text);
        }
        for (int rank = 0; rank < led.Job.Size; rank++)
        {
            if (led.Placement[rank] != lost) continue;
            led.OnRankGone(rank, text);
            if (led.IsRemote(rank)) led.Observer.OnRankEnded(rank, isSignaled: false, ExitCodes.AgentLost, text);
        }
        if (led.Making is not { } making) return;
        making.Lost = text;
        if (making.Awaited.Remove(lost)) Proceed(led, making);
    }

    /// <inheritdoc/>
    public void GoBack(LedJob led, string why) => Break(led, NodeId.None, $"{why}: all ranks go back to the checkpoint");

    /// <inheritdoc/>
    public void Fail(LedJob led, string why) => Break(led, NodeId.None, $"{why}, and with it memory of the job; no other node has room for what is left of that: the job ends");

    /// <inheritdoc/>
    public void SendReply(LedJob led, int rank, in GuestMessage reply, ReadOnlySpan<byte> data)
    {
        NodeId node = led.Placement[rank];
        if (node == self) OnReply(led.Job.Id, rank, in reply, data);
        else SendRankMessage(node, MessageType.JobReply, led.Job.Id, rank, in reply, data);
    }

    private bool IsUp(NodeId node) => node == self || peers.IsUp(node);

    private NodeId NodeOf(string name)
    {
        Peer peer = peers.All.FirstOrDefault(p => p.Name == name)
            ?? throw new ControlException($"there is no node {name} in the cluster: there is {string.Join(", ", peers.All.Select(p => p.Name))}", ExitCodes.Usage);
        return IsUp(peer.Node) ? peer.Node : throw new ControlException($"node {name} is not reachable", ExitCodes.NoAgent);
    }

    /// <summary>A process that called itself a rank is gone; which number it gave itself, and where, is its own word.</summary>
    private void OnRankGone(NodeId node, JobId job, int rank, string how)
    {
        if (_led.TryGetValue(job, out LedJob? led) && rank >= 0 && rank < led.Job.Size && led.Placement[rank] == node) led.OnRankGone(rank, how);
    }

    private void OnCall(NodeId peer, JobId job, int rank, in GuestMessage call, ReadOnlySpan<byte> data)
    {
        if (!_led.TryGetValue(job, out LedJob? led))
        {
            Refuse(peer, job, rank, in call, Errno.ECONNRESET, "the job is over");
            return;
        }
        if (rank < 0 || rank >= led.Job.Size || led.Placement[rank] != peer)
        {
            Refuse(peer, job, rank, in call, Errno.EACCES, $"the job has no rank {rank} at node {peers.NameOf(peer)}");
            return;
        }
        if (call.Type == GuestRequest.Join && !CryptographicOperations.FixedTimeEquals(data, Encoding.UTF8.GetBytes(led.Token)))
        {
            Refuse(peer, job, rank, in call, Errno.EACCES, "VSMP_JOB is not the token of this job");
            return;
        }
        led.OnCall(rank, in call, data);
    }

    private void Refuse(NodeId peer, JobId job, int rank, in GuestMessage call, int errno, string text)
    {
        GuestMessage reply = new()
        {
            Magic = GuestMessage.MagicValue,
            Version = GuestMessage.CurrentVersion,
            Type = call.Type | GuestRequest.Reply,
            Serial = call.Serial,
            Status = errno,
        };
        byte[] words = Encoding.UTF8.GetBytes(text);
        if (peer == self) OnReply(job, rank, in reply, words);
        else SendRankMessage(peer, MessageType.JobReply, job, rank, in reply, words);
    }

    private void SendRankMessage(NodeId node, MessageType type, JobId job, int rank, in GuestMessage message, ReadOnlySpan<byte> data)
    {
        if (peers.Find(node) is null) return; // its loss ends the job
        byte[] payload = new byte[GuestMessage.Bytes + data.Length];
        Unsafe.WriteUnaligned(ref payload[0], message);
        data.CopyTo(payload.AsSpan(GuestMessage.Bytes));
        Send(node, new FrameHeader { Type = type, Argument0 = job.Value, Argument1 = (ulong)rank }, payload);
    }

    private void SendDetach(NodeId node, RegionId region)
    {
        if (node == self) OnDetach(region);
        else if (peers.IsUp(node)) Send(node, new FrameHeader { Type = MessageType.JobDetach, Region = region }, []);
    }

    private void SendAbort(NodeId node, JobId job, string text)
    {
        if (node == self) OnAbort(job, text);
        else if (peers.IsUp(node)) Send(node, new FrameHeader { Type = MessageType.JobAbort, Argument0 = job.Value }, Encoding.UTF8.GetBytes(text));
    }

    private void Send(NodeId node, FrameHeader header, ReadOnlySpan<byte> payload)
    {
        header.Requestor = self;
        header.Network = MessageTypes.NetworkOf(header.Type);
        payload.CopyTo(fabric.Begin(node, payload.Length));
        fabric.Commit(in header);
    }
}
