// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent.Interop;
using VSmp.Coherence;

namespace VSmp.Agent.Jobs;

/// <content>Checkpoints, which all ranks call for together, and going on from one.</content>
/// <remarks>
/// <code>
///   all ranks in vsmp_checkpoint ──► taking ──taken──► storing ──ended──► (idle)
///                                       └──none──► (idle)        Finish and Detach wait for that
/// </code>
/// </remarks>
internal sealed partial class Job
{
    private readonly Dictionary<string, RestorableRegion> _toRestore = [];
    private bool _isStoring; // a generation is cut, and not safe yet

    /// <summary>The generation that it goes on from; 0: it began.</summary>
    public uint Restored { get; private set; }

    /// <summary>Whether all ranks are in vsmp_checkpoint, and what comes of it is not decided yet.</summary>
    public bool IsTaking { get; private set; }

    /// <summary>Whether a rank has ended, or a node was lost, so that no call of all ranks will ever succeed.</summary>
    public bool IsBroken => _goneText is not null || LostText is not null;

    /// <summary>Names of regions that it had, and has not attached again: nothing can be kept without them.</summary>
    public IEnumerable<string> Unattached => _toRestore.Keys;

    /// <summary>Whether a generation is cut, and not safe yet.</summary>
    public bool IsStoring => _isStoring;

    /// <summary>Goes on from a generation; of a job that was just made.</summary>
    /// <param name="generation">Which.</param>
    /// <param name="saved">What was saved with it.</param>
    /// <param name="regions">Its regions.</param>
    /// <exception cref="InvalidDataException">No job can have been there.</exception>
    public void Restore(uint generation, SavedJob saved, IReadOnlyList<(string Name, ulong Bytes, ulong Address)> regions)
    {
        Require(Array.TrueForAll<SavedHeap?>(saved.Heaps, heap => heap is not null)); // elements may be, whatever the type says
        Require(saved.Heaps.Length == regions.Count && saved.Counters.Length == saved.Counts.Length && saved.NextAddress is >= JobLimits.FirstAddress and <= JobLimits.LastAddress);
        for (int i = 0; i < regions.Count; i++)
        {
            (string name, ulong bytes, ulong address) = regions[i];
            Require(bytes is > 0 and < JobLimits.LastAddress && address % ExtentNumber.Bytes == 0 && address >= JobLimits.FirstAddress && address < saved.NextAddress && bytes <= saved.NextAddress - address);
            Require(new JobRegion(default, name, bytes, address, Size).Heap.TryLoad(saved.Heaps[i].Blocks, saved.Heaps[i].HighWater));
            Require(_toRestore.TryAdd(name, new RestorableRegion(name, i, bytes, address, saved.Heaps[i].Blocks, saved.Heaps[i].HighWater)));
        }
        for (int i = 0; i < saved.Counters.Length; i++) Require(_counters.TryAdd(saved.Counters[i], saved.Counts[i]));
        (Restored, _nextAddress) = (generation, saved.NextAddress);
    }

    /// <summary>What is to be saved with a generation that has just been cut.</summary>
    /// <param name="regions">The regions, as the generation lists them.</param>
    /// <param name="saved">It.</param>
    /// <param name="whyNot">Why nothing can be saved now.</param>
    public bool TrySave(IReadOnlyList<JobRegion> regions, out SavedJob? saved, out string? whyNot)
    {
        saved = null;
        whyNot = WhoHoldsALock();
        if (whyNot is not null) return false;
        saved = new SavedJob(_nextAddress, [.. _counters.Keys], [.. _counters.Values], [.. regions.Select(r => new SavedHeap(r.Heap.SaveBlocks(), r.Heap.HighWater))]);
        return true;
    }

    /// <summary>What came of the call for a checkpoint.</summary>
    /// <param name="generation">The generation that is cut; 0: none was due, or it was given up.</param>
    /// <param name="errno">Not 0: the call was wrong.</param>
    /// <param name="text">In words, why.</param>
    public void OnCheckpointTaken(uint generation, int errno, string text)
    {
        if (!IsTaking) return;
        IsTaking = false;
        if (generation > 0) _isStoring = true; // the one before may be on its way, and only its end ends that
        if (_pendingCount < Size) return; // a rank ended meanwhile; the ranks have been told
        if (errno != 0) FailCollective(errno, text);
        else CompleteCollective((_, reply) => reply with { A = generation });
    }

    /// <summary>The generation that was cut is safe, or was given up.</summary>
    public void OnCheckpointEnded()
    {
        if (!_isStoring) return;
        _isStoring = false;
        if (_pendingCount == Size && _pending[0]!.Call.Type is Guests.GuestRequest.Detach or Guests.GuestRequest.Finish) Perform();
    }

    private void Checkpoint()
    {
        if (WhoHoldsALock() is { } text)
        {
            FailCollective(Errno.EBUSY, text);
            return;
        }
        IsTaking = true;
        _actions.TakeCheckpoint();
    }

    private string? WhoHoldsALock()
    {
        // The same one, whatever order they are in.
        (ulong Number, int Holder) first = _locks.Where(l => l.Value.Holder >= 0).Select(l => (l.Key, l.Value.Holder)).Append((ulong.MaxValue, -1)).Min();
        return first.Holder < 0 ? null : $"rank {first.Holder} holds lock {first.Number}, and nobody would after a restart: unlock it before vsmp_checkpoint";
    }

    /// <summary>A region that was to be filled with what it had was not made after all: it may be attached again.</summary>
    private void PutBack(JobRegion region)
    {
        if (region.RestoredFrom is { } index) _toRestore[region.Name] = new RestorableRegion(region.Name, index, region.Bytes, region.Address, region.Heap.SaveBlocks(), region.Heap.HighWater);
    }

    private void AttachRestored(RestorableRegion saved, ulong bytes)
    {
        if (bytes != saved.Bytes)
        {
            _toRestore.Add(saved.Name, saved);
            FailCollective(Errno.EINVAL, $"region {saved.Name} has {saved.Bytes} bytes in the checkpoint that the job goes on from, not {bytes}");
            return;
        }
        JobRegion region = new(_actions.NewRegionId(), saved.Name, saved.Bytes, saved.Address, Size) { RestoredFrom = saved.Index };
        Require(region.Heap.TryLoad(saved.Blocks, saved.HighWater));
        Make(region);
    }
}
