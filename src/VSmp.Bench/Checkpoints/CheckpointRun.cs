// SPDX-License-Identifier: Apache-2.0
using System.Globalization;
using System.Numerics;
using VSmp.Agent.Checkpointing;
using VSmp.Agent.Control;
using VSmp.Bench.Apps;
using VSmp.Bench.Running;

namespace VSmp.Bench.Checkpoints;

/// <summary>Runs jobs with checkpoints, and looks at what those cost. Each checkpoint is removed when it has been looked at.</summary>
/// <param name="cluster">A cluster of its own, with a folder for checkpoints.</param>
/// <param name="ranks">How many ranks jobs have: one on each node.</param>
internal sealed class CheckpointRun(BenchCluster cluster, int ranks = CheckpointRun.Ranks)
{
    /// <summary>How many ranks jobs have, if nothing else is said.</summary>
    public const int Ranks = 2;

    private const string CheckpointProgram = "vsmp-checkpoint", Protocol = "msi";
    private const int KeepAll = 10_000, KmerGenome = 1_000_000, SlotsPerRead = 16;

    private readonly string[] _nodes = [.. cluster.Nodes.Take(ranks)];
    private int _names;

    /// <summary>How long generations stop everybody who writes all of some memory.</summary>
    public PauseResult Pause(int mebibytes, int generations)
    {
        Sample floor = new();
        int pages = mebibytes / _nodes.Length * 256;
        StolenTime stolen = StolenTime.Now();
        AddFloor();
        (IReadOnlyList<LoggedGeneration> logged, CheckpointOutput output) = Dirty(mebibytes, 100, generations, restMilliseconds: 500, keep: 1, _ => { });
        AddFloor();
        return PauseResult.Of(mebibytes, logged, output.Generations, floor.Values, StolenTime.Now().Since(stolen));

        void AddFloor()
        {
            foreach (long nanoseconds in FloorProgram.Measure(cluster, "protect", pages)) floor.Add(nanoseconds / 1e6);
        }
    }

    /// <summary>What checkpoints cost k-mer counting.</summary>
    /// <param name="reads">How many reads it counts.</param>
    /// <param name="rounds">How often it is run without, and with.</param>
    /// <param name="everySeconds">How often checkpoints are taken then.</param>
    /// <param name="mtbfSeconds">Mean time between failures that an interval is looked for.</param>
    /// <param name="onRound">To be told of each round that begins, from 1 on.</param>
    public OverheadResult Overhead(int reads, int rounds, double everySeconds, double mtbfSeconds, Action<int> onRound)
    {
        Sample plain = new(), checkpointed = new(), generations = new(), safe = new(), cost = new();
        string? checksum = Count([], null).Checksum; // agents have compiled what they run
        for (int round = 1; round <= rounds; round++)
        {
            onRound(round);
            double without = 0;
            // The one that comes second may find the machine in another state: they change places.
            if (round % 2 == 1) without = Count([], checksum).Seconds;
            string name = NewName();
            double with = Count(["--checkpoint", name, "--checkpoint-every", Text(everySeconds) + "s"], checksum).Seconds;
            IReadOnlyList<LoggedGeneration> logged = Logged(name);
            Remove(name);
            if (round % 2 == 0) without = Count([], checksum).Seconds;
            if (logged.Count == 0) throw new BenchException($"k-mer counting is done in {Text(with)} s, before there was a checkpoint: count more reads");
            plain.Add(without);
            checkpointed.Add(with);
            generations.Add(logged.Count);
            safe.Add(logged.Average(g => g.SafeMilliseconds) / 1000);
            cost.Add((with - without) / logged.Count);
        }
        return new OverheadResult(everySeconds, mtbfSeconds, plain, checkpointed, generations, safe, cost);

        ProgramOutput Count(IEnumerable<string> options, string? expected)
        {
            ProgramOutput output = new();
            (int exitCode, string error) = cluster.RunRanks(Ranks, _nodes, Protocol, local: null,
                [BenchCluster.FindProgram("vsmp-kmer"), Text(KmerGenome), Text(reads), Text(Math.Max(16, reads / 20_000)), Text(BitOperations.RoundUpToPowerOf2((uint)(SlotsPerRead * reads)))], output.Add, options: options);
            return output.Require("vsmp-kmer", exitCode, error, expected);
        }
    }

    /// <summary>What generations have and take, if a part of the pages is written between two.</summary>
    public ShareResult Share(int mebibytes, int percent, int generations)
    {
        Sample pages = new(), stored = new(), pause = new(), safe = new();
        (IReadOnlyList<LoggedGeneration> logged, _) = Dirty(mebibytes, percent, generations + 1, restMilliseconds: 200, KeepAll, name =>
        {
            foreach (string folder in Directory.GetDirectories(Path.Combine(cluster.Checkpoints, name)).Order(StringComparer.Ordinal).Skip(1))
                stored.Add(Directory.GetFiles(folder).Sum(file => new FileInfo(file).Length) / (double)(1 << 20));
        });
        foreach (LoggedGeneration generation in logged.Where(g => g.Generation > 1)) // the first has all pages
        {
            pages.Add(generation.Pages);
            pause.Add(generation.PauseMilliseconds);
            safe.Add(generation.SafeMilliseconds);
        }
        return new ShareResult(percent, pages, stored, pause, safe);
    }

    /// <summary>What going on from a generation takes, beside <c>cp</c> of its files into tmpfs.</summary>
    public RestoreResult Restore(int mebibytes, int rounds)
    {
        string name = NewName();
        _ = Program(["dirty", Text(mebibytes), "100", "1", "0"], ["--checkpoint", name]);
        string from = Path.Combine(cluster.Checkpoints, name), to = $"/dev/shm/vsmp-bench-{Environment.ProcessId}";
        Sample copy = new(), attach = new(), read = new(), ratio = new();
        try
        {
            for (int round = 0; round < rounds; round++)
            {
                PageCache.Drop(from);
                copy.Add(Copy(from, to));
                Directory.Delete(to, recursive: true);
                PageCache.Drop(from);
                CheckpointOutput output = Program(["read", Text(mebibytes)], ["--restart", name]);
                (double attached, double wasRead) = output.Restored ?? throw new BenchException($"{CheckpointProgram} did not say how long it took to go on");
                attach.Add(attached);
                read.Add(wasRead);
                ratio.Add(attached / copy.Values[^1]);
            }
        }
        finally
        {
            if (Directory.Exists(to)) Directory.Delete(to, recursive: true);
        }
        Remove(name);
        return new RestoreResult(mebibytes, copy, attach, read, ratio);
    }

    /// <summary>What generations take where they can be kept, and going on from one.</summary>
    /// <param name="tier">Where: as <c>--checkpoint-tier</c> has it.</param>
    /// <param name="mebibytes">Memory, all of it written before each generation.</param>
    /// <param name="rounds">How often a job leaves some, and goes on.</param>
    public TierResult Tier(string tier, int mebibytes, int rounds)
    {
        Sample stored = new(), pause = new(), safe = new(), attach = new();
        for (int round = 0; round < rounds; round++)
        {
            string name = NewName();
            // As if it failed: what a job that is done has in memory is dropped.
            _ = Program(["leave", Text(mebibytes)], ["--checkpoint", name, "--checkpoint-tier", tier, "--keep", "1"], mayFail: true);
            IReadOnlyList<LoggedGeneration> logged = Logged(name);
            if (logged.Count < 2) throw new BenchException($"of a job that leaves generations ({tier}) {logged.Count} were stored: see the agents' logs");
            foreach (LoggedGeneration generation in logged)
            {
                pause.Add(generation.PauseMilliseconds);
                safe.Add(generation.SafeMilliseconds);
            }
            IEnumerable<string> roots = tier == "disk" ? [Path.Combine(cluster.Checkpoints, name)]
                : cluster.Nodes.Select(node => Path.Combine(RunDirectory.OfCurrentUser(cluster.Name).Agent(node).Frames, "checkpoints", name));
            string last = string.Create(CultureInfo.InvariantCulture, $"g{logged[^1].Generation:d8}");
            stored.Add(roots.Select(root => Path.Combine(root, last)).Where(Directory.Exists).SelectMany(folder => Directory.GetFiles(folder)).Sum(file => new FileInfo(file).Length) / (double)(1 << 20));
            (double attached, _) = Program(["read", Text(mebibytes)], ["--restart", name, "--checkpoint-tier", tier]).Restored ?? throw new BenchException($"{CheckpointProgram} did not say how long it took to go on");
            attach.Add(attached);
            if (tier == "disk") Remove(name);
        }
        return new TierResult(tier, stored, pause, safe, attach);
    }

    private static string Text(double number) => number.ToString("0.###", CultureInfo.InvariantCulture);

    private double Copy(string from, string to)
    {
        long began = System.Diagnostics.Stopwatch.GetTimestamp();
        (int exitCode, string error) = cluster.RunBeside("cp", ["--recursive", from, to], _ => { });
        if (exitCode != 0) throw new BenchException($"cp ended with exit code {exitCode}: {error}");
        return System.Diagnostics.Stopwatch.GetElapsedTime(began).TotalSeconds;
    }

    private (IReadOnlyList<LoggedGeneration> Logged, CheckpointOutput Output) Dirty(int mebibytes, int percent, int generations, int restMilliseconds, int keep,
        Action<string> look)
    {
        string name = NewName();
        CheckpointOutput output = Program(["dirty", Text(mebibytes), Text(percent), Text(generations), Text(restMilliseconds)], ["--checkpoint", name, "--keep", Text(keep)]);
        look(name);
        IReadOnlyList<LoggedGeneration> logged = Logged(name);
        if (logged.Count != generations) throw new BenchException($"of {generations} generations {logged.Count} were stored: see the agents' logs");
        Remove(name);
        return (logged, output);
    }

    private CheckpointOutput Program(IEnumerable<string> arguments, IEnumerable<string> options, bool mayFail = false)
    {
        CheckpointOutput output = new();
        (int exitCode, string error) = cluster.RunRanks(ranks, _nodes, Protocol, local: null, [BenchCluster.FindProgram(CheckpointProgram), .. arguments], line =>
        {
            lock (output) output.Add(line);
        }, options: options);
        if (exitCode == ExitCode.Wrong && !mayFail) throw new WrongResultException($"{CheckpointProgram}: {error}");
        if (exitCode != 0 && !mayFail) throw new BenchException($"{CheckpointProgram} ended with exit code {exitCode}: {error}");
        return output;
    }

    private string NewName() => string.Create(CultureInfo.InvariantCulture, $"bench-{++_names}");

    private IReadOnlyList<LoggedGeneration> Logged(string name) =>
        CheckpointLog.Find(cluster.Nodes.SelectMany(node => File.ReadAllLines(RunDirectory.OfCurrentUser(cluster.Name).Agent(node).LogFile)), name);

    private void Remove(string name)
    {
        CheckpointFolder folder = CheckpointFolder.At(cluster.Checkpoints, name);
        using IDisposable own = folder.AwaitLock(isToBeMade: false) ?? throw new BenchException($"checkpoint {name} is still being written");
        _ = folder.Remove();
    }
}
