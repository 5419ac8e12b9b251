// SPDX-License-Identifier: Apache-2.0
using System.Diagnostics;
using System.Globalization;
using VSmp.Agent.Checkpointing;
using VSmp.Agent.Control;
using VSmp.Bench.Running;

namespace VSmp.Bench.Checkpoints;

/// <summary>Runs a program of a fixed amount of computing under <c>--ha</c>, and kills nodes that its job is on, at moments that are exponentially distributed.</summary>
/// <param name="cluster">A cluster of <see cref="Agents"/>, with a folder for checkpoints. The first node founded it, and neither has ranks nor is killed.</param>
/// <param name="mtbfSeconds">Mean time between failures.</param>
/// <param name="seed">What moments and victims follow from.</param>
internal sealed class WasteRun(BenchCluster cluster, double mtbfSeconds, ulong seed)
{
    /// <summary>How many agents there have to be: there is always one more than the ranks need.</summary>
    public const int Agents = 4;

    private const int Ranks = 2, Mebibytes = 128, Percent = 100, Units = 40_000, PilotSteps = 60, TimeoutMilliseconds = 60_000, LookMilliseconds = 10;

    private int _names;

    /// <summary>Memory of each node: another one may have to take all of it.</summary>
    public static string Memory => string.Create(CultureInfo.InvariantCulture, $"{(2 * Mebibytes) + 128}M");

    /// <summary>Runs.</summary>
    /// <param name="computeSeconds">How long the program is to take when nothing fails.</param>
    /// <param name="factors">Intervals, as multiples of Daly's.</param>
    /// <param name="onPoint">To be told of each interval that begins, in seconds.</param>
    /// <exception cref="WrongResultException">A run that has begun again has another result.</exception>
    public WasteResult Run(double computeSeconds, IReadOnlyList<double> factors, Action<double> onPoint)
    {
        _ = Quiet(PilotSteps, null); // agents have compiled what they run
        int steps = Math.Max(PilotSteps, (int)(computeSeconds / (Quiet(PilotSteps, null).Wall / PilotSteps)));
        Sample compute = new(), cost = new();
        string? checksum = null;
        for (int round = 0; round < 2; round++)
        {
            Outcome plain = Quiet(steps, null), checkpointed = Quiet(steps, 1);
            checksum ??= plain.Checksum;
            if (plain.Checksum != checksum || checkpointed.Checksum != checksum) throw new WrongResultException("runs without failures have different results");
            compute.Add(plain.Wall);
            if (checkpointed.Generations == 0) throw new BenchException("no checkpoint was taken");
            cost.Add((checkpointed.Wall - plain.Wall) / checkpointed.Generations);
        }
        double generation = Math.Max(1e-3, cost.Median), daly = CheckpointPacer.Daly(generation, mtbfSeconds);
        List<WastePoint> points = [];
        foreach (double factor in factors)
        {
            double interval = factor * daly;
            onPoint(interval);
            Outcome outcome = UnderFailures(steps, interval);
            if (outcome.Checksum != checksum) throw new WrongResultException($"with failures the result is {outcome.Checksum}, and should be {checksum} (seed {seed})");
            double restart = outcome.Restarts.Count > 0 ? outcome.Restarts.Average() : 0;
            points.Add(new WastePoint(interval, outcome.Wall, outcome.Restarts.Count, restart, 1 - (compute.Median / outcome.Wall), CheckpointPacer.Waste(interval, generation, restart, mtbfSeconds),
                outcome.Restarts.Count == 0 ? generation / (interval + generation) : CheckpointPacer.Waste(interval, generation, restart, outcome.Wall / outcome.Restarts.Count)));
        }
        return new WasteResult(seed, compute.Median, mtbfSeconds, generation, daly, points);
    }

    private static double Now() => Stopwatch.GetTimestamp() / (double)Stopwatch.Frequency; // the monotonic clock, which the program has as well

    private static string Text(double number) => number.ToString("0.######", CultureInfo.InvariantCulture);

    private Outcome Quiet(int steps, double? everySeconds)
    {
        CheckpointOutput output = new();
        Start(output, steps, everySeconds, []).GetAwaiter().GetResult();
        return Outcome.Of(output, []);
    }

    private Outcome UnderFailures(int steps, double everySeconds)
    {
        CheckpointOutput output = new();
        Task running = Start(output, steps, everySeconds, ["--ha"]);
        List<double> restarts = [];
        Random random = new(unchecked((int)(seed ^ (seed >> 32)))); // the same failures for all intervals, as far as their runs are as long
        string[] job = [.. cluster.Nodes.Skip(1)]; // that it is on, now
        Await("the job", running, () => Begins(output) > 0);
        for (double next = Now() + Draw(random); ; next += Draw(random))
        {
            while (!running.IsCompleted && Now() < next) Thread.Sleep(LookMilliseconds);
            if (running.IsCompleted) break;
            string victim = job[random.Next(job.Length)];
            int begins = Begins(output);
            double killed = Now();
            if (!NodeProcesses.Kill(RunDirectory.OfCurrentUser(cluster.Name).Agent(victim))) throw new BenchException($"agent {victim} cannot be killed");
            if (!Await("the job to go on", running, () => Begins(output) > begins))
            {
                NodeStart.Again(cluster.Name, victim, cluster.Checkpoints); // it was done already
                AwaitUp(victim);
                break;
            }
            lock (output) restarts.Add(output.Begins[^1] - killed);
            // Not before: the job would be on it again or not, as it happens.
            NodeStart.Again(cluster.Name, victim, cluster.Checkpoints);
            AwaitUp(victim);
            job = [.. cluster.Nodes.Skip(1).Where(node => node != victim)];
        }
        running.GetAwaiter().GetResult();
        return Outcome.Of(output, restarts);
    }

    private double Draw(Random random) => -Math.Log(1 - random.NextDouble()) * mtbfSeconds;

    private static int Begins(CheckpointOutput output)
    {
        lock (output) return output.Begins.Count;
    }

    private Task Start(CheckpointOutput output, int steps, double? everySeconds, string[] options)
    {
        string name = string.Create(CultureInfo.InvariantCulture, $"waste-{++_names}");
        if (everySeconds is { } every) options = [.. options, "--checkpoint", name, "--checkpoint-every", Text(every) + "s"];
        return Task.Run(() =>
        {
            (int exitCode, string error) = cluster.RunRanks(Ranks, cluster.Nodes.Skip(1), "msi", local: null,
                [BenchCluster.FindProgram("vsmp-checkpoint"), "work", Text(Mebibytes), Text(Percent), Text(steps), Text(Units)], line =>
                {
                    lock (output) output.Add(line);
                }, options: options);
            if (exitCode == ExitCode.Wrong) throw new WrongResultException($"vsmp-checkpoint: {error} (seed {seed})");
            if (exitCode != 0) throw new BenchException($"vsmp-checkpoint ended with exit code {exitCode}: {error} (seed {seed})");
            string folder = Path.Combine(cluster.Checkpoints, name);
            if (Directory.Exists(folder)) Directory.Delete(folder, recursive: true);
        });
    }

    private bool Await(string what, Task running, Func<bool> isThere)
    {
        for (long deadline = Environment.TickCount64 + TimeoutMilliseconds; !isThere(); Thread.Sleep(LookMilliseconds))
        {
            if (running.IsCompleted) return isThere();
            if (Environment.TickCount64 > deadline) throw new BenchException($"{what}: not within {TimeoutMilliseconds / 1000} s (seed {seed})");
        }
        return true;
    }

    private void AwaitUp(string node) => Await($"node {node} to join again", Task.Delay(Timeout.Infinite), () =>
    {
        using ControlClient client = ControlClient.Connect(RunDirectory.OfCurrentUser(cluster.Name).Agent(cluster.Nodes[0]));
        return client.GetStatus().Nodes.Any(n => n.Name == node && n.State == "up");
    });

    // Wall: seconds from the first begin until the end.
    private sealed record Outcome(double Wall, string Checksum, int Generations, IReadOnlyList<double> Restarts)
    {
        public static Outcome Of(CheckpointOutput output, IReadOnlyList<double> restarts) => output.Begins.Count == 0 || double.IsNaN(output.End) || output.Checksum is null
            ? throw new BenchException("vsmp-checkpoint did not say when it began and ended, and what came out")
            : new Outcome(output.End - output.Begins[0], output.Checksum, output.Generations.Count, restarts);
    }
}
