// SPDX-License-Identifier: Apache-2.0
using System.Collections.Concurrent;
using System.Globalization;
using System.Runtime.ExceptionServices;
using VSmp.Agent.Cli;
using VSmp.Agent.Control;
using VSmp.Agent.Fabric.FaultInjection;
using VSmp.Agent.Interop;
using VSmp.Bench.Running;
using VSmp.Coherence;

namespace VSmp.Bench.Recovery;

/// <summary>
/// Kills nodes under a guest whose memory is mirrored, one after the other, each at a random moment; after each, the node joins again and everything is
/// mirrored before the next. Or agents alone, under a guest whose memory is not; after each, the next one serves before the next is killed.
/// </summary>
/// <param name="cluster">A cluster of its own; the guest runs on its first node.</param>
/// <param name="what">What is killed; the first node is not.</param>
/// <param name="mebibytes">Memory that the guest goes about in.</param>
/// <param name="seed">What moments and victims follow from.</param>
internal sealed class RecoveryRun(BenchCluster cluster, Victims what, int mebibytes, ulong seed)
{
    /// <summary>What each node must contribute: each other one may have to take everything, or be the mirror of everything.</summary>
    public static string MemoryFor(int mebibytes) => string.Create(CultureInfo.InvariantCulture, $"{(2 * mebibytes) + 64}M");

    private const int RecoveryTimeoutMilliseconds = 60_000, LookMilliseconds = 20, AnswerTimeoutMilliseconds = 120_000;
    private const int MostMillisecondsToKill = 1500, AfterwardsMilliseconds = 500;

    private readonly Random _random = new(unchecked((int)(seed ^ (seed >> 32))));

    /// <summary>Of the guest's memory, what its node may have at a time, MiB.</summary>
    public int LocalMebibytes { get; } = Math.Max(8, mebibytes / 4);

    /// <summary>Runs.</summary>
    /// <param name="kills">How many nodes are killed.</param>
    /// <param name="rounds">How often the load is measured, without mirrors and with.</param>
    /// <param name="roundMilliseconds">How long each time.</param>
    /// <exception cref="BenchException">It could not be done, or memory was lost that has a mirror.</exception>
    public RecoveryReport Run(int kills, int rounds, int roundMilliseconds)
    {
        Sample plain = new(), mirrored = new();
        List<Kill> costs = [];
        double quiet = 0;
        if (what == Victims.Agent)
        {
            WithGuest("none", guest =>
            {
                Stretch stretch = guest.Measure(roundMilliseconds);
                plain.Add(stretch.PagesPerSecond);
                quiet = stretch.LongestMilliseconds;
                KillAll(guest, kills, costs);
            });
            rounds = 0;
        }
        for (int round = 0; round < rounds; round++)
        {
            WithGuest("none", guest => plain.Add(guest.Measure(roundMilliseconds).PagesPerSecond));
            WithGuest("mirror", guest =>
            {
                Stretch stretch = guest.Measure(roundMilliseconds);
                mirrored.Add(stretch.PagesPerSecond);
                quiet = Math.Max(quiet, stretch.LongestMilliseconds);
                if (round + 1 == rounds) KillAll(guest, kills, costs);
            });
        }
        return new RecoveryReport(what, Machine.Here(), cluster.Nodes.Count, mebibytes, LocalMebibytes, seed, quiet, plain, what == Victims.Agent ? null : mirrored, costs);
    }

    private static string[] LinesOf(AgentFolder agent) => File.ReadAllLines(agent.LogFile);

    private AgentFolder FolderOf(string node) => RunDirectory.OfCurrentUser(cluster.Name).Agent(node);

    private void KillAll(StallGuest guest, int kills, List<Kill> costs)
    {
        for (int i = 0; i < kills; i++)
        {
            costs.Add(what == Victims.Agent ? KillAgent(guest) : KillNode(guest));
            Console.Error.WriteLine(FormattableString.Invariant($"kill {i + 1} of {kills}: {costs[^1].Node}, stall {costs[^1].StallMilliseconds:F0} ms"));
        }
    }

    private Kill KillAgent(StallGuest guest)
    {
        string victim = cluster.Nodes[_random.Next(cluster.Nodes.Count)];
        AgentFolder folder = FolderOf(victim);
        _ = guest.Ask();
        Thread.Sleep(_random.Next(MostMillisecondsToKill));
        if (folder.Running() is not { } agent) throw new BenchException($"agent {victim} does not run");
        int logged = LinesOf(folder).Length;
        DateTime killed = DateTime.UtcNow;
        if (!ProcessControl.Signal(agent, Signals.SIGKILL)) throw new BenchException($"agent {victim} cannot be killed");
        DateTime? ready = null;
        Await($"the next agent of {victim}", () => (ready = RecoveryLog.FindReady(LinesOf(folder).Skip(logged), victim)) is not null);
        double stall = 0;
        Await("the guest", () =>
        {
            Thread.Sleep(AfterwardsMilliseconds); // pages that it waited for have come, and it has gone to others
            Stretch stretch = guest.Ask();
            stall = Math.Max(stall, stretch.LongestMilliseconds);
            return stretch.PagesPerSecond > 0;
        });
        return new Kill(victim, stall) { ReturnMilliseconds = (ready!.Value - killed).TotalMilliseconds };
    }

    private Kill KillNode(StallGuest guest)
    {
        AgentFolder leader = FolderOf(cluster.Nodes[0]);
        // Who has just joined again has nothing of the guest's memory until others are lost: its loss costs nothing.
        string[] others = [.. Ask(leader).Nodes.Where(n => n.Name != leader.Name && n.State == "up" && n.HomeBytes > 0).Select(n => n.Name).Order(StringComparer.Ordinal)];
        if (others.Length == 0) throw new BenchException("no other node has memory of the guest");
        string victim = others[_random.Next(others.Length)];
        AgentFolder folder = FolderOf(victim);
        int logged = LinesOf(leader).Length;
        _ = guest.Ask();
        Thread.Sleep(_random.Next(MostMillisecondsToKill));
        if (folder.Node() is null) throw new BenchException($"agent {victim} does not run");
        if (what == Victims.Host) TellOthers(victim, new FaultOrder(FaultKind.Partition, [victim])); // what it says is heard until it is killed
        DateTime killed = DateTime.UtcNow;
        if (!NodeProcesses.Kill(folder)) throw new BenchException($"agent {victim} cannot be killed");
        LoggedRecovery? recovery = null;
        Await($"the recovery from the loss of {victim}", () => (recovery = RecoveryLog.Find(LinesOf(leader).Skip(logged), victim)) is not null);
        if (!recovery!.IsAllThere) throw new WrongResultException($"memory was lost with {victim}, though every page had a mirror (seed {seed})");
        Thread.Sleep(AfterwardsMilliseconds); // the guest goes on, and pages that it waited for have come
        double stall = guest.Ask().LongestMilliseconds;
        if (what == Victims.Host) TellOthers(victim, new FaultOrder(null, [victim]));
        NodeStart.Again(cluster.Name, victim);
        Await($"node {victim} to join again", () => Ask(leader).Nodes.Any(n => n.Name == victim && n.State == "up"));
        Await("new mirrors", () => RecoveryLog.IsMirrored(LinesOf(leader).Skip(logged)));
        return new Kill(victim, stall) { DetectionMilliseconds = (recovery.Began - killed).TotalMilliseconds, RecoveryMilliseconds = recovery.Milliseconds };
    }

    /// <summary>Has all nodes but one inject a fault, or end it.</summary>
    private void TellOthers(string victim, FaultOrder order)
    {
        foreach (string node in cluster.Nodes.Where(node => node != victim))
        {
            using ControlClient client = ControlClient.Connect(FolderOf(node));
            client.Inject(order);
        }
    }

    private static ClusterStatus Ask(AgentFolder agent)
    {
        using ControlClient client = ControlClient.Connect(agent);
        return client.GetStatus();
    }

    private void Await(string what, Func<bool> isThere)
    {
        for (long deadline = Environment.TickCount64 + RecoveryTimeoutMilliseconds; !isThere(); Thread.Sleep(LookMilliseconds))
        {
            if (Environment.TickCount64 > deadline)
                throw new BenchException(FormattableString.Invariant($"{what}: not within {RecoveryTimeoutMilliseconds / 1000} s (seed {seed})"));
        }
    }

    private void WithGuest(string redundancy, Action<StallGuest> what)
    {
        string local = string.Create(CultureInfo.InvariantCulture, $"{LocalMebibytes}M"), size = string.Create(CultureInfo.InvariantCulture, $"{mebibytes}");
        string[] command = [BenchCluster.FindProgram("vsmp"), "run", "--node", cluster.Nodes[0], "--local", local, "--redundancy", redundancy, "--",
            BenchCluster.FindProgram("vsmp-stall"), size];
        using BlockingCollection<string> answers = [];
        Task<(int ExitCode, string Error)> running = Task.Run(() =>
        {
            try
            {
                return cluster.RunWithInput(command, answers.Add);
            }
            finally
            {
                answers.CompleteAdding();
            }
        });
        ExceptionDispatchInfo? failure = null;
        try
        {
            Await("the guest", () => cluster.HasInput || running.IsCompleted);
            var guest = new StallGuest(cluster, answers, AnswerTimeoutMilliseconds);
            _ = guest.Ask(); // when it has written everything once
            what(guest);
        }
        catch (BenchException e)
        {
            failure = ExceptionDispatchInfo.Capture(e); // the guest may know better what is wrong
        }
        finally
        {
            cluster.EndInput();
        }
        (int exitCode, string error) = running.GetAwaiter().GetResult();
        if (exitCode == ExitCode.Wrong) throw new WrongResultException($"{error} (seed {seed})");
        if (exitCode != 0) throw new BenchException($"the guest ended with exit code {exitCode}: {error}");
        failure?.Throw();
    }
}

/// <summary>What a guest did since it was asked before.</summary>
/// <param name="LongestMilliseconds">The longest time that it waited for a page.</param>
/// <param name="PagesPerSecond">How many pages it went to.</param>
internal readonly record struct Stretch(double LongestMilliseconds, double PagesPerSecond)
{
    /// <summary>What the guest says of it.</summary>
    /// <exception cref="BenchException">That makes no sense.</exception>
    public static Stretch Parse(string line)
    {
        string[] words = line.Split(' ');
        if (words.Length == 3 && ulong.TryParse(words[0], NumberStyles.None, CultureInfo.InvariantCulture, out ulong longest)
            && ulong.TryParse(words[1], NumberStyles.None, CultureInfo.InvariantCulture, out ulong pages)
            && ulong.TryParse(words[2], NumberStyles.None, CultureInfo.InvariantCulture, out ulong all) && all > 0)
        {
            return new Stretch(longest / 1e6, pages / (all / 1e9));
        }
        throw new BenchException($"the guest says '{line}', which makes no sense");
    }
}

/// <summary>The guest that looks at its own stalls: <c>native/bench/stall.c</c>.</summary>
internal sealed class StallGuest(BenchCluster cluster, BlockingCollection<string> answers, int timeoutMilliseconds)
{
    /// <summary>What it did since it was asked before.</summary>
    /// <exception cref="BenchException">It has ended.</exception>
    public Stretch Ask()
    {
        cluster.Tell("");
        try
        {
            if (answers.TryTake(out string? line, timeoutMilliseconds)) return Stretch.Parse(line);
        }
        catch (InvalidOperationException)
        {
            // It has ended.
        }
        throw new BenchException(answers.IsCompleted ? "the guest has ended" : "the guest does not answer");
    }

    /// <summary>What it does in some time.</summary>
    public Stretch Measure(int milliseconds)
    {
        _ = Ask();
        Thread.Sleep(milliseconds);
        return Ask();
    }
}
