// SPDX-License-Identifier: Apache-2.0
using System.Globalization;
using VSmp.Agent.Cli;
using VSmp.Agent.Control;
using VSmp.Bench.Running;
using VSmp.Coherence;
using VSmp.Coherence.Protocols;

namespace VSmp.Bench.Fault;

/// <summary>Has the ranks of <c>vsmp-fault</c> make transitions, and reads the agents' counters before and after each kind.</summary>
/// <param name="agents">Agents, with a rank each.</param>
/// <param name="pages">Pages that make each transition.</param>
internal sealed class FaultRun(int agents, int pages)
{
    private readonly Transition[] _transitions = [.. Transition.All.Where(transition => transition.Nodes <= agents)];
    private readonly List<TransitionResult> _results = [];
    private FabricStatistics? _before;

    /// <summary>What each agent has to contribute: the homes' pages, and as much again for copies.</summary>
    public string Memory
    {
        get
        {
            long extents = (long)_transitions.Length * ((pages + ExtentNumber.Pages - 1) / ExtentNumber.Pages);
            return string.Create(CultureInfo.InvariantCulture, $"{(2 * extents * ExtentNumber.Bytes >> 20) + 32}M");
        }
    }

    /// <summary>Runs all transitions that there are nodes for.</summary>
    /// <exception cref="BenchException">It could not be done.</exception>
    public FaultReport Run(BenchCluster cluster)
    {
        string[] nodes = [.. cluster.Nodes.Take(agents)];
        try
        {
            using AgentCounters counters = new(cluster.Name, nodes);
            counters.RequireEvenMemory(nodes);
            List<string> program = [BenchCluster.FindProgram("vsmp-fault"), pages.ToString(CultureInfo.InvariantCulture)];
            program.AddRange(_transitions.Select(transition => transition.Plan));
            (int exitCode, string error) = cluster.RunRanks(agents, nodes, Msi.Protocol.Name, local: null, program, line =>
            {
                OnLine(line, counters);
                cluster.Tell("go");
            }, hasInput: true);
            if (exitCode != 0) throw new BenchException($"the ranks ended with exit code {exitCode}: {error}");
            return new FaultReport(counters.Transport, agents, pages, counters.Elsewhere, _results);
        }
        catch (CommandException e)
        {
            throw new BenchException(e.Message);
        }
    }

    /// <summary>Rank 0 waits to be told to go on, and the others for rank 0.</summary>
    private void OnLine(string line, AgentCounters counters)
    {
        if (line == "begin")
        {
            _before = counters.WhenQuiet();
            return;
        }
        long[] nanoseconds = [.. line.Split(' ').Skip(1).Select(word => long.Parse(word, CultureInfo.InvariantCulture))];
        _results.Add(new TransitionResult(_transitions[_results.Count], nanoseconds, Growth(counters.WhenQuiet())));
    }

    private FabricStatistics? Growth(FabricStatistics? now) => _before is null ? null : now?.Since(_before);
}
