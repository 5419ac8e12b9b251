// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent.Control;
using VSmp.Agent.Guests;
using VSmp.Coherence;

namespace VSmp.Agent.Jobs;

/// <content>
/// What the job is told: recorded first, so that an agent that is started after this one can tell it the same again (<see cref="JobJournal"/>). Nothing is told to
/// <see cref="Job"/> but by these.
/// </content>
internal sealed partial class LedJob
{
    private JobJournal? _journal; // null: it ends with this agent
    private Replay? _replay; // while it is told again what an agent before this one has told it

    /// <summary>From now on what it is told is recorded.</summary>
    public void RecordIn(JobJournal journal) => _journal = journal;

    /// <summary>It is not to outlive this agent, or is over: there is to be no record of it.</summary>
    public void StopRecording()
    {
        _journal?.Delete();
        _journal = null;
    }

    /// <summary>A rank calls.</summary>
    public void OnCall(int rank, in GuestMessage call, ReadOnlySpan<byte> data)
    {
        _journal?.AppendCall(rank, in call, data);
        Job.OnCall(rank, in call, data);
    }

    /// <summary>A rank is gone.</summary>
    public void OnRankGone(int rank, string how)
    {
        if (Job.IsGone(rank)) return;
        _journal?.Append(new RankGone(rank, how));
        Job.OnRankGone(rank, how);
        _node.OnRankGone(this, how);
    }

    /// <summary>What came of its call for a checkpoint.</summary>
    /// <param name="generation">The generation that is cut; 0: none.</param>
    /// <param name="error">Not 0: the call was wrong; an errno.</param>
    /// <param name="text">In words.</param>
    public void OnCheckpointTaken(uint generation, int error = 0, string text = "")
    {
        _journal?.Append(new CheckpointTaken(generation, error, text));
        Job.OnCheckpointTaken(generation, error, text);
    }

    /// <summary>The generation that was cut is safe, or was given up.</summary>
    public void OnCheckpointEnded()
    {
        _journal?.AppendStored();
        Job.OnCheckpointEnded();
    }

    /// <summary>It cannot go on.</summary>
    public void OnLost(string text)
    {
        _journal?.Append(new JobLost(text));
        Tell(text);
        Observer.OnJobLost();
        Job.OnAgentLost(text);
    }

    /// <summary>The region that the nodes were making is there.</summary>
    /// <param name="region">Which.</param>
    /// <param name="plan">Where its homes and mirrors are.</param>
    /// <param name="nodes">Who has made it.</param>
    public void OnRegionMade(JobRegion region, RegionPlan plan, NodeId[] nodes)
    {
        _journal?.Append(new RegionMade(region.Id.Value, 0, "", plan.Write(), [.. nodes.Select(node => node.Value)]));
        if (NewShared(region, plan, nodes) is { } shared) _node.Lead(shared);
        Job.OnRegionMade(region, 0, "");
    }

    /// <summary>The region that the nodes were making cannot be.</summary>
    /// <param name="region">Which.</param>
    /// <param name="error">Why not: an errno.</param>
    /// <param name="text">The same in words.</param>
    public void OnRegionRefused(JobRegion region, int error, string text)
    {
        _journal?.Append(new RegionMade(region.Id.Value, error, text, [], []));
        Job.OnRegionMade(region, error, text);
    }

    /// <summary>Homes or mirrors of a region of it are elsewhere.</summary>
    public void Record(RegionPlaces places) => _journal?.Append(places);

    /// <summary>The journal begins anew with where the job stands. Not while it is being told something.</summary>
    public void Compact() => _journal?.Compact(Save());

    /// <summary>Who has begun it is back, at the agent that goes on with it.</summary>
    public void Resume(IRunObserver observer)
    {
        AwaitedSupervisor kept = (AwaitedSupervisor)Observer;
        Observer = observer;
        kept.TellAll(observer);
        if (BrokenBecause is not null) observer.OnJobLost();
    }

    /// <summary>Whether who has begun it has yet to come to the agent that goes on with it.</summary>
    public bool IsAwaitingSupervisor => Observer is AwaitedSupervisor;

    /// <summary>Where it stands.</summary>
    public LedState Save() => new(Job.Save(), [.. Regions.Values.Select(region => region.Save())]);

    /// <summary>Tells it again what an agent before this one has recorded; nobody hears of it. Of a job that was just made.</summary>
    /// <exception cref="InvalidDataException">What is recorded makes no sense.</exception>
    public void TellAgain(IReadOnlyList<JournalRecord> records)
    {
        _replay = new Replay(records);
        while (_replay.TryTake(out JournalRecord record)) TellAgain(record);
        _replay = null;
        if (Job.Making is { } making) Making = new RegionMaking(making) { IsWaiting = true };
    }

    private void TellAgain(JournalRecord record)
    {
        switch (record.Kind)
        {
            case JournalEntry.State:
                Load(record.Read(JournalJson.Default.LedState));
                break;
            case JournalEntry.Call:
                (int rank, GuestMessage call, byte[] data) = record.ReadCall();
                RequireRank(rank);
                Job.OnCall(rank, in call, data);
                break;
            case JournalEntry.Gone:
                RankGone gone = record.Read(JournalJson.Default.RankGone);
                RequireRank(gone.Rank);
                Job.OnRankGone(gone.Rank, gone.How);
                break;
            case JournalEntry.Lost:
                Job.OnAgentLost(record.Read(JournalJson.Default.JobLost).Why);
                break;
            case JournalEntry.Made:
                RegionMade made = record.Read(JournalJson.Default.RegionMade);
                if (Job.Making is not { } region || region.Id.Value != made.Region) throw new InvalidDataException($"region {made.Region:x16} was not being made");
                if (made.Error == 0) _ = NewShared(region, ReadPlan(made.Plan), NodesOf(made.Nodes));
                Job.OnRegionMade(region, made.Error, made.Why);
                break;
            case JournalEntry.Taken:
                CheckpointTaken taken = record.Read(JournalJson.Default.CheckpointTaken);
                Job.OnCheckpointTaken(taken.Generation, taken.Error, taken.Why);
                break;
            case JournalEntry.Stored:
                Job.OnCheckpointEnded();
                break;
            case JournalEntry.Places:
                RegionPlaces places = record.Read(JournalJson.Default.RegionPlaces);
                Find(places.Region).Load(places);
                break;
            default:
                throw new InvalidDataException($"a record of kind {(byte)record.Kind} has no place here");
        }
    }

    private void Load(LedState state)
    {
        Job.Load(state.Job);
        foreach (SharedRegionState saved in state.Regions)
        {
            if (Job.Regions.FirstOrDefault(r => r.Id.Value == saved.Region) is not { IsReady: true } region) throw new InvalidDataException($"there is no region {saved.Region:x16}");
            NewShared(region, ReadPlan(saved.Plan), NodesOf(saved.Nodes))?.Load(saved.Places);
        }
    }

    /// <summary>What is recovered when a node is lost; null under lazy release, where nothing is.</summary>
    private SharedRegion? NewShared(JobRegion region, RegionPlan plan, NodeId[] nodes)
    {
        if (IsLazy) return null;
        SharedRegion shared = new(_node, this, region, plan, nodes);
        if (!Regions.TryAdd(region.Id, shared)) throw new InvalidDataException($"{region.Id} is there already");
        return shared;
    }

    private SharedRegion Find(ulong region) =>
        Regions.GetValueOrDefault(new RegionId(region)) ?? throw new InvalidDataException($"there is no region {region:x16} that could have moved");

    private void RequireRank(int rank)
    {
        if (rank < 0 || rank >= Job.Size) throw new InvalidDataException($"there is no rank {rank}");
    }

    private static RegionPlan ReadPlan(byte[] bytes) => RegionPlan.Read(bytes) ?? throw new InvalidDataException("the plan of a region makes no sense");

    private static NodeId[] NodesOf(ushort[] nodes) => [.. nodes.Select(node => new NodeId(node))];

    /// <summary>Records that are told again, in their order.</summary>
    private sealed class Replay(IReadOnlyList<JournalRecord> records)
    {
        private int _next;

        public bool TryTake(out JournalRecord record)
        {
            bool isThere = _next < records.Count;
            record = isThere ? records[_next++] : default;
            return isThere;
        }

        /// <summary>The number that a region was given when it was asked for; null: the agent was killed before, and nobody has heard of any.</summary>
        public RegionId? TakeRegionNumber() =>
            _next < records.Count && records[_next].Kind == JournalEntry.RegionNumber ? new RegionId(records[_next++].ReadRegionNumber()) : null;
    }
}
