// SPDX-License-Identifier: Apache-2.0
namespace VSmp.SystemTests;

/// <summary>What <c>vsmp run</c> passes through, what it gives back, and what happens at the limits of the pool.</summary>
public sealed class RunTests
{
    [Fact]
    public void Input_output_exit_code_and_signals_pass_through() => Cluster.Run(1, "64M", cluster =>
    {
        using (GuestCommand guest = cluster.Start(["sh", "-c", "read line; echo got $line; echo oops >&2; exit 42"]))
        {
            guest.Command.Type("hello\n");
            Outcome outcome = guest.Command.WaitForEnd();
            Assert.Equal((42, "got hello\n", "oops\n"), (outcome.ExitCode, outcome.Output, outcome.Error));
        }
        using (GuestCommand guest = cluster.Start(["sh", "-c", "trap 'echo caught; exit 7' TERM; echo ready; while :; do sleep 0.05; done"]))
        {
            guest.Command.WaitFor("ready");
            guest.Command.Signal(Native.SIGTERM);
            Outcome outcome = guest.Command.WaitForEnd();
            Assert.Equal(7, outcome.ExitCode);
            Assert.Contains("caught", outcome.Output, StringComparison.Ordinal);
        }
        Assert.Equal(128 + 11, cluster.Guest(["sh", "-c", "kill -SEGV $$"]).Outcome.ExitCode);
    });

    [Fact]
    public void A_guest_that_is_killed_gives_every_page_back() => Cluster.Run(4, "128M", cluster =>
    {
        using GuestCommand guest = cluster.Start([Paths.Program("hold"), "160"], local: "32M");
        guest.Command.WaitFor("ready");
        Assert.All(cluster.Agents, agent => Assert.True(cluster.AllocatedBytes(agent) > 0, $"nothing of it is on {agent}"));
        int[] processes = GuestProcesses(cluster);
        Assert.Single(processes);
        Assert.Equal(0, Native.Kill(processes[0], Native.SIGKILL));
        Assert.Equal(128 + Native.SIGKILL, guest.Command.WaitForEnd().ExitCode);
        cluster.AllPagesAreGivenBack();
    });

    [Fact]
    public void A_run_whose_supervisor_is_killed_leaves_no_guest() => Cluster.Run(2, "128M", cluster =>
    {
        using GuestCommand guest = cluster.Start([Paths.Program("hold"), "100"], local: "32M");
        guest.Command.WaitFor("ready");
        int process = GuestProcesses(cluster).Single();
        guest.Command.Signal(Native.SIGKILL);
        Wait.Until(() => !Directory.Exists($"/proc/{process}"), 10, () => $"the end of guest {process}");
        cluster.AllPagesAreGivenBack();
    });

    [Fact]
    public void Guest_stop_ends_a_guest() => Cluster.Run(2, "128M", cluster =>
    {
        using GuestCommand guest = cluster.Start([Paths.Program("hold"), "64"]);
        guest.Command.WaitFor("ready");
        cluster.Vsmp("guest", "stop", $"{GuestProcesses(cluster).Single()}").Succeeded();
        Assert.NotEqual(0, guest.Command.WaitForEnd().ExitCode);
    });

    [Fact]
    public void An_exhausted_pool_says_no_at_allocation_and_everybody_goes_on() => Cluster.Run(2, "96M", cluster =>
    {
        using GuestCommand other = cluster.Start([Paths.Program("hold"), "48"], local: "24M", node: "n1");
        other.Command.WaitFor("ready");
        (Outcome outcome, _) = cluster.Guest([Paths.Program("exhaust")], local: "24M", node: "n0");
        outcome.Succeeded();
        Assert.Contains("hold", outcome.Error, StringComparison.Ordinal); // who has the rest
        Assert.True(other.Command.IsRunning);
        other.Command.EndInput();
        other.Command.WaitForEnd().Succeeded();
        // The pool is whole again. (A guest has all of the other nodes, but of its own no more than --local.)
        cluster.Guest([Paths.Program("hold"), "80"], local: "24M").Outcome.Succeeded();
    });

    /// <summary>Frames that hold copies then become homes; what was in them goes to where it belongs.</summary>
    [Fact]
    public void What_finds_no_place_elsewhere_has_its_home_here_up_to_half_of_the_budget() => Cluster.Run(2, "96M", cluster =>
    {
        (Outcome outcome, Statistics statistics) = cluster.Guest([Paths.Program("exhaust")], local: "64M", node: "n0");
        outcome.Succeeded();
        Assert.InRange(statistics.PeakHomeBytes["n1"], Cluster.MiB(90), Cluster.MiB(96));
        Assert.InRange(statistics.PeakHomeBytes["n0"], Cluster.MiB(26), Cluster.MiB(32));
        Assert.InRange(statistics["peakLocalBytes"], Cluster.MiB(32), Cluster.MiB(64));
        cluster.AllPagesAreGivenBack();
    });

    [Fact]
    public void Status_columns_add_up_while_a_guest_runs() => Cluster.Run(3, "128M", cluster =>
    {
        using GuestCommand guest = cluster.Start([Paths.Program("hold"), "150"], local: "32M");
        guest.Command.WaitFor("ready");
        double home = 0;
        Wait.Until(() => // what a node has is known to the others by its last report
        {
            home = 0;
            foreach (var (name, node) in cluster.Status())
            {
                double Bytes(string column) => node.GetProperty(column).GetDouble();
                Assert.Equal(Cluster.MiB(128), Bytes("contributedBytes"));
                Assert.True(Bytes("contributedBytes") == Bytes("homeBytes") + Bytes("cacheBytes") + Bytes("freeBytes"), $"{name}: {node}");
                home += Bytes("homeBytes");
            }
            return home >= Cluster.MiB(140);
        }, 10, () => $"140 MiB of homes; there are {home} bytes");
        Assert.Contains("hold", cluster.Vsmp("guest", "ls").Succeeded().Output, StringComparison.Ordinal);
        Assert.Contains("hold", cluster.Vsmp("region", "ls").Succeeded().Output, StringComparison.Ordinal);
        guest.Command.EndInput();
        guest.Command.WaitForEnd().Succeeded();
    });

    /// <summary>Processes that are attached, as their agents have written them down.</summary>
    internal static int[] GuestProcesses(Cluster cluster) => [.. cluster.Agents
        .Select(agent => $"{cluster.RunDirectory}/{agent}/guests").Where(File.Exists).SelectMany(File.ReadAllLines)
        .Where(line => line.Length > 0).Select(line => int.Parse(line.Split(' ')[0]))];
}
