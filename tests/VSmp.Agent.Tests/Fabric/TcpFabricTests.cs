// SPDX-License-Identifier: Apache-2.0
using System.Net;
using System.Net.Sockets;
using System.Runtime.CompilerServices;
using VSmp.Agent.Fabric;
using VSmp.Agent.Interop;
using VSmp.Coherence;
using VSmp.Coherence.Messages;
using Xunit;
using ProtocolViolationException = VSmp.Coherence.ProtocolViolationException;

namespace VSmp.Agent.Tests.Fabric;

/// <summary>The fabric over TCP, on loopback.</summary>
public sealed class TcpFabricTests : FabricTests
{
    [Fact]
    public async Task A_peer_that_cannot_be_reached_is_lost_after_the_timeout_with_the_reason()
    {
        await using var node = new FabricNode(options: new FabricOptions { FirstConnectionTimeoutMicroseconds = 300_000 });
        int port;
        using (var listener = new TcpListener(IPAddress.Loopback, 0))
        {
            listener.Start();
            port = ((IPEndPoint)listener.LocalEndpoint).Port;
        }
        node.Fabric.SetIdentity(new NodeId(1), new Epoch(5));
        node.Start();
        await node.OnAsync(fabric => fabric.Add(new NodeId(0), new IPEndPoint(IPAddress.Loopback, port)));
        await node.UntilAsync(() => node.Recorder.Downs.Count == 1);
        Assert.Contains("refused", node.Recorder.Downs[0].Reason, StringComparison.OrdinalIgnoreCase);
        Assert.Empty(node.Recorder.Ups);
    }

    [Fact]
    public async Task A_connection_that_comes_back_in_time_is_no_loss()
    {
        await using var world = new SessionWorld { Options = new FabricOptions { LossTimeoutMicroseconds = 20_000_000 } };
        await world.StartAsync(2);
        for (int i = 1; i <= 5; i++)
        {
            await world.CutAsync(i % 2, 1 - (i % 2));
            foreach (int node in (int[])[0, 1])
                await world.UntilAsync(node, () => world[node].Fabric.IsConnected(new NodeId((ushort)(1 - node))));
        }
        Assert.Empty(world.Received(0).Downs);
        Assert.Empty(world.Received(1).Downs);
        Assert.Single(world.Received(0).Ups);
        Assert.Single(world.Received(1).Ups);
    }

    [Fact]
    public async Task Links_that_do_not_come_up_are_given_up_early_enough_for_others()
    {
        var stillborn = new StrongBox<int>();
        await using var world = new SessionWorld(transport: (_, _) => new SlowTransport(stillborn)); // lost after the five seconds of the default
        await world.StartAsync(2);
        Volatile.Write(ref stillborn.Value, 2); // node 1 connects, so both are its
        await world.CutAsync(1, 0);
        await world.UntilAsync(1, () => world[1].Fabric.Counters.Reconnects == 1);
        await world.OnAsync(0, fabric => Send(fabric, 1, 1, 100));
        await world.UntilAsync(1, () => world.Received(1).Count(0) == 1);
        Assert.Equal(0, Volatile.Read(ref stillborn.Value));
        Assert.Empty(world.Received(0).Downs);
        Assert.Empty(world.Received(1).Downs);
        Assert.Contains(world[1].Log, line => line.Contains("did not come up in time", StringComparison.Ordinal));
        Assert.Contains(world[1].Log, line => line.Contains("connected with node 0 again after", StringComparison.Ordinal));
    }

    [Fact]
    public async Task A_peer_that_stops_taking_frames_is_lost_before_memory_is()
    {
        await using var world = new SessionWorld { Options = new FabricOptions { MaxUnacknowledgedBytes = 8 << 20 } };
        await world.StartAsync(2);
        using var resume = new ManualResetEventSlim();
        await world.OnAsync(0, fabric => world[0].Reactor.Post(resume.Wait)); // node 0 hangs
        int chunks = 0;
        await world.OnAsync(1, fabric =>
        {
            for (uint i = 1; i <= 1000; i++) Send(fabric, 0, i, FrameHeader.MaxPayloadBytes);
            chunks = world[1].Fabric.Chunks.InUse;
        });
        await world.UntilAsync(1, () => world.Received(1).Downs.Count == 1);
        resume.Set();
        Assert.Contains("has not acknowledged 8 MiB", world.Received(1).Downs[0].Reason, StringComparison.Ordinal);
        Assert.InRange(chunks, 30, 48);
        await world.UntilAsync(1, () => world[1].Fabric.Chunks.InUse == 0);
    }

    [Fact]
    public async Task Acknowledgements_alone_empty_the_outbox_of_a_peer_that_only_sends()
    {
        await using var world = new SessionWorld();
        await world.StartAsync(2);
        await world.OnAsync(0, fabric => Send(fabric, 1, 1, 100));
        await world.UntilAsync(0, () => world[0].Fabric.IsTakenUpTo(new NodeId(1), 1));
        Assert.Equal(0ul, world[1].Fabric.Counters.FramesSent);
    }

    [Fact]
    public async Task Frames_of_one_turn_share_a_message_and_acknowledgements_alone_are_told_apart()
    {
        await using var world = new SessionWorld();
        await world.StartAsync(2);
        await world.OnAsync(0, fabric =>
        {
            for (uint i = 1; i <= 15; i++) Send(fabric, 1, i, 100);
        });
        await world.UntilAsync(0, () => world[0].Fabric.Counters.MessagesSent == 1); // what is asked of it next may be part of the same turn
        await world.OnAsync(0, fabric =>
        {
            fabric.Begin(new NodeId(1), 0);
            fabric.Commit(new FrameHeader { Type = MessageType.GetS, Requestor = new NodeId(0), Count = 1 });
        });
        await world.UntilAsync(0, () => world[0].Fabric.IsTakenUpTo(new NodeId(1), 16));
        FabricCounters sender = default, receiver = default;
        await world.OnAsync(0, fabric => sender = fabric.Counters);
        await world.OnAsync(1, fabric => receiver = fabric.Counters);
        Assert.Equal((2ul, 1ul, 0ul), (sender.MessagesSent, sender.CoherenceMessagesSent, sender.AcknowledgementsSent));
        Assert.Equal(1ul, receiver.CoherenceMessagesReceived);
        Assert.True(receiver.AcknowledgementsSent > 0);
        Assert.Equal((receiver.MessagesSent, receiver.MessagesSent), (receiver.AcknowledgementsSent, sender.AcknowledgementsReceived));
    }

    [Fact]
    public async Task Sending_and_receiving_allocate_nothing()
    {
        const int WarmUp = 2_000, Measured = 20_000;
        var bouncers = new Bouncer[] { new(WarmUp, Measured), new(WarmUp, Measured) };
        await using var first = new FabricNode(bouncers[0]);
        await using var second = new FabricNode(bouncers[1]);
        bouncers[0].Fabric = first.Fabric;
        bouncers[1].Fabric = second.Fabric;
        first.Fabric.SetIdentity(new NodeId(0), new Epoch(5));
        second.Fabric.SetIdentity(new NodeId(1), new Epoch(5));
        first.Start();
        second.Start();
        await first.OnAsync(fabric => fabric.Add(new NodeId(1), second.Address));
        await second.OnAsync(fabric => fabric.Add(new NodeId(0), first.Address));
        await first.OnAsync(_ => bouncers[0].Bounce(new NodeId(1)));
        await second.UntilAsync(() => bouncers[1].Frames == WarmUp + Measured);
        // Twenty thousand frames each way; one byte per frame would show.
        Assert.InRange(bouncers[1].AllocatedBytes, 0, 4096);
    }

    [Fact]
    public async Task A_member_whose_frames_break_the_rules_again_and_again_is_lost_and_says_why()
    {
        await using var node = new FabricNode(options: new FabricOptions
        {
            LossTimeoutMicroseconds = 60_000_000,
            FirstConnectionTimeoutMicroseconds = 60_000_000,
        });
        node.Fabric.SetIdentity(new NodeId(0), new Epoch(5));
        node.Start();
        await node.OnAsync(fabric => fabric.Add(new NodeId(1), new IPEndPoint(IPAddress.Loopback, 1)));
        using var gate = new PeerGate("test", FabricNode.Secret, _ => { });
        gate.Start();
        for (int i = 0; i < 8; i++)
        {
            int fd = await ConnectAsync(gate, node);
            SendNoise(fd);
            await node.UntilAsync(() => !node.Fabric.IsConnected(new NodeId(1)));
            _ = Libc.Close(fd);
        }
        await node.UntilAsync(() => node.Recorder.Downs.Count == 1);
        Assert.Contains("violation", node.Recorder.Downs[0].Reason, StringComparison.Ordinal);
        Assert.Contains(node.Log, line => line.Contains("bytes that are no frame", StringComparison.Ordinal));
    }

    [Fact]
    public async Task A_frame_that_promises_more_bytes_than_come_costs_the_connection_and_not_the_session()
    {
        await using var node = new FabricNode(options: new FabricOptions { LossTimeoutMicroseconds = 60_000_000 });
        node.Fabric.SetIdentity(new NodeId(0), new Epoch(5));
        node.Start();
        await node.OnAsync(fabric => fabric.Add(new NodeId(1), new IPEndPoint(IPAddress.Loopback, 1)));
        using var gate = new PeerGate("test", FabricNode.Secret, _ => { });
        gate.Start();
        int fd = await ConnectAsync(gate, node);
        SendUnfinished(fd);
        await node.UntilAsync(() => node.Log.Any(line => line.Contains("a frame that does not end", StringComparison.Ordinal)));
        _ = Libc.Close(fd);
        fd = await ConnectAsync(gate, node);
        await node.UntilAsync(() => node.Fabric.IsConnected(new NodeId(1)));
        _ = Libc.Close(fd);
        Assert.Empty(node.Recorder.Downs);
    }

    [Fact]
    public async Task A_peer_whose_message_the_protocol_excludes_is_lost_and_the_others_go_on()
    {
        await using var world = new SessionWorld();
        await world.StartAsync(3);
        await world.OnAsync(0, _ => world.Received(0).OnFrameHook = (peer, header) =>
        {
            if (header.Transaction == 2 && peer.Value == 1) throw new ProtocolViolationException("that cannot be");
        });
        await world.OnAsync(1, fabric =>
        {
            for (uint i = 1; i <= 3; i++) Send(fabric, 0, i, 10);
        });
        await world.UntilAsync(0, () => world.Received(0).Downs.Count == 1);
        Assert.Equal((new NodeId(1), "it broke the protocol: that cannot be"), world.Received(0).Downs[0]);
        Assert.Equal(2, world.Received(0).Count(1));
        await world.OnAsync(2, fabric => Send(fabric, 0, 1, 10));
        await world.UntilAsync(0, () => world.Received(0).Count(2) == 1);
    }

    private protected override IFabricWorld CreateWorld() => new SessionWorld();

    private static async Task<int> ConnectAsync(PeerGate gate, FabricNode node)
    {
        byte[] body = new byte[Handshake.SessionBodyBytes];
        Handshake.WriteSessionBody(body, 1, 0);
        var done = new TaskCompletionSource<HandshakeResult>(TaskCreationOptions.RunContinuationsAsynchronously);
        gate.Connect(new OutgoingRequest(node.Address, HandshakePurpose.Session, new Epoch(5), new NodeId(1), new NodeId(0), body), done.SetResult);
        HandshakeResult result = await done.Task;
        Assert.Equal(HandshakeStatus.Ok, result.Status);
        return result.Fd;
    }

    /// <summary>A header as it should be, of a frame whose payload never comes.</summary>
    private static unsafe void SendUnfinished(int fd)
    {
        var header = new FrameHeader { Magic = FrameHeader.MagicValue, Version = FrameHeader.CurrentVersion, Type = MessageType.NodeReport, PayloadBytes = 4096 };
        // SAFETY: sends the header, which is on this stack.
        Assert.Equal(FrameHeader.Bytes, Sockets.Send(fd, &header, FrameHeader.Bytes, Sockets.MSG_NOSIGNAL));
    }

    private static unsafe void SendNoise(int fd)
    {
        byte* noise = stackalloc byte[FrameHeader.Bytes];
        new Span<byte>(noise, FrameHeader.Bytes).Fill(0x5A);
        // SAFETY: sends the buffer just filled.
        Assert.Equal(FrameHeader.Bytes, Sockets.Send(fd, noise, FrameHeader.Bytes, Sockets.MSG_NOSIGNAL));
    }

    /// <summary>Answers each frame with one of a page; measures what its thread allocates meanwhile.</summary>
    private sealed class Bouncer(int warmUp, int measured) : IFrameReceiver
    {
        private long _allocatedBefore;

        public IFabric? Fabric { get; set; }

        public int Frames { get; private set; }

        public long AllocatedBytes { get; private set; } = long.MaxValue;

        public void Bounce(NodeId peer)
        {
            Fabric!.Begin(peer, PageNumber.Bytes).Fill((byte)Frames);
            Fabric.Commit(new FrameHeader { Type = MessageType.DataS, Count = 1 });
        }

        public void OnFrame(NodeId peer, in FrameHeader header, ReadOnlySpan<byte> payload)
        {
            Frames++;
            if (Frames == warmUp) _allocatedBefore = GC.GetAllocatedBytesForCurrentThread();
            if (Frames == warmUp + measured) AllocatedBytes = GC.GetAllocatedBytesForCurrentThread() - _allocatedBefore;
            else Bounce(peer);
        }

        public void OnPeerUp(NodeId peer)
        {
        }

        public void OnPeerDown(NodeId peer, string reason)
        {
        }
    }

    /// <summary>TCP; but of the sides that connect, so many next links never come up.</summary>
    private sealed class SlowTransport(StrongBox<int> stillborn) : ITransport
    {
        private readonly TcpTransport _tcp = new();

        public TransportKind Kind => TransportKind.Tcp;

        public Link Create(Session session, int fd, ReadOnlySpan<byte> key)
        {
            if (!session.Connects || Volatile.Read(ref stillborn.Value) == 0) return _tcp.Create(session, fd, key);
            Interlocked.Decrement(ref stillborn.Value);
            return new StillbornLink(session, fd);
        }

        public void Dispose() => _tcp.Dispose();
    }

    private sealed class StillbornLink(Session session, int fd) : Link(session)
    {
        public override bool IsBlocked => true;

        public override bool OwesAckNow => false;

        public override void Begin()
        {
        }

        public override void Send()
        {
        }

        public override void SendAck()
        {
        }

        public override void Dispose() => _ = Libc.Close(fd);
    }
}
