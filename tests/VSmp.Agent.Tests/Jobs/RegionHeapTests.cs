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
    }
}
