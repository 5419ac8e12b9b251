// SPDX-License-Identifier: Apache-2.0
using System.Text.RegularExpressions;

namespace VSmp.SystemTests;

/// <summary>What real ranks see of each other on real pages: litmus tests, recorded histories, hammered counters.</summary>
public sealed partial class LitmusTests
{
    [Fact]
    public void Nothing_that_x86_TSO_forbids_is_seen_in_a_hundred_thousand_runs_of_each_test()
    {
        Outcome outcome = Bench.Run(900, "litmus").Succeeded();
        Assert.Equal(CoherentProtocols().Length, Regex.Count(outcome.Output, @"^\d+ pass, 0 VIOLATION", RegexOptions.Multiline));
        // The runs were such that something could be seen: most of the 117 are conclusive, over all protocols.
        int conclusive = PassCount().Matches(outcome.Output).Sum(match => int.Parse(match.Groups[1].Value));
        Assert.True(conclusive >= 40, $"only {conclusive} passes\n{outcome.Output}");
    }

    [Fact]
    public void Litmus_tests_find_copies_that_lag_and_a_protocol_with_a_planted_bug()
    {
        Outcome outcome = Bench.Run(600, "litmus", "--control").Succeeded();
        Assert.Equal(2, Regex.Count(outcome.Output, "^control: .*: found out by ", RegexOptions.Multiline));
    }

    [Fact]
    public void A_million_operations_of_four_ranks_are_linearizable()
    {
        foreach (string protocol in CoherentProtocols())
        {
            int operations = protocol == "msi" ? 1_000_000 : 100_000; // a million once, and every protocol
            Outcome outcome = Bench.Run(600, "history", "--protocol", protocol, "--operations", $"{operations}").Succeeded();
            Assert.Contains("linearizable: all 8 words", outcome.Output, StringComparison.Ordinal);
            // Values did travel between ranks.
            Assert.DoesNotContain("; 0 reads and fetch-and-adds found", outcome.Output, StringComparison.Ordinal);
        }
    }

    [Fact]
    public void Eight_ranks_on_four_agents_count_exactly_with_every_protocol_under_a_budget_that_forces_eviction()
    {
        foreach (string protocol in Protocols())
        {
            string seconds = Paths.IsLong ? "60" : "10";
            Outcome outcome = Bench.Run(300, "hammer", "--protocol", protocol, "--seconds", seconds).Succeeded();
            Assert.Contains("every counter is exact", outcome.Output, StringComparison.Ordinal);
            Assert.Equal(8, Regex.Count(outcome.Output, @"^rank +\d", RegexOptions.Multiline));
            // Every node had to give pages back.
            MatchCollection evicted = EvictedPages().Matches(outcome.Output);
            Assert.Equal(4, evicted.Count);
            Assert.All(evicted, match => Assert.True(int.Parse(match.Groups[1].Value) > 0, outcome.Output));
            // Nobody starves: a rank that never gets a page would have made a handful of operations.
            int slowest = int.Parse(SlowestShare().Match(outcome.Output).Groups[1].Value);
            Assert.True(slowest >= 5, $"the slowest rank made {slowest} % of the average\n{outcome.Output}");
        }
    }

    private static string[] Protocols() => ProtocolList().Match(Command.Run(Paths.Vsmp, ["spmd", "--help"]).Succeeded().Output)
        .Groups[1].Value.Split(',', StringSplitOptions.TrimEntries | StringSplitOptions.RemoveEmptyEntries);

    private static string[] CoherentProtocols() => [.. Protocols().Where(protocol => protocol != "lazy")];

    [GeneratedRegex(@"^(\d+) pass, 0 VIOLATION", RegexOptions.Multiline)]
    private static partial Regex PassCount();

    [GeneratedRegex(@"^node n\d: .* (\d+) evicted, ", RegexOptions.Multiline)]
    private static partial Regex EvictedPages();

    [GeneratedRegex(@"made \d+, (\d+) % of the average")]
    private static partial Regex SlowestShare();

    [GeneratedRegex(@"shared memory coherent: ([a-z, ]+) \(default")]
    private static partial Regex ProtocolList();
}
