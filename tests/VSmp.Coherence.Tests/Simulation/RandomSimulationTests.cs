// SPDX-License-Identifier: Apache-2.0
using System.Globalization;
using VSmp.Coherence.Protocols;

namespace VSmp.Coherence.Tests.Simulation;

public sealed class RandomSimulationTests
{
    private const int Steps = 600;

    public static TheoryData<string> Protocols => [.. ProtocolCatalog.All.Select(p => p.Name)];

    [Theory]
    [MemberData(nameof(Protocols))]
    public void Reads_return_the_last_write_under_every_interleaving_tried(string name)
    {
        Protocol protocol = ProtocolCatalog.Find(name)!;
        // A fixed set, and a fresh one; VSMP_SEED replays one seed with its trace.
        if (Environment.GetEnvironmentVariable("VSMP_SEED") is { } given)
        {
            Simulate(protocol, int.Parse(given, CultureInfo.InvariantCulture));
            return;
        }
        int fresh = Environment.TickCount & 0xFFFFFF;
        for (int i = 0; i < 600; i++)
        {
            Simulate(protocol, i);
            Simulate(protocol, 0x1000000 + fresh + i);
        }
    }

    private static void Simulate(Protocol protocol, int seed)
    {
        try
        {
            new SimulatedCluster(protocol, seed, trace: false).Run(Steps);
        }
        catch (Exception)
        {
            var replay = new SimulatedCluster(protocol, seed, trace: true);
            Exception? failure = Record.Exception(() => replay.Run(Steps));
            Assert.Fail($"{protocol.Name}, seed {seed} (VSMP_SEED={seed} replays it): {failure}\n" + string.Join('\n', replay.TraceLines.TakeLast(60)));
        }
    }
}
