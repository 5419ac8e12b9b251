// SPDX-License-Identifier: Apache-2.0
using System.Text.Json;
using VSmp.Agent.Checkpointing;
using VSmp.Agent.Interop;

namespace VSmp.Agent.Control;

/// <summary>
/// One connection to the control socket. Requests are answered one after the other. A connection that has begun or resumed a run stays open
/// and is told what happens to it; when it breaks, its run is ended.
/// </summary>
/// <param name="reactor">The control thread.</param>
/// <param name="socket">The connection; owned.</param>
/// <param name="peer">Who connected.</param>
/// <param name="isAdministrator">Owner or root: may stop the agent and everybody's guests.</param>
/// <param name="agent">What answers.</param>
/// <param name="onClosed">Called on the control thread when the connection is over.</param>
internal sealed class ControlConnection(Reactor reactor, UnixSocket socket, PeerCredentials peer, bool isAdministrator,
    IAgentControl agent, Action<ControlConnection> onClosed) : IReactorHandler, IRunObserver
{
    /// <summary>Bytes of a request, with its newline.</summary>
    public const int MaxRequestBytes = 64 * 1024;

    /// <summary>What may wait for a peer that does not read, before it counts as gone.</summary>
    public const int MaxBacklogBytes = 8 * 1024 * 1024;

    private readonly byte[] _buffer = new byte[MaxRequestBytes]; // the control thread's, like all but the outbox
    private int _buffered;
    private bool _isAnswering;
    private string? _runToken;
    private ulong? _job;

    private readonly Lock _outboxLock = new();
    private readonly LinkedList<(byte[] Data, int Offset, int Descriptor, Action? Sent)> _outbox = new(); // under the lock, as the next three
    private long _outboxBytes;
    private bool _isClosed;
    private bool _isBroken;

    /// <summary>A message as it goes over the socket.</summary>
    public static byte[] Encode(ControlReply reply)
    {
        byte[] json = JsonSerializer.SerializeToUtf8Bytes(reply, ControlJson.Default.ControlReply);
        Array.Resize(ref json, json.Length + 1);
        json[^1] = (byte)'\n';
        return json;
    }

    /// <summary>Serves from now on. On the control thread.</summary>
    public void Start() => reactor.Watch(socket.Descriptor, EpollEvents.Readable, this);

    /// <inheritdoc/>
    public void OnReady(EpollEvents events)
    {
        if ((events & EpollEvents.Writable) != 0) Flush();
        // Hung up means that nobody is there to read an answer, whatever is still to be read from them.
        if ((events & (EpollEvents.HangUp | EpollEvents.Error)) != 0) Close(endRun: true);
        else if ((events & EpollEvents.Readable) != 0 && !_isAnswering) ReadRequests();
    }

    /// <inheritdoc/>
    public void OnMessage(string text) => Send(new ControlReply { Event = ControlEvent.Message, Text = text }, -1);

    /// <inheritdoc/>
    public void OnGuestAttached(int processId, int userfaultfd) =>
        Send(new ControlReply { Event = ControlEvent.GuestAttached, ProcessId = processId }, userfaultfd);

    /// <inheritdoc/>
    public void OnGuestDetached(int processId) =>
        Send(new ControlReply { Event = ControlEvent.GuestDetached, ProcessId = processId }, -1);

    /// <inheritdoc/>
    public void OnRankOutput(int rank, int stream, byte[] data, Action passedOn) =>
        Send(new ControlReply { Event = ControlEvent.RankOutput, Rank = rank, Number = stream, Data = data }, -1, passedOn);

    /// <inheritdoc/>
    public void OnRankEnded(int rank, bool isSignaled, int status, string text) =>
        Send(new ControlReply { Event = ControlEvent.RankEnded, Rank = rank, IsSignaled = isSignaled, Number = status, Text = text }, -1);

    /// <inheritdoc/>
    public void OnRankInput(int rank, byte[] data) => Send(new ControlReply { Event = ControlEvent.RankInput, Rank = rank, Data = data }, -1);

    /// <inheritdoc/>
    public void OnRankInputTaken(int rank) => Send(new ControlReply { Event = ControlEvent.RankInputTaken, Rank = rank }, -1);

    /// <inheritdoc/>
    public void OnJobLost() => Send(new ControlReply { Event = ControlEvent.JobLost }, -1);

    /// <inheritdoc/>
    public void OnSignalRanks(int signal) => Send(new ControlReply { Event = ControlEvent.SignalRanks, Number = signal }, -1);

    /// <summary>Closes the connection. On the control thread.</summary>
    public void Close(bool endRun)
    {
        lock (_outboxLock)
        {
            if (_isClosed) return;
            _isClosed = true;
            foreach (var (_, _, descriptor, onSent) in _outbox)
            {
                if (descriptor >= 0) _ = Libc.Close(descriptor);
                onSent?.Invoke(); // whoever waits for room finds out otherwise that nobody reads
            }
            _outbox.Clear();
            reactor.Unwatch(socket.Descriptor);
            socket.Dispose();
        }
        onClosed(this);
        if (endRun && _runToken is not null) _ = EndAbandonedRunAsync(_runToken);
        if (endRun && _job is { } job) _ = agent.EndJobAsync(job);
    }

    private void ReadRequests()
    {
        int received = socket.Receive(_buffer.AsSpan(_buffered), null);
        if (received == -Errno.EAGAIN) return;
        if (received <= 0)
        {
            Close(endRun: true);
            return;
        }
        _buffered += received;
        AnswerNext();
    }

    private void AnswerNext()
    {
        int length = _buffer.AsSpan(0, _buffered).IndexOf((byte)'\n');
        if (length < 0)
        {
            if (_buffered == MaxRequestBytes) Reject($"a request is longer than {MaxRequestBytes} bytes");
            else if (_isAnswering) Resume();
            return;
        }
        ControlRequest? request = null;
        try { request = JsonSerializer.Deserialize(_buffer.AsSpan(0, length), ControlJson.Default.ControlRequest); }
        catch (JsonException) { }
        _buffer.AsSpan(length + 1, _buffered - length - 1).CopyTo(_buffer);
        _buffered -= length + 1;
        if (request is null)
        {
            Reject("the agent does not understand the request");
            return;
        }
        if (!_isAnswering)
        {
            // Nothing more is read until this one is answered: a peer cannot pile up work.
            _isAnswering = true;
            reactor.Change(socket.Descriptor, Interest());
        }
        _ = AnswerAsync(request);
    }

    private void Resume()
    {
        _isAnswering = false;
        reactor.Change(socket.Descriptor, Interest());
    }

    private async Task AnswerAsync(ControlRequest request)
    {
        ControlReply reply;
        try { reply = await PerformAsync(request).ConfigureAwait(false); }
        catch (ControlException e) { reply = new ControlReply { Error = e.Message, ExitCode = e.ExitCode }; }
        catch (Exception e)
        {
            // A defect of the agent: whoever asked is told, the log has it all, and the other connections go on.
            Log.Error($"the request {request.Operation} failed: {e}");
            reply = new ControlReply { Error = $"the agent failed to answer: {e.Message}", ExitCode = ExitCodes.Failed };
        }
        reactor.Post(() =>
        {
            if (request.Operation is ControlOperation.BeginRun or ControlOperation.ResumeRun && reply.Ticket is { } ticket)
            {
                _runToken = ticket.Token;
                if (_isClosed) _ = EndAbandonedRunAsync(ticket.Token);
            }
            if (request.Operation is ControlOperation.BeginJob or ControlOperation.ResumeJob && reply.Job is { } begun)
            {
                _job = begun.Job;
                if (_isClosed) _ = agent.EndJobAsync(begun.Job);
            }
            if (request.Operation == ControlOperation.EndRun && reply.Statistics is not null) _runToken = null;
            if (_isClosed) return;
            Send(reply with { Id = request.Id }, -1);
            AnswerNext();
        });
    }

    private async Task<ControlReply> PerformAsync(ControlRequest request)
    {
        if (request.Version != ControlRequest.CurrentVersion)
        {
            throw new ControlException(
                "this vsmp command and the agent are of different versions: install the same on both sides",
                ExitCodes.Refused);
        }
        return request.Operation switch
        {
            ControlOperation.Status => new() { Status = await agent.GetStatusAsync().ConfigureAwait(false) },
            ControlOperation.Guests => new() { Guests = await agent.GetGuestsAsync().ConfigureAwait(false) },
            ControlOperation.Losses => new() { Losses = await agent.GetLossesAsync().ConfigureAwait(false) },
            ControlOperation.Regions => new() { Regions = await agent.GetRegionsAsync().ConfigureAwait(false) },
            ControlOperation.StopGuest => new() { Found = await StopGuestAsync(request.ProcessId ?? 0).ConfigureAwait(false) },
            ControlOperation.BeginRun => new() { Ticket = await BeginRunAsync(request.Run).ConfigureAwait(false) },
            ControlOperation.ResumeRun => await ResumeRunAsync(request.Token).ConfigureAwait(false),
            ControlOperation.GetRun => new() { Statistics = await agent.GetRunAsync(Token()).ConfigureAwait(false) },
            ControlOperation.EndRun => new() { Statistics = await agent.EndRunAsync(Token()).ConfigureAwait(false) },
            ControlOperation.BeginJob => new() { Job = await BeginJobAsync(request.Job).ConfigureAwait(false) },
            ControlOperation.ResumeJob => await ResumeJobAsync(request.Token).ConfigureAwait(false),
            ControlOperation.ReportRank => await ReportRankAsync(request).ConfigureAwait(false),
            ControlOperation.StartRanks => await DoAsync(agent.StartRanksAsync(Job(), peer.UserId, peer.GroupId,
                request.Program ?? throw new ControlException("the request names no program"))).ConfigureAwait(false),
            ControlOperation.SignalRanks => await DoAsync(agent.SignalRanksAsync(Job(), request.Number ?? 0)).ConfigureAwait(false),
            ControlOperation.RankInput => await DoAsync(agent.PassInputAsync(Job(), request.Rank ?? -1, request.Data ?? [])).ConfigureAwait(false),
            ControlOperation.RankInputTaken => await DoAsync(agent.InputTakenAsync(peer.ProcessId, request.Rank ?? -1)).ConfigureAwait(false),
            ControlOperation.TakeRanks => new() { Orders = await agent.TakeRanksAsync(peer.ProcessId, this).ConfigureAwait(false) },
            ControlOperation.RankOutput => await DoAsync(agent.PassOutputAsync(peer.ProcessId, request.Rank ?? -1, request.Number ?? 0, request.Data ?? []))
                .ConfigureAwait(false),
            ControlOperation.RankEnded => await DoAsync(agent.RankEndedAsync(peer.ProcessId, request.Rank ?? -1, request.IsSignaled ?? false,
                request.Number ?? 0, request.Reason ?? "")).ConfigureAwait(false),
            ControlOperation.EndJob => await EndJobAsync().ConfigureAwait(false),
            ControlOperation.Inject => await InjectAsync(request.Fault).ConfigureAwait(false),
            ControlOperation.Faults => new() { Faults = await agent.GetFaultsAsync().ConfigureAwait(false) },
            ControlOperation.AskNode => new() { Data = await AskNodeAsync(request).ConfigureAwait(false) },
            ControlOperation.Shutdown => await ShutdownAsync(request.Reason).ConfigureAwait(false),
            _ => throw new ControlException("the agent does not know this request: is it older than the command?",
                ExitCodes.Refused),
        };
    }

    private async Task<bool> StopGuestAsync(int processId)
    {
        if (!isAdministrator)
        {
            IReadOnlyList<GuestStatus> guests = await agent.GetGuestsAsync().ConfigureAwait(false);
            if (guests.Any(guest => guest.ProcessId == processId && guest.UserId != peer.UserId))
            {
                throw new ControlException(
                    $"process {processId} is another user's guest: its user, the agent's owner or root may stop it",
                    ExitCodes.Refused);
            }
        }
        return await agent.StopGuestAsync(processId).ConfigureAwait(false);
    }

    private async Task<RunTicket> BeginRunAsync(RunRequest? run)
    {
        if (run is null || string.IsNullOrEmpty(run.Program)) throw new ControlException("the request names no program");
        if (_runToken is not null) throw new ControlException("this connection has a run already");
        if (run.Name is not null && !RunDirectory.IsValidName(run.Name))
        {
            throw new ControlException($"'{run.Name}' is no name for a region", ExitCodes.Usage);
        }
        // Who asks is the kernel's word, not the request's.
        return await agent.BeginRunAsync(run with { ProcessId = peer.ProcessId, UserId = peer.UserId }, this)
            .ConfigureAwait(false);
    }

    private async Task<ControlReply> ResumeRunAsync(string? token)
    {
        if (token is null) throw new ControlException("the request names no run");
        if (_runToken is not null) throw new ControlException("this connection has a run already");
        return await agent.ResumeRunAsync(token, peer.UserId, this).ConfigureAwait(false) is { } ticket
            ? new() { Ticket = ticket }
            : new() { Found = false, Error = "the agent knows nothing of the run", ExitCode = ExitCodes.AgentLost };
    }

    private async Task<JobTicket> BeginJobAsync(JobRequest? job)
    {
        if (job is null || string.IsNullOrEmpty(job.Program)) throw new ControlException("the request names no program");
        if (_job is not null) throw new ControlException("this connection has a job already");
        if (job.Name is not null && !RunDirectory.IsValidName(job.Name)) throw new ControlException($"'{job.Name}' is no name for a region", ExitCodes.Usage);
        return await agent.BeginJobAsync(job, peer.UserId, peer.ProcessId, this).ConfigureAwait(false);
    }

    private async Task<ControlReply> ResumeJobAsync(string? token)
    {
        if (token is null) throw new ControlException("the request names no job");
        if (_job is not null) throw new ControlException("this connection has a job already");
        return await agent.ResumeJobAsync(token, peer.UserId, this).ConfigureAwait(false) is { } ticket
            ? new() { Job = ticket }
            : new() { Found = false, Error = "the agent knows nothing of the job", ExitCode = ExitCodes.AgentLost };
    }

    private async Task<ControlReply> ReportRankAsync(ControlRequest request)
    {
        await agent.ReportRankAsync(Job(), request.Rank ?? -1, request.Reason ?? $"rank {request.Rank} has ended").ConfigureAwait(false);
        return new();
    }

    private static async Task<ControlReply> DoAsync(Task done)
    {
        await done.ConfigureAwait(false);
        return new();
    }

    private async Task<ControlReply> EndJobAsync()
    {
        await agent.EndJobAsync(Job()).ConfigureAwait(false);
        _job = null;
        return new();
    }

    private ulong Job() => _job ?? throw new ControlException("this connection has no job");

    private async Task<ControlReply> InjectAsync(FaultOrder? order)
    {
        if (!isAdministrator) throw new ControlException("faults may be injected by root, and by the user who started the cluster", ExitCodes.Refused);
        await agent.InjectAsync(order ?? throw new ControlException("the request names no fault")).ConfigureAwait(false);
        return new();
    }

    private async Task<byte[]> AskNodeAsync(ControlRequest request)
    {
        if (request is not { Node: { } node, Question: { } question }) throw new ControlException("the request names no node, or asks it nothing");
        if (NodeQueries.IsOrder(question) && !isAdministrator)
        {
            throw new ControlException("nodes may be drained and rebalanced, and what checkpoints they have in memory be looked at, by root, and by the user who started the agent", ExitCodes.Refused);
        }
        byte[] data = request.Data ?? [];
        if (question == NodeQuestion.TakeCheckpoint) data = CheckpointRequest.As(peer.UserId, data); // who asks is not theirs to say
        return await agent.AskNodeAsync(node, question, data).ConfigureAwait(false);
    }

    private async Task<ControlReply> ShutdownAsync(string? reason)
    {
        if (!isAdministrator) throw new ControlException("the agent's owner or root may stop it", ExitCodes.Refused);
        await agent.ShutdownAsync(reason ?? $"asked to by user {peer.UserId}").ConfigureAwait(false);
        return new();
    }

    private string Token() => _runToken ?? throw new ControlException("this connection has no run");

    private async Task EndAbandonedRunAsync(string token)
    {
        try { _ = await agent.EndRunAsync(token).ConfigureAwait(false); }
        catch (ControlException e) { Log.Warn($"the run of process {peer.ProcessId} could not be ended: {e.Message}"); }
        catch (Exception e) { Log.Error($"the run of process {peer.ProcessId} could not be ended: {e}"); }
    }

    private void Reject(string error)
    {
        Send(new ControlReply { Id = 0, Error = error, ExitCode = ExitCodes.Refused }, -1);
        Close(endRun: true);
    }

    /// <summary>
    /// From any thread. What the socket has room for is sent at once: when a guest attaches, its userfaultfd is out of the
    /// agent's hands alone before the guest goes on.
    /// </summary>
    private void Send(ControlReply reply, int descriptor, Action? onSent = null)
    {
        byte[] data = Encode(reply);
        lock (_outboxLock)
        {
            if (_isClosed || _isBroken)
            {
                onSent?.Invoke();
                return;
            }
            int sent = 0;
            if (_outbox.Count == 0)
            {
                sent = socket.Send(data, descriptor, wait: false);
                if (sent == data.Length)
                {
                    onSent?.Invoke();
                    return;
                }
                if (sent > 0) descriptor = -1; // it went with the first byte
            }
            if (sent < 0 && sent != -Errno.EAGAIN)
            {
                Break(onSent); // the reactor sees it too, and says why the run is ended
                return;
            }
            sent = Math.Max(sent, 0);
            if (_outboxBytes + data.Length > MaxBacklogBytes)
            {
                Log.Warn($"process {peer.ProcessId} does not read what it is told; its connection is closed");
                Break(onSent);
                return;
            }
            _outbox.AddLast((data, sent, descriptor < 0 ? -1 : UnixSocket.Duplicate(descriptor), onSent));
            _outboxBytes += data.Length;
            if (_outbox.Count == 1) reactor.Post(UpdateInterest);
        }
    }

    private void Break(Action? onSent)
    {
        _isBroken = true;
        reactor.Post(() => Close(endRun: true));
        onSent?.Invoke(); // as in Close: this one is not in the outbox
    }

    private void Flush()
    {
        lock (_outboxLock)
        {
            if (_isClosed) return;
            while (_outbox.First is { Value: var (data, offset, descriptor, onSent) })
            {
                int sent = socket.Send(data.AsSpan(offset), descriptor, wait: false);
                if (sent < 0) return; // no room yet; an error comes back as an event
                if (descriptor >= 0) _ = Libc.Close(descriptor);
                _outbox.RemoveFirst();
                if (offset + sent < data.Length)
                {
                    _outbox.AddFirst((data, offset + sent, -1, onSent));
                    return;
                }
                _outboxBytes -= data.Length;
                onSent?.Invoke();
            }
        }
        UpdateInterest();
    }

    private void UpdateInterest()
    {
        lock (_outboxLock)
        {
            if (!_isClosed) reactor.Change(socket.Descriptor, Interest());
        }
    }

    private EpollEvents Interest()
    {
        lock (_outboxLock)
        {
            return (_isAnswering ? EpollEvents.None : EpollEvents.Readable)
                | (_outbox.Count > 0 ? EpollEvents.Writable : EpollEvents.None);
        }
    }
}
