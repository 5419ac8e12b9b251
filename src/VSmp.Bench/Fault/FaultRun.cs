// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent.Control;
using VSmp.Bench.Running;

namespace VSmp.Bench.Fault;

/// <summary>Has pages make transitions, and reads the agents' counters before and after each kind.</summary>
internal sealed class FaultRun
{
    private readonly int _agents, _pages;
    private readonly bool _isTimed;
    private readonly Transition[] _transitions;
    private readonly PlanRun _plans;

    /// <summary>Of all transitions that there are nodes for.</summary>
    /// <param name="agents">Agents, with a rank each.</param>
    /// <param name="pages">Pages that make each transition.</param>
    /// <param name="above">Only of those that need more nodes than so many: counts alone, since then agents take processors from each other.</param>
    public FaultRun(int agents, int pages, int above = 0)
    {
        _agents = agents;
        _pages = pages;
        _isTimed = above == 0;
        _transitions = [.. Transition.All.Where(transition => transition.Nodes > above && transition.Nodes <= agents)];
        _plans = new PlanRun(agents, pages, [.. _transitions.Select(transition => transition.Plan)]);
    }

    /// <inheritdoc cref="PlanRun.Memory"/>
    public string Memory => _plans.Memory;

    /// <summary>Runs all transitions.</summary>
    /// <exception cref="BenchException">It could not be done.</exception>
    public FaultReport Run(BenchCluster cluster)
    {
        string[] nodes = [.. cluster.Nodes.Take(_agents)];
        List<TransitionResult> results = [];
        FabricStatistics? before = null;
        using AgentCounters counters = new(cluster.Name, nodes);
        counters.RequireEvenMemory(nodes);
        _plans.Run(cluster, () => before = counters.WhenQuiet(), nanoseconds => results.Add(
            new TransitionResult(_transitions[results.Count], _pages, _isTimed ? nanoseconds : null, before is null ? null : counters.WhenQuiet()?.Since(before))));
        return new FaultReport(Machine.Here(), counters.Transport, _agents, _pages, counters.Elsewhere, Crowd: null, results);
    }
}
