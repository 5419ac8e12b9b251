// SPDX-License-Identifier: Apache-2.0
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
        if (led.Series is not { } series || led.Job.Regions.Count == 0 || !series.IsDue(Reactor.Clock()))
        {
            led.OnCheckpointTaken(0);
            return;
        }
        if (led.Checkpoint is not null) return; // when the one before is safe
        // Of homes and mirrors that were lost nothing is to be had any more; what they had others have.
        NodeId[] nodes = [.. led.Regions.Values.SelectMany(region => region.Nodes).Distinct().Where(node => node == self || peers.Find(node) is not null)];
        checkpoints.Take(series, led.Checkpoint = new JobCheckpoint(this, led, nodes));
    }

    /// <inheritdoc/>
    public void OnRankGone(LedJob led, string how)
    {
        // What is cut is whole; what is not will not be, for nobody is in the call any more.
        if (led.Job.IsTaking) GiveUpCheckpoint(led, how);
    }

    /// <summary>A generation of a job is safe, or was given up: the next may be taken.</summary>
    public void OnCheckpointEnded(LedJob led)
    {
        led.Checkpoint = null;
        if (led.Job.IsStoring) led.OnCheckpointEnded();
        if (led.Job.IsTaking) TakeCheckpoint(led);
    }

    /// <summary>What checkpoints a job wants.</summary>
    /// <exception cref="ControlException">It cannot have them, or cannot go on from there.</exception>
    private static void OpenSeries(LedJob led, CheckpointSeries? series)
    {
        if (series is null) return;
        if (series.Restored is { } manifest)
        {
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
        try { led.Series = CheckpointSeries.Open(checkpoints.Root, wish with { Start = CheckpointStart.Continue }, led.Header.UserId); }
        catch (ControlException e)
        {
            Log.Warn($"{led.Job.Id} of {led.Program} goes on without checkpoints: {e.Message}");
            led.Tell($"the job goes on without checkpoints: {e.Message}");
        }
        if (led.Job.IsStoring) led.OnCheckpointEnded();
        if (led.Job.IsTaking) led.OnCheckpointTaken(0);
    }

    /// <summary>All nodes have made a region: they fill it.</summary>
    private void Fill(LedJob led, RegionMaking making, int index)
    {
        making.IsLoading = true;
        making.Awaited.UnionWith(making.Nodes);
        int round = making.Rounds;
        LoadPlan plan = new(led.Header.Checkpoint!.Name, led.Job.Restored, making.Region.Id.Value, index);
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
    private readonly JobRegion[] _regions = [.. led.Job.Regions.Where(region => region.IsReady)];

    /// <inheritdoc/>
    public override string Program => led.Program;

    /// <inheritdoc/>
    public override int Ranks => led.Job.Size;

    /// <inheritdoc/>
    public override IReadOnlyList<(RegionId Id, SavedRegion Region)> Regions => [.. _regions.Select(r => (r.Id, new SavedRegion(r.Name, r.Bytes, r.Address)))];

    /// <inheritdoc/>
    public override IReadOnlyList<NodeId> Nodes => nodes;

    /// <inheritdoc/>
    public override bool TrySave(out byte[] state, out string? whyNot)
    {
        bool canSave = led.Job.TrySave(_regions, out SavedJob? saved, out whyNot);
        state = canSave ? JsonSerializer.SerializeToUtf8Bytes(saved!, SavedJobJson.Default.SavedJob) : [];
        return canSave;
    }

    /// <inheritdoc/>
    public override void OnTaken(uint generation) => led.OnCheckpointTaken(generation);

    /// <inheritdoc/>
    public override void OnStored(uint generation) => server.OnCheckpointEnded(led);

    /// <inheritdoc/>
    public override void OnGivenUp(uint generation, bool wasTaken, string why)
    {
        led.Tell($"generation {generation} of checkpoint {led.Header.Checkpoint!.Name} is given up, the one before stays: {why}");
        if (!wasTaken) led.OnCheckpointTaken(0);
        server.OnCheckpointEnded(led);
    }
}
