// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent.Checkpointing;
using VSmp.Agent.Cli;
using VSmp.Agent.Control;
using VSmp.Coherence;
using Xunit;

namespace VSmp.Agent.Tests.Checkpointing;

/// <summary>Which generation comes next, when, and who may add to a checkpoint.</summary>
public sealed class CheckpointSeriesTests : IDisposable
{
    private const uint User = 1000;

    private readonly string _root = Directory.CreateTempSubdirectory("vsmp-series-").FullName;

    private readonly List<CheckpointSeries> _opened = [];
    private readonly Reactor _reactor = new();

    public void Dispose()
    {
        foreach (CheckpointSeries series in _opened)
        {
            series.Dispose();
            Wait(series);
        }
        Directory.Delete(_root, recursive: true);
        _reactor.Dispose();
    }

    [Fact]
    public void A_name_that_is_taken_is_refused_and_so_is_going_on_from_nothing()
    {
        Assert.Contains("there is no checkpoint heat", Refused(Wish(CheckpointStart.Restart), ExitCodes.Usage), StringComparison.Ordinal);
        Assert.Empty(Directory.EnumerateFileSystemEntries(_root)); // nothing is made for what is refused
        using (CheckpointSeries series = Open(Wish(CheckpointStart.New)))
        {
            Assert.Contains("is in use", Refused(Wish(CheckpointStart.New), ExitCodes.Taken), StringComparison.Ordinal);
            Store(series);
        }
        Assert.Contains("up to generation 1", Refused(Wish(CheckpointStart.New), ExitCodes.Taken), StringComparison.Ordinal);
        using CheckpointSeries next = Open(Wish(CheckpointStart.Restart));
        Assert.Equal((1u, 2u), (next.Restored!.Generation, next.NextGeneration));
    }

    [Fact]
    public void Another_users_checkpoint_is_none_to_go_on_from_but_for_root()
    {
        using (CheckpointSeries series = Open(Wish(CheckpointStart.New))) Store(series);
        Assert.Equal(ExitCodes.Refused, Assert.Throws<ControlException>(() => CheckpointSeries.Open(TestFiles.At(_root, _reactor), Wish(CheckpointStart.Restart), User + 1)).ExitCode);
        using CheckpointSeries asRoot = Open(Wish(CheckpointStart.Restart), user: 0);
        Assert.NotNull(asRoot.Restored);
    }

    [Fact]
    public void Numbers_of_generations_that_were_given_up_are_not_given_again()
    {
        using (CheckpointSeries series = Open(Wish(CheckpointStart.New)))
        {
            Store(series);
            Begin(series, series.TakeNumber()); // and given up
            File.WriteAllText(Path.Combine(_root, "heat", "g00000002", "n0.pages"), "something");
            series.OnGivenUp(2);
            Wait(series);
            Assert.Equal(["g00000001", "g00000003"], series.Store.Storage.Folders()); // it was given up, and what there was of it is gone
            Assert.True(series.MustBeFull([1]));
            Assert.Equal(3u, series.NextGeneration);
        }
        using CheckpointSeries next = Open(Wish(CheckpointStart.RestartIfAny));
        Assert.Equal((1u, 4u), (next.Restored!.Generation, next.NextGeneration)); // 3 was begun
    }

    [Fact]
    public void The_next_folder_is_there_ahead_of_need_and_gone_if_there_was_none()
    {
        CheckpointSeries series = Open(Wish(CheckpointStart.New));
        Wait(series);
        Assert.Equal(["g00000001"], series.Store.Storage.Folders());
        Store(series);
        Wait(series);
        Assert.Equal(["g00000001", "g00000002"], series.Store.Storage.Folders());
        series.Dispose();
        Wait(series);
        Assert.Equal(["g00000001"], series.Store.Storage.Folders());
        CheckpointSeries unused = Open(Wish(CheckpointStart.New) with { Name = "unused" });
        unused.Dispose();
        Wait(unused);
        Assert.False(Directory.Exists(Path.Combine(_root, "unused")));
    }

    [Fact]
    public void Whoever_opens_it_while_another_removes_it_gets_it()
    {
        for (int i = 0; i < 200; i++) Open(Wish(CheckpointStart.New)).Dispose(); // which removes the folder when it has tidied up
    }

    [Fact]
    public void It_stays_locked_until_the_last_thread_has_written()
    {
        CheckpointSeries series = Open(Wish(CheckpointStart.New));
        using ManualResetEventSlim go = new(), done = new();
        series.Write(_ => go.Wait(TestContext.Current.CancellationToken), _ => { });
        series.Write(_ => throw new InvalidOperationException("a defect"), error =>
        {
            if (error == "a defect") done.Set();
        });
        series.Dispose();
        Refused(Wish(CheckpointStart.New), ExitCodes.Taken);
        go.Set();
        Assert.True(done.Wait(TimeSpan.FromSeconds(10), TestContext.Current.CancellationToken));
        Open(Wish(CheckpointStart.New)).Dispose();
    }

    [Fact]
    public void The_first_generation_is_full_and_so_is_one_after_many_parts()
    {
        using CheckpointSeries series = Open(Wish(CheckpointStart.New));
        Assert.True(series.MustBeFull([1]));
        for (int i = 0; i < 200; i++)
        {
            bool wasFull = series.MustBeFull([1]);
            Store(series, pages: 60);
            int parts = series.Store.Load(series.NextGeneration - 1).Parts.Count;
            Assert.True(wasFull ? parts == 1 : parts > 1, $"{parts} parts");
            Assert.True(parts <= 66, $"{parts} parts");
        }
    }

    [Fact]
    public void A_region_that_is_gone_or_elsewhere_in_the_list_makes_the_next_one_full()
    {
        using CheckpointSeries series = Open(Wish(CheckpointStart.New));
        Store(series);
        Assert.False(series.MustBeFull([1]));
        Assert.False(series.MustBeFull([1, 2]));
        Assert.True(series.MustBeFull([2, 1]));
        Assert.True(series.MustBeFull([2]));
        Assert.True(series.MustBeFull([]));
    }

    [Fact]
    public void A_generation_is_due_when_its_time_has_come_or_always()
    {
        using CheckpointSeries always = Open(Wish(CheckpointStart.New));
        Assert.True(always.IsDue(Reactor.Clock()));
        using CheckpointSeries later = Open(Wish(CheckpointStart.New) with { Name = "later", EverySeconds = 60 });
        long now = Reactor.Clock();
        Assert.False(later.IsDue(now));
        Assert.True(later.IsDue(now + 61_000_000));
        later.OnTaken(now + 61_000_000);
        Assert.False(later.IsDue(now + 62_000_000));
        using CheckpointSeries auto = Open(Wish(CheckpointStart.New) with { Name = "auto", MtbfSeconds = 3600 });
        auto.OnStored(Store(auto), [1], TimeSpan.FromSeconds(2));
        Assert.InRange(auto.Pacer!.Interval.TotalSeconds, 100, 106); // the first took a second: √(2 · 1.5 · 3600) = 104
    }

    [Theory]
    [InlineData(1, 3600, 84.2)] // √7200 = 84.85, a little more, and less what a checkpoint takes
    [InlineData(10, 100, 38.3)]
    [InlineData(300, 100, 100)] // no more than the mean time between failures
    public void Dalys_interval_is_as_he_gives_it(double cost, double mtbf, double interval) => Assert.Equal(interval, CheckpointPacer.Daly(cost, mtbf), 1);

    [Fact]
    public void Waste_is_least_at_about_Youngs_interval()
    {
        const double Cost = 2, Mtbf = 3600;
        double young = CheckpointPacer.Young(Cost, Mtbf), least = CheckpointPacer.Waste(young, Cost, 1, Mtbf);
        foreach (double factor in new[] { 0.2, 0.5, 2, 5 }) Assert.True(CheckpointPacer.Waste(young * factor, Cost, 1, Mtbf) > least, $"{factor}");
        Assert.InRange(least, 0.03, 0.04); // √(2C/M) and the restart
    }

    [Fact]
    public void What_spmd_is_told_makes_sense_or_is_refused()
    {
        Assert.Null(SpmdCheckpoints.Wish(null, null, null, 2, null, "./heat", false));
        Assert.Equal(new CheckpointWish("a", null, null, 2, CheckpointStart.New), SpmdCheckpoints.Wish("a", null, null, 2, null, "./heat", false));
        Assert.Equal(new CheckpointWish("heat", 600, null, 3, CheckpointStart.New), SpmdCheckpoints.Wish(null, "10m", null, 3, null, "./heat", false));
        Assert.Equal(new CheckpointWish("heat", null, 3600, 2, CheckpointStart.New, true), SpmdCheckpoints.Wish(null, "auto", TimeSpan.FromHours(1), 2, null, "bin/heat", true));
        Assert.Equal(new CheckpointWish("b", null, null, 2, CheckpointStart.Restart, false, 7), SpmdCheckpoints.Wish(null, null, null, 2, "b@7", "./heat", false));
        foreach (Action wrong in new Action[]
        {
            () => SpmdCheckpoints.Wish("a", "soon", null, 2, null, "x", false), () => SpmdCheckpoints.Wish("a", "auto", null, 2, null, "x", false),
            () => SpmdCheckpoints.Wish("a", null, TimeSpan.FromHours(1), 2, null, "x", false), () => SpmdCheckpoints.Wish("a", null, null, 0, null, "x", false),
            () => SpmdCheckpoints.Wish("a", null, null, 2, "b", "x", false), () => SpmdCheckpoints.Wish(null, null, null, 2, "b@0", "x", false),
            () => SpmdCheckpoints.Wish(null, null, null, 2, "../b", "x", false), () => SpmdCheckpoints.Wish(null, null, null, 2, "b@3", "x", true), () => SpmdCheckpoints.Wish(null, "1s", null, 2, null, "-x", false),
        })
        {
            Assert.Equal(ExitCodes.Usage, Assert.Throws<CommandException>(wrong).ExitCode);
        }
    }

    private static CheckpointWish Wish(CheckpointStart start) => new("heat", null, null, 2, start);

    private CheckpointSeries Open(CheckpointWish wish, uint user = User)
    {
        CheckpointSeries series = CheckpointSeries.Open(TestFiles.At(_root, _reactor), wish, user);
        _opened.Add(series);
        return series;
    }

    private static void Wait(CheckpointSeries series) => Assert.True(series.Idle.Wait(TimeSpan.FromSeconds(30)));

    private string Refused(CheckpointWish wish, int exitCode)
    {
        ControlException refusal = Assert.Throws<ControlException>(() => Open(wish));
        Assert.Equal(exitCode, refusal.ExitCode);
        return refusal.Message;
    }

    /// <summary>A generation of one region and one part.</summary>
    private static Manifest Store(CheckpointSeries series, ulong pages = 1)
    {
        CheckpointPlan plan = new(series.Name, series.TakeNumber(), [1], series.MustBeFull([1]), CheckpointTier.Disk, [0]);
        Begin(series, plan.Generation);
        string folder = CheckpointStore.FolderOf(plan.Generation);
        byte[] page = new byte[PageNumber.Bytes];
        page[7] = 1;
        PartSummary part;
        using (PartWriter writer = new(series.Store.Storage, folder, "n0", pages))
        {
            for (ulong p = 0; p < pages; p++) writer.Add(0, new PageNumber(p), plan.Generation, page);
            part = writer.Finish();
        }
        Manifest manifest = series.NewManifest(new Work(), plan, [part], []);
        series.Commit(manifest, () => series.Store.Storage, Assert.Null);
        Wait(series);
        series.OnStored(manifest, [1], TimeSpan.FromSeconds(1));
        return manifest;
    }

    private static void Begin(CheckpointSeries series, uint generation)
    {
        series.Begin(generation, Assert.Null);
        Wait(series);
        Assert.Contains(CheckpointStore.FolderOf(generation), series.Store.Storage.Folders());
    }

    private sealed class Work : CheckpointWork
    {
        public override string Program => "heat";

        public override int Ranks => 2;

        public override IReadOnlyList<(RegionId Id, SavedRegion Region)> Regions => [(new RegionId(1), new SavedRegion("grid", 2 << 20, 0x2000_0000_0000))];

        public override IReadOnlyList<NodeId> Nodes => [new NodeId(0)];

        public override bool TrySave(out Func<byte[]> state, out string? whyNot)
        {
            (state, whyNot) = (() => [], null);
            return true;
        }

        public override void OnTaken(uint generation) { }

        public override void OnStored(uint generation) { }

        public override void OnGivenUp(uint generation, bool wasTaken, string why) { }
    }
}
