// SPDX-License-Identifier: Apache-2.0
using VSmp.Coherence;

namespace VSmp.Agent.Jobs;

/// <summary>A region of a job, as its leader knows it.</summary>
/// <param name="id">Its number.</param>
/// <param name="name">Its name within the job.</param>
/// <param name="bytes">What the ranks asked for.</param>
/// <param name="address">Where it lies in every rank.</param>
/// <param name="size">Ranks of the job.</param>
internal sealed class JobRegion(RegionId id, string name, ulong bytes, ulong address, int size)
{
    /// <summary>Its number.</summary>
    public RegionId Id { get; } = id;

    /// <summary>Its name within the job.</summary>
    public string Name { get; } = name;

    /// <summary>What the ranks asked for.</summary>
    public ulong Bytes { get; } = bytes;

    /// <summary>Where it lies in every rank.</summary>
    public ulong Address { get; } = address;

    /// <summary>Its length in extents.</summary>
    public int ExtentCount { get; } = (int)((bytes + ExtentNumber.Bytes - 1) / ExtentNumber.Bytes);

    /// <summary>What the ranks have allocated in it.</summary>
    public RegionHeap Heap { get; } = new((bytes + 15) / 16 * 16);

    /// <summary>Which ranks have it, or are about to.</summary>
    public bool[] HasIt { get; } = Enumerable.Repeat(true, size).ToArray();

    /// <summary>The region of a checkpoint that it is to be filled with: its place there; null: it begins as zeros.</summary>
    public int? RestoredFrom { get; init; }

    /// <summary>Whether every node of the job has made it.</summary>
    public bool IsReady { get; set; }
}
