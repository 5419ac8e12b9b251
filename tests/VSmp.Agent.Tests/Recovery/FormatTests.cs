// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent.Guests;
using VSmp.Agent.Recovery;
using VSmp.Coherence;
using VSmp.Coherence.Placement;
using VSmp.Coherence.Recovery;
using Xunit;

namespace VSmp.Agent.Tests.Recovery;

public sealed class FormatTests
{
    [Fact]
    public void A_plan_is_read_as_it_was_written_and_nothing_else_is_read()
    {
        var plan = new RecoveryPlan([new NodeId(3), new NodeId(300)], [new NodeId(1)], IsAnyUserLost: true) { Moves = [new HomeMove(new ExtentNumber(0x01020304), 5, new NodeId(6), new NodeId(7))], Forgetful = [new NodeId(300)] };
        byte[] bytes = PlanFormat.Write(plan);
        Assert.Equal("0100020001000100" + "01000000" + "03002C010100" + "04030201" + "050006000700", Convert.ToHexString(bytes));
        RecoveryPlan read = PlanFormat.Read(bytes)!;
        Assert.Equal(plan.Lost, read.Lost);
        Assert.Equal(plan.Users, read.Users);
        Assert.Equal(plan.Moves, read.Moves);
        Assert.Equal(plan.Forgetful, read.Forgetful);
        Assert.True(read.IsAnyUserLost);
        for (int length = 0; length < bytes.Length; length++) Assert.Null(PlanFormat.Read(bytes.AsSpan(0, length)));
        Assert.Null(PlanFormat.Read([.. bytes, 0]));
        bytes[0] = 2;
        Assert.Null(PlanFormat.Read(bytes));
    }

    [Fact]
    public void Homes_that_have_moved_are_read_as_they_were_written_and_nothing_else_is_read()
    {
        var homes = new HomeMap(20_000, new NodeId(1), new NodeId(2));
        var runs = new List<HomeRun>();
        Assert.Empty(Assert.Single(HomeRuns.Write(homes))); // none has
        homes.Place(new ExtentNumber(3), new NodeId(7));
        homes.Place(new ExtentNumber(4), new NodeId(7));
        homes.Place(new ExtentNumber(6), new NodeId(300));
        byte[] bytes = Assert.Single(HomeRuns.Write(homes));
        Assert.Equal("0300000002000700" + "0600000001002C01", Convert.ToHexString(bytes));
        Assert.True(HomeRuns.TryRead(bytes, 20_000, runs));
        Assert.Equal([new HomeRun(new ExtentNumber(3), 2, new NodeId(7)), new HomeRun(new ExtentNumber(6), 1, new NodeId(300))], runs);
        Assert.False(HomeRuns.TryRead(bytes.AsSpan(1), 20_000, runs));
        Assert.False(HomeRuns.TryRead(bytes, 6, runs)); // beyond the end
        bytes[4] = 0;
        Assert.False(HomeRuns.TryRead(bytes, 20_000, runs));
        for (uint e = 0; e < 20_000; e += 2) homes.Place(new ExtentNumber(e), new NodeId((ushort)(8 + (e % 3))));
        List<byte[]> pieces = HomeRuns.Write(homes);
        Assert.True(pieces.Count > 1);
        var read = new HomeMap(20_000, new NodeId(1), new NodeId(2));
        foreach (byte[] piece in pieces)
        {
            Assert.True(HomeRuns.TryRead(piece, 20_000, runs));
            foreach (HomeRun run in runs)
            {
                for (uint i = 0; i < run.Count; i++) read.Place(new ExtentNumber(run.First.Value + i), run.Home);
            }
        }
        for (uint e = 0; e < 20_000; e++) Assert.Equal(homes.HomeOf(new ExtentNumber(e)), read.HomeOf(new ExtentNumber(e)));
    }

    [Fact]
    public void An_order_is_read_as_it_was_written_and_nothing_else_is_read()
    {
        byte[] bytes = new ExtentOrder(ExtentRole.LateMirror, new NodeId(7), "velvet").Write();
        Assert.Equal("02000700" + "76656C766574", Convert.ToHexString(bytes));
        Assert.Equal(new ExtentOrder(ExtentRole.LateMirror, new NodeId(7), "velvet"), ExtentOrder.Read(bytes));
        Assert.Null(ExtentOrder.Read(bytes.AsSpan(0, 3)));
        bytes[0] = 3;
        Assert.Null(ExtentOrder.Read(bytes));
    }
}
