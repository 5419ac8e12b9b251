// SPDX-License-Identifier: Apache-2.0
using System.Net;
using System.Net.Sockets;
using VSmp.Agent.Fabric;
using VSmp.Agent.Membership;
using VSmp.Agent.Tests.Fabric;
using VSmp.Coherence;
using VSmp.Coherence.Membership;
using Xunit;

namespace VSmp.Agent.Tests.Membership;

/// <summary>Datagrams from members, and from others.</summary>
public sealed class HeartbeatPortTests
{
    private static readonly Epoch TheEpoch = new(5);

    [Theory]
    [InlineData("127.0.0.1", "127.0.0.1")]
    [InlineData("::1", "::1")]
    [InlineData("0.0.0.0", "127.0.0.1")]
    public async Task A_heartbeat_reaches_the_member_that_it_is_for(string listen, string at)
    {
        await using var here = new Port(0, listen);
        await using var there = new Port(1, listen);
        await here.SendAsync(there, at, sent: 77);
        await there.UntilAsync(1);
        Assert.Equal((new NodeId(0), 77L), there.Taken[0]);
    }

    [Fact]
    public async Task Nothing_is_taken_from_who_does_not_know_the_secret_or_is_of_another_cluster_or_life()
    {
        await using var there = new Port(1);
        await using var stranger = new Port(0, secret: ClusterSecret.FromBytes(Enumerable.Repeat((byte)9, 32).ToArray()));
        await using var before = new Port(0, epoch: new Epoch(4));
        await using var self = new Port(1);
        await using var misled = new Port(0);
        await using var good = new Port(0);
        await stranger.SendAsync(there, sent: 1);
        await before.SendAsync(there, sent: 2);
        await self.SendAsync(there, sent: 3);
        await misled.SendAsync(there, sent: 4, to: new NodeId(2)); // meant for another
        using (var socket = new UdpClient())
        {
            int seed = Environment.TickCount;
            Random random = new(seed);
            for (int i = 0; i < 200; i++)
            {
                byte[] garbage = new byte[i % 3 == 0 ? HeartbeatPort.Bytes : random.Next(1500)];
                random.NextBytes(garbage);
                if (i % 2 == 0 && garbage.Length > 4) "VSHB"u8.CopyTo(garbage);
                await socket.SendAsync(garbage, there.Node.Address, TestContext.Current.CancellationToken);
            }
        }
        // One after the other over loopback; but the garbage may have filled the socket's buffer, and what comes then is lost.
        int taken;
        do
        {
            await good.SendAsync(there, sent: 5);
            await Task.Delay(10, TestContext.Current.CancellationToken);
            taken = 0;
            await there.Node.OnAsync(_ => taken = there.Taken.Count);
        }
        while (taken == 0);
        Assert.All(there.Taken, t => Assert.Equal((new NodeId(0), 5L), t));
    }

    [Fact]
    public async Task Sending_and_taking_heartbeats_allocates_nothing()
    {
        await using var here = new Port(0);
        await using var there = new Port(1);
        await here.SendAsync(there, sent: 1);
        await there.UntilAsync(1);
        await here.Node.OnAsync(_ =>
        {
            Heartbeat heartbeat = new() { View = new ViewNumber(1), SentTicks = 2, AcknowledgedTicks = Heartbeat.NoTicks };
            for (int i = 0; i < 100; i++) here.Heartbeats.Send(new NodeId(1), in heartbeat);
            long before = GC.GetAllocatedBytesForCurrentThread();
            for (int i = 0; i < 1000; i++) here.Heartbeats.Send(new NodeId(1), in heartbeat);
            Assert.Equal(before, GC.GetAllocatedBytesForCurrentThread());
        });
    }

    private sealed class Port : IAsyncDisposable
    {
        public Port(ushort self, string listen = "127.0.0.1", ClusterSecret? secret = null, Epoch? epoch = null)
        {
            Node = new FabricNode(secret: secret, address: IPAddress.Parse(listen));
            Heartbeats = new HeartbeatPort(Node.Reactor, Node.Gate, null, (NodeId from, in Heartbeat heartbeat) => Taken.Add((from, heartbeat.SentTicks)));
            Heartbeats.Start(new NodeId(self), epoch ?? TheEpoch);
            Node.Start();
        }

        public FabricNode Node { get; }

        public HeartbeatPort Heartbeats { get; }

        public List<(NodeId From, long Sent)> Taken { get; } = [];

        public Task SendAsync(Port other, string at = "127.0.0.1", long sent = 0, NodeId? to = null) => Node.OnAsync(_ =>
        {
            NodeId node = to ?? new NodeId(1);
            Heartbeats.Add(new Member(node, "other", new IPEndPoint(IPAddress.Parse(at), other.Node.Address.Port), 0));
            Heartbeat heartbeat = new() { View = new ViewNumber(1), SentTicks = sent, AcknowledgedTicks = Heartbeat.NoTicks };
            Heartbeats.Send(node, in heartbeat);
        });

        public Task UntilAsync(int count) => Node.UntilAsync(() => Taken.Count >= count);

        public async ValueTask DisposeAsync()
        {
            await Node.OnAsync(_ => Heartbeats.Dispose());
            await Node.DisposeAsync();
        }
    }
}
