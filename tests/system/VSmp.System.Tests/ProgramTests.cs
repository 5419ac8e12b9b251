// SPDX-License-Identifier: Apache-2.0
namespace VSmp.SystemTests;

/// <summary>Unchanged programs, from the distribution and our own, on four agents.</summary>
public sealed class ProgramTests
{
    [Fact]
    public void Memtester_passes_within_a_local_budget_that_holds_a_third_of_it() => Cluster.Run(4, "128M", cluster =>
    {
        Statistics? statistics = null;
        long peak = cluster.PeakAllocatedBytes("n0", () =>
        {
            // The "stuck address" test always runs; the mask adds random values and sequential increments.
            (Outcome outcome, statistics) = cluster.Guest(["memtester", "100M", "1"], local: "32M", seconds: Paths.IsLong ? 7200 : 200,
                environment: Paths.IsLong ? null : new() { ["MEMTESTER_TEST_MASK"] = "0x81" });
            Assert.Contains("Done.", outcome.Succeeded().Output, StringComparison.Ordinal);
            Assert.DoesNotContain("FAILURE", outcome.Output, StringComparison.Ordinal);
        });
        long budget = Cluster.MiB(32) * 11 / 10;
        Assert.InRange(statistics!["peakLocalBytes"], 1, budget);
        Assert.InRange(peak, 1, budget);
        Assert.True(statistics["peakPoolBytes"] >= Cluster.MiB(95), $"less than 95 % of the memory was pooled: {statistics}");
        Assert.True(statistics["pagesFetched"] > 0 && statistics["pagesWrittenBack"] > 0, $"{statistics}");
    });

    [Fact]
    public void More_memory_than_any_node_has_reads_back_what_was_written() => Cluster.Run(4, "512M", cluster =>
    {
        string[] program = Paths.IsLong ? ["memtester", "900M", "1"] : [Paths.Program("sequential"), "900"];
        (Outcome outcome, Statistics statistics) = cluster.Guest(program, local: "128M", seconds: Paths.IsLong ? 7200 : 200,
            environment: new() { ["MEMTESTER_TEST_MASK"] = "0x81" });
        outcome.Succeeded();
        Assert.InRange(statistics["peakLocalBytes"], 1, Cluster.MiB(128) * 11 / 10);
        Assert.InRange(statistics["peakPoolBytes"], Cluster.MiB(900), double.MaxValue);
        // Its own node is home of what the others have no room for: of nothing.
        Assert.All(cluster.Agents.Where(node => node != "n0"), node => Assert.InRange(statistics.PeakHomeBytes[node], 1, Cluster.MiB(512)));
    });

    [Fact]
    public void Fresh_memory_is_granted_in_runs_and_sequential_access_is_read_ahead() => Cluster.Run(2, "256M", cluster =>
    {
        (Outcome outcome, Statistics statistics) = cluster.Guest([Paths.Program("sequential"), "200"], local: "64M");
        outcome.Succeeded();
        const double Pages = 200 * 256;
        // Each page is touched for writing once and for reading once.
        Assert.True(statistics.Faults < Pages / 2, $"{statistics.Faults} faults for two passes over {Pages} pages: {statistics}");
    });

    [Fact]
    public void Stress_ng_forks_then_maps_and_verifies() => Cluster.Run(4, "256M", cluster =>
    {
        (Outcome outcome, Statistics statistics) = cluster.Guest(["stress-ng", "--vm", "2", "--vm-bytes", "300M", "--vm-method", "all",
            "--verify", "-t", Paths.IsLong ? "30s" : "10s"], seconds: 180);
        outcome.Succeeded();
        Assert.True(statistics["pagesFetched"] > 0, $"nothing came from another node: {statistics}");
    });

    [Theory]
    [InlineData("heap-check", "160")]
    [InlineData("threads-check", "3", "64")]
    [InlineData("fork-tree", "48")]
    [InlineData("remap-check", "96")]
    [InlineData("random", "96", "3")]
    public void A_check_program_finds_memory_as_Linux_promises_it(params string[] program) => Cluster.Run(4, "128M", cluster =>
    {
        (Outcome outcome, Statistics statistics) = cluster.Guest([Paths.Program(program[0]), .. program[1..]], local: "32M");
        outcome.Succeeded();
        Assert.True(statistics["peakPoolBytes"] > 0, $"{statistics}");
    });

    [Fact]
    public void A_shell_pipeline_with_one_large_program_in_it_runs() => Cluster.Run(2, "128M", cluster =>
    {
        // sort's buffer is the large program; the others never outgrow the threshold.
        (Outcome outcome, Statistics statistics) = cluster.Guest(["sh", "-c",
            "seq 1 1000000 | awk '{ print ($1 * 7919) % 1000003 }' | sort -n -S 60M --parallel=1 | md5sum"], local: "24M");
        Outcome native = Command.Run("sh", ["-c",
            "seq 1 1000000 | awk '{ print ($1 * 7919) % 1000003 }' | sort -n -S 60M --parallel=1 | md5sum"]);
        Assert.Equal(native.Succeeded().Output, outcome.Succeeded().Output);
        Assert.True(statistics["peakPoolBytes"] > Cluster.MiB(16), $"{statistics}");
    });

    [Fact]
    public void Make_runs_two_large_programs_side_by_side() => Cluster.Run(4, "128M", cluster =>
    {
        string makefile = cluster.Scratch("Makefile");
        File.WriteAllText(makefile, $"all: a b c\na b c:\n\t@{Paths.Program("heap-check")} 48 && touch $@\n");
        (Outcome outcome, Statistics statistics) = cluster.Guest(["make", "-j2", "-C", Path.GetDirectoryName(makefile)!], local: "32M");
        outcome.Succeeded();
        Assert.True(File.Exists(cluster.Scratch("a")) && File.Exists(cluster.Scratch("c")));
        Assert.True(statistics["peakPoolBytes"] > Cluster.MiB(48), $"{statistics}");
    });

    [Fact]
    public void A_python_script_has_children_that_are_large() => Cluster.Run(4, "128M", cluster =>
    {
        string script = cluster.Scratch("script.py");
        File.WriteAllText(script, """
            import subprocess, sys, time
            if len(sys.argv) > 1:
                seed = int(sys.argv[1])
                numbers = [(i * 7919 + seed) % 1000003 for i in range(100000)]
                data = bytearray(b"%d" % seed) * 24_000_000
                numbers.sort()
                print('ready', flush=True)
                sys.stdin.readline()
                print(sum(numbers[::1000]) + len(data) + data[12345678] + data.find(b'x'))
            else:
                children = [subprocess.Popen([sys.executable, __file__, str(s)], stdin=subprocess.PIPE, stdout=subprocess.PIPE) for s in (1, 2, 3)]
                for c in children: c.stdout.readline()
                time.sleep(0.5) # all of them are large at the same time
                print([int(c.communicate(b'go')[0]) for c in children], [c.returncode for c in children])
            """);
        string[] program = [File.Exists("/usr/bin/python3") ? "/usr/bin/python3" : "python3", script];
        (Outcome outcome, Statistics statistics) = cluster.Guest(program, local: "64M");
        Outcome native = Command.Run(program[0], program[1..]);
        Assert.Equal(native.Succeeded().Output, outcome.Succeeded().Output);
        Assert.True(statistics["peakPoolBytes"] > Cluster.MiB(60), $"{statistics}");
    });

    [Fact]
    public void Four_guests_at_once_on_different_nodes_are_each_right() => Cluster.Run(4, "192M", cluster =>
    {
        GuestCommand[] guests = [.. cluster.Agents.Select(node =>
            cluster.Start([Paths.Program("heap-check"), "96"], local: "32M", node: node))];
        try
        {
            foreach (GuestCommand guest in guests)
            {
                guest.Command.EndInput();
                guest.Command.WaitForEnd(180).Succeeded();
                Assert.InRange(guest.Statistics["peakLocalBytes"], 1, Cluster.MiB(32) * 11 / 10);
            }
        }
        finally
        {
            foreach (GuestCommand guest in guests) guest.Dispose();
        }
    });
}
