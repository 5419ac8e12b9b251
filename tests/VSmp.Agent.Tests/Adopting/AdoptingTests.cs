// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent.Interop;
using VSmp.Coherence;
using VSmp.Coherence.Protocols;
using Xunit;

namespace VSmp.Agent.Tests.Adopting;

/// <summary>Guests go on, with what they had written, while the agents of their nodes are killed and others take over.</summary>
public class AdoptingTests(ITestOutputHelper output)
{
    private const int ThreadsPerUser = 2, OperationsPerThread = 150, KillsPerSeed = 4;
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(20);

    [Theory]
    [InlineData("msi", false)]
    [InlineData("msi", true)]
    [InlineData("mesi", false)]
    [InlineData("mesi", true)]
    [InlineData("moesi", false)]
    [InlineData("moesi", true)]
    public async Task Guests_read_what_was_written_last_though_agents_are_killed(string protocol, bool isMirrored)
    {
        int first = int.Parse(Environment.GetEnvironmentVariable("VSMP_TEST_SEED") ?? "1", System.Globalization.CultureInfo.InvariantCulture);
        int count = int.Parse(Environment.GetEnvironmentVariable("VSMP_TEST_SEEDS") ?? "40", System.Globalization.CultureInfo.InvariantCulture);
        int kills = 0;
        for (int seed = first; seed < first + count; seed++) kills += await RunAsync(seed, ProtocolCatalog.Find(protocol)!, isMirrored);
        output.WriteLine($"{count} seeds from {first}, {kills} agents killed");
        Assert.True(kills > count);
    }

    private static async Task<int> RunAsync(int seed, Protocol protocol, bool isMirrored)
    {
        string what = $"seed {seed}, {protocol.Name}, {(isMirrored ? "mirror" : "none")}";
        var world = new AdoptingWorld(seed, protocol, isMirrored, KillsPerSeed);
        var workload = new Workload(seed, world);
        try
        {
            await Task.WhenAny(workload.Done, world.Failed).WaitAsync(Patience, TestContext.Current.CancellationToken);
            if (world.Failed.IsCompleted) await world.Failed;
            await workload.Done;
        }
        catch (Exception e)
        {
            throw new InvalidOperationException($"{what}: {e.Message}\n{string.Join('\n', world.Story)}\n{world.Describe()}", e); // threads may wait for ever: nothing is taken down
        }
        world.Dispose();
        return world.Kills;
    }

    /// <summary>Threads that read and write words of guests' memory; each page by one thread at a time, so that what is to be read is known.</summary>
    private sealed class Workload
    {
        private const int Pages = AdoptingWorld.Extents * AdoptingWorld.PagesInUse;
        private readonly Lock[] _locks = [.. Enumerable.Range(0, Pages).Select(_ => new Lock())];
        private readonly ulong[] _expected = new ulong[Pages * AdoptingWorld.Slots];
        private ulong _last;

        public Workload(int seed, AdoptingWorld world)
        {
            var threads = new List<Task>();
            for (int i = 0; i < 2 * ThreadsPerUser; i++)
            {
                int thread = i;
                threads.Add(Task.Factory.StartNew(() => Run(new Random((seed * 31) + thread), world.MemoryOf(thread % 2)), CancellationToken.None,
                    TaskCreationOptions.LongRunning, TaskScheduler.Default));
            }
            Done = Task.WhenAll(threads).ContinueWith(all =>
            {
                if (all.Exception is { } e) throw e;
                int scratch = OpenScratch();
                for (int page = 0; page < Pages; page++)
                {
                    for (int slot = 0; slot < AdoptingWorld.Slots; slot++) Check(world.MemoryOf(page % 2), scratch, page, slot);
                }
                _ = Libc.Close(scratch);
            }, CancellationToken.None, TaskContinuationOptions.LongRunning, TaskScheduler.Default);
        }

        public Task Done { get; }

        private static int OpenScratch()
        {
            string path = Path.GetTempFileName();
            int fd = Libc.Open(path, Libc.O_RDWR | Libc.O_CLOEXEC, 0);
            File.Delete(path);
            return fd >= 0 ? fd : throw Errno.Exception("no scratch file");
        }

        private static ulong OffsetOf(int page, int slot) =>
            ((ulong)(page / AdoptingWorld.PagesInUse) * ExtentNumber.Bytes) + ((ulong)(page % AdoptingWorld.PagesInUse) * PageNumber.Bytes) + ((ulong)slot * 2040);

        private void Run(Random random, GuestMemory memory)
        {
            int scratch = OpenScratch();
            for (int i = 0; i < OperationsPerThread; i++)
            {
                int page = random.Next(Pages), slot = random.Next(AdoptingWorld.Slots);
                lock (_locks[page])
                {
                    if (random.Next(2) == 0)
                    {
                        Check(memory, scratch, page, slot);
                        continue;
                    }
                    ulong value = Interlocked.Increment(ref _last);
                    memory.Store(scratch, OffsetOf(page, slot), value);
                    _expected[(page * AdoptingWorld.Slots) + slot] = value;
                }
            }
            _ = Libc.Close(scratch);
        }

        private void Check(GuestMemory memory, int scratch, int page, int slot)
        {
            ulong found = memory.Load(scratch, OffsetOf(page, slot)), expected = _expected[(page * AdoptingWorld.Slots) + slot];
            if (found != expected) throw new InvalidOperationException($"page {page}, slot {slot}: {found} where {expected} was written");
        }
    }
}
