// SPDX-License-Identifier: Apache-2.0
using System.Text.Json;
using System.Text.RegularExpressions;

namespace VSmp.SystemTests;

/// <summary>Ranks on several nodes that share memory: real agents, real processes, plain loads, stores and atomic instructions.</summary>
public sealed partial class SpmdTests
{
    private static string Seconds => Paths.IsLong ? "60" : "6";

    [Fact]
    public void Ranks_on_four_agents_share_a_region_at_one_address() => Cluster.Run(4, "64M", cluster =>
    {
        Outcome outcome = Spmd(cluster, ["-n", "4"], "spmd-hello", "200").Succeeded();
        string[] lines = [.. outcome.Output.Split('\n').Where(line => line.StartsWith("rank ", StringComparison.Ordinal)).Order()];
        Assert.Equal(4, lines.Length);
        Assert.Single(lines.Select(line => line[line.IndexOf(':')..]).Distinct()); // the sum and the address
    });

    [Fact]
    public void Several_ranks_of_a_node_share_its_pages() => Cluster.Run(2, "64M", cluster =>
    {
        Spmd(cluster, ["-n", "6", "--on", "n1,n0", "--name", "own"], "spmd-hello", "100").Succeeded();
        Spmd(cluster, ["-n", "3", "--on", "n1"], "spmd-hello", "100").Succeeded(); // a node alone
    });

    [Theory]
    [InlineData("msi")]
    [InlineData("mesi")]
    [InlineData("moesi")]
    public void Every_counter_is_exact_when_eight_ranks_hammer_the_same_pages_with_too_little_memory(string protocol) =>
        Cluster.Run(4, "64M", cluster =>
        {
            Outcome outcome = Spmd(cluster, ["-n", "8", "--local", "8M", "--protocol", protocol], "spmd-share", Seconds, "64", "8").Succeeded();
            Match match = ExactPattern().Match(outcome.Output);
            Assert.True(match.Success, outcome.Output);
            Assert.True(long.Parse(match.Groups[2].Value) > 100, $"a rank starves: {outcome.Output}");
        });

    [Theory]
    [InlineData("lazy", "4", "was not seen")]
    [InlineData("lazy", "8", "was not seen")] // two on each node
    [InlineData("mesi", "4", "was seen")]
    public void Ranks_that_order_themselves_by_the_library_alone_read_what_was_written_last(string protocol, string ranks, string unreleased) =>
        Cluster.Run(4, "64M", cluster =>
        {
            // Each rank walks through 6 MiB, which with their twins do not fit into 8.
            Outcome outcome = Spmd(cluster, ["-n", ranks, "--local", "8M", "--protocol", protocol], "spmd-lazy", Paths.IsLong ? "100" : "10", "6").Succeeded();
            Assert.Contains($"exact: ", outcome.Output, StringComparison.Ordinal);
            Assert.Contains($"a write that was not released {unreleased}", outcome.Output, StringComparison.Ordinal);
        });

    [Fact]
    public void An_instruction_that_needs_two_pages_gets_both_though_all_nodes_fight_for_them() => Cluster.Run(4, "64M", cluster =>
    {
        Spmd(cluster, ["-n", "4"], "spmd-cross", "5000").Succeeded();
        Spmd(cluster, ["-n", "8"], "spmd-cross", "1000").Succeeded(); // two on each node
    });

    [Theory]
    [InlineData("lock", "EOWNERDEAD")]
    [InlineData("barrier", "barrier: EPIPE")]
    [InlineData("start", "start: EPIPE")]
    public void A_rank_that_is_killed_releases_what_it_held_and_the_others_are_told(string where, string word) =>
        Cluster.Run(3, "64M", cluster =>
        {
            Outcome outcome = Spmd(cluster, ["-n", "3"], "spmd-die", where);
            Assert.True(outcome.ExitCode == 128 + Native.SIGKILL, $"exit code {outcome.ExitCode}\n{outcome.Output}\n{outcome.Error}");
            Assert.Contains("rank 1", outcome.Error, StringComparison.Ordinal);
            Assert.Contains("was killed by signal 9", outcome.Error, StringComparison.Ordinal);
            Assert.DoesNotContain("check failed", outcome.Error, StringComparison.Ordinal);
            Assert.Contains(word, outcome.Output, StringComparison.Ordinal);
            int told = outcome.Output.Split('\n').Count(line => line.Contains("EPIPE", StringComparison.Ordinal));
            Assert.True(told == 2, $"{told} ranks were told\n{outcome.Output}");
        });

    [Theory]
    [InlineData("name", "EPROTO", "the ranks disagree")]
    [InlineData("size", "EPROTO", "the ranks disagree")]
    [InlineData("call", "EPROTO", "vsmp_barrier()")]
    [InlineData("room", "ENOMEM", "the pool is exhausted")]
    [InlineData("address", "EEXIST", "rank 2 cannot map the region")]
    public void Ranks_that_disagree_are_all_told_and_can_go_on(string what, string error, string words) => Cluster.Run(3, "64M", cluster =>
    {
        Outcome outcome = Spmd(cluster, ["-n", "3"], "spmd-disagree", what).Succeeded();
        string[] told = [.. outcome.Output.Split('\n').Where(line => line.Contains(error + ": ", StringComparison.Ordinal))];
        Assert.True(told.Length == 3, outcome.Output);
        Assert.All(told, line => Assert.Contains(words, line, StringComparison.Ordinal));
    });

    [Fact]
    public void Listings_show_ranks_and_where_their_pages_are() => Cluster.Run(2, "64M", cluster =>
    {
        using Command job = Start(cluster, ["-n", "4", "--local", "8M"], "spmd-hold", "16");
        job.WaitFor("ready");
        string regions = cluster.Vsmp("region", "ls").Succeeded().Output;
        Assert.Matches("hold .*msi .*16 MiB", regions);
        Assert.Contains("n0", regions, StringComparison.Ordinal);
        Assert.Contains("n1", regions, StringComparison.Ordinal);
        string guests = cluster.Vsmp("guest", "ls").Succeeded().Output;
        Assert.Equal(4, guests.Split('\n').Count(line => line.Contains("spmd-hold", StringComparison.Ordinal)));
        // What a node has is known to the others by its last report.
        Wait.Until(() => AllHave(cluster, homeBytes: 8 << 20, cacheBytes: 8 << 20), 10, () => "memory to be set aside");
        job.EndInput();
        job.WaitForEnd().Succeeded();
        Wait.Until(() => AllHave(cluster, homeBytes: 0, cacheBytes: 0), 10, () => "memory to be given back");
    });

    private static bool AllHave(Cluster cluster, long homeBytes, long cacheBytes) => cluster.Status().Values.All(node =>
    {
        long Bytes(string column) => node.GetProperty(column).GetInt64();
        Assert.Equal(Bytes("contributedBytes"), Bytes("homeBytes") + Bytes("cacheBytes") + Bytes("freeBytes"));
        return (Bytes("homeBytes"), Bytes("cacheBytes")) == (homeBytes, cacheBytes);
    });

    [Fact]
    public void Ending_vsmp_spmd_ends_its_ranks() => Cluster.Run(2, "64M", cluster =>
    {
        using Command job = Start(cluster, ["-n", "4"], "spmd-hold", "8");
        job.WaitFor("ready");
        Assert.Equal(0, Native.Kill(job.ProcessId, Native.SIGKILL));
        // That nothing of the ranks is left is checked at the end.
    });

    [Fact]
    public void A_lost_agent_ends_the_job_with_a_message() => Cluster.Run(3, "64M", cluster =>
    {
        using Command job = Start(cluster, ["-n", "3"], "spmd-hold", "8");
        job.WaitFor("ready");
        cluster.KillNode("n2");
        Outcome outcome = job.WaitForEnd(60);
        Assert.Equal(9, outcome.ExitCode);
        Assert.Contains("n2", outcome.Error, StringComparison.Ordinal);
    }, leavesAgents: ["n0", "n1"]);

    [Fact]
    public void Statistics_tell_what_happened_at_each_node() => Cluster.Run(4, "64M", cluster =>
    {
        string file = cluster.Scratch("stats.json");
        Spmd(cluster, ["-n", "5", "--on", "n3,n2,n1", "--local", "8M", "--stats", file], "spmd-walk", "32").Succeeded();
        using JsonDocument job = JsonDocument.Parse(File.ReadAllText(file));
        Assert.Equal(["n3", "n2", "n1", "n3", "n2"], job.RootElement.GetProperty("rankNodes").EnumerateArray().Select(node => node.GetString()!));
        Assert.True(job.RootElement.GetProperty("wallSeconds").GetDouble() > 0);
        Dictionary<string, Statistics> nodes = Statistics.OfJob(file);
        Assert.Equal(["n1", "n2", "n3"], nodes.Keys.Order());
        Assert.All(nodes.Values, node =>
        {
            Assert.True(node.Faults > 0 && node["pagesFetched"] > 0 && node["pagesEvicted"] > 0 && node.FaultMicrosecondsP50 > 0, $"{node}");
            Assert.Equal(node["peakPoolBytes"], node.PeakHomeBytes.Values.Sum());
        });
    });

    [Fact]
    public void A_program_that_does_not_join_runs_as_it_is() => Cluster.Run(2, "64M", cluster =>
    {
        Outcome outcome = cluster.Vsmp("spmd", "-n", "3", "--", "sh", "-c", "echo $VSMP_RANK of $VSMP_SIZE").Succeeded();
        Assert.Equal(["0 of 3", "1 of 3", "2 of 3"], outcome.Output.Split('\n', StringSplitOptions.RemoveEmptyEntries).Order());
        cluster.Vsmp("spmd", "-n", "2", "--", "sh", "-c", "exit $((VSMP_RANK * 5))").FailedWith(5, "rank 1");
    });

    [Theory]
    [InlineData("VSMP_RANK=4000", "has no rank 4000")]
    [InlineData("VSMP_RANK=5000", "a number of 0 or more")]
    [InlineData("VSMP_RANK=$((1-VSMP_RANK))", "has no rank")]
    [InlineData("VSMP_JOB=0123", "its token is not of this agent")]
    public void A_process_that_claims_to_be_what_it_is_not_is_refused_and_harms_nobody(string claim, string words) => Cluster.Run(2, "64M", cluster =>
    {
        Outcome outcome = cluster.Vsmp("spmd", "-n", "2", "--", "sh", "-c", $"{claim} exec {Paths.Program("spmd-hello")}");
        Assert.NotEqual(0, outcome.ExitCode);
        Assert.Contains(words, outcome.Error, StringComparison.Ordinal);
        Spmd(cluster, ["-n", "2"], "spmd-hello", "20").Succeeded();
    });

    [Theory]
    [InlineData("-n: a job has", "-n", "0", "--", "true")]
    [InlineData("no protocol 'mosey'", "-n", "1", "--protocol", "mosey", "--", "true")]
    [InlineData("no node nix", "-n", "1", "--on", "nix", "--", "true")]
    [InlineData("named twice", "-n", "1", "--on", "n0,n0", "--", "true")]
    [InlineData("at most", "-n", "33", "--on", "n0", "--", "true")]
    [InlineData("cannot be mirrored", "-n", "1", "--protocol", "lazy", "--redundancy", "mirror", "--", "true")]
    public void What_cannot_be_is_a_usage_error(string words, params string[] arguments) =>
        Cluster.Run(1, "64M", cluster => cluster.Vsmp(["spmd", .. arguments]).FailedWith(2, words));

    private static Outcome Spmd(Cluster cluster, string[] options, params string[] program)
    {
        using Command command = Start(cluster, options, program);
        command.EndInput();
        return command.WaitForEnd();
    }

    private static Command Start(Cluster cluster, string[] options, params string[] program) =>
        new(Paths.Vsmp, ["spmd", .. options, "--", Paths.Program(program[0]), .. program[1..]], cluster.Environment);

    [GeneratedRegex(@"exact: (\d+) rounds, the slowest rank did (\d+)")]
    private static partial Regex ExactPattern();
}
