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

    /// <summary>Makes the pattern of a region that is mirrored: homes on nodes without which the job could go on get a mirror on another such node.</summary>
    /// <param name="nodes">The nodes: how many extents each has free, whether the job ends with it, and whether it may be a mirror.</param>
    /// <param name="extentCount">Extents of the region.</param>
    /// <returns>Homes and mirrors; null if all nodes together have not that much free.</returns>
    /// <remarks>Smooth weighted round robin, as <see cref="Make"/>; a node whose homes need mirrors counts half, for the others' mirrors take the rest.</remarks>
    public static (NodeId[] Homes, NodeId[] Mirrors)? MakeMirrored(IReadOnlyList<(NodeId Node, long FreeExtents, bool IsBound, bool MayMirror)> nodes, int extentCount)
    {
        int length = Math.Min(extentCount, MaxLength);
        NodeId[] homes = new NodeId[length], mirrors = new NodeId[length];
        // The pattern stands for the whole region: a position takes as many extents as it comes round.
        double[] left = [.. nodes.Select(n => Math.Max(n.FreeExtents, 0) * (double)length / extentCount)];
        double[] weight = [.. nodes.Select((n, i) => n.IsBound ? left[i] : left[i] / 2)];
        double[] credit = new double[nodes.Count];
        double total = weight.Sum();
        for (int i = 0; i < length; i++)
        {
            int home = -1, mirror = -1;
            for (int n = 0; n < nodes.Count; n++)
            {
                credit[n] += weight[n];
                if (left[n] < 1 || (home >= 0 && credit[n] <= credit[home])) continue;
                int second = nodes[n].IsBound ? -1 : RoomiestMirror(nodes, left, n);
                if (nodes[n].IsBound || second >= 0) (home, mirror) = (n, second);
            }
            if (home < 0) return null;
            credit[home] -= total;
            left[home]--;
            homes[i] = nodes[home].Node;
            mirrors[i] = mirror < 0 ? NodeId.None : nodes[mirror].Node;
            if (mirror >= 0) left[mirror]--;
        }
        return (homes, mirrors);
    }

    private static int RoomiestMirror(IReadOnlyList<(NodeId Node, long FreeExtents, bool IsBound, bool MayMirror)> nodes, double[] left, int home)
    {
        int best = -1;
        for (int n = 0; n < nodes.Count; n++)
        {
            if (n != home && nodes[n].MayMirror && left[n] >= 1 && (best < 0 || left[n] > left[best])) best = n;
        }
        return best;
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
