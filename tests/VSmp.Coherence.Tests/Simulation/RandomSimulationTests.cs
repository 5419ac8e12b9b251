// SPDX-License-Identifier: Apache-2.0
using System.Globalization;

namespace VSmp.Coherence.Tests.Simulation;

public sealed class RandomSimulationTests
{
    private const int Steps = 600;

    [Fact]
    public void Reads_return_the_last_write_under_every_interleaving_tried()
    {
        // A fixed set, and a fresh one; VSMP_SEED replays one seed with its trace.
        if (Environment.GetEnvironmentVariable("VSMP_SEED") is { } given)
        {
            Simulate(int.Parse(given, CultureInfo.InvariantCulture));
            return;
        }
        int fresh = Environment.TickCount & 0xFFFFFF;
        for (int i = 0; i < 1500; i++)
        {
            Simulate(i);
            Simulate(0x1000000 + fresh + i);
        }
    }

    private static void Simulate(int seed)
    {
        try
        {
            new SimulatedCluster(seed, trace: false).Run(Steps);
        }
        catch (Exception)
        {
            var replay = new SimulatedCluster(seed, trace: true);
            Exception? failure = Record.Exception(() => replay.Run(Steps));
            Assert.Fail($"seed {seed} (VSMP_SEED={seed} replays it): {failure}\n" + string.Join('\n', replay.TraceLines.TakeLast(60)));
        }
    }
}
