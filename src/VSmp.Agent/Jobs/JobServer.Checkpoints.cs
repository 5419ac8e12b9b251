// SPDX-License-Identifier: Apache-2.0
using System.Numerics;
using System.Text.Json;
using VSmp.Agent.Checkpointing;
using VSmp.Agent.Control;
using VSmp.Agent.Interop;
using VSmp.Coherence;

namespace VSmp.Agent.Jobs;

/// <content>The leader's side of checkpoints: when one is taken, of what, and regions that are filled from one.</content>
internal sealed partial class JobServer
{
    /// <inheritdoc/>
    public void TakeCheckpoint(LedJob led)
    {
        if (led.Series is not { } series || led.Job.Regions.Count == 0 || led.Job.IsBroken || !(led.Wanters.Count > 0 || series.IsDue(Reactor.Clock())) || LacksRegion(led))
        {
            led.OnCheckpointTaken(0);
            return;
        }
        if (led.Checkpoint is not null || led.IsTidying) return; // when the one before is safe, and what it replaces is gone
        // Whoever may own a page, or is home of one. A home that was lost answers for nothing: until others are in its place there is no telling what is missing.
        NodeId[] nodes = [.. led.Regions.Values.SelectMany(region => region.CurrentHomes()).Concat(led.Placement).Distinct()];
        if (nodes.Any(node => node.IsNone || !IsUp(node)) || led.Regions.Keys.Any(recovery.IsUnderWay))
        {
            led.OnCheckpointTaken(0);
            return;
        }
        checkpoints.Take(series, led.Checkpoint = new JobCheckpoint(this, led, nodes));
    }

    /// <inheritdoc/>
    public void OnRankGone(LedJob led, string how)
    {
        CancelCheckpoint(led, how);
    }

    /// <summary>Nobody is in the call for a checkpoint any more: what is cut is whole, and what is not will not be.</summary>
    private void CancelCheckpoint(LedJob led, string why)
    {
        if (!led.Job.IsTaking) return;
        if (led.Job.IsStoring || led.Checkpoint is null) led.OnCheckpointTaken(0);
        else GiveUpCheckpoint(led, why);
    }

    /// <summary>Whether what the job had when it was checkpointed is not all there: the next generation would lack it.</summary>
    private static bool LacksRegion(LedJob led)
    {
        string[] lacking = [.. led.Job.Unattached.Order(StringComparer.Ordinal)];
        if (lacking.Length == 0) return false;
        if (!led.WasToldOfUnattached) led.Tell($"no checkpoint is taken before {string.Join(", ", lacking)} {(lacking.Length == 1 ? "is" : "are")} attached: the generation that the job goes on from has {(lacking.Length == 1 ? "it" : "them")}");
        led.WasToldOfUnattached = true;
        return true;
    }

    /// <summary>
    /// A generation of a job is safe, or was given up: the next may be taken, as soon as files that are not needed any more are removed. That takes a processor while it lasts, and everybody
    /// would be stopped for longer.
    /// </summary>
    public void OnCheckpointEnded(LedJob led)
    {
        led.Checkpoint = null;
        led.IsTidying = true;
        _ = led.Series!.Idle.ContinueWith(_ => reactor.Post(() =>
        {
            led.IsTidying = false;
            if (led.Job.IsTaking) TakeCheckpoint(led);
        }), TaskScheduler.Default);
        if (led.Job.IsStoring) led.OnCheckpointEnded();
    }

    /// <summary>Has the job that a region is of take a checkpoint when it next may.</summary>
    /// <param name="region">The region.</param>
    /// <param name="name">The checkpoint's name.</param>
    /// <param name="userId">Who asks for it.</param>
    /// <param name="onEnded">Hears what comes of it: the generation, or why there is none.</param>
    /// <returns>False if no job led here has the region.</returns>
    /// <exception cref="ControlException">It is another user's, or cannot be.</exception>
    public bool TryRequest(RegionId region, string name, uint userId, Action<uint, string?> onEnded)
    {
        if (_led.Values.FirstOrDefault(l => l.Job.Regions.Any(r => r.Id == region)) is not { } led) return false;
        if (userId != led.Header.UserId && userId != 0) throw new ControlException("the job belongs to another user", ExitCodes.Refused);
        if (led.IsLazy) throw new ControlException($"regions under the protocol {led.Job.Protocol} cannot be checkpointed", ExitCodes.Usage);
        if (led.Series is { } series && series.Name != name) throw new ControlException($"the job has a checkpoint, {series.Name}: generations are added to that", ExitCodes.Taken);
        led.Wanters.Add(onEnded);
        if (led.Series is not null) return true;
        CheckpointWish wish = new(name, CheckpointSeries.OnDemand, null, Keep: 2, CheckpointStart.Continue);
        OpenLater(led, wish, e => led.TellWanters(0, e.Message));
        return true;
    }

    /// <summary>Opens the checkpoint of a job that runs, elsewhere, since disks are slow.</summary>
    private void OpenLater(LedJob led, CheckpointWish wish, Action<ControlException> onRefused) => _ = Task.Run(() =>
    {
        CheckpointSeries? opened = null;
        ControlException? why = null;
        try { opened = CheckpointSeries.Open(checkpoints.Files, wish, led.Header.UserId); }
        catch (ControlException e) { why = e; }
        reactor.Post(() =>
        {
            if (opened is null) onRefused(why!);
            else if (led.Series is not null || !_led.ContainsKey(led.Job.Id)) opened.Dispose();
            else led.Series = opened;
        });
    });

    /// <summary>What checkpoints a job wants.</summary>
    /// <exception cref="ControlException">It cannot have them, or cannot go on from there.</exception>
    private static void OpenSeries(LedJob led, CheckpointSeries? series)
    {
        if (series is null) return;
        if (series.Restored is { } manifest)
        {
            if (manifest.Ranks == 0)
            {
                throw new ControlException($"checkpoint {manifest.Name} is of the memory of a program ({manifest.Program}) whose registers nobody has saved: nothing can go on from it; "
                    + "it can be shown, verified and compared", ExitCodes.Refused);
            }
            if (manifest.Ranks != led.Job.Size) throw new ControlException($"checkpoint {manifest.Name} is of {manifest.Ranks} ranks: a job that goes on from it has as many, not {led.Job.Size}", ExitCodes.Usage);
            try
            {
                SavedJob saved = JsonSerializer.Deserialize(manifest.State, SavedJobJson.Default.SavedJob) ?? throw new InvalidDataException("nothing is saved");
                led.Job.Restore(manifest.Generation, saved, [.. manifest.Regions.Select(r => (r.Name, r.Bytes, r.Address))]);
            }
            catch (Exception e) when (e is JsonException or InvalidDataException)
            {
                throw new ControlException($"generation {manifest.Generation} of checkpoint {manifest.Name} is none of ranks that could go on: {e.Message}", ExitCodes.Failed);
            }
        }
        led.Series = series;
    }

    /// <summary>The checkpoint under way cannot be completed: a rank or the job is gone.</summary>
    private void GiveUpCheckpoint(LedJob led, string why)
    {
        if (led.Checkpoint is { } work) checkpoints.GiveUp(work, why);
    }

    /// <summary>An agent before this one led the job, and was killed: what it had begun is void.</summary>
    private void RestoreCheckpoints(LedJob led)
    {
        if (led.Header.Checkpoint is not { } wish) return;
        OpenLater(led, wish with { Start = CheckpointStart.Continue }, e =>
        {
            Log.Warn($"{led.Job.Id} of {led.Program} goes on without checkpoints: {e.Message}");
            led.Tell($"the job goes on without checkpoints: {e.Message}");
        });
        if (led.Job.IsStoring) led.OnCheckpointEnded();
        if (led.Job.IsTaking) led.OnCheckpointTaken(0);
    }

    /// <summary>All nodes have made a region: they fill it.</summary>
    private void Fill(LedJob led, RegionMaking making, int index)
    {
        making.IsLoading = true;
        making.Awaited.UnionWith(making.Nodes);
        int round = making.Rounds;
        LoadPlan plan = new(led.Header.Checkpoint!.Name, led.Job.Restored, making.Region.Id.Value, index, led.Header.Checkpoint.Tier);
        checkpoints.Load(making.Nodes, plan, (node, error) =>
        {
            if (led.Making != making || making.Rounds != round || !making.Awaited.Remove(node)) return;
            if (error is not null)
            {
                making.LoadError = $"{peers.NameOf(node)}: {error}";
                making.Refused.Add(making.LoadError);
            }
            Proceed(led, making);
        });
    }
}

/// <summary>A checkpoint of a job.</summary>
/// <param name="server">The jobs of the node that leads it.</param>
/// <param name="led">The job.</param>
/// <param name="nodes">The nodes that have anything of its regions.</param>
internal sealed class JobCheckpoint(JobServer server, LedJob led, NodeId[] nodes) : CheckpointWork
{
    // In the order in which they were made: a generation that builds on another lists those of that first.
    private readonly JobRegion[] _regions = [.. led.Job.Regions.Where(region => region.IsReady).OrderBy(region => region.Id.Value)];
    private readonly CheckpointSeries _series = led.Series!;

    /// <inheritdoc/>
    public override SavedRun? Run => led.Header.Run;

    /// <inheritdoc/>
    public override string Program => led.Program;

    /// <inheritdoc/>
    public override int Ranks => led.Job.Size;

    /// <inheritdoc/>
    public override IReadOnlyList<(RegionId Id, SavedRegion Region)> Regions => [.. _regions.Select(r => (r.Id, new SavedRegion(r.Name, r.Bytes, r.Address)))];

    /// <inheritdoc/>
    public override IReadOnlyList<NodeId> Nodes => nodes;

    /// <inheritdoc/>
    public override bool TrySave(out Func<byte[]> state, out string? whyNot)
    {
        bool canSave = led.Job.TrySave(_regions, out SavedJob? saved, out whyNot);
        state = () => JsonSerializer.SerializeToUtf8Bytes(saved!, SavedJobJson.Default.SavedJob);
        return canSave;
    }

    /// <inheritdoc/>
    public override void OnTaken(uint generation) => led.OnCheckpointTaken(generation);

    /// <inheritdoc/>
    public override void OnStored(uint generation)
    {
        led.TellWanters(generation, null);
        led.GivenUpInRow = 0;
        server.OnCheckpointEnded(led);
    }

    /// <inheritdoc/>
    public override void OnGivenUp(uint generation, bool wasTaken, string why)
    {
        led.TellWanters(0, why);
        // A disk that is full is so for each generation: who has been told need not read it every time.
        string again = ++led.GivenUpInRow == 1 ? "" : $" ({led.GivenUpInRow} in a row)";
        if (BitOperations.IsPow2(led.GivenUpInRow)) led.Tell($"generation {generation} of checkpoint {_series.Name} is given up, the one before stays{again}: {why}");
        if (!wasTaken) led.OnCheckpointTaken(0);
        server.OnCheckpointEnded(led);
    }
}
