// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent.Jobs;
using VSmp.Coherence;
using Xunit;

namespace VSmp.Agent.Tests.Jobs;

public sealed class RegionHeapTests
{
    [Fact]
    public void Blocks_never_overlap_keep_their_alignment_and_come_back_whole()
    {
        int seed = Environment.TickCount;
        Random random = new(seed);
        const ulong Bytes = 1 << 20;
        RegionHeap heap = new(Bytes);
        Dictionary<ulong, ulong> blocks = [];
        for (int step = 0; step < 4000; step++)
        {
            if (blocks.Count > 0 && random.Next(100) < 45)
            {
                ulong block = blocks.Keys.ElementAt(random.Next(blocks.Count));
                Assert.True(heap.TryFree(block), $"seed {seed}");
                Assert.False(heap.TryFree(block), $"seed {seed}");
                blocks.Remove(block);
                continue;
            }
            ulong wanted = (ulong)random.Next(1, 20_000), alignment = 1ul << random.Next(0, 15);
            if (!heap.TryAllocate(wanted, alignment, out ulong offset, out _)) continue;
            Assert.True(offset % alignment == 0 && offset + wanted <= Bytes, $"seed {seed}: {wanted} at {offset}, alignment {alignment}");
            Assert.True(blocks.All(b => offset + wanted <= b.Key || b.Key + b.Value <= offset), $"seed {seed}: {offset}+{wanted} overlaps");
            blocks.Add(offset, wanted);
        }
        foreach (ulong block in blocks.Keys) Assert.True(heap.TryFree(block), $"seed {seed}");
        Assert.Equal((0, Bytes), (heap.BlockCount, heap.FreeBytes));
        Assert.True(heap.TryAllocate(Bytes, 16, out ulong all, out bool wasUsed), $"seed {seed}: in pieces");
        Assert.Equal((0ul, true), (all, wasUsed));
        Assert.False(heap.TryAllocate(1, 1, out _, out _));
        Assert.True(heap.TryFree(0));
        Assert.False(heap.TryAllocate(ulong.MaxValue, 1, out _, out _));
        Assert.False(heap.TryAllocate(ulong.MaxValue - 8, 1 << 20, out _, out _));
    }

    [Fact]
    public void Homes_follow_the_free_memory_and_nobody_gets_more_than_it_has()
    {
        NodeId a = new(0), b = new(1), c = new(2);
        NodeId[]? pattern = HomePattern.Make([(a, 10), (b, 30), (c, 0)], 20);
        Assert.NotNull(pattern);
        Assert.Equal((5u, 15u, 0u), (HomePattern.CountOf(pattern, 20, a), HomePattern.CountOf(pattern, 20, b), HomePattern.CountOf(pattern, 20, c)));
        Assert.Contains(a, pattern[..4]); // interleaved, not one block after the other
        Assert.Null(HomePattern.Make([(a, 10), (b, 30), (c, -3)], 41));
        pattern = HomePattern.Make([(a, 10), (b, 30)], 40);
        Assert.Equal((10u, 30u), (HomePattern.CountOf(pattern!, 40, a), HomePattern.CountOf(pattern!, 40, b)));
        pattern = HomePattern.Make([(a, 100_000), (b, 100_000)], 100_001);
        Assert.Equal(HomePattern.MaxLength, pattern!.Length);
        Assert.Equal(100_001u, HomePattern.CountOf(pattern, 100_001, a) + HomePattern.CountOf(pattern, 100_001, b));
    }

    [Fact]
    public void What_is_on_nodes_without_ranks_has_a_mirror_on_another_and_nobody_gets_more_than_it_has()
    {
        NodeId a = new(0), b = new(1), c = new(2), d = new(3);
        var (homes, mirrors) = HomePattern.MakeMirrored([(a, 10, true, false), (b, 10, true, false), (c, 20, false, true), (d, 20, false, true)], 20)!.Value;
        Assert.Equal((5u, 5u), (HomePattern.CountOf(homes, 20, a), HomePattern.CountOf(homes, 20, b)));
        Assert.Equal(10, mirrors.Count(mirror => !mirror.IsNone));
        Assert.Equal((5u, 5u), (HomePattern.CountOf(mirrors, 20, c), HomePattern.CountOf(mirrors, 20, d)));
        // A node without ranks that is alone can have no mirror, and is left out.
        (homes, mirrors) = HomePattern.MakeMirrored([(a, 10, true, false), (c, 100, false, true)], 10)!.Value;
        Assert.All(homes, home => Assert.Equal(a, home));
        Assert.All(mirrors, mirror => Assert.True(mirror.IsNone));
        Assert.Null(HomePattern.MakeMirrored([(a, 10, true, false), (c, 100, false, true)], 11));
        // One that leads without ranks needs no mirror, and can be one.
        (homes, mirrors) = HomePattern.MakeMirrored([(a, 0, true, false), (b, 10, true, true), (c, 10, false, true)], 10)!.Value;
        Assert.All(homes.Zip(mirrors), at => Assert.Equal(at.First == c ? b : NodeId.None, at.Second));

        int seed = Environment.TickCount;
        Random random = new(seed);
        for (int round = 0; round < 300; round++)
        {
            (NodeId Node, long Free, bool IsBound, bool MayMirror)[] nodes = [.. Enumerable.Range(0, random.Next(1, 7)).Select(n =>
                (new NodeId((ushort)n), (long)random.Next(-1, 30), random.Next(2) == 0)).Select(n => (n.Item1, n.Item2, n.Item3, !n.Item3))];
            int extents = random.Next(1, 60);
            if (HomePattern.MakeMirrored(nodes, extents) is not { } plan) continue;
            foreach ((NodeId home, NodeId mirror) in plan.Homes.Zip(plan.Mirrors))
            {
                Assert.True(nodes[home.Value].IsBound == mirror.IsNone && home != mirror && (mirror.IsNone || nodes[mirror.Value].MayMirror), $"seed {seed}");
            }
            foreach (var node in nodes)
            {
                uint given = HomePattern.CountOf(plan.Homes, extents, node.Node) + HomePattern.CountOf(plan.Mirrors, extents, node.Node);
                Assert.True(given <= Math.Max(node.Free, 0), $"{node} gives {given} (seed {seed})");
            }
        }
        (homes, mirrors) = HomePattern.MakeMirrored([(a, 50_000, true, false), (c, 50_000, false, true), (d, 50_000, false, true)], 90_000)!.Value;
        Assert.Equal(HomePattern.MaxLength, homes.Length);
        Assert.True(HomePattern.CountOf(homes, 90_000, c) + HomePattern.CountOf(mirrors, 90_000, c) <= 50_000 + (90_000 / HomePattern.MaxLength));
    }

    [Fact]
    public void Plans_survive_the_wire_and_what_is_none_is_refused()
    {
        RegionPlan plan = new([new NodeId(3), new NodeId(500)], "msi", "grid");
        byte[] bytes = plan.Write();
        RegionPlan read = RegionPlan.Read(bytes)!;
        Assert.Equal((plan.Protocol, plan.Name), (read.Protocol, read.Name));
        Assert.Equal(plan.Pattern, read.Pattern);
        for (int length = 0; length < bytes.Length; length++) Assert.Null(RegionPlan.Read(bytes.AsSpan(0, length)));
        Assert.Null(RegionPlan.Read([.. bytes, 0]));
        Assert.Null(RegionPlan.Read([0, 0, 0, 0]));
        Assert.Null(read.Mirrors);
        plan = plan with { Mirrors = [new NodeId(7), NodeId.None] };
        bytes = plan.Write();
        Assert.EndsWith("0700FFFF", Convert.ToHexString(bytes), StringComparison.Ordinal);
        Assert.Equal(plan.Mirrors, RegionPlan.Read(bytes)!.Mirrors);
        Assert.Equal((new NodeId(7), NodeId.None, new NodeId(7)), (plan.MirrorOf(0), plan.MirrorOf(1), plan.MirrorOf(2)));
        Assert.Null(RegionPlan.Read(bytes.AsSpan(0, bytes.Length - 2)));
        Assert.Null(RegionPlan.Read([.. bytes, 0, 0]));
        Assert.Null(RegionPlan.Read((plan with { Mirrors = [new NodeId(3), NodeId.None] }).Write())); // beside its home
    }
}
