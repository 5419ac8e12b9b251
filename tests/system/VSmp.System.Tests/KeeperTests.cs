// SPDX-License-Identifier: Apache-2.0
namespace VSmp.SystemTests;

/// <summary>Agents started by keepers: what becomes of guests when one or both of them are killed.</summary>
public sealed class KeeperTests
{
    [Fact]
    public void Ranks_of_an_agent_that_is_killed_alone_end_their_job_with_a_message() => Cluster.Run(2, "64M", cluster =>
    {
        using Command job = new(Paths.Vsmp, ["spmd", "-n", "2", "--", Paths.Program("spmd-hold"), "8"], cluster.Environment);
        job.WaitFor("ready");
        Assert.Equal(0, Native.Kill(cluster.ProcessId("n1"), Native.SIGKILL));
        Outcome outcome = job.WaitForEnd(60);
        Assert.True(outcome.ExitCode == 9, $"exit code {outcome.ExitCode}\n{outcome.Error}");
        Assert.Contains("agent n1 was lost; the job cannot go on", outcome.Error, StringComparison.Ordinal);
    }, leavesAgents: ["n0"]);

    [Fact]
    public void SIGTERM_to_the_keeper_ends_the_node_in_order() => Cluster.Run(2, "64M", cluster =>
    {
        int agent = cluster.ProcessId("n1"), keeper = cluster.KeeperId("n1");
        Assert.Equal(0, Native.Kill(keeper, Native.SIGTERM));
        Wait.Until(() => !Array.Exists([agent, keeper], p => Directory.Exists($"/proc/{p}")), 30, () => "the end of agent and keeper");
        Assert.False(Directory.Exists($"{cluster.RunDirectory}/n1"), "an agent that has ended in order leaves no folder");
        Wait.Until(() => cluster.Status().Count == 1, 30, () => "n1 has not left");
    }, leavesAgents: ["n0"]);
}
