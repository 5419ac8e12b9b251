// SPDX-License-Identifier: Apache-2.0
using System.Text;
using System.Text.Json;
using VSmp.Agent.Cli;
using VSmp.Agent.Control;
using VSmp.Agent.Fabric;
using VSmp.Agent.Interop;
using VSmp.Coherence;
using VSmp.Coherence.Messages;
using ProtocolViolationException = VSmp.Coherence.ProtocolViolationException;

namespace VSmp.Agent.Jobs;

/// <content>
/// Ranks on other hosts than their <c>vsmp spmd</c>: the leader asks their node, whose agent starts a process that starts them (Cli/RanksCommand.cs)
/// and passes back what they print and how they end. Each piece of output is acknowledged when <c>vsmp spmd</c> has it, and the next is not
/// taken before.
/// </content>
internal sealed partial class JobServer
{
    private const uint OutputEnd = 3, OutputSignal = 4; // beside the streams (RankStream)

    private readonly Dictionary<JobId, RankStarter> _starters = [];
    private uint _lastOutput;

    /// <summary>The leader: has the ranks' nodes start them.</summary>
    /// <exception cref="ControlException">A rank is not of the job.</exception>
    public void StartRanks(JobId job, uint userId, uint groupId, RankProgram program)
    {
        if (!_led.TryGetValue(job, out LedJob? led)) throw new ControlException("the job is over");
        if (program.Ranks.Any(rank => rank < 0 || rank >= led.Job.Size || led.Placement[rank] == self))
        {
            throw new ControlException("a rank to be started on another host is not on one");
        }
        led.StopRecording(); // what they print, and how they end, goes through this agent, and is recorded nowhere
        foreach (IGrouping<NodeId, int> group in program.Ranks.GroupBy(rank => led.Placement[rank]))
        {
            if (!peers.IsUp(group.Key)) throw new ControlException($"node {peers.NameOf(group.Key)} is lost", ExitCodes.AgentLost);
            RankOrders orders = new(job.Value, led.Token, userId, groupId, led.Job.Size, program with { Ranks = [.. group] });
            led.RemoteRanks.UnionWith(group);
            Send(group.Key, new FrameHeader { Type = MessageType.JobStart, Argument0 = job.Value },
                JsonSerializer.SerializeToUtf8Bytes(orders, ControlJson.Default.RankOrders));
        }
    }

    /// <summary>The leader: passes a signal on to ranks on other hosts.</summary>
    public void SignalRanks(JobId job, int signal)
    {
        if (!_led.TryGetValue(job, out LedJob? led)) return;
        foreach (NodeId node in led.RemoteRanks.Select(rank => led.Placement[rank]).Distinct())
        {
            if (peers.IsUp(node)) Send(node, new FrameHeader { Type = MessageType.JobSignal, Argument0 = job.Value, Count = (uint)signal }, []);
        }
    }

    /// <summary>The node: the process that it has started comes for its orders.</summary>
    /// <exception cref="ControlException">It is not one of those.</exception>
    public RankOrders TakeRanks(int processId, IRunObserver connection)
    {
        RankStarter starter = StarterOf(processId);
        starter.Connect(connection);
        return starter.Orders;
    }

    /// <summary>The node: passes on what a rank printed.</summary>
    /// <returns>Ends when <c>vsmp spmd</c> has it.</returns>
    public Task PassOutput(int processId, int rank, int stream, byte[] data)
    {
        RankStarter starter = StarterOf(processId);
        JobId job = new(starter.Orders.Job);
        if (!RankStream.IsValid((uint)stream) || data.Length > FrameHeader.MaxPayloadBytes || !starter.RanksLeft.Contains(rank) || !peers.IsUp(job.Leader))
        {
            return Task.CompletedTask; // nobody is there to read it any more
        }
        var passedOn = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        starter.OnTheWay.Add(++_lastOutput, passedOn);
        SendOutput(job, rank, (uint)stream, _lastOutput, 0, data);
        return passedOn.Task;
    }

    /// <summary>The node: a rank that its process has started has ended.</summary>
    public void OnRemoteRankEnded(int processId, int rank, bool isSignaled, int status, string text) =>
        EndRemoteRank(StarterOf(processId), rank, isSignaled, status, text);

    private RankStarter StarterOf(int processId) => _starters.Values.FirstOrDefault(s => s.ProcessId == processId)
        ?? throw new ControlException("this agent has not started you to start ranks", ExitCodes.Refused);

    private void EndRemoteRank(RankStarter starter, int rank, bool isSignaled, int status, string text)
    {
        JobId job = new(starter.Orders.Job);
        if (!starter.RanksLeft.Remove(rank) || !peers.IsUp(job.Leader)) return;
        SendOutput(job, rank, isSignaled ? OutputSignal : OutputEnd, 0, status, Encoding.UTF8.GetBytes(text));
    }

    private void SendOutput(JobId job, int rank, uint kind, uint number, int status, ReadOnlySpan<byte> data) => Send(job.Leader, new FrameHeader
    {
        Type = MessageType.JobOutput,
        Argument0 = job.Value,
        Argument1 = (ulong)rank,
        Count = kind,
        Transaction = number,
        PageVersion = new PageVersion((uint)status),
    }, data);

    private void OnRemoteFrame(NodeId peer, JobId job, in FrameHeader header, ReadOnlySpan<byte> payload)
    {
        switch (header.Type)
        {
            case MessageType.JobStart:
                RequireLeader(peer, job);
                OnStart(job, payload);
                break;
            case MessageType.JobOutput:
                OnOutput(peer, job, header, payload);
                break;
            case MessageType.JobOutputAck:
                RequireLeader(peer, job);
                if (_starters.TryGetValue(job, out RankStarter? starter) && starter.OnTheWay.Remove(header.Transaction, out TaskCompletionSource? passedOn))
                {
                    passedOn.SetResult();
                }
                break;
            case MessageType.JobInput:
                RequireLeader(peer, job);
                OnInput(job, header.Argument1, payload);
                break;
            case MessageType.JobInputAck:
                OnInputTaken(peer, job, header.Argument1);
                break;
            case MessageType.JobSignal:
                RequireLeader(peer, job);
                if (_starters.TryGetValue(job, out RankStarter? signaled)) signaled.Signal((int)header.Count);
                break;
        }
    }

    private void OnStart(JobId job, ReadOnlySpan<byte> payload)
    {
        RankOrders? orders;
        try { orders = JsonSerializer.Deserialize(payload, ControlJson.Default.RankOrders); }
        catch (JsonException) { orders = null; }
        if (orders is null || orders.Job != job.Value || _starters.ContainsKey(job)) throw new ProtocolViolationException($"orders for {job} make no sense");
        string node = peers.NameOf(self);
        string? refusal = null;
        int pid = -1;
        if (Libc.GetEffectiveUserId() is not 0 and var own && own != orders.UserId)
        {
            refusal = $"the agent of node {node} runs as user {own} and cannot start ranks for user {orders.UserId}: run it as root, or vsmp spmd as its user";
        }
        else
        {
            pid = Daemons.StartRanks(folder, orders.UserId, orders.GroupId);
            if (pid < 0) refusal = $"node {node} cannot start ranks: {Errno.Text(-pid)}";
        }
        var process = pid > 0 ? ProcessControl.Open(pid) : null;
        if (process is null)
        {
            foreach (int rank in orders.Program.Ranks)
            {
                SendOutput(job, rank, OutputEnd, 0, ExitCodes.RunFailed, Encoding.UTF8.GetBytes(refusal ?? $"node {node} cannot watch the ranks that it starts"));
            }
            return;
        }
        RankStarter starter = new(orders, pid, process);
        _starters.Add(job, starter);
        reactor.Watch((int)process.DangerousGetHandle(), EpollEvents.Readable, new StarterWatch(this, starter));
    }

    private void OnStarterEnded(RankStarter starter)
    {
        reactor.Unwatch((int)starter.Process.DangerousGetHandle());
        starter.Process.Dispose();
        _ = ProcessControl.Reap(starter.ProcessId);
        _starters.Remove(new JobId(starter.Orders.Job));
        foreach (TaskCompletionSource passedOn in starter.OnTheWay.Values) passedOn.TrySetResult();
        string node = peers.NameOf(self);
        foreach (int rank in starter.RanksLeft.ToArray())
        {
            EndRemoteRank(starter, rank, isSignaled: false, ExitCodes.RunFailed,
                $"rank {rank} could not be run on {node}: the reason is in {folder.LogFile} there (may user {starter.Orders.UserId} use the agent? see --group)");
        }
    }

    private void OnOutput(NodeId peer, JobId job, FrameHeader header, ReadOnlySpan<byte> payload)
    {
        if (!_led.TryGetValue(job, out LedJob? led) || header.Argument1 >= (ulong)led.Job.Size || led.Placement[header.Argument1] != peer)
        {
            SendAbort(peer, job, "the job is over");
            AcknowledgeOutput(peer, job, header.Transaction); // nobody will read it
            return;
        }
        int rank = (int)header.Argument1;
        if (RankStream.IsValid(header.Count))
        {
            led.Observer.OnRankOutput(rank, (int)header.Count, payload.ToArray(),
                () => reactor.Post(() => AcknowledgeOutput(peer, job, header.Transaction)));
            return;
        }
        string how = Encoding.UTF8.GetString(payload);
        led.OnRankGone(rank, how);
        led.Observer.OnRankEnded(rank, header.Count == OutputSignal, (int)header.PageVersion.Value, how);
    }

    private void AcknowledgeOutput(NodeId peer, JobId job, uint number)
    {
        if (peers.IsUp(peer)) Send(peer, new FrameHeader { Type = MessageType.JobOutputAck, Argument0 = job.Value, Transaction = number }, []);
    }

    /// <summary>Nobody acknowledges any more.</summary>
    private void ForgetOutput(NodeId leader)
    {
        foreach (RankStarter starter in _starters.Values.Where(s => new JobId(s.Orders.Job).Leader == leader))
        {
            foreach (TaskCompletionSource passedOn in starter.OnTheWay.Values) passedOn.TrySetResult();
            starter.OnTheWay.Clear();
        }
    }

    private sealed class StarterWatch(JobServer server, RankStarter starter) : IReactorHandler
    {
        public void OnReady(EpollEvents events) => server.OnStarterEnded(starter);
    }
}
