// SPDX-License-Identifier: Apache-2.0
using System.Runtime.InteropServices;

namespace VSmp.Client;

/// <summary>The functions of vsmp.h, as they are there. <c>vsmp spmd</c> makes the library findable (LD_LIBRARY_PATH).</summary>
/// <remarks>None may suppress the GC transition: all but a few wait for other ranks or for the agent.</remarks>
internal static unsafe partial class NativeMethods
{
    internal const string Library = "libvsmp.so";

    /// <summary>The version of vsmp.h that these imports are of.</summary>
    internal const int ApiVersion = 1;

    [LibraryImport(Library)]
    internal static partial int vsmp_version();

    [LibraryImport(Library)]
    internal static partial int vsmp_start();

    [LibraryImport(Library)]
    internal static partial int vsmp_finish();

    [LibraryImport(Library)]
    internal static partial int vsmp_rank();

    [LibraryImport(Library)]
    internal static partial int vsmp_size();

    [LibraryImport(Library)]
    internal static partial byte* vsmp_error();

    [LibraryImport(Library, StringMarshalling = StringMarshalling.Utf8)]
    internal static partial int vsmp_attach(string? name, nuint bytes, out nint region);

    [LibraryImport(Library)]
    internal static partial int vsmp_detach(nint region);

    [LibraryImport(Library)]
    internal static partial void* vsmp_base(nint region);

    [LibraryImport(Library)]
    internal static partial nuint vsmp_bytes(nint region);

    [LibraryImport(Library)]
    internal static partial byte* vsmp_protocol(nint region);

    [LibraryImport(Library)]
    internal static partial void* vsmp_alloc_all(nint region, nuint bytes, nuint alignment);

    [LibraryImport(Library)]
    internal static partial void* vsmp_alloc(nint region, nuint bytes, nuint alignment);

    [LibraryImport(Library)]
    internal static partial int vsmp_free(nint region, void* block);

    [LibraryImport(Library)]
    internal static partial int vsmp_barrier();

    [LibraryImport(Library)]
    internal static partial int vsmp_checkpoint(ulong* generation);

    [LibraryImport(Library)]
    internal static partial ulong vsmp_restored();

    [LibraryImport(Library)]
    internal static partial int vsmp_lock(ulong number);

    [LibraryImport(Library)]
    internal static partial int vsmp_unlock(ulong number);

    [LibraryImport(Library)]
    internal static partial int vsmp_fetch_add(ulong counter, long add, long* before);

    [LibraryImport(Library)]
    internal static partial int vsmp_broadcast(void* buffer, nuint bytes, int root);

    [LibraryImport(Library)]
    internal static partial int vsmp_acquire(nint region);

    [LibraryImport(Library)]
    internal static partial int vsmp_release(nint region);
}
