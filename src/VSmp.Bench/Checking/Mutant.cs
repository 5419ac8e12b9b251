// SPDX-License-Identifier: Apache-2.0
using System.Diagnostics;
using System.Globalization;
using VSmp.Agent.Fabric;
using VSmp.Bench.Simulation;
using VSmp.Coherence.Protocols;

namespace VSmp.Bench.Checking;

/// <summary>What looks for a planted bug.</summary>
internal enum Finder
{
    /// <summary>The exhaustive search of a protocol.</summary>
    Checker,
    /// <summary>The exhaustive search of lazy release.</summary>
    LazySearch,
    /// <summary>Simulated clusters, seed after seed.</summary>
    Simulator,
}

/// <summary>A bug that was planted, to see whether it is found by what it leads to.</summary>
/// <param name="Name">What is wrong.</param>
/// <param name="Where">The place: a cell of a table and what stands there now, or whose habit it is.</param>
/// <param name="Finder">What looks for it.</param>
internal abstract record Mutant(string Name, string Where, Finder Finder)
{
    /// <summary>The protocol that it is planted in; "all" if it is in what all of them stand on.</summary>
    public abstract string ProtocolName { get; }

    /// <summary>Looks for it.</summary>
    /// <param name="threads">Threads to search with, where that helps.</param>
    public abstract MutantResult Seek(int threads);
}

/// <summary>What became of a mutant.</summary>
/// <param name="FoundAs">What broke; null if nothing did.</param>
/// <param name="Tried">States that were searched, or seeds that were simulated.</param>
/// <param name="Depth">How far from the start it broke: moves, or microseconds of virtual time.</param>
/// <param name="Elapsed">Time taken.</param>
/// <param name="Tell">The way there, a line or a few per step.</param>
internal sealed record MutantResult(string? FoundAs, long Tried, long Depth, TimeSpan Elapsed, Func<IReadOnlyList<string>> Tell)
{
    /// <summary>Whether the bug was found.</summary>
    public bool IsFound => FoundAs is not null;
}

/// <summary>One wrong cell.</summary>
internal sealed record TableMutant(string Name, string Where, Protocol Protocol) : Mutant(Name, Where, Finder.Checker)
{
    /// <inheritdoc/>
    public override string ProtocolName => Protocol.Name;

    /// <summary>Plants a bug in the node's side of a protocol.</summary>
    public static TableMutant OfNode(Protocol of, string name, NodeState state, NodeEvent @event, NodeState next, NodeAction[] actions) =>
        new(name, Describe(state, @event, next, actions),
            new Protocol(of.Name, of.Node.With(state, @event, next, actions), of.Directory));

    /// <summary>Plants a bug in the home's side of a protocol.</summary>
    public static TableMutant OfHome(Protocol of, string name, DirectoryState state, DirectoryEvent @event, DirectoryState next,
        DirectoryAction[] actions) =>
        new(name, $"home: {Describe(state, @event, next, actions)}",
            new Protocol(of.Name, of.Node, of.Directory.With(state, @event, next, actions)));

    /// <inheritdoc/>
    public override MutantResult Seek(int threads) => Finder == Finder.Simulator
        ? Simulate(SimulatedMutant.MaxSeeds)
        : CheckedMutant.Search(Name, Protocol, WorldBugs.None, threads);

    /// <summary>Looks for it with the simulator, whatever finds it soonest.</summary>
    public MutantResult Simulate(int maxSeeds) => SimulatedMutant.Search([Protocol], SimulationBugs.None, maxSeeds);

    private static string Describe<TState, TEvent, TAction>(TState state, TEvent @event, TState next, TAction[] actions) =>
        $"{state} × {@event}: {string.Join(", ", actions)}{(actions.Length > 0 ? " " : "")}→ {next}";
}

/// <summary>A bug in what stands between a protocol and the world, found by the checker.</summary>
internal sealed record CheckedMutant(string Name, string Where, Protocol Protocol, WorldBugs Bugs)
    : Mutant(Name, Where, Finder.Checker)
{
    /// <summary>States searched for one mutant at most, in each scenario.</summary>
    private const int MaxStates = 3_000_000;

    /// <inheritdoc/>
    public override string ProtocolName => "all";

    /// <inheritdoc/>
    public override MutantResult Seek(int threads) => Search(Name, Protocol, Bugs, threads);

    /// <summary>Searches in small bounds first.</summary>
    public static MutantResult Search(string name, Protocol protocol, WorldBugs bugs, int threads) =>
        Search(name, Scenarios(protocol), bugs, threads);

    /// <summary>Searches one scenario after the other.</summary>
    public static MutantResult Search(string name, IEnumerable<Scenario> scenarios, WorldBugs bugs, int threads)
    {
        var watch = Stopwatch.StartNew();
        long states = 0;
        foreach (Scenario bounds in scenarios)
        {
            Scenario scenario = bounds with { Planted = new Planted(name, bugs) };
            CheckResult result = ModelChecker.Run(scenario, MaxStates, threads);
            states += result.States;
            if (result.Violation is not { } found) continue;
            return new MutantResult(found.What, states, found.Path.Count, watch.Elapsed, () => Replay.Tell(scenario, found));
        }
        return new MutantResult(null, states, 0, watch.Elapsed, () => []);
    }

    private static IEnumerable<Scenario> Scenarios(Protocol protocol) =>
    [
        new Scenario(protocol, Nodes: 2, Pages: 1, Outstanding: 2),
        new Scenario(protocol, Nodes: 2, Pages: 1, Outstanding: 1, Mappings: 2),
        new Scenario(protocol, Nodes: 2, Pages: 1, Outstanding: 2) { IsPrivate = true },
        new Scenario(protocol, Nodes: 3, Pages: 1, Outstanding: 1) { Holds = false, Refusals = false },
        new Scenario(protocol, Nodes: 2, Pages: 2, Outstanding: 1) { AsksAhead = true, Holds = false, Refusals = false },
    ];
}

/// <summary>A bug of lazy release.</summary>
internal sealed record LazyMutant(string Name, string Where, LazyBug Bug) : Mutant(Name, Where, Finder.LazySearch)
{
    /// <inheritdoc/>
    public override string ProtocolName => LazySearch.Name;

    /// <inheritdoc/>
    public override MutantResult Seek(int threads)
    {
        var watch = Stopwatch.StartNew();
        long states = 0;
        foreach (LazyBounds bounds in (LazyBounds[])[new(2, 2, 1, 2), new(3, 2, 2, 1), new(2, 3, 1, 1), new(2, 2, 2, 2)])
        {
            LazySearchResult result = LazySearch.Run(bounds, Bug);
            states += result.States;
            if (result.Violation is not { } lines) continue;
            return new MutantResult(lines[^1], states, lines.Count - 1, watch.Elapsed, () => lines);
        }
        return new MutantResult(null, states, 0, watch.Elapsed, () => []);
    }
}

/// <summary>A bug in what only the simulator has: sessions, time, views, budgets.</summary>
internal sealed record SimulatedMutant(string Name, string Where, IReadOnlyList<Protocol> Protocols, SimulationBugs Bugs)
    : Mutant(Name, Where, Finder.Simulator)
{
    /// <summary>Seeds tried for one mutant at most.</summary>
    public const int MaxSeeds = 1000;

    private const int ToldLines = 100;

    /// <summary>Whether it shows only where nodes are lost.</summary>
    public bool Losses { get; init; }

    /// <inheritdoc/>
    public override string ProtocolName => "all";

    /// <inheritdoc/>
    public override MutantResult Seek(int threads) => Search(Protocols, Bugs, MaxSeeds, Losses);

    /// <summary>Simulates until something breaks.</summary>
    public static MutantResult Search(IReadOnlyList<Protocol> protocols, SimulationBugs bugs, int maxSeeds, bool losses = false)
    {
        var watch = Stopwatch.StartNew();
        using var chunks = new ChunkPool();
        for (int seed = 0; seed < maxSeeds; seed++)
        {
            Protocol protocol = protocols[seed % protocols.Count];
            SimulationOptions options = (losses ? SimulationOptions.WithLosses(protocol, seed) : new SimulationOptions(protocol, seed)) with { Planted = bugs };
            SimulationOutcome outcome = SimulateCommand.Simulate(options, chunks);
            if (outcome.Failure is not { } failure) continue;
            return new MutantResult(failure, seed + 1, outcome.Ticks, watch.Elapsed, () => Tell(options));
        }
        return new MutantResult(null, maxSeeds, 0, watch.Elapsed, () => []);
    }

    private static IReadOnlyList<string> Tell(SimulationOptions options)
    {
        SimulationOutcome outcome = SimulateCommand.Simulate(options with { Traces = true });
        FormattableString last = $"  !  seed {options.Seed}, after {outcome.Ticks} µs: {outcome.Failure}";
        return [.. outcome.Trace.TakeLast(ToldLines), last.ToString(CultureInfo.InvariantCulture)];
    }
}
