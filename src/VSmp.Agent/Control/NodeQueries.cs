// SPDX-License-Identifier: Apache-2.0
using System.Text;
using System.Text.Json;
using VSmp.Agent.Elasticity;
using VSmp.Agent.Fabric;
using VSmp.Agent.Guests;
using VSmp.Coherence;
using VSmp.Coherence.Messages;

namespace VSmp.Agent.Control;

/// <summary>What a command asks of a node that may be on another host. Values are on the wire.</summary>
internal enum NodeQuestion : byte
{
    /// <summary>How far draining is.</summary>
    DrainStatus = 1,
    /// <summary>Be emptied, and leave.</summary>
    Drain = 2,
    /// <summary>Be emptied no longer.</summary>
    StopDrain = 3,
    /// <summary>How far moving homes is.</summary>
    RebalanceStatus = 4,
    /// <summary>Move homes until nodes are filled evenly.</summary>
    Rebalance = 5,
    /// <summary>Move no more homes.</summary>
    StopRebalance = 6,
    /// <summary>What it says of its memory and its regions, for an audit.</summary>
    AuditNode = 7,
    /// <summary>What it has of pages, for an audit: region 64, first extent 32, count 32. The answer is empty if it does not know the region.</summary>
    AuditPages = 8,
    /// <summary>Take a checkpoint of a region that it has made, or say how far that is: JSON, a <see cref="Checkpointing.CheckpointRequest"/>; the answer is a <see cref="Checkpointing.CheckpointProgress"/>.</summary>
    TakeCheckpoint = 9,
    /// <summary>Do something to the files of a checkpoint in its memory: a <see cref="Checkpointing.Files.FileRequest"/>.</summary>
    CheckpointFile = 10,
}

/// <summary>Carries a command's questions to other nodes, and answers theirs, in frames. Owned by the reactor.</summary>
internal sealed class NodeQueries(NodeId self, Reactor reactor, IFabric fabric, Peers peers, Func<NodeQuestion, byte[], Task<byte[]>> answer)
{
    private readonly Dictionary<uint, (NodeId Node, MemoryStream Answer, TaskCompletionSource<byte[]> Done)> _pending = [];
    private uint _last;

    /// <summary>Whether a question changes something, and so is for administrators.</summary>
    public static bool IsOrder(NodeQuestion question) => question is NodeQuestion.Drain or NodeQuestion.StopDrain or NodeQuestion.Rebalance or NodeQuestion.StopRebalance
        or NodeQuestion.CheckpointFile;

    /// <summary>Asks a node, maybe this one.</summary>
    /// <exception cref="ControlException">There is no such node, or it refuses.</exception>
    public Task<byte[]> Ask(string name, NodeQuestion question, byte[] data)
    {
        Peer peer = peers.All.FirstOrDefault(p => p.Name == name)
            ?? throw new ControlException($"there is no node {name} in the cluster: there is {string.Join(", ", peers.All.Select(p => p.Name))}", ExitCodes.Usage);
        if (peer.Node == self) return answer(question, data);
        if (!peer.IsUp) throw new ControlException($"node {name} is not reachable", ExitCodes.NoAgent);
        var done = new TaskCompletionSource<byte[]>(TaskCreationOptions.RunContinuationsAsynchronously);
        _pending.Add(++_last, (peer.Node, new MemoryStream(), done));
        Send(peer.Node, MessageType.NodeAsk, _last, (ulong)question, 0, data);
        return done.Task;
    }

    /// <summary>A question, or a piece of an answer.</summary>
    public void OnFrame(NodeId peer, in FrameHeader header, ReadOnlySpan<byte> payload)
    {
        if (header.Type == MessageType.NodeAsk)
        {
            Answer(peer, in header, payload.ToArray());
            return;
        }
        if (!_pending.TryGetValue(header.Transaction, out var pending) || pending.Node != peer) return;
        pending.Answer.Write(payload);
        if (header.Argument0 == 0) return; // more to come
        _pending.Remove(header.Transaction);
        if (header.Argument1 == 0) pending.Done.SetResult(pending.Answer.ToArray());
        else pending.Done.SetException(new ControlException(Encoding.UTF8.GetString(pending.Answer.ToArray()), (int)header.Argument1));
    }

    /// <summary>A peer is lost: it answers no more.</summary>
    public void OnPeerLost(NodeId peer, string text)
    {
        foreach ((uint number, var pending) in _pending.Where(p => p.Value.Node == peer).ToArray())
        {
            _pending.Remove(number);
            pending.Done.SetException(new ControlException(text, ExitCodes.NoAgent));
        }
    }

    private void Answer(NodeId peer, in FrameHeader header, byte[] data)
    {
        Task<byte[]> answered;
        try { answered = answer((NodeQuestion)header.Argument0, data); }
        catch (ControlException e) { answered = Task.FromException<byte[]>(e); }
        catch (JsonException) { throw new Coherence.ProtocolViolationException($"{peer} asks what makes no sense"); }
        uint number = header.Transaction;
        if (answered.IsCompleted) Answer(peer, number, answered);
        else
        {
            _ = answered.ContinueWith(_ => reactor.Post(() =>
            {
                if (peers.IsUp(peer)) Answer(peer, number, answered);
            }), TaskScheduler.Default);
        }
    }

    private void Answer(NodeId peer, uint number, Task<byte[]> answered)
    {
        byte[] bytes;
        ulong exitCode = 0;
        try { bytes = answered.GetAwaiter().GetResult(); }
        catch (ControlException e)
        {
            bytes = Encoding.UTF8.GetBytes(e.Message);
            exitCode = (ulong)Math.Max(1, e.ExitCode);
        }
        for (int at = 0; ;)
        {
            int length = Math.Min(bytes.Length - at, FrameHeader.MaxPayloadBytes);
            bool isLast = at + length == bytes.Length;
            Send(peer, MessageType.NodeAnswer, number, isLast ? 1ul : 0, exitCode, bytes.AsSpan(at, length));
            if (isLast) return;
            at += length;
        }
    }

    private void Send(NodeId to, MessageType type, uint number, ulong first, ulong second, ReadOnlySpan<byte> payload)
    {
        FrameHeader header = new()
        {
            Type = type,
            Requestor = self,
            Network = MessageTypes.NetworkOf(type),
            Transaction = number,
            Argument0 = first,
            Argument1 = second,
        };
        payload.CopyTo(fabric.Begin(to, payload.Length));
        fabric.Commit(in header);
    }
}
