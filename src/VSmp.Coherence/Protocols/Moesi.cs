// SPDX-License-Identifier: Apache-2.0
using static VSmp.Coherence.Protocols.DirectoryAction;
using static VSmp.Coherence.Protocols.NodeAction;
using static VSmp.Coherence.Protocols.NodeState;
using D = VSmp.Coherence.Protocols.DirectoryState;
using DE = VSmp.Coherence.Protocols.DirectoryEvent;
using NE = VSmp.Coherence.Protocols.NodeEvent;

namespace VSmp.Coherence.Protocols;

/// <summary>
/// MOESI with a directory and owner forwarding, after Sorin, Hill, Wood (Primer, ch. 8.4): an owner that is asked to share answers the
/// reader directly and keeps the page in O; nothing goes to the home, and the home does not wait. It differs from the Primer as
/// <see cref="Mesi"/> does, and in these: E becomes O too, not S, since the home cannot tell E from M, and need not; the home keeps its
/// copy until somebody is granted writing, so that a PutE that crossed a FwdGetS can still count on it; the owner's grant to write
/// (OwnerGrant) and the PutAck travel behind the forwards, so that a reader's request is never met in M or after the copy is gone; an
/// owner that loses the race to write keeps what it hands over while it waits for its own grant (IM_ADK, IM_AK, IM_K).
/// </summary>
public static class Moesi
{
    /// <summary>The protocol.</summary>
    public static Protocol Protocol { get; } = new("moesi", BuildNode(), BuildDirectory());

    private static ProtocolTable<NodeState, NodeEvent, NodeAction> BuildNode()
    {
        var t = new ProtocolTable<NodeState, NodeEvent, NodeAction>(
            [I, S, E, O, M, IS_D, IS_D_I, IM_AD, IM_A, SM_AD, SM_A, OM_AD, OM_A, IM_ADK, IM_AK, IM_K, MI_K, EI_A, OI_A, MI_A, II_A,
                II_P, ZI_A, F],
            [NE.Load, NE.Store, NE.Evict, NE.Discard, NE.FwdGetS, NE.FwdGetM, NE.Inv, NE.DataS, NE.DataE, NE.DataM, NE.DataMAcks,
                NE.InvAck, NE.LastInvAck, NE.InstallAck, NE.PutAck, NE.Nack, NE.SoleGrant,
                NE.Poisoned, NE.Freeze, NE.Recall, NE.Promote, NE.Thaw]);

        t.On(I, NE.Load, IS_D, SendGetS);
        t.On(I, NE.Store, IM_AD, SendGetM);
        t.On(I, NE.Evict, I); // already gone
        t.On(I, NE.Discard, ZI_A, SendPutZ);
        t.On(I, NE.Inv, I, SendInvAck); // dropped silently before
        t.Impossible(I, NE.FwdGetS, NE.FwdGetM, NE.DataS, NE.DataE, NE.DataM, NE.DataMAcks, NE.InvAck, NE.LastInvAck,
            NE.InstallAck, NE.PutAck, NE.Nack, NE.SoleGrant);

        t.On(S, NE.Load, S, Hit);
        t.On(S, NE.Store, SM_AD, SendUpgrade);
        t.On(S, NE.Evict, I, Unmap);
        t.On(S, NE.Discard, ZI_A, Unmap, SendPutZ);
        t.On(S, NE.Inv, I, Unmap, SendInvAck);
        t.Impossible(S, NE.FwdGetS, NE.FwdGetM, NE.DataS, NE.DataE, NE.DataM, NE.DataMAcks, NE.InvAck, NE.LastInvAck,
            NE.InstallAck, NE.PutAck, NE.Nack, NE.SoleGrant);

        t.On(E, NE.Load, E, Hit);
        t.On(E, NE.Store, M, NodeAction.MakeWritable); // nobody hears of it
        t.On(E, NE.Evict, EI_A, Keep, Unmap, SendPutE);
        t.On(E, NE.Discard, MI_A, KeepZero, Unmap, SendPutM);
        t.On(E, NE.FwdGetS, O, SendDataToRequestor);
        t.On(E, NE.FwdGetM, MI_K, Keep, Unmap, NodeAction.SendDataM);
        t.Impossible(E, NE.Inv, NE.DataS, NE.DataE, NE.DataM, NE.DataMAcks, NE.InvAck, NE.LastInvAck, NE.InstallAck, NE.PutAck,
            NE.Nack, NE.SoleGrant);

        t.On(O, NE.Load, O, Hit);
        t.On(O, NE.Store, OM_AD, SendUpgrade);
        t.On(O, NE.Evict, OI_A, Keep, Unmap, SendPutO);
        t.On(O, NE.Discard, O, RefuseDiscard, Hit); // others read it
        t.On(O, NE.FwdGetS, O, SendDataToRequestor);
        t.On(O, NE.FwdGetM, MI_K, Keep, Unmap, NodeAction.SendDataM);
        t.Impossible(O, NE.Inv, NE.DataS, NE.DataE, NE.DataM, NE.DataMAcks, NE.InvAck, NE.LastInvAck, NE.InstallAck, NE.PutAck,
            NE.Nack, NE.SoleGrant);

        t.On(M, NE.Load, M, Hit);
        t.On(M, NE.Store, M, Hit);
        t.On(M, NE.Evict, MI_A, WriteProtect, Keep, Unmap, SendPutM);
        t.On(M, NE.Discard, MI_A, KeepZero, Unmap, SendPutM);
        t.On(M, NE.FwdGetS, O, WriteProtect, SendDataToRequestor); // no writeback: the dirty data stay here
        t.On(M, NE.FwdGetM, MI_K, WriteProtect, Keep, Unmap, NodeAction.SendDataM);
        t.Impossible(M, NE.Inv, NE.DataS, NE.DataE, NE.DataM, NE.DataMAcks, NE.InvAck, NE.LastInvAck, NE.InstallAck, NE.PutAck,
            NE.Nack, NE.SoleGrant);

        t.Stall(IS_D, NE.Load, NE.Store, NE.Evict, NE.Discard);
        t.On(IS_D, NE.Inv, IS_D_I, SendInvAck);
        t.On(IS_D, NE.DataS, S, NodeAction.InstallReadable);
        t.On(IS_D, NE.DataE, E, InstallExclusive);
        t.On(IS_D, NE.Nack, I, Abandon);
        t.Impossible(IS_D, NE.FwdGetS, NE.FwdGetM, NE.DataM, NE.DataMAcks, NE.InvAck, NE.LastInvAck, NE.InstallAck, NE.PutAck,
            NE.SoleGrant);

        t.Stall(IS_D_I, NE.Load, NE.Store, NE.Evict, NE.Discard);
        t.On(IS_D_I, NE.Inv, IS_D_I, SendInvAck);
        t.On(IS_D_I, NE.DataS, IS_D, AskAgain); // stale: whoever wrote since has our InvAck
        t.On(IS_D_I, NE.DataE, E, InstallExclusive); // an owner gets no Inv: that was for an older copy
        t.On(IS_D_I, NE.Nack, I, Abandon);
        t.Impossible(IS_D_I, NE.FwdGetS, NE.FwdGetM, NE.DataM, NE.DataMAcks, NE.InvAck, NE.LastInvAck, NE.InstallAck, NE.PutAck,
            NE.SoleGrant);

        t.Stall(IM_AD, NE.Load, NE.Store, NE.Evict, NE.Discard);
        t.On(IM_AD, NE.Inv, IM_AD, SendInvAck);
        t.On(IM_AD, NE.DataM, M, NodeAction.InstallWritable, NodeAction.SendInstallAck);
        t.On(IM_AD, NE.DataMAcks, IM_A, NodeAction.WriteFrame);
        t.On(IM_AD, NE.InvAck, IM_AD, CountAck);
        t.On(IM_AD, NE.Nack, I, Abandon);
        t.Impossible(IM_AD, NE.FwdGetS, NE.FwdGetM, NE.DataS, NE.DataE, NE.LastInvAck, NE.InstallAck, NE.PutAck, NE.SoleGrant);

        t.Stall(IM_A, NE.Load, NE.Store, NE.Evict, NE.Discard);
        t.On(IM_A, NE.InvAck, IM_A, CountAck);
        t.On(IM_A, NE.LastInvAck, M, NodeAction.MakeWritable, NodeAction.SendInstallAck);
        t.Impossible(IM_A, NE.Inv, NE.FwdGetS, NE.FwdGetM, NE.DataS, NE.DataE, NE.DataM, NE.DataMAcks, NE.InstallAck, NE.PutAck,
            NE.Nack, NE.SoleGrant);

        t.On(SM_AD, NE.Load, SM_AD, Hit);
        t.Stall(SM_AD, NE.Store, NE.Evict, NE.Discard);
        t.On(SM_AD, NE.Inv, IM_AD, Unmap, SendInvAck);
        t.On(SM_AD, NE.DataM, M, NodeAction.MakeWritable, NodeAction.SendInstallAck); // from the home or from the owner: the same contents
        t.On(SM_AD, NE.SoleGrant, M, NodeAction.MakeWritable, NodeAction.EndTransaction);
        t.On(SM_AD, NE.DataMAcks, SM_A);
        t.On(SM_AD, NE.InvAck, SM_AD, CountAck);
        t.On(SM_AD, NE.Nack, S, NodeAction.Complete);
        t.Impossible(SM_AD, NE.FwdGetS, NE.FwdGetM, NE.DataS, NE.DataE, NE.LastInvAck, NE.InstallAck, NE.PutAck);

        t.On(SM_A, NE.Load, SM_A, Hit);
        t.Stall(SM_A, NE.Store, NE.Evict, NE.Discard);
        t.On(SM_A, NE.InvAck, SM_A, CountAck);
        t.On(SM_A, NE.LastInvAck, M, NodeAction.MakeWritable, NodeAction.SendInstallAck);
        t.Impossible(SM_A, NE.Inv, NE.FwdGetS, NE.FwdGetM, NE.DataS, NE.DataE, NE.DataM, NE.DataMAcks, NE.InstallAck, NE.PutAck,
            NE.Nack, NE.SoleGrant);

        t.On(OM_AD, NE.Load, OM_AD, Hit);
        t.Stall(OM_AD, NE.Store, NE.Evict, NE.Discard);
        t.On(OM_AD, NE.FwdGetS, OM_AD, SendDataToRequestor); // asked before the Upgrade came: the reader is invalidated, or asks again
        t.On(OM_AD, NE.FwdGetM, IM_ADK, Keep, Unmap, NodeAction.SendDataM); // who takes it now has asked before
        t.On(OM_AD, NE.DataM, M, NodeAction.MakeWritable, NodeAction.SendInstallAck);
        t.On(OM_AD, NE.DataMAcks, OM_A);
        t.On(OM_AD, NE.InvAck, OM_AD, CountAck);
        t.On(OM_AD, NE.Nack, O, NodeAction.Complete);
        t.Impossible(OM_AD, NE.Inv, NE.DataS, NE.DataE, NE.LastInvAck, NE.InstallAck, NE.PutAck, NE.SoleGrant);

        t.On(OM_A, NE.Load, OM_A, Hit);
        t.Stall(OM_A, NE.Store, NE.Evict, NE.Discard);
        t.On(OM_A, NE.InvAck, OM_A, CountAck);
        t.On(OM_A, NE.LastInvAck, M, NodeAction.MakeWritable, NodeAction.SendInstallAck);
        t.Impossible(OM_A, NE.Inv, NE.FwdGetS, NE.FwdGetM, NE.DataS, NE.DataE, NE.DataM, NE.DataMAcks, NE.InstallAck, NE.PutAck,
            NE.Nack, NE.SoleGrant);

        t.Stall(IM_ADK, NE.Load, NE.Store, NE.Evict, NE.Discard);
        t.On(IM_ADK, NE.Inv, IM_ADK, SendInvAck); // a coarse set names too many
        t.On(IM_ADK, NE.DataM, IM_K, NodeAction.WriteFrame);
        t.On(IM_ADK, NE.DataMAcks, IM_AK, NodeAction.WriteFrame);
        t.On(IM_ADK, NE.InvAck, IM_ADK, CountAck);
        t.On(IM_ADK, NE.InstallAck, IM_AD, ReleaseKept);
        t.On(IM_ADK, NE.Nack, MI_K, Abandon);
        t.Impossible(IM_ADK, NE.FwdGetS, NE.FwdGetM, NE.DataS, NE.DataE, NE.LastInvAck, NE.PutAck, NE.SoleGrant);

        t.Stall(IM_AK, NE.Load, NE.Store, NE.Evict, NE.Discard);
        t.On(IM_AK, NE.InvAck, IM_AK, CountAck);
        t.On(IM_AK, NE.LastInvAck, IM_K, CountAck);
        t.On(IM_AK, NE.InstallAck, IM_A, ReleaseKept);
        t.Impossible(IM_AK, NE.Inv, NE.FwdGetS, NE.FwdGetM, NE.DataS, NE.DataE, NE.DataM, NE.DataMAcks, NE.PutAck, NE.Nack,
            NE.SoleGrant);

        t.Stall(IM_K, NE.Load, NE.Store, NE.Evict, NE.Discard);
        t.On(IM_K, NE.InstallAck, M, ReleaseKept, NodeAction.MakeWritable, NodeAction.SendInstallAck);
        t.Impossible(IM_K, NE.Inv, NE.FwdGetS, NE.FwdGetM, NE.DataS, NE.DataE, NE.DataM, NE.DataMAcks, NE.InvAck, NE.LastInvAck,
            NE.PutAck, NE.Nack, NE.SoleGrant);

        t.Stall(MI_K, NE.Load, NE.Store, NE.Evict, NE.Discard);
        t.On(MI_K, NE.Inv, MI_K, SendInvAck);
        t.On(MI_K, NE.InstallAck, I, ReleaseKept, NodeAction.Complete);
        t.Impossible(MI_K, NE.FwdGetS, NE.FwdGetM, NE.DataS, NE.DataE, NE.DataM, NE.DataMAcks, NE.InvAck, NE.LastInvAck,
            NE.PutAck, NE.Nack, NE.SoleGrant);

        t.Stall(EI_A, NE.Load, NE.Store, NE.Evict, NE.Discard);
        t.On(EI_A, NE.FwdGetS, EI_A, SendDataToRequestor); // stays the one to be asked until the home has the PutE
        t.On(EI_A, NE.FwdGetM, II_A, NodeAction.SendDataM);
        t.On(EI_A, NE.PutAck, I, ReleaseKept, NodeAction.Complete);
        t.On(EI_A, NE.Nack, EI_A, SendPutE);
        t.Impossible(EI_A, NE.Inv, NE.DataS, NE.DataE, NE.DataM, NE.DataMAcks, NE.InvAck, NE.LastInvAck, NE.InstallAck,
            NE.SoleGrant);

        t.Stall(OI_A, NE.Load, NE.Store, NE.Evict, NE.Discard);
        t.On(OI_A, NE.FwdGetS, OI_A, SendDataToRequestor);
        t.On(OI_A, NE.FwdGetM, II_A, NodeAction.SendDataM);
        t.On(OI_A, NE.PutAck, I, ReleaseKept, NodeAction.Complete);
        t.On(OI_A, NE.Nack, OI_A, SendPutO);
        t.Impossible(OI_A, NE.Inv, NE.DataS, NE.DataE, NE.DataM, NE.DataMAcks, NE.InvAck, NE.LastInvAck, NE.InstallAck,
            NE.SoleGrant);

        t.Stall(MI_A, NE.Load, NE.Store, NE.Evict, NE.Discard);
        t.On(MI_A, NE.FwdGetS, MI_A, SendDataToRequestor);
        t.On(MI_A, NE.FwdGetM, II_A, NodeAction.SendDataM);
        t.On(MI_A, NE.PutAck, I, ReleaseKept, NodeAction.Complete);
        t.On(MI_A, NE.Nack, MI_A, SendPutM);
        t.Impossible(MI_A, NE.Inv, NE.DataS, NE.DataE, NE.DataM, NE.DataMAcks, NE.InvAck, NE.LastInvAck, NE.InstallAck,
            NE.SoleGrant);

        t.Stall(II_A, NE.Load, NE.Store, NE.Evict, NE.Discard);
        t.On(II_A, NE.Inv, II_A, SendInvAck);
        t.On(II_A, NE.InstallAck, II_P);
        t.On(II_A, NE.PutAck, MI_K);
        t.On(II_A, NE.Nack, II_A, SendPutM);
        t.Impossible(II_A, NE.FwdGetS, NE.FwdGetM, NE.DataS, NE.DataE, NE.DataM, NE.DataMAcks, NE.InvAck, NE.LastInvAck,
            NE.SoleGrant);

        t.Stall(II_P, NE.Load, NE.Store, NE.Evict, NE.Discard);
        t.On(II_P, NE.Inv, II_P, SendInvAck);
        t.On(II_P, NE.PutAck, I, ReleaseKept, NodeAction.Complete);
        t.On(II_P, NE.Nack, II_P, SendPutM);
        t.Impossible(II_P, NE.FwdGetS, NE.FwdGetM, NE.DataS, NE.DataE, NE.DataM, NE.DataMAcks, NE.InvAck, NE.LastInvAck,
            NE.InstallAck, NE.SoleGrant);

        t.Stall(ZI_A, NE.Load, NE.Store, NE.Evict, NE.Discard);
        t.On(ZI_A, NE.Inv, ZI_A, SendInvAck);
        t.On(ZI_A, NE.PutAck, I, NodeAction.Complete);
        t.On(ZI_A, NE.Nack, I, RefuseDiscard, NodeAction.Complete);
        t.Impossible(ZI_A, NE.FwdGetS, NE.FwdGetM, NE.DataS, NE.DataE, NE.DataM, NE.DataMAcks, NE.InvAck, NE.LastInvAck,
            NE.InstallAck, NE.SoleGrant);

        // A node was lost. What was under way is void; what may be the last copy is kept.
        t.On(I, NE.Freeze, I);
        t.On(S, NE.Freeze, S);
        t.On(E, NE.Freeze, M, NodeAction.BecomeOwner); // whether it was written is not asked
        t.On(O, NE.Freeze, O);
        t.On(M, NE.Freeze, M);
        t.On(IS_D, NE.Freeze, I, Abandon);
        t.On(IS_D_I, NE.Freeze, I, Abandon);
        t.On(IM_AD, NE.Freeze, I, Abandon);
        t.On(IM_A, NE.Freeze, F, Keep, Unmap, LabelGranted);
        t.On(SM_AD, NE.Freeze, S, NodeAction.Complete);
        t.On(SM_A, NE.Freeze, S, NodeAction.Complete);
        t.On(OM_AD, NE.Freeze, O, NodeAction.Complete);
        t.On(OM_A, NE.Freeze, O, NodeAction.Complete);
        t.On(IM_ADK, NE.Freeze, F, LabelKept, Abandon);
        t.On(IM_AK, NE.Freeze, F, KeepInstead, Unmap, LabelGranted);
        t.On(IM_K, NE.Freeze, F, KeepInstead, Unmap, LabelGranted);
        t.On(MI_K, NE.Freeze, F, LabelKept);
        t.On(EI_A, NE.Freeze, F);
        t.On(OI_A, NE.Freeze, F);
        t.On(MI_A, NE.Freeze, F);
        t.On(II_A, NE.Freeze, F, LabelKept);
        t.On(II_P, NE.Freeze, I, ReleaseKept);
        t.On(ZI_A, NE.Freeze, F, KeepThrownAway);
        t.On(F, NE.Freeze, F);

        // The directories are being rebuilt.
        t.Stall(F, NE.Load, NE.Store, NE.Evict, NE.Discard);
        t.On(F, NE.Inv, F, SendInvAck);
        t.On(F, NE.Recall, F, SendRecalled);
        t.On(S, NE.Recall, S, SendRecalled);
        t.On(S, NE.Promote, M, NodeAction.BecomeOwner, SendPromoted);
        t.On(O, NE.Recall, O, SendRecalled);
        t.On(O, NE.Promote, M, NodeAction.BecomeOwner, SendPromoted);
        t.On(F, NE.Thaw, I, ReleaseKept, NodeAction.Complete);
        t.On(IS_D, NE.Poisoned, I, Poison, Abandon);
        t.On(IS_D_I, NE.Poisoned, I, Poison, Abandon);
        t.On(IM_AD, NE.Poisoned, I, Poison, Abandon);
        t.ImpossibleElsewhere(NE.Recall, NE.Promote, NE.Thaw, NE.Poisoned);
        t.ImpossibleElsewhere(F);

        return t.Complete();
    }

    private static ProtocolTable<DirectoryState, DirectoryEvent, DirectoryAction> BuildDirectory()
    {
        var t = new ProtocolTable<DirectoryState, DirectoryEvent, DirectoryAction>(
            [D.I, D.S, D.E, D.O, D.M, D.M_A, D.I_A, D.I_W, D.S_W, D.I_AW, D.Lost],
            [DE.GetS, DE.GetM, DE.Upgrade, DE.SoleUpgrade, DE.PutE, DE.PutO, DE.PutM, DE.StalePutM, DE.PutZ, DE.SharedPutZ, DE.InstallAck,
                DE.Mirrored]);

        t.On(D.I, DE.GetS, D.E, SendDataE, SetOwner);
        t.On(D.I, DE.GetM, D.M_A, DirectoryAction.SendDataM, SetOwner);
        t.On(D.I, DE.StalePutM, D.I, SendPutAck);
        t.On(D.I, DE.PutZ, D.I_W, MakeZero, Mirror);
        t.Impossible(D.I, DE.Upgrade, DE.SoleUpgrade, DE.PutE, DE.PutO, DE.PutM, DE.SharedPutZ, DE.InstallAck, DE.Mirrored);

        t.On(D.S, DE.GetS, D.S, SendDataS, AddSharer);
        t.On(D.S, DE.GetM, D.M_A, DirectoryAction.SendDataM, SendInvs, ClearSharers, SetOwner);
        t.On(D.S, DE.Upgrade, D.M_A, SendGrant, SendInvs, ClearSharers, SetOwner);
        t.On(D.S, DE.SoleUpgrade, D.M, SendSoleGrant, ClearSharers, SetOwner, DirectoryAction.DropHome); // it has the contents
        t.On(D.S, DE.StalePutM, D.S, SendPutAck);
        t.On(D.S, DE.PutZ, D.I_W, ClearSharers, MakeZero, Mirror);
        t.On(D.S, DE.SharedPutZ, D.S, SendNack);
        t.Impossible(D.S, DE.PutE, DE.PutO, DE.PutM, DE.InstallAck, DE.Mirrored);

        t.On(D.E, DE.GetS, D.O, SendFwdGetS, AddSharer);
        t.On(D.E, DE.GetM, D.M_A, SendFwdGetM, SetOwner);
        t.On(D.E, DE.PutE, D.I, ClearOwner, SendPutAck);
        t.On(D.E, DE.PutM, D.I_W, WriteHome, ClearOwner, Mirror); // it has written
        t.On(D.E, DE.StalePutM, D.E, SendPutAck);
        t.On(D.E, DE.SharedPutZ, D.E, SendNack);
        t.Impossible(D.E, DE.Upgrade, DE.SoleUpgrade, DE.PutO, DE.PutZ, DE.InstallAck, DE.Mirrored);

        t.On(D.O, DE.GetS, D.O, SendFwdGetS, AddSharer);
        t.On(D.O, DE.GetM, D.M_A, SendFwdGetM, SendInvs, ClearSharers, SetOwner);
        t.On(D.O, DE.Upgrade, D.M_A, SendOwnerGrant, SendInvs, ClearSharers);
        t.On(D.O, DE.PutE, D.S, ClearOwner, SendPutAck); // crossed the FwdGetS: unwritten, so the home copy is right
        t.On(D.O, DE.PutO, D.S_W, WriteHome, ClearOwner, Mirror);
        t.On(D.O, DE.PutM, D.S_W, WriteHome, ClearOwner, Mirror); // crossed the FwdGetS
        t.On(D.O, DE.StalePutM, D.O, SendPutAck);
        t.On(D.O, DE.SharedPutZ, D.O, SendNack);
        t.Impossible(D.O, DE.SoleUpgrade, DE.PutZ, DE.InstallAck, DE.Mirrored);

        t.On(D.M, DE.GetS, D.O, SendFwdGetS, AddSharer);
        t.On(D.M, DE.GetM, D.M_A, SendFwdGetM, SetOwner);
        t.On(D.M, DE.PutM, D.I_W, WriteHome, ClearOwner, Mirror);
        t.On(D.M, DE.StalePutM, D.M, SendPutAck);
        t.On(D.M, DE.SharedPutZ, D.M, SendNack);
        t.Impossible(D.M, DE.Upgrade, DE.SoleUpgrade, DE.PutE, DE.PutO, DE.PutZ, DE.InstallAck, DE.Mirrored);

        t.Stall(D.M_A, DE.GetS, DE.GetM, DE.PutZ, DE.SharedPutZ);
        t.Stall(D.M_A, DE.StalePutM); // its PutAck says that the new owner has the data
        t.On(D.M_A, DE.PutM, D.I_AW, WriteHome, Mirror); // overtook the InstallAck
        t.On(D.M_A, DE.InstallAck, D.M, DirectoryAction.DropHome);
        t.Impossible(D.M_A, DE.Upgrade, DE.SoleUpgrade, DE.PutE, DE.PutO, DE.Mirrored);

        t.Stall(D.I_A, DE.GetS, DE.GetM, DE.PutZ, DE.SharedPutZ);
        t.On(D.I_A, DE.StalePutM, D.I_A, SendPutAck);
        t.On(D.I_A, DE.InstallAck, D.I, ClearOwner);
        t.Impossible(D.I_A, DE.Upgrade, DE.SoleUpgrade, DE.PutE, DE.PutO, DE.PutM, DE.Mirrored);

        t.Stall(D.I_W, DE.GetS, DE.GetM, DE.PutZ, DE.SharedPutZ);
        t.On(D.I_W, DE.StalePutM, D.I_W, SendPutAck);
        t.On(D.I_W, DE.Mirrored, D.I, SendPutAck);
        t.Impossible(D.I_W, DE.Upgrade, DE.SoleUpgrade, DE.PutE, DE.PutO, DE.PutM, DE.InstallAck);

        t.Stall(D.S_W, DE.GetS, DE.GetM, DE.PutZ, DE.SharedPutZ);
        t.On(D.S_W, DE.StalePutM, D.S_W, SendPutAck);
        t.On(D.S_W, DE.Mirrored, D.S, SendPutAck);
        t.Impossible(D.S_W, DE.Upgrade, DE.SoleUpgrade, DE.PutE, DE.PutO, DE.PutM, DE.InstallAck);

        t.Stall(D.I_AW, DE.GetS, DE.GetM, DE.PutZ, DE.SharedPutZ);
        t.On(D.I_AW, DE.StalePutM, D.I_AW, SendPutAck);
        t.On(D.I_AW, DE.InstallAck, D.I_W, ClearOwner);
        t.On(D.I_AW, DE.Mirrored, D.I_A, SendPutAck);
        t.Impossible(D.I_AW, DE.Upgrade, DE.SoleUpgrade, DE.PutE, DE.PutO, DE.PutM);

        t.On(D.Lost, DE.GetS, D.Lost, SendPoisoned);
        t.On(D.Lost, DE.GetM, D.Lost, SendPoisoned);
        t.On(D.Lost, DE.StalePutM, D.Lost, SendPutAck);
        t.On(D.Lost, DE.PutZ, D.I_W, MakeZero, Mirror); // it may be used again
        t.Impossible(D.Lost, DE.Upgrade, DE.SoleUpgrade, DE.PutE, DE.PutO, DE.PutM, DE.SharedPutZ, DE.InstallAck, DE.Mirrored);

        return t.Complete();
    }
}
