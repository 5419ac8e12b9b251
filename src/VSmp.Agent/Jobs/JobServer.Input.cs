// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent.Control;
using VSmp.Coherence;
using VSmp.Coherence.Messages;
using ProtocolViolationException = VSmp.Coherence.ProtocolViolationException;

namespace VSmp.Agent.Jobs;

/// <content>
/// The standard input of a rank on another host than its <c>vsmp spmd</c>: in pieces, each of which is sent when the rank's end of the
/// pipe has taken the one before. An empty piece is the end.
/// </content>
internal sealed partial class JobServer
{
    /// <summary>The leader: passes a piece on to the rank's node.</summary>
    /// <exception cref="ControlException">The rank is not on another host.</exception>
    public void PassInput(JobId job, int rank, byte[] data)
    {
        if (!_led.TryGetValue(job, out LedJob? led)) throw new ControlException("the job is over");
        if (!led.IsRemote(rank)) throw new ControlException($"rank {rank} is not on another host");
        NodeId node = led.Placement[rank];
        if (peers.IsUp(node)) Send(node, new FrameHeader { Type = MessageType.JobInput, Argument0 = job.Value, Argument1 = (ulong)rank }, data);
    }

    /// <summary>The node: a rank has taken a piece.</summary>
    public void OnInputTaken(int processId, int rank)
    {
        JobId job = new(StarterOf(processId).Orders.Job);
        if (peers.IsUp(job.Leader)) Send(job.Leader, new FrameHeader { Type = MessageType.JobInputAck, Argument0 = job.Value, Argument1 = (ulong)rank }, []);
    }

    /// <summary>The node: a piece has come for a rank of its.</summary>
    private void OnInput(JobId job, ulong rank, ReadOnlySpan<byte> data)
    {
        if (!_starters.TryGetValue(job, out RankStarter? starter) || rank >= (ulong)starter.Orders.Size || !starter.RanksLeft.Contains((int)rank)) return; // it has ended
        if (!starter.TryPassInput((int)rank, data.ToArray())) throw new ProtocolViolationException($"{job} sends more input than was asked for");
    }

    /// <summary>The leader: more may be sent.</summary>
    private void OnInputTaken(NodeId peer, JobId job, ulong rank)
    {
        if (_led.TryGetValue(job, out LedJob? led) && rank < (ulong)led.Job.Size && led.Placement[rank] == peer) led.Observer.OnRankInputTaken((int)rank);
    }
}
