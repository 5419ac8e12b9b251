// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent.Guests;
using VSmp.Agent.Recovery;
using VSmp.Coherence;
using VSmp.Coherence.Recovery;
using Xunit;

namespace VSmp.Agent.Tests.Recovery;

public sealed class FormatTests
{
    [Fact]
    public void A_plan_is_read_as_it_was_written_and_nothing_else_is_read()
    {
        var plan = new RecoveryPlan([new NodeId(3), new NodeId(300)], [new NodeId(1)], IsAnyUserLost: true) { Moves = [new HomeMove(new ExtentNumber(0x01020304), 5, new NodeId(6), new NodeId(7))] };
        byte[] bytes = PlanFormat.Write(plan);
        Assert.Equal("0100020001000100" + "03002C010100" + "04030201" + "050006000700", Convert.ToHexString(bytes));
        RecoveryPlan read = PlanFormat.Read(bytes)!;
        Assert.Equal(plan.Lost, read.Lost);
        Assert.Equal(plan.Users, read.Users);
        Assert.Equal(plan.Moves, read.Moves);
        Assert.True(read.IsAnyUserLost);
        for (int length = 0; length < bytes.Length; length++) Assert.Null(PlanFormat.Read(bytes.AsSpan(0, length)));
        Assert.Null(PlanFormat.Read([.. bytes, 0]));
        bytes[0] = 2;
        Assert.Null(PlanFormat.Read(bytes));
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
