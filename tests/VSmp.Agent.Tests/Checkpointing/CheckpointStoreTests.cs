// SPDX-License-Identifier: Apache-2.0
using System.Text;
using VSmp.Agent.Checkpointing;
using VSmp.Coherence;
using Xunit;

namespace VSmp.Agent.Tests.Checkpointing;

/// <summary>Generations in a storage that fails: what was there before is there, or what was to be there is.</summary>
public sealed class CheckpointStoreTests(ITestOutputHelper output)
{
    private static readonly bool IsLong = Environment.GetEnvironmentVariable("VSMP_TEST_LONG") == "1";
    private static readonly SavedRegion[] Regions = [new("grid", 40 * PageNumber.Bytes, 0x2000_0000_0000), new("heap", (3 * PageNumber.Bytes) - 7, 0x2000_0040_0000)];

    [Fact]
    public void A_generation_is_read_as_it_was_written()
    {
        var world = new World(new SimulatedStorage(new Random(1)));
        for (uint generation = 1; generation <= 5; generation++)
        {
            world.Change(generation);
            world.Write(generation);
            world.RequireNewest(generation);
        }
        Assert.Equal([1u, 2, 3, 4, 5], world.Store.List());
        for (uint generation = 1; generation <= 5; generation++) world.Require(world.Store.Load(generation), generation);
    }

    [Fact]
    public void What_later_generations_need_stays_when_others_are_removed()
    {
        var world = new World(new SimulatedStorage(new Random(2)));
        for (uint generation = 1; generation <= 6; generation++)
        {
            world.Change(generation);
            world.Write(generation);
        }
        world.Store.Remove(5);
        world.Store.Retain(2);
        Assert.Equal([4u, 6], world.Store.List());
        world.Require(world.Store.Load(4), 4);
        world.RequireNewest(6);
        Assert.Contains("g00000001", world.Storage.Folders()); // has pages that nobody wrote again
        Assert.DoesNotContain(Manifest.FileName, world.Storage.Files("g00000001"));
        world.Store.Retain(1);
        world.Change(7);
        world.Write(7, isWhole: true);
        world.Store.Retain(1);
        Assert.Equal(["g00000007"], world.Storage.Folders());
        world.RequireNewest(7);
    }

    [Theory]
    [InlineData(Fault.Kill)]
    [InlineData(Fault.PowerLoss)]
    [InlineData(Fault.NoRoom)]
    [InlineData(Fault.FailedSync)]
    internal void Whatever_fails_at_any_operation_the_last_generation_is_there_or_the_new_one(Fault fault)
    {
        int rounds = IsLong ? 200 : fault == Fault.PowerLoss ? 20 : 3, operations = 0, tries = 0, kept = 0, renewed = 0;
        for (int round = 0; round < rounds; round++)
        {
            for (int at = 0; ; at++)
            {
                Random random = new((round * 10_000) + at);
                var storage = new SimulatedStorage(random);
                var world = new World(storage);
                world.Change(1);
                world.Write(1);
                world.Change(2);
                world.Write(2);
                world.Change(3);
                (storage.Fault, storage.FaultAt) = (fault, storage.Operations + at);
                bool isThere = false;
                try
                {
                    world.Write(3);
                    isThere = true;
                    world.Store.Retain(1);
                }
                catch (Exception e) when (e is IOException or StoppedException) { }
                if (!storage.HasFailed) break;
                tries++;
                var next = new World(fault is Fault.Kill or Fault.PowerLoss ? storage.Restart() : storage, world);
                Manifest newest = next.Store.FindNewest(_ => { })!;
                Assert.NotNull(newest);
                Assert.True(newest.Generation == 3 || (newest.Generation == 2 && !isThere), $"generation {newest.Generation} after operation {at}, {fault}, {(isThere ? "" : "not ")}committed");
                next.Require(newest, newest.Generation);
                if (newest.Generation == 3) renewed++;
                else kept++;
                // And it goes on from there.
                next.Storage.Fault = Fault.None;
                next.Store.Sweep();
                next.Change(4);
                next.Write(4, isWhole: true);
                next.Store.Retain(1);
                next.RequireNewest(4);
                operations = Math.Max(operations, at + 1);
            }
        }
        Assert.True(operations >= (fault == Fault.FailedSync ? 5 : 15) && kept > 0 && renewed > 0, $"{operations} operations, {kept} kept, {renewed} renewed");
        output.WriteLine($"{fault}: {operations} operations, {tries} tries, the last one {kept} times, the new one {renewed} times");
    }

    [Fact]
    public void A_flipped_bit_in_any_file_is_found_before_anything_of_it_is_used()
    {
        int tries = IsLong ? 1_000_000 : 20_000;
        var storage = new SimulatedStorage(new Random(5));
        var world = new World(storage);
        for (uint generation = 1; generation <= 3; generation++)
        {
            world.Change(generation);
            world.Write(generation);
        }
        Manifest newest = world.Store.FindNewest(_ => { })!;
        (string Folder, string File)[] files = [.. newest.Parts.SelectMany(p => new[] { PartWriter.IndexName(p.Node), PartWriter.PagesName(p.Node) }.Select(f => (CheckpointStore.FolderOf(p.Generation), f)))
            .Append((CheckpointStore.FolderOf(3), Manifest.FileName)).Where(f => storage.LengthOf(f.Item1, f.Item2) > 0)];
        Random random = new(6);
        for (int i = 0; i < tries; i++)
        {
            // A file first, so that small ones are hit as often as large ones.
            (string folder, string file) = files[random.Next(files.Length)];
            long bit = random.NextInt64(storage.LengthOf(folder, file) * 8);
            storage.Flip(folder, file, bit);
            Assert.ThrowsAny<CheckpointException>(() => world.Store.Verify(world.Store.Load(3)));
            storage.Flip(folder, file, bit);
        }
        world.Store.Verify(world.Store.Load(3));
    }

    [Fact]
    public void A_manifest_of_a_newer_format_is_refused_with_that_reason()
    {
        var world = new World(new SimulatedStorage(new Random(1)));
        world.Change(1);
        world.Write(1);
        Manifest manifest = world.Store.Load(1);
        CheckpointException e = Assert.Throws<CheckpointException>(() => Manifest.Read((manifest with { Format = 2 }).Write(), "here"));
        Assert.Contains("format 2", e.Message, StringComparison.Ordinal);
        Assert.Contains("newer", e.Message, StringComparison.Ordinal);
        foreach (string text in new[] { "", "crc32c 00000000\n", "{}\ncrc32c 00000000\n" })
            Assert.Throws<CheckpointException>(() => Manifest.Read(Encoding.UTF8.GetBytes(text), "here"));
    }

    [Fact]
    public void Lists_of_pages_are_read_without_their_contents()
    {
        var world = new World(new SimulatedStorage(new Random(3)));
        world.Change(1);
        world.Write(1);
        world.Change(2);
        world.Write(2);
        var seen = new Dictionary<(ushort, ulong), IndexRecord>();
        world.Store.ReadIndex(world.Store.Load(2), record => seen.Add((record.Region, record.Page.Value), record));
        world.Store.ReadPages(world.Store.Load(2), _ => true, (record, _) => Assert.Equal(record, seen[(record.Region, record.Page.Value)]));
    }

    [Fact]
    public void On_a_disk_it_is_as_in_memory()
    {
        string folder = Directory.CreateDirectory($"/dev/shm/vsmp-checkpoint-{Guid.NewGuid():N}").FullName; // a file system that can reserve room
        try
        {
            var store = new CheckpointStore(new DiskStorage(folder));
            byte[] page = new byte[PageNumber.Bytes];
            for (uint generation = 1; generation <= 3; generation++)
            {
                string where = store.Begin(generation);
                using PartWriter part = new(store.Storage, where, "n0", 1000);
                Random random = new((int)generation);
                for (uint p = 0; p < 40; p++)
                {
                    random.NextBytes(page);
                    part.Add(0, new PageNumber(p), generation, p % 5 == 0 ? [] : page);
                }
                PartSummary summary = part.Finish();
                store.Commit(new Manifest(Manifest.CurrentFormat, "heat", generation, DateTimeOffset.UnixEpoch, "heat", 2, 1000, Regions,
                    [new SavedPart(generation, summary.Node, summary.Pages, summary.StoredPages, summary.IndexCrc)], []));
            }
            Assert.Equal(32L * PageNumber.Bytes, new FileInfo(Path.Combine(folder, "g00000003", "n0.pages")).Length);
            store.Retain(2);
            Assert.Equal([2u, 3], new CheckpointStore(new DiskStorage(folder)).List());
            ulong seen = 0;
            store.Verify(store.Load(3), () => seen++);
            Assert.Equal(40ul, seen);
            Assert.Equal(UnixFileMode.UserRead | UnixFileMode.UserWrite, File.GetUnixFileMode(Path.Combine(folder, "g00000003", "n0.pages")));
            Assert.Throws<IOException>(() => new PartWriter(store.Storage, store.Begin(9), "n0", 1ul << 40)); // more than any disk has
        }
        finally
        {
            Directory.Delete(folder, recursive: true);
        }
    }

    /// <summary>Memory of two nodes that changes, and its generations.</summary>
    private sealed class World
    {
        private static readonly string[] Nodes = ["n0", "n1"];

        private readonly Dictionary<uint, byte[]?[]> _memory = []; // of each generation; null: zero
        private readonly HashSet<int>[] _dirty = [[], []];

        public World(SimulatedStorage storage, World? before = null)
        {
            Storage = storage;
            Store = new CheckpointStore(storage);
            if (before is null) return;
            foreach ((uint generation, byte[]?[] memory) in before._memory) _memory[generation] = memory;
        }

        public SimulatedStorage Storage { get; }

        public CheckpointStore Store { get; }

        /// <summary>Some pages are written, some are zeroed.</summary>
        public void Change(uint generation)
        {
            Random random = new((int)generation);
            byte[]?[] memory = _memory.TryGetValue(generation - 1, out byte[]?[]? last) ? [.. last] : new byte[]?[43];
            foreach (HashSet<int> dirty in _dirty) dirty.Clear();
            for (int i = 0; i < (generation == 1 ? 43 : 12); i++)
            {
                int page = generation == 1 ? i : random.Next(43);
                byte[]? bytes = random.Next(4) == 0 ? null : new byte[PageNumber.Bytes];
                if (bytes is not null) random.NextBytes(bytes);
                memory[page] = bytes;
                _dirty[page % 2].Add(page);
            }
            _memory[generation] = memory;
        }

        public void Write(uint generation, bool isWhole = false)
        {
            byte[]?[] memory = _memory[generation];
            string folder = Store.Begin(generation);
            var parts = new List<SavedPart>();
            for (int node = 0; node < 2; node++)
            {
                using PartWriter part = new(Storage, folder, Nodes[node], 43);
                foreach (int page in isWhole ? Enumerable.Range(0, 43).Where(p => p % 2 == node) : _dirty[node])
                    part.Add((ushort)(page < 40 ? 0 : 1), new PageNumber((ulong)(page < 40 ? page : page - 40)), generation, memory[page]);
                PartSummary summary = part.Finish();
                parts.Add(new SavedPart(generation, summary.Node, summary.Pages, summary.StoredPages, summary.IndexCrc));
            }
            if (!isWhole && generation > 1) parts.AddRange(Manifest.Read(Storage, CheckpointStore.FolderOf(generation - 1)).Parts);
            Store.Commit(new Manifest(Manifest.CurrentFormat, "heat", generation, DateTimeOffset.UnixEpoch, "heat", 2, 1000, Regions, parts, [1, 2, 3]));
        }

        public void RequireNewest(uint generation)
        {
            Manifest newest = Store.FindNewest(Assert.Fail)!;
            Assert.Equal(generation, newest.Generation);
            Require(newest, generation);
        }

        /// <summary>It is byte for byte what the memory was.</summary>
        public void Require(Manifest manifest, uint generation)
        {
            Store.Verify(manifest);
            byte[]?[] found = new byte[]?[43], expected = _memory[generation];
            Store.ReadPages(manifest, _ => true, (record, bytes) => found[(record.Region * 40) + (int)record.Page.Value] = bytes.IsEmpty ? null : bytes.ToArray());
            for (int page = 0; page < 43; page++) Assert.True(found[page].AsSpan().SequenceEqual(expected[page]), $"page {page} of generation {generation}");
        }
    }
}
