// SPDX-License-Identifier: Apache-2.0
using System.Diagnostics;
using System.Globalization;
using VSmp.Agent.Control;
using VSmp.Bench.Fault;
using VSmp.Bench.Running;
using VSmp.Coherence;

namespace VSmp.Bench.Agents;

/// <summary>Watches two agents: at their start, serving each kind of fault, with a large region, with ranks that rest, and at rest.</summary>
/// <param name="idleSeconds">How long they are watched at rest.</param>
/// <param name="pages">Pages of each kind of fault.</param>
internal sealed class AgentRun(int idleSeconds, int pages)
{
    private const int Ranks = 2;

    /// <summary>Pages of the large region: 1 GiB.</summary>
    private const int LargePages = 1 << 18;

    /// <summary>What was begun when the last fault was answered has ended by then: acknowledgements, reports.</summary>
    private const int SettleMilliseconds = 300;

    /// <summary>What the ranks' start has made the runtime compile is compiled by then.</summary>
    private const int RestMilliseconds = 3000;

    private const double TargetIdlePercent = 0.5, TargetMebibytes = 120, TargetEntryBytes = 16, TargetUntouchedBytes = 8;

    /// <summary>One fault and no more. The first step has all ranks there before the last.</summary>
    private static readonly FaultKind Rest = new("rest", "1:r1r0");
    private static readonly FaultKind LargeTouch = new("first touch of a large region", "0:w0>");

    private readonly List<AgentFigure> _figures = [];

    /// <summary>What each agent has to contribute: every run's homes, and copies, for one run at a time.</summary>
    public string Memory => string.Create(CultureInfo.InvariantCulture, $"{Math.Max(Mebibytes(FaultKind.All.Count(kind => kind.Local is null), pages), Mebibytes(1, LargePages))}M");

    /// <summary>Measures.</summary>
    /// <param name="cluster">Two agents that have just been started.</param>
    /// <exception cref="BenchException">Something could not be measured.</exception>
    public IReadOnlyList<AgentFigure> Run(BenchCluster cluster)
    {
        AgentProcess[] agents = AgentProcess.Of(cluster);
        try
        {
            Run(cluster, agents);
            return _figures;
        }
        finally
        {
            foreach (AgentProcess agent in agents) agent.Dispose();
        }
    }

    private static long Mebibytes(int plans, int pagesEach) =>
        (2L * plans * ((pagesEach + ExtentNumber.Pages - 1) / ExtentNumber.Pages) * ExtentNumber.Bytes >> 20) + 64;

    private void Run(BenchCluster cluster, AgentProcess[] agents)
    {
        AllocationMeter meter = new(() => Read(agents), () => Stopwatch.GetTimestamp() / (double)Stopwatch.Frequency);
        double atStart = Resident(agents);
        Dictionary<FaultKind, Allocation> allocations = [];
        foreach (IGrouping<string?, FaultKind> kinds in FaultKind.All.GroupBy(kind => kind.Local)) Measure(cluster, meter, kinds, allocations);
        Allocation large = MeasureLarge(cluster, meter);
        Thread.Sleep(SettleMilliseconds);
        double afterwards = Resident(agents);
        // By now what agents run has been compiled for good; that takes a core for a fraction of a second, in the first seconds after a start.
        (double withRank, Allocation idle, Allocation word) = WatchWithRanks(cluster, agents, meter);
        Thread.Sleep(SettleMilliseconds);

        Add("processor of an idle agent", "% of a core", WatchIdle(agents), TargetIdlePercent, 2);
        Add("processor of an agent with an idle rank", "% of a core", withRank, TargetIdlePercent, 2);
        Add("memory of an agent after its start", "MiB", atStart, TargetMebibytes, 1);
        Add("memory of an agent after all that follows", "MiB", afterwards, TargetMebibytes, 1);
        foreach (FaultKind kind in FaultKind.All)
        {
            Add($"managed memory for a fault: {kind.Name}", "bytes", allocations[kind].BytesForEach(kind.IsOfPages ? pages : allocations[kind].Faults, idle, word), kind.TargetBytes, 0);
        }
        (double untouchedExtent, double touchedPage) = DirectorySize.Measure();
        Add("directory entry", "bytes", DirectorySize.EntryBytes, TargetEntryBytes, 0);
        Add("directory, for each page of extents in use", "bytes", touchedPage, TargetEntryBytes, 1);
        Add("directory, for each extent of which no page was ever asked for", "bytes", untouchedExtent, TargetUntouchedBytes, 1);
        Add("growth of an agent, for each page of 1 GiB touched", "bytes", large.BytesForEach(LargePages, idle, word), TargetEntryBytes, 0);
        Add("state of a page at a node whose guests may use it, touched or not", "bytes", DirectorySize.PageStateBytes, null, 0);
    }

    private static (double Bytes, double Faults) Read(AgentProcess[] agents)
    {
        AgentStatistics[] all = [.. agents.Select(agent => agent.Statistics)];
        return (all.Sum(agent => (double)agent.ReactorAllocatedBytes), all.Sum(agent => (double)agent.Faults));
    }

    private static double Resident(AgentProcess[] agents) => agents.Max(agent => agent.ResidentKibibytes) / 1024.0;

    private (double Percent, Allocation Idle, Allocation Word) WatchWithRanks(BenchCluster cluster, AgentProcess[] agents, AllocationMeter meter)
    {
        double percent = 0;
        Allocation idle = default, word = default;
        // The first word that ranks are brought is not like the others.
        int left = 2;
        RunKinds(cluster, pagesEach: 1, local: null, [.. Enumerable.Repeat(Rest, left)], _ =>
        {
            Thread.Sleep(SettleMilliseconds);
            meter.Begin();
        }, _ =>
        {
            Thread.Sleep(SettleMilliseconds);
            word = meter.End();
            if (--left > 0) return;
            Thread.Sleep(RestMilliseconds);
            meter.Begin();
            percent = WatchIdle(agents);
            idle = meter.End();
        });
        return (percent, idle, word);
    }

    /// <returns>The share of a processor that the busiest of them takes, in percent.</returns>
    private double WatchIdle(AgentProcess[] agents)
    {
        long[] before = [.. agents.Select(agent => agent.ProcessorMicroseconds)];
        long start = Stopwatch.GetTimestamp();
        Thread.Sleep(TimeSpan.FromSeconds(idleSeconds));
        double microseconds = Stopwatch.GetElapsedTime(start).TotalMicroseconds;
        return agents.Select((agent, i) => 100 * (agent.ProcessorMicroseconds - before[i]) / microseconds).Max();
    }

    private void Measure(BenchCluster cluster, AllocationMeter meter, IGrouping<string?, FaultKind> kinds, Dictionary<FaultKind, Allocation> allocations) =>
        RunKinds(cluster, pages, kinds.Key, [.. kinds], _ =>
        {
            Thread.Sleep(SettleMilliseconds);
            meter.Begin();
        }, kind =>
        {
            Thread.Sleep(SettleMilliseconds);
            Allocation allocation = meter.End();
            if (allocation.Faults == 0) throw new BenchException($"{kind.Name}: no fault was served");
            allocations.Add(kind, allocation);
        });

    private static Allocation MeasureLarge(BenchCluster cluster, AllocationMeter meter)
    {
        Allocation allocation = default;
        RunKinds(cluster, LargePages, local: null, [LargeTouch], _ =>
        {
            Thread.Sleep(SettleMilliseconds);
            meter.Begin();
        }, _ =>
        {
            Thread.Sleep(SettleMilliseconds);
            allocation = meter.End();
        });
        return allocation;
    }

    private static void RunKinds(BenchCluster cluster, int pagesEach, string? local, FaultKind[] kinds, Action<FaultKind> onBegin, Action<FaultKind> onEnd)
    {
        string[] nodes = [.. cluster.Nodes.Take(Ranks)];
        using (AgentCounters counters = new(cluster.Name, nodes)) counters.RequireEvenMemory(nodes);
        int done = 0;
        new PlanRun(Ranks, pagesEach, [.. kinds.Select(kind => kind.Plan)], local).Run(cluster, () => onBegin(kinds[done]), _ => onEnd(kinds[done++]));
    }

    private void Add(string name, string unit, double value, double? target, int decimals) => _figures.Add(new AgentFigure(name, unit, value, target, decimals));
}
