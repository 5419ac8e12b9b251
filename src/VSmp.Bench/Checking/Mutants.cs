// SPDX-License-Identifier: Apache-2.0
using VSmp.Bench.Simulation;
using VSmp.Coherence.Protocols;
using static VSmp.Bench.Checking.LazyBug;
using static VSmp.Bench.Checking.WorldBugs;
using static VSmp.Bench.Simulation.SimulationBugs;

namespace VSmp.Bench.Checking;

/// <summary>
/// Bugs of the kinds that protocols have had: each is one wrong cell of a table, or one wrong habit of the pager, the fabric or a
/// session. None can be switched on in an agent: they are copies of tables, and bugs of the worlds in which cores are checked.
/// </summary>
internal static class Mutants
{
    /// <summary>All of them.</summary>
    public static IReadOnlyList<Mutant> All { get; } =
    [
        .. MsiMutants.All,
        .. MesiMutants.All,
        .. MoesiMutants.All,
        .. RecoveryMutants.All,
        .. CheckpointMutants.All,
        World("one mapping is not write-protected", "pager: WriteProtect leaves one mapping out", OneMappingNotProtected),
        World("one mapping is not unmapped", "pager: Unmap leaves one mapping out", OneMappingNotUnmapped),
        World("a read grant is mapped writable", "pager: maps every grant writable", MapsTooMuch),
        World("a frame is read after it was freed", "pager: punches, then reads", ReadsAfterPunch),
        World("forwards overtake one another", "fabric: forwards out of order", ForwardsReordered),
        World("the only sharer's grant is overtaken by what is asked of it next", "fabric: SoleGrant with the responses", GrantsOvertaken),
        World("an exclusive grant is overtaken by what is asked of its owner next", "fabric: DataE with the responses", GrantsOvertaken, Mesi.Protocol),
        World("a response comes twice", "fabric: a response twice", ResponsesDuplicated),
        World("an InvAck is lost on the way", "fabric: loses it", InvAckLost),
        World("data for the home are not written", "pager: ignores WriteHome", HomeNotWritten),
        World("all pages of a run get the first one's data", "pager: sends page 1 as page 2", RunDataShifted),
        World("who waits is not woken", "pager: forgets who waits", WakeLost),
        World("who waits is tried last", "pager: retries after all else", RetriedLast),
        Lazy("an acquire does not invalidate", "Acquire is not called", AcquireDoesNotInvalidate),
        Lazy("a write notice is dropped", "a release tells no pages", NoticeDropped),
        Lazy("a page that was evicted is not announced", "Dirty is cleared by TryEvict", EvictedNotNoticed),
        Lazy("a diff is merged too late", "the lock goes before the DiffAcks are in", MergedTooLate),
        Lazy("a diff carries the whole page", "a twin that differs everywhere", DiffOfWholePage),
        Lazy("a diff is made from no twin", "the frame is compared with itself", DiffWithoutTwin),
        Lazy("a twin outlives its diff", "DropTwin is ignored", TwinOutlivesItsDiff),
        Lazy("a fetch overtakes a diff", "GetS and Diff on two networks", FetchOvertakesDiff),
        Lazy("data are installed despite a notice in between", "a notice in IR_D or IW_D is ignored", StaleDataInstalled),
        Lazy("a released page stays writable", "WriteProtect is ignored", NotWriteProtected),
        Lazy("an invalidation throws away what was written", "a notice in W sends no diff", InvalidatedWithoutDiff),
        Cluster("the epoch check is dropped", "session: takes frames of a former life", EpochNotChecked),
        Cluster("frames are taken twice", "session: hands duplicates on", DuplicatesTaken),
        Cluster("a lost frame is not missed", "session: counts instead of comparing numbers", GapsNotNoticed),
        Cluster("a replay forgets a frame", "session: skips the first one after a reconnect", ReplayForgetsOne),
        Cluster("a view change drops what is under way", "fabric: refuses frames of the former view", OldViewDropped),
        Cluster("a view change loses a request that waits", "home: its queue", QueueLostByViewChange),
        Cluster("a home counts on the nodes of a former view", "home: one node fewer", NodesOfFormerView),
        Cluster("a budget is over-run", "pager: one frame more if none is left", BudgetOverrun),
        Cluster("who waits for a frame is forgotten", "pager: not tried again", StarvedForgotten),
        Cluster("a hold is never ended", "pager: if somebody waits for its end", HoldNeverEnds),
        Cluster("a directory entry that becomes coarse forgets", "home: names the newest sharer only", CoarseForgetsSharers),
        Cluster("a run is cut short", "pager: takes its first page only", RunCutShort),
        Losing("a page has two homes", "mirror: becomes home though the home is left", TwoHomes),
        Losing("what was sent to the directories of before is served", "fabric: stamps the present generation on all", SimulationBugs.OldGenerationServed),
        Losing("a writeback is acknowledged before the mirror has it", "home: answers for the mirror", MirrorAckedEarly),
        Losing("guests go on when their lease has run out", "keeper: does not stop them", LeaseIgnored),
    ];

    private static CheckedMutant World(string name, string where, WorldBugs bugs, Protocol? protocol = null) =>
        new(name, where, protocol ?? Msi.Protocol, bugs);

    private static LazyMutant Lazy(string name, string where, LazyBug bug) => new(name, where, bug);

    private static SimulatedMutant Cluster(string name, string where, SimulationBugs bugs) => new(name, where, ProtocolCatalog.All, bugs);

    private static SimulatedMutant Losing(string name, string where, SimulationBugs bugs) => new(name, where, ProtocolCatalog.All, bugs) { Losses = true };
}
