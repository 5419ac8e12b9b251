// SPDX-License-Identifier: Apache-2.0
using VSmp.Coherence.Protocols;
using static VSmp.Coherence.Protocols.DirectoryAction;
using static VSmp.Coherence.Protocols.NodeAction;
using static VSmp.Coherence.Protocols.NodeState;
using D = VSmp.Coherence.Protocols.DirectoryState;
using DE = VSmp.Coherence.Protocols.DirectoryEvent;
using NE = VSmp.Coherence.Protocols.NodeEvent;

namespace VSmp.Bench.Checking;

/// <summary>A bug that was planted, to see whether the search finds it.</summary>
/// <param name="Name">What is wrong.</param>
/// <param name="Protocol">The protocol, with the bug in its table if it is one of the table.</param>
/// <param name="World">The bug, if it is in what stands between the protocol and the world.</param>
internal sealed record Mutant(string Name, Protocol Protocol, WorldBugs World = WorldBugs.None);

/// <summary>What became of a mutant.</summary>
/// <param name="Mutant">The mutant.</param>
/// <param name="Scenario">The bounds in which it was found; the last that were tried if it was not.</param>
/// <param name="Result">The search in them.</param>
internal sealed record MutantResult(Mutant Mutant, Scenario Scenario, CheckResult Result)
{
    /// <summary>Whether the bug was found.</summary>
    public bool IsFound => Result.Violation is not null;
}

/// <summary>
/// Bugs of the kinds that protocols have had: each is one wrong cell of MSI's tables, or one wrong habit of the pager or the
/// fabric. None can be switched on in an agent.
/// </summary>
internal static class Mutants
{
    /// <summary>States searched for one mutant at most, in each scenario.</summary>
    public const int MaxStates = 3_000_000;

    /// <summary>All of them.</summary>
    public static IReadOnlyList<Mutant> All { get; } =
    [
        Node("an Inv is acknowledged, the copy stays mapped", S, NE.Inv, I, SendInvAck),
        Node("an Inv that overtakes an upgrade leaves the copy mapped", SM_AD, NE.Inv, IM_AD, SendInvAck),
        Node("stale data are installed after an Inv", IS_D_I, NE.DataS, S, NodeAction.InstallReadable),
        Node("a miss forgets that it was invalidated", IS_D, NE.Inv, IS_D, SendInvAck),
        Node("a write grant is used before the InvAcks are in", IM_AD, NE.DataMAcks, M, NodeAction.InstallWritable, NodeAction.SendInstallAck),
        Node("an upgrade is used before the InvAcks are in", SM_AD, NE.DataMAcks, M, NodeAction.MakeWritable, NodeAction.SendInstallAck),
        Node("an InvAck too few is counted", IM_A, NE.InvAck, M, NodeAction.MakeWritable, NodeAction.SendInstallAck),
        Node("an InvAck that comes before the grant is lost", IM_AD, NE.InvAck, IM_AD),
        Node("a downgrade leaves the right to write", M, NE.FwdGetS, MS_K, SendDataToRequestor, SendDataToHome),
        Node("a downgrade does not tell the home", M, NE.FwdGetS, MS_K, WriteProtect, SendDataToRequestor),
        Node("a hand-over copies before it write-protects", M, NE.FwdGetM, MI_K, Keep, Unmap, NodeAction.SendDataM),
        Node("a hand-over leaves the page mapped", M, NE.FwdGetM, MI_K, WriteProtect, Keep, NodeAction.SendDataM),
        Node("an eviction copies before it write-protects", M, NE.Evict, MI_A, Keep, Unmap, SendPutM),
        Node("the last copy is evicted silently", M, NE.Evict, I, WriteProtect, Unmap),
        Node("a downgraded page is written before the home has it", MS_K, NE.Store, M, NodeAction.MakeWritable),
        Node("a downgraded page may go before the home has it", MS_K, NE.WritebackAck, I, Unmap, NodeAction.Complete),
        Node("a FwdGetS that meets an eviction goes unanswered", MI_A, NE.FwdGetS, SI_A, SendDataToHome),
        Node("a FwdGetM that meets an eviction goes unanswered", MI_A, NE.FwdGetM, II_P),
        Node("a PutAck lets the copy go that another node still waits for", II_A, NE.PutAck, I, ReleaseKept, NodeAction.Complete),
        Node("an installed grant is not acknowledged", IM_AD, NE.DataM, M, NodeAction.InstallWritable),
        Node("a page thrown away comes back", M, NE.Discard, MI_A, WriteProtect, Keep, Unmap, SendPutM),
        Home("a reader is not noted", D.S, DE.GetS, D.S, SendDataS),
        Home("the former owner is not noted as a reader", D.M, DE.GetS, D.S_D, SendFwdGetS, AddSharer),
        Home("a write grant does not invalidate", D.S, DE.GetM, D.M_A, DirectoryAction.SendDataM, ClearSharers, SetOwner),
        Home("a new owner is not noted", D.M, DE.GetM, D.M_A, SendFwdGetM),
        Home("a second write request overtakes the first grant", D.M_A, DE.GetM, D.M_A, SendFwdGetM, SetOwner),
        Home("a reader gets the stale home copy while the owner is asked", D.S_D, DE.GetS, D.S_D, SendDataS, AddSharer),
        Home("a page given back is not written home", D.M, DE.PutM, D.I, ClearOwner, SendPutAck),
        Home("a late PutM is taken for the owner's", D.M, DE.StalePutM, D.I, WriteHome, ClearOwner, SendPutAck),
        Home("the owner's data are not written home", D.S_D, DE.Data, D.S, ClearOwner, SendWritebackAck),
        Home("the next request is served before the grant is installed", D.M_A, DE.GetS, D.S_D, SendFwdGetS, AddSharer, AddOwnerAsSharer),
        Home("a page thrown away keeps its contents at home", D.I, DE.PutZ, D.I, SendPutAck),
        World("one of two mappings stays writable", WorldBugs.OneMappingNotProtected),
        World("one of two mappings stays", WorldBugs.OneMappingNotUnmapped),
        World("a read grant is mapped writable", WorldBugs.MapsTooMuch),
        World("a frame is read after it was freed", WorldBugs.ReadsAfterPunch),
        World("forwards overtake one another", WorldBugs.ForwardsReordered),
        World("a response comes twice", WorldBugs.ResponsesDuplicated),
        World("an InvAck is lost on the way", WorldBugs.InvAckLost),
        World("data for the home are not written", WorldBugs.HomeNotWritten),
        World("all pages of a run get the first one's data", WorldBugs.RunDataShifted),
        World("who waits is not woken", WorldBugs.WakeLost),
        World("who waits is tried last", WorldBugs.RetriedLast),
    ];

    /// <summary>Searches for a mutant, in small bounds first.</summary>
    public static MutantResult Search(Mutant mutant, int threads)
    {
        MutantResult? last = null;
        foreach (Scenario scenario in Scenarios(mutant.Protocol))
        {
            Scenario planted = scenario with { Planted = new Planted(mutant.Name, mutant.World) };
            last = new MutantResult(mutant, planted, ModelChecker.Run(planted, MaxStates, threads));
            if (last.IsFound) break;
        }
        return last!;
    }

    private static IEnumerable<Scenario> Scenarios(Protocol protocol) =>
    [
        new Scenario(protocol, Nodes: 2, Pages: 1, Outstanding: 2),
        new Scenario(protocol, Nodes: 2, Pages: 1, Outstanding: 1, Mappings: 2),
        new Scenario(protocol, Nodes: 2, Pages: 1, Outstanding: 2) { IsPrivate = true },
        new Scenario(protocol, Nodes: 3, Pages: 1, Outstanding: 1) { Holds = false, Refusals = false },
        new Scenario(protocol, Nodes: 2, Pages: 2, Outstanding: 1) { AsksAhead = true, Holds = false, Refusals = false },
    ];

    private static Mutant Node(string name, NodeState state, NE @event, NodeState next, params NodeAction[] actions) =>
        new(name, new Protocol(Msi.Protocol.Name, Msi.Protocol.Node.With(state, @event, next, actions), Msi.Protocol.Directory));

    private static Mutant Home(string name, D state, DE @event, D next, params DirectoryAction[] actions) =>
        new(name, new Protocol(Msi.Protocol.Name, Msi.Protocol.Node, Msi.Protocol.Directory.With(state, @event, next, actions)));

    private static Mutant World(string name, WorldBugs bugs) => new(name, Msi.Protocol, bugs);
}
