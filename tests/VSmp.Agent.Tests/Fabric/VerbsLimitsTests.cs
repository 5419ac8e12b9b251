// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent.Fabric.Verbs;
using VSmp.Agent.Interop;
using Xunit;

namespace VSmp.Agent.Tests.Fabric;

/// <summary>A device that allows less than a link needs is refused with both numbers.</summary>
public sealed class VerbsLimitsTests
{
    private static readonly VerbsPort Ample = new("dev0", "eth0", 1, IsActive: true, MtuBytes: 1024, IsEthernet: true, Errno: 0)
    {
        MaxQueueDepth = 1024,
        MaxCompletions = 1024,
        MaxSegments = 1,
        MaxMessageBytes = 1 << 20,
        MaxRegisteredBytes = 16 << 20,
    };

    [Fact]
    public void A_device_that_allows_enough_is_taken() => Assert.Null(VerbsLink.Shortfall(Ample));

    [Fact]
    public void A_limit_that_is_too_small_is_named_with_the_device_and_the_need()
    {
        Assert.Contains("dev0 allows 47 work requests in a queue (max_qp_wr), a link needs 48", VerbsLink.Shortfall(Ample with { MaxQueueDepth = 47 }), StringComparison.Ordinal);
        Assert.Contains("dev0 allows 79 completions in a completion queue (max_cqe), a link needs 80", VerbsLink.Shortfall(Ample with { MaxCompletions = 79 }), StringComparison.Ordinal);
        Assert.Contains("max_sge", VerbsLink.Shortfall(Ample with { MaxSegments = 0 }), StringComparison.Ordinal);
        Assert.Contains("allows 65663 bytes in a message (max_msg_sz), a link needs 65664", VerbsLink.Shortfall(Ample with { MaxMessageBytes = VerbsLink.SlotBytes - 1 }), StringComparison.Ordinal);
        Assert.Contains("max_mr_size", VerbsLink.Shortfall(Ample with { MaxRegisteredBytes = 1 << 20 }), StringComparison.Ordinal);
    }
}
