// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent.Guests;
using VSmp.Agent.Interop;
using VSmp.Coherence;

namespace VSmp.Agent.Jobs;

/// <content>What a rank asks for alone.</content>
internal sealed partial class Job
{
    private readonly Dictionary<ulong, Mutex> _locks = [];
    private readonly Dictionary<ulong, long> _counters = [];

    private void OnSingle(int rank, in GuestMessage call)
    {
        switch (call.Type)
        {
            case GuestRequest.Lock:
                Lock(rank, in call);
                break;
            case GuestRequest.Unlock:
                Unlock(rank, in call);
                break;
            case GuestRequest.FetchAdd:
                FetchAdd(rank, in call);
                break;
            case GuestRequest.Alloc:
                int errno = TryAllocate(in call, out GuestMessage block, out string text);
                if (errno != 0) Fail(rank, in call, errno, text);
                else Succeed(rank, ReplyTo(call, 0) with { A = block.A, B = block.B });
                break;
            case GuestRequest.Free:
                Free(rank, in call);
                break;
            case GuestRequest.Acquire or GuestRequest.ReleaseRegion:
                // What there is to do is done on the way here and back (Synchronization).
                if (_regions.ContainsKey(new RegionId(call.A))) Succeed(rank, ReplyTo(call, 0));
                else Fail(rank, in call, Errno.EINVAL, "there is no such region in this job");
                break;
            default:
                Fail(rank, in call, Errno.EINVAL, $"a request of type {(ushort)call.Type} is not understood here");
                break;
        }
    }

    private void Succeed(int rank, in GuestMessage reply) => Answer(rank, in reply, []);

    private void Lock(int rank, in GuestMessage call)
    {
        if (!_locks.TryGetValue(call.A, out Mutex? mutex))
        {
            if (_locks.Count >= JobLimits.MaxObjects)
            {
                Fail(rank, in call, Errno.ENOMEM, $"the job holds {JobLimits.MaxObjects} locks at a time, and no more");
                return;
            }
            _locks.Add(call.A, mutex = new Mutex());
        }
        if (mutex.Holder == rank)
        {
            Fail(rank, in call, Errno.EDEADLK, $"rank {rank} holds lock {call.A} already");
            return;
        }
        if (mutex.Holder >= 0) mutex.Waiting.AddLast((rank, call));
        else Grant(mutex, rank, in call);
    }

    private void Unlock(int rank, in GuestMessage call)
    {
        if (!_locks.TryGetValue(call.A, out Mutex? mutex) || mutex.Holder != rank)
        {
            Fail(rank, in call, Errno.EPERM, $"rank {rank} does not hold lock {call.A}");
            return;
        }
        PassOn(call.A, mutex, ownerDied: false);
        Succeed(rank, ReplyTo(call, 0));
    }

    private void Grant(Mutex mutex, int rank, in GuestMessage call)
    {
        bool hasOwnerDied = mutex.OwnerDied;
        (mutex.Holder, mutex.OwnerDied) = (rank, false);
        if (hasOwnerDied) Fail(rank, in call, Errno.EOWNERDEAD, $"lock {call.A} is held, but the rank that held it before ended: {_goneText}");
        else Succeed(rank, ReplyTo(call, 0));
    }

    private void PassOn(ulong number, Mutex mutex, bool ownerDied)
    {
        mutex.Holder = -1;
        mutex.OwnerDied = ownerDied;
        if (mutex.Waiting.First is { Value: var (next, call) })
        {
            mutex.Waiting.RemoveFirst();
            Grant(mutex, next, in call);
        }
        else if (!ownerDied)
        {
            _locks.Remove(number); // an unused lock costs nothing
        }
    }

    private void ReleaseLocksOf(int rank)
    {
        foreach ((ulong number, Mutex mutex) in _locks.OrderBy(l => l.Key).ToArray()) // in the same order, however they came to be there
        {
            for (LinkedListNode<(int Rank, GuestMessage Call)>? node = mutex.Waiting.First, next; node is not null; node = next)
            {
                next = node.Next;
                if (node.Value.Rank == rank) mutex.Waiting.Remove(node);
            }
            if (mutex.Holder == rank) PassOn(number, mutex, ownerDied: true);
        }
    }

    private void FailWaiters(int errno, string text)
    {
        foreach ((_, Mutex mutex) in _locks.OrderBy(l => l.Key).ToArray())
        {
            (int Rank, GuestMessage Call)[] waiting = [.. mutex.Waiting];
            mutex.Waiting.Clear();
            foreach ((int rank, GuestMessage call) in waiting) Fail(rank, in call, errno, text);
        }
    }

    private void FetchAdd(int rank, in GuestMessage call)
    {
        if (!_counters.TryGetValue(call.A, out long before) && _counters.Count >= JobLimits.MaxObjects)
        {
            Fail(rank, in call, Errno.ENOMEM, $"the job has {JobLimits.MaxObjects} counters, and no more");
            return;
        }
        _counters[call.A] = unchecked(before + (long)call.B);
        Succeed(rank, ReplyTo(call, 0) with { A = (ulong)before });
    }

    private int TryAllocate(in GuestMessage call, out GuestMessage result, out string text)
    {
        result = default;
        text = "";
        if (!_regions.TryGetValue(new RegionId(call.A), out JobRegion? region) || !region.IsReady)
        {
            text = "there is no such region in this job";
            return Errno.EINVAL;
        }
        ulong alignment = call.C == 0 ? 16 : call.C;
        if (!ulong.IsPow2(alignment) || alignment > JobLimits.MaxAlignment)
        {
            text = $"an alignment of {call.C} bytes: it must be a power of two, {JobLimits.MaxAlignment} at most";
            return Errno.EINVAL;
        }
        if (region.Heap.BlockCount >= JobLimits.MaxObjects || !region.Heap.TryAllocate(call.B, alignment, out ulong offset, out bool wasUsed))
        {
            text = $"region {region.Name} has no room for {call.B} bytes: {region.Heap.FreeBytes} of {region.Bytes} are free, "
                + $"{region.Heap.BlockCount} blocks are allocated; attach a larger one";
            return Errno.ENOMEM;
        }
        result.A = region.Address + offset;
        result.B = wasUsed ? 1u : 0;
        return 0;
    }

    private void Free(int rank, in GuestMessage call)
    {
        if (_regions.TryGetValue(new RegionId(call.A), out JobRegion? region) && call.B >= region.Address
            && region.Heap.TryFree(call.B - region.Address))
        {
            Succeed(rank, ReplyTo(call, 0));
            return;
        }
        Fail(rank, in call, Errno.EINVAL, $"0x{call.B:x} is not the start of a block of {RegionText(call.A)}");
    }

    /// <summary>A lock that somebody holds, or whose last holder ended.</summary>
    private sealed class Mutex
    {
        public int Holder { get; set; } = -1;
        public bool OwnerDied { get; set; }
        public LinkedList<(int Rank, GuestMessage Call)> Waiting { get; } = [];
    }
}
