// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent.Fabric;
using VSmp.Agent.Membership;
using VSmp.Agent.Tests.Fabric;
using VSmp.Coherence;
using VSmp.Coherence.Membership;
using VSmp.Coherence.Messages;
using Xunit;

namespace VSmp.Agent.Tests.Membership;

/// <summary>Agents that are killed, and others that take their places, over TCP on loopback.</summary>
public sealed class RestartTests
{
    private const ulong Memory = 512ul << 20;

    /// <summary>Nobody is given up while the next agent is being started, though nobody holds its listening socket meanwhile as a keeper would.</summary>
    private static readonly MembershipTimes Patient = new(LeaseTicks: 10_000, SuspectTicks: 20_000, RestartPatienceTicks: 60_000);

    [Theory]
    [InlineData(0)] // the coordinator
    [InlineData(1)] // is connected to by one, and connects to another
    [InlineData(2)]
    public async Task A_member_whose_agent_is_killed_is_one_again_under_its_number_and_with_new_sessions(int killed)
    {
        await using var cluster = await RestartCluster.MakeAsync(Patient, 3);
        RestartMember[] others = [.. cluster.Nodes.Where((_, i) => i != killed)];
        await cluster.KillAsync(killed);
        // What was meant for the agent before must not get to the next one.
        foreach (RestartMember other in others) await other.SendAsync(killed, marker: 1);
        RestartMember back = await cluster.RestartAsync(killed);
        Assert.Equal(new NodeId((ushort)killed), back.Membership.Self);
        foreach (RestartMember member in cluster.Nodes)
        {
            await member.Node.UntilAsync(() => member.Membership.View.Value == 4 && member.Membership.HasLease);
            Assert.Equal([0, 1, 2], member.Membership.Members.Select(m => (int)m.Id.Value));
            Assert.Equal(1u, member.Membership.Find(new NodeId((ushort)killed))!.Incarnation);
            Assert.Null(member.Expelled);
        }
        await back.Node.UntilAsync(() => back.Node.Recorder.Ups.Count == 2);
        foreach (RestartMember other in others)
        {
            await other.Node.UntilAsync(() => other.Node.Recorder.Ups.Count == 3);
            Assert.Equal([$"n{killed}"], other.Restarted);
            Assert.Empty(other.Left);
            await other.SendAsync(killed, marker: 2);
            await back.SendAsync(other.Membership.Self.Value, marker: 3);
        }
        foreach (RestartMember other in others)
        {
            int number = other.Membership.Self.Value;
            await back.Node.UntilAsync(() => back.Node.Recorder.Count(number) > 0);
            Assert.Equal([2ul], back.Node.Recorder.Frames(number).Select(f => f.Header.Argument0));
            await other.Node.UntilAsync(() => other.Node.Recorder.Count(killed) > 0);
            Assert.Equal([3ul], other.Node.Recorder.Frames(killed).Select(f => f.Header.Argument0));
        }
    }

    [Theory]
    [InlineData(0)]
    [InlineData(1)]
    public async Task An_agent_that_is_killed_again_and_again_comes_back_each_time(int killed)
    {
        await using var cluster = await RestartCluster.MakeAsync(Patient, 3);
        for (uint times = 1; times <= 3; times++)
        {
            await cluster.KillAsync(killed);
            RestartMember back = await cluster.RestartAsync(killed); // the others may not have noticed the last time yet
            Assert.Equal(times, back.Membership.Find(new NodeId((ushort)killed))!.Incarnation);
        }
        foreach (RestartMember member in cluster.Nodes)
        {
            await member.Node.UntilAsync(() => member.Membership.View.Value == 6);
            await member.Node.UntilAsync(() => Enumerable.Range(0, 3).All(n => n == member.Membership.Self.Value || member.Node.Fabric.IsConnected(new NodeId((ushort)n))));
            Assert.Null(member.Expelled);
            Assert.Empty(member.Left);
        }
    }

    [Fact]
    public async Task All_agents_of_a_cluster_may_be_killed_at_once()
    {
        await using var cluster = await RestartCluster.MakeAsync(Patient, 3);
        for (int i = 0; i < 3; i++) await cluster.KillAsync(i);
        await Task.WhenAll(cluster.RestartAsync(2), cluster.RestartAsync(0), cluster.RestartAsync(1));
        foreach (RestartMember member in cluster.Nodes)
        {
            await member.Node.UntilAsync(() => member.Membership.View.Value == 6 && member.Membership.HasLease);
            Assert.All(member.Membership.Members, m => Assert.Equal(1u, m.Incarnation));
            await member.Node.UntilAsync(() => Enumerable.Range(0, 3).All(n => n == member.Membership.Self.Value || member.Node.Fabric.IsConnected(new NodeId((ushort)n))));
        }
    }

    [Fact]
    public async Task An_agent_that_comes_too_late_learns_that_its_node_was_excluded()
    {
        await using var cluster = await RestartCluster.MakeAsync(new MembershipTimes(), 3);
        await cluster.KillAsync(1);
        await cluster.Nodes[0].Node.UntilAsync(() => cluster.Nodes[0].Left.Count == 1);
        MembershipException error = await Assert.ThrowsAsync<MembershipException>(() => cluster.RestartAsync(1));
        Assert.Equal(HandshakeStatus.NotAMember, error.Status);
        Assert.Contains("excluded", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task An_agent_whose_coordinator_is_no_more_gives_up()
    {
        await using var cluster = await RestartCluster.MakeAsync(new MembershipTimes(SuspectTicks: 400, RestartPatienceTicks: 600), 2);
        await cluster.KillAsync(1);
        await cluster.KillAsync(0);
        MembershipException error = await Assert.ThrowsAsync<MembershipException>(() => cluster.RestartAsync(1));
        Assert.Contains("the coordinator, node n0 at", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_node_can_join_a_cluster_whose_coordinator_was_restarted()
    {
        await using var cluster = await RestartCluster.MakeAsync(Patient, 2);
        await cluster.KillAsync(0);
        await cluster.RestartAsync(0);
        RestartMember late = cluster.Start(2);
        await late.Membership.JoinAsync(cluster.Nodes[0].Node.Address, "n2", late.Node.Address, Memory);
        Assert.Equal(new NodeId(2), late.Membership.Self);
        Assert.Equal([1u, 0u, 0u], late.Membership.Members.Select(m => m.Incarnation));
        await late.Node.UntilAsync(() => late.Node.Recorder.Ups.Count == 2);
    }

    [Fact]
    public async Task What_an_agent_leaves_of_its_membership_goes_when_it_leaves_in_order()
    {
        await using var cluster = await RestartCluster.MakeAsync(Patient, 2);
        string path = cluster.Nodes[1].Membership.IdentityFile!;
        MemberIdentity left = MemberIdentity.Read(path)!;
        Assert.Equal((new NodeId(1), 2u, cluster.Nodes[1].Node.Address), (left.Self, left.View.Number.Value, left.Member.Address));
        await cluster.Nodes[1].Membership.LeaveAsync(TimeSpan.FromSeconds(30));
        Assert.Null(MemberIdentity.Read(path));
    }

    [Fact]
    public async Task A_file_that_says_nothing_of_a_member_is_refused()
    {
        await using var cluster = await RestartCluster.MakeAsync(Patient, 1);
        string path = cluster.Nodes[0].Membership.IdentityFile!;
        byte[] whole = await File.ReadAllBytesAsync(path, TestContext.Current.CancellationToken);
        for (int length = 0; length < whole.Length; length++)
        {
            await File.WriteAllBytesAsync(path, whole[..length], TestContext.Current.CancellationToken);
            Assert.Throws<InvalidDataException>(() => MemberIdentity.Read(path));
        }
        await File.WriteAllBytesAsync(path, whole, TestContext.Current.CancellationToken);
        Assert.NotNull(MemberIdentity.Read(path));
    }

    private sealed class RestartMember
    {
        public RestartMember(MembershipTimes times, string file, int port)
        {
            Node = new FabricNode(port: port);
            Membership = new ClusterMembership(Node.Reactor, Node.Fabric, Node.Gate, Node.Recorder, Node.Log.Enqueue, times) { IdentityFile = file };
            Membership.NodeLeft += (member, _) => Left.Add(member.Name);
            Membership.NodeRestarted += member => Restarted.Add(member.Name);
            Membership.Expelled += reason => Expelled = reason;
        }

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

        public async Task EndAsync()
        {
            IsAlive = false;
            await Node.OnAsync(_ => Membership.Dispose());
            await Node.DisposeAsync();
        }
    }

    private sealed class RestartCluster(MembershipTimes times) : IAsyncDisposable
    {
        private readonly string _folder = Directory.CreateTempSubdirectory("vsmp-restart-").FullName;

        public List<RestartMember> Nodes { get; } = [];

        public static async Task<RestartCluster> MakeAsync(MembershipTimes times, int count)
        {
            var cluster = new RestartCluster(times);
            for (int i = 0; i < count; i++)
            {
                RestartMember member = cluster.Start(i);
                if (i == 0) await member.Node.OnAsync(_ => member.Membership.Found("n0", member.Node.Address, Memory));
                else await member.Membership.JoinAsync(cluster.Nodes[0].Node.Address, $"n{i}", member.Node.Address, Memory);
            }
            foreach (RestartMember member in cluster.Nodes)
                await member.Node.UntilAsync(() => member.Membership.View.Value == count && member.Node.Recorder.Ups.Count == count - 1);
            return cluster;
        }

        public RestartMember Start(int index, int port = 0)
        {
            var member = new RestartMember(times, Path.Combine(_folder, $"n{index}"), port);
            if (index < Nodes.Count) Nodes[index] = member;
            else Nodes.Add(member);
            member.Node.Start();
            return member;
        }

        /// <summary>Ends an agent without a word, as a signal does.</summary>
        public Task KillAsync(int index) => Nodes[index].EndAsync();

        public async Task<RestartMember> RestartAsync(int index)
        {
            MemberIdentity before = MemberIdentity.Read(Nodes[index].Membership.IdentityFile!)!;
            RestartMember member = Start(index, before.Member.Address.Port);
            await member.Membership.RestartAsync(before);
            return member;
        }

        public async ValueTask DisposeAsync()
        {
            foreach (RestartMember member in Nodes)
                if (member.IsAlive) await member.EndAsync();
            Directory.Delete(_folder, recursive: true);
        }
    }
}
