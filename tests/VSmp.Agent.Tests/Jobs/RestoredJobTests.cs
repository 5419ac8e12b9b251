// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent.Checkpointing;
using VSmp.Agent.Control;
using VSmp.Agent.Fabric;
using VSmp.Agent.Guests;
using VSmp.Agent.Interop;
using VSmp.Agent.Jobs;
using VSmp.Agent.Paging;
using VSmp.Agent.Recovery;
using VSmp.Agent.Tests.Checkpointing;
using VSmp.Coherence;
using VSmp.Coherence.Messages;
using Xunit;

namespace VSmp.Agent.Tests.Jobs;

/// <summary>Jobs of an agent that was killed, at the one that takes its place.</summary>
public sealed class RestoredJobTests : IDisposable
{
    private const uint User = 1000;
    private const ulong PoolBytes = 64 << 20;
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(30);

    private readonly RunDirectory _directory = RunDirectory.OfCurrentUser($"test-{Guid.NewGuid():N}"[..20]);
    private readonly IDisposable _claim;
    private readonly Reactor _reactor = new(maxSpinMicroseconds: 0);
    private readonly InMemoryNetwork _network = new(seed: 1);
    private readonly InMemoryFabric _fabric;
    private readonly Pager _pager;
    private readonly Peers _peers = new();
    private readonly Thread _thread;
    private readonly List<Told> _observers = [];

    public RestoredJobTests()
    {
        _claim = Folder.Claim(null, out _);
        var self = new NodeId(0);
        _fabric = _network.CreateFabric(self, new Epoch(1), new Nobody());
        _pager = new Pager(self, _reactor, _fabric, () => 2);
        _peers.Add(self, "n0", "");
        _thread = new Thread(_reactor.Run);
        _thread.Start();
    }

    private AgentFolder Folder => _directory.Agent("n0");

    private IReadOnlyList<string> Journals => WholeFile.In(Folder.JobsFolder);

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
    public Task A_job_goes_on_with_who_began_it_and_with_nobody_else() => _reactor.Ask(() =>
    {
        JobTicket begun = Begin(NewServer());
        Assert.Single(Journals);
        JobServer next = Restart();
        Assert.Null(next.Resume("another", User, NewObserver()));
        Assert.Equal(ExitCodes.Refused, Assert.Throws<ControlException>(() => next.Resume(begun.Token, User + 1, NewObserver())).ExitCode);
        JobTicket resumed = next.Resume(begun.Token, User, NewObserver())!;
        Assert.Equal((begun.Job, begun.Token, begun.Protocol), (resumed.Job, resumed.Token, resumed.Protocol));
        Assert.Equal(begun.Placement, resumed.Placement);
        Assert.Equal(ExitCodes.Taken, Assert.Throws<ControlException>(() => next.Resume(begun.Token, 0, NewObserver())).ExitCode);
        next.End(new JobId(begun.Job));
        Assert.Empty(Journals);
        Assert.Null(Restart().Resume(begun.Token, User, NewObserver()));
        return true;
    });

    [Fact]
    public async Task A_job_whose_command_does_not_come_back_is_ended()
    {
        JobTicket begun = await _reactor.Ask(() =>
        {
            JobTicket ticket = Begin(NewServer());
            _ = Restart(patienceMicroseconds: 50_000);
            return ticket;
        });
        DateTime deadline = DateTime.UtcNow + Patience;
        while (Journals.Count > 0 && DateTime.UtcNow < deadline) await Task.Delay(10, TestContext.Current.CancellationToken);
        Assert.Empty(Journals);
        Assert.Null(await _reactor.Ask(() => Restart().Resume(begun.Token, User, NewObserver())));
    }

    [Fact]
    public Task A_job_that_was_lost_is_told_so_again_and_ends_its_ranks() => _reactor.Ask(() =>
    {
        AddPeer();
        JobServer server = NewServer();
        JobTicket begun = Begin(server);
        Assert.Equal(["n0", "n1"], begun.Placement);
        _peers.Remove(new NodeId(1));
        server.OnPeerLost(new NodeId(1), "node n1 is lost");
        Assert.True(_observers[^1].IsLost);
        JobServer next = Restart();
        Told observer = NewObserver();
        Assert.NotNull(next.Resume(begun.Token, User, observer));
        Assert.True(observer.IsLost);
        return true;
    });

    [Fact]
    public Task A_job_of_which_a_node_was_lost_meanwhile_is_lost() => _reactor.Ask(() =>
    {
        AddPeer();
        JobTicket begun = Begin(NewServer());
        _peers.Remove(new NodeId(1));
        JobServer next = Restart();
        Told observer = NewObserver();
        Assert.NotNull(next.Resume(begun.Token, User, observer));
        Assert.True(observer.IsLost);
        Assert.Contains(observer.Messages, text => text.Contains("was lost while", StringComparison.Ordinal));
        return true;
    });

    [Theory]
    [InlineData("lazy", true)] // what ranks have written is recorded nowhere
    [InlineData("msi", false)] // no keeper starts another agent
    public Task Some_jobs_have_no_journal(string protocol, bool isRecording) => _reactor.Ask(() =>
    {
        _ = Begin(NewServer(isRecording: isRecording), protocol);
        Assert.Empty(Journals);
        return true;
    });

    [Fact]
    public Task What_makes_no_sense_is_left_out_and_deleted() => _reactor.Ask(() =>
    {
        JobTicket begun = Begin(NewServer());
        string path = Assert.Single(Journals);
        byte[] bytes = File.ReadAllBytes(path);
        bytes[^1] ^= 1;
        File.WriteAllBytes(path, bytes);
        File.WriteAllText(Path.Combine(Folder.JobsFolder, "0000000000000077"), "no journal");
        Assert.Null(Restart().Resume(begun.Token, User, NewObserver()));
        Assert.Empty(Journals);
        return true;
    });

    [Fact]
    public Task What_is_not_to_be_taken_over_is_deleted() => _reactor.Ask(() =>
    {
        _ = Begin(NewServer());
        NewServer().DiscardLeft();
        Assert.Empty(Journals);
        return true;
    });

    private void AddPeer()
    {
        _fabric.Add(new NodeId(1), new System.Net.IPEndPoint(System.Net.IPAddress.Loopback, 1));
        Peer peer = _peers.Add(new NodeId(1), "n1", "");
        peer.IsConnected = peer.IsUp = true;
    }

    private JobTicket Begin(JobServer server, string protocol = "msi") =>
        server.Begin(new JobRequest(2, null, null, protocol, "heat"), User, Environment.ProcessId, null, NewObserver());

    /// <summary>As an agent that takes the place of one that was killed.</summary>
    private JobServer Restart(long patienceMicroseconds = 30_000_000)
    {
        JobServer next = NewServer(patienceMicroseconds);
        next.Restore();
        next.ContinueRestored();
        return next;
    }

    private JobServer NewServer(long patienceMicroseconds = 30_000_000, bool isRecording = true)
    {
        var self = new NodeId(0);
        var capacity = new Capacity(PoolBytes);
        var reservations = new Reservations(self, _pager, _fabric, capacity, _peers, Folder.Frames);
        return new JobServer(self, _reactor, _pager, _fabric, capacity, _peers, new RecoveryServer(self, _pager, _fabric, _peers, reservations), new CheckpointServer(self, _reactor, _pager, _fabric, _peers, TestFiles.At(Folder.Frames, _reactor)), Folder)
        {
            IsRecording = isRecording,
            SupervisorPatienceMicroseconds = patienceMicroseconds,
        };
    }

    private Told NewObserver()
    {
        _observers.Add(new Told());
        return _observers[^1];
    }

    private sealed class Told : IRunObserver
    {
        public List<string> Messages { get; } = [];

        public bool IsLost { get; private set; }

        public void OnMessage(string text) => Messages.Add(text);

        public void OnGuestAttached(int processId, int userfaultfd)
        {
        }

        public void OnGuestDetached(int processId)
        {
        }

        public void OnJobLost() => IsLost = true;
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
