// SPDX-License-Identifier: Apache-2.0
using VSmp.Coherence.Protocols;
using static VSmp.Coherence.Protocols.DirectoryAction;
using static VSmp.Coherence.Protocols.NodeAction;
using static VSmp.Coherence.Protocols.NodeState;
using D = VSmp.Coherence.Protocols.DirectoryState;
using DE = VSmp.Coherence.Protocols.DirectoryEvent;
using NE = VSmp.Coherence.Protocols.NodeEvent;

namespace VSmp.Bench.Checking;

/// <summary>Bugs in those cells of MESI's tables that MSI has not: exclusive pages, which may be written unheard.</summary>
internal static class MesiMutants
{
    /// <summary>All of them.</summary>
    public static IReadOnlyList<Mutant> All { get; } =
    [
        Node("an exclusive page that is written stays write-protected", E, NE.Store, M),
        Node("an exclusive page is written, and goes on as unwritten", E, NE.Store, E, Hit, NodeAction.MakeWritable),
        Node("an exclusive page that is read is mapped writable", E, NE.Load, E, Hit, NodeAction.MakeWritable),
        Node("an exclusive grant is acknowledged, and nobody waits for that", IS_D, NE.DataE, E, InstallReadable, SendInstallAck),
        Node("an exclusive grant is taken for stale", IS_D_I, NE.DataE, IS_D, AskAgain),
        Node("an exclusive page is evicted silently", E, NE.Evict, I, Unmap),
        Node("an exclusive page that is evicted is not kept", E, NE.Evict, I, Unmap, SendPutE),
        Node("an exclusive page is thrown away silently", E, NE.Discard, I, Unmap),
        Node("a written page is given back as unwritten", M, NE.Evict, EI_A, WriteProtect, Keep, Unmap, SendPutE),
        Node("who was asked for an unwritten page stays exclusive", E, NE.FwdGetS, E, SendDataToRequestor, SendCleanToHome),
        Node("who was asked for an unwritten page does not tell the home", E, NE.FwdGetS, S, SendDataToRequestor),
        Node("a written page is reported as unwritten", M, NE.FwdGetS, S, WriteProtect, SendDataToRequestor, SendCleanToHome),
        Node("an unwritten page that is handed over stays mapped", E, NE.FwdGetM, MI_K, Keep, NodeAction.SendDataM),
        Node("an unwritten page is handed over and not kept", E, NE.FwdGetM, I, Keep, Unmap, NodeAction.SendDataM, ReleaseKept),
        Node("a FwdGetS that meets a PutE is not told to the home", EI_A, NE.FwdGetS, SI_A, SendDataToRequestor),
        Node("a FwdGetS that meets a PutE goes unanswered", EI_A, NE.FwdGetS, SI_A, SendCleanToHome),
        Node("a FwdGetM that meets a PutE goes unanswered", EI_A, NE.FwdGetM, II_P),
        Node("an unwritten page stays kept after its PutAck", EI_A, NE.PutAck, I, NodeAction.Complete),
        Home("an exclusive owner is not noted", D.I, DE.GetS, D.E, SendDataE),
        Home("an exclusive owner's page counts as shared", D.I, DE.GetS, D.S, SendDataE, AddSharer),
        Home("a reader gets the home copy of an exclusive page", D.E, DE.GetS, D.S, SendDataS, AddSharer, AddOwnerAsSharer),
        Home("a writer gets the home copy of an exclusive page", D.E, DE.GetM, D.M_A, DirectoryAction.SendDataM, SetOwner),
        Home("an exclusive owner is not noted as a reader afterwards", D.E, DE.GetS, D.S_D, SendFwdGetS, AddSharer),
        Home("an exclusive page that was written is not written home", D.E, DE.PutM, D.I, ClearOwner, SendPutAck),
        Home("a PutE is taken for the word that is awaited", D.S_D, DE.PutE, D.S, ClearOwner, SendPutAck),
        Home("an awaited PutM is not written home", D.S_D, DE.PutM, D.S, ClearOwner, SendPutAck),
        Home("a late PutE is taken for the owner's", D.E, DE.StalePutM, D.I, ClearOwner, SendPutAck),
    ];

    private static TableMutant Node(string name, NodeState state, NE @event, NodeState next, params NodeAction[] actions) =>
        TableMutant.OfNode(Mesi.Protocol, name, state, @event, next, actions);

    private static TableMutant Home(string name, D state, DE @event, D next, params DirectoryAction[] actions) =>
        TableMutant.OfHome(Mesi.Protocol, name, state, @event, next, actions);
}
