// SPDX-License-Identifier: Apache-2.0
using static VSmp.Coherence.Protocols.DirectoryAction;
using static VSmp.Coherence.Protocols.NodeAction;
using static VSmp.Coherence.Protocols.NodeState;
using D = VSmp.Coherence.Protocols.DirectoryState;
using DE = VSmp.Coherence.Protocols.DirectoryEvent;
using NE = VSmp.Coherence.Protocols.NodeEvent;

namespace VSmp.Coherence.Protocols;

/// <summary>
/// MSI with a directory, after Sorin, Hill, Wood (Primer, ch. 8), with these differences: read copies are dropped silently and an
/// Inv is acknowledged from everywhere; who gives up the last valid copy keeps it until the receiver has it (InstallAck from a node,
/// WritebackAck from the home); the home takes one write grant or hand-over at a time (M_A, S_D), so that no node is ever asked to
/// forward what it does not have yet. A grant that puts no last copy at risk (DataE, SoleGrant) needs no InstallAck: it travels on the
/// forward network, so that what the home asks next of its new owner comes behind it. Every acknowledgement is awaited by somebody, so
/// messages cannot pile up.
/// </summary>
public static class Msi
{
    /// <summary>The protocol.</summary>
    public static Protocol Protocol { get; } = new("msi", BuildNode(), BuildDirectory());

    private static ProtocolTable<NodeState, NodeEvent, NodeAction> BuildNode()
    {
        var t = new ProtocolTable<NodeState, NodeEvent, NodeAction>(
            [I, S, M, IS_D, IS_D_I, IM_AD, IM_A, SM_AD, SM_A, MS_K, MI_K, MI_A, SI_A, II_A, II_P, ZI_A, F],
            [NE.Load, NE.Store, NE.Evict, NE.Discard, NE.FwdGetS, NE.FwdGetM, NE.Inv, NE.DataS, NE.DataM, NE.DataMAcks, NE.InvAck,
                NE.LastInvAck, NE.InstallAck, NE.WritebackAck, NE.PutAck, NE.Nack, NE.SoleGrant,
                NE.Poisoned, NE.Freeze, NE.Recall, NE.Promote, NE.Thaw]);

        t.On(I, NE.Load, IS_D, SendGetS);
        t.On(I, NE.Store, IM_AD, SendGetM);
        t.On(I, NE.Evict, I); // already gone
        t.On(I, NE.Discard, ZI_A, SendPutZ);
        t.On(I, NE.Inv, I, SendInvAck); // dropped silently before
        t.On(I, NE.WritebackAck, I); // late: the home had a PutM of the same data first
        t.Impossible(I, NE.FwdGetS, NE.FwdGetM, NE.DataS, NE.DataM, NE.DataMAcks, NE.InvAck, NE.LastInvAck, NE.PutAck, NE.Nack,
            NE.InstallAck, NE.SoleGrant);

        t.On(S, NE.Load, S, Hit);
        t.On(S, NE.Store, SM_AD, SendUpgrade);
        t.On(S, NE.Evict, I, Unmap);
        t.On(S, NE.Discard, ZI_A, Unmap, SendPutZ);
        t.On(S, NE.Inv, I, Unmap, SendInvAck);
        t.On(S, NE.WritebackAck, S);
        t.Impossible(S, NE.FwdGetS, NE.FwdGetM, NE.DataS, NE.DataM, NE.DataMAcks, NE.InvAck, NE.LastInvAck, NE.PutAck, NE.Nack,
            NE.InstallAck, NE.SoleGrant);

        t.On(M, NE.Load, M, Hit);
        t.On(M, NE.Store, M, Hit);
        t.On(M, NE.Evict, MI_A, WriteProtect, Keep, Unmap, SendPutM);
        t.On(M, NE.Discard, MI_A, KeepZero, Unmap, SendPutM);
        t.On(M, NE.FwdGetS, MS_K, WriteProtect, SendDataToRequestor, SendDataToHome);
        t.On(M, NE.FwdGetM, MI_K, WriteProtect, Keep, Unmap, NodeAction.SendDataM);
        t.On(M, NE.WritebackAck, M);
        t.Impossible(M, NE.Inv, NE.DataS, NE.DataM, NE.DataMAcks, NE.InvAck, NE.LastInvAck, NE.PutAck, NE.Nack, NE.InstallAck,
            NE.SoleGrant);

        t.Stall(IS_D, NE.Load, NE.Store, NE.Evict, NE.Discard);
        t.On(IS_D, NE.Inv, IS_D_I, SendInvAck);
        t.On(IS_D, NE.DataS, S, NodeAction.InstallReadable);
        t.On(IS_D, NE.WritebackAck, IS_D);
        t.On(IS_D, NE.Nack, I, Abandon);
        t.Impossible(IS_D, NE.FwdGetS, NE.FwdGetM, NE.DataM, NE.DataMAcks, NE.InvAck, NE.LastInvAck, NE.PutAck, NE.InstallAck,
            NE.SoleGrant);

        t.Stall(IS_D_I, NE.Load, NE.Store, NE.Evict, NE.Discard);
        t.On(IS_D_I, NE.Inv, IS_D_I, SendInvAck);
        t.On(IS_D_I, NE.DataS, IS_D, AskAgain); // stale: whoever wrote since has our InvAck
        t.On(IS_D_I, NE.WritebackAck, IS_D_I);
        t.On(IS_D_I, NE.Nack, I, Abandon);
        t.Impossible(IS_D_I, NE.FwdGetS, NE.FwdGetM, NE.DataM, NE.DataMAcks, NE.InvAck, NE.LastInvAck, NE.PutAck, NE.InstallAck,
            NE.SoleGrant);

        t.Stall(IM_AD, NE.Load, NE.Store, NE.Evict, NE.Discard);
        t.On(IM_AD, NE.Inv, IM_AD, SendInvAck);
        t.On(IM_AD, NE.DataM, M, NodeAction.InstallWritable, NodeAction.SendInstallAck);
        t.On(IM_AD, NE.DataMAcks, IM_A, NodeAction.WriteFrame);
        t.On(IM_AD, NE.InvAck, IM_AD, CountAck);
        t.On(IM_AD, NE.WritebackAck, IM_AD);
        t.On(IM_AD, NE.Nack, I, Abandon);
        t.Impossible(IM_AD, NE.FwdGetS, NE.FwdGetM, NE.DataS, NE.LastInvAck, NE.PutAck, NE.InstallAck, NE.SoleGrant);

        t.Stall(IM_A, NE.Load, NE.Store, NE.Evict, NE.Discard);
        t.On(IM_A, NE.InvAck, IM_A, CountAck);
        t.On(IM_A, NE.LastInvAck, M, NodeAction.MakeWritable, NodeAction.SendInstallAck);
        t.On(IM_A, NE.WritebackAck, IM_A);
        t.Impossible(IM_A, NE.Inv, NE.FwdGetS, NE.FwdGetM, NE.DataS, NE.DataM, NE.DataMAcks, NE.PutAck, NE.Nack, NE.InstallAck,
            NE.SoleGrant);

        t.On(SM_AD, NE.Load, SM_AD, Hit);
        t.Stall(SM_AD, NE.Store, NE.Evict, NE.Discard);
        t.On(SM_AD, NE.Inv, IM_AD, Unmap, SendInvAck);
        t.On(SM_AD, NE.DataM, M, NodeAction.MakeWritable, NodeAction.SendInstallAck);
        t.On(SM_AD, NE.SoleGrant, M, NodeAction.MakeWritable, NodeAction.EndTransaction);
        t.On(SM_AD, NE.DataMAcks, SM_A);
        t.On(SM_AD, NE.InvAck, SM_AD, CountAck);
        t.On(SM_AD, NE.WritebackAck, SM_AD);
        t.On(SM_AD, NE.Nack, S, NodeAction.Complete);
        t.Impossible(SM_AD, NE.FwdGetS, NE.FwdGetM, NE.DataS, NE.LastInvAck, NE.PutAck, NE.InstallAck);

        t.On(SM_A, NE.Load, SM_A, Hit);
        t.Stall(SM_A, NE.Store, NE.Evict, NE.Discard);
        t.On(SM_A, NE.InvAck, SM_A, CountAck);
        t.On(SM_A, NE.LastInvAck, M, NodeAction.MakeWritable, NodeAction.SendInstallAck);
        t.On(SM_A, NE.WritebackAck, SM_A);
        t.Impossible(SM_A, NE.Inv, NE.FwdGetS, NE.FwdGetM, NE.DataS, NE.DataM, NE.DataMAcks, NE.PutAck, NE.Nack, NE.InstallAck,
            NE.SoleGrant);

        t.On(MS_K, NE.Load, MS_K, Hit);
        t.Stall(MS_K, NE.Store, NE.Evict, NE.Discard);
        t.On(MS_K, NE.WritebackAck, S, NodeAction.Complete);
        t.Impossible(MS_K, NE.Inv, NE.FwdGetS, NE.FwdGetM, NE.DataS, NE.DataM, NE.DataMAcks, NE.InvAck, NE.LastInvAck, NE.PutAck,
            NE.Nack, NE.InstallAck, NE.SoleGrant);

        t.Stall(MI_K, NE.Load, NE.Store, NE.Evict, NE.Discard);
        t.On(MI_K, NE.Inv, MI_K, SendInvAck);
        t.On(MI_K, NE.InstallAck, I, ReleaseKept, NodeAction.Complete);
        t.Impossible(MI_K, NE.FwdGetS, NE.FwdGetM, NE.DataS, NE.DataM, NE.DataMAcks, NE.InvAck, NE.LastInvAck, NE.PutAck, NE.Nack,
            NE.WritebackAck, NE.SoleGrant);

        t.Stall(MI_A, NE.Load, NE.Store, NE.Evict, NE.Discard);
        t.On(MI_A, NE.FwdGetS, SI_A, SendDataToRequestor, SendDataToHome);
        t.On(MI_A, NE.FwdGetM, II_A, NodeAction.SendDataM);
        t.On(MI_A, NE.WritebackAck, MI_A);
        t.On(MI_A, NE.PutAck, I, ReleaseKept, NodeAction.Complete);
        t.On(MI_A, NE.Nack, MI_A, SendPutM);
        t.Impossible(MI_A, NE.Inv, NE.DataS, NE.DataM, NE.DataMAcks, NE.InvAck, NE.LastInvAck, NE.InstallAck, NE.SoleGrant);

        t.Stall(SI_A, NE.Load, NE.Store, NE.Evict, NE.Discard);
        t.On(SI_A, NE.Inv, II_P, SendInvAck);
        t.On(SI_A, NE.WritebackAck, SI_A);
        t.On(SI_A, NE.PutAck, I, ReleaseKept, NodeAction.Complete);
        t.On(SI_A, NE.Nack, SI_A, SendPutM);
        t.Impossible(SI_A, NE.FwdGetS, NE.FwdGetM, NE.DataS, NE.DataM, NE.DataMAcks, NE.InvAck, NE.LastInvAck, NE.InstallAck,
            NE.SoleGrant);

        t.Stall(II_A, NE.Load, NE.Store, NE.Evict, NE.Discard);
        t.On(II_A, NE.Inv, II_A, SendInvAck);
        t.On(II_A, NE.InstallAck, II_P);
        t.On(II_A, NE.PutAck, MI_K);
        t.On(II_A, NE.Nack, II_A, SendPutM);
        t.Impossible(II_A, NE.FwdGetS, NE.FwdGetM, NE.DataS, NE.DataM, NE.DataMAcks, NE.InvAck, NE.LastInvAck, NE.WritebackAck,
            NE.SoleGrant);

        t.Stall(II_P, NE.Load, NE.Store, NE.Evict, NE.Discard);
        t.On(II_P, NE.Inv, II_P, SendInvAck);
        t.On(II_P, NE.WritebackAck, II_P);
        t.On(II_P, NE.PutAck, I, ReleaseKept, NodeAction.Complete);
        t.On(II_P, NE.Nack, II_P, SendPutM);
        t.Impossible(II_P, NE.FwdGetS, NE.FwdGetM, NE.DataS, NE.DataM, NE.DataMAcks, NE.InvAck, NE.LastInvAck, NE.InstallAck,
            NE.SoleGrant);

        t.Stall(ZI_A, NE.Load, NE.Store, NE.Evict, NE.Discard);
        t.On(ZI_A, NE.Inv, ZI_A, SendInvAck);
        t.On(ZI_A, NE.WritebackAck, ZI_A);
        t.On(ZI_A, NE.PutAck, I, NodeAction.Complete);
        t.On(ZI_A, NE.Nack, I, RefuseDiscard, NodeAction.Complete);
        t.Impossible(ZI_A, NE.FwdGetS, NE.FwdGetM, NE.DataS, NE.DataM, NE.DataMAcks, NE.InvAck, NE.LastInvAck, NE.InstallAck,
            NE.SoleGrant);

        // A node was lost. What was under way is void; what may be the last copy is kept.
        t.On(I, NE.Freeze, I);
        t.On(S, NE.Freeze, S);
        t.On(M, NE.Freeze, M);
        t.On(IS_D, NE.Freeze, I, Abandon);
        t.On(IS_D_I, NE.Freeze, I, Abandon);
        t.On(IM_AD, NE.Freeze, I, Abandon);
        t.On(IM_A, NE.Freeze, F, Keep, Unmap, LabelGranted);
        t.On(SM_AD, NE.Freeze, S, NodeAction.Complete);
        t.On(SM_A, NE.Freeze, S, NodeAction.Complete);
        t.On(MS_K, NE.Freeze, S, NodeAction.Complete);
        t.On(MI_K, NE.Freeze, F, LabelKept);
        t.On(MI_A, NE.Freeze, F);
        t.On(SI_A, NE.Freeze, F);
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
            [D.I, D.S, D.M, D.S_D, D.M_A, D.I_A, D.I_W, D.S_W, D.I_AW, D.Lost],
            [DE.GetS, DE.GetM, DE.Upgrade, DE.SoleUpgrade, DE.PutM, DE.StalePutM, DE.PutZ, DE.SharedPutZ, DE.Data, DE.InstallAck,
                DE.Mirrored]);

        t.On(D.I, DE.GetS, D.S, SendDataS, AddSharer);
        t.On(D.I, DE.GetM, D.M_A, DirectoryAction.SendDataM, SetOwner);
        t.On(D.I, DE.StalePutM, D.I, SendPutAck);
        t.On(D.I, DE.PutZ, D.I_W, MakeZero, Mirror);
        t.Impossible(D.I, DE.Upgrade, DE.SoleUpgrade, DE.PutM, DE.SharedPutZ, DE.Data, DE.InstallAck, DE.Mirrored);

        t.On(D.S, DE.GetS, D.S, SendDataS, AddSharer);
        t.On(D.S, DE.GetM, D.M_A, DirectoryAction.SendDataM, SendInvs, ClearSharers, SetOwner);
        t.On(D.S, DE.Upgrade, D.M_A, SendGrant, SendInvs, ClearSharers, SetOwner);
        t.On(D.S, DE.SoleUpgrade, D.M, SendSoleGrant, ClearSharers, SetOwner, DirectoryAction.DropHome); // it has the contents
        t.On(D.S, DE.StalePutM, D.S, SendPutAck);
        t.On(D.S, DE.PutZ, D.I_W, ClearSharers, MakeZero, Mirror);
        t.On(D.S, DE.SharedPutZ, D.S, SendNack);
        t.Impossible(D.S, DE.PutM, DE.Data, DE.InstallAck, DE.Mirrored);

        t.On(D.M, DE.GetS, D.S_D, SendFwdGetS, AddSharer, AddOwnerAsSharer);
        t.On(D.M, DE.GetM, D.M_A, SendFwdGetM, SetOwner);
        t.On(D.M, DE.PutM, D.I_W, WriteHome, ClearOwner, Mirror);
        t.On(D.M, DE.StalePutM, D.M, SendPutAck);
        t.On(D.M, DE.SharedPutZ, D.M, SendNack);
        t.Impossible(D.M, DE.Upgrade, DE.SoleUpgrade, DE.PutZ, DE.Data, DE.InstallAck, DE.Mirrored);

        t.Stall(D.S_D, DE.GetS, DE.GetM, DE.PutZ, DE.SharedPutZ);
        t.Stall(D.S_D, DE.PutM); // the owner was evicting: the same data are on their way
        t.On(D.S_D, DE.StalePutM, D.S_D, SendPutAck);
        t.On(D.S_D, DE.Data, D.S_W, WriteHome, ClearOwner, Mirror);
        t.Impossible(D.S_D, DE.Upgrade, DE.SoleUpgrade, DE.InstallAck, DE.Mirrored);

        t.Stall(D.M_A, DE.GetS, DE.GetM, DE.PutZ, DE.SharedPutZ);
        t.Stall(D.M_A, DE.StalePutM); // its PutAck says that the new owner has the data
        t.On(D.M_A, DE.PutM, D.I_AW, WriteHome, Mirror); // overtook the InstallAck
        t.On(D.M_A, DE.InstallAck, D.M, DirectoryAction.DropHome);
        t.Impossible(D.M_A, DE.Upgrade, DE.SoleUpgrade, DE.Data, DE.Mirrored);

        t.Stall(D.I_A, DE.GetS, DE.GetM, DE.PutZ, DE.SharedPutZ);
        t.On(D.I_A, DE.StalePutM, D.I_A, SendPutAck);
        t.On(D.I_A, DE.InstallAck, D.I, ClearOwner);
        t.Impossible(D.I_A, DE.Upgrade, DE.SoleUpgrade, DE.PutM, DE.Data, DE.Mirrored);

        t.Stall(D.I_W, DE.GetS, DE.GetM, DE.PutZ, DE.SharedPutZ);
        t.On(D.I_W, DE.StalePutM, D.I_W, SendPutAck);
        t.On(D.I_W, DE.Mirrored, D.I, SendPutAck);
        t.Impossible(D.I_W, DE.Upgrade, DE.SoleUpgrade, DE.PutM, DE.Data, DE.InstallAck);

        t.Stall(D.S_W, DE.GetS, DE.GetM, DE.PutZ, DE.SharedPutZ);
        t.Stall(D.S_W, DE.StalePutM); // who sent the data was evicting: it must keep them until the mirror has them, too
        t.On(D.S_W, DE.Mirrored, D.S, SendWritebackAck);
        t.Impossible(D.S_W, DE.Upgrade, DE.SoleUpgrade, DE.PutM, DE.Data, DE.InstallAck);

        t.Stall(D.I_AW, DE.GetS, DE.GetM, DE.PutZ, DE.SharedPutZ);
        t.On(D.I_AW, DE.StalePutM, D.I_AW, SendPutAck);
        t.On(D.I_AW, DE.InstallAck, D.I_W, ClearOwner);
        t.On(D.I_AW, DE.Mirrored, D.I_A, SendPutAck);
        t.Impossible(D.I_AW, DE.Upgrade, DE.SoleUpgrade, DE.PutM, DE.Data);

        t.On(D.Lost, DE.GetS, D.Lost, SendPoisoned);
        t.On(D.Lost, DE.GetM, D.Lost, SendPoisoned);
        t.On(D.Lost, DE.StalePutM, D.Lost, SendPutAck);
        t.On(D.Lost, DE.PutZ, D.I_W, MakeZero, Mirror); // it may be used again
        t.Impossible(D.Lost, DE.Upgrade, DE.SoleUpgrade, DE.PutM, DE.SharedPutZ, DE.Data, DE.InstallAck, DE.Mirrored);

        return t.Complete();
    }
}
