// SPDX-License-Identifier: Apache-2.0
using VSmp.Coherence.Protocols;
using static VSmp.Coherence.Protocols.DirectoryAction;
using static VSmp.Coherence.Protocols.NodeAction;
using static VSmp.Coherence.Protocols.NodeState;
using D = VSmp.Coherence.Protocols.DirectoryState;
using DE = VSmp.Coherence.Protocols.DirectoryEvent;
using NE = VSmp.Coherence.Protocols.NodeEvent;

namespace VSmp.Bench.Checking;

/// <summary>Bugs in MSI's tables: each is one wrong cell. MESI and MOESI have most of these cells, too.</summary>
internal static class MsiMutants
{
    /// <summary>All of them.</summary>
    public static IReadOnlyList<Mutant> All { get; } =
    [
        Node("an Inv is acknowledged, the copy stays mapped", S, NE.Inv, I, SendInvAck),
        Node("an Inv is acknowledged before the page is unmapped", S, NE.Inv, I, SendInvAck,
            Unmap) with { Finder = Finder.Simulator },
        Node("an Inv that overtakes an upgrade leaves the copy mapped", SM_AD, NE.Inv, IM_AD, SendInvAck),
        Node("stale data are installed after an Inv", IS_D_I, NE.DataS, S, NodeAction.InstallReadable),
        Node("a miss forgets that it was invalidated", IS_D, NE.Inv, IS_D, SendInvAck),
        Node("a write grant is used before the InvAcks are in", IM_AD, NE.DataMAcks, M, NodeAction.InstallWritable,
            NodeAction.SendInstallAck),
        Node("an upgrade is used before the InvAcks are in", SM_AD, NE.DataMAcks, M, NodeAction.MakeWritable,
            NodeAction.SendInstallAck),
        Node("an InvAck too few is counted", IM_A, NE.InvAck, M, NodeAction.MakeWritable, NodeAction.SendInstallAck),
        Node("an InvAck that comes before the grant is lost", IM_AD, NE.InvAck, IM_AD),
        Node("a downgrade leaves the right to write", M, NE.FwdGetS, MS_K, SendDataToRequestor, SendDataToHome),
        Node("a home that reads is told that it has the data before they are sent", M, NE.FwdGetS, MS_K, WriteProtect, SendDataToHome,
            SendDataToRequestor),
        Node("a downgrade does not tell the home", M, NE.FwdGetS, MS_K, WriteProtect, SendDataToRequestor),
        Node("a hand-over copies before it write-protects", M, NE.FwdGetM, MI_K, Keep, Unmap, NodeAction.SendDataM),
        Node("a hand-over leaves the page mapped", M, NE.FwdGetM, MI_K, WriteProtect, Keep, NodeAction.SendDataM),
        Node("an eviction copies before it write-protects", M, NE.Evict, MI_A, Keep, Unmap, SendPutM),
        Node("the last copy is evicted silently", M, NE.Evict, I, WriteProtect, Unmap),
        Node("the last copy in flight is dropped: an eviction's", M, NE.Evict, I, WriteProtect, Keep, Unmap, SendPutM,
            ReleaseKept),
        Node("the last copy in flight is dropped: a hand-over's", M, NE.FwdGetM, I, WriteProtect, Keep, Unmap,
            NodeAction.SendDataM, ReleaseKept),
        Node("a downgraded page is written before the home has it", MS_K, NE.Store, M, NodeAction.MakeWritable),
        Node("a downgraded page may go before the home has it", MS_K, NE.WritebackAck, I, Unmap, NodeAction.Complete),
        Node("an eviction race is answered wrongly: the reader gets nothing", MI_A, NE.FwdGetS, SI_A, SendDataToHome),
        Node("an eviction race is answered wrongly: the writer gets nothing", MI_A, NE.FwdGetM, II_P),
        Node("a PutAck lets the copy go that another node still waits for", II_A, NE.PutAck, I, ReleaseKept, NodeAction.Complete),
        Node("an installed grant is not acknowledged", IM_AD, NE.DataM, M, NodeAction.InstallWritable),
        Node("a grant to the only sharer is acknowledged, and nobody waits for that", SM_AD, NE.SoleGrant, M, NodeAction.MakeWritable,
            NodeAction.SendInstallAck),
        Node("a page thrown away comes back", M, NE.Discard, MI_A, WriteProtect, Keep, Unmap, SendPutM),
        Home("a reader is not noted", D.S, DE.GetS, D.S, SendDataS),
        Home("the former owner is not noted as a reader", D.M, DE.GetS, D.S_D, SendFwdGetS, AddSharer),
        Home("a write grant does not invalidate", D.S, DE.GetM, D.M_A, DirectoryAction.SendDataM, ClearSharers, SetOwner),
        Home("an upgrade by one of several sharers does not invalidate the others", D.S, DE.Upgrade, D.M, SendSoleGrant, ClearSharers,
            SetOwner, DropHome),
        Home("the only sharer is granted writing, and not noted as the owner", D.S, DE.SoleUpgrade, D.S, SendSoleGrant),
        Home("the only sharer is granted writing, and still counts as one", D.S, DE.SoleUpgrade, D.M, SendSoleGrant, SetOwner, DropHome),
        Home("a new owner is not noted", D.M, DE.GetM, D.M_A, SendFwdGetM),
        Home("a second write request overtakes the first grant", D.M_A, DE.GetM, D.M_A, SendFwdGetM, SetOwner),
        Home("a reader gets the stale home copy while the owner is asked", D.S_D, DE.GetS, D.S_D, SendDataS, AddSharer),
        Home("a page given back is not written home", D.M, DE.PutM, D.I, ClearOwner, SendPutAck),
        Home("a late PutM is taken for the owner's", D.M, DE.StalePutM, D.I, WriteHome, ClearOwner, SendPutAck),
        Home("the owner's data are not written home", D.S_D, DE.Data, D.S, ClearOwner, SendWritebackAck),
        Home("the next request is served before the grant is installed", D.M_A, DE.GetS, D.S_D, SendFwdGetS, AddSharer,
            AddOwnerAsSharer),
        Home("a page thrown away keeps its contents at home", D.I, DE.PutZ, D.I, SendPutAck),
    ];

    private static TableMutant Node(string name, NodeState state, NE @event, NodeState next, params NodeAction[] actions) =>
        TableMutant.OfNode(Msi.Protocol, name, state, @event, next, actions);

    private static TableMutant Home(string name, D state, DE @event, D next, params DirectoryAction[] actions) =>
        TableMutant.OfHome(Msi.Protocol, name, state, @event, next, actions);
}
