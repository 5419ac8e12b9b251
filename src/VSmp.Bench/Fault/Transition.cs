// SPDX-License-Identifier: Apache-2.0
namespace VSmp.Bench.Fault;

/// <summary>
/// A page's way from one state into another, as one fault causes it, and what MSI says that it takes. Rank 0, on node 0, is the requestor;
/// the home is node 1, unless it is here.
/// </summary>
/// <param name="Name">The requestor's state before and after, and what matters elsewhere.</param>
/// <param name="Plan">For <c>vsmp-fault</c>: rank at the home, and steps; the last is the transition.</param>
/// <param name="Nodes">Nodes that it needs.</param>
/// <param name="Others">What becomes of the state of the nodes that had the page; empty: nothing. M→S is no fault of the node that makes it.</param>
/// <param name="Path">The messages that the requestor waits for, one after the other; those between parts of one node do not count.</param>
/// <param name="Hops">How many these are: half as many round trips.</param>
/// <param name="Frames">Frames of coherence that travel, the path's and those that nobody waits for.</param>
public sealed record Transition(string Name, string Plan, int Nodes, string Others, string Path, int Hops, int Frames)
{
    private const int MaxSharers = 8;

    /// <summary>All of them, those that need the most nodes last.</summary>
    public static IReadOnlyList<Transition> All { get; } =
    [
        new("I→S never written", "1:r0", 2, "", "GetS, DataS", 2, 2),
        new("I→S clean", "1:w1r2r0", 3, "", "GetS, DataS", 2, 2),
        new("I→S dirty at home", "1:w1r0", 2, "M→S", "GetS, DataS", 2, 2),
        new("I→S dirty elsewhere", "1:w2r0", 3, "M→S", "GetS, FwdGetS, DataS", 3, 5),
        new("I→S dirty elsewhere, home here", "0:w1r0", 2, "M→S", "FwdGetS, DataS", 2, 4),
        new("I→M never written", "1:w0", 2, "", "GetM, DataM", 2, 3),
        new("I→M clean, 1 sharer", "1:w1r2w0", 3, "S→I", "GetM, Inv, InvAck", 3, 6),
        new("I→M dirty at home", "1:w1w0", 2, "M→I", "GetM, DataM", 2, 4),
        new("I→M dirty elsewhere", "1:w2w0", 3, "M→I", "GetM, FwdGetM, DataM", 3, 5),
        new("I→M dirty elsewhere, home here", "0:w1w0", 2, "M→I", "FwdGetM, DataM", 2, 3),
        .. Enumerable.Range(0, MaxSharers + 1).Select(Upgrade),
    ];

    private static Transition Upgrade(int otherSharers)
    {
        string readers = string.Concat(Enumerable.Range(2, otherSharers).Select(rank => $"r{rank}"));
        return otherSharers == 0
            ? new("S→M no other sharer", "1:r0w0", 2, "", "Upgrade, SoleGrant", 2, 2)
            : new($"S→M {otherSharers} other {(otherSharers == 1 ? "sharer" : "sharers")}", $"1:{readers}r0w0", 2 + otherSharers,
                "S→I", "Upgrade, Inv, InvAck", 3, 3 + (2 * otherSharers));
    }
}
