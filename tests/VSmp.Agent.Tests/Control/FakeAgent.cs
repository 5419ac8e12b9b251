// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent.Control;
using VSmp.Agent.Fabric.FaultInjection;
using VSmp.Agent.Interop;

namespace VSmp.Agent.Tests.Control;

/// <summary>An agent's answers without an agent: remembers what it was asked.</summary>
internal sealed class FakeAgent(string name) : IAgentControl
{
    private readonly TaskCompletionSource<string> _runEnded = new(TaskCreationOptions.RunContinuationsAsynchronously);

    public TaskCompletionSource<(RunRequest Request, IRunObserver Observer)> RunBegun { get; } =
        new(TaskCreationOptions.RunContinuationsAsynchronously);

    /// <summary>Runs that can be resumed.</summary>
    public HashSet<string> Known { get; init; } = [];

    public TaskCompletionSource<(string Token, uint UserId, IRunObserver Observer)> RunResumed { get; } =
        new(TaskCreationOptions.RunContinuationsAsynchronously);

    /// <summary>The token of the run that was ended.</summary>
    public Task<string> RunEnded => _runEnded.Task;

    /// <summary>The number of the job that was ended.</summary>
    public TaskCompletionSource<ulong> JobEnded { get; } = new(TaskCreationOptions.RunContinuationsAsynchronously);

    public List<(ulong Job, int Rank, string How)> RanksReported { get; } = [];

    public List<(ulong Job, uint UserId, uint GroupId, RankProgram Program)> RanksStarted { get; } = [];

    public List<GuestStatus> Guests { get; } = [];

    public List<int> Stopped { get; } = [];

    public List<FaultOrder> Injected { get; } = [];

    public TaskCompletionSource<(string Token, uint UserId, IRunObserver Observer)> JobResumed { get; } = new(TaskCreationOptions.RunContinuationsAsynchronously);

    /// <summary>Called within BeginRun and ResumeRun, as an agent whose first guest attaches at once.</summary>
    public Action<IRunObserver>? OnBegin { get; init; }

    public Exception? Failure { get; init; }

    public Action? OnShutdown { get; init; }

    public Task<ClusterStatus> GetStatusAsync() => Failure is not null
        ? Task.FromException<ClusterStatus>(Failure)
        : Task.FromResult(new ClusterStatus("test", 1, 7, name,
            [new NodeStatus(name, 0, "127.0.0.1:1", "up", 100 << 20, 10 << 20, 20 << 20, 70 << 20, 5 << 20, 9 << 20, 1, 12.4)], new FabricStatistics { Transport = "tcp" },
            new AgentStatistics(Faults: 3, ReactorAllocatedBytes: 1 << 20)));

    public Task<IReadOnlyList<GuestStatus>> GetGuestsAsync() => Task.FromResult<IReadOnlyList<GuestStatus>>(Guests);

    public Task<IReadOnlyList<LossStatus>> GetLossesAsync() => Task.FromResult<IReadOnlyList<LossStatus>>(
        [new LossStatus("sort.1", 17, "sort", "beta", [new PageSpan(5, 1), new PageSpan(512, 512)])]);

    public Task<IReadOnlyList<RegionStatus>> GetRegionsAsync() => Task.FromResult<IReadOnlyList<RegionStatus>>(
        [new RegionStatus("sort.1", "0.1", "MSI", 64 << 20, name, "none", new() { [name] = 64 << 20 })]);

    public Task<bool> StopGuestAsync(int processId)
    {
        Stopped.Add(processId);
        return Task.FromResult(Guests.Any(guest => guest.ProcessId == processId));
    }

    public Task<RunTicket> BeginRunAsync(RunRequest request, IRunObserver observer)
    {
        OnBegin?.Invoke(observer);
        RunBegun.SetResult((request, observer));
        return Task.FromResult(new RunTicket("token-1", "/nowhere/guest.sock", 50 << 20));
    }

    public Task<RunTicket?> ResumeRunAsync(string token, uint userId, IRunObserver observer)
    {
        if (!Known.Contains(token)) return Task.FromResult<RunTicket?>(null);
        OnBegin?.Invoke(observer);
        _ = RunResumed.TrySetResult((token, userId, observer));
        return Task.FromResult<RunTicket?>(new RunTicket(token, "/nowhere/guest.sock", 50 << 20));
    }

    public Task<JobTicket> BeginJobAsync(JobRequest request, uint userId, int processId, IRunObserver observer) =>
        Task.FromResult(new JobTicket(7, "token-2", "msi", [.. Enumerable.Repeat(name, request.Ranks)], 0));

    public Task<JobTicket?> ResumeJobAsync(string token, uint userId, IRunObserver observer)
    {
        if (!Known.Contains(token)) return Task.FromResult<JobTicket?>(null);
        _ = JobResumed.TrySetResult((token, userId, observer));
        return Task.FromResult<JobTicket?>(new JobTicket(7, token, "msi", [name], 0));
    }

    public Task ReportRankAsync(ulong job, int rank, string how)
    {
        RanksReported.Add((job, rank, how));
        return Task.CompletedTask;
    }

    public Task StartRanksAsync(ulong job, uint userId, uint groupId, RankProgram program)
    {
        RanksStarted.Add((job, userId, groupId, program));
        return Task.CompletedTask;
    }

    public Task SignalRanksAsync(ulong job, int signal) => Task.CompletedTask;

    public Task PassInputAsync(ulong job, int rank, byte[] data) => Task.CompletedTask;

    public Task InputTakenAsync(int processId, int rank) => Task.CompletedTask;

    public Task<RankOrders> TakeRanksAsync(int processId, IRunObserver observer) =>
        Task.FromException<RankOrders>(new ControlException("this agent has not started you to start ranks", ExitCodes.Refused));

    public Task PassOutputAsync(int processId, int rank, int stream, byte[] data) => Task.CompletedTask;

    public Task RankEndedAsync(int processId, int rank, bool isSignaled, int status, string text) => Task.CompletedTask;

    public Task EndJobAsync(ulong job)
    {
        _ = JobEnded.TrySetResult(job);
        return IsMute ? new TaskCompletionSource().Task : Task.CompletedTask;
    }

    /// <summary>Whether EndRun and EndJob are heard, and never answered.</summary>
    public bool IsMute { get; init; }

    public Task<RunStatistics> EndRunAsync(string token)
    {
        if (IsMute)
        {
            _ = _runEnded.TrySetResult(token);
            return new TaskCompletionSource<RunStatistics>().Task;
        }
        _ = _runEnded.TrySetResult(token);
        return Task.FromResult(new RunStatistics
        {
            FaultsRead = 3,
            FaultMicroseconds = new(1.5, 2, 3),
            PeakHomeBytes = { [name] = 4096 }
        });
    }

    public Task<RunStatistics> GetRunAsync(string token) => Task.FromResult(new RunStatistics { FaultsRead = 2 });

    public Task InjectAsync(FaultOrder order)
    {
        Injected.Add(order);
        return Task.CompletedTask;
    }

    public Task<IReadOnlyList<FaultStatus>> GetFaultsAsync() => Task.FromResult<IReadOnlyList<FaultStatus>>(
        [new FaultStatus(name, "n1", FaultKind.Delay, 0.1, 20_000, 3, 7)]);

    public Task<byte[]> AskNodeAsync(string node, NodeQuestion question, byte[] data) => Task.FromResult(data);

    public Task ShutdownAsync(string reason)
    {
        OnShutdown?.Invoke();
        return Task.CompletedTask;
    }
}

/// <summary>A control server over a fake agent, in a run directory of its own.</summary>
internal sealed class ServedAgent : IDisposable
{
    private readonly IDisposable _claim;
    private readonly uint? _groupId;
    private ControlServer _server;

    public ServedAgent(FakeAgent agent, string name = "n0", uint? groupId = null, ProcessIdentity? keeper = null)
    {
        _groupId = groupId;
        string cluster = $"test-{Guid.NewGuid():N}"[..20];
        Directory = RunDirectory.OfCurrentUser(cluster);
        Folder = Directory.Agent(name);
        _claim = Folder.Claim(groupId, out _, keeper);
        _server = new ControlServer(Folder, groupId, agent);
    }

    public RunDirectory Directory { get; }

    public AgentFolder Folder { get; }

    public ControlServer Server => _server;

    /// <summary>As an agent that dies: connections break, the folder stays.</summary>
    public void Die() => _server.Dispose();

    /// <summary>As an agent that is started again after one has died.</summary>
    public void Restart(FakeAgent agent) => _server = new ControlServer(Folder, _groupId, agent);

    public void Dispose()
    {
        _server.Dispose();
        _ = Folder.CleanUp(keepLog: false);
        _claim.Dispose();
        Directory.RemoveIfEmpty();
    }
}
