// SPDX-License-Identifier: Apache-2.0
using System.Net;
using VSmp.Agent.Fabric;
using VSmp.Agent.Fabric.FaultInjection;
using VSmp.Agent.Membership;
using VSmp.Agent.Tests.Fabric;
using VSmp.Coherence;
using VSmp.Coherence.Membership;
using VSmp.Coherence.Messages;
using Xunit;

namespace VSmp.Agent.Tests.Membership;

/// <summary>Founding, joining, leaving and losing nodes, over TCP on loopback.</summary>
public sealed class ClusterMembershipTests
{
    private const ulong Memory = 512ul << 20;

    [Fact]
    public async Task Nodes_that_join_get_numbers_in_turn_and_all_see_the_same_members()
    {
        await using var cluster = new TestCluster();
        await cluster.FoundAsync("alpha");
        await cluster.JoinAsync("beta");
        await cluster.JoinAsync("gamma");
        await cluster.JoinAsync("delta");
        foreach (TestMember member in cluster.Nodes)
        {
            await member.Node.UntilAsync(() => member.Membership.View.Value == 4);
            Assert.Equal(["alpha", "beta", "gamma", "delta"], member.Membership.Members.Select(m => m.Name));
            Assert.Equal([0, 1, 2, 3], member.Membership.Members.Select(m => (int)m.Id.Value));
            Assert.All(member.Membership.Members, m => Assert.Equal(Memory, m.ContributedBytes));
            Assert.Equal(cluster.Nodes[0].Membership.Epoch, member.Membership.Epoch);
            await member.Node.UntilAsync(() => member.Node.Recorder.Ups.Count == 3);
        }
        Assert.Equal(new NodeId(2), cluster.Nodes[2].Membership.Self);
    }

    [Fact]
    public async Task A_member_that_is_not_the_coordinator_sends_a_newcomer_to_it()
    {
        await using var cluster = new TestCluster();
        await cluster.FoundAsync("alpha");
        await cluster.JoinAsync("beta");
        await cluster.JoinAsync("gamma", seed: 1);
        Assert.Equal(new NodeId(2), cluster.Nodes[2].Membership.Self);
    }

    [Fact]
    public async Task A_newcomer_waits_for_the_agent_that_it_asks_to_be_in_a_cluster_itself()
    {
        await using var cluster = new TestCluster();
        TestMember alpha = cluster.Start(), beta = cluster.Start();
        TaskCompletionSource asked = new(TaskCreationOptions.RunContinuationsAsynchronously);
        Action<IncomingJoin> take = alpha.Node.Gate.JoinArrived!;
        alpha.Node.Gate.JoinArrived = join =>
        {
            take(join);
            asked.TrySetResult();
        };
        Task joined = beta.Membership.JoinAsync(alpha.Node.Address, "beta", beta.Node.Address, Memory);
        await asked.Task; // alpha's reactor answers it before it founds
        await alpha.Node.OnAsync(_ => alpha.Membership.Found("alpha", alpha.Node.Address, Memory));
        await joined;
        Assert.Equal(new NodeId(1), beta.Membership.Self);
    }

    [Fact]
    public async Task A_newcomer_that_goes_away_before_it_is_answered_is_no_member_for_long()
    {
        await using var cluster = new TestCluster();
        await cluster.FoundAsync("alpha");
        await cluster.JoinAsync("beta");
        TestMember alpha = cluster.Nodes[0], beta = cluster.Nodes[1];
        using var resume = new ManualResetEventSlim();
        beta.Node.Reactor.Post(resume.Wait); // nobody is answered before beta knows of it
        TestMember gamma = cluster.Start();
        Task joining = gamma.Membership.JoinAsync(alpha.Node.Address, "gamma", gamma.Node.Address, Memory);
        await alpha.Node.UntilAsync(() => alpha.Membership.Members.Count == 3);
        Assert.False(joining.IsCompleted);
        await cluster.KillAsync(2);
        await alpha.Node.UntilAsync(() => alpha.Membership.IsSuspected(new NodeId(2))); // beta has yet to vote
        resume.Set();
        await alpha.Node.UntilAsync(() => alpha.Left.Count == 1);
        Assert.Equal(["gamma"], alpha.Left);
    }

    [Fact]
    public async Task A_name_that_is_taken_is_refused()
    {
        await using var cluster = new TestCluster();
        await cluster.FoundAsync("alpha");
        MembershipException error = await Assert.ThrowsAsync<MembershipException>(() => cluster.JoinAsync("alpha"));
        Assert.Equal(HandshakeStatus.NameTaken, error.Status);
        Assert.Contains("--name", error.Message, StringComparison.Ordinal);
        Assert.Single(cluster.Nodes[0].Membership.Members);
    }

    [Fact]
    public async Task A_node_that_leaves_is_gone_from_everybodys_view()
    {
        await using var cluster = new TestCluster();
        await cluster.FoundAsync("alpha");
        await cluster.JoinAsync("beta");
        await cluster.JoinAsync("gamma");
        await cluster.Nodes[1].Membership.LeaveAsync(TimeSpan.FromSeconds(30));
        foreach (TestMember member in new[] { cluster.Nodes[0], cluster.Nodes[2] })
        {
            await member.Node.UntilAsync(() => member.Left.Count == 1); // once no promise to it holds any more
            Assert.Equal(["alpha", "gamma"], member.Membership.Members.Select(m => m.Name));
            Assert.Equal(4u, member.Membership.View.Value);
            Assert.Equal(["beta"], member.Left);
        }
        Assert.Null(cluster.Nodes[1].Expelled);
    }

    [Fact]
    public async Task A_node_that_dies_is_removed_and_comes_back_under_its_name_with_a_new_number()
    {
        await using var cluster = new TestCluster();
        await cluster.FoundAsync("alpha");
        await cluster.JoinAsync("beta");
        await cluster.JoinAsync("gamma");
        await cluster.KillAsync(1);
        foreach (TestMember member in new[] { cluster.Nodes[0], cluster.Nodes[2] })
            await member.Node.UntilAsync(() => member.Membership.View.Value == 4 && member.Membership.Members.Count == 2);
        await cluster.JoinAsync("beta");
        Assert.Equal(new NodeId(3), cluster.Nodes[^1].Membership.Self);
        TestMember gamma = cluster.Nodes[2];
        await gamma.Node.UntilAsync(() => gamma.Membership.View.Value == 5);
        Assert.Equal(["alpha", "gamma", "beta"], gamma.Membership.Members.Select(m => m.Name));
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public async Task Without_the_coordinator_every_member_goes_out_and_says_why(bool coordinatorLeavesOrderly)
    {
        await using var cluster = new TestCluster();
        await cluster.FoundAsync("alpha");
        await cluster.JoinAsync("beta");
        await cluster.JoinAsync("gamma");
        TestMember beta = cluster.Nodes[1], gamma = cluster.Nodes[2];
        await gamma.Node.UntilAsync(() => gamma.Node.Recorder.Ups.Count == 2);
        if (coordinatorLeavesOrderly) await cluster.Nodes[0].Membership.LeaveAsync(TimeSpan.FromSeconds(30));
        await cluster.KillAsync(0);
        foreach (TestMember member in new[] { beta, gamma })
        {
            await member.Node.UntilAsync(() => member.Expelled is not null);
            Assert.Contains("the coordinator, node alpha at", member.Expelled, StringComparison.Ordinal);
            Assert.Contains("start the cluster anew", member.Expelled, StringComparison.Ordinal);
            Assert.False(member.Membership.HasLease);
            Assert.Empty(member.Left);
        }
        await beta.Membership.LeaveAsync(TimeSpan.FromSeconds(30));
    }

    [Fact]
    public async Task A_member_that_another_cannot_reach_is_removed_and_told_so()
    {
        await using var cluster = new TestCluster();
        await cluster.FoundAsync("alpha");
        await cluster.JoinAsync("beta");
        await cluster.JoinAsync("gamma");
        TestMember beta = cluster.Nodes[1], gamma = cluster.Nodes[2];
        await beta.Node.UntilAsync(() => beta.Node.Recorder.Ups.Count == 2);
        await beta.Node.OnAsync(_ => beta.Membership.OnPeerDown(new NodeId(2), "the cable between the two is cut"));
        await gamma.Node.UntilAsync(() => gamma.Expelled is not null);
        Assert.Contains("excluded", gamma.Expelled, StringComparison.Ordinal);
        foreach (TestMember member in new[] { cluster.Nodes[0], beta })
        {
            await member.Node.UntilAsync(() => member.Left.Count == 1);
            Assert.Equal(["gamma"], member.Left);
        }
    }

    [Fact]
    public async Task Of_two_members_whose_session_is_lost_the_one_that_joined_later_goes()
    {
        await using var cluster = new TestCluster();
        await cluster.FoundAsync("alpha");
        await cluster.JoinAsync("beta");
        await cluster.JoinAsync("gamma");
        TestMember gamma = cluster.Nodes[2];
        await gamma.Node.OnAsync(_ => gamma.Membership.OnPeerDown(new NodeId(1), "the cable between the two is cut"));
        await gamma.Node.UntilAsync(() => gamma.Expelled is not null);
        Assert.Contains("cannot go on with node beta: the cable", gamma.Expelled, StringComparison.Ordinal);
        foreach (TestMember member in cluster.Nodes.Take(2)) await member.Node.UntilAsync(() => member.Left.Count == 1);
    }

    [Fact]
    public async Task A_member_that_nobody_hears_is_excluded_when_its_lease_is_over_and_told_when_it_is_back()
    {
        await using var cluster = new TestCluster();
        await cluster.FoundAsync("alpha");
        await cluster.JoinAsync("beta");
        await cluster.JoinAsync("gamma");
        TestMember alpha = cluster.Nodes[0], beta = cluster.Nodes[1], gamma = cluster.Nodes[2];
        await TestCluster.PartAsync(gamma, alpha, beta);
        foreach (TestMember member in new[] { alpha, beta })
        {
            await member.Node.UntilAsync(() => member.Left.Count == 1);
            Assert.Equal(["alpha", "beta"], member.Membership.Members.Select(m => m.Name));
            Assert.True(member.Membership.HasLease);
        }
        await gamma.Node.UntilAsync(() => !gamma.Membership.HasLease);
        Assert.Null(gamma.Expelled);
        await cluster.HealAsync();
        await gamma.Node.UntilAsync(() => gamma.Expelled is not null);
        Assert.Contains("excluded", gamma.Expelled, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_partition_shorter_than_the_suspicion_costs_the_lease_and_nobodys_membership()
    {
        await using var cluster = new TestCluster(new MembershipTimes(SuspectTicks: 20_000, RestartPatienceTicks: 60_000));
        await cluster.FoundAsync("alpha");
        await cluster.JoinAsync("beta");
        TestMember alpha = cluster.Nodes[0], beta = cluster.Nodes[1];
        await TestCluster.PartAsync(beta, alpha);
        await beta.Node.UntilAsync(() => !beta.Membership.HasLease);
        Assert.True(alpha.Membership.HasLease); // the coordinator needs nobody
        await cluster.HealAsync();
        await beta.Node.UntilAsync(() => beta.Membership.HasLease);
        Assert.Equal(2, alpha.Membership.Members.Count);
        Assert.Equal((false, true), (beta.Leases[^2], beta.Leases[^1]));
        Assert.Contains(beta.Node.Log, line => line.Contains("guests go on", StringComparison.Ordinal));
    }

    [Fact]
    public async Task A_member_that_stands_still_while_its_host_takes_connections_is_waited_for()
    {
        await using var cluster = new TestCluster(new MembershipTimes(SuspectTicks: 400, RestartPatienceTicks: 60_000));
        await cluster.FoundAsync("alpha");
        await cluster.JoinAsync("beta");
        TestMember alpha = cluster.Nodes[0], beta = cluster.Nodes[1];
        using var resume = new ManualResetEventSlim();
        beta.Node.Reactor.Post(resume.Wait);
        long since = Environment.TickCount64;
        await alpha.Node.UntilAsync(() => Environment.TickCount64 - since > 1500); // several times the suspicion
        resume.Set();
        await beta.Node.UntilAsync(() => beta.Membership.HasLease);
        Assert.Equal((2, 2), (alpha.Membership.Members.Count, beta.Membership.Members.Count));
        Assert.Empty(alpha.Left);
    }

    [Fact]
    public async Task Members_that_the_coordinator_is_silent_to_wait_for_a_restart_and_then_go_out()
    {
        await using var cluster = new TestCluster(new MembershipTimes(SuspectTicks: 500, RestartPatienceTicks: 1500));
        await cluster.FoundAsync("alpha");
        await cluster.JoinAsync("beta");
        TestMember alpha = cluster.Nodes[0], beta = cluster.Nodes[1];
        await TestCluster.PartAsync(beta, alpha);
        await beta.Node.UntilAsync(() => beta.Expelled is not null);
        Assert.Contains("nothing was heard of it for", beta.Expelled, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Heartbeats_that_are_lost_late_or_damaged_cost_nobodys_membership()
    {
        await using var cluster = new TestCluster(new MembershipTimes(SuspectTicks: 10_000));
        await cluster.FoundAsync("alpha");
        await cluster.JoinAsync("beta");
        TestMember alpha = cluster.Nodes[0], beta = cluster.Nodes[1];
        await alpha.Node.OnAsync(fabric =>
        {
            fabric.Faults!.UseSeed(7);
            fabric.Faults.Inject(null, new Fault(FaultKind.Drop, 0.3));
            fabric.Faults.Inject(null, new Fault(FaultKind.Delay, 0.3, 100_000));
            fabric.Faults.Inject(null, new Fault(FaultKind.Corrupt, 0.3));
        });
        await alpha.Node.UntilAsync(() => alpha.Node.Fabric.Faults!.InForce.All(f => f.Fault.Count >= 10));
        await beta.Node.UntilAsync(() => beta.Membership.HasLease);
        Assert.Equal((2, 2), (alpha.Membership.Members.Count, beta.Membership.Members.Count));
    }

    [Fact]
    public async Task Nonsense_in_place_of_a_record_ends_the_session_and_the_membership_of_who_sent_it()
    {
        await using var cluster = new TestCluster();
        await cluster.FoundAsync("alpha");
        await cluster.JoinAsync("beta");
        TestMember alpha = cluster.Nodes[0], beta = cluster.Nodes[1];
        await beta.Node.OnAsync(fabric =>
        {
            new byte[] { 1, 2, 3 }.CopyTo(fabric.Begin(new NodeId(0), 3));
            fabric.Commit(new FrameHeader { Type = MessageType.ProposeView, Argument0 = 2 });
        });
        await alpha.Node.UntilAsync(() => alpha.Left.Count == 1);
        await beta.Node.UntilAsync(() => beta.Expelled is not null);
    }

    [Fact]
    public async Task Frames_carry_the_view_and_the_epoch_of_their_sender()
    {
        await using var cluster = new TestCluster();
        await cluster.FoundAsync("alpha");
        await cluster.JoinAsync("beta");
        TestMember beta = cluster.Nodes[1];
        await beta.Node.OnAsync(fabric =>
        {
            fabric.Begin(new NodeId(0), 0);
            fabric.Commit(new FrameHeader { Type = MessageType.NodeReport });
        });
        TestMember alpha = cluster.Nodes[0];
        await alpha.Node.UntilAsync(() => alpha.Node.Recorder.Count(1) == 1);
        FrameHeader header = alpha.Node.Recorder.Frames(1)[0].Header;
        Assert.Equal((new ViewNumber(2), alpha.Membership.Epoch), (header.View, header.Epoch));
    }

    [Fact]
    public async Task A_newcomer_that_listens_on_a_wildcard_is_reached_at_the_address_it_came_from()
    {
        await using var cluster = new TestCluster();
        await cluster.FoundAsync("alpha");
        await cluster.JoinAsync("beta", advertise: port => new IPEndPoint(IPAddress.Any, port));
        Assert.Equal(IPAddress.Loopback, cluster.Nodes[0].Membership.Find(new NodeId(1))!.Address.Address);
        Assert.Throws<ArgumentException>(() =>
            new TestMember().Membership.Found("x", new IPEndPoint(IPAddress.Any, 1), Memory));
    }

    [Theory]
    [InlineData("")]
    [InlineData("a b")]
    [InlineData("../x")]
    [InlineData("ä")]
    public async Task A_name_that_is_none_is_refused_before_anything_is_sent(string name)
    {
        await using var cluster = new TestCluster();
        await cluster.FoundAsync("alpha");
        await Assert.ThrowsAsync<ArgumentException>(() => cluster.JoinAsync(name));
    }

    private sealed class TestMember
    {
        public TestMember(MembershipTimes? times = null)
        {
            Node = new FabricNode(faults: new FaultPlan());
            Membership = new ClusterMembership(Node.Reactor, Node.Fabric, Node.Gate, Node.Recorder, Node.Log.Enqueue, times);
            Membership.LeaseChanged += Leases.Add;
            Membership.NodeLeft += (member, _) => Left.Add(member.Name);
            Membership.Expelled += reason => Expelled = reason;
        }

        public FabricNode Node { get; }

        public ClusterMembership Membership { get; }

        public List<string> Left { get; } = [];

        /// <summary>Each time that there was a lease again, or none any more.</summary>
        public List<bool> Leases { get; } = [];

        public string? Expelled { get; private set; }

        public bool IsAlive { get; set; }
    }

    private sealed class TestCluster(MembershipTimes? times = null) : IAsyncDisposable
    {
        public List<TestMember> Nodes { get; } = [];

        public async Task FoundAsync(string name)
        {
            TestMember member = Start();
            await member.Node.OnAsync(_ => member.Membership.Found(name, member.Node.Address, Memory));
        }

        public async Task JoinAsync(string name, int seed = 0, Func<int, IPEndPoint>? advertise = null)
        {
            TestMember member = Start();
            IPEndPoint address = advertise?.Invoke(member.Node.Address.Port) ?? member.Node.Address;
            await member.Membership.JoinAsync(Nodes[seed].Node.Address, name, address, Memory);
        }

        /// <summary>Ends a node without a word, as a crash does.</summary>
        public async Task KillAsync(int index)
        {
            await EndAsync(Nodes[index]);
        }

        /// <summary>Nothing gets through between one and others any more, and nobody is told.</summary>
        public static async Task PartAsync(TestMember one, params TestMember[] others)
        {
            foreach (TestMember other in others)
            {
                await one.Node.OnAsync(fabric => fabric.Faults!.Inject(other.Membership.Self, new Fault(FaultKind.Partition, 1)));
                await other.Node.OnAsync(fabric => fabric.Faults!.Inject(one.Membership.Self, new Fault(FaultKind.Partition, 1)));
            }
        }

        public async Task HealAsync()
        {
            foreach (TestMember member in Nodes) await member.Node.OnAsync(fabric => fabric.Faults!.Heal(null));
        }

        public async ValueTask DisposeAsync()
        {
            foreach (TestMember member in Nodes)
                if (member.IsAlive) await EndAsync(member);
        }

        private static async Task EndAsync(TestMember member)
        {
            member.IsAlive = false;
            await member.Node.OnAsync(_ => member.Membership.Dispose());
            await member.Node.DisposeAsync();
        }

        public TestMember Start()
        {
            var member = new TestMember(times) { IsAlive = true };
            Nodes.Add(member);
            member.Node.Start();
            return member;
        }
    }
}
