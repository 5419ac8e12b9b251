// SPDX-License-Identifier: Apache-2.0
namespace VSmp.SystemTests;

/// <summary>etcd is up, and one node of the cluster cannot reach it, while it sees the others and they see it.</summary>
public sealed class EtcdPartitionTests
{
    private const string Far = "far";

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void A_node_that_etcd_is_cut_off_from_keeps_its_guests_and_learns_of_a_loss_from_the_others(bool swallows)
    {
        using EtcdServer etcd = new();
        etcd.Start();
        using EtcdProxy way = new(etcd.Address);
        Cluster.Run(3, "96M", cluster =>
        {
            using Command far = new(Path.Combine(Paths.Build, "vsmp-keeper"),
            [
                "--", Paths.Vsmp, "agent", "--name", Far, "--memory", "96M", "--listen", "127.0.0.1:0", "--secret", $"{cluster.RunDirectory}/secret",
                "--membership", way.Address,
            ], cluster.Environment);
            Wait.Until(() => far.Error.Contains($"agent {Far} is ready", StringComparison.Ordinal) || !far.IsRunning, 30, () => far.Error,
                then: () => Assert.True(far.IsRunning, far.Error));
            using GuestCommand there = Roaming(cluster, Far), here = Roaming(cluster, "n0");

            way.Cut(swallows);
            Wait.Until(() => far.Error.Contains("etcd cannot be reached", StringComparison.Ordinal), 30, () => far.Error);
            GoOn(1, there, here);
            cluster.KillNode("n2");
            Wait.Until(() => far.Error.Contains("n2 (node 2) has left in view", StringComparison.Ordinal), 30, () => far.Error + cluster.Log("n0"));
            Wait.Until(() => far.Error.Contains("nothing is lost", StringComparison.Ordinal) && cluster.Log("n0").Contains("nothing is lost", StringComparison.Ordinal), 30,
                () => far.Error + cluster.Log("n0"));
            GoOn(2, there, here);
            Assert.DoesNotContain("etcd is back", far.Error, StringComparison.Ordinal);
            Assert.DoesNotContain("etcd cannot be reached", cluster.Log("n0"), StringComparison.Ordinal);

            Assert.Contains("by majority", cluster.Vsmp("status").Succeeded().Output, StringComparison.Ordinal);
            way.Heal();
            Wait.Until(() => far.Error.Contains("etcd is back", StringComparison.Ordinal), 30, () => far.Error);
            GoOn(3, there, here);
            string healed = cluster.Vsmp("status").Succeeded().Output;
            Assert.Contains("by majority", healed, StringComparison.Ordinal);
            Assert.DoesNotContain("cannot be reached", healed, StringComparison.Ordinal);
            Assert.Equal([(Far, "up"), ("n0", "up"), ("n1", "up")],
                cluster.Status().Select(node => (node.Key, node.Value.GetProperty("state").GetString()!)).Order());
            foreach (GuestCommand guest in (GuestCommand[])[there, here])
            {
                guest.Command.EndInput();
                Assert.Contains("\n0 pages are lost\n", guest.Command.WaitForEnd(30).Succeeded().Output, StringComparison.Ordinal);
            }
            far.Signal(Native.SIGTERM);
            far.WaitForEnd(30).Succeeded();
            Wait.Until(() => cluster.Status().Keys.Order(StringComparer.Ordinal).SequenceEqual(["n0", "n1"]), 30, () => $"{Far} has not left");
        }, leavesAgents: ["n0", "n1"], membership: etcd.Address);
    }

    /// <summary>A mirrored guest that goes on reading and writing all over its memory, and verifies whatever it reads.</summary>
    private static GuestCommand Roaming(Cluster cluster, string node)
    {
        GuestCommand guest = cluster.Start([Paths.Program("survive"), "32", "roam"], local: "8M", node: node, redundancy: "mirror");
        guest.Command.WaitFor("ready");
        return guest;
    }

    private static void GoOn(int times, params GuestCommand[] guests)
    {
        foreach (GuestCommand guest in guests)
        {
            guest.Command.Type("\n");
            guest.Command.WaitFor($"line {times}\n", 30);
        }
    }
}
