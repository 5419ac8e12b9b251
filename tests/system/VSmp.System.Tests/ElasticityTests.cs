// SPDX-License-Identifier: Apache-2.0
using System.Text.Json;

namespace VSmp.SystemTests;

/// <summary>Nodes leave and join under guests that verify their memory.</summary>
public sealed class ElasticityTests
{
    [Theory]
    [InlineData("none")]
    [InlineData("mirror")]
    public void A_node_is_emptied_under_a_running_guest_and_leaves(string redundancy) => Cluster.Run(4, "128M", cluster =>
    {
        using GuestCommand guest = StartGuest(cluster, redundancy, seconds: 20);
        Audit(cluster, guest);
        Assert.Contains("n2 is empty, and leaves the cluster", cluster.Vsmp("node", "drain", "n2").Succeeded().Output, StringComparison.Ordinal);
        Wait.Until(() => !cluster.Status().ContainsKey("n2"), 20, () => "n2 to be gone");
        Audit(cluster, guest);
        guest.Command.WaitForEnd(60).Succeeded(); // it verifies whatever it reads
        Assert.DoesNotContain("pages are lost", cluster.Log("n0"), StringComparison.Ordinal);
    }, leavesAgents: ["n0", "n1", "n3"]);

    [Fact]
    public void Draining_that_is_stopped_goes_on_later_and_what_was_moved_stays_moved() => Cluster.Run(4, "128M", cluster =>
    {
        using GuestCommand guest = StartGuest(cluster, "mirror", seconds: 20);
        long before = Home(cluster, "n1");
        using (Command drain = new(Paths.Vsmp, ["node", "drain", "n1"], cluster.Environment))
        {
            Wait.Until(() => !drain.IsRunning || Home(cluster, "n1") < before, 30, () => drain.Output);
            if (drain.IsRunning) drain.Signal(Native.SIGTERM);
            _ = drain.WaitForEnd();
        }
        if (State(cluster, "n1") == "up")
        {
            Audit(cluster, guest);
            Assert.True(Home(cluster, "n1") < before);
            cluster.Vsmp("node", "drain", "n1").Succeeded();
        }
        Wait.Until(() => !cluster.Status().ContainsKey("n1"), 20, () => "n1 to be gone");
        Audit(cluster, guest);
        guest.Command.WaitForEnd(60).Succeeded();
    }, leavesAgents: ["n0", "n2", "n3"]);

    [Fact]
    public void A_node_that_joins_gets_its_share_when_nodes_are_rebalanced() => Cluster.Run(3, "128M", cluster =>
    {
        using GuestCommand guest = StartGuest(cluster, "none", seconds: 20);
        string seed = cluster.Status()["n0"].GetProperty("address").GetString()!;
        using Command joined = new(Paths.Vsmp, ["agent", "--name", "n9", "--memory", "128M", "--listen", "127.0.0.1:0", "--join", seed, "--secret",
            $"{cluster.RunDirectory}/secret"], cluster.Environment);
        Wait.Until(() => cluster.Status().ContainsKey("n9") && State(cluster, "n9") == "up", 30, () => joined.Error);
        Assert.Contains("nodes are filled as evenly as can be", cluster.Vsmp("node", "rebalance").Succeeded().Output, StringComparison.Ordinal);
        long[] homes = [.. ((string[])["n1", "n2", "n9"]).Select(n => Home(cluster, n))];
        Assert.True(homes.Max() - homes.Min() <= Cluster.MiB(8), string.Join(", ", homes));
        Audit(cluster, guest);
        guest.Command.WaitForEnd(60).Succeeded();
        cluster.Vsmp("node", "drain", "n9").Succeeded();
        joined.WaitForEnd(30).Succeeded();
    });

    [Fact]
    public void A_node_is_not_emptied_where_there_is_no_room_and_waits_for_its_own_guests() => Cluster.Run(3, "128M", cluster =>
    {
        using GuestCommand guest = cluster.Start([Paths.Program("hold"), "150"], local: "16M", node: "n0");
        guest.Command.WaitFor("ready");
        long before = Home(cluster, "n1");
        Outcome refused = cluster.Vsmp("node", "drain", "n1");
        Assert.Equal(6, refused.ExitCode);
        Assert.Contains("MiB of the", refused.Error, StringComparison.Ordinal);
        Assert.Equal(("up", before), (State(cluster, "n1"), Home(cluster, "n1")));
        Assert.Equal(5, cluster.Vsmp("node", "drain", "n0").ExitCode); // it coordinates
        guest.Command.EndInput();
        guest.Command.WaitForEnd().Succeeded();

        using GuestCommand own = cluster.Start([Paths.Program("hold"), "30"], local: "16M", node: "n2");
        own.Command.WaitFor("ready");
        using Command drain = new(Paths.Vsmp, ["node", "drain", "n2"], cluster.Environment);
        drain.WaitFor("it cannot leave before these have ended: guest");
        Assert.Equal("draining", State(cluster, "n2"));
        Assert.Contains("is being drained", cluster.Vsmp("run", "--node", "n2", "--", "/bin/true").Error, StringComparison.Ordinal);
        own.Command.EndInput();
        own.Command.WaitForEnd().Succeeded();
        Assert.Contains("n2 is empty, and leaves the cluster", drain.WaitForEnd().Succeeded().Output, StringComparison.Ordinal);
        Wait.Until(() => !cluster.Status().ContainsKey("n2"), 20, () => "n2 to be gone");
    }, leavesAgents: ["n0", "n1"]);

    private static GuestCommand StartGuest(Cluster cluster, string redundancy, int seconds)
    {
        GuestCommand guest = cluster.Start([Paths.Program("random"), "64", $"{seconds}"], local: "24M", node: "n0", redundancy: redundancy);
        guest.Command.EndInput();
        Wait.Until(() => cluster.Status().Sum(n => n.Value.GetProperty("usedBytes").GetInt64()) > Cluster.MiB(64), 60, () => "the guest's memory to be filled");
        return guest;
    }

    private static void Audit(Cluster cluster, GuestCommand guest)
    {
        Outcome audit = cluster.Vsmp("audit", "--json");
        Assert.True(audit.ExitCode == 0, audit.Output + audit.Error);
        JsonElement report = JsonDocument.Parse(audit.Output).RootElement;
        Assert.Equal(0, report.GetProperty("findings").GetArrayLength());
        if (guest.Command.IsRunning) Assert.True(report.GetProperty("pages").GetInt64() >= 64 * 256, audit.Output);
    }

    private static long Home(Cluster cluster, string node) =>
        cluster.Status().TryGetValue(node, out JsonElement status) ? status.GetProperty("homeBytes").GetInt64() : 0;

    private static string State(Cluster cluster, string node) =>
        cluster.Status().TryGetValue(node, out JsonElement status) ? status.GetProperty("state").GetString()! : "gone";
}
