// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent.Cli;
using VSmp.Agent.Control;
using VSmp.Bench.Running;

namespace VSmp.Bench.Fault;

/// <summary>
/// Reads what the agents of a cluster count: the <c>fabric</c> of <c>vsmp status --json</c>, from every agent. Agents on other hosts
/// cannot be asked from here; then nothing is counted, since what a fault costs is known from all nodes together only.
/// </summary>
internal sealed class AgentCounters : IDisposable
{
    private const int SettleMilliseconds = 100, SettleTimeoutMilliseconds = 30_000, EvenTimeoutMilliseconds = 10_000;

    private readonly List<ControlClient> _agents = [];

    /// <summary>Connects to those of the nodes' agents that run on this host.</summary>
    /// <param name="cluster">The cluster's name.</param>
    /// <param name="nodes">The nodes' names.</param>
    /// <exception cref="BenchException">None does.</exception>
    /// <exception cref="CommandException">One may not be asked.</exception>
    public AgentCounters(string cluster, IReadOnlyList<string> nodes)
    {
        Dictionary<string, AgentFolder> running = LocalAgents.Running(cluster).ToDictionary(agent => agent.Name);
        Elsewhere = [.. nodes.Where(node => !running.ContainsKey(node))];
        foreach (string node in nodes.Except(Elsewhere)) _agents.Add(ControlClient.Connect(running[node]));
        if (_agents.Count == 0) throw new BenchException($"{string.Join(", ", nodes)}: one of these must run on this host");
    }

    /// <summary>The nodes whose agents run on other hosts. If there are any, nothing is counted.</summary>
    public IReadOnlyList<string> Elsewhere { get; }

    /// <summary>What carries frames between the agents.</summary>
    public string Transport => _agents[0].GetStatus().Fabric.Transport;

    /// <summary>
    /// Waits until all nodes have as much free memory as each other, which makes the homes of a region go round them: agents tell each
    /// other some time after a program has ended.
    /// </summary>
    /// <param name="nodes">The nodes' names.</param>
    /// <exception cref="BenchException">They have not.</exception>
    public void RequireEvenMemory(IReadOnlyList<string> nodes)
    {
        for (long deadline = Environment.TickCount64 + EvenTimeoutMilliseconds; ; Thread.Sleep(SettleMilliseconds))
        {
            NodeStatus[][] views = [.. _agents.Select(agent => agent.GetStatus().Nodes.Where(node => nodes.Contains(node.Name)).ToArray())];
            if (views.SelectMany(view => view).Select(node => node.FreeBytes).Distinct().Count() == 1) return;
            if (Environment.TickCount64 < deadline) continue;
            string free = string.Join(", ", views[0].Select(node => $"{node.Name} has {node.FreeBytes >> 20} MiB"));
            throw new BenchException($"nodes need as much free memory each, so that homes go round them: {free}");
        }
    }

    /// <summary>
    /// All nodes together, once no frame of coherence has been sent for a while, and all have arrived; null if some cannot be asked.
    /// </summary>
    /// <exception cref="BenchException">The agents do not come to rest.</exception>
    public FabricStatistics? WhenQuiet()
    {
        FabricStatistics last = Read();
        for (long deadline = Environment.TickCount64 + SettleTimeoutMilliseconds; Environment.TickCount64 < deadline;)
        {
            Thread.Sleep(SettleMilliseconds);
            FabricStatistics now = Read();
            bool isQuiet = now.CoherenceFramesSent == last.CoherenceFramesSent && now.CoherenceFramesReceived == last.CoherenceFramesReceived;
            if (isQuiet && Elsewhere.Count > 0) return null;
            if (isQuiet && now.CoherenceFramesSent == now.CoherenceFramesReceived) return now;
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
