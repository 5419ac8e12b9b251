// SPDX-License-Identifier: Apache-2.0
using System.Collections.Concurrent;
using System.Text.Json;
using VSmp.Agent.Interop;

namespace VSmp.Agent.Control;

/// <summary>
/// The command's end of a control socket. Calls block; they may come from several threads. A thread of its own reads, so that a
/// run hears at once of what happens to it.
/// </summary>
internal sealed class ControlClient : IDisposable
{
    private const int MaxProgramBytes = 60_000; // fits into a request, and into a frame
    private const int MaxLineBytes = 16 * 1024 * 1024;
    private const int ExitMilliseconds = 1_000, SliceMilliseconds = 50;
    private static readonly TimeSpan CallTimeout = TimeSpan.FromSeconds(20);

    private readonly string _agentName;
    private readonly ProcessIdentity? _agent, _keeper; // when we connected
    private readonly UnixSocket _socket;
    private readonly IRunListener? _listener;
    private readonly Thread _reader;
    private readonly Lock _sendLock = new();
    private readonly ConcurrentDictionary<int, TaskCompletionSource<ControlReply>> _pending = new();
    private readonly TaskCompletionSource _lost = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private volatile ControlReply? _refusal;
    private volatile bool _isDisposed;
    private int _lastId;

    private ControlClient(AgentFolder agent, UnixSocket socket, IRunListener? listener)
    {
        _agentName = agent.Name;
        (_agent, _keeper) = listener is null ? (null, null) : (agent.Running(), agent.Keeper());
        _socket = socket;
        _listener = listener;
        _reader = new Thread(Read) { Name = "control client", IsBackground = true };
        _reader.Start();
    }

    /// <summary>Connects to a local agent.</summary>
    /// <param name="agent">Its folder.</param>
    /// <param name="listener">Hears of what happens to a run that this connection begins, on the reading thread.</param>
    /// <exception cref="CommandException">The agent does not run, or we may not use it.</exception>
    public static ControlClient Connect(AgentFolder agent, IRunListener? listener = null)
    {
        try
        {
            return new ControlClient(agent, UnixSocket.Connect(agent.ControlSocket, UnixSocketType.Stream), listener);
        }
        catch (IOException e)
        {
            throw e.HResult is Errno.EACCES or Errno.EPERM
                ? new CommandException(ExitCodes.Refused,
                    $"you may not use agent {agent.Name}: it serves its owner, root, and the group it was started with (--group)")
                : new CommandException(ExitCodes.NoAgent,
                    $"agent {agent.Name} of cluster {agent.RunDirectory.Cluster} does not run");
        }
    }

    /// <summary>
    /// Whether the agent's process is known to have ended, though nothing may have been said of it yet: a guest that its keeper has killed
    /// for that reason may be seen to end first. For a connection with a listener.
    /// </summary>
    public bool IsAgentGone => _agent is { IsAlive: false };

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
        _ = Call(new() { Operation = ControlOperation.ReportRank, Rank = rank, Reason = how });

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
    public void EndJob() => _ = Call(new() { Operation = ControlOperation.EndJob });

    /// <inheritdoc cref="IAgentControl.GetRunAsync"/>
    public RunStatistics GetRun() => Call(new() { Operation = ControlOperation.GetRun }).Statistics ?? throw Strange();

    /// <inheritdoc cref="IAgentControl.EndRunAsync"/>
    public RunStatistics EndRun() => Call(new() { Operation = ControlOperation.EndRun }).Statistics ?? throw Strange();

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
        _isDisposed = true;
        _socket.ShutDown();
        _reader.Join();
        _socket.Dispose();
    }

    private ControlReply Call(ControlRequest request, TimeSpan? timeout = null)
    {
        TaskCompletionSource<ControlReply> answer = new(TaskCreationOptions.RunContinuationsAsynchronously);
        int id = Interlocked.Increment(ref _lastId);
        _pending[id] = answer;
        try
        {
            Send(request with { Id = id });
            int first = Task.WaitAny([answer.Task, _lost.Task], timeout ?? CallTimeout);
            if (first < 0)
            {
                throw new CommandException(ExitCodes.NoAgent,
                    $"agent {_agentName} has not answered for {CallTimeout.TotalSeconds} s; see its log, or vsmp doctor");
            }
            ControlReply? reply = answer.Task.IsCompleted ? answer.Task.Result : _refusal;
            if (reply is null) throw new CommandException(ExitCodes.NoAgent, $"agent {_agentName} closed the connection");
            if (reply.Error is not null) throw new CommandException(reply.ExitCode ?? ExitCodes.Failed, reply.Error);
            return reply;
        }
        finally
        {
            _ = _pending.TryRemove(id, out _);
        }
    }

    private void Send(ControlRequest request)
    {
        byte[] json = JsonSerializer.SerializeToUtf8Bytes(request, ControlJson.Default.ControlRequest);
        Array.Resize(ref json, json.Length + 1);
        json[^1] = (byte)'\n';
        lock (_sendLock)
        {
            for (int offset = 0; offset < json.Length;)
            {
                int sent = _socket.Send(json.AsSpan(offset), -1, wait: true);
                if (sent < 0) return; // the reader learns of it too, and with luck of the reason
                offset += sent;
            }
        }
    }

    private void Read()
    {
        byte[] buffer = new byte[16 * 1024];
        int buffered = 0;
        Queue<int> descriptors = new();
        List<int> received = [];
        while (true)
        {
            if (buffered == buffer.Length)
            {
                if (buffer.Length >= MaxLineBytes) break;
                Array.Resize(ref buffer, buffer.Length * 2);
            }
            received.Clear();
            int bytes = _socket.Receive(buffer.AsSpan(buffered), received);
            received.ForEach(descriptors.Enqueue);
            if (bytes <= 0) break;
            buffered += bytes;
            int start = 0, length;
            while ((length = buffer.AsSpan(start, buffered - start).IndexOf((byte)'\n')) >= 0)
            {
                if (!OnLine(buffer.AsSpan(start, length), descriptors)) goto Lost;
                start += length + 1;
            }
            buffer.AsSpan(start, buffered - start).CopyTo(buffer);
            buffered -= start;
        }
    Lost:
        while (descriptors.TryDequeue(out int descriptor)) _ = Libc.Close(descriptor);
        _lost.SetResult();
        if (_listener is null) return;
        AwaitNodeEnd();
        _listener.OnAgentLost();
    }

    /// <summary>
    /// An agent that has ended is not lost for good as long as its keeper is there, who may start it again, and who ends the guests if not. One that
    /// lives and has closed the connection wants no more of us.
    /// </summary>
    private void AwaitNodeEnd()
    {
        if (_keeper is not { } keeper || _agent is not { } agent || _isDisposed || _refusal is not null) return;
        if (!ProcessControl.WaitForExit(agent, ExitMilliseconds)) return;
        while (!_isDisposed && !ProcessControl.WaitForExit(keeper, SliceMilliseconds)) { }
    }

    private bool OnLine(ReadOnlySpan<byte> line, Queue<int> descriptors)
    {
        ControlReply? reply;
        try { reply = JsonSerializer.Deserialize(line, ControlJson.Default.ControlReply); }
        catch (JsonException) { return false; }
        if (reply is null) return false;
        switch (reply.Event)
        {
            case ControlEvent.Message:
                _listener?.OnMessage(reply.Text ?? "");
                return true;
            case ControlEvent.GuestAttached:
                // A descriptor arrives with the first byte of its line, so it is here when the line is complete.
                if (!descriptors.TryDequeue(out int userfaultfd)) return false;
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
            case ControlEvent.SignalRanks:
                _listener?.OnSignalRanks(reply.Number ?? 0);
                return true;
        }
        if (reply.Id is int id && _pending.TryGetValue(id, out TaskCompletionSource<ControlReply>? answer))
        {
            answer.SetResult(reply);
        }
        else if (reply.Error is not null) _refusal = reply; // of the connection as a whole
        return true;
    }

    private CommandException Strange() => new(ExitCodes.Refused, $"agent {_agentName} gave an answer of another version of vsmp");
}

/// <summary>Hears of a run on the client's side; called on the connection's reading thread.</summary>
internal interface IRunListener
{
    /// <summary>A line for the user.</summary>
    void OnMessage(string text);

    /// <summary>A guest attached; the copy of its userfaultfd is the listener's to close.</summary>
    void OnGuestAttached(int processId, int userfaultfd);

    /// <summary>A guest ended or detached.</summary>
    void OnGuestDetached(int processId);

    /// <summary>A rank on another host has printed something, or its node tells its figures: a <see cref="RankStream"/>.</summary>
    void OnRankOutput(int rank, int stream, byte[] data)
    {
    }

    /// <summary>A rank on another host has ended.</summary>
    void OnRankEnded(int rank, bool isSignaled, int status, string text)
    {
    }

    /// <summary>The ranks that this process has started are to get a signal.</summary>
    void OnSignalRanks(int signal)
    {
    }

    /// <summary>A rank that this process has started, or is to start, is to read this on its standard input; empty: nothing more.</summary>
    void OnRankInput(int rank, byte[] data)
    {
    }

    /// <summary>A rank on another host has taken a piece of its input: it may get the next.</summary>
    void OnRankInputTaken(int rank)
    {
    }

    /// <summary>The node is dead (where the agent has a keeper, that is gone as well), or has closed the connection, or
    /// <see cref="ControlClient.Dispose"/> was called.</summary>
    void OnAgentLost();
}
