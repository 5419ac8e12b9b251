// SPDX-License-Identifier: Apache-2.0
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace VSmp.Client;

/// <summary>A region: memory at the same address in every rank.</summary>
public sealed class SharedRegion
{
    private nint _region;

    internal SharedRegion(nint region) => _region = region;

    /// <summary>Its address.</summary>
    public unsafe nint Address => (nint)NativeMethods.vsmp_base(Region);

    /// <summary>Its length.</summary>
    public long Bytes => (long)NativeMethods.vsmp_bytes(Region);

    /// <summary>The name of its protocol.</summary>
    public unsafe string Protocol => Marshal.PtrToStringUTF8((nint)NativeMethods.vsmp_protocol(Region))!;

    private nint Region => _region != 0 ? _region : throw new InvalidOperationException("the region is detached");

    /// <summary>Allocates zeroed memory that every rank gets the address of. Collective.</summary>
    /// <param name="count">How many elements.</param>
    /// <param name="alignmentBytes">A power of two up to 2 MiB; 0: 16.</param>
    /// <exception cref="VsmpException">The region is full; ranks disagree.</exception>
    public unsafe SharedMemory<T> AllocateAll<T>(long count, int alignmentBytes = 0)
        where T : unmanaged =>
        NewMemory<T>(NativeMethods.vsmp_alloc_all(Region, BytesOf<T>(count), Alignment(alignmentBytes)), count, "vsmp_alloc_all");

    /// <summary>Allocates memory for this rank, which may hand the address to others. Not zeroed if it was used before.</summary>
    /// <inheritdoc cref="AllocateAll" path="/param"/>
    public unsafe SharedMemory<T> Allocate<T>(long count, int alignmentBytes = 0)
        where T : unmanaged =>
        NewMemory<T>(NativeMethods.vsmp_alloc(Region, BytesOf<T>(count), Alignment(alignmentBytes)), count, "vsmp_alloc");

    /// <summary>Gives memory back, once, by any rank.</summary>
    public unsafe void Free<T>(SharedMemory<T> memory)
        where T : unmanaged =>
        // SAFETY: the library checks that this is the start of a block.
        VsmpException.ThrowIfFailed(NativeMethods.vsmp_free(Region, (void*)memory.Address), "vsmp_free");

    /// <summary>Protocol lazy: sees what others released before. Under the others nothing. Locks, barriers and counters do it, too.</summary>
    public void Acquire() => VsmpException.ThrowIfFailed(NativeMethods.vsmp_acquire(Region), "vsmp_acquire");

    /// <summary>Protocol lazy: lets others see what this rank wrote. Under the others nothing. Locks, barriers and counters do it, too.</summary>
    public void Release() => VsmpException.ThrowIfFailed(NativeMethods.vsmp_release(Region), "vsmp_release");

    /// <summary>Unmaps the region. Collective. Memory of it must not be touched any more.</summary>
    public void Detach()
    {
        nint region = Region;
        _region = 0;
        VsmpException.ThrowIfFailed(NativeMethods.vsmp_detach(region), "vsmp_detach");
    }

    private static nuint BytesOf<T>(long count)
        where T : unmanaged
    {
        ArgumentOutOfRangeException.ThrowIfNegative(count);
        return checked((nuint)count * (nuint)Unsafe.SizeOf<T>());
    }

    private static nuint Alignment(int bytes)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(bytes);
        return (nuint)bytes;
    }

    private static unsafe SharedMemory<T> NewMemory<T>(void* block, long count, string call)
        where T : unmanaged =>
        block != null ? new SharedMemory<T>((nint)block, count) : throw VsmpException.Last(call, (int)VsmpError.OutOfMemory);
}

/// <summary>
/// Elements in a region. Reads and writes are plain loads and stores; <see cref="Interlocked"/> on references into it is atomic
/// between ranks; what the garbage collector moves (references) cannot be here.
/// </summary>
/// <remarks>
/// A thread that touches a page which is not on this node waits in a page fault until it is. In managed code that holds up a garbage
/// collection of this process for as long (the page comes without the process's doing, so it always ends). docs/spmd.md says
/// how to keep collections away from such loops.
/// </remarks>
/// <param name="Address">Where it begins; the same in every rank.</param>
/// <param name="Length">How many elements.</param>
public readonly record struct SharedMemory<T>(nint Address, long Length)
    where T : unmanaged
{
    /// <summary>An element.</summary>
    /// <exception cref="ArgumentOutOfRangeException">There is no such element.</exception>
    public unsafe ref T this[long index]
    {
        get
        {
            if ((ulong)index >= (ulong)Length) throw new ArgumentOutOfRangeException(nameof(index), $"{index} of {Length}");
            // SAFETY: within the block that the library allocated.
            return ref ((T*)Address)[index];
        }
    }

    /// <summary>All elements.</summary>
    /// <exception cref="OverflowException">There are more than a span can have: take a <see cref="Slice"/>.</exception>
    public unsafe Span<T> Span => new((void*)Address, checked((int)Length));

    /// <summary>Some of the elements.</summary>
    public SharedMemory<T> Slice(long start, long length)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(start);
        ArgumentOutOfRangeException.ThrowIfNegative(length);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(length, Length - start);
        return new SharedMemory<T>(Address + (nint)(start * Unsafe.SizeOf<T>()), length);
    }
}
