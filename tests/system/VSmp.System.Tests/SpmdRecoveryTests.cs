// SPDX-License-Identifier: Apache-2.0
using System.Text.RegularExpressions;

namespace VSmp.SystemTests;

/// <summary>Nodes are killed that are only home, or mirror, of what the ranks of a job share: the ranks go on. And one that has ranks: the job ends.</summary>
public sealed class SpmdRecoveryTests
{
    [Fact]
    public void Memory_nodes_that_are_killed_one_after_the_other_cost_a_mirrored_job_nothing()
    {
        int seed = Environment.TickCount;
        Random random = new(seed);
        string[] others = ["n2", "n3", "n4"];
        random.Shuffle(others);
        string[] victims = others[..2];
        Cluster.Run(5, "64M", cluster =>
        {
            // Ranks on n0 and n1; more shared memory than both may hold copies of.
            using Command job = Start(cluster, ["-n", "2", "--local", "8M", "--redundancy", "mirror"], "spmd-rounds", "24");
            job.WaitFor("ready");
            Assert.Matches("rounds .* mirror ", cluster.Vsmp("region", "ls").Succeeded().Output);
            Thread.Sleep(random.Next(500)); // at any moment
            cluster.KillNode(victims[0]);
            Wait.Until(() => Count(cluster.Log("n0"), "every page has a mirror again") == 1, 30,
                () => $"new mirrors after the loss of {victims[0]} (seed {seed}):\n{cluster.Log("n0")}");
            cluster.KillNode(victims[1]);
            Wait.Until(() => Count(cluster.Log("n0"), "nothing is lost") == 2, 30,
                () => $"the end of the recovery after the loss of {victims[1]} (seed {seed}):\n{cluster.Log("n0")}");
            Assert.Matches("rounds .* mirror 0 %, no room", cluster.Vsmp("region", "ls").Succeeded().Output);
            job.EndInput();
            Outcome outcome = job.WaitForEnd(60).Succeeded(); // it verifies whatever it reads
            Assert.Contains("exact: ", outcome.Output, StringComparison.Ordinal);
            Assert.DoesNotContain("report lost", cluster.Log("n0"), StringComparison.Ordinal);
        }, leavesAgents: ["n0", "n1", others[2]]);
    }

    /// <summary>A node is lost while the agent that leads is away, or the agent is killed while it deals with a node that is lost.</summary>
    [Theory]
    [InlineData("msi", false)]
    [InlineData("msi", true)]
    [InlineData("mesi", false)]
    [InlineData("moesi", true)]
    public void The_agent_that_leads_is_killed_around_the_loss_of_a_node(string protocol, bool isNodeFirst)
    {
        int seed = Environment.TickCount;
        Random random = new(seed);
        string[] victims = ["n2", "n3", "n4"];
        random.Shuffle(victims);
        Cluster.Run(5, "64M", cluster =>
        {
            using Command job = Start(cluster, ["-n", "2", "--local", "8M", "--redundancy", "mirror", "--protocol", protocol], "spmd-rounds", "24");
            job.WaitFor("ready");
            for (int loss = 0; loss < 2; loss++)
            {
                Thread.Sleep(random.Next(300));
                foreach (bool isNode in new[] { isNodeFirst, !isNodeFirst })
                {
                    if (isNode) cluster.KillNode(victims[loss]);
                    else Assert.Equal(0, Native.Kill(cluster.ProcessId("n0"), Native.SIGKILL));
                    Thread.Sleep(random.Next(700)); // the other one: while it is dead, starts, adopts, asks, recovers, fills mirrors; or is about to find out
                }
                // With two nodes left that may be mirrors, each page gets another one; with one, none can.
                string outcome = loss == 0 ? "rounds .* mirror  " : "rounds .* mirror 0 %, no room";
                Wait.Until(() => Regex.IsMatch(cluster.Vsmp("region", "ls").Output, outcome) && !cluster.Vsmp("status").Output.Contains(victims[loss], StringComparison.Ordinal), 30,
                    () => $"the end of the recovery after the loss of {victims[loss]} (seed {seed}):\n{cluster.Vsmp("region", "ls").Output}\n{cluster.Log("n0")}\n{job.Error}");
                Assert.True(job.IsRunning, $"the job has ended (seed {seed})\n{job.Error}");
            }
            job.EndInput();
            Outcome end = job.WaitForEnd(60).Succeeded();
            Assert.Contains("exact: ", end.Output, StringComparison.Ordinal);
            Assert.DoesNotContain("report lost", cluster.Log("n0"), StringComparison.Ordinal);
        }, leavesAgents: ["n0", "n1", victims[2]]);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void Without_mirrors_what_nobody_has_is_lost_and_only_who_touches_it_ends(bool touches) => Cluster.Run(4, "64M", cluster =>
    {
        string[] program = ["spmd-hold", "32", .. touches ? new[] { "again" } : []];
        using Command job = Start(cluster, ["-n", "2", "--local", "8M"], program);
        job.WaitFor("ready");
        cluster.KillNode("n3");
        Wait.Until(() => job.Error.Contains("of region hold are lost", StringComparison.Ordinal), 30, () => $"word of the loss: {job.Error}");
        Assert.True(job.IsRunning, "the job ended though no rank had touched what is lost");
        Assert.Matches("n0 +- +spmd-hold +hold +n3 ", cluster.Vsmp("report", "lost").Succeeded().Output);
        job.EndInput();
        Outcome outcome = job.WaitForEnd(60);
        Assert.True(touches == (outcome.ExitCode != 0), $"exit code {outcome.ExitCode}\n{outcome.Error}");
        if (!touches) return;
        // Rank 1 gets SIGBUS, and reads nothing that is wrong before; rank 0, which waits for it to finish, may be the first to end.
        Assert.Contains("touched memory that was lost with node n3", outcome.Error, StringComparison.Ordinal);
        Assert.DoesNotContain("check failed: rank 1", outcome.Error, StringComparison.Ordinal);
    }, leavesAgents: ["n0", "n1", "n2"]);

    [Fact]
    public void A_node_with_ranks_that_is_killed_ends_a_mirrored_job_with_a_message() => Cluster.Run(4, "64M", cluster =>
    {
        using Command job = Start(cluster, ["-n", "2", "--redundancy", "mirror"], "spmd-hold", "8");
        job.WaitFor("ready");
        cluster.KillNode("n1");
        Outcome outcome = job.WaitForEnd(60);
        Assert.Equal(9, outcome.ExitCode);
        Assert.Contains("n1 was lost; the job cannot go on", outcome.Error, StringComparison.Ordinal);
    }, leavesAgents: ["n0", "n2", "n3"]);

    private static Command Start(Cluster cluster, string[] options, params string[] program) =>
        new(Paths.Vsmp, ["spmd", .. options, "--", Paths.Program(program[0]), .. program[1..]], cluster.Environment);

    private static int Count(string text, string what) => text.Split(what).Length - 1;
}
