// SPDX-License-Identifier: Apache-2.0
using VSmp.Bench.Checking;
using VSmp.Coherence.Protocols;

namespace VSmp.Bench.Tests.Checking;

public sealed class ModelCheckerTests
{
    public static TheoryData<string> Protocols => [.. ProtocolCatalog.All.Select(p => p.Name)];

    [Theory]
    [MemberData(nameof(Protocols))]
    public void No_reachable_state_breaks_an_invariant(string name)
    {
        foreach (Scenario scenario in CheckCommand.Scenarios(ProtocolCatalog.Find(name)!, deep: false))
        {
            CheckResult result = ModelChecker.Run(scenario, threads: 2);
            Assert.True(result.Violation is null, Explain(scenario, result));
            Assert.True(result.IsExhausted);
        }
    }

    [Theory]
    [MemberData(nameof(Protocols))]
    public void A_search_finds_the_same_states_whatever_the_number_of_threads(string name)
    {
        var scenario = new Scenario(ProtocolCatalog.Find(name)!, Nodes: 2, Pages: 1, Outstanding: 2);
        CheckResult one = ModelChecker.Run(scenario, threads: 1), three = ModelChecker.Run(scenario, threads: 3);
        Assert.Equal((one.States, one.Moves, one.Depth), (three.States, three.Moves, three.Depth));
    }

    internal static string Explain(Scenario scenario, CheckResult result) => result.Violation is not { } violation
        ? ""
        : $"{scenario}: {violation.What}\n{string.Join('\n', Replay.Tell(scenario, violation))}";
}
