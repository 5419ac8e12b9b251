// SPDX-License-Identifier: Apache-2.0
using System.Net;
using System.Net.Sockets;

namespace VSmp.SystemTests;

/// <summary>Connections cut, agents killed, leftovers of a crash, garbage on the port.</summary>
public sealed class FailureTests
{
    [Fact]
    public void Connections_cut_again_and_again_cost_a_pause_and_not_the_job() => Cluster.Run(4, "128M", cluster =>
    {
        int cuts = 0;
        using GuestCommand guest = cluster.Start([Paths.Program("random"), "160", "6"], local: "32M");
        guest.Command.EndInput();
        for (int round = 0; guest.Command.IsRunning; round++)
        {
            cuts += Native.CutTcpConnections(cluster.ProcessId(cluster.Agents[round % 4]));
            Thread.Sleep(150); // between cuts, so that the program also makes progress
            Assert.True(round < 1000, "the program does not end");
        }
        Outcome outcome = guest.Command.WaitForEnd().Succeeded();
        Assert.True(cuts >= 10, $"only {cuts} connections were cut: this proves nothing\n{outcome.Output}");
        Assert.True(guest.Statistics["pagesFetched"] > 1000, $"{guest.Statistics}");
    });

    [Fact]
    public void Without_a_mirror_a_killed_agent_costs_what_only_it_had_and_who_does_not_touch_that_goes_on() =>
        Cluster.Run(4, "128M", cluster =>
        {
            using GuestCommand wide = cluster.Start([Paths.Program("hold"), "180"], local: "32M", node: "n0");
            wide.Command.WaitFor("ready");
            Assert.True(cluster.AllocatedBytes("n2") > 0, "nothing of the wide guest is on n2");
            using GuestCommand narrow = cluster.Start([Paths.Program("hold"), "20"], node: "n1");
            narrow.Command.WaitFor("ready");

            cluster.KillNode("n2");
            Wait.Until(() => wide.Command.Error.Contains("are lost", StringComparison.Ordinal), 60, () => $"word of the loss: {wide.Command.Error}");
            Assert.True(wide.Command.IsRunning, "the guest ended though it had not touched what is lost");
            string lost = cluster.Vsmp("report", "lost").Succeeded().Output;
            Assert.Contains("hold", lost, StringComparison.Ordinal);
            Assert.Contains("n2", lost, StringComparison.Ordinal);
            wide.Command.EndInput(); // now it touches all of it
            Outcome ended = wide.Command.WaitForEnd(60);
            Assert.Equal(128 + 7, ended.ExitCode); // SIGBUS
            Assert.Contains("n2", ended.Error, StringComparison.Ordinal);
            Assert.DoesNotContain("check failed", ended.Error, StringComparison.Ordinal);
            Assert.True(narrow.Command.IsRunning, "the guest that had nothing on n2 ended too");
            narrow.Command.EndInput();
            narrow.Command.WaitForEnd().Succeeded(); // verifies what it holds

            // What the killed agent had mounted is swept by the next `vsmp up` or `down`, which this test's end checks.
            Wait.Until(() => cluster.AllocatedBytes("n0") == 0 && cluster.AllocatedBytes("n1") == 0, 10, () => "the guests' pages");
        }, leavesAgents: ["n0", "n1", "n3"]);

    [Fact]
    public void A_guest_whose_own_agent_is_killed_ends_with_a_message_and_reads_nothing_wrong() => Cluster.Run(2, "128M", cluster =>
    {
        using GuestCommand guest = cluster.Start([Paths.Program("random"), "120", "60"], local: "32M", node: "n1");
        Wait.Until(() => cluster.AllocatedBytes("n0") > Cluster.MiB(16), 60, () => "the guest's pages on n0");
        cluster.KillNode("n1");
        guest.Command.WaitForEnd(60).FailedWith(9, "n1");
        Assert.DoesNotContain("check failed", guest.Command.Error, StringComparison.Ordinal);
    }, leavesAgents: ["n0"]);

    [Fact]
    public void Up_sweeps_what_a_crash_left_and_says_so() => Cluster.Run(2, "64M", cluster =>
    {
        foreach (string agent in cluster.Agents) cluster.KillNode(agent);
        Outcome up = cluster.Vsmp("up", "--agents", "2", "--memory", "64M").Succeeded();
        Assert.Contains("unmounted", up.Output + up.Error, StringComparison.Ordinal);
        cluster.Guest([Paths.Program("hold"), "40"]).Outcome.Succeeded();
    });

    [Fact]
    public void Garbage_on_the_port_does_an_agent_no_harm() => Cluster.Run(2, "128M", cluster =>
    {
        using GuestCommand guest = cluster.Start([Paths.Program("hold"), "120"], local: "32M");
        guest.Command.WaitFor("ready");
        IPEndPoint port = IPEndPoint.Parse(cluster.Status()["n0"].GetProperty("address").GetString()!);
        int seed = Environment.TickCount;
        Random random = new(seed);
        byte[] garbage = new byte[64 << 10];
        for (int connection = 0; connection < 200; connection++)
        {
            using TcpClient client = new();
            client.Connect(port);
            random.NextBytes(garbage);
            try { client.GetStream().Write(garbage, 0, random.Next(garbage.Length)); }
            catch (IOException) { } // it hung up on us, as it should
        }
        Assert.True(guest.Command.IsRunning, $"seed {seed}");
        guest.Command.EndInput();
        guest.Command.WaitForEnd().Succeeded();
        Assert.Equal(2, cluster.Status().Count(node => node.Value.GetProperty("state").GetString() == "up"));
    });
}
