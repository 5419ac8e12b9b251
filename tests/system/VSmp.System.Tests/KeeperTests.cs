// SPDX-License-Identifier: Apache-2.0
namespace VSmp.SystemTests;

/// <summary>Agents started by keepers: what becomes of guests when one or both of them are killed.</summary>
public sealed class KeeperTests
{
    [Fact]
    public void When_the_agent_is_killed_alone_the_guest_goes_on_with_the_next_one() => Cluster.Run(2, "128M", cluster =>
    {
        using GuestCommand guest = cluster.Start([Paths.Program("hold"), "24"], local: "16M", node: "n0");
        guest.Command.WaitFor("ready");
        int keeper = cluster.KeeperId("n0");
        foreach (string node in (string[])["n0", "n1", "n0"])
        {
            int agent = cluster.ProcessId(node);
            Assert.Equal(0, Native.Kill(agent, Native.SIGKILL));
            Wait.Until(() => File.Exists($"{cluster.RunDirectory}/{node}/agent.pid") && cluster.ProcessId(node) != agent, 30, () => $"another agent of {node}");
            Wait.Until(() => cluster.Status().Values.All(n => n.GetProperty("state").GetString() == "up"), 30, () => $"{node} is not back: {cluster.Log(node)}");
        }
        Assert.Equal(keeper, cluster.KeeperId("n0"));
        guest.Command.EndInput();
        Outcome ended = guest.Command.WaitForEnd(60);
        ended.Succeeded();
        Assert.Contains("n0: its agent was killed and is back after", ended.Error, StringComparison.Ordinal);
        Assert.Contains("took over 1 guest", cluster.Log("n0"), StringComparison.Ordinal);
        Assert.Contains("took over 0 guests, and 1 region", cluster.Log("n1"), StringComparison.Ordinal);
    });

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void When_the_keeper_is_killed_the_guests_end_and_the_cluster_comes_up_again(bool killsAgent) => Cluster.Run(1, "128M", cluster =>
    {
        using GuestCommand guest = cluster.Start([Paths.Program("hold"), "24"]);
        guest.Command.WaitFor("ready");
        int agent = cluster.ProcessId("n0"), keeper = cluster.KeeperId("n0");
        int process = int.Parse(File.ReadAllLines($"{cluster.RunDirectory}/n0/guests")[0].Split(' ')[0]);
        if (killsAgent) cluster.KillNode("n0");
        else Assert.Equal(0, Native.Kill(keeper, Native.SIGKILL));

        Outcome ended = guest.Command.WaitForEnd(60);
        if (killsAgent) ended.FailedWith(9, "agent n0 was lost");
        else Assert.NotEqual(0, ended.ExitCode);
        Assert.DoesNotContain("check failed", ended.Error, StringComparison.Ordinal);
        Wait.Until(() => !Array.Exists([agent, keeper, process], p => Directory.Exists($"/proc/{p}")), 30, () => "the end of agent, keeper and guest");
        if (!killsAgent) Assert.Contains("vsmp-keeper, which started this agent, is dead", cluster.Log("n0"), StringComparison.Ordinal);

        cluster.Vsmp("up", "--agents", "1", "--memory", cluster.Memory).Succeeded();
        Assert.Equal(0, cluster.AllocatedBytes("n0"));
        cluster.Guest([Paths.Program("hold"), "24"]).Outcome.Succeeded();
    });

    [Fact]
    public void A_lazy_job_ends_with_a_message_when_an_agent_is_killed_alone() => Cluster.Run(2, "64M", cluster =>
    {
        using Command job = new(Paths.Vsmp, ["spmd", "-n", "2", "--protocol", "lazy", "--", Paths.Program("spmd-hold"), "8"], cluster.Environment);
        job.WaitFor("ready");
        Assert.Equal(0, Native.Kill(cluster.ProcessId("n1"), Native.SIGKILL));
        Outcome outcome = job.WaitForEnd(60);
        Assert.True(outcome.ExitCode == 9, $"exit code {outcome.ExitCode}\n{outcome.Error}");
        Assert.Contains("the agent of node n1 was started again; ranks of the job ran there: the job ends", outcome.Error, StringComparison.Ordinal);
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
