// SPDX-License-Identifier: Apache-2.0
using VSmp.Coherence.Protocols;

namespace VSmp.Bench.Checking;

/// <summary>What is bounded, so that the states can be counted. Nothing else is.</summary>
/// <param name="Protocol">The protocol.</param>
/// <param name="Nodes">Nodes; node 0 is the home of all pages, and its guests use them as well.</param>
/// <param name="Pages">Pages, neighbours in one extent.</param>
/// <param name="Outstanding">Accesses per node that may wait at a time.</param>
/// <param name="Mappings">Processes per node that map the pages.</param>
internal sealed record Scenario(Protocol Protocol, int Nodes, int Pages, int Outstanding, int Mappings = 1)
{
    /// <summary>Most nodes: sharers are then known by number, and every order of them can be tried.</summary>
    public const int MaxNodes = 4;

    /// <summary>Most pages.</summary>
    public const int MaxPages = 2;

    /// <summary>Most mappings.</summary>
    public const int MaxMappings = 2;

    /// <summary>Only the last node uses the pages, and throws them away now and then (munmap, MADV_DONTNEED).</summary>
    public bool IsPrivate { get; init; }

    /// <summary>The node that mirrors the extent, and uses no page; none has, if null.</summary>
    public byte? Mirror { get; init; }

    /// <summary>How many nodes may be lost, each at any moment. The last node made the region and leads: if it were lost, the region would end.</summary>
    public int Crashes { get; init; }

    /// <summary>How many agents may be killed, each at any moment, and come back with their guests, frames and records.</summary>
    public int Restarts { get; init; }

    /// <summary>How many times home and mirror change places, at any moment. Neither uses the pages.</summary>
    public int HomeMoves { get; init; }

    /// <summary>Whether the mirror is younger than the home, which copies to it what it has.</summary>
    public bool IsMirrorLate { get; init; }

    /// <summary>A node that uses no page and has none: it becomes home when that is lost, and no mirror is left. None such, if null.</summary>
    public byte? Spare { get; init; }

    /// <summary>Only nodes that use no page are lost. (A job ends with any of its ranks' nodes.)</summary>
    public bool UsersStay { get; init; }

    /// <summary>
    /// There is one node more, of which all that is seen is that it may be lost: it is home, or mirror, of other pages of the region. These directories are
    /// rebuilt then though nobody is lost that they know of.
    /// </summary>
    public bool HasBystander { get; init; }

    /// <summary>Whether the home's own guests use the pages.</summary>
    public bool HomeUses { get; init; } = true;

    /// <summary>How many checkpoints are taken, one after the other, each at any moment; those after the first save what has changed.</summary>
    public int Checkpoints { get; init; }

    /// <summary>How many of these may be given up, at any moment.</summary>
    public int GiveUps { get; init; }

    /// <summary>Whether there is more to a state than the protocol's tables, wires and frames: generations, mirrors, who is lost.</summary>
    public bool HasRecovery => Crashes > 0 || Restarts > 0 || Mirror is not null;

    /// <summary>The node that made the region.</summary>
    public int Creator => Nodes - 1;

    /// <summary>Accesses ask for the next page as well, where that can be (runs; needs two pages).</summary>
    public bool AsksAhead { get; init; }

    /// <summary>A page is held once an access got it, until some later moment.</summary>
    public bool Holds { get; init; } = true;

    /// <summary>The kernel may refuse to map what was granted; the thread then faults again.</summary>
    public bool Refusals { get; init; } = true;

    /// <summary>A bug to be found; null in production code, always.</summary>
    public Planted? Planted { get; init; }

    /// <inheritdoc/>
    public override string ToString() =>
        $"{Protocol.Name}: {Nodes} nodes × {Pages} page{(Pages > 1 ? "s" : "")}, {Outstanding} outstanding per node"
        + (Mappings > 1 ? $", {Mappings} mappings" : "") + (AsksAhead ? ", runs" : "") + (IsPrivate ? ", thrown away" : "")
        + (HomeUses ? "" : ", home is no user") + (Mirror is { } mirror ? $", {(IsMirrorLate ? "late " : "")}mirror {mirror}" : "") + (Spare is { } spare ? $", spare {spare}" : "") + (HasBystander ? ", a bystander" : "") + (HomeMoves switch
        {
            0 => "",
            1 => ", the home moves",
            _ => $", the home moves {HomeMoves} times",
        }) + (Crashes switch
        {
            0 => "",
            1 => ", one is lost",
            _ => $", {Crashes} are lost",
        }) + (Restarts > 0 ? $", {Restarts} restarted" : "") + (UsersStay ? ", users stay" : "")
        + (Checkpoints > 0 ? $", {Checkpoints} checkpoint{(Checkpoints > 1 ? "s" : "")}" : "") + (GiveUps > 0 ? $", {GiveUps} given up" : "");

    /// <summary>Whether a node's guests use the pages.</summary>
    public bool IsUser(int node) => node < Nodes && node != Mirror && node != Spare && (node != 0 || HomeUses);
}

/// <summary>Bugs in what stands between the protocol and the world. Those of the protocol itself are planted in its table.</summary>
[Flags]
internal enum WorldBugs : long
{
    /// <summary>None.</summary>
    None = 0,
    /// <summary>WriteProtect leaves out one of several mappings.</summary>
    OneMappingNotProtected = 1,
    /// <summary>Unmap leaves out one of several mappings.</summary>
    OneMappingNotUnmapped = 2,
    /// <summary>A granted page is mapped writable whatever the grant.</summary>
    MapsTooMuch = 4,
    /// <summary>A forward is answered from the frame after it was freed: zeros travel.</summary>
    ReadsAfterPunch = 8,
    /// <summary>Frames of different networks are put into one another's order: forwards overtake each other.</summary>
    ForwardsReordered = 32,
    /// <summary>Grants for which no InstallAck is awaited travel with the responses, not with the forwards.</summary>
    GrantsOvertaken = 16,
    /// <summary>A frame of responses comes twice.</summary>
    ResponsesDuplicated = 64,
    /// <summary>An InvAck is lost now and then.</summary>
    InvAckLost = 128,
    /// <summary>Data of the home's writeback are not written.</summary>
    HomeNotWritten = 256,
    /// <summary>A message of a run carries the first page's data for all of them.</summary>
    RunDataShifted = 512,
    /// <summary>Who waits for a page is not told that it came.</summary>
    WakeLost = 1024,
    /// <summary>Who waits for a page is tried again only after all that the grant set free has happened.</summary>
    RetriedLast = 2048,
    /// <summary>What was sent before the directories were rebuilt is taken afterwards as well.</summary>
    OldGenerationServed = 4096,
    /// <summary>A mirror becomes home whoever is lost.</summary>
    MirrorPromotesItself = 8192,
    /// <summary>Of a kept copy and one at home the kept one is believed, whatever their versions.</summary>
    KeptBelieved = 16384,
    /// <summary>A home copy is believed to be as new as any reader's.</summary>
    HomeBelieved = 32768,
    /// <summary>That the mirror may lack what is at home is forgotten when directories are rebuilt.</summary>
    MirrorGapForgotten = 65536,
    /// <summary>A user says what it has as soon as it is frozen.</summary>
    ClaimsTooEarly = 131072,
    /// <summary>Who waits while directories are rebuilt is not tried again afterwards.</summary>
    NotRetriedAtThaw = 262144,
    /// <summary>A home does not wait until a reader that it made owner knows of it.</summary>
    PromoteNotAwaited = 524288,
    /// <summary>A home that is new, and was no mirror, believes whatever copy was being given up.</summary>
    LeftoversBelieved = 1048576,
    /// <summary>Of several users only the one that leads says what it has.</summary>
    OnlyLeaderClaims = 2097152,
    /// <summary>Pages are recorded at the end of a step only, when they are mapped already, or freed.</summary>
    RecordedLate = 1 << 24,
    /// <summary>Pages are recorded before any effect of a step.</summary>
    RecordedEarly = 1 << 25,
    /// <summary>What a step sends leaves before the step is recorded.</summary>
    SentBeforeRecorded = 1 << 26,
    /// <summary>An adopting agent leaves frames of pages that it has nothing of.</summary>
    AdoptedFrames = 1 << 27,
    /// <summary>An adopting agent hears what the one before it was sent.</summary>
    AdoptedHears = 1 << 28,
    /// <summary>Whoever was granted a page from its own home has it, though it never heard of that.</summary>
    GrantToSelfBelieved = 1 << 29,
    /// <summary>An adopting agent does not know which pages the one before it had frozen.</summary>
    AdoptedStayFrozen = 1 << 30,
    /// <summary>Nodes do not hold back what their guests ask for while a checkpoint is cut.</summary>
    NotHeld = 1L << 31,
    /// <summary>Nodes cut without waiting for what is under way.</summary>
    CutAtOnce = 1L << 32,
    /// <summary>Nodes wait for what they have begun, and not for what is under way at the homes that are there.</summary>
    NotSettled = 1L << 33,
    /// <summary>A cut write-protects all mappings but one.</summary>
    OneMappingNotCut = 1L << 34,
    /// <summary>What is written home is not known to differ from what was saved.</summary>
    HomeWriteNotNoted = 1L << 35,
    /// <summary>A page that goes is copied for the checkpoint when it is gone.</summary>
    CopiedAfterUnmap = 1L << 36,
    /// <summary>A page that is granted for writing is copied for the checkpoint when it is mapped.</summary>
    CopiedAfterGrant = 1L << 37,
    /// <summary>A page that was saved is mapped writable when it is read.</summary>
    SavedMappedWritable = 1L << 38,
    /// <summary>A page that was saved is made writable without being copied.</summary>
    WrittenUncopied = 1L << 39,
    /// <summary>What was saved for a checkpoint that was given up counts as saved.</summary>
    SavedThoughGivenUp = 1L << 40,
    /// <summary>A home answers for a page that has an owner.</summary>
    HomeAnswersToo = 1L << 41,
    /// <summary>An owner does not answer for what it has.</summary>
    OwnerDoesNotAnswer = 1L << 42,
    /// <summary>Nodes go on as soon as they have cut.</summary>
    GoOnAfterCut = 1L << 43,
}

/// <summary>A planted bug.</summary>
/// <param name="Name">What is wrong, in a few words.</param>
/// <param name="World">Bugs outside the table.</param>
internal sealed record Planted(string Name, WorldBugs World = WorldBugs.None);

/// <summary>An invariant does not hold.</summary>
internal sealed class InvariantException(string message) : Exception(message);
