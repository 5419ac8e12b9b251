// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent.Fabric;
using VSmp.Agent.Membership;
using VSmp.Agent.Membership.Etcd;
using VSmp.Agent.Tests.Fabric;
using VSmp.Agent.Tests.Membership.Etcd;
using VSmp.Coherence;
using VSmp.Coherence.Membership;
using VSmp.Coherence.Messages;
using Xunit;

namespace VSmp.Agent.Tests.Membership;

/// <summary>Agents that are killed, and others that take their places, where a majority decides, with the record in a real etcd.</summary>
public sealed class EtcdRestartTests : IAsyncLifetime
{
    private const ulong Memory = 512ul << 20;

    /// <summary>Nobody is voted out while the next agent is being started: what was promised to the one before has not run out.</summary>
    private static readonly MembershipTimes Patient = new(LeaseTicks: 4000, SuspectTicks: 8000, RestartPatienceTicks: 60_000);

    private static readonly MembershipTimes Hasty = new(LeaseTicks: 600, MarginTicks: 100, SuspectTicks: 2000);

    private static readonly TimeSpan Presence = TimeSpan.FromSeconds(2);

    private readonly EtcdServer _etcd = new();
    private readonly string _cluster = EtcdStores.NewCluster();
    private readonly string _folder = Directory.CreateTempSubdirectory("vsmp-restart-").FullName;
    private readonly List<TestMember> _members = [];

    public async ValueTask InitializeAsync() => await _etcd.StartAsync();

    public async ValueTask DisposeAsync()
    {
        foreach (TestMember member in _members)
            if (member.IsAlive) await EndAsync(member);
        await _etcd.DisposeAsync();
        Directory.Delete(_folder, recursive: true);
    }

    [Theory]
    [InlineData(0)] // the founder
    [InlineData(1)]
    public async Task A_member_whose_agent_is_killed_has_itself_put_in_again_under_its_number(int killed)
    {
        TestMember[] members = await FoundAsync(Patient);
        TestMember[] others = [.. members.Where((_, i) => i != killed)];
        await EndAsync(members[killed]);
        // What was meant for the agent before must not get to the next one.
        foreach (TestMember other in others) await other.SendAsync(killed, marker: 1);
        TestMember back = await RestartAsync(members[killed]);
        Assert.Equal(new NodeId((ushort)killed), back.Membership.Self);
        await CheckBackAsync(back, others);
        foreach (TestMember other in others)
        {
            await other.SendAsync(killed, marker: 2);
            int number = other.Membership.Self.Value;
            await back.Node.UntilAsync(() => back.Node.Recorder.Count(number) > 0);
            Assert.Equal([2ul], back.Node.Recorder.Frames(number).Select(f => f.Header.Argument0));
        }
    }

    [Fact]
    public async Task An_agent_that_is_started_again_while_etcd_is_away_waits_for_it()
    {
        TestMember[] members = await FoundAsync(Patient);
        await _etcd.KillAsync();
        await EndAsync(members[2]);
        TestMember back = Start(Patient, "n2", members[2].Node.Address.Port);
        Task restarted = ComeBackAsync(back, TestContext.Current.CancellationToken);
        await back.Node.UntilAsync(() => back.Node.Log.Any(line => line.Contains("waiting for etcd", StringComparison.Ordinal)));
        Assert.False(restarted.IsCompleted);
        await _etcd.StartAsync();
        await restarted;
        await CheckBackAsync(back, members[..2]);
    }

    [Fact]
    public async Task An_agent_that_waits_for_etcd_can_be_told_to_stop()
    {
        TestMember[] members = await FoundAsync(Patient);
        await _etcd.KillAsync();
        await EndAsync(members[2]);
        TestMember back = Start(Patient, "n2", members[2].Node.Address.Port);
        using var stop = new CancellationTokenSource();
        Task restarted = ComeBackAsync(back, stop.Token);
        await stop.CancelAsync();
        MembershipException error = await Assert.ThrowsAsync<MembershipException>(() => restarted);
        Assert.Equal(HandshakeStatus.NotReady, error.Status);
    }

    [Fact]
    public async Task An_agent_that_comes_too_late_learns_from_the_record_that_its_node_was_excluded()
    {
        TestMember[] members = await FoundAsync(Hasty);
        await EndAsync(members[0]);
        await members[1].Node.UntilAsync(() => members[1].Left.Count == 1);
        MembershipException error = await Assert.ThrowsAsync<MembershipException>(() => RestartAsync(members[0]));
        Assert.Equal(HandshakeStatus.NotAMember, error.Status);
        Assert.Contains("excluded", error.Message, StringComparison.Ordinal);
    }

    private static async Task CheckBackAsync(TestMember back, TestMember[] others)
    {
        foreach (TestMember member in (TestMember[])[back, .. others])
        {
            await member.Node.UntilAsync(() => member.Membership.View.Value == 4 && member.Membership.HasLease);
            Assert.Equal([0, 1, 2], member.Membership.Members.Select(m => (int)m.Id.Value));
            Assert.Equal([back.Membership.Self], member.Membership.Members.Where(m => m.Incarnation == 1).Select(m => m.Id));
            Assert.Null(member.Expelled);
        }
        await back.Node.UntilAsync(() => back.Node.Recorder.Ups.Count == 2);
        foreach (TestMember other in others)
        {
            await other.Node.UntilAsync(() => other.Node.Recorder.Ups.Count == 3);
            Assert.Equal([back.Name], other.Restarted);
            Assert.Empty(other.Left);
        }
    }

    private async Task<TestMember[]> FoundAsync(MembershipTimes times)
    {
        TestMember[] members = [.. Enumerable.Range(0, 3).Select(i => Start(times, $"n{i}", port: 0))];
        foreach (TestMember member in members)
            await member.Membership.FoundOrJoinAsync(EtcdStores.Open(_etcd.Address, _cluster), _etcd.Address, member.Name, member.Node.Address, Memory, Presence);
        foreach (TestMember member in members)
            await member.Node.UntilAsync(() => member.Membership.View.Value == 3 && member.Node.Recorder.Ups.Count == 2);
        return members;
    }

    private TestMember Start(MembershipTimes times, string name, int port)
    {
        var member = new TestMember(times, name, Path.Combine(_folder, name), port);
        _members.Add(member);
        member.Node.Start();
        return member;
    }

    /// <summary>Starts an agent in the place of one that was killed.</summary>
    private async Task<TestMember> RestartAsync(TestMember killed)
    {
        TestMember back = Start(killed.Times, killed.Name, killed.Node.Address.Port);
        await ComeBackAsync(back, TestContext.Current.CancellationToken);
        return back;
    }

    private Task ComeBackAsync(TestMember back, CancellationToken cancel) => back.Membership.RestartAsync(
        MemberIdentity.Read(back.Membership.IdentityFile!)!, EtcdStores.Open(_etcd.Address, _cluster), _etcd.Address, Presence, cancel);

    /// <summary>Ends an agent without a word, as a signal does.</summary>
    private static async Task EndAsync(TestMember member)
    {
        member.IsAlive = false;
        await member.Node.OnAsync(_ => member.Membership.Dispose());
        await member.Node.DisposeAsync();
    }

    private sealed class TestMember
    {
        public TestMember(MembershipTimes times, string name, string file, int port)
        {
            (Times, Name, Node) = (times, name, new FabricNode(port: port));
            Membership = new ClusterMembership(Node.Reactor, Node.Fabric, Node.Gate, Node.Recorder, Node.Log.Enqueue, times) { IdentityFile = file };
            Membership.NodeLeft += (member, _) => Left.Add(member.Name);
            Membership.NodeRestarted += member => Restarted.Add(member.Name);
            Membership.Expelled += reason => Expelled = reason;
        }

        public MembershipTimes Times { get; }

        public string Name { get; }

        public FabricNode Node { get; }

        public ClusterMembership Membership { get; }

        public List<string> Left { get; } = [];

        public List<string> Restarted { get; } = [];

        public string? Expelled { get; private set; }

        public bool IsAlive { get; set; } = true;

        public Task SendAsync(int to, ulong marker) => Node.OnAsync(fabric =>
        {
            fabric.Begin(new NodeId((ushort)to), 0);
            fabric.Commit(new FrameHeader { Type = MessageType.NodeReport, Argument0 = marker });
        });
    }
}
