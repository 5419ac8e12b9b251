// SPDX-License-Identifier: Apache-2.0
using System.Globalization;
using System.Text.Json;
using VSmp.Bench.Running;
using VSmp.Coherence;

namespace VSmp.Bench.Velvet;

/// <summary>
/// Runs Velvet natively, on pooled memory, and with swap, by turns on one cluster: a ratio is of two runs of the same round.
/// </summary>
/// <param name="reads">How many reads are assembled.</param>
/// <param name="rounds">How often everything is run.</param>
/// <param name="budgetsPercent">How much local memory, in per cent of the native peak: one run for each.</param>
/// <param name="limit">When a run is given up: this many times what the native run took, plus <see cref="LimitSeconds"/>.</param>
internal sealed class VelvetRun(int reads, int rounds, IReadOnlyList<int> budgetsPercent, int limit)
{
    /// <summary>Part of the limit, so that little work is not given up for what it takes to start it.</summary>
    public const int LimitSeconds = 2;

    private const int Seed = 1;
    private const long BytesOfRead = 2048, BytesBesides = 256 << 20; // each node has room for all of it, twice: velveth's tables are large from the start
    private const long LeastLocalBytes = 2 * ExtentNumber.Bytes;

    private readonly VelvetResult[] _both = [.. budgetsPercent.Select(budget => new VelvetResult("both", budget))];
    private readonly List<string> _differences = [];

    /// <summary>What each node must contribute.</summary>
    public string Memory => string.Create(CultureInfo.InvariantCulture, $"{NeededBytes >> 20}M");

    /// <summary>Why nothing was measured with swap; null if it was.</summary>
    public string? SwapIsMissing { get; private set; }

    /// <summary>Outputs that were not what they should be.</summary>
    public IReadOnlyList<string> Differences => _differences;

    /// <summary>What the programs have natively at their peaks.</summary>
    public IReadOnlyList<VelvetPeak> Peaks { get; private set; } = [];

    /// <summary>Runs.</summary>
    /// <param name="cluster">Two nodes at least, with nothing else to do.</param>
    /// <param name="onRound">Told of each round that begins, from 1 on.</param>
    /// <exception cref="BenchException">A program could not be run.</exception>
    public IReadOnlyList<VelvetResult> Run(BenchCluster cluster, Action<int> onRound)
    {
        ArgumentNullException.ThrowIfNull(cluster);
        ArgumentNullException.ThrowIfNull(onRound);
        using (StreamWriter file = File.CreateText(ReadsFile(cluster))) Reads.Write(file, reads, Seed);
        using SwapSpace? swap = StartSwap(cluster);
        StepRun[] steps = [.. VelvetStep.All.Select(step => new StepRun(this, cluster, step))];
        foreach (StepRun step in steps) step.Calibrate();
        Peaks = [.. steps.Select(step => step.Peak)];
        for (int round = 1; round <= rounds; round++)
        {
            onRound(round);
            RoundResult[] results = [.. steps.Select(step => step.Measure(swap))];
            for (int i = 0; i < _both.Length; i++)
            {
                Outcome?[] pooled = [.. results.Select(result => result.Pooled[i])], swapped = [.. results.Select(result => result.Swap[i])];
                if (Both(pooled) is null && Both(swapped) is null) continue;
                _both[i].Add(results.Sum(result => result.NativeSeconds), Both(pooled), Both(swapped));
            }
        }
        return [.. steps.SelectMany(step => step.Results), .. _both];
    }

    /// <summary>What is left of a budget for frames: the rest once everything private is taken off, in whole extents.</summary>
    /// <param name="budgetBytes">The local memory that may be used.</param>
    /// <param name="privateBytes">What of that is private.</param>
    /// <returns>As <c>vsmp run --local</c> takes it; 0 if that is less than it takes.</returns>
    internal static ulong LocalBytes(ulong budgetBytes, ulong privateBytes)
    {
        ulong left = budgetBytes <= privateBytes ? 0 : (budgetBytes - privateBytes) / ExtentNumber.Bytes * ExtentNumber.Bytes;
        return left < (ulong)LeastLocalBytes ? 0 : left;
    }

    // Known once it is known of each; those that were given up before are not known in later rounds.
    private static Outcome? Both(Outcome?[] outcomes) =>
        outcomes.Aggregate((Outcome?)new Outcome(RunEnd.Finished, 0, 0), (sum, outcome) => outcome is null ? null : sum?.Then(outcome));

    private static string ReadsFile(BenchCluster cluster) => Path.Combine(cluster.Scratch, "reads.fa");

    private SwapSpace? StartSwap(BenchCluster cluster)
    {
        try
        {
            return SwapSpace.Start(cluster.Scratch, NeededBytes);
        }
        catch (BenchException e)
        {
            SwapIsMissing = e.Message;
            Console.Error.WriteLine($"vsmp-bench: nothing is measured with swap: {e.Message}");
            return null;
        }
    }

    /// <summary>One of the programs, in one round. Null: it was given up in a round before, or there is no swap.</summary>
    private sealed record RoundResult(double NativeSeconds, Outcome?[] Pooled, Outcome?[] Swap);

    /// <summary>Runs one of the programs.</summary>
    private sealed class StepRun
    {
        private readonly VelvetRun _run;
        private readonly BenchCluster _cluster;
        private readonly VelvetStep _step;
        private readonly string _folder, _reference, _before;
        private ulong _peakBytes, _privateBytes;

        public StepRun(VelvetRun run, BenchCluster cluster, VelvetStep step)
        {
            (_run, _cluster, _step) = (run, cluster, step);
            Results = [.. run.BudgetsPercent.Select(budget => new VelvetResult(step.Program, budget))];
            _folder = Path.Combine(cluster.Scratch, "work");
            _reference = Path.Combine(cluster.Scratch, step.Program);
            _before = Path.Combine(cluster.Scratch, VelvetStep.All[0].Program);
        }

        public VelvetResult[] Results { get; }

        public VelvetPeak Peak => new(_step.Program, Mebibytes(_peakBytes), Mebibytes(_privateBytes));

        /// <summary>
        /// Learns what the program makes, how much memory it takes, and how much of that stays private when it is on pooled memory.
        /// </summary>
        public void Calibrate()
        {
            ProgramWatch native = new(_step.Program, double.MaxValue);
            Require(Start(_reference, _cluster, command => command, native), "natively");
            _peakBytes = native.PeakResidentBytes;
            ProgramWatch pooled = new(_step.Program, LimitSecondsAfter(native.Seconds));
            string local = string.Create(CultureInfo.InvariantCulture, $"{LocalBytes(_peakBytes + (_peakBytes / 2), 0)}");
            Require(Start(_folder, _cluster, command => Pooled(command, local), pooled), "on pooled memory");
            Compare("on pooled memory");
            _privateBytes = pooled.PeakPrivateBytes;
        }

        /// <summary>One round.</summary>
        public RoundResult Measure(SwapSpace? swap)
        {
            ProgramWatch native = new(_step.Program, double.MaxValue);
            Require(Start(_folder, _cluster, command => command, native), "natively");
            Compare("natively");
            double limitSeconds = LimitSecondsAfter(native.Seconds);
            var pooled = new Outcome?[Results.Length];
            var swapped = new Outcome?[Results.Length];
            for (int i = 0; i < Results.Length; i++)
            {
                VelvetResult result = Results[i];
                ulong budgetBytes = _peakBytes * (ulong)result.BudgetPercent / 100;
                if (result.Pooled.End == RunEnd.Finished) pooled[i] = MeasurePooled(budgetBytes, result.BudgetPercent, limitSeconds);
                if (swap is not null && result.Swap.End == RunEnd.Finished) swapped[i] = MeasureSwap(swap, budgetBytes, result.BudgetPercent, limitSeconds);
                result.Add(native.Seconds, pooled[i], swapped[i]);
            }
            return new RoundResult(native.Seconds, pooled, swapped);
        }

        private static double Mebibytes(ulong bytes) => bytes / (double)(1 << 20);

        private Outcome MeasurePooled(ulong budgetBytes, int budgetPercent, double limitSeconds)
        {
            ulong localBytes = LocalBytes(budgetBytes, _privateBytes);
            if (localBytes == 0) return new Outcome(RunEnd.Impossible, 0, 0);
            string statistics = Path.Combine(_cluster.Scratch, "stats.json"), how = FormattableString.Invariant($"on pooled memory, {budgetPercent} % local");
            ProgramWatch watch = new(_step.Program, limitSeconds);
            var end = Start(_folder, _cluster, command => Pooled(command, localBytes.ToString(CultureInfo.InvariantCulture), statistics), watch);
            if (watch.IsLate) return new Outcome(RunEnd.Late, watch.Seconds, watch.PeakResidentBytes);
            Require(end, how);
            Compare(how);
            using var document = JsonDocument.Parse(File.ReadAllText(statistics));
            return new Outcome(RunEnd.Finished, watch.Seconds, watch.PeakPrivateBytes + document.RootElement.GetProperty("peakLocalBytes").GetUInt64());
        }

        private Outcome MeasureSwap(SwapSpace swap, ulong budgetBytes, int budgetPercent, double limitSeconds)
        {
            string how = FormattableString.Invariant($"natively with swap, {budgetPercent} % local");
            ProgramWatch watch = new(_step.Program, limitSeconds);
            using MemoryGroup group = swap.NewGroup(budgetBytes);
            var end = Start(_folder, _cluster, group.Command, watch);
            if (watch.IsLate) return new Outcome(RunEnd.Late, watch.Seconds, group.PeakBytes);
            if (group.HasKilled) return new Outcome(RunEnd.Killed, watch.Seconds, group.PeakBytes);
            Require(end, how);
            Compare(how);
            return new Outcome(RunEnd.Finished, watch.Seconds, group.PeakBytes);
        }

        private (int ExitCode, string Error) Start(string folder, BenchCluster cluster, Func<IReadOnlyList<string>, IReadOnlyList<string>> wrap, ProgramWatch watch)
        {
            _step.Prepare(folder, _before);
            return cluster.RunWatched(wrap(_step.Command(folder, ReadsFile(cluster))), watch);
        }

        private static string[] Pooled(IReadOnlyList<string> command, string local, string? statistics = null)
        {
            string[] options = statistics is null ? [] : ["--stats", statistics];
            return [BenchCluster.FindProgram("vsmp"), "run", "--node", "n0", "--local", local, .. options, "--", .. command];
        }

        private double LimitSecondsAfter(double nativeSeconds) => (_run.Limit * nativeSeconds) + LimitSeconds;

        private void Require((int ExitCode, string Error) end, string how)
        {
            if (end.ExitCode != 0) throw new BenchException($"{_step.Program} {how} ended with exit code {end.ExitCode}: {end.Error}");
        }

        private void Compare(string how)
        {
            foreach (string output in _step.Differences(_folder, _reference)) _run._differences.Add($"{_step.Program} {how}: {output} is not what it is natively");
        }
    }

    private long NeededBytes => BytesBesides + (reads * BytesOfRead);

    private IReadOnlyList<int> BudgetsPercent => budgetsPercent;

    private int Limit => limit;
}
