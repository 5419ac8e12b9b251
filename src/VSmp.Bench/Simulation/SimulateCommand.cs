// SPDX-License-Identifier: Apache-2.0
using System.CommandLine;
using System.Diagnostics;
using System.Globalization;
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
        Command command = new("simulate", "Run simulated clusters on a network that errs. A seed gives the same run, to the byte.");
        foreach (Option option in new Option[] { seeds, first, protocol, nodes, trace }) command.Options.Add(option);
        command.SetAction(parsed => Run(parsed.GetValue(first), parsed.GetValue(seeds), parsed.GetValue(protocol), parsed.GetValue(nodes),
            parsed.GetValue(trace)));
        return command;
    }

    /// <summary>One cluster, or what is wrong with it.</summary>
    /// <returns>The result, or null and why not.</returns>
    public static (SimulationResult? Result, string? Failure, IReadOnlyList<string> Trace) Simulate(SimulationOptions options)
    {
        using var cluster = new SimulatedCluster(options);
        try
        {
            return (cluster.Run(), null, cluster.TraceLines);
        }
        catch (Exception e) when (e is SimulationException or ProtocolViolationException or InvalidOperationException or KeyNotFoundException)
        {
            return (null, e.Message, cluster.TraceLines);
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
        long ticks = 0, accesses = 0, frames = 0, reconnects = 0, evictions = 0, fenced = 0, lastSaid = 0;
        for (int i = 0; i < count; i++)
        {
            int seed = unchecked(first + i);
            // The protocol follows from the seed, so that a seed alone says everything.
            Protocol protocol = protocols[(int)((uint)seed % protocols.Length)];
            var options = new SimulationOptions(protocol, seed) { Nodes = nodes, Traces = traces };
            (SimulationResult? result, string? failure, IReadOnlyList<string> trace) = Simulate(options);
            if (traces)
            {
                foreach (string line in trace) Console.WriteLine(line);
            }
            if (result is null)
            {
                if (!traces)
                {
                    trace = Simulate(options with { Traces = true }).Trace;
                    foreach (string line in trace.TakeLast(TraceLines)) Console.WriteLine(line);
                }
                Console.WriteLine($"seed {seed}, {protocol.Name}: {failure}");
                Console.WriteLine($"again, in full: vsmp-bench simulate --first {seed} --seeds 1 --trace"
                    + (name is null ? "" : $" --protocol {name}") + (nodes is null ? "" : $" --nodes {nodes}"));
                return 1;
            }
            ticks += result.Ticks;
            accesses += result.Accesses;
            frames += result.Frames;
            reconnects += result.Reconnects;
            evictions += result.Evictions;
            fenced += result.Fenced;
            if (watch.ElapsedMilliseconds - lastSaid < 10_000) continue;
            lastSaid = watch.ElapsedMilliseconds;
            Console.Error.WriteLine($"{i + 1} of {count} seeds");
        }
        double seconds = watch.Elapsed.TotalSeconds;
        Console.WriteLine(string.Create(CultureInfo.InvariantCulture,
            $"{count} seeds from {first}, {string.Join(", ", protocols.Select(p => p.Name))}: all right\n"
            + $"{count / seconds:F1} seeds/s; {ticks / 1e6 / seconds:F3} simulated seconds per second; {accesses:N0} accesses, {frames:N0} frames, "
            + $"{reconnects:N0} broken connections, {evictions:N0} evictions, {fenced:N0} frames of another epoch refused"));
        return 0;
    }
}
