// SPDX-License-Identifier: Apache-2.0
namespace VSmp.SystemTests;

/// <summary>Who is excluded, who is not, and what becomes of the guests.</summary>
public sealed class MembershipTests
{
    [Fact]
    public void A_node_whose_agent_stands_still_for_a_while_is_not_excluded() => Cluster.Run(3, "128M", cluster =>
    {
        using GuestCommand guest = cluster.Start([Paths.Program("hold"), "100"], local: "32M", node: "n0");
        guest.Command.WaitFor("ready");
        int agent = cluster.ProcessId("n1");
        Assert.Equal(0, Native.Kill(agent, Native.SIGSTOP));
        Wait.Until(() => cluster.Status()["n0"].GetProperty("state").GetString() == "up", 10, () => "the coordinator's own state");
        Thread.Sleep(1500); // more than any silence of a host that is gone
        Assert.Equal(0, Native.Kill(agent, Native.SIGCONT));
        guest.Command.EndInput(); // it verifies what it holds, of which half is on n1
        guest.Command.WaitForEnd().Succeeded();
        Assert.Equal(3, cluster.Status().Count);
        Assert.DoesNotContain("has left", cluster.Log("n0"), StringComparison.Ordinal);
    });

    [Fact]
    public void Where_an_agent_stands_still_its_keeper_stops_the_guests_until_there_is_a_lease_again() => Cluster.Run(3, "128M", cluster =>
    {
        using GuestCommand guest = cluster.Start([Paths.Program("random"), "64", "8"], local: "32M", node: "n1");
        guest.Command.EndInput();
        Wait.Until(() => cluster.AllocatedBytes("n2") > Cluster.MiB(16), 60, () => "the guest's pages on n2");
        string process = GuestOf(cluster, "n1");
        for (int round = 0; round < 3; round++)
        {
            cluster.Vsmp("inject", "pause", "n1").Succeeded();
            Wait.Until(() => Stands(process), 10, () => "the guest runs on, though its node has no lease");
            cluster.Vsmp("inject", "resume", "n1").Succeeded();
            Wait.Until(() => !Stands(process), 10, () => $"the guest does not go on, though its node has a lease again:\n{cluster.Log("n1")}");
        }
        guest.Command.WaitForEnd(60).Succeeded(); // it verifies whatever it reads
        Assert.Equal(3, cluster.Status().Count);
    });

    [Fact]
    public void An_agent_that_stands_still_for_too_long_is_excluded_after_its_guests_were_stopped_and_ends_them_when_it_goes_on() => Cluster.Run(3, "128M", cluster =>
    {
        using GuestCommand guest = cluster.Start([Paths.Program("random"), "64", "600"], local: "32M", node: "n1");
        guest.Command.EndInput();
        Wait.Until(() => cluster.AllocatedBytes("n2") > Cluster.MiB(16), 60, () => "the guest's pages on n2");
        string process = GuestOf(cluster, "n1");
        cluster.Vsmp("inject", "pause", "n1").Succeeded();
        Wait.Until(() => cluster.Log("n0").Contains("node n1 is lost", StringComparison.Ordinal), 60, () => cluster.Log("n0"));
        Assert.True(Stands(process), "the others have taken the node for lost, and its guest runs");
        cluster.Vsmp("inject", "resume", "n1").Succeeded();
        Outcome ended = guest.Command.WaitForEnd(60);
        Assert.NotEqual(0, ended.ExitCode);
        Assert.Contains("in the cluster no more", ended.Error, StringComparison.Ordinal);
        Assert.Contains("vsmp-keeper: the lease has run out", cluster.Log("n1"), StringComparison.Ordinal);
    }, leavesAgents: ["n0", "n2"]);

    [Fact]
    public void A_node_that_is_cut_off_is_excluded_after_its_guests_were_stopped_and_ends_when_it_is_back() => Cluster.Run(4, "128M", cluster =>
    {
        using GuestCommand kept = cluster.Start([Paths.Program("random"), "64", "20"], local: "16M", node: "n0", redundancy: "mirror");
        kept.Command.EndInput();
        using GuestCommand cut = cluster.Start([Paths.Program("random"), "64", "600"], local: "32M", node: "n3");
        cut.Command.EndInput();
        Wait.Until(() => cluster.AllocatedBytes("n1") > Cluster.MiB(16) && cluster.AllocatedBytes("n3") > Cluster.MiB(16), 60, () => "the guests' pages");
        cluster.Vsmp("inject", "partition", "n3").Succeeded();
        Wait.Until(() => cluster.Log("n0").Contains("node n3 is lost", StringComparison.Ordinal), 60, () => cluster.Log("n0"));
        Assert.Contains("guests are stopped", cluster.Log("n3"), StringComparison.Ordinal);
        Assert.Contains("State:\tT", File.ReadAllText($"/proc/{GuestOf(cluster, "n3")}/status"), StringComparison.Ordinal);
        Wait.Until(() => cluster.Log("n0").Contains("nothing is lost", StringComparison.Ordinal), 60, () => cluster.Log("n0"));
        cluster.Vsmp("inject", "heal").Succeeded();
        Outcome ended = cut.Command.WaitForEnd(60);
        Assert.NotEqual(0, ended.ExitCode);
        Assert.Contains("in the cluster no more", ended.Error, StringComparison.Ordinal);
        kept.Command.WaitForEnd(90).Succeeded(); // it verifies whatever it reads
    }, leavesAgents: ["n0", "n1", "n2"]);

    [Fact]
    public void Without_the_coordinator_every_agent_ends_its_guests_and_itself_and_says_why() => Cluster.Run(3, "128M", cluster =>
    {
        using GuestCommand guest = cluster.Start([Paths.Program("random"), "64", "600"], local: "32M", node: "n1");
        guest.Command.EndInput();
        Wait.Until(() => cluster.AllocatedBytes("n2") > Cluster.MiB(16), 60, () => "the guest's pages on n2");
        int[] others = [cluster.ProcessId("n1"), cluster.ProcessId("n2")];
        cluster.KillNode("n0");
        Assert.Contains("the coordinator, node n0 at", guest.Command.WaitForEnd(60).Error, StringComparison.Ordinal);
        Wait.Until(() => !others.Any(p => Directory.Exists($"/proc/{p}")), 30, () => "the end of the other agents");
        foreach (string agent in new[] { "n1", "n2" })
            Assert.Contains("start the cluster anew", cluster.Log(agent), StringComparison.Ordinal);
    }, leavesAgents: []);

    /// <summary>Whether a process, which is not to have ended, is stopped.</summary>
    private static bool Stands(string process) => File.ReadAllText($"/proc/{process}/status").Contains("State:\tT", StringComparison.Ordinal);

    private static string GuestOf(Cluster cluster, string agent) => File.ReadAllLines($"{cluster.RunDirectory}/{agent}/guests")[0].Split(' ')[0];
}
