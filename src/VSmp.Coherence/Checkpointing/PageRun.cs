// SPDX-License-Identifier: Apache-2.0
using System.Numerics;

namespace VSmp.Coherence.Checkpointing;

/// <summary>Pages that follow each other.</summary>
/// <param name="First">The first.</param>
/// <param name="Count">How many, at least one.</param>
public readonly record struct PageRun(PageNumber First, uint Count)
{
    /// <summary>The page behind the last.</summary>
    public PageNumber Behind => First.Plus(Count);

    /// <summary>Adds pages behind those that a list has.</summary>
    /// <param name="runs">The list, in order.</param>
    /// <param name="first">The page of the lowest bit.</param>
    /// <param name="pages">A bit for each of 64 pages.</param>
    public static void Add(List<PageRun> runs, PageNumber first, ulong pages)
    {
        for (int at = 0; at < 64 && pages >> at != 0;)
        {
            at += BitOperations.TrailingZeroCount(pages >> at);
            int count = BitOperations.TrailingZeroCount(~(pages >> at)); // 64 if all are
            PageRun run = new(first.Plus((uint)at), (uint)count);
            if (runs.Count > 0 && runs[^1].Behind == run.First) runs[^1] = runs[^1] with { Count = runs[^1].Count + run.Count };
            else runs.Add(run);
            at += count;
        }
    }
}
