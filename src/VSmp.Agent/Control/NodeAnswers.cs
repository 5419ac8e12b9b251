// SPDX-License-Identifier: Apache-2.0
using System.Buffers.Binary;
using System.Text.Json;
using VSmp.Agent.Auditing;
using VSmp.Agent.Checkpointing;
using VSmp.Agent.Checkpointing.Files;
using VSmp.Agent.Elasticity;
using VSmp.Agent.Guests;
using VSmp.Agent.Paging;
using VSmp.Agent.Recovery;
using VSmp.Coherence;

namespace VSmp.Agent.Control;

/// <summary>This node's answers to what commands on any host ask. On the reactor's thread.</summary>
internal sealed class NodeAnswers(Pager pager, Peers peers, Capacity capacity, Runs runs, Reservations reservations, RecoveryServer recovery, DrainServer drain, HomeMover mover, CheckpointRequests requests, CheckpointFiles files)
{
    /// <summary>Extents that are looked at for one question at most: guests wait meanwhile.</summary>
    private const uint MaxExtents = 16;

    /// <summary>Answers, at once or later.</summary>
    /// <exception cref="ControlException">It is refused, or not understood.</exception>
    public Task<byte[]> Answer(NodeQuestion question, byte[] data) => question == NodeQuestion.CheckpointFile ? files.Answer(data) : Task.FromResult(AnswerNow(question, data));

    private byte[] AnswerNow(NodeQuestion question, byte[] data) => question switch
    {
        NodeQuestion.DrainStatus => Of(drain.Status()),
        NodeQuestion.Drain => Of(drain.Begin()),
        NodeQuestion.StopDrain => Of(drain.Stop()),
        NodeQuestion.RebalanceStatus => Of(Rebalance(null)),
        NodeQuestion.Rebalance => Of(Rebalance(true)),
        NodeQuestion.StopRebalance => Of(Rebalance(false)),
        NodeQuestion.AuditNode => JsonSerializer.SerializeToUtf8Bytes(NodeAudit.Of(pager.Self, pager, capacity, runs, mover, reservations, recovery), ControlJson.Default.NodeAudit),
        NodeQuestion.AuditPages => PagesOf(data),
        NodeQuestion.TakeCheckpoint => JsonSerializer.SerializeToUtf8Bytes(requests.Answer(JsonSerializer.Deserialize(data, CheckpointJson.Default.CheckpointRequest)!), CheckpointJson.Default.CheckpointProgress),
        _ => throw new ControlException("the agent there does not know this request: is it older than the command?", ExitCodes.Refused),
    };

    private byte[] PagesOf(byte[] data)
    {
        if (data.Length != 16) throw new ControlException("the request names no pages");
        RegionId id = new(BinaryPrimitives.ReadUInt64LittleEndian(data));
        ExtentNumber first = new(BinaryPrimitives.ReadUInt32LittleEndian(data.AsSpan(8)));
        uint count = Math.Min(BinaryPrimitives.ReadUInt32LittleEndian(data.AsSpan(12)), MaxExtents);
        return pager.Find(id) is { } region && Pager.DirectoryOf(region) is { } state ? PagesAudit.Of(pager.Self, state, first, count, peers.NodeLimit).Write() : [];
    }

    private RebalanceStatus Rebalance(bool? on)
    {
        if (on is { } set) mover.SetRebalancing(set);
        return new RebalanceStatus(mover.IsRebalancing || mover.UnderWayCount > 0, mover.MovedExtents * ExtentNumber.Bytes);
    }

    private static byte[] Of(DrainStatus status) => JsonSerializer.SerializeToUtf8Bytes(status, ControlJson.Default.DrainStatus);

    private static byte[] Of(RebalanceStatus status) => JsonSerializer.SerializeToUtf8Bytes(status, ControlJson.Default.RebalanceStatus);
}
