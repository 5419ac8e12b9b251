// SPDX-License-Identifier: Apache-2.0
using System.Diagnostics;
using VSmp.Agent.Fabric;
using VSmp.Agent.Fabric.FaultInjection;
using VSmp.Agent.Membership;
using VSmp.Agent.Membership.Etcd;
using VSmp.Agent.Tests.Fabric;
using VSmp.Agent.Tests.Membership.Etcd;
using VSmp.Coherence;
using VSmp.Coherence.Membership;
using Xunit;

namespace VSmp.Agent.Tests.Membership;

/// <summary>Clusters that decide by majority, with the record in a real etcd: any member may be lost, and etcd for a while.</summary>
public sealed class EtcdMembershipTests : IAsyncLifetime
{
    private const ulong Memory = 512ul << 20;

    private static readonly MembershipTimes Times = new(LeaseTicks: 600, MarginTicks: 100, SuspectTicks: 2000);

    /// <summary>As short as etcd allows.</summary>
    private static readonly TimeSpan Presence = TimeSpan.FromSeconds(2);

    private readonly EtcdServer _etcd = new();
    private readonly string _cluster = EtcdStores.NewCluster();
    private readonly List<TestMember> _members = [];

    public async ValueTask InitializeAsync() => await _etcd.StartAsync();

    public async ValueTask DisposeAsync()
    {
        foreach (TestMember member in _members)
            if (member.IsAlive) await EndAsync(member);
        await _etcd.DisposeAsync();
    }

    [Fact]
    public async Task Of_nodes_that_start_together_one_founds_the_cluster_and_the_others_join_it()
    {
        TestMember[] all = [Start(), Start(), Start()];
        string[] names = ["alpha", "beta", "gamma"];
        await Task.WhenAll(all.Select((member, i) => EnterAsync(member, names[i])));
        foreach (TestMember member in all)
        {
            await member.Node.UntilAsync(() => member.Membership.Members.Count == 3 && member.Membership.HasLease);
            Assert.Equal(names, member.Membership.Members.Select(m => m.Name).Order(StringComparer.Ordinal));
            Assert.Equal([0, 1, 2], member.Membership.Members.Select(m => (int)m.Id.Value));
            Assert.Equal(all[0].Membership.Epoch, member.Membership.Epoch);
            await member.Node.UntilAsync(() => member.Node.Recorder.Ups.Count == 2);
        }
        Assert.Equal($"by majority, with the record in {_etcd.Address}", all[1].Membership.Decision);
    }

    [Fact]
    public async Task The_founder_is_excluded_like_any_other_and_its_name_may_be_taken_again()
    {
        TestMember alpha = await EnterAsync("alpha"), beta = await EnterAsync("beta"), gamma = await EnterAsync("gamma");
        await EndAsync(alpha);
        foreach (TestMember member in new[] { beta, gamma })
        {
            await member.Node.UntilAsync(() => member.Left.Count == 1 && member.Membership.HasLease);
            Assert.Equal(["alpha"], member.Left);
            Assert.Equal(["beta", "gamma"], member.Membership.Members.Select(m => m.Name));
        }
        TestMember again = await EnterAsync("alpha"), delta = await EnterAsync("delta");
        foreach (TestMember member in new[] { beta, gamma, again, delta })
        {
            await member.Node.UntilAsync(() => member.Membership.Members.Count == 4 && member.Membership.HasLease);
            Assert.Equal([1, 2, 3, 4], member.Membership.Members.Select(m => (int)m.Id.Value));
        }
    }

    [Fact]
    public async Task A_node_that_was_killed_and_is_started_at_once_waits_until_its_predecessor_is_excluded()
    {
        TestMember alpha = await EnterAsync("alpha"), beta = await EnterAsync("beta"), gamma = await EnterAsync("gamma");
        await EndAsync(beta);
        TestMember again = await EnterAsync("beta");
        Assert.Equal(new NodeId(3), again.Membership.Self);
        Assert.Contains(again.Node.Log, line => line.Contains("waiting to join: beta is a member", StringComparison.Ordinal));
        foreach (TestMember member in new[] { alpha, gamma }) await member.Node.UntilAsync(() => member.Left.Count == 1);
    }

    [Fact]
    public async Task The_name_of_a_member_that_is_there_is_refused()
    {
        await EnterAsync("alpha");
        TestMember beta = await EnterAsync("beta");
        MembershipException error = await Assert.ThrowsAsync<MembershipException>(() => EnterAsync("beta"));
        Assert.Equal(HandshakeStatus.NameTaken, error.Status);
        Assert.Contains("--name", error.Message, StringComparison.Ordinal);
        Assert.Equal(2, beta.Membership.Members.Count);
    }

    [Fact]
    public async Task Who_would_let_a_coordinator_decide_is_not_admitted()
    {
        TestMember alpha = await EnterAsync("alpha"), beta = Start();
        MembershipException error = await Assert.ThrowsAsync<MembershipException>(
            () => beta.Membership.JoinAsync(alpha.Node.Address, "beta", beta.Node.Address, Memory));
        Assert.Equal(HandshakeStatus.OtherMembership, error.Status);
        Assert.Contains("--membership", error.Message, StringComparison.Ordinal);
        Assert.Single(alpha.Membership.Members);
    }

    [Fact]
    public async Task Without_etcd_leases_go_on_and_who_is_lost_is_excluded_when_it_is_back()
    {
        TestMember alpha = await EnterAsync("alpha"), beta = await EnterAsync("beta"), gamma = await EnterAsync("gamma");
        await _etcd.KillAsync();
        long since = Stopwatch.GetTimestamp();
        foreach (TestMember member in new[] { alpha, beta, gamma })
        {
            await member.Node.UntilAsync(() => member.Membership.StoreProblem is not null);
            await member.Node.UntilAsync(() => member.Membership.HasLease && Stopwatch.GetElapsedTime(since).TotalMilliseconds > 3 * Times.LeaseTicks);
        }
        await EndAsync(alpha);
        foreach (TestMember member in new[] { beta, gamma }) await member.Node.UntilAsync(() => member.Membership.IsSuspected(new NodeId(0)));
        since = Stopwatch.GetTimestamp();
        await beta.Node.UntilAsync(() => beta.Membership.HasLease && Stopwatch.GetElapsedTime(since).TotalMilliseconds > 3 * Times.LeaseTicks);
        Assert.Equal(3, beta.Membership.Members.Count);
        Assert.Empty(beta.Left);

        await _etcd.StartAsync();
        foreach (TestMember member in new[] { beta, gamma })
        {
            await member.Node.UntilAsync(() => member.Left.Count == 1 && member.Membership.StoreProblem is null);
            Assert.Equal(["beta", "gamma"], member.Membership.Members.Select(m => m.Name));
            await member.Node.UntilAsync(() => member.Node.Log.Any(line => line.Contains("etcd is back", StringComparison.Ordinal)));
            Assert.Single(member.Node.Log, line => line.Contains("etcd cannot be reached", StringComparison.Ordinal));
        }
        await EnterAsync("delta");
        await gamma.Node.UntilAsync(() => gamma.Membership.Members.Count == 3);
    }

    [Fact]
    public async Task A_member_that_is_cut_off_loses_its_lease_is_excluded_and_learns_it_from_the_record()
    {
        TestMember alpha = await EnterAsync("alpha"), beta = await EnterAsync("beta"), gamma = await EnterAsync("gamma");
        foreach (TestMember other in new[] { beta, gamma })
        {
            NodeId id = other.Membership.Self;
            await alpha.Node.OnAsync(fabric => fabric.Faults!.Inject(id, new Fault(FaultKind.Partition, 1)));
            await other.Node.OnAsync(fabric => fabric.Faults!.Inject(new NodeId(0), new Fault(FaultKind.Partition, 1)));
        }
        await alpha.Node.UntilAsync(() => !alpha.Membership.HasLease);
        foreach (TestMember member in new[] { beta, gamma })
        {
            await member.Node.UntilAsync(() => member.Left.Count == 1);
            Assert.Equal(["alpha"], member.Left);
        }
        await alpha.Node.UntilAsync(() => alpha.Expelled is not null);
        Assert.Contains("the others have excluded this node", alpha.Expelled, StringComparison.Ordinal);
        Assert.Contains(alpha.Node.Log, line => line.Contains("a majority of the members has not answered", StringComparison.Ordinal));
    }

    [Fact]
    public async Task A_cluster_that_was_killed_as_a_whole_is_founded_anew_when_its_members_have_not_been_announced_for_some_time()
    {
        TestMember alpha = await EnterAsync("alpha"), beta = await EnterAsync("beta");
        Epoch old = alpha.Membership.Epoch;
        await EndAsync(alpha);
        await EndAsync(beta);
        TestMember again = await EnterAsync("beta");
        Assert.Equal((new NodeId(0), 1), (again.Membership.Self, again.Membership.Members.Count));
        Assert.NotEqual(old, again.Membership.Epoch);
        Assert.Contains(again.Node.Log, line => line.Contains("beta has founded the cluster anew", StringComparison.Ordinal));
        await EnterAsync("alpha");
    }

    [Fact]
    public async Task Members_leave_in_any_order_and_the_last_one_takes_the_record_with_it()
    {
        TestMember alpha = await EnterAsync("alpha"), beta = await EnterAsync("beta"), gamma = await EnterAsync("gamma");
        foreach (TestMember leaving in new[] { alpha, gamma, beta })
        {
            await leaving.Membership.LeaveAsync(TimeSpan.FromSeconds(30));
            Assert.Null(leaving.Expelled);
        }
        using EtcdViewStore store = EtcdStores.Open(_etcd.Address, _cluster);
        Assert.Null(await store.ReadAsync());
        Assert.Empty(await store.PresentAsync(CancellationToken.None));
    }

    [Fact]
    public async Task A_newcomer_that_etcd_cannot_be_reached_by_says_so()
    {
        await _etcd.KillAsync();
        ViewStoreException error = await Assert.ThrowsAnyAsync<ViewStoreException>(() => EnterAsync(Start(), "alpha", EtcdStores.Impatient));
        Assert.Equal(StoreFailure.Unreachable, error.Failure);
        Assert.Contains("Connection refused", error.Message, StringComparison.Ordinal);
    }

    private TestMember Start()
    {
        var member = new TestMember();
        _members.Add(member);
        member.Node.Start();
        return member;
    }

    private async Task<TestMember> EnterAsync(string name)
    {
        TestMember member = Start();
        await EnterAsync(member, name);
        return member;
    }

    private Task EnterAsync(TestMember member, string name, EtcdTimeouts? timeouts = null) => member.Membership.FoundOrJoinAsync(
        EtcdStores.Open(_etcd.Address, _cluster, timeouts), _etcd.Address, name, member.Node.Address, Memory, Presence);

    /// <summary>Ends a node without a word, as a crash does.</summary>
    private static async Task EndAsync(TestMember member)
    {
        member.IsAlive = false;
        await member.Node.OnAsync(_ => member.Membership.Dispose());
        await member.Node.DisposeAsync();
    }

    private sealed class TestMember
    {
        public TestMember()
        {
            Node = new FabricNode(faults: new FaultPlan());
            Membership = new ClusterMembership(Node.Reactor, Node.Fabric, Node.Gate, Node.Recorder, Node.Log.Enqueue, Times);
            Membership.NodeLeft += (member, _) => Left.Add(member.Name);
            Membership.Expelled += reason => Expelled = reason;
        }

        public FabricNode Node { get; }

        public ClusterMembership Membership { get; }

        public List<string> Left { get; } = [];

        public string? Expelled { get; private set; }

        public bool IsAlive { get; set; } = true;
    }
}
