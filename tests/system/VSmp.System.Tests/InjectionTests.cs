// SPDX-License-Identifier: Apache-2.0
namespace VSmp.SystemTests;

/// <summary>Programs on pooled memory while the network is made bad by <c>vsmp inject</c>.</summary>
public sealed class InjectionTests
{
    [Fact]
    public void A_program_gets_the_right_answer_over_a_network_that_flips_delays_and_loses() => Cluster.Run(3, "128M", cluster =>
    {
        foreach (string agent in cluster.Agents)
        {
            cluster.Vsmp("inject", "corrupt", agent, "1", "--seed", "7").Succeeded();
            cluster.Vsmp("inject", "delay", agent, "20ms", "--share", "1").Succeeded();
        }
        using GuestCommand guest = cluster.Start(["stress-ng", "--vm", "1", "--vm-bytes", "64M", "--vm-method", "rand-set", "--vm-ops", "3072", "--verify"],
            local: "32M", node: "n0");
        guest.Command.EndInput();
        int losses = 0;
        for (; guest.Command.IsRunning; losses++)
        {
            // On for a while, off for a while.
            cluster.Vsmp("inject", "drop", cluster.Agents[losses % 3], losses % 2 == 0 ? "0.3" : "0").Succeeded();
            Assert.True(losses < 1000, "the program does not end");
        }
        Outcome outcome = guest.Command.WaitForEnd().Succeeded();
        Assert.DoesNotContain("FAIL", outcome.Error, StringComparison.Ordinal);
        Assert.True(guest.Statistics["pagesFetched"] > 1000, $"{guest.Statistics}");
        string list = cluster.Vsmp("inject", "list").Succeeded().Output;
        Assert.True(Happened(list, "corrupt") >= 10 && Happened(list, "delay") >= 10, $"hardly anything was injected: this proves nothing\n{list}");
        Assert.Contains("injected:", cluster.Vsmp("status").Succeeded().Output, StringComparison.Ordinal);
        cluster.Vsmp("inject", "heal").Succeeded();
    });

    [Fact]
    public void Spikes_of_delay_in_a_third_of_all_messages_cost_time_and_no_node() => Cluster.Run(3, "128M", cluster =>
    {
        using GuestCommand guest = cluster.Start([Paths.Program("random"), "64", "12"], local: "32M", node: "n0", redundancy: "mirror");
        guest.Command.EndInput();
        Wait.Until(() => cluster.AllocatedBytes("n1") > Cluster.MiB(8), 60, () => "the guest's pages on n1");
        Thread.Sleep(3_000); // the network is known to be quick by then
        foreach (string agent in cluster.Agents) cluster.Vsmp("inject", "delay", agent, "300ms", "--share", "30").Succeeded();
        Outcome ended = guest.Command.WaitForEnd(180).Succeeded(); // it verifies whatever it reads
        Assert.True(Happened(cluster.Vsmp("inject", "list").Succeeded().Output, "delay") >= 100, ended.Error);
        cluster.Vsmp("inject", "heal").Succeeded();
        Assert.Equal(["n0", "n1", "n2"], cluster.Status().Keys.Order());
        Assert.All(cluster.Agents, agent => Assert.DoesNotContain("has left", cluster.Log(agent), StringComparison.Ordinal));
    });

    [Fact]
    public void A_killed_node_is_a_loss_that_names_it() => Cluster.Run(2, "128M", cluster =>
    {
        using GuestCommand other = cluster.Start([Paths.Program("hold"), "100"], local: "32M", node: "n0");
        other.Command.WaitFor("ready");
        cluster.Vsmp("inject", "kill", "n1").Succeeded();
        Assert.Contains("n1", other.Command.WaitForEnd(60).Error, StringComparison.Ordinal);
    }, leavesAgents: ["n0"]);

    /// <summary>How often a kind of fault has happened at all nodes.</summary>
    private static long Happened(string list, string fault) => list.Split('\n')
        .Where(line => line.Contains(fault, StringComparison.Ordinal))
        .Sum(line => long.Parse(line.Split(' ', StringSplitOptions.RemoveEmptyEntries)[^2]));
}
