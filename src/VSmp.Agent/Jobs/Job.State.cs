// SPDX-License-Identifier: Apache-2.0
using VSmp.Coherence;

namespace VSmp.Agent.Jobs;

/// <content>Where it stands, for an agent that goes on with it.</content>
internal sealed partial class Job
{
    /// <summary>The region that is being made, or null.</summary>
    public JobRegion? Making => _making;

    /// <summary>Ranks that have not ended.</summary>
    public int RanksLeft => _ranks.Count(state => state != RankState.Gone);

    /// <summary>Where it stands.</summary>
    public JobState Save() => new(
        [.. _ranks.Select(state => (byte)state)],
        _goneText,
        LostText,
        _nextAddress,
        _making?.Id.Value,
        [.. Enumerable.Range(0, Size).Where(rank => _pending[rank] is not null).Select(rank => new RankCall(rank, RankMessages.Write(_pending[rank]!.Call), _pending[rank]!.Data))],
        [.. Enumerable.Range(0, Size).SelectMany(rank => _answers[rank].Save(rank))],
        [.. _locks.Select(l => new LockState(l.Key, l.Value.Holder, l.Value.OwnerDied, [.. l.Value.Waiting.Select(w => new RankCall(w.Rank, RankMessages.Write(w.Call), []))]))],
        [.. _counters.Keys],
        [.. _counters.Values],
        [.. _regions.Values.Select(Save)],
        new CheckpointState(Restored, IsTaking, _isStoring, [.. _toRestore.Values]));

    /// <summary>Goes on from there; of a job that was just made.</summary>
    /// <exception cref="InvalidDataException">No job of this size can be there.</exception>
    public void Load(JobState state)
    {
        Require(state.Ranks.Length == Size && state.Ranks.All(s => s <= (byte)RankState.Gone) && state.Counters.Length == state.Counts.Length);
        for (int rank = 0; rank < Size; rank++) _ranks[rank] = (RankState)state.Ranks[rank];
        (_goneText, LostText, _nextAddress) = (state.GoneText, state.LostText, state.NextAddress);
        foreach (RankCall call in state.Pending)
        {
            Require(IsRank(call.Rank) && _pending[call.Rank] is null);
            _pending[call.Rank] = new Pending(RankMessages.Read(call.Call), call.Data);
            _pendingCount++;
        }
        foreach (RankAnswer answer in state.Answers)
        {
            Require(IsRank(answer.Rank) && answer.Slot is >= 0 and < AnswerBook.Slots);
            _answers[answer.Rank].Load(answer);
        }
        foreach (LockState saved in state.Locks)
        {
            Require((saved.Holder == -1 || IsRank(saved.Holder)) && saved.Waiting.All(w => IsRank(w.Rank)));
            Mutex mutex = new() { Holder = saved.Holder, OwnerDied = saved.OwnerDied };
            foreach (RankCall call in saved.Waiting) mutex.Waiting.AddLast((call.Rank, RankMessages.Read(call.Call)));
            Require(_locks.TryAdd(saved.Number, mutex));
        }
        for (int i = 0; i < state.Counters.Length; i++) Require(_counters.TryAdd(state.Counters[i], state.Counts[i]));
        foreach (JobRegionState region in state.Regions) Load(region);
        (Restored, IsTaking, _isStoring) = (state.Checkpoint.Restored, state.Checkpoint.IsTaking, state.Checkpoint.IsStoring);
        foreach (RestorableRegion region in state.Checkpoint.ToRestore) Require(_toRestore.TryAdd(region.Name, region));
        if (state.Making is not { } making) return;
        Require(_regions.TryGetValue(new RegionId(making), out _making) && !_making!.IsReady);
    }

    private static JobRegionState Save(JobRegion region) => new(region.Id.Value, region.Name, region.Bytes, region.Address, region.IsReady,
        [.. Enumerable.Range(0, region.HasIt.Length).Where(rank => region.HasIt[rank])], region.Heap.SaveBlocks(), region.Heap.HighWater, region.RestoredFrom);

    private void Load(JobRegionState saved)
    {
        Require(saved.Bytes is > 0 and < JobLimits.LastAddress && saved.Address < JobLimits.LastAddress && saved.HasIt.All(IsRank));
        JobRegion region = new(new RegionId(saved.Id), saved.Name, saved.Bytes, saved.Address, Size) { IsReady = saved.IsReady, RestoredFrom = saved.RestoredFrom };
        Array.Clear(region.HasIt);
        foreach (int rank in saved.HasIt) region.HasIt[rank] = true;
        Require(region.Heap.TryLoad(saved.Blocks, saved.HighWater));
        Require(_regions.TryAdd(region.Id, region));
    }

    private bool IsRank(int rank) => rank >= 0 && rank < Size;

    private static void Require(bool isSo)
    {
        if (!isSo) throw new InvalidDataException("what is recorded of where the job stands makes no sense");
    }
}
