// SPDX-License-Identifier: Apache-2.0
namespace VSmp.SystemTests;

/// <summary>
/// Nodes are killed, join again, and are killed again, for as long as real programs run whose memory is mirrored on them. The record of who is a member is in
/// etcd, so that any node may go but the programs' own: the one that founded the cluster, too.
/// </summary>
public sealed class NodeLossTests(ITestOutputHelper output)
{
    private const string Guests = "n1";

    private static int Kills => Paths.IsLong ? 200 : 20;

    [Fact]
    public void Real_programs_compute_what_they_should_while_nodes_are_killed_and_join_again()
    {
        int seed = Environment.TickCount;
        Random random = new(seed);
        using EtcdServer etcd = new();
        etcd.Start();
        Cluster.Run(4, "256M", cluster =>
        {
            string reads = cluster.Scratch("reads.fa");
            File.WriteAllText(reads, Command.Run(Path.Combine(Paths.Repository, "demo", "make-reads"), ["-v", "seed=1", "-v", "bases=60000", "-v", "coverage=12"])
                .Succeeded().Output);
            Load[] loads = [Memtester(cluster), Velvet(cluster, reads), Counting(cluster)];
            using CancellationTokenSource enough = new();
            Task<int>[] running = [.. loads.Select(load => Task.Run(() => Repeat(load, enough)))];
            List<Command> joined = [];
            try
            {
                for (int kill = 1; kill <= Kills && !enough.IsCancellationRequested; kill++)
                {
                    string[] candidates = [.. cluster.Status().Where(n => n.Key != Guests && n.Value.GetProperty("homeBytes").GetInt64() > 0).Select(n => n.Key).Order(StringComparer.Ordinal)];
                    if (candidates.Length == 0) candidates = [.. cluster.Agents.Where(n => n != Guests)];
                    string victim = candidates[random.Next(candidates.Length)];
                    string[] command = File.ReadAllText($"/proc/{cluster.KeeperId(victim)}/cmdline").Split('\0')[..^1]; // the agent's follows in it
                    Thread.Sleep(random.Next(500)); // at any moment
                    cluster.Vsmp("inject", "kill", victim).Succeeded();
                    Wait.Until(() => !cluster.Status().ContainsKey(victim), 30, () => $"{victim} to be excluded (kill {kill}, seed {seed}):\n{cluster.Log(Guests)}");
                    joined.Add(new Command(command[0], command[1..], cluster.Environment));
                    Wait.Until(() => cluster.Status().TryGetValue(victim, out var status) && status.GetProperty("state").GetString() == "up", 30,
                        () => $"{victim} to join again (kill {kill}, seed {seed}): {joined[^1].Error}");
                    Wait.Until(() => enough.IsCancellationRequested || IsMirrored(cluster), 60, () => $"new mirrors (kill {kill}, seed {seed}):\n{cluster.Vsmp("region", "ls").Output}\n{cluster.Log(Guests)}");
                    cluster.Vsmp("audit").Succeeded();
                }
            }
            finally
            {
                enough.Cancel();
                Task.WhenAll(running).ContinueWith(_ => { }, TaskScheduler.Default).Wait();
                foreach (Command agent in joined.Where(agent => agent.IsRunning)) agent.Signal(Native.SIGTERM);
                foreach (Command agent in joined) _ = agent.WaitForEnd(30);
            }
            int[] counts = [.. running.Select(r => r.GetAwaiter().GetResult())];
            string[] told = [.. loads.Zip(counts, (load, count) => $"{load.Name} {count}")];
            output.WriteLine($"{Kills} kills, seed {seed}; ran to their right ends: {string.Join(", ", told)}");
            Assert.All(counts, count => Assert.True(count > 0));
            Assert.DoesNotContain("vsmp report lost", cluster.Log(Guests), StringComparison.Ordinal);
        }, leavesAgents: [Guests], membership: etcd.Address);
    }

    private static bool IsMirrored(Cluster cluster)
    {
        string regions = cluster.Vsmp("region", "ls").Succeeded().Output;
        return !regions.Contains('%', StringComparison.Ordinal);
    }

    /// <summary>Runs it again and again, at least once to its end; if it goes wrong, all is over.</summary>
    private static int Repeat(Load load, CancellationTokenSource enough)
    {
        int count = 0;
        try
        {
            for (; count == 0 || !enough.IsCancellationRequested; count++) load.Run();
            return count;
        }
        catch
        {
            enough.Cancel();
            throw;
        }
    }

    private static Load Memtester(Cluster cluster) => new("memtester", () =>
    {
        using GuestCommand guest = cluster.Start(["memtester", "48M", "1"], local: "16M", node: Guests, redundancy: "mirror",
            environment: new() { ["MEMTESTER_TEST_MASK"] = "0x81" });
        guest.Command.EndInput();
        Outcome outcome = guest.Command.WaitForEnd(180).Succeeded();
        Assert.Contains("Done.", outcome.Output, StringComparison.Ordinal);
        Assert.DoesNotContain("FAILURE", outcome.Output, StringComparison.Ordinal);
    });

    /// <summary>Assembles; the contigs are to be those of the machine's own memory.</summary>
    private static Load Velvet(Cluster cluster, string reads)
    {
        Dictionary<string, string> environment = new() { ["OMP_NUM_THREADS"] = "1", ["LC_ALL"] = "C" };
        string native = cluster.Scratch("native"), pooled = cluster.Scratch("pooled");
        string[][] Steps(string folder) => [["velveth", folder, "31", "-fasta", "-short", reads], ["velvetg", folder, "-exp_cov", "auto", "-cov_cutoff", "auto"]];
        foreach (string[] step in Steps(native)) Command.Run(step[0], step[1..], environment).Succeeded();
        byte[] expected = File.ReadAllBytes(Path.Combine(native, "contigs.fa"));
        Assert.True(expected.Length > 40_000, "an assembly that is worth the name");
        return new("velvet", () =>
        {
            foreach (string[] step in Steps(pooled))
            {
                using GuestCommand guest = cluster.Start(step, local: "112M", node: Guests, environment: environment, redundancy: "mirror");
                guest.Command.EndInput();
                guest.Command.WaitForEnd(180).Succeeded();
            }
            Assert.True(expected.AsSpan().SequenceEqual(File.ReadAllBytes(Path.Combine(pooled, "contigs.fa"))), "contigs differ");
            Directory.Delete(pooled, recursive: true);
        });
    }

    /// <summary>Counts k-mers with one rank, on the guests' node; what it counts in is shared memory on all nodes.</summary>
    private static Load Counting(Cluster cluster)
    {
        string Count(params string[] options)
        {
            while (true)
            {
                string on = string.Join(',', cluster.Status().Where(node => node.Value.GetProperty("state").GetString() == "up").Select(node => node.Key).OrderBy(node => node != Guests));
                Outcome outcome = Command.Run(Paths.Vsmp, ["spmd", "-n", "1", "--on", on, .. options, "--", Path.Combine(Paths.Build, "vsmp-kmer"), "200000", "60000", "16"],
                    cluster.Environment, seconds: 180);
                if (outcome.ExitCode == 2 && outcome.Error.Contains("there is no node", StringComparison.Ordinal)) continue; // killed meanwhile
                return Assert.Single(outcome.Succeeded().Output.Split('\n'), line => line.StartsWith("checksum ", StringComparison.Ordinal));
            }
        }
        string expected = Count();
        return new("k-mers", () => Assert.Equal(expected, Count("--local", "8M", "--redundancy", "mirror")));
    }

    private sealed record Load(string Name, Action Run);
}
