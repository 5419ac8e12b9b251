// SPDX-License-Identifier: Apache-2.0
namespace VSmp.SystemTests;

/// <summary>Nodes are killed under guests whose memory is mirrored: they go on, with the right memory.</summary>
public sealed class RecoveryTests
{
    [Fact]
    public void Memory_nodes_that_are_killed_one_after_the_other_cost_a_mirrored_guest_nothing()
    {
        int seed = Environment.TickCount;
        Random random = new(seed);
        string[] others = ["n1", "n2", "n3", "n4"];
        random.Shuffle(others);
        string[] victims = others[..2];
        Cluster.Run(5, "128M", cluster =>
        {
            using GuestCommand guest = cluster.Start([Paths.Program("random"), "96", "45"], local: "32M", node: "n0", redundancy: "mirror");
            guest.Command.EndInput();
            Wait.Until(() => others.All(n => cluster.AllocatedBytes(n) > Cluster.MiB(16)), 60, () => "the guest's pages on all others");
            for (int i = 0; i < victims.Length; i++)
            {
                Thread.Sleep(random.Next(1000)); // at any moment
                cluster.KillNode(victims[i]);
                int done = i + 1;
                Wait.Until(() => Count(cluster.Log("n0"), "every page has a mirror again") == done, 30,
                    () => $"new mirrors after the loss of {victims[i]} (seed {seed}):\n{cluster.Log("n0")}");
            }
            guest.Command.WaitForEnd(90).Succeeded(); // it verifies whatever it reads
            Assert.DoesNotContain("lost (vsmp report", cluster.Log("n0"), StringComparison.Ordinal);
            Assert.Equal(victims.Length, Count(cluster.Log("n0"), "nothing is lost"));
        }, leavesAgents: ["n0", .. others[2..]]);
    }

    [Fact]
    public void A_mirror_needs_two_other_nodes_and_says_so() => Cluster.Run(2, "128M", cluster =>
    {
        using GuestCommand guest = cluster.Start([Paths.Program("hold"), "100"], node: "n0", redundancy: "mirror");
        guest.Command.EndInput();
        Outcome outcome = guest.Command.WaitForEnd();
        Assert.NotEqual(0, outcome.ExitCode);
        Assert.Contains("each on two other nodes", outcome.Error, StringComparison.Ordinal);
    });

    private static int Count(string text, string what) => text.Split(what).Length - 1;
}
