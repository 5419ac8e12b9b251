// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent.Fabric;
using VSmp.Coherence;
using VSmp.Coherence.Messages;

namespace VSmp.Bench.Simulation;

/// <summary>What the network does to frames; chances are in a thousand per frame.</summary>
/// <param name="LeastDelayTicks">The fastest way.</param>
/// <param name="MoreDelayTicks">What may come on top.</param>
/// <param name="Lost">Never arrives; the connection breaks, as TCP's would.</param>
/// <param name="Twice">Arrives twice.</param>
/// <param name="Early">Arrives before those that were sent before it.</param>
/// <param name="Cut">The connection breaks, with all that is under way.</param>
internal readonly record struct NetworkWeather(int LeastDelayTicks, int MoreDelayTicks, int Lost, int Twice, int Early, int Cut)
{
    /// <summary>Nothing goes wrong.</summary>
    public static NetworkWeather Calm => new(8, 30, 0, 0, 0, 0);

    /// <summary>Drawn at random.</summary>
    public static NetworkWeather Draw(Random random) => new(random.Next(1, 20), random.Next(1, 400), random.Next(20), random.Next(20),
        random.Next(20), random.Next(10));
}

/// <summary>
/// Connections between nodes, below the shipped sessions: those number, acknowledge and replay frames as over TCP. Reordering and
/// repetition happen within a connection, which TCP would never do: a session must see through it all the same.
/// </summary>
internal sealed unsafe class SimulatedNetwork(SimulatedCluster cluster, NetworkWeather weather, ChunkPool chunks) : IDisposable
{
    private const int AckTicks = 200, LossNoticedTicks = 300, ReconnectTicks = 100;
    private const uint Nowhere = uint.MaxValue;

    private static readonly MessageType[] FormerTypes =
        [MessageType.GetS, MessageType.GetM, MessageType.Inv, MessageType.InvAck, MessageType.PutAck];

    private readonly Dictionary<(ushort From, ushort To), End> _ends = [];
    private readonly Dictionary<(ushort From, ushort To), long> _cutUntil = [];

    private readonly Dictionary<ushort, uint> _standing = []; // incarnations of agents, where they were started again

    public long FramesDelivered { get; private set; }

    public long Reconnects { get; private set; }

    public long Fenced { get; private set; }

    /// <summary>Room for the payload of a frame.</summary>
    public Span<byte> Begin(NodeId from, NodeId to, int payloadBytes) => EndOf(from, to).Session.Begin(payloadBytes);

    /// <summary>Sends the frame that was begun.</summary>
    public void Commit(NodeId from, NodeId to, in FrameHeader header)
    {
        End end = EndOf(from, to);
        end.Session.Commit(in header, cluster.View);
        Pump(end);
    }

    /// <summary>A frame of a former life of the cluster turns up; its number is the next that is expected, of all numbers.</summary>
    public void ReplayOtherEpoch()
    {
        if (_ends.Count == 0) return;
        (ushort from, ushort to) = _ends.Keys.Min();
        var former = new PeerSession(new NodeId(from), new NodeId(to), new Epoch(cluster.Epoch.Value ^ 1), chunks);
        former.Begin(0);
        MessageType type = FormerTypes[cluster.Random.Next(FormerTypes.Length)];
        former.Commit(new FrameHeader
        {
            Type = type,
            Requestor = new NodeId(from),
            Count = 1,
            Region = SimulatedCluster.RegionId,
            Network = MessageTypes.NetworkOf(type),
        }, cluster.View);
        FrameHeader* frame = former.Outbox.NextUnsent();
        byte[] bytes = new ReadOnlySpan<byte>(frame, FrameHeader.Bytes).ToArray();
        former.Dispose();
        End end = EndOf(new NodeId(from), new NodeId(to));
        int connection = end.Connection;
        cluster.After(1, () =>
        {
            // SAFETY: the array is pinned during the call, and holds a header.
            fixed (byte* raw = bytes) Restamp((FrameHeader*)raw, sequence: end.Other.Session.LastTaken + 1);
            Arrive(end, bytes, connection);
        });
    }

    /// <summary>Whether nothing gets from one node to another.</summary>
    public bool IsCut(NodeId one, NodeId other) => _cutUntil.GetValueOrDefault((one.Value, other.Value)) > cluster.Now;

    /// <summary>Nodes hear nothing of all others for a while, and the others nothing of them.</summary>
    public void CutOff(IReadOnlyCollection<NodeId> side, long untilTick)
    {
        foreach (NodeId inside in side)
        {
            foreach (SimulatedNode node in cluster.Nodes)
            {
                if (side.Contains(node.Id)) continue;
                foreach ((ushort, ushort) pair in ((ushort, ushort)[])[(inside.Value, node.Id.Value), (node.Id.Value, inside.Value)])
                    _cutUntil[pair] = Math.Max(untilTick, _cutUntil.GetValueOrDefault(pair));
                if (_ends.TryGetValue((inside.Value, node.Id.Value), out End? end)) Cut(end);
            }
        }
    }

    /// <summary>A node has done with another one that was lost: they never hear of each other again.</summary>
    public void Close(NodeId node, NodeId lost)
    {
        End end = EndOf(node, lost);
        foreach (End side in (ReadOnlySpan<End>)[end, end.Other])
        {
            side.IsClosed = true;
            side.IsConnected = false;
            side.Connection++;
        }
    }

    /// <summary>The agent of a node is gone, and what was under way from and to it is void.</summary>
    public void Stop(NodeId node)
    {
        _standing[node.Value] = Nowhere;
        foreach (End end in _ends.Values.Where(e => e.From == node).OrderBy(e => e.To.Value))
        {
            Renew(end);
            if (!end.IsClosed) Cut(end);
        }
    }

    /// <summary>A node's agent is a member.</summary>
    public void Stand(NodeId node, uint incarnation) => _standing[node.Value] = incarnation;

    /// <summary>A node has heard which agent of another one is a member: what it sent to the one before is void.</summary>
    public void Know(NodeId node, NodeId peer, uint incarnation)
    {
        End end = EndOf(node, peer);
        if (end.PeerIncarnation == incarnation) return;
        end.PeerIncarnation = incarnation;
        Renew(end);
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        foreach (End end in _ends.Values) end.Session.Dispose();
    }

    private End EndOf(NodeId from, NodeId to)
    {
        if (_ends.TryGetValue((from.Value, to.Value), out End? end)) return end;
        end = new End(from, to, new PeerSession(from, to, cluster.Epoch, chunks));
        var other = new End(to, from, new PeerSession(to, from, cluster.Epoch, chunks));
        (end.Other, other.Other) = (other, end);
        (end.PeerIncarnation, other.PeerIncarnation) = (_standing.GetValueOrDefault(to.Value), _standing.GetValueOrDefault(from.Value));
        _ends.Add((from.Value, to.Value), end);
        _ends.Add((to.Value, from.Value), other);
        if (end.PeerIncarnation == Nowhere || other.PeerIncarnation == Nowhere) Cut(end);
        return end;
    }

    private void Renew(End end)
    {
        end.Session.Dispose();
        end.Session = new PeerSession(end.From, end.To, cluster.Epoch, chunks);
    }

    /// <summary>Whether each of two agents is the one that the other knows.</summary>
    private bool KnowEachOther(End end) => end.PeerIncarnation != Nowhere && end.Other.PeerIncarnation != Nowhere && _standing.GetValueOrDefault(end.To.Value) == end.PeerIncarnation
        && _standing.GetValueOrDefault(end.From.Value) == end.Other.PeerIncarnation;

    /// <summary>Puts what is unsent on the way.</summary>
    private void Pump(End end)
    {
        if (!end.IsConnected || cluster.Nodes[end.From.Value].IsDown) return;
        // SAFETY: the outbox keeps a frame until it is acknowledged, and that is not before it has been copied here.
        for (FrameHeader* frame; (frame = end.Session.Outbox.NextUnsent()) != null;)
            Put(end, new ReadOnlySpan<byte>(frame, FrameHeader.Bytes + (int)frame->PayloadBytes).ToArray());
    }

    private void Put(End end, byte[] bytes)
    {
        Random random = cluster.Random;
        int connection = end.Connection;
        bool faulty = cluster.IsWorking;
        if ((faulty && random.Next(1000) < weather.Cut) || IsCut(end.From, end.To))
        {
            Cut(end);
            return;
        }
        if (faulty && random.Next(1000) < weather.Lost)
        {
            cluster.After(LossNoticedTicks, () =>
            {
                if (end.Connection == connection) Cut(end);
            });
            return;
        }
        long at = cluster.Now + weather.LeastDelayTicks + random.Next(weather.MoreDelayTicks + 1);
        bool isEarly = faulty && random.Next(1000) < weather.Early;
        if (!isEarly) end.LastArrival = at = Math.Max(at, end.LastArrival);
        cluster.After(at - cluster.Now, () => Arrive(end, bytes, connection));
        if (!faulty || random.Next(1000) >= weather.Twice) return;
        byte[] copy = [.. bytes]; // now: who takes a frame writes to it
        cluster.After(at - cluster.Now + random.Next(weather.MoreDelayTicks + 1), () => Arrive(end, copy, connection));
    }

    /// <summary>A frame from one end arrives at the other.</summary>
    private void Arrive(End end, byte[] bytes, int connection)
    {
        if (end.Connection != connection || !end.IsConnected) return; // that connection is gone, and what it carried
        SimulatedNode node = cluster.Nodes[end.To.Value];
        if (node.IsDown) return;
        if (node.IsSuspended)
        {
            node.WhenAwake(() => Arrive(end, bytes, connection));
            return;
        }
        if (node.PausedUntil > cluster.Now)
        {
            // A node that pauses takes what has come afterwards, in the order of its coming.
            cluster.After(node.PausedUntil - cluster.Now, () => Arrive(end, bytes, connection));
            return;
        }
        PeerSession session = end.Other.Session;
        // SAFETY: the array is pinned during the call.
        fixed (byte* raw = bytes)
        {
            var frame = (FrameHeader*)raw;
            switch (Take(session, frame))
            {
                case FrameVerdict.Deliver:
                    FramesDelivered++;
                    OweAck(end.Other);
                    if (Has(SimulationBugs.OldViewDropped) && frame->View != cluster.View) break;
                    node.OnFrame(in *frame, new ReadOnlySpan<byte>(frame + 1, (int)frame->PayloadBytes));
                    break;
                case FrameVerdict.Ignore or FrameVerdict.Repeated:
                    break;
                case FrameVerdict.Gap:
                    Cut(end);
                    break;
                default:
                    if (frame->Epoch == cluster.Epoch) throw new SimulationException($"{end.To} refuses a frame of {end.From}: {session.Violation}");
                    Fenced++;
                    Cut(end);
                    break;
            }
        }
    }

    private FrameVerdict Take(PeerSession session, FrameHeader* frame)
    {
        if (cluster.Planted == SimulationBugs.None) return session.Take(frame);
        if (Has(SimulationBugs.EpochNotChecked) && frame->Epoch != cluster.Epoch) Restamp(frame, frame->Sequence, cluster.Epoch);
        if (Has(SimulationBugs.GapsNotNoticed) && frame->Sequence > session.LastTaken + 1) Restamp(frame, session.LastTaken + 1);
        FrameVerdict verdict = session.Take(frame);
        return verdict == FrameVerdict.Repeated && Has(SimulationBugs.DuplicatesTaken) ? FrameVerdict.Deliver : verdict;
    }

    private bool Has(SimulationBugs bug) => (cluster.Planted & bug) != 0;

    private static void Restamp(FrameHeader* frame, ulong sequence, Epoch? epoch = null)
    {
        // SAFETY: the caller's buffer holds header and payload, and is the caller's to write.
        frame->Sequence = sequence;
        if (epoch is { } other) frame->Epoch = other;
        frame->Crc = 0;
        frame->Crc = Crc32C.Compute((byte*)frame, FrameHeader.Bytes + (int)frame->PayloadBytes);
    }

    private void OweAck(End end)
    {
        if (end.IsAckDue) return;
        end.IsAckDue = true;
        cluster.After(AckTicks, () =>
        {
            end.IsAckDue = false;
            if (!end.IsConnected || !end.Session.OwesAck || cluster.Nodes[end.From.Value].IsDown) return;
            byte[] ack = new byte[FrameHeader.Bytes];
            // SAFETY: the array is pinned during the call.
            fixed (byte* bytes = ack) end.Session.WriteAck(bytes, cluster.View);
            Put(end, ack);
        });
    }

    private void Cut(End end)
    {
        if (!end.IsConnected) return;
        foreach (End side in (ReadOnlySpan<End>)[end, end.Other])
        {
            side.IsConnected = false;
            side.Connection++;
        }
        if (cluster.IsTracing) cluster.Tell($"the connection of {end.From} and {end.To} breaks");
        Reconnect(end);
    }

    private void Reconnect(End end)
    {
        cluster.After(ReconnectTicks + cluster.Random.Next(ReconnectTicks), () =>
        {
            if (end.IsClosed || cluster.Nodes[end.From.Value].IsDown || cluster.Nodes[end.To.Value].IsDown) return;
            if (IsCut(end.From, end.To))
            {
                Reconnect(end);
                return;
            }
            if (!KnowEachOther(end))
            {
                if (!cluster.Nodes[end.From.Value].IsExpelled && !cluster.Nodes[end.To.Value].IsExpelled) Reconnect(end);
                return;
            }
            PeerSession one = end.Session, other = end.Other.Session;
            if (!one.Resume(other.LastTaken) || !other.Resume(one.LastTaken))
                throw new SimulationException($"{end.From} and {end.To} cannot resume their session");
            if (Has(SimulationBugs.ReplayForgetsOne))
            {
                _ = one.Outbox.NextUnsent();
                _ = other.Outbox.NextUnsent();
            }
            Reconnects++;
            end.IsConnected = end.Other.IsConnected = true;
            end.LastArrival = end.Other.LastArrival = cluster.Now;
            Pump(end);
            Pump(end.Other);
        });
    }

    /// <summary>One side of a connection: what goes from here to there.</summary>
    private sealed class End(NodeId from, NodeId to, PeerSession session)
    {
        public NodeId From => from;
        public NodeId To => to;
        public PeerSession Session { get; set; } = session;
        public uint PeerIncarnation { get; set; }
        public End Other { get; set; } = null!;
        public bool IsConnected { get; set; } = true;
        public bool IsClosed { get; set; }
        public bool IsAckDue { get; set; }
        public int Connection { get; set; }
        public long LastArrival { get; set; }
    }
}
