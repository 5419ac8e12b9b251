// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent.Cli;
using VSmp.Agent.Control;
using VSmp.Bench.Running;

namespace VSmp.Bench.Fault;

/// <summary>
/// Reads what the agents of a cluster on this host count: the <c>fabric</c> of <c>vsmp status --json</c>, from every agent.
/// </summary>
internal sealed class AgentCounters : IDisposable
{
    private const int SettleMilliseconds = 100, SettleTimeoutMilliseconds = 30_000;

    private readonly List<ControlClient> _agents = [];

    /// <summary>Connects to all of them.</summary>
    public AgentCounters(BenchCluster cluster)
    {
        RunDirectory directory = RunDirectory.OfCurrentUser(cluster.Name);
        foreach (string node in cluster.Nodes) _agents.Add(ControlClient.Connect(directory.Agent(node)));
    }

    /// <summary>All nodes together, once no frame of coherence has been sent for a while, and all have arrived.</summary>
    /// <exception cref="BenchException">The agents do not come to rest.</exception>
    public FabricStatistics WhenQuiet()
    {
        FabricStatistics last = Read();
        for (long deadline = Environment.TickCount64 + SettleTimeoutMilliseconds; Environment.TickCount64 < deadline;)
        {
            Thread.Sleep(SettleMilliseconds);
            FabricStatistics now = Read();
            bool haveArrived = now.CoherenceFramesSent == now.CoherenceFramesReceived;
            if (haveArrived && now.CoherenceFramesSent == last.CoherenceFramesSent) return now;
            last = now;
        }
        throw new BenchException($"the agents have not come to rest within {SettleTimeoutMilliseconds / 1000} s");
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        foreach (ControlClient agent in _agents) agent.Dispose();
    }

    private FabricStatistics Read() => _agents.Select(agent => agent.GetStatus().Fabric).Aggregate((sum, node) => sum.Plus(node));
}
