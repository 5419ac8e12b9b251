// SPDX-License-Identifier: Apache-2.0
namespace VSmp.Coherence.Protocols;

/// <summary>State of a page at its home.</summary>
public enum DirectoryState : byte
{
    /// <summary>The home copy is valid (or the page is ZERO); nobody has another.</summary>
    I,
    /// <summary>The home copy is valid, and so are the sharers'.</summary>
    S,
    /// <summary>Only the owner's copy is valid.</summary>
    M,
    /// <summary>The owner was asked to send its data here; others wait.</summary>
    S_D,
    /// <summary>A write grant is under way to the new owner; others wait until it is installed.</summary>
    M_A,
    /// <summary>The owner has given the page back before its InstallAck came, which is still out; others wait.</summary>
    I_A,
    /// <summary>The owner was granted the page unwritten; the home copy is valid until the owner writes, which the home does not see.</summary>
    E,
    /// <summary>The owner's copy is valid, and so are the sharers'; the home's need not be.</summary>
    O,
    /// <summary>Written home; the mirror's word that it has it, too, is out. Who gave it up keeps it until then.</summary>
    I_W,
    /// <summary>As <see cref="I_W"/>, with sharers.</summary>
    S_W,
    /// <summary>As <see cref="I_A"/>, and the mirror's word is out as well.</summary>
    I_AW,
    /// <summary>Its contents were lost with the nodes that had them. Thrown away, it is zeros again.</summary>
    Lost,
}

/// <summary>What can happen to a page at its home.</summary>
public enum DirectoryEvent : byte
{
    /// <summary>See <see cref="Messages.MessageType.GetS"/>.</summary>
    GetS,
    /// <summary>See <see cref="Messages.MessageType.GetM"/>; also an Upgrade by a node that is no sharer any more.</summary>
    GetM,
    /// <summary>An Upgrade by a node whose copy is certainly right: a sharer's in S, the owner's in O.</summary>
    Upgrade,
    /// <summary>An Upgrade in S by the only sharer.</summary>
    SoleUpgrade,
    /// <summary>PutM by the owner.</summary>
    PutM,
    /// <summary>PutM, PutE or PutO by a node that is not the owner any more.</summary>
    StalePutM,
    /// <summary>PutZ, and nobody else has a copy.</summary>
    PutZ,
    /// <summary>PutZ while others have copies.</summary>
    SharedPutZ,
    /// <summary>The owner's data after a FwdGetS.</summary>
    Data,
    /// <summary>The new owner has installed the version that was granted last.</summary>
    InstallAck,
    /// <summary>PutE by the owner.</summary>
    PutE,
    /// <summary>PutO by the owner.</summary>
    PutO,
    /// <summary>The owner's word after a FwdGetS that it has not written.</summary>
    Clean,
    /// <summary>The mirror has what was written home; or there is no mirror, and nothing to wait for.</summary>
    Mirrored,
}

/// <summary>What a home does about an event.</summary>
public enum DirectoryAction : byte
{
    /// <summary>Send the home copy to the requestor, to read.</summary>
    SendDataS,
    /// <summary>Count the version up and send the home copy to the requestor, to write.</summary>
    SendDataM,
    /// <summary>Count the version up and grant writing without data.</summary>
    SendGrant,
    /// <summary>Tell every other sharer to acknowledge to the requestor.</summary>
    SendInvs,
    /// <summary>Ask the owner for a read copy for the requestor and for the home.</summary>
    SendFwdGetS,
    /// <summary>Count the version up and ask the owner to hand over to the requestor.</summary>
    SendFwdGetM,
    /// <summary>Acknowledge the PutM or PutZ.</summary>
    SendPutAck,
    /// <summary>Refuse.</summary>
    SendNack,
    /// <summary>Tell the former owner that the home has its data.</summary>
    SendWritebackAck,
    /// <summary>The requestor becomes a sharer.</summary>
    AddSharer,
    /// <summary>The owner becomes a sharer.</summary>
    AddOwnerAsSharer,
    /// <summary>Nobody is a sharer.</summary>
    ClearSharers,
    /// <summary>The requestor becomes the owner.</summary>
    SetOwner,
    /// <summary>Nobody is the owner.</summary>
    ClearOwner,
    /// <summary>The message's data become the home copy.</summary>
    WriteHome,
    /// <summary>The page becomes ZERO.</summary>
    MakeZero,
    /// <summary>The home copy is stale: drop it, and what was kept of it.</summary>
    DropHome,
    /// <summary>Count the version up and send the home copy to the requestor, to read, and to write without asking.</summary>
    SendDataE,
    /// <summary>Count the version up and grant writing to the owner, behind the forwards that it still has to answer.</summary>
    SendOwnerGrant,
    /// <summary>Count the version up and grant writing to the only sharer, before whatever is asked of it next.</summary>
    SendSoleGrant,
    /// <summary>Send the mirror, if the page has one, what is at home now.</summary>
    Mirror,
    /// <summary>Tell the requestor that the page is lost.</summary>
    SendPoisoned,
}
