// SPDX-License-Identifier: Apache-2.0
using System.Globalization;
using Xunit;

namespace VSmp.Agent.Tests.Adopting;

/// <summary>What becomes of extents over their lives, whoever is killed meanwhile.</summary>
public class ExtentLivesTests(ITestOutputHelper output)
{
    private const int Seeds = 300, LongSeeds = 50_000, SeedsToFindBugs = 400;

    /// <summary>Beyond the first ones, seeds that have found something.</summary>
    private static readonly int[] Found = [442, 3304, 103732];

    [Fact]
    public void Extents_are_new_when_they_are_given_and_nowhere_when_they_are_given_back_though_agents_are_killed()
    {
        bool isLong = Environment.GetEnvironmentVariable("VSMP_TEST_LONG") is { Length: > 0 };
        int? chosen = NumberIn("VSMP_TEST_SEED");
        int first = chosen ?? 1, count = NumberIn("VSMP_TEST_SEEDS") ?? (isLong ? LongSeeds : Seeds);
        int kills = 0, answers = 0, touches = 0, lost = 0;
        for (int seed = first; seed < first + count; seed++) Run(seed);
        int another = Random.Shared.Next();
        if (chosen is null) foreach (int seed in (int[])[.. Found, another]) Run(seed);
        output.WriteLine($"{count} seeds from {first}, and {another}: {kills} agents killed, {answers} requests answered, {touches} loads and stores, {lost} programs lost");
        Assert.True(count < Seeds || (kills > count && answers > 10 * count && touches > 10 * count));

        void Run(int seed)
        {
            using var world = new ExtentWorld(seed);
            try { world.Run(); }
            catch (Exception e) { throw new InvalidOperationException($"seed {seed}: {e.Message}\n{string.Join('\n', world.Story)}", e); }
            kills += world.Kills;
            answers += world.Answers;
            touches += world.Touches;
            lost += world.LostPrograms;
        }
    }

    [Theory]
    [InlineData((int)PlantedBug.PlacesWhatWasGivenBack)]
    [InlineData((int)PlantedBug.WaitsForFormerAgents)]
    [InlineData((int)PlantedBug.KeepsWhatNobodyPlaces)]
    public void A_planted_bug_is_found(int bug)
    {
        for (int seed = 1; seed <= SeedsToFindBugs; seed++)
        {
            using var world = new ExtentWorld(seed, (PlantedBug)bug);
            try { world.Run(); }
            catch (Exception e)
            {
                output.WriteLine($"{(PlantedBug)bug}: seed {seed}: {e.Message}");
                return;
            }
        }
        Assert.Fail($"{(PlantedBug)bug} is not found by {SeedsToFindBugs} seeds");
    }

    private static int? NumberIn(string variable) =>
        Environment.GetEnvironmentVariable(variable) is { Length: > 0 } text ? int.Parse(text, CultureInfo.InvariantCulture) : null;
}
