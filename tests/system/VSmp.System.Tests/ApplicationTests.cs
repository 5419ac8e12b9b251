// SPDX-License-Identifier: Apache-2.0
namespace VSmp.SystemTests;

/// <summary>The applications that VSmp is compared with MPI by: ranks that share the work compute what one rank does.</summary>
public sealed class ApplicationTests
{
    [Fact]
    public void Applications_compute_the_same_with_one_rank_and_with_several() => Cluster.Run(2, "64M", cluster =>
    {
        string Checksum(int ranks, string protocol, string program, params string[] arguments)
        {
            string[] command = ["spmd", "-n", $"{ranks}", "--protocol", protocol, "--", Path.Combine(Paths.Build, $"vsmp-{program}"), .. arguments];
            Outcome outcome = cluster.Vsmp(command).Succeeded();
            string[] lines = outcome.Output.Split('\n');
            Assert.Single(lines, line => line.StartsWith("seconds ", StringComparison.Ordinal));
            return Assert.Single(lines, line => line.StartsWith("checksum ", StringComparison.Ordinal));
        }

        // Rows that share pages, more rounds than some ranks have reads for, a table that its ranks' shares do not divide evenly.
        (string Program, string[] Arguments)[] applications =
            [("jacobi", ["75", "20"]), ("kmer", ["5000", "403", "5"]), ("gups", ["12", "5001"])];
        foreach ((string program, string[] arguments) in applications)
        {
            string alone = Checksum(1, "msi", program, arguments);
            Assert.Equal(alone, Checksum(2, "msi", program, arguments));
            Assert.Equal(alone, Checksum(3, "moesi", program, arguments));
            // Random updates are data races, which `lazy` is not for.
            if (program != "gups") Assert.Equal(alone, Checksum(3, "lazy", program, arguments));
        }
        Assert.NotEqual(Checksum(2, "msi", "jacobi", "75", "20"), Checksum(2, "msi", "jacobi", "75", "21"));
    });

    [Theory]
    [InlineData("msi")]
    [InlineData("mesi")]
    [InlineData("moesi")]
    [InlineData("lazy")]
    public void What_ranks_need_of_each_other_after_each_barrier_is_foreseen(string protocol) => Cluster.Run(2, "64M", cluster =>
    {
        // Lazily, each rank faults on each page that it writes, in each step.
        int steps = protocol == "lazy" ? 40 : 200;
        string file = cluster.Scratch("stats.json"), alone = cluster.Scratch("alone.json");
        // A row is a page: in each step a rank reads one of its neighbour's, and (but lazily) asks to write one that the neighbour has read.
        string Checksum(int ranks, string statistics) => cluster.Vsmp("spmd", "-n", $"{ranks}", "--protocol", protocol, "--stats", statistics, "--",
            Path.Combine(Paths.Build, "vsmp-jacobi"), "512", $"{steps}").Succeeded().Output.Split('\n').Single(line => line.StartsWith("checksum ", StringComparison.Ordinal));
        Assert.Equal(Checksum(1, alone), Checksum(2, file));
        // What is written lazily goes home, and what is at home is not missed: of the two rows that ranks read, one node misses one every second step.
        Assert.InRange(Statistics.OfJob(file).Values.Sum(node => node["pagesForeseen"]), protocol == "lazy" ? steps / 4 : steps, 4 * steps);
        Assert.All(Statistics.OfJob(alone).Values, node => Assert.Equal(0, node["pagesForeseen"]));
    });
}
