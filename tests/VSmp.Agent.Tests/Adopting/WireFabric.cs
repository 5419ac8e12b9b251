// SPDX-License-Identifier: Apache-2.0
using System.Net;
using VSmp.Agent.Fabric;
using VSmp.Coherence;
using VSmp.Coherence.Messages;

namespace VSmp.Agent.Tests.Adopting;

/// <summary>What a node of a test sends: coherence messages of its pager, and what nodes say about recoveries.</summary>
internal sealed record Parcel(FrameHeader Header, byte[] Payload, Action? Control)
{
    /// <summary>What it says to a pager.</summary>
    public Message Message => Header.ToMessage();
}

/// <summary>A fabric without sessions: frames wait in the outbox until they are flushed, and are lost with the agent until then.</summary>
internal sealed class WireFabric(NodeId self, Action<NodeId, Parcel> deliver) : IFabric
{
    private readonly List<(NodeId To, Parcel Parcel)> _outbox = [];
    private readonly byte[] _room = GC.AllocateArray<byte>(FrameHeader.MaxPayloadBytes, pinned: true);
    private NodeId _to;
    private int _payloadBytes;

    public FabricCounters Counters => default;

    public bool HoldsBack { get; set; }

    /// <summary>Called before anything is put into the outbox: an agent can be killed there.</summary>
    public Action Tripwire { get; init; } = () => { };

    public void Add(NodeId peer, IPEndPoint address)
    {
    }

    public void Remove(NodeId peer)
    {
    }

    public Span<byte> Begin(NodeId peer, int payloadBytes)
    {
        _to = peer;
        _payloadBytes = payloadBytes;
        return _room.AsSpan(0, payloadBytes);
    }

    public void Commit(in FrameHeader header)
    {
        Tripwire();
        FrameHeader stamped = header;
        stamped.Source = self;
        _outbox.Add((_to, new Parcel(stamped, _room.AsSpan(0, _payloadBytes).ToArray(), null)));
    }

    public bool HasCredit(NodeId peer) => true;

    /// <summary>Has a node do something, in order with the frames that it is sent.</summary>
    public void Say(NodeId peer, Action control) => _outbox.Add((peer, new Parcel(default, [], control)));

    public void Flush()
    {
        foreach ((NodeId to, Parcel parcel) in _outbox) deliver(to, parcel);
        _outbox.Clear();
    }

    public void Dispose() => _outbox.Clear();
}
