// SPDX-License-Identifier: Apache-2.0
using System.Text;
using System.Text.Json;
using VSmp.Agent.Control;
using VSmp.Agent.Guests;
using VSmp.Agent.Interop;
using VSmp.Agent.Jobs;
using VSmp.Agent.Recovery;
using VSmp.Coherence;
using VSmp.Coherence.Recovery;
using Xunit;

namespace VSmp.Agent.Tests.Jobs;

/// <summary>Jobs that are told again what their leader's agent had recorded when it was killed.</summary>
public sealed class JournalTests(ITestOutputHelper output) : IDisposable
{
    private static readonly int Sequences = Environment.GetEnvironmentVariable("VSMP_TEST_LONG") == "1" ? 2_000 : 60;

    private readonly string _folder = Directory.CreateTempSubdirectory("vsmp-journal-").FullName;

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    /// <summary>What ranks do, in any order, and kills of the leader in between: the job answers as one whose leader lives, and stands where that does.</summary>
    [Fact]
    public void A_job_whose_leader_is_killed_again_and_again_goes_on_as_any_other()
    {
        int kills = 0, calls = 0, regions = 0;
        for (int seed = 1; seed <= Sequences; seed++)
        {
            using World lives = new(null), dies = new(_folder);
            Random random = new(seed);
            for (int step = 0; step < 400; step++)
            {
                Act act = Act.Next(random, lives);
                act.Do(lives);
                act.Do(dies);
                Assert.Equal(lives.Told, dies.Told);
                calls++;
                if (random.Next(25) == 0) dies.Led.Compact();
                if (random.Next(10) != 0) continue;
                dies.Kill();
                kills++;
                Assert.Equal(StateOf(lives), StateOf(dies));
            }
            regions += lives.Told.Count(line => line.StartsWith("make", StringComparison.Ordinal));
        }
        Assert.True(regions > Sequences, $"{regions} regions");
        output.WriteLine($"{Sequences} jobs, {calls} inputs, {kills} kills, {regions} regions");
    }

    [Fact]
    public void What_a_killed_agent_has_written_in_part_did_not_happen()
    {
        string path;
        List<(long Length, string State)> stands = [];
        using (World world = new(_folder))
        {
            path = world.Path;
            Random random = new(7);
            for (int step = 0; step < 120; step++)
            {
                stands.Add((new FileInfo(path).Length, StateOf(world)));
                Act.Next(random, world).Do(world);
            }
            stands.Add((new FileInfo(path).Length, StateOf(world)));
        }
        byte[] whole = File.ReadAllBytes(path);
        int checkedCount = 0;
        for (int length = (int)stands[0].Length; length <= whole.Length; length++)
        {
            (JobHeader header, List<JournalRecord> records) = JobJournal.Read(path, whole[..length]);
            LedJob again = new(new Node(lastRegion: 1000), header, new AwaitedSupervisor());
            again.TellAgain(records);
            // A step may take several records: what is compared are the ends of steps.
            int at = stands.FindLastIndex(s => s.Length <= length);
            if (stands[at].Length != length) continue;
            Assert.Equal(stands[at].State, Serialize(again.Save()));
            checkedCount++;
        }
        Assert.True(checkedCount > 100, $"{checkedCount} lengths");
    }

    [Fact]
    public void A_flipped_bit_anywhere_is_found()
    {
        string path;
        using (World world = new(_folder))
        {
            path = world.Path;
            Random random = new(3);
            for (int step = 0; step < 60; step++) Act.Next(random, world).Do(world);
            world.Led.Compact();
            for (int step = 0; step < 10; step++) Act.Next(random, world).Do(world);
        }
        byte[] whole = File.ReadAllBytes(path);
        for (int bit = 0; bit < whole.Length * 8; bit++)
        {
            whole[bit / 8] ^= (byte)(1 << (bit % 8));
            Assert.Throws<InvalidDataException>(() => JobJournal.Read(path, whole));
            whole[bit / 8] ^= (byte)(1 << (bit % 8));
        }
        output.WriteLine($"{whole.Length * 8} bits");
    }

    [Fact]
    public void A_long_journal_begins_anew()
    {
        using World world = new(_folder);
        world.CallAll(GuestRequest.Join);
        long longest = 0;
        for (int i = 0; i < 10_000; i++)
        {
            world.CallAll(GuestRequest.Barrier);
            longest = Math.Max(longest, new FileInfo(world.Path).Length);
            if (!world.IsLong) continue;
            world.IsLong = false;
            world.Led.Compact();
        }
        Assert.InRange(longest, 1 << 20, (1 << 20) + 1024);
        Assert.True(world.CompactCount >= 2, $"{world.CompactCount} times");
        string before = StateOf(world);
        world.Kill();
        Assert.Equal(before, StateOf(world));
    }

    [Fact]
    public void Without_room_the_job_goes_on_and_there_is_no_journal()
    {
        File.WriteAllText(Path.Combine(_folder, "file"), "");
        using World nowhere = new(Path.Combine(_folder, "file", "sub")); // no folder can be there
        Assert.Single(nowhere.Failures);
        nowhere.CallAll(GuestRequest.Join);
        nowhere.CallAll(GuestRequest.Barrier);
        Assert.Contains(nowhere.Told, line => line.Contains("Barrier", StringComparison.Ordinal));
        nowhere.Led.Compact();
        nowhere.Led.StopRecording();
        Assert.Single(nowhere.Failures);
    }

    [Fact]
    public void A_job_that_is_over_leaves_no_journal()
    {
        using World world = new(_folder);
        world.CallAll(GuestRequest.Join);
        Assert.Single(WholeFile.In(_folder));
        world.Led.StopRecording();
        world.CallAll(GuestRequest.Barrier);
        world.Led.Compact();
        Assert.Empty(WholeFile.In(_folder));
        Assert.Empty(Directory.EnumerateFileSystemEntries(_folder));
    }

    [Fact]
    public void Where_homes_have_moved_to_is_known_again()
    {
        using World world = new(_folder);
        world.CallAll(GuestRequest.Join);
        world.CallAll(GuestRequest.Attach, 64 << 20, text: "here");
        world.Made();
        SharedRegion region = Assert.Single(world.Led.Regions.Values);
        Assert.Empty(region.Places());
        region.Homes.Place(new ExtentNumber(3), new NodeId(2));
        region.Homes.PlaceMirror(new ExtentNumber(3), NodeId.None);
        region.Homes.Place(new ExtentNumber(4), new NodeId(2));
        region.Homes.PlaceMirror(new ExtentNumber(4), NodeId.None);
        region.Generation = region.Generation.Next();
        region.Homes.Place(new ExtentNumber(5), new NodeId(2));
        region.Generation = region.Generation.Next();
        region.Homes.Place(new ExtentNumber(5), NodeId.None); // back to where the plan says
        region.Generation = region.Generation.Next();
        region.Homes.PlaceMirror(new ExtentNumber(4), new NodeId(1));
        region.OnMirrorPlaced(new ExtentNumber(4));
        for (int kill = 0; kill < 3; kill++)
        {
            world.Kill();
            region = Assert.Single(world.Led.Regions.Values);
            Assert.Equal(new Generation(3), region.Generation);
            Assert.Equal([new HomeMove(new ExtentNumber(3), 1, new NodeId(2), NodeId.None), new HomeMove(new ExtentNumber(4), 1, new NodeId(2), new NodeId(1))], region.Places());
        }
        world.CallAll(GuestRequest.Mapped, region.Id.Value);
        world.CallAll(GuestRequest.Detach, region.Id.Value);
        world.Kill();
        Assert.Empty(world.Led.Regions);
    }

    [Fact]
    public void A_rank_that_is_found_gone_when_it_gets_a_lock_leaves_it_to_the_next()
    {
        using World world = new(_folder);
        world.CallAll(GuestRequest.Join);
        world.Call(1, GuestRequest.Lock, 5);
        world.Call(0, GuestRequest.Lock, 5);
        world.OnReply = (rank, type) =>
        {
            if ((rank, type) == (0, GuestRequest.Lock)) world.Led.OnRankGone(0, "rank 0 has ended");
        };
        world.Call(1, GuestRequest.Unlock, 5);
        world.OnReply = null;
        string before = StateOf(world);
        world.Kill();
        Assert.Equal(before, StateOf(world));
        world.Call(2, GuestRequest.Lock, 5);
        Assert.Contains($"2 Lock 2 {Errno.EOWNERDEAD}", world.Told[^1], StringComparison.Ordinal);
    }

    [Fact]
    public void A_job_that_was_lost_stays_so()
    {
        using World world = new(_folder);
        world.CallAll(GuestRequest.Join);
        world.Led.OnLost("node n2 is lost");
        world.Kill();
        Assert.NotNull(world.Led.BrokenBecause);
        world.Kill();
        Assert.Equal("node n2 is lost", world.Led.BrokenBecause);
        world.CallAll(GuestRequest.Barrier);
        Assert.Contains(world.Told, line => line.Contains($"{Errno.ECONNRESET}", StringComparison.Ordinal) && line.Contains("n2 is lost", StringComparison.Ordinal));
    }

    private static string StateOf(World world) => Serialize(world.Led.Save());

    private static string Serialize(LedState state)
    {
        // Locks are kept in no order.
        state = state with { Job = state.Job with { Locks = [.. state.Job.Locks.OrderBy(l => l.Number)], Regions = [.. state.Job.Regions.OrderBy(r => r.Id)] }, Regions = [.. state.Regions.OrderBy(r => r.Region)] };
        return JsonSerializer.Serialize(state, JournalJson.Default.LedState);
    }

    /// <summary>Something that happens to a job.</summary>
    private sealed record Act(Action<World> Do)
    {
        public static Act Next(Random random, World world)
        {
            int rank = random.Next(World.Ranks);
            ulong region = (ulong)random.Next(3) is var n && world.RegionIds.Count > 0 ? world.RegionIds[(int)n % world.RegionIds.Count] : 99;
            switch (random.Next(30))
            {
                case 0:
                    return new(w => w.CallAll(GuestRequest.Join));
                case 1 or 2:
                    ulong bytes = (ulong)random.Next(1, 9) << 21;
                    string name = $"r{random.Next(4)}";
                    return new(w => w.CallAll(GuestRequest.Attach, bytes, text: name));
                case 3 or 4:
                    return new(w => w.Made());
                case 5:
                    return new(w => w.Made(Errno.ENOMEM));
                case 6:
                    return new(w => w.CallAll(GuestRequest.Mapped, region));
                case 7:
                    return new(w => w.CallAll(GuestRequest.Detach, region));
                case 8:
                    ulong wanted = (ulong)random.Next(1 << 20);
                    return new(w => w.CallAll(GuestRequest.AllocAll, region, wanted, 64));
                case 9 or 10:
                    ulong few = (ulong)random.Next(1 << 16);
                    return new(w => w.Call(rank, GuestRequest.Alloc, region, few, 16));
                case 11 or 12:
                    return new(w => w.Call(rank, GuestRequest.Free, region, w.LastBlock(region)));
                case 13 or 14:
                    ulong counter = (ulong)random.Next(5);
                    return new(w => w.Call(rank, GuestRequest.FetchAdd, counter, 3));
                case 15 or 16 or 17:
                    ulong taken = (ulong)random.Next(4);
                    return new(w => w.Call(rank, GuestRequest.Lock, taken));
                case 18 or 19:
                    ulong given = (ulong)random.Next(4);
                    return new(w => w.Call(rank, GuestRequest.Unlock, given));
                case 20:
                    return new(w => w.Call(rank, GuestRequest.Barrier)); // alone
                case 21:
                    string text = new('x', random.Next(2000));
                    return new(w => w.Broadcast((ulong)rank, text));
                case 22:
                    return new(w => w.Repeat(rank));
                case 26 or 27:
                    return new(w => w.CallAll(GuestRequest.Checkpoint));
                case 28:
                    uint generation = (uint)random.Next(3);
                    return new(w => w.Led.OnCheckpointTaken(generation));
                case 29:
                    return new(w => w.Led.OnCheckpointEnded());
                case 23 when random.Next(20) == 0:
                    return new(w => w.Led.OnRankGone(rank, $"rank {rank} has ended"));
                case 24 when random.Next(60) == 0:
                    return new(w => w.Led.OnLost("node n9 is lost"));
                case 25 when random.Next(10) == 0:
                    return new(w => w.CallAll(GuestRequest.Finish));
                default:
                    return new(w => w.CallAll(GuestRequest.Barrier));
            }
        }
    }

    /// <summary>A job, and what its leader is told to do.</summary>
    private sealed class World : IDisposable
    {
        public const int Ranks = 3;

        private readonly string? _folder;
        private readonly Node _node = new();
        private readonly uint[] _serials = new uint[Ranks];
        private readonly (GuestMessage Call, byte[] Data)[] _last = new (GuestMessage, byte[])[Ranks];
        private JobJournal? _journal;

        public World(string? folder)
        {
            _folder = folder;
            Led = new LedJob(_node, new JobHeader(JobHeader.CurrentFormat, JobId.Create(new NodeId(0), 1).Value, new string('A', 32), "default", "msi", false,
                [0, 1, 1], [0, 1, 2], "program", 0, 1), new AwaitedSupervisor());
            Record(null);
        }

        public LedJob Led { get; private set; }

        public string Path => System.IO.Path.Combine(_folder!, "0000000000000001");

        public List<string> Told => _node.Told;

        public List<ulong> RegionIds => _node.RegionIds;

        public List<string> Failures { get; } = [];

        public Action<int, GuestRequest>? OnReply
        {
            set => _node.OnReply = value;
        }

        public bool IsLong { get; set; }

        public int CompactCount { get; private set; }

        public void Kill()
        {
            _journal!.Dispose();
            (JobHeader header, List<JournalRecord> records) = JobJournal.Read(Path);
            Led = new LedJob(_node, header, new AwaitedSupervisor());
            Led.TellAgain(records);
            Record(Led.Save());
        }

        public void Call(int rank, GuestRequest type, ulong a = 0, ulong b = 0, ulong c = 0, string text = "")
        {
            uint serial = ++_serials[rank];
            _last[rank] = (new GuestMessage { Magic = GuestMessage.MagicValue, Version = GuestMessage.CurrentVersion, Type = type, Serial = serial, Slot = serial % 5, A = a, B = b, C = c }, Encoding.UTF8.GetBytes(text));
            Repeat(rank);
        }

        public void Repeat(int rank)
        {
            if (_last[rank].Data is { } data) Led.OnCall(rank, in _last[rank].Call, data);
        }

        public void CallAll(GuestRequest type, ulong a = 0, ulong b = 0, ulong c = 0, string text = "")
        {
            for (int rank = 0; rank < Ranks; rank++) Call(rank, type, a, b, c, text);
        }

        public void Broadcast(ulong root, string text)
        {
            for (int rank = 0; rank < Ranks; rank++) Call(rank, GuestRequest.Broadcast, root, (ulong)text.Length, text: rank == (int)root ? text : "");
        }

        public void Made(int error = 0)
        {
            if (Led.Job.Making is not { } region) return;
            if (error != 0) Led.OnRegionRefused(region, error, "no room");
            else Led.OnRegionMade(region, new RegionPlan([new NodeId(0), new NodeId(1)], "msi", region.Name), [new NodeId(0), new NodeId(1), new NodeId(2)]);
        }

        /// <summary>Of what a region has allocated, the last; else something that is no block.</summary>
        public ulong LastBlock(ulong region) => Led.Job.Regions.FirstOrDefault(r => r.Id.Value == region) is { Heap.BlockCount: > 0 } there
            ? there.Address + there.Heap.SaveBlocks()[^2] : 77;

        public void Dispose() => _journal?.Dispose();

        private void Record(LedState? state)
        {
            if (_folder is null) return;
            _journal = JobJournal.Begin(_folder, Led.Header, () =>
            {
                IsLong = true;
                CompactCount++;
            }, Failures.Add, state);
            Led.RecordIn(_journal);
        }
    }

    private sealed class Node(ulong lastRegion = 0) : ILeadingNode
    {
        private ulong _lastRegion = lastRegion;

        public List<string> Told { get; } = [];

        public List<ulong> RegionIds { get; } = [];

        public RegionId NewRegionId()
        {
            RegionIds.Add(++_lastRegion);
            return new RegionId(_lastRegion);
        }

        public Action<int, GuestRequest>? OnReply { get; set; }

        public void SendReply(LedJob led, int rank, in GuestMessage reply, ReadOnlySpan<byte> data)
        {
            Told.Add($"{rank} {reply.Type & ~GuestRequest.Reply} {reply.Serial} {reply.Status} {reply.A} {reply.B} {reply.C} {reply.D} {Encoding.UTF8.GetString(data)}");
            OnReply?.Invoke(rank, reply.Type & ~GuestRequest.Reply);
        }

        public void SendNotices(JobId job, NodeId node, RegionId region, List<PageNumber>? pages) => Told.Add($"notices {region}");

        public void MakeRegion(LedJob led, JobRegion region) => Told.Add($"make {region.Id} {region.Name} {region.Bytes} {region.Address}");

        public void TakeCheckpoint(LedJob led) => Told.Add("checkpoint");

        public void OnRankGone(LedJob led, string how) => Told.Add($"gone {how}");

        public void Lead(SharedRegion region) => Told.Add($"lead {region.Id}");

        public void DropRegion(LedJob led, RegionId region) => Told.Add($"drop {region}");

        public NodeId Roomiest(IEnumerable<NodeId> nodes) => NodeId.None;

        public void GoBack(LedJob led, string why) => Told.Add($"back {why}");

        public void Fail(LedJob led, string why) => Told.Add($"fail {why}");
    }
}
