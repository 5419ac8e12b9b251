// SPDX-License-Identifier: Apache-2.0
using System.Net;

namespace VSmp.Coherence.Membership;

/// <summary>A member of the cluster.</summary>
/// <param name="Id">Its number, never used again in this epoch.</param>
/// <param name="Name">Its name, unique among the members.</param>
/// <param name="Address">Where it listens for other agents.</param>
/// <param name="ContributedBytes">Memory that it gives to the pool.</param>
/// <param name="Incarnation">How often its agent has been restarted since it joined: what an earlier one said does not bind a later one.</param>
public sealed record Member(NodeId Id, string Name, IPEndPoint Address, ulong ContributedBytes, uint Incarnation = 0)
{
    /// <summary>Longest name, in characters.</summary>
    public const int MaxNameLength = 63;

    /// <summary>Whether a node may be called so: letters, digits, '-', '_' and '.', a letter or digit first.</summary>
    public static bool IsName(string name) => name.Length is > 0 and <= MaxNameLength && char.IsAsciiLetterOrDigit(name[0])
        && name.All(c => char.IsAsciiLetterOrDigit(c) || c is '-' or '_' or '.');
}
