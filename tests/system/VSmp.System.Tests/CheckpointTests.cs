// SPDX-License-Identifier: Apache-2.0
using System.Globalization;
using System.Text.RegularExpressions;

namespace VSmp.SystemTests;

/// <summary>
/// Checkpoints of ranks that know, of every page, what it has to be: whatever goes on from a generation that is older, newer or damaged finds it out.
/// </summary>
public sealed class CheckpointTests
{
    private static readonly string[] Tiers = ["disk", "partner", "xor"];
    private static readonly int KillMoments = Environment.GetEnvironmentVariable("VSMP_TEST_LONG") == "1" ? 50 : 10;

    [Theory]
    [InlineData("msi")]
    [InlineData("mesi")]
    [InlineData("moesi")]
    public void A_job_goes_on_from_a_generation_exactly_where_it_was(string protocol) => Run(3, (cluster, folder) =>
    {
        string[] program = ["12", "9", "25"];
        string whole = Spmd(cluster, ["-n", "3", "--protocol", protocol], program).Succeeded().Output;
        Assert.Contains("exact: ", whole, StringComparison.Ordinal);
        Assert.DoesNotContain("generation", whole, StringComparison.Ordinal); // without checkpoints vsmp_checkpoint is a barrier
        // Less memory than it uses: copies are evicted all the time.
        string[] options = ["-n", "3", "--protocol", protocol, "--local", "4M"];
        string part = Spmd(cluster, [.. options, "--checkpoint", "job"], ["12", "6", "25"]).Succeeded().Output;
        Assert.Equal(6, Regex.Count(part, "^generation ", RegexOptions.Multiline));
        string[] verified = cluster.Vsmp("checkpoint", "verify", "job", "--dir", folder).Succeeded().Output.Split('\n', StringSplitOptions.RemoveEmptyEntries);
        Assert.Equal(2, verified.Length);
        string rest = Spmd(cluster, [.. options, "--restart", "job"], program).Succeeded().Output;
        Assert.Contains("restored 6 at step 6", rest, StringComparison.Ordinal);
        Assert.Equal(Exact(whole), Exact(rest));
        // And once more, from the middle of what is there now.
        uint first = Generations(cluster, folder)[0];
        string again = Spmd(cluster, [.. options, "--restart", $"job@{first}"], program).Succeeded().Output;
        Assert.Contains($"restored {first} at step {first}", again, StringComparison.Ordinal);
        Assert.Equal(Exact(whole), Exact(again));
        Spmd(cluster, ["-n", "3", "--checkpoint", "job"], program).FailedWith(7, "there is a checkpoint job already");
        Spmd(cluster, ["-n", "2", "--restart", "job"], program).FailedWith(2, "is of 3 ranks");
        Spmd(cluster, ["-n", "3", "--restart", "nothing"], program).FailedWith(2, "there is no checkpoint nothing");
        Assert.Equal(0, cluster.Vsmp("checkpoint", "rm", "job", "--dir", folder).ExitCode);
        Assert.Empty(Directory.EnumerateFileSystemEntries(folder));
    });

    [Fact]
    public void A_mirrored_job_loses_a_home_after_its_restart_and_nothing_with_it() => Run(4, (cluster, folder) =>
    {
        string[] options = ["-n", "2", "--redundancy", "mirror", "--local", "4M"];
        Spmd(cluster, [.. options, "--checkpoint", "job"], ["12", "4", "25"]).Succeeded();
        using Command job = new(Paths.Vsmp, ["spmd", .. options, "--restart", "job", "--checkpoint-every", "100ms", "--", Paths.Program("spmd-checkpoint"), "12", "30", "25", "20000"], cluster.Environment);
        job.WaitFor("restored 4 at step 4");
        job.WaitFor("generation 5 ");
        cluster.KillNode("n3"); // home or mirror of what was restored
        Outcome outcome = job.WaitForEnd(90).Succeeded();
        Assert.Contains("exact: ", outcome.Output, StringComparison.Ordinal);
        Assert.True(Generations(cluster, folder)[^1] > 5, outcome.Output + outcome.Error);
        cluster.Vsmp("checkpoint", "verify", "job", "--dir", folder).Succeeded();
    }, leaves: ["n0", "n1", "n2"]);

    [Fact]
    public void Killed_nodes_cost_a_job_with_ha_nothing_but_time()
    {
        int seed = Environment.TickCount;
        Random random = new(seed);
        string? expected = null;
        var restored = new HashSet<string>(); // tiers
        for (int moment = 0; moment < KillMoments; moment++)
        {
            string victim = $"n{random.Next(1, 4)}", tier = Tiers[moment % Tiers.Length];
            string log = "";
            Run(4, (cluster, folder) =>
            {
                string[] program = ["8", "40", "20", "3000"];
                expected ??= Exact(Spmd(cluster, ["-n", "3"], program).Succeeded().Output);
                using Command job = new(Paths.Vsmp, ["spmd", "-n", "3", "--ha", "--checkpoint", "job", "--checkpoint-tier", tier, "--", Paths.Program("spmd-checkpoint"), .. program], cluster.Environment);
                job.WaitFor("generation 1 ");
                Thread.Sleep(random.Next(1500)); // in compute, capture, copy or commit
                cluster.KillNode(victim);
                Outcome outcome = job.WaitForEnd(90);
                log = $"(seed {seed}, moment {moment}, {victim}, {tier})\n{outcome.Output}\n{outcome.Error}";
                Assert.True(outcome.ExitCode == 0, log);
                Assert.True(expected == Exact(outcome.Output), log);
                if (outcome.Output.Contains("restored ", StringComparison.Ordinal)) restored.Add(tier);
                if (tier == "disk") cluster.Vsmp("checkpoint", "verify", "job", "--dir", folder).Succeeded();
                else RequireNothingLeft(cluster);
            }, leaves: [.. new[] { "n0", "n1", "n2", "n3" }.Where(node => node != victim)]);
        }
        Assert.Equal(Tiers.Length, restored.Count); // in a second of many, a generation is safe
    }

    [Theory]
    [InlineData("partner")]
    [InlineData("xor")]
    public void What_is_in_memory_stays_when_a_job_fails_and_goes_when_it_is_done(string tier) => Run(3, (cluster, folder) =>
    {
        string[] program = ["8", "400", "20", "1000"], memory = ["--memory", "--dir", folder];
        using (Command job = new(Paths.Vsmp, ["spmd", "-n", "3", "--checkpoint", "job", "--checkpoint-tier", tier, "--", Paths.Program("spmd-checkpoint"), .. program], cluster.Environment))
        {
            job.WaitFor("generation 3 ");
            cluster.Vsmp(["checkpoint", "rm", "job", .. memory]).FailedWith(7, "a running job writes it");
            job.Signal(Native.SIGTERM);
            job.WaitForEnd();
        }
        // An agent that is killed has it all the same when it is back: it is in files that outlive it.
        _ = Native.Kill(cluster.ProcessId("n1"), Native.SIGKILL);
        string verified = "";
        Wait.Until(() => cluster.Vsmp(["checkpoint", "verify", "job", .. memory]) is { ExitCode: 0 } outcome && (verified = outcome.Output).Length > 0, 30, () => "the files of n1");
        Assert.Contains(": sound: ", verified, StringComparison.Ordinal);
        Assert.Matches(@"job +\d", cluster.Vsmp(["checkpoint", "ls", .. memory]).Succeeded().Output);
        uint last = uint.Parse(Regex.Match(cluster.Vsmp(["checkpoint", "show", "job", .. memory]).Succeeded().Output, @"job, generation (\d+),").Groups[1].Value, CultureInfo.InvariantCulture);
        string[] rest = ["8", (last + 3).ToString(CultureInfo.InvariantCulture), "20"];
        Spmd(cluster, ["-n", "3", "--checkpoint", "job", "--checkpoint-tier", tier], rest).FailedWith(7, "there is a checkpoint job already");
        string output = Spmd(cluster, ["-n", "3", "--restart", "job", "--checkpoint-tier", tier], rest).Succeeded().Output;
        Assert.Contains($"restored {last} at step {last}", output, StringComparison.Ordinal);
        Assert.Equal(Exact(Spmd(cluster, ["-n", "3"], rest).Succeeded().Output), Exact(output));
        RequireNothingLeft(cluster);
    });

    [Fact]
    public void Memory_that_a_checkpoint_has_no_room_in_costs_the_generation_and_nothing_else() => Run(2, (cluster, folder) =>
    {
        // Of 128 MiB a half is for copies, 50 are homes.
        Outcome outcome = Spmd(cluster, ["-n", "2", "--checkpoint", "job", "--checkpoint-tier", "partner"], ["100", "2", "100"]).Succeeded();
        Assert.Contains("exact: ", outcome.Output, StringComparison.Ordinal);
        Assert.Contains("the pool has no room for", outcome.Error, StringComparison.Ordinal);
        RequireNothingLeft(cluster);
        Spmd(cluster, ["-n", "2", "--checkpoint", "job", "--checkpoint-tier", "tape"], ["8", "2"]).FailedWith(2, "'tape' is none of disk, partner, xor");
    });

    [Fact]
    public void A_job_whose_agents_are_killed_goes_on_and_so_do_its_checkpoints() => Run(3, (cluster, folder) =>
    {
        using Command job = new(Paths.Vsmp, ["spmd", "-n", "3", "--checkpoint", "job", "--", Paths.Program("spmd-checkpoint"), "8", "80", "20", "5000"], cluster.Environment);
        job.WaitFor("generation 2 ");
        Random random = new(Environment.TickCount);
        for (int i = 0; i < 6; i++)
        {
            Thread.Sleep(random.Next(600));
            if (!job.IsRunning) break;
            _ = Native.Kill(cluster.ProcessId($"n{random.Next(3)}"), Native.SIGKILL);
            int kills = i + 1;
            Wait.Until(() => !job.IsRunning || Regex.Count(job.Error, " is back after ") >= kills, 30, () => $"the agent\n{job.Error}");
        }
        Outcome outcome = job.WaitForEnd(90).Succeeded();
        Assert.Contains("exact: ", outcome.Output, StringComparison.Ordinal);
        cluster.Vsmp("checkpoint", "verify", "job", "--dir", folder).Succeeded();
        string again = Spmd(cluster, ["-n", "3", "--restart", "job"], ["8", "80", "20"]).Succeeded().Output;
        Assert.Equal(Exact(outcome.Output), Exact(again));
    });

    [Fact]
    public void A_full_disk_costs_the_generation_and_nothing_else()
    {
        // A file system of its own, of a known size.
        string mount = Directory.CreateTempSubdirectory("vsmp-full-").FullName;
        Command.Run("/bin/mount", ["-t", "tmpfs", "-o", "size=40m", "tmpfs", mount]).Succeeded();
        try
        {
            Run(2, (cluster, folder) =>
            {
                // The first generation fits, the others do not: each has nearly all pages.
                Outcome outcome = Spmd(cluster, ["-n", "2", "--checkpoint", "job"], ["24", "5", "100"]).Succeeded();
                Assert.Contains("exact: ", outcome.Output, StringComparison.Ordinal);
                Assert.Contains("is given up, the one before stays", outcome.Error, StringComparison.Ordinal);
                Assert.Contains("No space left on device", outcome.Error, StringComparison.Ordinal);
                Assert.Equal([1], Generations(cluster, folder));
                cluster.Vsmp("checkpoint", "verify", "job", "--dir", folder).Succeeded();
                string rest = Spmd(cluster, ["-n", "2", "--restart", "job"], ["24", "5", "100"]).Succeeded().Output;
                Assert.Equal(Exact(outcome.Output), Exact(rest));
            }, folder: mount);
        }
        finally
        {
            Command.Run("/bin/umount", [mount]).Succeeded();
            Directory.Delete(mount);
        }
    }

    [Fact]
    public void What_cannot_be_gone_on_from_is_refused_with_the_reason() => Run(2, (cluster, folder) =>
    {
        Spmd(cluster, ["-n", "2", "--checkpoint", "job"], ["16", "3", "50"]).Succeeded();
        string manifest = Path.Combine(folder, "job", "g00000003", "manifest"), text = File.ReadAllText(manifest);

        // A damaged page: found when the job goes on from it.
        string pages = Path.Combine(folder, "job", "g00000003", "n1.pages");
        byte[] bytes = File.ReadAllBytes(pages);
        bytes[5000] ^= 4;
        File.WriteAllBytes(pages, bytes);
        Assert.Contains("has another checksum", Spmd(cluster, ["-n", "2", "--restart", "job"], ["16", "3", "50"]).Error, StringComparison.Ordinal);
        Assert.Equal(10, cluster.Vsmp("checkpoint", "verify", "job", "--dir", folder).ExitCode);
        bytes[5000] ^= 4;
        File.WriteAllBytes(pages, bytes);

        // A newer format: by that name, before anything else of it is understood.
        File.WriteAllText(manifest, Sealed(text.Replace("\"format\": 1", "\"format\": 2", StringComparison.Ordinal)));
        Spmd(cluster, ["-n", "2", "--restart", "job@3"], ["16", "3", "50"]).FailedWith(1, "has format 2, and this vsmp reads format 1: use a newer one");
        Outcome older = Spmd(cluster, ["-n", "2", "--restart", "job"], ["16", "3", "50"]).Succeeded(); // the latest that is sound
        Assert.Contains("restored 2 at step 2", older.Output, StringComparison.Ordinal);

        // A smaller pool.
        Spmd(cluster, ["-n", "2", "--checkpoint", "large"], ["100", "1", "1"]).Succeeded();
        Cluster.Run(2, "32M", small =>
        {
            Outcome outcome = Spmd(small, ["-n", "2", "--restart", "large"], ["100", "2", "1"]);
            Assert.NotEqual(0, outcome.ExitCode);
            Assert.Contains("the pool is exhausted: region state needs 100 MiB", outcome.Error, StringComparison.Ordinal);
        }, checkpoints: folder);

        // Two that write one checkpoint.
        using Command first = new(Paths.Vsmp, ["spmd", "-n", "2", "--checkpoint", "both", "--", Paths.Program("spmd-checkpoint"), "16", "100", "20", "20000"], cluster.Environment);
        first.WaitFor("generation 1 ");
        Spmd(cluster, ["-n", "2", "--restart", "both"], ["16", "3", "50"]).FailedWith(7, "is in use");
        cluster.Vsmp("checkpoint", "rm", "both", "--dir", folder).FailedWith(7, "a running job writes it");
        first.Signal(Native.SIGTERM);
        first.WaitForEnd();
        cluster.Vsmp("checkpoint", "rm", "both", "--dir", folder).Succeeded();

        Spmd(cluster, ["-n", "2", "--protocol", "lazy", "--checkpoint", "lazy"], ["16", "1"]).FailedWith(2, "cannot be checkpointed");
    });

    [Fact]
    public void A_rank_that_is_killed_during_checkpoints_leaves_a_generation_to_go_on_from() => Run(2, (cluster, folder) =>
    {
        string[] program = ["16", "400", "20", "1000"];
        using (Command job = new(Paths.Vsmp, ["spmd", "-n", "2", "--checkpoint", "job", "--", Paths.Program("spmd-checkpoint"), .. program], cluster.Environment))
        {
            job.WaitFor("generation 3 ");
            int rank = Command.Run("/bin/ps", ["-o", "pid=", "--ppid", job.ProcessId.ToString(CultureInfo.InvariantCulture)]).Succeeded().Output
                .Split('\n', StringSplitOptions.RemoveEmptyEntries | StringSplitOptions.TrimEntries).Select(line => int.Parse(line, CultureInfo.InvariantCulture)).First();
            Assert.Equal(0, Native.Kill(rank, Native.SIGKILL));
            Assert.Equal(128 + Native.SIGKILL, job.WaitForEnd().ExitCode);
        }
        cluster.Vsmp("checkpoint", "verify", "job", "--dir", folder).Succeeded();
        uint last = Generations(cluster, folder)[^1];
        string[] rest = ["16", (last + 2).ToString(CultureInfo.InvariantCulture), "20"];
        string output = Spmd(cluster, ["-n", "2", "--restart", "job"], rest).Succeeded().Output;
        Assert.Contains($"restored {last} at step {last}", output, StringComparison.Ordinal);
        Assert.Equal(Exact(Spmd(cluster, ["-n", "2"], rest).Succeeded().Output), Exact(output));
    });

    [Fact]
    public void A_checkpoint_of_a_job_that_runs_is_taken_when_it_next_allows_it_and_restored_as_it_was_run() => Run(2, (cluster, folder) =>
    {
        string[] program = ["16", "60", "20", "50000"];
        string output;
        using (Command job = new(Paths.Vsmp, ["spmd", "-n", "2", "--", Paths.Program("spmd-checkpoint"), .. program], cluster.Environment))
        {
            Wait.Until(() => cluster.Vsmp("region", "ls").Output.Contains("state", StringComparison.Ordinal), 30, () => "the region");
            cluster.Vsmp("checkpoint", "create", "x", "nowhere").FailedWith(2, "there is no region nowhere");
            string said = cluster.Vsmp("checkpoint", "create", "x", "state").Succeeded().Output;
            Assert.Contains("generation 1 of checkpoint x is safe", said, StringComparison.Ordinal);
            cluster.Vsmp("checkpoint", "create", "other", "state").FailedWith(7, "the job has a checkpoint, x");
            Assert.Contains("generation 2 ", cluster.Vsmp("checkpoint", "create", "x", "state").Succeeded().Output, StringComparison.Ordinal);
            output = job.WaitForEnd(90).Succeeded().Output;
        }
        Outcome restored = cluster.Vsmp("checkpoint", "restore", "x", "--generation", "1", "--dir", folder).Succeeded();
        Assert.Matches(@"restored 1 at step \d+\n", restored.Output);
        Assert.Equal(Exact(output), Exact(restored.Output));
    });

    [Fact]
    public void Memory_of_a_program_is_kept_to_be_looked_at_and_nothing_goes_on_from_it() => Run(2, (cluster, folder) =>
    {
        using GuestCommand guest = cluster.Start([Paths.Program("hold"), "24"], local: "8M");
        guest.Command.WaitFor("ready");
        string region = cluster.Vsmp("region", "ls").Succeeded().Output.Split('\n')[1].Split(' ', StringSplitOptions.RemoveEmptyEntries)[1];
        cluster.Vsmp("checkpoint", "create", "look", region).Succeeded();
        cluster.Vsmp("checkpoint", "create", "look", region).Succeeded();
        cluster.Vsmp("checkpoint", "verify", "look", "--dir", folder).Succeeded();
        cluster.Vsmp("checkpoint", "diff", "look@1", "look@2", "--dir", folder).Succeeded(); // it only holds it
        cluster.Vsmp("checkpoint", "restore", "look", "--dir", folder).FailedWith(5, "whose registers nobody has saved");
        Spmd(cluster, ["-n", "1", "--restart", "look"], ["16"]).FailedWith(5, "whose registers nobody has saved");
        Assert.Matches(@"look +1-2 .* hold +0 +", cluster.Vsmp("checkpoint", "ls", "--dir", folder).Succeeded().Output);
    });

    /// <summary>Nothing of a checkpoint is in the memory of any node; what a node has is a report at most 0.2 s old.</summary>
    private static void RequireNothingLeft(Cluster cluster)
    {
        string status = "";
        Wait.Until(() => Regex.IsMatch(status = cluster.Vsmp("status").Succeeded().Output, @"^all +\S+ \S+ +0 B +0 B ", RegexOptions.Multiline), 10, () => status);
        Assert.Equal(0, cluster.Vsmp("audit").ExitCode);
    }

    private static void Run(int agents, Action<Cluster, string> test, IReadOnlyList<string>? leaves = null, string? folder = null)
    {
        string own = folder ?? Directory.CreateTempSubdirectory("vsmp-checkpoints-").FullName;
        try { Cluster.Run(agents, "128M", cluster => test(cluster, own), leaves, checkpoints: own); }
        finally
        {
            if (folder is null) Directory.Delete(own, recursive: true);
        }
    }

    private static Outcome Spmd(Cluster cluster, string[] options, string[] program) =>
        cluster.Vsmp(["spmd", .. options, "--", Paths.Program("spmd-checkpoint"), .. program]);

    /// <summary>What the ranks have found at the end; that there is none is no result.</summary>
    private static string Exact(string output)
    {
        Match exact = Regex.Match(output, "^exact: .*$", RegexOptions.Multiline);
        Assert.True(exact.Success, output);
        return exact.Value;
    }

    private static uint[] Generations(Cluster cluster, string folder)
    {
        string line = cluster.Vsmp("checkpoint", "ls", "--dir", folder).Succeeded().Output.Split('\n').Single(l => l.StartsWith("job ", StringComparison.Ordinal));
        return [.. Regex.Match(line, @"^job +(\d.*?)  ").Groups[1].Value.Split(", ").SelectMany(span =>
        {
            uint[] ends = [.. span.Split('-').Select(n => uint.Parse(n, CultureInfo.InvariantCulture))];
            return Enumerable.Range((int)ends[0], (int)(ends[^1] - ends[0]) + 1).Select(n => (uint)n);
        })];
    }

    /// <summary>A manifest with a checksum of its own.</summary>
    private static string Sealed(string manifest)
    {
        string body = manifest[..(manifest.LastIndexOf("crc32c ", StringComparison.Ordinal))];
        uint crc = uint.MaxValue;
        foreach (byte b in System.Text.Encoding.UTF8.GetBytes(body))
        {
            crc ^= b;
            for (int i = 0; i < 8; i++) crc = (crc >> 1) ^ (0x82F63B78 & (0 - (crc & 1)));
        }
        return string.Create(CultureInfo.InvariantCulture, $"{body}crc32c {~crc:x8}\n");
    }
}
