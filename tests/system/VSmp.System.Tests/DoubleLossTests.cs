// SPDX-License-Identifier: Apache-2.0
using System.Globalization;
using System.Text.RegularExpressions;

namespace VSmp.SystemTests;

/// <summary>
/// Two memory nodes are killed, the second before there are new mirrors: what had home and mirror on these two is lost, and that is all. Nobody ever reads
/// zeros there, or what was there before.
/// </summary>
public sealed class DoubleLossTests
{
    /// <summary>When the second node is killed.</summary>
    public enum Second
    {
        /// <summary>Before the loss of the first is known.</summary>
        AtOnce,

        /// <summary>When the recovery of the first has begun.</summary>
        DuringTheRecovery,

        /// <summary>When the first is recovered, and some mirrors are made anew, or none, or all.</summary>
        WhileMirrorsAreMade,
    }

    [Theory]
    [InlineData(Second.AtOnce)]
    [InlineData(Second.DuringTheRecovery)]
    [InlineData(Second.WhileMirrorsAreMade)]
    public void What_has_home_and_mirror_on_two_nodes_that_are_killed_is_lost_and_who_touches_it_gets_SIGBUS_and_nothing_wrong(Second second)
    {
        int seed = Environment.TickCount;
        Random random = new(seed);
        Cluster.Run(4, "128M", cluster =>
        {
            (GuestCommand touching, string touched) = Surviving(cluster, "36");
            (GuestCommand staying, string stayed) = Surviving(cluster, "24", "stay");
            using (touching)
            using (staying)
            {
                cluster.KillNode("n1");
                string? known = second switch { Second.DuringTheRecovery => ": n1 lost;", Second.WhileMirrorsAreMade => "nothing is lost", _ => null };
                if (known is not null) Wait.Until(() => cluster.Log("n0").Contains(known, StringComparison.Ordinal), 30, () => cluster.Log("n0"));
                if (second == Second.WhileMirrorsAreMade) Thread.Sleep(random.Next(300)); // at any moment
                cluster.KillNode("n2");
                Wait.Until(() => PagesLost(cluster, touched) is not null && PagesLost(cluster, stayed) is not null, 30, () => cluster.Log("n0"));

                int lost = PagesLost(cluster, touched)!.Value, unused = PagesLost(cluster, stayed)!.Value;
                if (second != Second.WhileMirrorsAreMade) Assert.True(lost > 0 && unused > 0, $"nothing is lost, which proves nothing\n{cluster.Log("n0")}");
                IsTold(cluster, touching, touched, lost, second);
                IsTold(cluster, staying, stayed, unused, second);
                foreach (GuestCommand guest in (GuestCommand[])[touching, staying])
                {
                    guest.Command.Type("\n");
                    guest.Command.WaitFor("line 1"); // it goes on
                }
                staying.Command.EndInput();
                staying.Command.WaitForEnd(30).Succeeded();
                touching.Command.EndInput();
                Outcome outcome = touching.Command.WaitForEnd(30).Succeeded(); // it verifies all that is there, and writes it, and verifies that
                Assert.True(outcome.Output.Contains($"\n{lost} pages are lost\n", StringComparison.Ordinal), $"{lost}, seed {seed}: {outcome}\n{cluster.Log("n0")}");
                Assert.Equal(lost > 0, outcome.Error.Contains("touched memory that was lost with node ", StringComparison.Ordinal));
            }
        }, leavesAgents: ["n0", "n3"]);
    }

    [Fact]
    public void Ranks_of_mirrored_jobs_whose_two_memory_nodes_are_killed_at_once_get_SIGBUS_where_they_touch_what_both_had() => Cluster.Run(4, "128M", cluster =>
    {
        string[] options = ["spmd", "-n", "1", "--on", "n0,n1,n2", "--local", "8M", "--redundancy", "mirror", "--", Paths.Program("spmd-hold"), "32"];
        using Command touching = new(Paths.Vsmp, [.. options, "again"], cluster.Environment), staying = new(Paths.Vsmp, options, cluster.Environment);
        touching.WaitFor("ready");
        staying.WaitFor("ready");
        cluster.KillNode("n1");
        cluster.KillNode("n2");
        foreach (Command job in (Command[])[touching, staying])
        {
            Wait.Until(() => job.Error.Contains("of region hold are lost; the job goes on", StringComparison.Ordinal), 30, () => $"word of the loss: {job.Error}\n{cluster.Log("n0")}");
            Assert.True(job.IsRunning, $"a job ended though no rank had touched what is lost\n{job.Error}");
        }
        Assert.Equal(2, Regex.Count(cluster.Vsmp("report", "lost").Succeeded().Output, "(?m)^n0 +- +spmd-hold +hold +n1, n2 "));
        staying.EndInput();
        staying.WaitForEnd(30).Succeeded();
        touching.EndInput();
        Outcome outcome = touching.WaitForEnd(30);
        Assert.True(outcome.ExitCode == 128 + 7, $"{outcome}"); // SIGBUS
        Assert.Contains("touched memory that was lost with node n1, n2", outcome.Error, StringComparison.Ordinal);
        Assert.DoesNotContain("check failed", outcome.Error, StringComparison.Ordinal);
    }, leavesAgents: ["n0", "n3"]);

    /// <summary>A mirrored guest on n0 that has filled its memory, and works on what it touched last; and its region.</summary>
    private static (GuestCommand Guest, string Region) Surviving(Cluster cluster, params string[] arguments)
    {
        string file = $"{cluster.RunDirectory}/n0/guests";
        string[] before = File.Exists(file) ? File.ReadAllLines(file) : [];
        GuestCommand guest = cluster.Start([Paths.Program("survive"), .. arguments], local: "8M", node: "n0", redundancy: "mirror");
        guest.Command.WaitFor("ready");
        return (guest, $"survive.{Assert.Single(File.ReadAllLines(file).Except(before)).Split(' ')[0]}");
    }

    /// <summary>How many pages of a region n0 says are lost, once the region is recovered from the loss of both nodes.</summary>
    private static int? PagesLost(Cluster cluster, string region)
    {
        string log = cluster.Log("n0");
        int first = log.IndexOf("node n1 is lost", StringComparison.Ordinal), second = log.IndexOf("node n2 is lost", StringComparison.Ordinal);
        if (first < 0 || second < 0) return null;
        Match recovery = Regex.Match(log[Math.Max(first, second)..],
            $@"recovery of {Regex.Escape(region)}: [^\n]*n\d lost;[\s\S]*?recovery of {Regex.Escape(region)}: done in [^\n]*; (nothing|(?<pages>\d+) pages)");
        if (!recovery.Success) return null;
        return recovery.Groups["pages"] is { Success: true } pages ? int.Parse(pages.Value, CultureInfo.InvariantCulture) : 0;
    }

    /// <summary>The program runs on, who started it was told of the loss, and it is listed with its owner and the nodes.</summary>
    private static void IsTold(Cluster cluster, GuestCommand guest, string region, int pages, Second second)
    {
        Assert.True(guest.Command.IsRunning, $"a guest ended though it had not touched what is lost\n{guest.Command.Error}");
        string report = cluster.Vsmp("report", "lost").Succeeded().Output;
        Match line = Regex.Match(report, $@"(?m)^n0 +{region.Split('.')[1]} +survive +{Regex.Escape(region)} +(?<nodes>n1, n2|n2) +(?<size>[\d.]+) (?<unit>[KM])iB +\d+");
        Assert.True(line.Success == pages > 0, $"{pages} pages of {region} are lost:\n{report}");
        if (pages == 0) return;
        if (second == Second.AtOnce) Assert.Equal("n1, n2", line.Groups["nodes"].Value);
        double listed = double.Parse(line.Groups["size"].Value, CultureInfo.InvariantCulture) * (line.Groups["unit"].Value == "M" ? 256 : 0.25);
        Assert.InRange(listed, pages - (pages * 0.05), pages + (pages * 0.05)); // sizes are rounded
        Wait.Until(() => guest.Command.Error.Contains("are lost; it goes on", StringComparison.Ordinal), 30, () => $"word of the loss: {guest.Command.Error}");
    }
}
