// SPDX-License-Identifier: Apache-2.0
using VSmp.Coherence;

namespace VSmp.Agent.Jobs;

/// <summary>
/// Where the homes of a job's region are: extents go round the job's nodes, each as often as its share of the free memory says. The
/// pattern repeats, so that it fits into a message whatever the region's length.
/// </summary>
internal static class HomePattern
{
    /// <summary>Longest pattern.</summary>
    public const int MaxLength = 4096;

    /// <summary>Makes the pattern of a region.</summary>
    /// <param name="nodes">The nodes, and how many extents each has free.</param>
    /// <param name="extentCount">Extents of the region.</param>
    /// <returns>Null if all of them together have not that much free.</returns>
    public static NodeId[]? Make(IReadOnlyList<(NodeId Node, long FreeExtents)> nodes, int extentCount)
    {
        long total = nodes.Sum(n => Math.Max(n.FreeExtents, 0));
        if (total < extentCount) return null;
        var pattern = new NodeId[Math.Min(extentCount, MaxLength)];
        long[] credit = new long[nodes.Count], left = [.. nodes.Select(n => Math.Max(n.FreeExtents, 0))];
        for (int i = 0; i < pattern.Length; i++)
        {
            // Smooth weighted round robin: everybody earns its weight, the richest takes the extent and pays for it.
            int best = -1;
            for (int n = 0; n < nodes.Count; n++)
            {
                credit[n] += Math.Max(nodes[n].FreeExtents, 0);
                if (left[n] > 0 && (best < 0 || credit[n] > credit[best])) best = n;
            }
            credit[best] -= total;
            left[best]--;
            pattern[i] = nodes[best].Node;
        }
        return pattern;
    }

    /// <summary>Of how many extents a node is home.</summary>
    public static uint CountOf(ReadOnlySpan<NodeId> pattern, int extentCount, NodeId node)
    {
        uint perRound = 0, inLast = 0;
        int rest = extentCount % pattern.Length;
        for (int i = 0; i < pattern.Length; i++)
        {
            if (pattern[i] != node) continue;
            perRound++;
            if (i < rest) inLast++;
        }
        return (perRound * (uint)(extentCount / pattern.Length)) + inLast;
    }
}
