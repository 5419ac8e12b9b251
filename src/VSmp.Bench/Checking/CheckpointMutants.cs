// SPDX-License-Identifier: Apache-2.0
using VSmp.Coherence.Protocols;
using static VSmp.Bench.Checking.WorldBugs;

namespace VSmp.Bench.Checking;

/// <summary>A bug that shows only where checkpoints are taken.</summary>
internal sealed record CheckpointMutant(string Name, string Where, Protocol Protocol, WorldBugs Bugs) : Mutant(Name, Where, Finder.Checker)
{
    /// <inheritdoc/>
    public override string ProtocolName => Protocol.Name;

    /// <inheritdoc/>
    public override MutantResult Seek(int threads)
    {
        var bounds = new Scenario(Protocol, Nodes: 2, Pages: 1, Outstanding: 1) { Checkpoints = 2, Holds = false, Refusals = false };
        return CheckedMutant.Search(Name,
        [
            bounds,
            bounds with { GiveUps = 1 },
            bounds with { Checkpoints = 1, Mappings = 2 },
            bounds with { Checkpoints = 1, Nodes = 3 },
        ],
        Bugs, threads);
    }
}

/// <summary>Bugs in how checkpoints are cut and copied.</summary>
internal static class CheckpointMutants
{
    /// <summary>All of them.</summary>
    public static IReadOnlyList<Mutant> All { get; } =
    [
        World("what guests ask for is not held back for a checkpoint", "node: Hold does not hold", NotHeld),
        World("a checkpoint is cut while something is under way", "node: Hold and Settle done at once", CutAtOnce),
        World("a checkpoint is cut while something is under way at a home", "node: Settle done at once", NotSettled, Mesi.Protocol),
        World("one mapping is not write-protected at the cut", "pager: cuts all but one", OneMappingNotCut),
        World("what is written home counts as saved", "pager: WriteHome clears nothing", HomeWriteNotNoted),
        World("a page is copied for a checkpoint when it is gone", "pager: Unmap, then copies", CopiedAfterUnmap),
        World("a page is copied for a checkpoint when it was made writable", "pager: MakeWritable, then copies", CopiedAfterGrant),
        World("an exclusive page is copied for a checkpoint when it was made writable", "pager: MakeWritable, then copies", CopiedAfterGrant, Mesi.Protocol),
        World("a page that was saved is mapped writable when it is read", "pager: looks at the state only", SavedMappedWritable),
        World("a page that was saved is written without being copied", "pager: unprotects, and does not copy", WrittenUncopied),
        World("what was saved for a checkpoint that was given up counts", "node: keeps its bits", SavedThoughGivenUp),
        World("a home answers for a page that has an owner", "cut: the home, too", HomeAnswersToo),
        World("an owner does not answer for its page", "cut: homes only", OwnerDoesNotAnswer),
        World("a node goes on before all have cut", "node: Cut is the last step", GoOnAfterCut),
    ];

    private static CheckpointMutant World(string name, string where, WorldBugs bugs, Protocol? protocol = null) => new(name, where, protocol ?? Msi.Protocol, bugs);
}
