// SPDX-License-Identifier: Apache-2.0
using System.Runtime.CompilerServices;
using VSmp.Agent.Paging;
using VSmp.Coherence;
using VSmp.Coherence.Homes;
using VSmp.Coherence.Nodes;
using VSmp.Coherence.Protocols;

namespace VSmp.Bench.Agents;

/// <summary>What a region's bookkeeping takes of managed memory, measured with regions of this process.</summary>
internal static class DirectorySize
{
    private const int Extents = 4096;

    /// <summary>A page's entry in the directory of its home.</summary>
    public static int EntryBytes => Unsafe.SizeOf<DirectoryEntry>();

    /// <summary>A page's state at a node that uses it, and what the pager remembers of it there.</summary>
    public static int PageStateBytes => Unsafe.SizeOf<PageEntry>() + Unsafe.SizeOf<LocalPage>();

    /// <summary>Measures.</summary>
    /// <returns>Bytes for each extent that no page of was asked for, and for each page where all were.</returns>
    public static (double UntouchedExtent, double TouchedPage) Measure()
    {
        _ = Allocate(1); // what is made once in a process
        return Allocate(Extents);
    }

    private static (double UntouchedExtent, double TouchedPage) Allocate(int extents)
    {
        long start = GC.GetAllocatedBytesForCurrentThread();
        var region = new Region(new RegionId(1), "size", extents, Msi.Protocol, homes: null, budget: null);
        for (uint e = 0; e < extents; e++) region.BecomeHome(new ExtentNumber(e));
        long untouched = GC.GetAllocatedBytesForCurrentThread();
        for (uint p = 0; p < (uint)extents * ExtentNumber.Pages; p++) region.EntryAt(new PageNumber(p)).Version = new PageVersion(1);
        long touched = GC.GetAllocatedBytesForCurrentThread();
        return ((untouched - start) / (double)extents, (touched - untouched) / ((double)extents * ExtentNumber.Pages));
    }
}
