// SPDX-License-Identifier: Apache-2.0
using VSmp.Bench.Checking;
using VSmp.Bench.Simulation;
using VSmp.Coherence.Protocols;

namespace VSmp.Bench.Tests.Simulation;

public sealed class SimulationTests
{
    private const int Seeds = 200, SeedsWithLosses = 300;

    public static TheoryData<string> Protocols => [.. ProtocolCatalog.All.Select(p => p.Name)];

    [Theory]
    [MemberData(nameof(Protocols))]
    public void Clusters_on_a_network_that_errs_stay_coherent_and_come_to_their_end(string name)
    {
        int fresh = Environment.TickCount & 0xFFFFFF;
        for (int i = 0; i < Seeds; i++)
        {
            Simulate(name, i);
            Simulate(name, 0x1000000 + fresh + i);
        }
    }

    [Theory]
    [MemberData(nameof(Protocols))]
    public void Clusters_that_lose_nodes_lose_no_memory_but_what_had_no_second_copy(string name)
    {
        int protocols = ProtocolCatalog.All.Count, recoveries = 0;
        int number = ProtocolCatalog.All.TakeWhile(p => p.Name != name).Count();
        // In every second round of the protocols nodes are lost.
        for (int i = 0; i < SeedsWithLosses; i++) recoveries += SimulateLosses(name, (((2 * i) + 1) * protocols) + number);
        Assert.True(recoveries > SeedsWithLosses / 2, $"{recoveries} recoveries: hardly anything was tried");
    }

    // Seeds that have found something.
    [Theory]
    [InlineData("msi", 201)] // the mirror of a lost page became its home with what it had from before
    [InlineData("msi", 243)] // so did a mirror when an owner was lost before it had said what it had
    [InlineData("moesi", 14123)] // a copy from before an owner was taken for its own
    public void What_a_seed_has_found_does_not_come_back(string name, int seed) => SimulateLosses(name, seed);

    [Theory]
    [MemberData(nameof(Protocols))]
    public void A_page_that_512_nodes_share_is_taken_from_all_of_them(string name)
    {
        var options = new SimulationOptions(ProtocolCatalog.Find(name)!, Seed: 1, MaxNodes: 512) { Nodes = 512, WorkTicks = 20_000 };
        using var cluster = new SimulatedCluster(options);
        SimulationResult result = cluster.RunShared();
        Assert.Equal(512, result.Nodes);
        Assert.Equal(1025, result.Accesses);
    }

    [Fact]
    public void A_seed_gives_the_same_run_to_the_letter()
    {
        var options = new SimulationOptions(Msi.Protocol, Seed: 4711) { Traces = true };
        IReadOnlyList<string> one = SimulateCommand.Simulate(options).Trace, other = SimulateCommand.Simulate(options).Trace;
        Assert.True(one.Count > 100);
        Assert.Equal(one, other);
    }

    [Theory]
    [InlineData("stale data are installed after an Inv")]
    [InlineData("a downgrade leaves the right to write")]
    [InlineData("a reader is not noted")]
    [InlineData("a page given back is not written home")]
    [InlineData("an InvAck too few is counted")]
    public void A_planted_bug_is_found_by_some_seed(string name)
    {
        var mutant = (TableMutant)Mutants.All.First(m => m.Name == name);
        Assert.True(mutant.Simulate(Seeds).IsFound, $"{Seeds} seeds, and {name}: not found");
    }

    private static int SimulateLosses(string name, int seed)
    {
        SimulationOptions options = SimulationOptions.OfSeed(ProtocolCatalog.All, seed);
        Assert.Equal((name, true), (options.Protocol.Name, options.Losses));
        SimulationOutcome outcome = SimulateCommand.Simulate(options);
        Assert.True(outcome.Failure is null, $"seed {seed}: {outcome.Failure} (vsmp-bench simulate --first {seed} --seeds 1 --trace)");
        return outcome.Result!.Recoveries;
    }

    private static void Simulate(string name, int seed)
    {
        string? failure = SimulateCommand.Simulate(new SimulationOptions(ProtocolCatalog.Find(name)!, seed)).Failure;
        Assert.True(failure is null, $"seed {seed}: {failure} (vsmp-bench simulate --protocol {name} --first {seed} --seeds 1 --trace)");
    }
}
