// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent.Checkpointing.Files;
using VSmp.Agent.Control;
using VSmp.Agent.Interop;
using VSmp.Coherence;

namespace VSmp.Agent.Checkpointing;

/// <summary>The generations of a checkpoint, at the node that leads what they are taken of: which comes next, and when. It holds the checkpoint's lock.</summary>
internal sealed class CheckpointSeries : IDisposable
{
    /// <summary>Parts of earlier generations that one builds on; then all is written anew, or it would get slower to read with each.</summary>
    private const int MostParts = 64;

    /// <summary>For who deletes files, which nobody waits for: a gibibyte in the page cache takes a tenth of a second of a processor.</summary>
    private const int LeastPriority = 19;

    private readonly CheckpointFolder _folder;
    private readonly IDisposable _lock;
    private readonly uint _userId;
    private Manifest? _last; // that this series has stored, and that the next may build on
    private ulong[] _lastRegions = []; // of that: numbers
    private Task _writing = Task.CompletedTask;
    private int _uses = 1; // by whoever opened it, and by threads that write
    private bool _isClosed, _isDone;
    private bool _isDegraded; // a node that may have had parts, or copies, is lost
    private volatile bool _hasGivenUp; // a generation, since the last that is safe
    private volatile uint _prepared; // the generation whose folder is there already
    private long _takenAt;

    private CheckpointSeries(CheckpointFolder folder, CheckpointStore store, IDisposable @lock, CheckpointWish wish, uint userId, Manifest? restored)
    {
        (_folder, Store, _lock, Wish, _userId, Restored) = (folder, store, @lock, wish, userId, restored);
        _takenAt = Reactor.Clock();
        Pacer = wish.MtbfSeconds is { } mtbf ? new CheckpointPacer(TimeSpan.FromSeconds(mtbf)) : null;
    }

    /// <summary>What was asked for.</summary>
    public CheckpointWish Wish { get; }

    /// <summary>The checkpoint's name.</summary>
    public string Name => _folder.Name;

    /// <summary>Where its generations are.</summary>
    public CheckpointStore Store { get; }

    /// <summary>How many to keep.</summary>
    public int Keep => Wish.Keep;

    /// <summary>The generation that whatever is checkpointed goes on from; null: it begins.</summary>
    public Manifest? Restored { get; }

    /// <summary>A time that never comes: generations are taken when somebody asks for one.</summary>
    public const double OnDemand = 1e12;

    /// <summary>The number of the next generation.</summary>
    public uint NextGeneration { get; private set; } = 1;

    /// <summary>
    /// Whether the next generation is to have all pages: there is none that it could build on, or that builds on too many already, or on what is left of a node that is lost; or a region of
    /// that is gone, so that what parts of it say would be about another.
    /// </summary>
    /// <param name="regions">Numbers of the regions, as the generation will list them.</param>
    public bool MustBeFull(ReadOnlySpan<ulong> regions) => _last is null || _isDegraded || _last.Parts.Count > MostParts || StoredPages(_last) > 2 * (ulong)_last.Regions.Sum(r => (long)r.PageCount)
        || !regions.StartsWith(_lastRegions);

    /// <summary>Chooses the interval by what a generation costs; null: it is fixed.</summary>
    public CheckpointPacer? Pacer { get; }

    /// <summary>Opens a checkpoint, to add generations to it.</summary>
    /// <param name="files">Where checkpoints are.</param>
    /// <param name="wish">Which.</param>
    /// <param name="userId">For whom.</param>
    /// <exception cref="ControlException">It cannot be: there is one of that name, or, to go on from it, none; it is in use, is another user's, or the disk refuses.</exception>
    public static CheckpointSeries Open(CheckpointFiles files, CheckpointWish wish, uint userId)
    {
        if (!RunDirectory.IsValidName(wish.Name)) throw new ControlException($"'{wish.Name}' is no name for a checkpoint", ExitCodes.Usage); // and no path anywhere else
        // Wherever it is, its lock is in the folder.
        CheckpointFolder folder = CheckpointFolder.At(files.Root, wish.Name);
        CheckpointStore store = new(files.All(wish.Tier, wish.Name));
        IDisposable? taken = null;
        try
        {
            if (wish.Start == CheckpointStart.Restart && !(wish.Tier == CheckpointTier.Disk ? folder.Exists : store.HasAny))
            {
                throw new ControlException($"there is no checkpoint {wish.Name} in {(wish.Tier == CheckpointTier.Disk ? files.Root : "the memory of nodes")} to go on from: vsmp checkpoint ls lists what there is",
                    ExitCodes.Usage);
            }
            taken = folder.AwaitLock(isToBeMade: true) ?? throw new ControlException($"checkpoint {wish.Name} is in use: a job writes it, or a command looks after it", ExitCodes.Taken);
            IReadOnlyList<uint> generations = store.List();
            if (wish.Start == CheckpointStart.New && generations.Count > 0)
            {
                throw new ControlException($"there is a checkpoint {wish.Name} already, up to generation {generations[^1]}: vsmp spmd --restart {wish.Name} goes on from it, "
                    + $"vsmp checkpoint rm {wish.Name} removes it", ExitCodes.Taken);
            }
            Manifest? restored = null;
            if (wish.Start == CheckpointStart.Restart || (wish.Start == CheckpointStart.RestartIfAny && generations.Count > 0))
            {
                var wrong = new List<string>();
                restored = wish.Generation is { } wanted ? store.Load(wanted) : store.FindNewest(wrong.Add);
                foreach (string text in wrong) Log.Warn($"checkpoint {wish.Name}: {text}");
                if (restored is null) throw new ControlException($"checkpoint {wish.Name} has no generation that could be gone on from{string.Concat(wrong.Select(w => $"; {w}"))}", ExitCodes.Failed);
                if (restored.UserId != userId && userId != 0) throw new ControlException($"checkpoint {wish.Name} belongs to another user", ExitCodes.Refused);
            }
            CheckpointSeries series = new(folder, store, taken, wish, userId, restored) { NextGeneration = store.NextNumber() };
            taken = null;
            series.Prepare();
            return series;
        }
        catch (CheckpointException e) { throw new ControlException($"checkpoint {wish.Name} cannot be gone on from: {e.Message}", ExitCodes.Failed); }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException) { throw new ControlException($"checkpoint {wish.Name} cannot be used: {e.Message}", ExitCodes.Failed); }
        finally
        {
            taken?.Dispose();
        }
    }

    /// <summary>Completes when everything that was to be written so far is.</summary>
    public Task Idle => _writing;

    /// <summary>Whether it is time for the next generation.</summary>
    public bool IsDue(long nowMicroseconds)
    {
        double? every = Pacer is not null ? Pacer.Interval.TotalSeconds : Wish.EverySeconds;
        return every is null || nowMicroseconds - _takenAt >= every * 1_000_000;
    }

    /// <summary>A generation was cut.</summary>
    public void OnTaken(long nowMicroseconds) => _takenAt = nowMicroseconds;

    /// <summary>A generation is safe.</summary>
    /// <param name="manifest">It.</param>
    /// <param name="regions">Numbers of its regions, as it lists them.</param>
    /// <param name="cost">What it has cost, at most.</param>
    public void OnStored(Manifest manifest, ulong[] regions, TimeSpan cost)
    {
        (_last, _lastRegions) = (manifest, regions);
        _hasGivenUp = false;
        Pacer?.OnTaken(cost);
    }

    /// <summary>A generation was given up: nodes know no more what the one before has.</summary>
    /// <param name="generation">Its number.</param>
    public void OnGivenUp(uint generation)
    {
        _last = null;
        _hasGivenUp = true;
        // What was written of it may be what the next lacks room for.
        Write(store => store.Discard(generation), error =>
        {
            if (error is not null) Log.Warn($"what was written of generation {generation} of checkpoint {Name} could not be removed: {error}");
        });
        Prepare();
    }

    /// <summary>The number of a generation that is begun: each is given once.</summary>
    public uint TakeNumber() => NextGeneration++;

    /// <summary>A node is lost: of what it had in its memory there is no second copy any more.</summary>
    public void OnNodeLost() => _isDegraded = Wish.Tier != CheckpointTier.Disk;

    /// <summary>Whatever is checkpointed has done what it was to do: what is in memory is not needed any more.</summary>
    public void OnDone() => _isDone = true;

    /// <summary>Makes the folder of a generation that is begun, if that is not done: ranks wait for it.</summary>
    /// <param name="generation">Its number.</param>
    /// <param name="done">Hears of it: null, or why it could not be done; on any thread.</param>
    public void Begin(uint generation, Action<string?> done)
    {
        if (_prepared == generation) done(null);
        else Write(store => MakeFolder(store, generation), done);
    }

    /// <summary>All parts of a generation are safe: it is from now on, and those that are not to be kept are removed.</summary>
    /// <param name="manifest">What it is made of.</param>
    /// <param name="protect">Protects the parts, and says where the manifest is to be written.</param>
    /// <param name="done">Hears of it: null, or why it could not be done; on any thread.</param>
    public void Commit(Manifest manifest, Func<IStorage> protect, Action<string?> done)
    {
        Write(_ => new CheckpointStore(protect()).Commit(manifest), done);
        Prepare(); // before what takes long, if much is removed
        Write(store =>
        {
            _ = Libc.SetPriority(0, 0, LeastPriority); // of this thread, which is for this alone
            store.Retain(Keep);
        }, error =>
        {
            if (error is not null) Log.Warn($"older generations of checkpoint {Name} could not be removed: {error}");
        });
    }

    /// <summary>Makes the folder of the next generation ahead of need.</summary>
    private void Prepare()
    {
        uint generation = NextGeneration;
        // If it could not be made, it is tried again when the generation is begun, and somebody told.
        Write(store => MakeFolder(store, generation), _ => { });
    }

    private void MakeFolder(CheckpointStore store, uint generation)
    {
        if (_prepared >= generation) return;
        _ = store.Begin(generation);
        _prepared = generation;
    }

    /// <summary>
    /// Writes to the store, on a thread of its own, one after the other: who sweeps must not find what another is about to write. It stays locked until all is done.
    /// </summary>
    /// <param name="write">What to do.</param>
    /// <param name="done">Hears of it, on that thread: null, or why it could not be done.</param>
    internal void Write(Action<CheckpointStore> write, Action<string?> done)
    {
        Interlocked.Increment(ref _uses);
        _writing = _writing.ContinueWith(_ =>
        {
            string? error = null;
            try { write(Store); }
#pragma warning disable CA1031 // whatever it was, whoever waits is told
            catch (Exception e) { error = e.Message; }
#pragma warning restore CA1031
            Release();
            done(error);
        }, CancellationToken.None, TaskContinuationOptions.LongRunning, TaskScheduler.Default); // it may wait for other nodes
    }

    /// <summary>What a generation is made of.</summary>
    public Manifest NewManifest(CheckpointWork work, CheckpointPlan plan, IEnumerable<PartSummary> parts, byte[] state) => new(Manifest.CurrentFormat, Name, plan.Generation, DateTimeOffset.UtcNow,
        work.Program, work.Ranks, _userId, [.. work.Regions.Select(r => r.Region)],
        [.. parts.Where(p => p.Pages > 0).OrderBy(p => p.Node, NaturalOrder.Instance).Select(p => new SavedPart(plan.Generation, p.Node, p.Pages, p.StoredPages, p.IndexCrc)), .. plan.IsFull ? [] : _last!.Parts], state, work.Run);

    /// <summary>No more generations are taken. What was not used is removed, and then the lock given back, on another thread.</summary>
    public void Dispose()
    {
        if (_isClosed) return;
        _isClosed = true;
        Write(store =>
        {
            // Its number shows that those before were given: one that was given up may still be written to by a node that has not heard of it.
            if (_isDone && Wish.Tier != CheckpointTier.Disk) store.RemoveAll();
            else if (_prepared > 0 && !_hasGivenUp) store.Discard(_prepared);
            if (!_folder.Store.HasAny) _ = _folder.Remove();
        }, error =>
        {
            if (error is not null) Log.Warn($"checkpoint {Name} could not be tidied up: {error}");
        });
        Release();
    }

    private void Release()
    {
        if (Interlocked.Decrement(ref _uses) == 0) _lock.Dispose();
    }

    private static ulong StoredPages(Manifest manifest) => (ulong)manifest.Parts.Sum(p => (long)p.StoredPages);
}

/// <summary>What a job wants of checkpoints.</summary>
/// <param name="Name">Of the checkpoint.</param>
/// <param name="EverySeconds">How often to take one at most; null: whenever the program may.</param>
/// <param name="MtbfSeconds">Choose the interval by the cost, for this mean time between failures; null: do not.</param>
/// <param name="Keep">How many generations to keep.</param>
/// <param name="Start">What the job has to do with generations that are there.</param>
/// <param name="IsRestartable">Whether whoever began the job begins it again if a node is lost: memory that is lost ends it then.</param>
/// <param name="Generation">From which generation to go on; null: the latest that is sound.</param>
/// <param name="Tier">Where generations are.</param>
internal sealed record CheckpointWish(string Name, double? EverySeconds, double? MtbfSeconds, int Keep, CheckpointStart Start, bool IsRestartable = false, uint? Generation = null, CheckpointTier Tier = CheckpointTier.Disk);

/// <summary>What a job has to do with the generations of its checkpoint that are there when it begins.</summary>
internal enum CheckpointStart
{
    /// <summary>There must be none.</summary>
    New,
    /// <summary>It goes on from one.</summary>
    Restart,
    /// <summary>It goes on from the latest, or begins if there is none.</summary>
    RestartIfAny,
    /// <summary>They are its own: another agent leads it now.</summary>
    Continue,
}
