// SPDX-License-Identifier: Apache-2.0
using System.Diagnostics;
using VSmp.Agent.Control;
using VSmp.Agent.Interop;
using Xunit;

namespace VSmp.Agent.Tests.Control;

/// <summary>A run whose agent dies and is started again, as its client sees it.</summary>
public sealed class ResumeTests : IDisposable
{
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(30);

    private readonly Process _keeper = Process.Start("sleep", "1000");

    public void Dispose()
    {
        _keeper.Kill();
        _keeper.Dispose();
    }

    [Fact]
    public async Task A_run_goes_on_at_the_agent_that_was_started_again()
    {
        using FileStream carried = File.OpenRead("/dev/null");
        int descriptor = (int)carried.SafeFileHandle.DangerousGetHandle();
        using ServedAgent served = Serve(new FakeAgent("n0") { OnBegin = observer => observer.OnGuestAttached(17, descriptor) });
        Listener listener = new();
        using var client = ControlClient.Connect(served.Folder, listener);
        _ = client.BeginRun(new RunRequest(null, "sort", null, 0, 0));
        served.Die();
        FakeAgent next = new("n0")
        {
            Known = { "token-1" },
            OnBegin = observer =>
            {
                observer.OnMessage("missed");
                observer.OnGuestAttached(17, descriptor);
            },
        };
        served.Restart(next);

        (string token, uint userId, _) = await next.RunResumed.Task.WaitAsync(Patience, TestContext.Current.CancellationToken);
        Assert.Equal(("token-1", Libc.GetEffectiveUserId()), (token, userId));
        Assert.Equal(3ul, client.EndRun()?.FaultsRead);
        Assert.Equal(["attached 17", "resuming", "missed", "attached 17", "resumed"], listener.Heard);
        Assert.Equal("token-1", await next.RunEnded.WaitAsync(Patience, TestContext.Current.CancellationToken));
    }

    [Fact]
    public async Task What_was_asked_of_the_agent_that_died_is_asked_of_the_next()
    {
        FakeAgent first = new("n0") { IsMute = true };
        using ServedAgent served = Serve(first);
        using var client = ControlClient.Connect(served.Folder, new Listener());
        _ = client.BeginRun(new RunRequest(null, "sort", null, 0, 0));
        Task<RunStatistics?> ended = Task.Run(client.EndRun, TestContext.Current.CancellationToken);
        _ = await first.RunEnded.WaitAsync(Patience, TestContext.Current.CancellationToken);
        served.Die();
        served.Restart(new FakeAgent("n0") { Known = { "token-1" } });
        Assert.Equal(3ul, (await ended.WaitAsync(Patience, TestContext.Current.CancellationToken))?.FaultsRead);
    }

    [Fact]
    public async Task A_run_that_the_agent_had_ended_when_it_died_is_over_without_statistics()
    {
        FakeAgent first = new("n0") { IsMute = true };
        using ServedAgent served = Serve(first);
        using var client = ControlClient.Connect(served.Folder, new Listener());
        _ = client.BeginRun(new RunRequest(null, "sort", null, 0, 0));
        Task<RunStatistics?> ended = Task.Run(client.EndRun, TestContext.Current.CancellationToken);
        _ = await first.RunEnded.WaitAsync(Patience, TestContext.Current.CancellationToken);
        served.Die();
        served.Restart(new FakeAgent("n0"));
        Assert.Null(await ended.WaitAsync(Patience, TestContext.Current.CancellationToken));
    }

    [Fact]
    public async Task A_run_that_the_next_agent_does_not_know_is_lost()
    {
        using ServedAgent served = Serve(new FakeAgent("n0"));
        Listener listener = new();
        using var client = ControlClient.Connect(served.Folder, listener);
        _ = client.BeginRun(new RunRequest(null, "sort", null, 0, 0));
        served.Die();
        served.Restart(new FakeAgent("n0"));
        await listener.Lost.Task.WaitAsync(Patience, TestContext.Current.CancellationToken);
        Assert.Equal(ExitCodes.NoAgent, Assert.Throws<CommandException>(() => client.EndRun()).ExitCode);
    }

    [Fact]
    public async Task A_run_whose_keeper_dies_as_well_is_lost()
    {
        using ServedAgent served = Serve(new FakeAgent("n0"));
        Listener listener = new();
        using var client = ControlClient.Connect(served.Folder, listener);
        _ = client.BeginRun(new RunRequest(null, "sort", null, 0, 0));
        served.Die();
        _keeper.Kill();
        await listener.Lost.Task.WaitAsync(Patience, TestContext.Current.CancellationToken);
        Assert.Equal(ExitCodes.NoAgent, Assert.Throws<CommandException>(() => client.GetRun()).ExitCode);
    }

    [Fact]
    public async Task A_run_outlives_one_agent_after_the_other()
    {
        using ServedAgent served = Serve(new FakeAgent("n0"));
        Listener listener = new();
        using var client = ControlClient.Connect(served.Folder, listener);
        _ = client.BeginRun(new RunRequest(null, "sort", null, 0, 0));
        for (int i = 0; i < 20; i++)
        {
            served.Die();
            FakeAgent next = new("n0") { Known = { "token-1" } };
            served.Restart(next);
            if (i % 3 > 0) _ = await next.RunResumed.Task.WaitAsync(Patience, TestContext.Current.CancellationToken); // else: before it has come
        }
        Assert.Equal(2ul, client.GetRun().FaultsRead);
        Assert.Equal(3ul, client.EndRun()?.FaultsRead);
        Assert.False(listener.Lost.Task.IsCompleted);
    }

    [Fact]
    public void A_client_that_waits_for_the_next_agent_can_be_closed()
    {
        using ServedAgent served = Serve(new FakeAgent("n0"));
        var client = ControlClient.Connect(served.Folder, new Listener());
        _ = client.BeginRun(new RunRequest(null, "sort", null, 0, 0));
        served.Die();
        client.Dispose();
    }

    [Fact]
    public async Task Ranks_outlive_their_agent_as_programs_do()
    {
        using ServedAgent served = Serve(new FakeAgent("n0"));
        Listener listener = new();
        using var client = ControlClient.Connect(served.Folder, listener);
        string token = client.BeginRun(new RunRequest(null, "sort", null, 0, 0, new JobMembership(7, "token-2"))).Token;
        served.Die();
        FakeAgent next = new("n0") { Known = { token } };
        served.Restart(next);
        _ = await next.RunResumed.Task.WaitAsync(Patience, TestContext.Current.CancellationToken);
        _ = client.GetRun();
        Assert.False(listener.Lost.Task.IsCompleted);
    }

    [Fact]
    public async Task A_job_goes_on_at_the_next_agent_of_its_leader()
    {
        using ServedAgent served = Serve(new FakeAgent("n0"));
        Listener listener = new();
        using var client = ControlClient.Connect(served.Folder, listener);
        JobTicket ticket = client.BeginJob(new JobRequest(2, null, null, null, "sort"));
        for (int i = 0; i < 3; i++)
        {
            served.Die();
            FakeAgent next = new("n0") { Known = { ticket.Token } };
            served.Restart(next);
            client.ReportRank(i, "has ended");
            Assert.Equal([(ticket.Job, i, "has ended")], next.RanksReported);
            (string token, uint userId, _) = await next.JobResumed.Task.WaitAsync(Patience, TestContext.Current.CancellationToken);
            Assert.Equal((ticket.Token, Libc.GetEffectiveUserId()), (token, userId));
            if (i < 2) continue;
            client.EndJob();
            Assert.Equal(ticket.Job, await next.JobEnded.Task.WaitAsync(Patience, TestContext.Current.CancellationToken));
        }
        Assert.Equal(["resuming", "resumed", "resuming", "resumed", "resuming", "resumed"], listener.Heard);
        Assert.False(listener.Lost.Task.IsCompleted);
    }

    [Fact]
    public async Task A_job_that_the_agent_had_ended_when_it_died_is_over()
    {
        FakeAgent first = new("n0") { IsMute = true };
        using ServedAgent served = Serve(first);
        using var client = ControlClient.Connect(served.Folder, new Listener());
        _ = client.BeginJob(new JobRequest(2, null, null, null, "sort"));
        Task ended = Task.Run(client.EndJob, TestContext.Current.CancellationToken);
        _ = await first.JobEnded.Task.WaitAsync(Patience, TestContext.Current.CancellationToken);
        served.Die();
        served.Restart(new FakeAgent("n0"));
        await ended.WaitAsync(Patience, TestContext.Current.CancellationToken);
    }

    [Fact]
    public async Task A_job_that_the_next_agent_does_not_know_is_lost()
    {
        using ServedAgent served = Serve(new FakeAgent("n0"));
        Listener listener = new();
        using var client = ControlClient.Connect(served.Folder, listener);
        _ = client.BeginJob(new JobRequest(2, null, null, null, "sort"));
        served.Die();
        served.Restart(new FakeAgent("n0"));
        await listener.Lost.Task.WaitAsync(Patience, TestContext.Current.CancellationToken);
        Assert.Equal(ExitCodes.NoAgent, Assert.Throws<CommandException>(() => client.ReportRank(0, "has ended")).ExitCode);
    }

    [Fact]
    public async Task A_command_waits_for_an_agent_that_is_being_started()
    {
        using ServedAgent served = Serve(new FakeAgent("n0"));
        served.Die();
        Task<ControlClient> connected = Task.Run(() => ControlClient.Connect(served.Folder), TestContext.Current.CancellationToken);
        served.Restart(new FakeAgent("n0"));
        using ControlClient client = await connected.WaitAsync(Patience, TestContext.Current.CancellationToken);
        Assert.Equal("n0", client.GetStatus().Self);
    }

    private ServedAgent Serve(FakeAgent agent) => new(agent, keeper: ProcessIdentity.Of(_keeper.Id));

    private sealed class Listener : IRunListener
    {
        public List<string> Heard { get; } = [];

        public TaskCompletionSource Lost { get; } = new(TaskCreationOptions.RunContinuationsAsynchronously);

        public void OnMessage(string text) => Heard.Add(text);

        public void OnGuestAttached(int processId, int userfaultfd)
        {
            Heard.Add($"attached {processId}");
            _ = Libc.Close(userfaultfd);
        }

        public void OnGuestDetached(int processId) => Heard.Add($"detached {processId}");

        public void OnResuming()
        {
            // More than once, where an agent that dies still took the connection.
            if (Heard.LastOrDefault() != "resuming") Heard.Add("resuming");
        }

        public void OnResumed(TimeSpan away) => Heard.Add("resumed");

        public void OnAgentLost() => Lost.TrySetResult();
    }
}
