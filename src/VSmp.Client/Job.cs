// SPDX-License-Identifier: Apache-2.0
using System.Runtime.CompilerServices;

namespace VSmp.Client;

/// <summary>
/// The job that <c>vsmp spmd</c> started this process for: its ranks, and what they do together. The functions of vsmp.h, with exceptions in
/// place of error numbers. Collective methods are called by all ranks, in the same order; those, and methods that wait, from one
/// thread of a rank at a time.
/// </summary>
public static class Job
{
    /// <summary>This rank, from 0.</summary>
    public static int Rank => NativeMethods.vsmp_rank();

    /// <summary>How many ranks there are.</summary>
    public static int Size => NativeMethods.vsmp_size();

    /// <summary>Joins the job. Collective.</summary>
    /// <exception cref="VsmpException">Not started by <c>vsmp spmd</c>; a rank ended first.</exception>
    /// <exception cref="InvalidOperationException">The library is not there, or another version than this assembly was written for.</exception>
    public static void Start()
    {
        int version;
        try { version = NativeMethods.vsmp_version(); }
        catch (DllNotFoundException e)
        {
            throw new InvalidOperationException($"{NativeMethods.Library} is not found: start the program with vsmp spmd, or install VSmp", e);
        }
        if (version != NativeMethods.ApiVersion)
        {
            throw new InvalidOperationException($"{NativeMethods.Library} implements version {version} of vsmp.h, this program needs "
                + $"version {NativeMethods.ApiVersion}: install both from one release");
        }
        VsmpException.ThrowIfFailed(NativeMethods.vsmp_start(), "vsmp_start");
    }

    /// <summary>
    /// Leaves the job; regions are unmapped. Collective. There is no <c>Dispose</c> that does this: a rank that fails must not wait for the
    /// others, but end, which tells them.
    /// </summary>
    public static void Finish() => VsmpException.ThrowIfFailed(NativeMethods.vsmp_finish(), "vsmp_finish");

    /// <summary>Creates or attaches a region. Collective: name, size and protocol must be the same everywhere.</summary>
    /// <param name="name">Letters, digits, - _ and ., at most 63; null: what <c>vsmp spmd --name</c> gave.</param>
    /// <param name="bytes">Its size.</param>
    /// <exception cref="VsmpException">The pool has not that much left; ranks disagree.</exception>
    public static SharedRegion Attach(string? name, long bytes)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(bytes);
        VsmpException.ThrowIfFailed(NativeMethods.vsmp_attach(name, (nuint)bytes, out nint region), "vsmp_attach");
        return new SharedRegion(region);
    }

    /// <summary>Waits for all ranks. Collective.</summary>
    public static void Barrier() => VsmpException.ThrowIfFailed(NativeMethods.vsmp_barrier(), "vsmp_barrier");

    /// <summary>
    /// The generation of a checkpoint that the job goes on from (<c>vsmp spmd --restart</c>), 0 if it begins. Then regions that are attached with the same name and size have what they had.
    /// </summary>
    public static long Restored => (long)NativeMethods.vsmp_restored();

    /// <summary>
    /// Takes a checkpoint of all regions, if the job has checkpoints (<c>vsmp spmd --checkpoint</c>) and one is due; otherwise it is a barrier. Collective. What ranks have in memory of
    /// their own is not kept.
    /// </summary>
    /// <returns>The generation that was begun, 0 if none was.</returns>
    /// <exception cref="VsmpException">A rank holds a lock; a rank has ended.</exception>
    public static unsafe long Checkpoint()
    {
        ulong generation;
        // SAFETY: a variable of this frame, written before the call returns.
        VsmpException.ThrowIfFailed(NativeMethods.vsmp_checkpoint(&generation), "vsmp_checkpoint");
        return (long)generation;
    }

    /// <summary>Takes a lock of the job: one per number, fair.</summary>
    /// <returns>The lock, held: dispose of it on the way out.</returns>
    public static HeldLock Lock(ulong number)
    {
        const int EOWNERDEAD = 130;
        int error = NativeMethods.vsmp_lock(number);
        if (error != EOWNERDEAD) VsmpException.ThrowIfFailed(error, "vsmp_lock");
        return new HeldLock(number, isAbandoned: error == EOWNERDEAD);
    }

    /// <summary>Adds to a counter of the job; each starts at 0.</summary>
    /// <returns>Its value before.</returns>
    public static unsafe long FetchAdd(ulong counter, long add)
    {
        long before;
        // SAFETY: a variable of this frame, written before the call returns.
        VsmpException.ThrowIfFailed(NativeMethods.vsmp_fetch_add(counter, add, &before), "vsmp_fetch_add");
        return before;
    }

    /// <summary>Copies up to 64 KiB from the root's buffer into all others'. Collective.</summary>
    public static unsafe void Broadcast<T>(Span<T> buffer, int root)
        where T : unmanaged
    {
        fixed (T* start = buffer)
        {
            // SAFETY: pinned for the call, which reads or writes exactly these bytes.
            int error = NativeMethods.vsmp_broadcast(start, (nuint)buffer.Length * (nuint)Unsafe.SizeOf<T>(), root);
            VsmpException.ThrowIfFailed(error, "vsmp_broadcast");
        }
    }
}

/// <summary>A lock that this rank holds.</summary>
public sealed class HeldLock : IDisposable
{
    private bool _isReleased;

    internal HeldLock(ulong number, bool isAbandoned)
    {
        Number = number;
        IsAbandoned = isAbandoned;
    }

    /// <summary>Its number.</summary>
    public ulong Number { get; }

    /// <summary>Whether the rank that held it before ended without unlocking: what it guards may be half changed.</summary>
    public bool IsAbandoned { get; }

    /// <summary>Unlocks.</summary>
    public void Dispose()
    {
        if (_isReleased) return;
        _isReleased = true;
        VsmpException.ThrowIfFailed(NativeMethods.vsmp_unlock(Number), "vsmp_unlock");
    }
}
