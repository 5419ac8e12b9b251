// SPDX-License-Identifier: Apache-2.0
using System.Diagnostics;
using System.Globalization;

namespace VSmp.SystemTests;

/// <summary>
/// Agents are killed alone, their keepers and guests are not, again and again: the next agents take over what those had, and guests read what they have
/// written.
/// </summary>
public sealed class AgentKillTests(ITestOutputHelper output)
{
    private const string Home = "n0"; // the guests', and the founder's
    private const int PatienceSeconds = 60;

    private readonly int _seed = int.Parse(Environment.GetEnvironmentVariable("VSMP_TEST_SEED") ?? $"{Environment.TickCount & 0xFFFFFF}", CultureInfo.InvariantCulture);

    private readonly List<string> _killed = []; // "-process-start-", as the names of files have it that .NET makes for each process

    private static readonly string[] RankVictims = ["n0", "n1", "n2"];

    private static int Kills => Paths.IsLong ? 500 : 50;

    private static int RankKills => Paths.IsLong ? 100 : 10;

    [Theory]
    [InlineData("none")]
    [InlineData("mirror")]
    public void Agents_are_killed_again_and_again_under_a_guest_that_faults_all_the_time(string redundancy)
    {
        Random random = new(_seed);
        output.WriteLine($"seed {_seed}");
        List<string> victims = [];
        List<double> stalls = [], repeated = []; // milliseconds; of agents that were killed once, and of those that were killed again before they were back
        Cluster.Run(3, "160M", cluster => Explained(cluster, () =>
        {
            using RestlessGuest guest = RestlessGuest.Start(cluster, 48, local: "16M", Home, redundancy);
            for (int kill = 1; kill <= Kills; kill++)
            {
                Thread.Sleep(random.Next(300)); // at any moment
                string victim = random.Next(2) == 0 ? Home : $"n{random.Next(1, 3)}";
                int more = random.Next(6) == 0 ? random.Next(1, 3) : 0, moreAfter = random.Next(400);
                _ = guest.Ask();
                bool isRepeated = more > 0;
                long log = Kill(cluster, victim);
                for (; more > 0; more--)
                {
                    Thread.Sleep(moreAfter); // while it starts, adopts, asks the others, recovers
                    log = KillNext(cluster, victim);
                    output.WriteLine($"kill {kill}: {victim} is killed again after {moreAfter} ms");
                }
                victims.Add(victim);
                double stall = AwaitReturn(cluster, victim, log, guest).TotalMilliseconds;
                (isRepeated ? repeated : stalls).Add(stall);
                output.WriteLine($"kill {kill}: {victim}, stall {stall:F0} ms");
            }
            string lost = cluster.Vsmp("report", "lost").Succeeded().Output;
            Assert.DoesNotContain(cluster.Agents, agent => lost.Contains(agent, StringComparison.Ordinal));
            cluster.Vsmp("audit").Succeeded();
            guest.End();
            Assert.DoesNotContain(Directory.EnumerateFileSystemEntries(Path.GetTempPath()), path => _killed.Exists(agent => path.Contains(agent, StringComparison.Ordinal)));
        }));
        string nodes = string.Join(", ", victims.CountBy(v => v).OrderBy(v => v.Key, StringComparer.Ordinal).Select(v => $"{v.Value} of {v.Key}"));
        output.WriteLine($"{redundancy}: {Kills} kills ({nodes}), seed {_seed}; stall {Percentiles(stalls)}; of {repeated.Count} that were killed again before they were back {Percentiles(repeated)}");
    }

    [Fact]
    public void A_real_program_finds_nothing_wrong_with_its_memory_while_agents_are_killed() => Cluster.Run(3, "128M", cluster => Explained(cluster, () =>
    {
        Random random = new(_seed);
        using GuestCommand guest = cluster.Start(["memtester", "32M", "1"], local: "12M", Home, environment: new() { ["MEMTESTER_TEST_MASK"] = "0x85" });
        guest.Command.EndInput();
        guest.Command.WaitFor("Loop 1/1");
        int kills = 0;
        for (; guest.Command.IsRunning && kills < 6; kills++)
        {
            Thread.Sleep(random.Next(600));
            string victim = cluster.Agents[kills % cluster.Agents.Count];
            long log = Kill(cluster, victim);
            Wait.Until(() => IsBack(cluster, victim, log), PatienceSeconds, () => $"the next agent of {victim}");
        }
        Outcome outcome = guest.Command.WaitForEnd(120).Succeeded();
        Assert.Contains("Done.", outcome.Output, StringComparison.Ordinal);
        Assert.DoesNotContain("FAILURE", outcome.Output, StringComparison.Ordinal);
        output.WriteLine($"{kills} kills");
    }));

    /// <summary>Ranks on n0 and n1, more shared memory than both may hold copies of; n2 has memory only.</summary>
    [Theory]
    [InlineData("msi", "none")]
    [InlineData("mesi", "mirror")]
    [InlineData("moesi", "none")]
    public void Ranks_go_on_when_agents_are_killed(string protocol, string redundancy)
    {
        Random random = new(_seed);
        List<double> stalls = []; // milliseconds until the next round
        Cluster.Run(3, "128M", cluster => Explained(cluster, () =>
        {
            using Command job = new(Paths.Vsmp, ["spmd", "-n", "2", "--on", "n0,n1,n2", "--local", "8M", "--protocol", protocol, "--redundancy", redundancy, "--",
                Paths.Program("spmd-restless"), "16"], cluster.Environment);
            job.WaitFor("round 1\n");
            for (int kill = 1; kill <= RankKills; kill++)
            {
                Thread.Sleep(random.Next(300)); // at any moment
                string victim = RankVictims[random.Next(RankVictims.Length)];
                Stopwatch since = Stopwatch.StartNew();
                long log = Kill(cluster, victim);
                if (random.Next(4) == 0)
                {
                    Thread.Sleep(random.Next(400)); // while it starts, adopts, asks the others, recovers
                    log = KillNext(cluster, victim);
                }
                Wait.Until(() => IsBack(cluster, victim, log), PatienceSeconds, () => $"the next agent of {victim}");
                int rounds = Rounds(job);
                Wait.Until(() => !job.IsRunning || Rounds(job) > rounds + 1, PatienceSeconds, () => $"another round after kill {kill}, of {victim}\n{job.Error}");
                Assert.True(job.IsRunning, $"the job has ended after kill {kill}, of {victim}\n{job.Error}");
                stalls.Add(since.Elapsed.TotalMilliseconds);
                output.WriteLine($"kill {kill}: {victim}, two rounds after {stalls[^1]:F0} ms");
            }
            cluster.Vsmp("audit").Succeeded();
            string lost = cluster.Vsmp("report", "lost").Succeeded().Output;
            Assert.DoesNotContain(cluster.Agents, agent => lost.Contains(agent, StringComparison.Ordinal));
            job.EndInput();
            Outcome outcome = job.WaitForEnd(120).Succeeded(); // ranks verify what they read, and that all they asked for was done once
            Assert.Contains("exact: ", outcome.Output, StringComparison.Ordinal);
        }));
        output.WriteLine($"{protocol}, {redundancy}: {RankKills} kills, seed {_seed}; two rounds after {Percentiles(stalls)}");
    }

    private static int Rounds(Command job) => job.Output.Count(c => c == '\n');

    /// <summary>Kills the agent that runs.</summary>
    /// <returns>Where the next one's lines begin in the log.</returns>
    private long Kill(Cluster cluster, string agent)
    {
        _killed.Add($"-{File.ReadAllText($"{cluster.RunDirectory}/{agent}/agent.pid").Trim().Replace(' ', '-')}-");
        Assert.Equal(0, Native.Kill(cluster.ProcessId(agent), Native.SIGKILL));
        return new FileInfo(LogOf(cluster, agent)).Length;
    }

    /// <summary>Kills the keeper's child, though nobody else may know of it yet.</summary>
    private static long KillNext(Cluster cluster, string agent)
    {
        int keeper = cluster.KeeperId(agent), child = 0;
        Wait.Until(() => int.TryParse(File.ReadAllText($"/proc/{keeper}/task/{keeper}/children").Split(' ')[0], out child), PatienceSeconds,
            () => $"the next agent of {agent}");
        Assert.Equal(0, Native.Kill(child, Native.SIGKILL));
        return new FileInfo(LogOf(cluster, agent)).Length;
    }

    private static bool IsBack(Cluster cluster, string agent, long log)
    {
        using FileStream file = new(LogOf(cluster, agent), FileMode.Open, FileAccess.Read, FileShare.ReadWrite);
        file.Position = log;
        return new StreamReader(file).ReadToEnd().Contains($"agent {agent} is ready", StringComparison.Ordinal);
    }

    /// <summary>Waits until the next agent is a member, and nobody in the guest waits for anything that was asked before.</summary>
    /// <returns>The guest's longest wait.</returns>
    private static TimeSpan AwaitReturn(Cluster cluster, string agent, long log, RestlessGuest guest)
    {
        Wait.Until(() => IsBack(cluster, agent, log), PatienceSeconds, () => $"the next agent of {agent}");
        Stopwatch since = Stopwatch.StartNew();
        Stretch stretch = default;
        TimeSpan longest = default;
        Wait.Until(() =>
        {
            TimeSpan asked = since.Elapsed;
            stretch = guest.Ask();
            longest = stretch.Longest > longest ? stretch.Longest : longest;
            return stretch.Waiting < asked;
        }, PatienceSeconds, () => $"the guest to go on after {agent} was killed: it waits for {stretch.Waiting.TotalSeconds:F1} s");
        return longest;
    }

    /// <summary>If it fails, the agents' logs say more than it can.</summary>
    private void Explained(Cluster cluster, Action test)
    {
        try { test(); }
        catch
        {
            output.WriteLine($"seed {_seed}");
            foreach (string agent in cluster.Agents) output.WriteLine($"--- {agent}\n{string.Join('\n', cluster.Log(agent).Split('\n').TakeLast(60))}");
            throw;
        }
    }

    private static string LogOf(Cluster cluster, string agent) => $"{cluster.RunDirectory}/{agent}/agent.log";

    private static string Percentiles(List<double> milliseconds)
    {
        double[] sorted = [.. milliseconds.Order()];
        return sorted.Length == 0 ? "-" : string.Create(CultureInfo.InvariantCulture, $"p50 {At(50):F0} ms, p99 {At(99):F0} ms, max {sorted[^1]:F0} ms");

        double At(int percent) => sorted[Math.Max(0, (int)Math.Ceiling(sorted.Length * percent / 100.0) - 1)];
    }
}
