// SPDX-License-Identifier: Apache-2.0
using System.Net;
using Microsoft.Win32.SafeHandles;
using VSmp.Agent.Control;
using VSmp.Agent.Fabric;
using VSmp.Agent.Guests;
using VSmp.Agent.Interop;
using VSmp.Agent.Paging;
using VSmp.Coherence;
using VSmp.Coherence.Messages;
using Xunit;

namespace VSmp.Agent.Tests.Guests;

/// <summary>Runs of an agent that was killed, at the one that takes its place.</summary>
public sealed class RestoredRunTests : IDisposable
{
    private const ulong PoolBytes = 64 << 20, LocalBytes = 16 << 20;
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(30);

    private readonly RunDirectory _directory = RunDirectory.OfCurrentUser($"test-{Guid.NewGuid():N}"[..20]);
    private readonly IDisposable _claim;
    private readonly Reactor _reactor = new(maxSpinMicroseconds: 0);
    private readonly InMemoryNetwork _network = new(seed: 1);
    private readonly Pager _pager;
    private readonly Thread _thread;

    public RestoredRunTests()
    {
        _claim = Folder.Claim(null, out _);
        var self = new NodeId(0);
        _pager = new Pager(self, _reactor, _network.CreateFabric(self, new Epoch(1), new Nobody()), () => 1);
        _thread = new Thread(_reactor.Run);
        _thread.Start();
    }

    private AgentFolder Folder => _directory.Agent("n0");

    public void Dispose()
    {
        _reactor.Stop();
        _thread.Join();
        _pager.Dispose();
        _network.Dispose();
        _reactor.Dispose();
        _ = Folder.CleanUp(keepLog: false);
        _claim.Dispose();
        _directory.RemoveIfEmpty();
    }

    [Fact]
    public async Task A_run_is_there_again_as_it_was()
    {
        (Runs before, _) = NewRuns();
        Run run = await _reactor.Ask(() => before.Begin(Request("mine"), new Told(), () => ""));
        await _reactor.Ask(() =>
        {
            Assert.Equal("mine", run.NextRegionName(1));
            run.HasLostNode = true;
            return true;
        });

        (Runs runs, Capacity capacity) = NewRuns();
        RunRecord record = Assert.Single(RunRecord.ReadAll(Folder.RunsFolder, _ => { }));
        Run again = (await _reactor.Ask(() => runs.Restore(record)))!;
        Assert.Equal((run.Token, run.LocalBytes, true, 1), (again.Token, again.LocalBytes, again.HasLostNode, again.AgentRestarts));
        Assert.Equal(Request("mine"), again.Request);
        Assert.Equal(LocalBytes, capacity.CacheBytes);
        Assert.Same(again, runs.Find(run.Token));
        Assert.Equal("mine.2", await _reactor.Ask(() => again.NextRegionName(2))); // the first has its name already
        Assert.Throws<ControlException>(() => runs.Begin(Request("mine"), new Told(), () => ""));

        // Killed again: that there is one more region, and one more restart, is known.
        Assert.Equal((2, 1), RunRecord.ReadAll(Folder.RunsFolder, _ => { }).Select(r => (r.RegionsMade, r.AgentRestarts)).Single());
        await _reactor.Ask(() =>
        {
            runs.End(again);
            return true;
        });
        Assert.Empty(RunRecord.ReadAll(Folder.RunsFolder, _ => { }));
        Assert.Equal(PoolBytes, capacity.FreeBytes);
    }

    [Fact]
    public async Task A_run_that_does_not_fit_any_more_is_given_up()
    {
        (Runs before, _) = NewRuns();
        _ = await _reactor.Ask(() => before.Begin(Request(), new Told(), () => ""));
        (Runs runs, Capacity capacity) = NewRuns();
        Assert.True(capacity.TryAddHome(capacity.FreeExtents - 1));
        Assert.Null(await _reactor.Ask(() => runs.Restore(RunRecord.ReadAll(Folder.RunsFolder, _ => { }).Single())));
        Assert.Empty(runs.All);
        Assert.Empty(RunRecord.ReadAll(Folder.RunsFolder, _ => { }));
    }

    [Fact]
    public async Task No_run_is_recorded_without_a_keeper()
    {
        Runs unkept = new(new Capacity(PoolBytes), _pager, _reactor);
        _ = await _reactor.Ask(() => unkept.Begin(Request(), new Told(), () => ""));
        Assert.False(Directory.Exists(Folder.RunsFolder));
    }

    [Theory]
    [InlineData("../agent.pid")]
    [InlineData("00112233445566778899AABBCCDDEE/F")]
    [InlineData("")]
    public async Task A_jobs_token_which_whoever_asks_makes_up_names_no_other_file(string token)
    {
        (Runs runs, Capacity capacity) = NewRuns();
        ulong free = capacity.FreeBytes;
        ControlException e = await Assert.ThrowsAsync<ControlException>(() =>
            _reactor.Ask(() => runs.Begin(Request() with { Job = new JobMembership(7, token) }, new Told(), () => "")));
        Assert.Contains("token", e.Message, StringComparison.Ordinal);
        Assert.True(File.Exists(Folder.PidFile));
        Assert.False(Directory.Exists(Folder.RunsFolder));
        Assert.Equal(free, capacity.FreeBytes);
    }

    [Fact]
    public async Task A_run_of_a_job_is_there_again_with_what_its_ranks_shared()
    {
        const string Token = "00112233445566778899AABBCCDDEEFF";
        (Runs runs, _) = NewRuns();
        _ = await _reactor.Ask(() => runs.Begin(Request() with { Job = new JobMembership(7, Token) }, new Told(), () => ""));
        RunRecord record = Assert.Single(RunRecord.ReadAll(Folder.RunsFolder, _ => { })) with { SharedRegions = [5, 9] };
        (Runs next, _) = NewRuns();
        Run restored = (await _reactor.Ask(() => next.Restore(record)))!;
        Assert.Equal([new RegionId(5), new RegionId(9)], restored.RegionsLeft.OrderBy(id => id.Value));
        // Whoever is killed before anything is adopted leaves as much to the next.
        Assert.Equal([5, 9], Assert.Single(RunRecord.ReadAll(Folder.RunsFolder, _ => { })).SharedRegions);
    }

    [Fact]
    public async Task A_run_that_cannot_be_recorded_does_not_begin()
    {
        await File.WriteAllTextAsync(Folder.RunsFolder, "in the way", TestContext.Current.CancellationToken);
        (Runs runs, Capacity capacity) = NewRuns();
        ControlException e = await Assert.ThrowsAsync<ControlException>(() => _reactor.Ask(() => runs.Begin(Request(), new Told(), () => "")));
        Assert.Contains("cannot be recorded", e.Message, StringComparison.Ordinal);
        Assert.Equal(PoolBytes, capacity.FreeBytes);
        File.Delete(Folder.RunsFolder);
    }

    [Fact]
    public async Task A_supervisor_that_is_back_hears_what_it_missed_and_of_all_guests()
    {
        (Runs before, _) = NewRuns();
        _ = await _reactor.Ask(() => before.Begin(Request(), new Told(), () => ""));
        (Runs runs, _) = NewRuns();
        AgentControl control = NewControl(runs);
        Run run = (await _reactor.Ask(() => runs.Restore(RunRecord.ReadAll(Folder.RunsFolder, _ => { }).Single())))!;
        await _reactor.Ask(() =>
        {
            for (int i = 0; i < AwaitedSupervisor.MaxMessages + 5; i++) run.Observer.OnMessage($"line {i}");
            for (int processId = 17; processId <= 18; processId++)
            {
                var guest = new Guest(processId, run, null, new SafeFileHandle(-1, ownsHandle: false), 0);
                guest.Mappings.Add(new Mapping(guest, null!, 100 + processId, 0, 4096, 0));
                guest.Mappings.Add(new Mapping(guest, null!, 200 + processId, 0, 4096, 0) { IsGone = processId == 18 });
                run.Guests.Add(guest);
            }
            return true;
        });

        uint user = run.Request.UserId;
        Assert.Null(await control.ResumeRunAsync("another", user, new Told()));
        ControlException refused = await Assert.ThrowsAsync<ControlException>(() => control.ResumeRunAsync(run.Token, user + 1, new Told()));
        Assert.Equal(ExitCodes.Refused, refused.ExitCode);
        Told told = new();
        RunTicket? ticket = await control.ResumeRunAsync(run.Token, user, told);
        Assert.Equal(new RunTicket(run.Token, Folder.GuestSocket, LocalBytes), ticket);
        Assert.Equal([.. Enumerable.Range(0, AwaitedSupervisor.MaxMessages).Select(i => $"line {i}"), "5 more lines are in the agent's log",
            "17 has 117", "17 has 217", "18 has 118"], told.Heard);
        await _reactor.Ask(() =>
        {
            run.Observer.OnMessage("and on");
            return true;
        });
        Assert.Equal("and on", told.Heard[^1]);

        // A second one is told no.
        ControlException taken = await Assert.ThrowsAsync<ControlException>(() => control.ResumeRunAsync(run.Token, 0, new Told()));
        Assert.Equal(ExitCodes.Taken, taken.ExitCode);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task A_run_whose_supervisor_does_not_come_back_is_given_up(bool isRestoredLater)
    {
        (Runs before, _) = NewRuns();
        _ = await _reactor.Ask(() => before.Begin(Request(), new Told(), () => ""));
        Runs runs = new(new Capacity(PoolBytes), _pager, _reactor, Folder.RunsFolder) { SupervisorPatienceMicroseconds = 1 };
        RunRecord record = RunRecord.ReadAll(Folder.RunsFolder, _ => { }).Single();
        TaskCompletionSource<Run> abandoned = new(TaskCreationOptions.RunContinuationsAsynchronously);
        Run run = await _reactor.Ask(() =>
        {
            if (isRestoredLater) runs.AwaitSupervisors(abandoned.SetResult);
            Run restored = runs.Restore(record)!;
            if (!isRestoredLater) runs.AwaitSupervisors(abandoned.SetResult);
            return restored;
        });
        Assert.Same(run, await abandoned.Task.WaitAsync(Patience, TestContext.Current.CancellationToken));
    }

    [Fact]
    public async Task A_run_whose_supervisor_is_back_or_suspended_is_not_given_up()
    {
        using var suspended = System.Diagnostics.Process.Start("sleep", "1000");
        ProcessIdentity process = ProcessIdentity.Of(suspended.Id)!.Value;
        _ = ProcessControl.Signal(process, Signals.SIGSTOP);
        Assert.True(NodeProcesses.AwaitStop(process, isStopped: true));
        (Runs before, _) = NewRuns();
        Run waiting = await _reactor.Ask(() => before.Begin(Request() with { ProcessId = suspended.Id }, new Told(), () => ""));
        Run back = await _reactor.Ask(() => before.Begin(Request(), new Told(), () => ""));
        Run gone = await _reactor.Ask(() => before.Begin(Request(), new Told(), () => ""));
        Runs runs = new(new Capacity(PoolBytes), _pager, _reactor, Folder.RunsFolder) { SupervisorPatienceMicroseconds = 1000 };
        IReadOnlyList<RunRecord> records = RunRecord.ReadAll(Folder.RunsFolder, _ => { });
        TaskCompletionSource<string> firstLost = new(TaskCreationOptions.RunContinuationsAsynchronously), lastLost = new(TaskCreationOptions.RunContinuationsAsynchronously);
        _ = await _reactor.Ask(() =>
        {
            foreach (RunRecord record in records) _ = runs.Restore(record);
            runs.Find(back.Token)!.Resume(new Told());
            runs.AwaitSupervisors(run =>
            {
                if (!firstLost.TrySetResult(run.Token)) lastLost.SetResult(run.Token);
            });
            return true;
        });
        Assert.Equal(gone.Token, await firstLost.Task.WaitAsync(Patience, TestContext.Current.CancellationToken));
        suspended.Kill();
        Assert.Equal(waiting.Token, await lastLost.Task.WaitAsync(Patience, TestContext.Current.CancellationToken));
    }

    private static RunRequest Request(string? name = null) => new(name, "sort", LocalBytes, 0, 1000, Redundancy: Redundancy.None);

    private (Runs Runs, Capacity Capacity) NewRuns()
    {
        var capacity = new Capacity(PoolBytes);
        return (new Runs(capacity, _pager, _reactor, Folder.RunsFolder), capacity);
    }

    /// <summary>With what it needs of the agent's parts for runs.</summary>
    private AgentControl NewControl(Runs runs) => new(
        new AgentOptions { Cluster = "test", Name = "n0", MemoryBytes = PoolBytes, Listen = new IPEndPoint(IPAddress.Loopback, 0), SecretFile = "", CheckpointsFolder = "", Folder = Folder, OnReady = _ => { } },
        _reactor, new AgentParts(_pager, runs, null!, null!, null!, null!, null!, null!, null!, null!, null!, null!, null!, null!, null!), _ => { });

    private sealed class Told : IRunObserver
    {
        public List<string> Heard { get; } = [];

        public void OnMessage(string text) => Heard.Add(text);

        public void OnGuestAttached(int processId, int userfaultfd) => Heard.Add($"{processId} has {userfaultfd}");

        public void OnGuestDetached(int processId) => Heard.Add($"{processId} is gone");
    }

    private sealed class Nobody : IFrameReceiver
    {
        public void OnFrame(NodeId peer, in FrameHeader header, ReadOnlySpan<byte> payload)
        {
        }

        public void OnPeerUp(NodeId peer)
        {
        }

        public void OnPeerDown(NodeId peer, string reason)
        {
        }
    }
}
