// SPDX-License-Identifier: Apache-2.0
namespace VSmp.Coherence.Protocols;

/// <summary>
/// State of a page at a node. A transient <c>XY_Z</c> is on its way from X to Y and waits for Z: D data, A acknowledgements,
/// K the acknowledgement for a copy that is kept, P a PutAck that nothing depends on (Sorin, Hill, Wood: A Primer on Memory
/// Consistency and Cache Coherence, ch. 8).
/// </summary>
public enum NodeState : byte
{
    /// <summary>Nothing here.</summary>
    I,
    /// <summary>A read copy.</summary>
    S,
    /// <summary>The only copy; may be written.</summary>
    M,
    /// <summary>Asked to read.</summary>
    IS_D,
    /// <summary>Asked to read, invalidated before the data came: they are stale when they come.</summary>
    IS_D_I,
    /// <summary>Asked to write; data and acknowledgements are out.</summary>
    IM_AD,
    /// <summary>Asked to write, has the data; acknowledgements are out.</summary>
    IM_A,
    /// <summary>Asked to write with a read copy in hand.</summary>
    SM_AD,
    /// <summary>Granted, with a read copy in hand; acknowledgements are out.</summary>
    SM_A,
    /// <summary>Was M, sent its data to the home and to a reader; reads on, must not drop the copy before the home has it.</summary>
    MS_K,
    /// <summary>Handed M over to another node; the copy is kept until that node has installed it.</summary>
    MI_K,
    /// <summary>Was M, sent PutM; the copy is kept.</summary>
    MI_A,
    /// <summary>As MI_A, but answered a FwdGetS meanwhile.</summary>
    SI_A,
    /// <summary>As MI_A, but answered a FwdGetM meanwhile: the InstallAck of the new owner is out as well.</summary>
    II_A,
    /// <summary>Threw the page away without owning it, sent PutZ.</summary>
    ZI_A,
    /// <summary>Somebody else has what was kept here; only the PutAck for a PutM that came too late is out.</summary>
    II_P,
    /// <summary>The only copy beside the home's; may be written without asking, and is M then.</summary>
    E,
    /// <summary>Was E, sent PutE; the copy is kept.</summary>
    EI_A,
    /// <summary>The copy that all readers have theirs from; the home has none that is valid.</summary>
    O,
    /// <summary>Owner with readers elsewhere, asked to write; grant and acknowledgements are out.</summary>
    OM_AD,
    /// <summary>As OM_AD, with the grant; acknowledgements are out.</summary>
    OM_A,
    /// <summary>Was O (or M), sent PutO (or PutM); the copy is kept.</summary>
    OI_A,
    /// <summary>Was OM_AD, handed over to a node that had asked before: as IM_AD, and keeps the copy that was handed over.</summary>
    IM_ADK,
    /// <summary>As IM_A, and keeps what was handed over.</summary>
    IM_AK,
    /// <summary>Has the grant and all acknowledgements, but what was handed over before is not installed yet at its receiver.</summary>
    IM_K,
    /// <summary>
    /// Was on its way when the region was frozen: what was kept of it may be the last copy. It is recalled, or dropped when the directories are
    /// there again.
    /// </summary>
    F,
}

/// <summary>What can happen to a page at a node.</summary>
public enum NodeEvent : byte
{
    /// <summary>A guest reads.</summary>
    Load,
    /// <summary>A guest writes.</summary>
    Store,
    /// <summary>The agent wants the frame.</summary>
    Evict,
    /// <summary>The guest threw the contents away (munmap, MADV_DONTNEED).</summary>
    Discard,
    /// <summary>See <see cref="Messages.MessageType.FwdGetS"/>.</summary>
    FwdGetS,
    /// <summary>See <see cref="Messages.MessageType.FwdGetM"/>.</summary>
    FwdGetM,
    /// <summary>See <see cref="Messages.MessageType.Inv"/>.</summary>
    Inv,
    /// <summary>Data to read.</summary>
    DataS,
    /// <summary>A write grant, and every InvAck that it counts has come.</summary>
    DataM,
    /// <summary>A write grant; InvAcks are still out.</summary>
    DataMAcks,
    /// <summary>An InvAck that is not the last.</summary>
    InvAck,
    /// <summary>The last InvAck of a grant that has come.</summary>
    LastInvAck,
    /// <summary>The new owner has installed the copy that this node keeps.</summary>
    InstallAck,
    /// <summary>See <see cref="Messages.MessageType.PutAck"/>.</summary>
    PutAck,
    /// <summary>See <see cref="Messages.MessageType.Nack"/>.</summary>
    Nack,
    /// <summary>See <see cref="Messages.MessageType.WritebackAck"/>.</summary>
    WritebackAck,
    /// <summary>Data to read, and the right to write without asking.</summary>
    DataE,
    /// <summary>See <see cref="Messages.MessageType.SoleGrant"/>.</summary>
    SoleGrant,
    /// <summary>See <see cref="Messages.MessageType.Poisoned"/>.</summary>
    Poisoned,
    /// <summary>A node was lost: what is under way will not arrive any more, and the directories are rebuilt.</summary>
    Freeze,
    /// <summary>See <see cref="Messages.MessageType.Recall"/>.</summary>
    Recall,
    /// <summary>See <see cref="Messages.MessageType.Promote"/>.</summary>
    Promote,
    /// <summary>The directories are there again.</summary>
    Thaw,
}

/// <summary>What a node does about an event.</summary>
public enum NodeAction : byte
{
    /// <summary>The page is there with the right that is asked for: map it.</summary>
    Hit,
    /// <summary>Open a transaction and ask the home to read.</summary>
    SendGetS,
    /// <summary>Open a transaction and ask the home to write.</summary>
    SendGetM,
    /// <summary>Open a transaction and ask the home to write; the contents are here.</summary>
    SendUpgrade,
    /// <summary>Ask the home again within the same transaction: what came was stale.</summary>
    AskAgain,
    /// <summary>Give the page back to its home, from the kept copy.</summary>
    SendPutM,
    /// <summary>Tell the home that the page reads zeros now.</summary>
    SendPutZ,
    /// <summary>Send a read copy to the requestor.</summary>
    SendDataToRequestor,
    /// <summary>Send a read copy to the home; its contents not again, if the home is the requestor.</summary>
    SendDataToHome,
    /// <summary>Hand the page over to the requestor, from the kept copy.</summary>
    SendDataM,
    /// <summary>Tell the requestor that the copy here is gone.</summary>
    SendInvAck,
    /// <summary>Tell home and former owner that the data are installed; the transaction ends.</summary>
    SendInstallAck,
    /// <summary>Data into the frame, mapped read-only; the transaction ends.</summary>
    InstallReadable,
    /// <summary>Data into the frame, mapped writable.</summary>
    InstallWritable,
    /// <summary>Data into the frame, not mapped yet.</summary>
    WriteFrame,
    /// <summary>Map writable what is in the frame.</summary>
    MakeWritable,
    /// <summary>Take the right to write away.</summary>
    WriteProtect,
    /// <summary>Copy the frame to where it is kept.</summary>
    Keep,
    /// <summary>Copy the frame to where it is kept, in place of what is kept there.</summary>
    KeepInstead,
    /// <summary>Keep zeros.</summary>
    KeepZero,
    /// <summary>Unmap everywhere and free the frame.</summary>
    Unmap,
    /// <summary>Drop the kept copy.</summary>
    ReleaseKept,
    /// <summary>Count an InvAck.</summary>
    CountAck,
    /// <summary>End the transaction without data; accesses that wait are tried again.</summary>
    Complete,
    /// <summary>End the transaction, give the reserved frame back; accesses that wait are tried again.</summary>
    Abandon,
    /// <summary>Report that the page could not be thrown away.</summary>
    RefuseDiscard,
    /// <summary>Data into the frame, mapped read-only though the page may be written without asking: so the first store is seen; the transaction ends.</summary>
    InstallExclusive,
    /// <summary>Tell the home that the copy here is what the home has.</summary>
    SendCleanToHome,
    /// <summary>Give up a page that was not written; the home has the same contents.</summary>
    SendPutE,
    /// <summary>Give the page back to its home, from the kept copy; others may read on.</summary>
    SendPutO,
    /// <summary>The transaction ends; nobody waits to hear of it.</summary>
    EndTransaction,
    /// <summary>Who touches the page is to be told that it is lost.</summary>
    Poison,
    /// <summary>The version is that of the contents again: one below the grant that they were handed over for.</summary>
    LabelKept,
    /// <summary>The version is that of the contents, which came for a grant one above; the transaction ends.</summary>
    LabelGranted,
    /// <summary>From now on the page may be written without asking.</summary>
    BecomeOwner,
    /// <summary>What was thrown away reads zeros, whether or not the home has heard of it.</summary>
    KeepThrownAway,
    /// <summary>Give the home the copy that is here, or kept.</summary>
    SendRecalled,
    /// <summary>Tell the home that this node knows itself to be the owner.</summary>
    SendPromoted,
}
