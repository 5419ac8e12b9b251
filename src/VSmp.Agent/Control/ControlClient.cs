// SPDX-License-Identifier: Apache-2.0
using System.Text.Json;
using VSmp.Agent.Interop;

namespace VSmp.Agent.Control;

/// <summary>
/// The command's end of a control socket. Calls block; they may come from several threads. A thread of its own reads, so that a
/// run hears at once of what happens to it. A program's run goes on when the agent was killed and its keeper starts it again.
/// </summary>
internal sealed partial class ControlClient : IDisposable
{
    private const int MaxProgramBytes = 60_000; // fits into a request, and into a frame
    private const int ExitMilliseconds = 1_000, SliceMilliseconds = 50;
    private static readonly TimeSpan CallTimeout = TimeSpan.FromSeconds(20);

    private readonly AgentFolder _folder;
    private readonly ProcessIdentity? _keeper; // when we connected
    private readonly IRunListener? _listener;
    private readonly Thread _reader;
    private readonly Lock _lock = new();
    private ControlLink _reading; // what the reader reads from, under the lock
    private volatile ControlLink _link; // what calls go over; where it is broken, its Next says what comes after it
    private volatile bool _isDisposed;
    private int _lastId;

    private ControlClient(AgentFolder agent, UnixSocket socket, IRunListener? listener)
    {
        _folder = agent;
        _keeper = listener is null ? null : agent.Keeper();
        _listener = listener;
        _link = _reading = new ControlLink(socket, listener is null ? null : agent.Running());
        _reader = new Thread(Read) { Name = "control client", IsBackground = true };
        _reader.Start();
    }

    /// <summary>Connects to a local agent.</summary>
    /// <param name="agent">Its folder.</param>
    /// <param name="listener">Hears of what happens to a run that this connection begins, on the reading thread.</param>
    /// <exception cref="CommandException">The agent does not run (nor does its keeper start it again soon), or we may not use it.</exception>
    public static ControlClient Connect(AgentFolder agent, IRunListener? listener = null)
    {
        try
        {
            return new ControlClient(agent, Open(agent), listener);
        }
        catch (IOException e)
        {
            throw e.HResult is Errno.EACCES or Errno.EPERM
                ? new CommandException(ExitCodes.Refused,
                    $"you may not use agent {agent.Name}: it serves its owner, root, and the group it was started with (--group)")
                : new CommandException(ExitCodes.NoAgent,
                    $"agent {agent.Name} of cluster {agent.RunDirectory.Cluster} {(agent.Keeper() is null ? "does not run" : "is being started again")}");
        }
    }

    /// <summary>
    /// Whether the agent's process is known to have ended for good, though nothing may have been said of it yet: a guest that its keeper has killed
    /// for that reason may be seen to end first. For a connection with a listener.
    /// </summary>
    public bool IsAgentGone => _link.Agent is { IsAlive: false } && !MayResume;

    /// <inheritdoc cref="IAgentControl.GetStatusAsync"/>
    public ClusterStatus GetStatus() => Call(new() { Operation = ControlOperation.Status }).Status ?? throw Strange();

    /// <inheritdoc cref="IAgentControl.GetGuestsAsync"/>
    public IReadOnlyList<GuestStatus> GetGuests() =>
        Call(new() { Operation = ControlOperation.Guests }).Guests ?? throw Strange();

    /// <inheritdoc cref="IAgentControl.GetLossesAsync"/>
    public IReadOnlyList<LossStatus> GetLosses() =>
        Call(new() { Operation = ControlOperation.Losses }).Losses ?? throw Strange();

    /// <inheritdoc cref="IAgentControl.GetRegionsAsync"/>
    public IReadOnlyList<RegionStatus> GetRegions() =>
        Call(new() { Operation = ControlOperation.Regions }).Regions ?? throw Strange();

    /// <inheritdoc cref="IAgentControl.StopGuestAsync"/>
    public bool StopGuest(int processId) =>
        Call(new() { Operation = ControlOperation.StopGuest, ProcessId = processId }).Found ?? throw Strange();

    /// <inheritdoc cref="IAgentControl.BeginRunAsync"/>
    public RunTicket BeginRun(RunRequest request) =>
        Call(new() { Operation = ControlOperation.BeginRun, Run = request }).Ticket ?? throw Strange();

    /// <inheritdoc cref="IAgentControl.BeginJobAsync"/>
    public JobTicket BeginJob(JobRequest request) =>
        Call(new() { Operation = ControlOperation.BeginJob, Job = request }).Job ?? throw Strange();

    /// <inheritdoc cref="IAgentControl.ReportRankAsync"/>
    public void ReportRank(int rank, string how) =>
        _ = Repeat(new() { Operation = ControlOperation.ReportRank, Rank = rank, Reason = how });

    /// <inheritdoc cref="IAgentControl.StartRanksAsync"/>
    public void StartRanks(RankProgram program)
    {
        ControlRequest request = new() { Operation = ControlOperation.StartRanks, Program = program };
        int bytes = JsonSerializer.SerializeToUtf8Bytes(request, ControlJson.Default.ControlRequest).Length;
        if (bytes > MaxProgramBytes)
        {
            throw new CommandException(ExitCodes.Usage, $"arguments and environment are too long for ranks on other hosts: {bytes} bytes as they travel, "
                + $"{MaxProgramBytes} at most; start with fewer variables (env -i), or name nodes of this host with --on");
        }
        _ = Call(request);
    }

    /// <inheritdoc cref="IAgentControl.SignalRanksAsync"/>
    public void SignalRanks(int signal) => _ = Call(new() { Operation = ControlOperation.SignalRanks, Number = signal });

    /// <inheritdoc cref="IAgentControl.PassInputAsync"/>
    public void PassInput(int rank, byte[] data) => _ = Call(new() { Operation = ControlOperation.RankInput, Rank = rank, Data = data });

    /// <inheritdoc cref="IAgentControl.InputTakenAsync"/>
    public void InputTaken(int rank) =>
        _ = Call(new() { Operation = ControlOperation.RankInputTaken, Rank = rank }, Timeout.InfiniteTimeSpan); // behind output, too

    /// <inheritdoc cref="IAgentControl.TakeRanksAsync"/>
    public RankOrders TakeRanks() => Call(new() { Operation = ControlOperation.TakeRanks }).Orders ?? throw Strange();

    /// <inheritdoc cref="IAgentControl.PassOutputAsync"/>
    public void PassOutput(int rank, int stream, byte[] data) =>
        _ = Call(new() { Operation = ControlOperation.RankOutput, Rank = rank, Number = stream, Data = data }, Timeout.InfiniteTimeSpan);

    /// <inheritdoc cref="IAgentControl.RankEndedAsync"/>
    public void RankEnded(int rank, bool isSignaled, int status, string text) =>
        _ = Call(new() { Operation = ControlOperation.RankEnded, Rank = rank, IsSignaled = isSignaled, Number = status, Reason = text },
            Timeout.InfiniteTimeSpan); // behind output that nobody reads yet

    /// <inheritdoc cref="IAgentControl.EndJobAsync"/>
    public void EndJob()
    {
        try { _ = Repeat(new() { Operation = ControlOperation.EndJob }); }
        catch (CommandException) when (_hasEnded) { } // by an agent that was killed before it could say so
    }

    /// <inheritdoc cref="IAgentControl.GetRunAsync"/>
    public RunStatistics GetRun() => Repeat(new() { Operation = ControlOperation.GetRun }).Statistics ?? throw Strange();

    /// <summary>Closes the run: guests that are left are ended. While the agent is being started again, it is waited for.</summary>
    /// <returns>The run's statistics; null if they are lost with an agent that was killed when it had closed the run.</returns>
    public RunStatistics? EndRun()
    {
        try { return Repeat(new() { Operation = ControlOperation.EndRun }).Statistics ?? throw Strange(); }
        catch (CommandException) when (_hasEnded) { return null; }
    }

    /// <inheritdoc cref="IAgentControl.InjectAsync"/>
    public void Inject(FaultOrder order) => _ = Call(new() { Operation = ControlOperation.Inject, Fault = order });

    /// <inheritdoc cref="IAgentControl.GetFaultsAsync"/>
    public IReadOnlyList<FaultStatus> GetFaults() => Call(new() { Operation = ControlOperation.Faults }).Faults ?? throw Strange();

    /// <inheritdoc cref="IAgentControl.AskNodeAsync"/>
    public byte[] AskNode(string node, NodeQuestion question, byte[]? data = null) =>
        Call(new() { Operation = ControlOperation.AskNode, Node = node, Question = question, Data = data }).Data ?? throw Strange();

    /// <inheritdoc cref="IAgentControl.ShutdownAsync"/>
    public void Shutdown(string reason)
    {
        try { _ = Call(new() { Operation = ControlOperation.Shutdown, Reason = reason }); }
        catch (CommandException e) when (e.ExitCode == ExitCodes.NoAgent)
        {
            // It was quicker to go than to answer.
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        lock (_lock)
        {
            if (_isDisposed) return;
            _isDisposed = true;
            _reading.ShutDown();
        }
        _reader.Join();
        _reading.Dispose();
        _link.Dispose();
    }

    private static UnixSocket Open(AgentFolder agent)
    {
        long deadline = Environment.TickCount64 + StartMilliseconds;
        while (true)
        {
            try { return UnixSocket.Connect(agent.ControlSocket, UnixSocketType.Stream); }
            catch (IOException e) when (e.HResult is Errno.ENOENT or Errno.ECONNREFUSED && Environment.TickCount64 < deadline && agent.Keeper() is not null)
            {
                Thread.Sleep(RetryMilliseconds); // its agent is being started
            }
        }
    }

    private ControlReply Call(ControlRequest request, TimeSpan? timeout = null) =>
        TryCall(_link, request, timeout ?? CallTimeout) ?? throw new CommandException(ExitCodes.NoAgent, $"agent {_folder.Name} closed the connection");

    /// <returns>Null: the connection has broken before there was an answer.</returns>
    private ControlReply? TryCall(ControlLink link, ControlRequest request, TimeSpan timeout)
    {
        int id = Interlocked.Increment(ref _lastId);
        Task<ControlReply> answer = link.Expect(id);
        try
        {
            link.Send(request with { Id = id });
            if (Task.WaitAny([answer, link.Broken], timeout) < 0) throw Slow();
            ControlReply? reply = answer.IsCompleted ? answer.Result : link.Refusal;
            if (reply?.Error is not null) throw new CommandException(reply.ExitCode ?? ExitCodes.Failed, reply.Error);
            return reply;
        }
        finally
        {
            link.Forget(id);
        }
    }

    private void Read()
    {
        ControlLink? link = _reading, next = link;
        while (next is not null)
        {
            link = next;
            while (link.Receive(OnLine)) { }
            link.Break();
            next = Resume(link);
            link.SetNext(next);
            if (next is not null) link.Dispose();
        }
        if (_listener is null) return;
        AwaitNodeEnd(link);
        _listener.OnAgentLost();
    }

    /// <summary>
    /// An agent that has ended is not lost for good as long as its keeper is there, who may start it again, and who ends the guests if not; when it has
    /// started another, that one knows nothing of us. One that lives and has closed the connection wants no more of us.
    /// </summary>
    private void AwaitNodeEnd(ControlLink link)
    {
        if (_keeper is not { } keeper || link.Agent is not { } agent || _isDisposed || link.Refusal is not null || _isGivenUp) return;
        if (!ProcessControl.WaitForExit(agent, ExitMilliseconds)) return;
        while (!_isDisposed && _folder.Running() is null && !ProcessControl.WaitForExit(keeper, SliceMilliseconds)) { }
    }

    private bool OnLine(ControlLink link, ControlReply reply)
    {
        switch (reply.Event)
        {
            case ControlEvent.Message:
                _listener?.OnMessage(reply.Text ?? "");
                return true;
            case ControlEvent.GuestAttached:
                // A descriptor arrives with the first byte of its line, so it is here when the line is complete.
                if (!link.Descriptors.TryDequeue(out int userfaultfd)) return false;
                if (_listener is null) _ = Libc.Close(userfaultfd);
                else _listener.OnGuestAttached(reply.ProcessId ?? 0, userfaultfd);
                return true;
            case ControlEvent.GuestDetached:
                _listener?.OnGuestDetached(reply.ProcessId ?? 0);
                return true;
            case ControlEvent.RankOutput:
                _listener?.OnRankOutput(reply.Rank ?? -1, reply.Number ?? 0, reply.Data ?? []);
                return true;
            case ControlEvent.RankEnded:
                _listener?.OnRankEnded(reply.Rank ?? -1, reply.IsSignaled ?? false, reply.Number ?? 0, reply.Text ?? "");
                return true;
            case ControlEvent.RankInput:
                _listener?.OnRankInput(reply.Rank ?? -1, reply.Data ?? []);
                return true;
            case ControlEvent.RankInputTaken:
                _listener?.OnRankInputTaken(reply.Rank ?? -1);
                return true;
            case ControlEvent.JobLost:
                _listener?.OnJobLost();
                return true;
            case ControlEvent.SignalRanks:
                _listener?.OnSignalRanks(reply.Number ?? 0);
                return true;
        }
        if (reply.Ticket is { } run) _resume = new ControlRequest { Operation = ControlOperation.ResumeRun, Token = run.Token };
        if (reply.Job is { } job) _resume = new ControlRequest { Operation = ControlOperation.ResumeJob, Token = job.Token };
        link.OnReply(reply);
        return true;
    }

    private CommandException Slow() => new(ExitCodes.NoAgent,
        $"agent {_folder.Name} has not answered for {CallTimeout.TotalSeconds} s; see its log, or vsmp doctor");

    private CommandException Strange() => new(ExitCodes.Refused, $"agent {_folder.Name} gave an answer of another version of vsmp");
}
