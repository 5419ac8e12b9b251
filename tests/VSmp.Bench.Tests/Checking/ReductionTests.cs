// SPDX-License-Identifier: Apache-2.0
using VSmp.Bench.Checking;
using VSmp.Coherence.Protocols;

namespace VSmp.Bench.Tests.Checking;

/// <summary>
/// The search leaves out what makes no difference. Here a world is walked through at random that was never saved and loaded: its
/// versions and transactions have their true numbers, its holds last, its threads wait one by one. The search must know every
/// state it comes by.
/// </summary>
public sealed class ReductionTests
{
    public static TheoryData<string, int> Bounds
    {
        get
        {
            var data = new TheoryData<string, int>();
            foreach (Protocol protocol in ProtocolCatalog.All)
            {
                for (int i = 0; i < ScenariosOf(protocol).Length; i++) data.Add(protocol.Name, i);
            }
            return data;
        }
    }

    [Theory]
    [MemberData(nameof(Bounds))]
    public void Every_state_of_a_world_that_was_never_saved_is_known_to_the_search(string protocol, int index)
    {
        Scenario scenario = ScenariosOf(ProtocolCatalog.Find(protocol)!)[index];
        var states = new StateSet();
        CheckResult result = ModelChecker.Run(scenario, states, maxStates: 60_000);
        Assert.Null(result.Violation);
        int longest = result.IsExhausted ? 400 : result.Depth;
        var seen = new HashSet<UInt128>();
        for (int seed = 0; seed < (result.IsExhausted ? 50 : 3_000); seed++) Walk(scenario, states, longest, seed, seen);
        Assert.True(seen.Count > 300, $"the walks came by {seen.Count} states only");
    }

    private static Scenario[] ScenariosOf(Protocol protocol) =>
    [
        new(protocol, Nodes: 2, Pages: 1, Outstanding: 2) { Refusals = false },
        new(protocol, Nodes: 3, Pages: 1, Outstanding: 2) { Refusals = false },
        new(protocol, Nodes: 2, Pages: 2, Outstanding: 2) { AsksAhead = true, Refusals = false },
        new(protocol, Nodes: 2, Pages: 1, Outstanding: 2, Mappings: 2) { Refusals = false },
        new(protocol, Nodes: 2, Pages: 2, Outstanding: 2) { IsPrivate = true, AsksAhead = true, Refusals = false },
        new(protocol, Nodes: 3, Pages: 1, Outstanding: 1) { Mirror = 1, Crashes = 1, Holds = false, Refusals = false },
        new(protocol, Nodes: 3, Pages: 1, Outstanding: 1) { HomeUses = false, Crashes = 1, Holds = false, Refusals = false },
        new(protocol, Nodes: 3, Pages: 1, Outstanding: 2) { Mirror = 1, IsPrivate = true, Crashes = 1, Holds = false, Refusals = false },
        new(protocol, Nodes: 2, Pages: 1, Outstanding: 1) { Restarts = 1, Holds = false, Refusals = false },
        new(protocol, Nodes: 2, Pages: 1, Outstanding: 1) { Checkpoints = 2, GiveUps = 1, Refusals = false },
        new(protocol, Nodes: 3, Pages: 1, Outstanding: 1) { Mirror = 1, HomeUses = false, Crashes = 1, Checkpoints = 1, Holds = false, Refusals = false },
    ];

    private static void Walk(Scenario scenario, StateSet states, int steps, int seed, HashSet<UInt128> seen)
    {
        var random = new Random(seed);
        var world = new World(scenario);
        var codec = new WorldCodec(world);
        var moves = new List<Move>();
        for (int step = 0; step < steps; step++)
        {
            world.ListMoves(moves);
            Move move = moves[random.Next(moves.Count)];
            if (world.Restarts < scenario.Restarts && move.Kind != MoveKind.Restart && random.Next(8) == 0) move = move with { KillAt = (byte)random.Next(1, 10) };
            // What happens to a run in one move, one page held and the other not, takes the search two.
            List<Flight>? wire = move.IsDelivery ? world.Wires[world.WireOf(move.Node, move.Page, move.Mapping)] : null;
            if (wire?[0].Message.Count > 1 && ++step == steps) break;
            world.Do(move);
            ReadOnlySpan<byte> state = codec.Save();
            Assert.True(states.Contains(state), $"{scenario}, seed {seed}: step {step}, {move}, leads to a state that the search does not know");
            (ulong low, ulong high) = StateSet.Hash(state);
            seen.Add(new UInt128(high, low));
        }
    }
}
