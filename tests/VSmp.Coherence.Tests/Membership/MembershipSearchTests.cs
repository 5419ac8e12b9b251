// SPDX-License-Identifier: Apache-2.0
using VSmp.Coherence.Membership;

namespace VSmp.Coherence.Tests.Membership;

/// <summary>Links are named by who sends and who hears: three times the one plus the other.</summary>
public sealed class MembershipSearchTests(ITestOutputHelper output)
{
    private const int MaxStates = 400_000;

    private static readonly SearchBounds[] All =
    [
        new("a link cut both ways, a clock that misses a tick", DecidedBy.Majority, 2, 6) { Misses = 1, LastView = 4 },
        new("a link cut both ways, a store that is away", DecidedBy.Majority, 2, 6) { StoreFails = true, LastView = 4 },
        new("a node that is heard, or hears, at times", DecidedBy.Majority, 6, 7) { StoreFails = true, LastView = 4 },
        new("a node that is cut off", DecidedBy.Majority, 2, 5, 6, 7) { Together = true, StoreFails = true, Misses = 1, LastView = 5 },
        new("a node that is heard late, or not", DecidedBy.Majority, 6, 7) { Holds = true, LastView = 4 },
        new("a node that is heard and hears late, or not", DecidedBy.Majority, 2, 6) { Holds = true, LastView = 4 },
        new("a host that dies", DecidedBy.Majority, 2) { Kills = 1, StoreFails = true, LastView = 4 },
        new("an agent that is restarted", DecidedBy.Majority, 2, 6) { Restarts = 1, LastView = 4 },
        new("a member falsely said to be gone", DecidedBy.Majority, 2, 5) { Refuses = true, Misses = 1, LastView = 5 },
        new("embedded: a link cut both ways, a clock that misses a tick", DecidedBy.Coordinator, 2, 6) { Misses = 1, LastView = 5 },
        new("embedded: a host that dies", DecidedBy.Coordinator, 2) { Kills = 1, LastView = 5 },
        new("embedded: an agent that is restarted", DecidedBy.Coordinator, 2, 6) { Restarts = 1, LastView = 4 },
    ];

    /// <summary>Those that need more members, more time or a store that forgets are for the simulation.</summary>
    public static TheoryData<string> Mutants =>
    [
        "the lease is ignored: votes while a promise is running", "a vote does not bind", "the lease runs from the receipt of the acknowledgement",
        "one peer's opinion is enough",
    ];

    public static TheoryData<string> Bounds => [.. All.Select(bounds => bounds.Name)];

    [Theory]
    [MemberData(nameof(Bounds))]
    public void No_state_breaks_the_rules_with(string name)
    {
        SearchBounds bounds = All.Single(b => b.Name == name);
        (int states, string? broken) = MembershipSearch.Run(bounds, MembershipRules.Sound, MaxStates);
        output.WriteLine($"{bounds}: {states} states");
        Assert.Null(broken);
    }

    [Theory]
    [MemberData(nameof(Mutants))]
    public void A_wrong_rule_is_found(string name)
    {
        MembershipMutant mutant = MembershipMutant.All.Single(m => m.Name == name);
        foreach (SearchBounds bounds in All)
        {
            (int states, string? broken) = MembershipSearch.Run(bounds, mutant.Rules, MaxStates);
            if (broken is null) continue;
            output.WriteLine($"found with {bounds}, after {states} states: {broken.Split('\n')[0]}");
            return;
        }
        Assert.Fail($"no search found that {name}");
    }
}
