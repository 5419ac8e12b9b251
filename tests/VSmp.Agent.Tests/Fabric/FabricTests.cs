// SPDX-License-Identifier: Apache-2.0
using System.Net;
using VSmp.Agent.Fabric;
using VSmp.Coherence;
using VSmp.Coherence.Messages;
using Xunit;

namespace VSmp.Agent.Tests.Fabric;

/// <summary>A few nodes with a fabric each, and a way to act on each node's own thread.</summary>
internal interface IFabricWorld : IAsyncDisposable
{
    /// <summary>Makes nodes 0 … n−1, each with a session to every other.</summary>
    Task StartAsync(int nodeCount);

    /// <summary>What the node has received.</summary>
    Recorder Received(int node);

    /// <summary>Acts on the node's thread.</summary>
    Task OnAsync(int node, Action<IFabric> action);

    /// <summary>
    /// Returns once the condition, evaluated on the node's thread, holds; fails if that takes unreasonably long.
    /// </summary>
    Task UntilAsync(int node, Func<bool> condition);

    /// <summary>Breaks the connection between two nodes.</summary>
    Task CutAsync(int node, int peer);
}

/// <summary>What any fabric promises (IFabric). One subclass per implementation.</summary>
public abstract class FabricTests
{
    private protected abstract IFabricWorld CreateWorld();

    [Fact]
    public async Task Frames_to_a_peer_arrive_once_each_in_the_order_in_which_they_were_sent()
    {
        await using IFabricWorld world = CreateWorld();
        await world.StartAsync(2);
        await world.OnAsync(0, fabric =>
        {
            for (uint i = 1; i <= 5000; i++) Send(fabric, 1, i, (int)(i % 7) * 100);
        });
        await world.UntilAsync(1, () => world.Received(1).Count(0) >= 5000);
        AssertInOrder(world.Received(1), 0, 5000);
    }

    [Fact]
    public async Task All_fields_of_a_frame_and_its_payload_arrive_as_they_were_sent()
    {
        await using IFabricWorld world = CreateWorld();
        await world.StartAsync(2);
        var sent = new FrameHeader
        {
            Type = MessageType.DataM,
            Flags = MessageFlags.Prefetch,
            Requestor = new NodeId(7),
            AckCount = 513,
            Transaction = 0xDEADBEEF,
            Count = 2,
            Region = new RegionId(0x0123_4567_89AB_CDEF),
            Page = new PageNumber(0xF_0000_0001),
            PageVersion = new PageVersion(99),
            Argument0 = 11,
            Argument1 = 22,
        };
        byte[] payload = Pattern(5, 2 * PageNumber.Bytes);
        await world.OnAsync(0, fabric =>
        {
            payload.CopyTo(fabric.Begin(new NodeId(1), payload.Length));
            fabric.Commit(sent);
        });
        await world.UntilAsync(1, () => world.Received(1).Count(0) == 1);
        (FrameHeader got, byte[] data) = world.Received(1).Frames(0)[0];
        Assert.Equal(payload, data);
        Assert.Equal((sent.Type, sent.Flags, sent.Requestor, sent.AckCount, sent.Transaction, sent.Count),
            (got.Type, got.Flags, got.Requestor, got.AckCount, got.Transaction, got.Count));
        Assert.Equal((sent.Region, sent.Page, sent.PageVersion, sent.Argument0, sent.Argument1),
            (got.Region, got.Page, got.PageVersion, got.Argument0, got.Argument1));
        Assert.Equal((new NodeId(0), VirtualNetwork.Response), (got.Source, got.Network));
    }

    [Fact]
    public async Task Connections_cut_again_and_again_during_traffic_lose_repeat_and_reorder_nothing()
    {
        await using IFabricWorld world = CreateWorld();
        await world.StartAsync(2);
        const uint Total = 4000;
        uint next0 = 1, next1 = 1;
        for (uint round = 1; round <= 40; round++)
        {
            await world.OnAsync(0, fabric => SendUpTo(fabric, 1, ref next0, round * Total / 40));
            await world.OnAsync(1, fabric => SendUpTo(fabric, 0, ref next1, round * Total / 40));
            uint wanted = (round - 1) * Total / 40 + 1;
            await world.UntilAsync(1, () => world.Received(1).Count(0) >= wanted);
            await world.CutAsync((int)(round % 2), (int)(1 - (round % 2)));
        }
        await world.UntilAsync(1, () => world.Received(1).Count(0) >= Total);
        await world.UntilAsync(0, () => world.Received(0).Count(1) >= Total);
        AssertInOrder(world.Received(1), 0, Total);
        AssertInOrder(world.Received(0), 1, Total);
        ulong reconnects = 0;
        await world.OnAsync(0, fabric => reconnects = fabric.Counters.Reconnects);
        Assert.True(reconnects >= 10, $"only {reconnects} reconnects: the test did not test");
    }

    [Fact]
    public async Task Payloads_of_the_largest_size_arrive_intact_and_in_numbers()
    {
        await using IFabricWorld world = CreateWorld();
        await world.StartAsync(2);
        await world.OnAsync(1, fabric =>
        {
            for (uint i = 1; i <= 300; i++) Send(fabric, 0, i, FrameHeader.MaxPayloadBytes);
        });
        await world.UntilAsync(0, () => world.Received(0).Count(1) >= 300);
        AssertInOrder(world.Received(0), 1, 300);
    }

    [Fact]
    public async Task Many_peers_talk_to_each_other_at_once()
    {
        await using IFabricWorld world = CreateWorld();
        const int Nodes = 6;
        const uint Frames = 300;
        await world.StartAsync(Nodes);
        for (int node = 0; node < Nodes; node++)
        {
            await world.OnAsync(node, fabric =>
            {
                for (uint i = 1; i <= Frames; i++)
                {
                    for (int peer = 0; peer < Nodes; peer++)
                        if (peer != node) Send(fabric, peer, i, (int)i);
                }
            });
        }
        for (int node = 0; node < Nodes; node++)
        {
            Recorder received = world.Received(node);
            for (int peer = 0; peer < Nodes; peer++)
            {
                if (peer == node) continue;
                await world.UntilAsync(node, () => received.Count(peer) >= Frames);
                AssertInOrder(received, peer, Frames);
            }
        }
    }

    [Fact]
    public async Task A_frame_may_be_answered_from_within_the_receiver()
    {
        await using IFabricWorld world = CreateWorld();
        await world.StartAsync(2);
        IFabric? second = null;
        await world.OnAsync(1, fabric =>
        {
            second = fabric;
            world.Received(1).OnFrameHook = (peer, header) => Send(second, peer.Value, header.Transaction, 64);
        });
        await world.OnAsync(0, fabric =>
        {
            for (uint i = 1; i <= 1000; i++) Send(fabric, 1, i, 0);
        });
        await world.UntilAsync(0, () => world.Received(0).Count(1) >= 1000);
        AssertInOrder(world.Received(0), 1, 1000);
    }

    [Fact]
    public async Task A_receiver_that_ends_the_session_within_a_frame_gets_no_more_of_it()
    {
        await using IFabricWorld world = CreateWorld();
        await world.StartAsync(2);
        await world.OnAsync(1, fabric => world.Received(1).OnFrameHook = (peer, header) =>
        {
            if (header.Transaction == 3) fabric.Remove(peer);
        });
        await world.OnAsync(0, fabric =>
        {
            for (uint i = 1; i <= 10; i++) Send(fabric, 1, i, 100);
        });
        await world.UntilAsync(0, () => world.Received(0).Downs.Count == 1);
        Assert.Equal(3, world.Received(1).Count(0));
        Assert.Empty(world.Received(1).Downs);
    }

    [Fact]
    public async Task Removing_a_peer_tells_the_peer_and_frames_to_it_are_dropped()
    {
        await using IFabricWorld world = CreateWorld();
        await world.StartAsync(3);
        await world.OnAsync(0, fabric =>
        {
            fabric.Remove(new NodeId(1));
            Send(fabric, 1, 1, 100);
            Send(fabric, 2, 1, 100);
        });
        await world.UntilAsync(1, () => world.Received(1).Downs.Count == 1);
        await world.UntilAsync(2, () => world.Received(2).Count(0) == 1);
        Assert.Equal(new NodeId(0), world.Received(1).Downs[0].Peer);
        Assert.Equal(0, world.Received(1).Count(0));
    }

    [Fact]
    public async Task Acknowledged_frames_give_back_their_credit()
    {
        await using IFabricWorld world = CreateWorld();
        await world.StartAsync(2);
        bool before = true;
        await world.OnAsync(0, fabric =>
        {
            for (uint i = 1; i <= 200; i++) Send(fabric, 1, i, FrameHeader.MaxPayloadBytes);
            before = fabric.HasCredit(new NodeId(1));
        });
        Assert.False(before);
        bool after = false;
        IFabric? first = null;
        await world.OnAsync(0, fabric => first = fabric);
        await world.UntilAsync(0, () => after = first!.HasCredit(new NodeId(1)));
        Assert.True(after);
    }

    [Fact]
    public async Task Frames_are_counted_on_both_sides_and_those_that_keep_pages_coherent_apart()
    {
        await using IFabricWorld world = CreateWorld();
        await world.StartAsync(2);
        FabricCounters sent = default, received = default;
        await world.OnAsync(0, fabric =>
        {
            for (uint i = 1; i <= 10; i++) Send(fabric, 1, i, 100);
            for (uint i = 1; i <= 5; i++)
            {
                fabric.Begin(new NodeId(1), PageNumber.Bytes);
                fabric.Commit(new FrameHeader { Type = MessageType.DataS, Requestor = new NodeId(1), Transaction = i, Count = 1 });
            }
            sent = fabric.Counters;
        });
        await world.UntilAsync(1, () => world.Received(1).Count(0) == 15);
        await world.OnAsync(1, fabric => received = fabric.Counters);
        const ulong CoherenceBytes = 5 * (FrameHeader.Bytes + PageNumber.Bytes), Bytes = CoherenceBytes + (10 * (FrameHeader.Bytes + 100));
        Assert.Equal((15ul, Bytes, 5ul, CoherenceBytes), (sent.FramesSent, sent.BytesSent, sent.CoherenceFramesSent, sent.CoherenceBytesSent));
        Assert.Equal((15ul, Bytes, 5ul, CoherenceBytes),
            (received.FramesReceived, received.BytesReceived, received.CoherenceFramesReceived, received.CoherenceBytesReceived));
    }

    [Fact]
    public async Task A_header_that_breaks_the_format_is_refused_where_it_is_sent()
    {
        await using IFabricWorld world = CreateWorld();
        await world.StartAsync(2);
        await world.OnAsync(0, fabric =>
        {
            fabric.Begin(new NodeId(1), 100);
            Assert.Throws<InvalidOperationException>(() => fabric.Commit(new FrameHeader { Type = MessageType.GetS, Count = 1 }));
            Send(fabric, 1, 1, 0);
        });
        await world.UntilAsync(1, () => world.Received(1).Count(0) == 1);
        AssertInOrder(world.Received(1), 0, 1);
    }

    private protected static void Send(IFabric fabric, int peer, uint number, int payloadBytes)
    {
        Pattern(number, payloadBytes).CopyTo(fabric.Begin(new NodeId((ushort)peer), payloadBytes));
        fabric.Commit(new FrameHeader { Type = MessageType.NodeReport, Transaction = number });
    }

    private protected static byte[] Pattern(uint number, int bytes)
    {
        byte[] pattern = new byte[bytes];
        for (int i = 0; i < bytes; i++) pattern[i] = (byte)((number * 31) + (uint)i + ((uint)i >> 8));
        return pattern;
    }

    private protected static void AssertInOrder(Recorder recorder, int peer, uint total)
    {
        List<(FrameHeader Header, byte[] Payload)> frames = recorder.Frames(peer);
        Assert.Equal((int)total, frames.Count);
        for (int i = 0; i < frames.Count; i++)
        {
            Assert.Equal((uint)i + 1, frames[i].Header.Transaction);
            Assert.True(frames[i].Payload.AsSpan().SequenceEqual(Pattern((uint)i + 1, frames[i].Payload.Length)));
        }
    }

    private static void SendUpTo(IFabric fabric, int peer, ref uint next, uint last)
    {
        for (; next <= last; next++) Send(fabric, peer, next, (int)(next * 37 % 3000));
    }
}

/// <summary>Keeps what arrives. Written on its node's thread; read there, or after waiting for a condition on it.</summary>
internal sealed class Recorder : IFrameReceiver
{
    private readonly Dictionary<ushort, List<(FrameHeader, byte[])>> _frames = [];

    public List<NodeId> Ups { get; } = [];

    public List<(NodeId Peer, string Reason)> Downs { get; } = [];

    public Action<NodeId, FrameHeader>? OnFrameHook { get; set; }

    public List<(FrameHeader Header, byte[] Payload)> Frames(int peer)
    {
        lock (_frames) return _frames.TryGetValue((ushort)peer, out List<(FrameHeader, byte[])>? list) ? list : [];
    }

    public int Count(int peer) => Frames(peer).Count;

    public void OnFrame(NodeId peer, in FrameHeader header, ReadOnlySpan<byte> payload)
    {
        lock (_frames)
        {
            if (!_frames.TryGetValue(peer.Value, out List<(FrameHeader, byte[])>? list)) _frames.Add(peer.Value, list = []);
            list.Add((header, payload.ToArray()));
        }
        OnFrameHook?.Invoke(peer, header);
    }

    public void OnPeerUp(NodeId peer) => Ups.Add(peer);

    public void OnPeerDown(NodeId peer, string reason) => Downs.Add((peer, reason));
}
