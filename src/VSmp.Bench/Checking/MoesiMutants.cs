// SPDX-License-Identifier: Apache-2.0
using VSmp.Coherence.Protocols;
using static VSmp.Coherence.Protocols.DirectoryAction;
using static VSmp.Coherence.Protocols.NodeAction;
using static VSmp.Coherence.Protocols.NodeState;
using D = VSmp.Coherence.Protocols.DirectoryState;
using DE = VSmp.Coherence.Protocols.DirectoryEvent;
using NE = VSmp.Coherence.Protocols.NodeEvent;

namespace VSmp.Bench.Checking;

/// <summary>Bugs in those cells of MOESI's tables that neither MSI nor MESI has: owners whose data the home lacks.</summary>
internal static class MoesiMutants
{
    /// <summary>All of them.</summary>
    public static IReadOnlyList<Mutant> All { get; } =
    [
        Node("who answers a reader goes on writing", M, NE.FwdGetS, O, SendDataToRequestor),
        Node("who answers a reader copies before it write-protects", M, NE.FwdGetS, O, SendDataToRequestor, WriteProtect),
        Node("who answers a reader forgets that its copy is the only right one", M, NE.FwdGetS, S, WriteProtect,
            SendDataToRequestor),
        Node("who was asked for an unwritten page stays exclusive", E, NE.FwdGetS, E, SendDataToRequestor),
        Node("an owner with readers writes without asking", O, NE.Store, M, NodeAction.MakeWritable),
        Node("an owner with readers does not answer another", O, NE.FwdGetS, O),
        Node("an owner's page is evicted silently", O, NE.Evict, I, Unmap),
        Node("an owner's page is given back as unwritten", O, NE.Evict, OI_A, Keep, Unmap, SendPutE),
        Node("an owner's page is given back, and not kept", O, NE.Evict, I, Keep, Unmap, SendPutO, ReleaseKept),
        Node("an owner hands over, and its copy stays mapped", O, NE.FwdGetM, MI_K, Keep, NodeAction.SendDataM),
        Node("an owner writes before the InvAcks are in", OM_AD, NE.DataMAcks, M, NodeAction.MakeWritable,
            NodeAction.SendInstallAck),
        Node("an owner counts an InvAck too few", OM_A, NE.InvAck, M, NodeAction.MakeWritable, NodeAction.SendInstallAck),
        Node("an owner loses an InvAck that comes before its grant", OM_AD, NE.InvAck, OM_AD),
        Node("an owner that asks to write does not answer who asked before", OM_AD, NE.FwdGetS, OM_AD),
        Node("an owner that lost the race to write keeps its copy mapped", OM_AD, NE.FwdGetM, IM_ADK, Keep, NodeAction.SendDataM),
        Node("an owner that lost the race to write does not keep its copy", OM_AD, NE.FwdGetM, IM_AD, Keep, Unmap,
            NodeAction.SendDataM, ReleaseKept),
        Node("an owner that lost the race writes what it had", IM_ADK, NE.DataM, IM_K),
        Node("a page that comes back is used before it was installed there", IM_ADK, NE.DataM, M, NodeAction.InstallWritable,
            NodeAction.SendInstallAck),
        Node("a page that comes back is used before the InvAcks are in", IM_ADK, NE.DataMAcks, IM_K, NodeAction.WriteFrame),
        Node("a page that comes back stays kept", IM_ADK, NE.InstallAck, IM_AD),
        Node("a page that came back is not acknowledged", IM_K, NE.InstallAck, M, ReleaseKept, NodeAction.MakeWritable),
        Node("a FwdGetS that meets a PutO goes unanswered", OI_A, NE.FwdGetS, OI_A),
        Node("a FwdGetM that meets a PutO goes unanswered", OI_A, NE.FwdGetM, II_P),
        Node("a FwdGetS that meets a PutE goes unanswered", EI_A, NE.FwdGetS, EI_A),
        Node("an owner's page stays kept after its PutAck", OI_A, NE.PutAck, I, NodeAction.Complete),
        Home("the owner's reader is not noted", D.M, DE.GetS, D.O, SendFwdGetS),
        Home("a reader gets the stale home copy of an owner's page", D.O, DE.GetS, D.O, SendDataS, AddSharer),
        Home("a new owner is granted without invalidating the readers", D.O, DE.GetM, D.M_A, ClearSharers, SendFwdGetM, SetOwner),
        Home("an owner is granted writing without invalidating the readers", D.O, DE.Upgrade, D.M_A, ClearSharers,
            SendOwnerGrant),
        Home("an owner's grant overtakes the readers that asked before", D.O, DE.Upgrade, D.M_A, SendGrant, SendInvs,
            ClearSharers),
        Home("an owner's page is not written home", D.O, DE.PutO, D.S, ClearOwner, SendPutAck),
        Home("with the owner its readers are forgotten", D.O, DE.PutO, D.I, WriteHome, ClearOwner, ClearSharers, SendPutAck),
        Home("a PutM that meets a reader is not written home", D.O, DE.PutM, D.S, ClearOwner, SendPutAck),
        Home("a PutE that meets a reader forgets the reader", D.O, DE.PutE, D.I, ClearOwner, ClearSharers, SendPutAck),
        Home("a late PutO is taken for the owner's", D.O, DE.StalePutM, D.S, WriteHome, ClearOwner, SendPutAck),
    ];

    private static TableMutant Node(string name, NodeState state, NE @event, NodeState next, params NodeAction[] actions) =>
        TableMutant.OfNode(Moesi.Protocol, name, state, @event, next, actions);

    private static TableMutant Home(string name, D state, DE @event, D next, params DirectoryAction[] actions) =>
        TableMutant.OfHome(Moesi.Protocol, name, state, @event, next, actions);
}
