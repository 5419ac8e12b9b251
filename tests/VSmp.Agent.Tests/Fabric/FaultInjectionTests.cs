// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent.Fabric;
using VSmp.Agent.Fabric.FaultInjection;
using VSmp.Coherence;
using VSmp.Coherence.Messages;
using Xunit;

namespace VSmp.Agent.Tests.Fabric;

/// <summary>Sessions over TCP on loopback whose network is made bad. The seed is printed.</summary>
public sealed class FaultInjectionTests
{
    private const long Millisecond = 1000;
    private static readonly NodeId Zero = new(0), One = new(1);

    private readonly int _seed = Environment.TickCount;

    public FaultInjectionTests() => TestContext.Current.TestOutputHelper?.WriteLine($"seed {_seed}");

    [Fact]
    public async Task Fifty_thousand_frames_arrive_once_in_order_and_intact_though_bits_flip_on_the_way()
    {
        const int Total = 50_000;
        Checker checker = new();
        FaultPlan toReceiver = new(), toSender = new();
        await using var sender = new FabricNode(faults: toReceiver, options: new FabricOptions { LossTimeoutMicroseconds = 60_000 * Millisecond });
        await using var receiver = new FabricNode(checker, faults: toSender, options: new FabricOptions { LossTimeoutMicroseconds = 60_000 * Millisecond });
        await ConnectAsync(sender, receiver);
        await sender.OnAsync(_ => Inject(toReceiver, new Fault(FaultKind.Corrupt, 0.05)));
        await receiver.OnAsync(_ => Inject(toSender, new Fault(FaultKind.Corrupt, 0.05)));
        uint sent = 0;
        while (sent < Total)
        {
            // As fast as they arrive, more or less, so that it takes many messages.
            await sender.OnAsync(fabric => Checker.Send(fabric, ref sent, Math.Min(sent + 40, Total)));
            if (sent % 2000 == 0) await receiver.UntilAsync(() => checker.Frames + 4000 > sent);
        }
        await receiver.UntilAsync(() => checker.Frames == Total || checker.Wrong is not null);
        Assert.Null(checker.Wrong);
        Assert.Equal(0, checker.Downs + sender.Recorder.Downs.Count);
        long flipped = toReceiver.InForce.Single().Fault.Count;
        Assert.True(flipped >= 40, $"only {flipped} messages were corrupted: this proves nothing");
        Assert.Contains(receiver.Log, line => line.Contains("a CRC that does not match", StringComparison.Ordinal));
    }

    [Fact]
    public async Task A_peer_that_only_acknowledges_is_not_lost_for_acknowledgements_that_are_corrupted_now_and_then()
    {
        await using SessionWorld world = NewWorld();
        await world.StartAsync(2);
        FaultPlan plan = world[1].Fabric.Faults!;
        await world.OnAsync(1, _ => Inject(plan, new Fault(FaultKind.Corrupt, 0.3)));
        uint sent = 0;
        while (world[0].Fabric.Counters.Reconnects < 30 && world.Received(0).Downs.Count == 0)
        {
            await world.OnAsync(0, fabric => SendNumbers(fabric, One, sent, ++sent));
            await world.UntilAsync(0, () => world[0].Fabric.IsTakenUpTo(One, sent));
        }
        Assert.Empty(world.Received(0).Downs);
        AssertNumbers(world.Received(1), (int)sent);
    }

    [Fact]
    public async Task Messages_that_are_lost_are_sent_again_over_another_connection()
    {
        await using SessionWorld world = NewWorld(() => new FaultPlan { StallMicroseconds = 5 * Millisecond });
        await world.StartAsync(2);
        await InjectAsync(world, new Fault(FaultKind.Drop, 0.05));
        for (uint round = 0; round < 400; round++)
        {
            uint first = round * 10;
            await world.OnAsync(0, fabric => SendNumbers(fabric, One, first, first + 10));
            await world.UntilAsync(1, () => world.Received(1).Count(0) >= first);
        }
        await world.UntilAsync(1, () => world.Received(1).Count(0) >= 4000);
        AssertNumbers(world.Received(1), 4000);
        Assert.Empty(world.Received(0).Downs);
        Assert.True(world[0].Fabric.Faults!.InForce.Single().Fault.Count >= 5, "hardly a message was lost: this proves nothing");
        Assert.Contains(world[0].Log, line => line.Contains("a message was lost (injected)", StringComparison.Ordinal));
    }

    [Fact]
    public async Task Messages_that_are_late_arrive_in_order()
    {
        await using SessionWorld world = NewWorld();
        await world.StartAsync(2);
        await InjectAsync(world, new Fault(FaultKind.Delay, 0.5, 5 * Millisecond));
        for (uint round = 0; round < 50; round++)
        {
            uint first = round * 10;
            await world.OnAsync(0, fabric => SendNumbers(fabric, One, first, first + 10));
            await world.UntilAsync(1, () => world.Received(1).Count(0) >= first);
        }
        await world.UntilAsync(1, () => world.Received(1).Count(0) >= 500);
        AssertNumbers(world.Received(1), 500);
        Assert.Equal(0ul, world[1].Fabric.Counters.Reconnects);
        Assert.True(world[0].Fabric.Faults!.InForce.Single().Fault.Count >= 5, "hardly a message was late: this proves nothing");
    }

    [Fact]
    public async Task What_is_held_back_goes_when_the_delay_is_ended()
    {
        await using SessionWorld world = NewWorld();
        await world.StartAsync(2);
        await world.UntilAsync(0, () => world[0].Fabric.IsConnected(One));
        await InjectAsync(world, new Fault(FaultKind.Delay, 1, 60_000 * Millisecond));
        await world.OnAsync(0, fabric => SendNumbers(fabric, One, 0, 10));
        await world.UntilAsync(0, () => world[0].Fabric.Faults!.InForce.Single().Fault.Count > 0);
        Assert.Equal(0, world.Received(1).Count(0));
        await world.OnAsync(0, _ => world[0].Fabric.Faults!.Heal(null));
        await world.UntilAsync(1, () => world.Received(1).Count(0) == 10);
    }

    [Fact]
    public async Task A_partition_that_is_healed_at_once_costs_not_even_the_connection()
    {
        await using SessionWorld world = NewWorld();
        await world.StartAsync(2);
        await PartitionAsync(world, 0);
        await PartitionAsync(world, 1);
        await world.OnAsync(0, fabric => SendNumbers(fabric, One, 0, 1000));
        Assert.Equal(0, world.Received(1).Count(0));
        await HealAsync(world);
        await world.UntilAsync(1, () => world.Received(1).Count(0) == 1000);
        AssertNumbers(world.Received(1), 1000);
        Assert.Equal(0ul, world[1].Fabric.Counters.Reconnects);
    }

    [Fact]
    public async Task A_partition_that_is_healed_before_the_loss_timeout_costs_the_connection_and_no_frame()
    {
        await using SessionWorld world = NewWorld(() => new FaultPlan { CutMicroseconds = 50 * Millisecond }, lossMilliseconds: 60_000);
        await world.StartAsync(2);
        await PartitionAsync(world, 0);
        await PartitionAsync(world, 1);
        await world.OnAsync(0, fabric => SendNumbers(fabric, One, 0, 1000));
        foreach (int node in (int[])[0, 1]) await world.UntilAsync(node, () => !world[node].Fabric.IsConnected(new NodeId((ushort)(1 - node))));
        // An attempt at a new connection gets no answer.
        await world.UntilAsync(1, () => world[1].Log.Any(line => line.Contains("was not answered in time", StringComparison.Ordinal)));
        Assert.Equal(0, world.Received(1).Count(0));
        await HealAsync(world);
        await world.UntilAsync(1, () => world.Received(1).Count(0) == 1000);
        AssertNumbers(world.Received(1), 1000);
        Assert.Empty(world.Received(0).Downs);
        Assert.Empty(world.Received(1).Downs);
    }

    [Theory]
    [InlineData(true, true)]
    [InlineData(true, false)]
    [InlineData(false, true)]
    public async Task Both_sides_hear_of_the_loss_when_a_partition_lasts_in_both_directions_or_in_one(bool fromZero, bool fromOne)
    {
        await using SessionWorld world = NewWorld(() => new FaultPlan { CutMicroseconds = 50 * Millisecond }, lossMilliseconds: 500);
        await world.StartAsync(2);
        if (fromZero) await PartitionAsync(world, 0);
        if (fromOne) await PartitionAsync(world, 1);
        await world.OnAsync(0, fabric => SendNumbers(fabric, One, 0, 10));
        await world.UntilAsync(0, () => world.Received(0).Downs.Count == 1);
        await world.UntilAsync(1, () => world.Received(1).Downs.Count == 1);
    }

    [Fact]
    public async Task Of_a_partition_in_one_direction_the_other_goes_on_until_the_connection_breaks()
    {
        await using SessionWorld world = NewWorld();
        await world.StartAsync(2);
        await PartitionAsync(world, 0);
        await world.OnAsync(0, fabric => SendNumbers(fabric, One, 0, 10));
        await world.OnAsync(1, fabric => SendNumbers(fabric, Zero, 0, 10));
        await world.UntilAsync(0, () => world.Received(0).Count(1) == 10);
        Assert.Equal(0, world.Received(1).Count(0));
        await HealAsync(world);
        await world.UntilAsync(1, () => world.Received(1).Count(0) == 10);
    }

    [Fact]
    public async Task A_partition_between_two_leaves_a_third_alone()
    {
        await using SessionWorld world = NewWorld(() => new FaultPlan { CutMicroseconds = 50 * Millisecond }, lossMilliseconds: 300);
        await world.StartAsync(3);
        await world.OnAsync(0, _ => world[0].Fabric.Faults!.Inject(One, new Fault(FaultKind.Partition, 1)));
        await world.OnAsync(1, _ => world[1].Fabric.Faults!.Inject(Zero, new Fault(FaultKind.Partition, 1)));
        await world.UntilAsync(0, () => world.Received(0).Downs.Count == 1);
        await world.OnAsync(0, fabric => SendNumbers(fabric, new NodeId(2), 0, 10));
        await world.OnAsync(1, fabric => SendNumbers(fabric, new NodeId(2), 0, 10));
        await world.UntilAsync(2, () => world.Received(2).Count(0) == 10 && world.Received(2).Count(1) == 10);
        Assert.Empty(world.Received(2).Downs);
    }

    [Fact]
    public async Task Handshakes_meet_all_faults_and_a_session_comes_about_all_the_same()
    {
        await using SessionWorld world = NewWorld(() =>
        {
            FaultPlan plan = new() { StallMicroseconds = 5 * Millisecond };
            plan.UseSeed(_seed);
            plan.Inject(null, new Fault(FaultKind.Delay, 0.3, 2 * Millisecond));
            plan.Inject(null, new Fault(FaultKind.Drop, 0.15));
            plan.Inject(null, new Fault(FaultKind.Corrupt, 0.15));
            return plan;
        }, lossMilliseconds: 60_000);
        await world.StartAsync(2);
        for (int round = 0; round < 20; round++)
        {
            await world.CutAsync(1, 0);
            uint first = (uint)round;
            await world.OnAsync(0, fabric => SendNumbers(fabric, One, first, first + 1));
            await world.UntilAsync(1, () => world.Received(1).Count(0) == first + 1);
        }
        AssertNumbers(world.Received(1), 20);
        Assert.Contains(world[1].Log, line => line.Contains("no connection with", StringComparison.Ordinal));
        Assert.Empty(world.Received(0).Downs);
    }

    private static SessionWorld NewWorld(Func<FaultPlan>? faults = null, int lossMilliseconds = 60_000) => new()
    {
        Faults = faults ?? (() => new FaultPlan()),
        Options = new FabricOptions { LossTimeoutMicroseconds = lossMilliseconds * Millisecond },
    };

    private void Inject(FaultPlan plan, params Fault[] faults)
    {
        plan.UseSeed(_seed);
        foreach (Fault fault in faults) plan.Inject(null, fault);
    }

    private async Task InjectAsync(SessionWorld world, params Fault[] faults) => await world.OnAsync(0, _ => Inject(world[0].Fabric.Faults!, faults));

    private static async Task PartitionAsync(SessionWorld world, int node) =>
        await world.OnAsync(node, _ => world[node].Fabric.Faults!.Inject(null, new Fault(FaultKind.Partition, 1)));

    private static async Task HealAsync(SessionWorld world)
    {
        foreach (int node in (int[])[0, 1]) await world.OnAsync(node, _ => world[node].Fabric.Faults!.Heal(null));
    }

    private static async Task ConnectAsync(FabricNode zero, FabricNode one)
    {
        zero.Fabric.SetIdentity(Zero, new Epoch(5));
        one.Fabric.SetIdentity(One, new Epoch(5));
        zero.Start();
        one.Start();
        await zero.OnAsync(fabric => fabric.Add(One, one.Address));
        await one.OnAsync(fabric => fabric.Add(Zero, zero.Address));
        await zero.UntilAsync(() => zero.Fabric.IsConnected(One));
    }

    private static void SendNumbers(IFabric fabric, NodeId peer, uint first, uint end)
    {
        for (uint i = first; i < end; i++)
        {
            fabric.Begin(peer, 200).Fill((byte)i);
            fabric.Commit(new FrameHeader { Type = MessageType.NodeReport, Transaction = i });
        }
    }

    private static void AssertNumbers(Recorder recorder, int total)
    {
        List<(FrameHeader Header, byte[] Payload)> frames = recorder.Frames(0);
        Assert.Equal(total, frames.Count);
        for (int i = 0; i < total; i++)
        {
            Assert.Equal((uint)i, frames[i].Header.Transaction);
            Assert.Equal(-1, frames[i].Payload.AsSpan().IndexOfAnyExcept((byte)i));
        }
    }

    /// <summary>Looks at frames as they come, and keeps none.</summary>
    private sealed class Checker : IFrameReceiver
    {
        private static readonly byte[] Pattern = [.. Enumerable.Range(0, 5000).Select(i => (byte)(i * 7 + (i >> 8)))];

        public uint Frames { get; private set; }

        public int Downs { get; private set; }

        public string? Wrong { get; private set; }

        public static void Send(IFabric fabric, ref uint sent, uint end)
        {
            for (; sent < end; sent++)
            {
                Expected(sent).CopyTo(fabric.Begin(One, Expected(sent).Length));
                fabric.Commit(new FrameHeader { Type = MessageType.NodeReport, Transaction = sent });
            }
        }

        public void OnFrame(NodeId peer, in FrameHeader header, ReadOnlySpan<byte> payload)
        {
            if (header.Transaction != Frames) Wrong ??= $"frame {header.Transaction} came where {Frames} was to come";
            if (!payload.SequenceEqual(Expected(header.Transaction))) Wrong ??= $"frame {header.Transaction} came with other contents";
            Frames++;
        }

        public void OnPeerUp(NodeId peer)
        {
        }

        public void OnPeerDown(NodeId peer, string reason)
        {
            Downs++;
            Wrong ??= reason;
        }

        private static ReadOnlySpan<byte> Expected(uint number) => Pattern.AsSpan((int)(number % 251), (int)(number * 37 % 3000));
    }
}
