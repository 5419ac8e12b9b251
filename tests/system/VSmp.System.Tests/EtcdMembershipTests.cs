// SPDX-License-Identifier: Apache-2.0
namespace VSmp.SystemTests;

/// <summary>Clusters that decide by majority, with the record in etcd: any node may be killed, the founder too, and etcd for a while.</summary>
public sealed class EtcdMembershipTests
{
    [Fact]
    public void The_founder_and_etcd_are_killed_and_a_mirrored_guest_goes_on()
    {
        using EtcdServer etcd = new();
        etcd.Start();
        Cluster.Run(4, "128M", cluster =>
        {
            Assert.Contains("by majority", cluster.Vsmp("status").Succeeded().Output, StringComparison.Ordinal);
            using GuestCommand guest = cluster.Start([Paths.Program("random"), "64", "12"], local: "32M", node: "n1", redundancy: "mirror");
            guest.Command.EndInput();
            Wait.Until(() => cluster.AllocatedBytes("n0") > Cluster.MiB(8), 60, () => "the guest's pages on n0");

            etcd.Kill();
            Wait.Until(() => cluster.Log("n1").Contains("etcd cannot be reached", StringComparison.Ordinal), 30, () => cluster.Log("n1"));
            Assert.Contains("nobody can join, leave or be excluded", cluster.Vsmp("status").Succeeded().Output, StringComparison.Ordinal);
            cluster.KillNode("n0");
            Wait.Until(() => cluster.Log("n1").Contains("n0 (node 0) is suspected", StringComparison.Ordinal), 30, () => cluster.Log("n1"));
            Assert.DoesNotContain("has left in view", cluster.Log("n1"), StringComparison.Ordinal);

            etcd.Start();
            Wait.Until(() => cluster.Log("n1").Contains("nothing is lost", StringComparison.Ordinal), 60, () => cluster.Log("n1"));
            Wait.Until(() => cluster.Log("n1").Contains("every page has a mirror again", StringComparison.Ordinal), 60, () => cluster.Log("n1"));
            guest.Command.WaitForEnd(90).Succeeded(); // it verifies whatever it reads
            Assert.Equal(["n1", "n2", "n3"], cluster.Status().Keys.Order(StringComparer.Ordinal));
        }, leavesAgents: ["n1", "n2", "n3"], membership: etcd.Address);
    }

    [Fact]
    public void A_killed_founder_that_is_started_again_is_a_member_again_each_time()
    {
        using EtcdServer etcd = new();
        etcd.Start();
        Cluster.Run(3, "64M", cluster =>
        {
            List<Command> started = [];
            try
            {
                for (int round = 1; round <= 3; round++)
                {
                    cluster.KillNode("n0");
                    Command agent = new(Paths.Vsmp,
                    [
                        "agent", "--name", "n0", "--memory", "64M", "--listen", "127.0.0.1:0", "--secret", $"{cluster.RunDirectory}/secret",
                        "--membership", etcd.Address,
                    ], cluster.Environment);
                    started.Add(agent);
                    Wait.Until(() => agent.Error.Contains("agent n0 is ready", StringComparison.Ordinal) || !agent.IsRunning, 60, () => agent.Error,
                        then: () => Assert.True(agent.IsRunning, agent.Error));
                    Assert.Equal(2 + round, cluster.Status()["n0"].GetProperty("id").GetInt32());
                }
                started[^1].Signal(Native.SIGTERM);
                started[^1].WaitForEnd().Succeeded();
                Wait.Until(() => cluster.Log("n1").Contains("n0 (node 5) has left in view", StringComparison.Ordinal), 30, () => cluster.Log("n1"));
            }
            finally
            {
                foreach (Command agent in started) agent.Dispose();
            }
        }, leavesAgents: ["n1", "n2"], membership: etcd.Address);
    }

    [Fact]
    public void Without_etcd_there_is_no_cluster_and_the_reason_is_said()
    {
        Prerequisites.Check();
        string name = Cluster.NewName();
        Dictionary<string, string> environment = new() { ["VSMP_CLUSTER"] = name };
        Command.Run(Paths.Vsmp, ["up", "--memory", "64M", "--membership", "etcd://127.0.0.1:1"], environment)
            .FailedWith(3, "127.0.0.1:1: Connection refused");
        Command.Run(Paths.Vsmp, ["up", "--memory", "64M", "--membership", "etcd://127.0.0.1"], environment).FailedWith(2, "has no port");
        Assert.Empty(Leftovers.Of(name));
    }
}
