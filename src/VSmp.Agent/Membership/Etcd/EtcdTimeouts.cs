// SPDX-License-Identifier: Apache-2.0
namespace VSmp.Agent.Membership.Etcd;

/// <summary>How long etcd is waited for.</summary>
/// <param name="Connect">For a connection to one of its members, TLS included.</param>
/// <param name="Attempt">For the answer of one member; then another is asked.</param>
/// <param name="Call">For a whole call, all attempts together.</param>
/// <param name="Check">Between two looks at whether a watch has missed something.</param>
internal sealed record EtcdTimeouts(TimeSpan Connect, TimeSpan Attempt, TimeSpan Call, TimeSpan Check)
{
    /// <summary>Enough for etcd to choose a new leader (a second or two) within a call.</summary>
    public static EtcdTimeouts Default { get; } =
        new(TimeSpan.FromSeconds(2), TimeSpan.FromSeconds(3), TimeSpan.FromSeconds(8), TimeSpan.FromSeconds(5));
}
