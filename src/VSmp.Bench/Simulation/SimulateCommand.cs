// SPDX-License-Identifier: Apache-2.0
using System.CommandLine;
using System.Diagnostics;
using System.Globalization;
using VSmp.Agent.Fabric;
using VSmp.Coherence;
using VSmp.Coherence.Protocols;

namespace VSmp.Bench.Simulation;

/// <summary><c>vsmp-bench simulate</c>: clusters from seeds, with faults.</summary>
internal static class SimulateCommand
{
    private const int TraceLines = 200;

    /// <summary>The command.</summary>
    public static Command New()
    {
        Option<int> seeds = new("--seeds") { Description = "How many clusters to simulate", HelpName = "N", DefaultValueFactory = _ => 1000 };
        Option<int> first = new("--first") { Description = "The first seed", HelpName = "S", DefaultValueFactory = _ => 0 };
        Option<string?> protocol = new("--protocol") { Description = "Only this protocol (default: all, in turn)", HelpName = "P" };
        protocol.CompletionSources.Add([.. ProtocolCatalog.All.Select(p => p.Name)]);
        Option<int?> nodes = new("--nodes") { Description = "So many nodes in each (default: 2 to 64, by seed)", HelpName = "N" };
        Option<bool> trace = new("--trace") { Description = "Print everything that happens" };
        seeds.Validators.Add(r => Require(r, "--seeds", 1, int.MaxValue));
        nodes.Validators.Add(r => Require(r, "--nodes", 2, 1024));
        protocol.Validators.Add(r =>
        {
            if (r.Tokens.Count > 0 && ProtocolCatalog.Find(r.Tokens[0].Value) is null)
                r.AddError($"--protocol: there is no protocol {r.Tokens[0].Value}; there are {string.Join(", ", ProtocolCatalog.All.Select(p => p.Name))}");
        });
        Command command = new("simulate", "Run simulated clusters on a network that errs; half of them lose nodes, and in half of these agents are killed and started again. A seed gives the same run, to the byte.");
        foreach (Option option in new Option[] { seeds, first, protocol, nodes, trace }) command.Options.Add(option);
        command.SetAction(parsed => Run(parsed.GetValue(first), parsed.GetValue(seeds), parsed.GetValue(protocol), parsed.GetValue(nodes),
            parsed.GetValue(trace)));
        return command;
    }

    /// <summary>One cluster, or what is wrong with it.</summary>
    /// <param name="options">The seed, and what is not left to it.</param>
    /// <param name="chunks">Memory for its sessions, used again from cluster to cluster; its own if null.</param>
    public static SimulationOutcome Simulate(SimulationOptions options, ChunkPool? chunks = null)
    {
        using var cluster = new SimulatedCluster(options, chunks);
        try
        {
            return new SimulationOutcome(cluster.Run(), null, cluster.Now, cluster.TraceLines);
        }
        catch (Exception e) when (e is SimulationException or ProtocolViolationException or InvalidOperationException or KeyNotFoundException
            or OverflowException or NullReferenceException or IndexOutOfRangeException or ArgumentException or InvalidDataException)
        {
            return new SimulationOutcome(null, e.Message, cluster.Now, cluster.TraceLines);
        }
    }

    private static void Require(System.CommandLine.Parsing.OptionResult result, string name, int least, int most)
    {
        if (result.Tokens.Count > 0 && int.TryParse(result.Tokens[0].Value, CultureInfo.InvariantCulture, out int value) && (value < least || value > most))
            result.AddError($"{name}: {value} is not from {least} to {most}");
    }

    private static int Run(int first, int count, string? name, int? nodes, bool traces)
    {
        Protocol[] protocols = name is null ? [.. ProtocolCatalog.All] : [ProtocolCatalog.Find(name)!];
        var watch = Stopwatch.StartNew();
        var total = new Total(count, watch);
        var failing = new Lock();
        int failed = int.MaxValue; // the first in the order of seeds, whatever the order in which they are tried
        // A cluster is of one thread; several of them have nothing in common.
        var parallel = new ParallelOptions { MaxDegreeOfParallelism = traces ? 1 : Environment.ProcessorCount };
        Parallel.For(0, count, parallel, static () => new ChunkPool(), (i, state, chunks) =>
        {
            SimulationOutcome outcome = Simulate(OptionsOf(i) with { Traces = traces }, chunks);
            foreach (string line in traces ? outcome.Trace : []) Console.WriteLine(line);
            if (outcome.Result is { } result)
            {
                total.Add(result);
                return chunks;
            }
            state.Break();
            lock (failing) failed = Math.Min(failed, i);
            return chunks;
        }, static chunks => chunks.Dispose());
        if (failed != int.MaxValue) return Report(failed);
        Console.WriteLine($"{count} seeds from {first}, {string.Join(", ", protocols.Select(p => p.Name))}: all right\n{total}");
        return 0;

        SimulationOptions OptionsOf(int i)
        {
            int seed = unchecked(first + i);
            // The protocol, and whether nodes are lost, follow from the seed, so that a seed alone says everything.
            return SimulationOptions.OfSeed(protocols, seed) with { Nodes = nodes };
        }

        int Report(int i)
        {
            SimulationOptions options = OptionsOf(i);
            SimulationOutcome outcome = Simulate(options with { Traces = true });
            foreach (string line in traces ? [] : outcome.Trace.TakeLast(TraceLines)) Console.WriteLine(line);
            Console.WriteLine($"seed {options.Seed}, {options.Protocol.Name}: {outcome.Failure}");
            Console.WriteLine($"again, in full: vsmp-bench simulate --first {options.Seed} --seeds 1 --trace"
                + (name is null ? "" : $" --protocol {name}") + (nodes is null ? "" : $" --nodes {nodes}"));
            return 1;
        }
    }

    /// <summary>What all seeds came to so far; long work is seen at work.</summary>
    private sealed class Total(int count, Stopwatch watch)
    {
        private long _ticks, _accesses, _frames, _reconnects, _evictions, _fenced, _lastSaid, _nodesLost, _agentsKilled, _recoveries, _pagesLost;
        private readonly Lock _lock = new();
        private int _seeds;

        public void Add(SimulationResult result)
        {
            lock (_lock)
            {
                _seeds++;
                _ticks += result.Ticks;
                _accesses += result.Accesses;
                _frames += result.Frames;
                _reconnects += result.Reconnects;
                _evictions += result.Evictions;
                _fenced += result.Fenced;
                _nodesLost += result.NodesLost;
                _recoveries += result.Recoveries;
                _agentsKilled += result.AgentsKilled;
                _pagesLost += result.PagesLost;
                if (watch.ElapsedMilliseconds - _lastSaid < 10_000) return;
                _lastSaid = watch.ElapsedMilliseconds;
                Console.Error.WriteLine($"{_seeds} of {count} seeds");
            }
        }

        public override string ToString()
        {
            double seconds = watch.Elapsed.TotalSeconds;
            FormattableString speed = $"{_seeds / seconds:F1} seeds/s; {_ticks / 1e6 / seconds:F3} simulated seconds per second; ";
            FormattableString work = $"{_accesses:N0} accesses, {_frames:N0} frames, {_reconnects:N0} broken connections, ";
            FormattableString rest = $"{_evictions:N0} evictions, {_fenced:N0} frames of another epoch refused; ";
            FormattableString losses = $"{_nodesLost:N0} nodes lost, {_agentsKilled:N0} agents killed, {_recoveries:N0} recoveries, {_pagesLost:N0} pages lost that nobody had a second copy of";
            return string.Concat(((FormattableString[])[speed, work, rest, losses]).Select(FormattableString.Invariant));
        }
    }
}
