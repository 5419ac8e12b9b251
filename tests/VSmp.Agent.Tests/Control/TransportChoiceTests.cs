// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent.Control;
using VSmp.Agent.Fabric;
using Xunit;

namespace VSmp.Agent.Tests.Control;

public sealed class TransportChoiceTests
{
    [Theory]
    [InlineData("tcp", nameof(TransportKind.Tcp), null, null)]
    [InlineData("verbs", nameof(TransportKind.Verbs), null, null)]
    [InlineData("verbs:mlx5_0", nameof(TransportKind.Verbs), "mlx5_0", null)]
    [InlineData("verbs:rxe0:1", nameof(TransportKind.Verbs), "rxe0", 1)]
    public void A_transport_is_read_as_it_is_written(string text, string kind, string? device, int? gid)
    {
        TransportChoice? choice = TransportChoice.Parse(text);
        Assert.Equal(new TransportChoice(Enum.Parse<TransportKind>(kind), device, gid), choice);
        Assert.Equal(text, choice!.ToString());
    }

    [Theory]
    [InlineData("")]
    [InlineData("udp")]
    [InlineData("TCP")]
    [InlineData("tcp:eth0")]
    [InlineData("verbs:")]
    [InlineData("verbs::1")]
    [InlineData("verbs:rxe0:")]
    [InlineData("verbs:rxe0:-1")]
    [InlineData("verbs:rxe0:1:2")]
    [InlineData("verbs:../../etc")]
    [InlineData("rxe:eth0")] // of vsmp up alone
    public void What_is_no_transport_is_refused(string text) => Assert.Null(TransportChoice.Parse(text));
}
