// SPDX-License-Identifier: Apache-2.0
using System.Globalization;

namespace VSmp.Coherence.Tests.Membership;

public sealed class MembershipSimulationTests(ITestOutputHelper output)
{
    private const int SeedBase = 1;
    private const int SeedCount = 20_000;

    /// <summary>Seeds after which a planted bug counts as not found.</summary>
    private const int MutantSeedCount = 20_000;

    public static TheoryData<string> Mutants => [.. MembershipMutant.All.Select(mutant => mutant.Name)];

    [Fact]
    public void No_guest_runs_on_a_node_that_is_excluded_and_all_is_well_after_the_last_fault()
    {
        if (Environment.GetEnvironmentVariable("VSMP_SEED") is { } given)
        {
            Replay(int.Parse(given, CultureInfo.InvariantCulture), null);
            return;
        }
        var members = new SimulatedMembers(trace: false);
        for (int seed = SeedBase; seed < SeedBase + SeedCount; seed++)
        {
            try
            {
                members.Run(seed, null);
            }
            catch (Exception)
            {
                Replay(seed, null);
                throw;
            }
        }
        output.WriteLine($"{SeedCount} seeds: {members.Views} views, {members.Evictions} evictions, {members.Elapsed / 1000} s of simulated time");
        Assert.True(members.Evictions > SeedCount / 10, $"only {members.Evictions} members were voted out: nothing was tried");
    }

    [Theory]
    [MemberData(nameof(Mutants))]
    public void A_wrong_rule_is_found(string name)
    {
        MembershipMutant mutant = MembershipMutant.All.Single(m => m.Name == name);
        var members = new SimulatedMembers(trace: false);
        for (int seed = SeedBase; seed < SeedBase + MutantSeedCount; seed++)
        {
            Exception? failure = Record.Exception(() => members.Run(seed, mutant));
            if (failure is null) continue;
            output.WriteLine($"found with seed {seed}: {failure.Message}");
            return;
        }
        Assert.Fail($"{MutantSeedCount} seeds did not find that {name}");
    }

    private static void Replay(int seed, MembershipMutant? mutant)
    {
        var replay = new SimulatedMembers(trace: true);
        Exception? failure = Record.Exception(() => replay.Run(seed, mutant));
        if (failure is not null) Assert.Fail($"seed {seed} (VSMP_SEED={seed} replays it): {failure}\n{string.Join('\n', replay.Trace.TakeLast(200))}");
    }
}
