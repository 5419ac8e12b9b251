// SPDX-License-Identifier: Apache-2.0
using System.Text.Json;
using VSmp.Agent.Elasticity;
using VSmp.Coherence;

namespace VSmp.Agent.Control;

/// <summary>This node's answers to what commands on any host ask. On the reactor's thread.</summary>
internal sealed class NodeAnswers(DrainServer drain, HomeMover mover)
{
    /// <summary>Answers.</summary>
    /// <exception cref="ControlException">It is refused, or not understood.</exception>
    public byte[] Answer(NodeQuestion question, byte[] data) => question switch
    {
        NodeQuestion.DrainStatus => Of(drain.Status()),
        NodeQuestion.Drain => Of(drain.Begin()),
        NodeQuestion.StopDrain => Of(drain.Stop()),
        NodeQuestion.RebalanceStatus => Of(Rebalance(null)),
        NodeQuestion.Rebalance => Of(Rebalance(true)),
        NodeQuestion.StopRebalance => Of(Rebalance(false)),
        _ => throw new ControlException("the agent there does not know this request: is it older than the command?", ExitCodes.Refused),
    };

    private RebalanceStatus Rebalance(bool? on)
    {
        if (on is { } set) mover.SetRebalancing(set);
        return new RebalanceStatus(mover.IsRebalancing || mover.UnderWayCount > 0, mover.MovedExtents * ExtentNumber.Bytes);
    }

    private static byte[] Of(DrainStatus status) => JsonSerializer.SerializeToUtf8Bytes(status, ControlJson.Default.DrainStatus);

    private static byte[] Of(RebalanceStatus status) => JsonSerializer.SerializeToUtf8Bytes(status, ControlJson.Default.RebalanceStatus);
}
