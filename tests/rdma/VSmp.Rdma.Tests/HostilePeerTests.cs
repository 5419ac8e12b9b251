// SPDX-License-Identifier: Apache-2.0
using System.Net;
using System.Runtime.InteropServices;
using VSmp.Agent.Fabric;
using VSmp.Agent.Fabric.Verbs;
using VSmp.Agent.Interop;
using VSmp.Agent.Tests.Fabric;
using VSmp.Coherence;
using VSmp.Coherence.Messages;
using Xunit;

namespace VSmp.Rdma.Tests;

/// <summary>
/// What a member gets that does what it may not, over RDMA: it loses its connection, the log says why, no memory is touched, and an
/// honest peer's frames go to and fro meanwhile.
/// </summary>
public sealed class HostilePeerTests : IAsyncLifetime
{
    private const int Honest = 1;

    private static readonly NodeId HostileId = new(9);

    private readonly SessionWorld _world = new(Device.Address, (reactor, address) => new VerbsTransport(reactor, address, null, TransportLog.Enqueue))
    {
        Options = new FabricOptions { MaxUnacknowledgedBytes = 4 << 20, LossTimeoutMicroseconds = 2_000_000 }, // many tests wait for it
    };

    private int _exchanged;

    private static System.Collections.Concurrent.ConcurrentQueue<string> TransportLog { get; } = new();

    private FabricNode Victim => _world[0];

    public async ValueTask InitializeAsync()
    {
        TransportLog.Clear();
        await _world.StartAsync(2);
        await ExchangeAsync();
    }

    public ValueTask DisposeAsync() => _world.DisposeAsync();

    [Fact]
    public Task A_message_longer_than_a_slot() =>
        IsContainedAsync("could not be received", peer => Assert.NotEqual(0, peer.Post(HostilePeer.Send, new byte[VerbsLink.SlotBytes + 64])));

    [Fact]
    public Task A_message_cut_in_the_middle_of_a_frame() =>
        IsContainedAsync("bytes that are no frame", peer => peer.Post(HostilePeer.Send, peer.Frame(1000)[..600]));

    [Fact]
    public Task A_message_of_nothing() => IsContainedAsync("bytes that are no frame", peer => peer.Post(HostilePeer.Send, []));

    [Fact]
    public Task A_frame_that_was_changed_after_its_checksum() => IsContainedAsync("a CRC that does not match", peer =>
    {
        byte[] frame = peer.Frame(1000);
        frame[^1] ^= 1;
        peer.Post(HostilePeer.Send, frame);
    });

    [Fact]
    public Task A_message_with_an_immediate_value() =>
        IsContainedAsync("immediate value", peer => peer.Post(HostilePeer.SendWithImmediate, peer.Frame(100), key: 0x12345678));

    [Fact]
    public Task A_frame_for_the_second_time() => IsContainedAsync("a frame for the second time", peer =>
    {
        byte[] frame = peer.Frame(100);
        Assert.Equal(0, peer.Post(HostilePeer.Send, frame));
        peer.Post(HostilePeer.Send, frame);
    });

    [Fact]
    public async Task More_messages_than_credit()
    {
        using var resume = new ManualResetEventSlim();
        await IsContainedAsync("more messages than it had credit for", peer =>
        {
            byte[] frames = [.. Enumerable.Range(0, VerbsLink.Slots).SelectMany(_ => peer.Frame(0))];
            Victim.Reactor.Post(resume.Wait); // or it might acknowledge them as they come, which is credit
            Assert.Equal(0, peer.Post(HostilePeer.Send, frames, VerbsLink.Slots));
            resume.Set();
        });
    }

    [Fact]
    public Task Acknowledgements_of_nothing_without_end() => IsContainedAsync("more messages than it had credit for", peer =>
    {
        byte[] ack = peer.EmptyAck();
        while (peer.Post(HostilePeer.Send, ack) == 0) Thread.Yield();
    });

    [Fact]
    public Task Bytes_on_the_connection_that_only_shows_that_it_lives() => IsContainedAsync("bytes beside the RDMA connection", peer =>
    {
        byte scrap = 0;
        // SAFETY: sends one byte of this stack.
        unsafe { Assert.Equal(1, Sockets.Send(peer.Connection, &scrap, 1, Sockets.MSG_NOSIGNAL)); }
    });

    [Theory]
    [InlineData(HostilePeer.Write, 64)]
    [InlineData(HostilePeer.Write, 0)] // needs no key, only a queue pair that allows it
    [InlineData(HostilePeer.WriteWithImmediate, 64)]
    [InlineData(HostilePeer.WriteWithImmediate, 0)] // would take a receive
    [InlineData(HostilePeer.Read, 64)]
    [InlineData(HostilePeer.CompareAndSwap, 8)]
    public async Task An_operation_on_memory_is_refused_by_the_queue_pair_and_the_peer_lost_at_the_next_use(uint opcode, int bytes)
    {
        nint canary = AllocateCanary();
        try
        {
            using HostilePeer peer = await NewPeerAsync();
            await peer.ConnectAsync();
            Task exchange = ExchangeAsync();
            foreach (uint key in (uint[])[0, 0x100])
            {
                int status = peer.Post(opcode, Enumerable.Repeat((byte)0xEE, bytes).ToArray(), address: canary, key: key);
                // The queue pair that was refused once does nothing more: flushed.
                Assert.Equal(key == 0 ? HostilePeer.InvalidRequest : (int)VerbsCompletion.Flushed, status);
            }
            await exchange;
            AssertCanary(canary);
            await Victim.OnAsync(fabric => Send(fabric, peer.Self));
            await IsLostAsync();
        }
        finally
        {
            FreeCanary(canary);
        }
    }

    [Fact]
    public async Task A_peer_that_takes_nothing_is_dropped_after_the_device_has_tried_often_enough()
    {
        using HostilePeer peer = await NewPeerAsync();
        await peer.ConnectAsync(receives: 0);
        Task exchange = ExchangeAsync();
        await Victim.OnAsync(fabric => Send(fabric, peer.Self));
        await exchange;
        await IsLostAsync();
    }

    [Fact]
    public async Task A_peer_that_acknowledges_nothing_is_lost_before_memory_is()
    {
        using HostilePeer peer = await NewPeerAsync();
        await peer.ConnectAsync();
        await Victim.OnAsync(fabric =>
        {
            for (int i = 0; i < 200; i++) Send(fabric, peer.Self, FrameHeader.MaxPayloadBytes);
        });
        await IsLostAsync();
        Assert.Contains("has not acknowledged 4 MiB", Victim.Recorder.Downs[0].Reason, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Without_the_right_proof_nobody_gets_a_connection_and_whoever_has_it_still_does()
    {
        string before = Device.Resources();
        using (HostilePeer stranger = await NewPeerAsync())
        {
            await stranger.AuthenticateAsync();
            byte[] wrong = stranger.Proof();
            wrong[^20] ^= 1;
            for (int i = 0; i < 16; i++) Assert.Equal(-Errno.ECONNREFUSED, stranger.Ask(i % 2 == 0 ? wrong : []));
            Assert.Contains(TransportLog, line => line.Contains("had not authenticated itself", StringComparison.Ordinal));
            await ExchangeAsync();
        }
        using (HostilePeer peer = await NewPeerAsync()) await peer.ConnectAsync();
        await Device.HasAgainAsync(before);
        IsUntouched();
    }

    [Fact]
    public async Task A_connection_left_half_open_is_taken_down_in_time()
    {
        string before = Device.Resources();
        using (HostilePeer peer = await NewPeerAsync())
        {
            await peer.AuthenticateAsync();
            Assert.Equal(0, peer.Ask(peer.Proof()));
            Assert.Equal(Device.Count(before, "qp") + 2, Device.Count(Device.Resources(), "qp"));
            await ExchangeAsync();
            await Device.HasAgainAsync("qp", Device.Count(before, "qp") + 1); // its own
            Assert.False(Victim.Fabric.IsConnected(peer.Self));
        }
        await Device.HasAgainAsync(before);
        IsUntouched();
    }

    private static unsafe nint AllocateCanary()
    {
        void* canary = NativeMemory.AlignedAlloc(4096, 4096);
        new Span<byte>(canary, 4096).Fill(0xC5);
        return (nint)canary;
    }

    private static unsafe void AssertCanary(nint canary) => Assert.Equal(-1, new ReadOnlySpan<byte>((void*)canary, 4096).IndexOfAnyExcept((byte)0xC5));

    private static unsafe void FreeCanary(nint canary) => NativeMemory.AlignedFree((void*)canary);

    private static void Send(IFabric fabric, NodeId peer, int payloadBytes = 500)
    {
        fabric.Begin(peer, payloadBytes).Clear();
        fabric.Commit(new FrameHeader { Type = MessageType.NodeReport });
    }

    private async Task<HostilePeer> NewPeerAsync()
    {
        await Victim.OnAsync(fabric => fabric.Add(HostileId, new IPEndPoint(Device.Address, 1)));
        return new HostilePeer(Victim, HostileId);
    }

    /// <summary>The peer connects and does it; its connection goes, and the log says why.</summary>
    private async Task IsContainedAsync(string logged, Action<HostilePeer> attack)
    {
        using HostilePeer peer = await NewPeerAsync();
        await peer.ConnectAsync();
        Task exchange = ExchangeAsync();
        attack(peer);
        await Victim.UntilAsync(() => !Victim.Fabric.IsConnected(peer.Self));
        await exchange;
        await ExchangeAsync();
        Assert.Contains(Victim.Log, line => line.Contains(logged, StringComparison.Ordinal) && line.Contains(HostileId.ToString(), StringComparison.Ordinal));
        IsUntouched();
    }

    private async Task IsLostAsync()
    {
        await Victim.UntilAsync(() => Victim.Recorder.Downs.Count > 0);
        Assert.Equal(HostileId, Victim.Recorder.Downs[0].Peer);
        Assert.Contains(Victim.Log, line => line.Contains($"lost {HostileId}", StringComparison.Ordinal));
        await ExchangeAsync();
        IsUntouched();
    }

    /// <summary>The honest peer's connection is the one that it had from the start.</summary>
    private void IsUntouched()
    {
        Assert.True(Victim.Fabric.IsConnected(new NodeId(Honest)));
        Assert.Equal(0ul, _world[Honest].Fabric.Counters.Reconnects);
    }

    private async Task ExchangeAsync()
    {
        const int Frames = 50;
        _exchanged += Frames;
        foreach (int node in (int[])[0, Honest])
        {
            await _world.OnAsync(node, fabric =>
            {
                for (int i = 0; i < Frames; i++) Send(fabric, new NodeId((ushort)(Honest - node)));
            });
        }
        foreach (int node in (int[])[0, Honest]) await _world.UntilAsync(node, () => _world.Received(node).Count(Honest - node) >= _exchanged);
    }
}
