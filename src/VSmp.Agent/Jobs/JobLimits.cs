// SPDX-License-Identifier: Apache-2.0
using VSmp.Coherence;

namespace VSmp.Agent.Jobs;

/// <summary>How much a job may ask of the agent that leads it: what programs do must not exhaust an agent.</summary>
internal static class JobLimits
{
    /// <summary>Ranks of a job.</summary>
    public const int MaxRanks = 4096;

    /// <summary>Regions that a job has at a time.</summary>
    public const int MaxRegions = 64;

    /// <summary>Locks, counters and blocks of each region that a job has used.</summary>
    public const int MaxObjects = 1 << 20;

    /// <summary>Bytes of a region's name.</summary>
    public const int MaxNameBytes = 63;

    /// <summary>Largest alignment of an allocation.</summary>
    public const ulong MaxAlignment = (ulong)ExtentNumber.Bytes;

    /// <summary>
    /// Where the first region of a job lies in every rank: above what programs, their sanitizers' shadows included, keep low, and far below
    /// where the kernel puts mappings, stacks and position-independent programs.
    /// </summary>
    public const ulong FirstAddress = 0x2000_0000_0000;

    /// <summary>Regions end below this.</summary>
    public const ulong LastAddress = 0x5000_0000_0000;
}
