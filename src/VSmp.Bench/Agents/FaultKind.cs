// SPDX-License-Identifier: Apache-2.0
namespace VSmp.Bench.Agents;

/// <summary>A kind of fault, whose path is to allocate nothing.</summary>
/// <param name="Name">What it is called in the report.</param>
/// <param name="Plan">For <c>vsmp-fault</c>: the last step is the fault.</param>
/// <param name="Local">The budget of each node for copies, so that pages have to be evicted; null: enough for all.</param>
internal sealed record FaultKind(string Name, string Plan, string? Local = null)
{
    private const string SmallBudget = "16M";

    /// <summary>Whether a fault brings several pages, so that pages are counted instead.</summary>
    public bool IsOfPages { get; init; }

    /// <summary>Managed bytes that it may take.</summary>
    public int TargetBytes { get; init; }

    /// <summary>All of them.</summary>
    public static IReadOnlyList<FaultKind> All { get; } =
    [
        new("read, remote", "1:w1r0"),
        new("read, remote, in order, each page", "1:w1r0>") { IsOfPages = true },
        new("write, remote", "1:w1w0"),
        new("upgrade", "1:r0w0"),
        new("hand-off", "0:w1w0"),
        // An extent has no directory until one of its pages is asked for; it is made then.
        new("first touch, home here, its directory entry included", "0:w0") { TargetBytes = DirectorySize.EntryBytes },
        new("first touch, remote, its directory entry included", "1:w0") { TargetBytes = DirectorySize.EntryBytes },
        new("read, remote, with evictions", "1:w1r0", SmallBudget),
        new("write, remote, with writebacks", "1:w1w0", SmallBudget),
    ];
}
