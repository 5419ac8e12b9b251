// SPDX-License-Identifier: Apache-2.0
namespace VSmp.Coherence.Messages;

/// <summary>What a frame is. Values are on the wire: never renumber, only append (a golden test freezes them).</summary>
public enum MessageType : byte
{
    /// <summary>Not a message.</summary>
    None = 0,

    // Coherence, requests: from a node to the home of the pages.

    /// <summary>Asks for pages to read.</summary>
    GetS = 1,
    /// <summary>Asks for pages to write.</summary>
    GetM = 2,
    /// <summary>Asks to write pages that the requestor can read.</summary>
    Upgrade = 3,
    /// <summary>Gives a written page back, with its contents (or <see cref="MessageFlags.Zero"/>).</summary>
    PutM = 4,
    /// <summary>Throws pages away that the sender does not own: they read zeros from now on.</summary>
    PutZ = 5,
    /// <summary>Gives an exclusive page back that was not written: the home has the contents.</summary>
    PutE = 6,
    /// <summary>Gives a page back that others may read on, with its contents (or <see cref="MessageFlags.Zero"/>).</summary>
    PutO = 7,
    /// <summary>What the sender changed in a page, to be merged into the home copy (<see cref="Lazy.PageDiff"/>).</summary>
    Diff = 8,
    /// <summary>From a home to the mirror: what is written home, with its contents (or <see cref="MessageFlags.Zero"/>).</summary>
    MirrorPut = 9,

    // Coherence, forwards: from the home to a node that has a copy.

    /// <summary>Asks the owner to send its copy to the requestor and to the home, and to keep a read copy.</summary>
    FwdGetS = 16,
    /// <summary>Asks the owner to hand the page over to the requestor.</summary>
    FwdGetM = 17,
    /// <summary>Asks a sharer to give up its copy and to tell the requestor so.</summary>
    Inv = 18,
    /// <summary>The home has taken a PutM or PutZ, or had no use for it. It travels behind the forwards that the home sent to the
    /// same node before, so that whoever gets it has been asked for everything that it was still owner of.</summary>
    PutAck = 19,
    /// <summary>The home has the data that the former owner sent it after a FwdGetS: the copy there is not the last one any more. It travels
    /// with the forwards, so that no Inv overtakes it.</summary>
    WritebackAck = 20,
    /// <summary>Grants writing to a node that owns the page, once the InvAcks that the header counts have come. It travels with the
    /// forwards, so that the owner has answered all readers that asked before.</summary>
    OwnerGrant = 21,
    /// <summary>Grants writing to the only node that has a copy. The home has noted it as the owner already and waits for no InstallAck: what
    /// it asks of that node next travels behind this.</summary>
    SoleGrant = 22,
    /// <summary>While directories are rebuilt: the home has no valid copy, and asks for the one that the receiver has.</summary>
    Recall = 23,
    /// <summary>While directories are rebuilt: the receiver has the only copy that is left, and owns the page from now on.</summary>
    Promote = 24,

    // Coherence, responses: always taken, never wait for anything.

    /// <summary>A grant to read; with the contents, or <see cref="MessageFlags.Zero"/>.</summary>
    DataS = 32,
    /// <summary>A grant to write, once the InvAcks that the header counts have come; with the contents,
    /// <see cref="MessageFlags.Zero"/>, or <see cref="MessageFlags.NoData"/> for an upgrade.</summary>
    DataM = 33,
    /// <summary>A sharer has given up its copy.</summary>
    InvAck = 34,
    /// <summary>The data of that version is installed: for the home, and for the former owner if the data came from there
    /// (<see cref="MessageFlags.FromOwner"/>), who may drop the copy that it kept.</summary>
    InstallAck = 35,
    /// <summary>The request came to the wrong home, in a wrong view, or cannot be granted; the sender decides again.</summary>
    Nack = 37,
    /// <summary>The owner's data for the home after a FwdGetS; with the contents, <see cref="MessageFlags.Zero"/>, or
    /// <see cref="MessageFlags.NoData"/> where the home is the reader: it has put the DataS that came before this into its frame.</summary>
    Writeback = 38,
    /// <summary>A grant to read, and to write without asking; with the contents, or <see cref="MessageFlags.Zero"/>. It travels with the
    /// forwards, and nobody waits for an InstallAck: what the home asks of the new owner next comes behind it.</summary>
    DataE = 39,
    /// <summary>The owner's word for the home after a FwdGetS: it has not written, the home's contents are right.</summary>
    WritebackClean = 40,
    /// <summary>The home has merged a Diff.</summary>
    DiffAck = 41,
    /// <summary>The mirror has what the home sent it.</summary>
    MirrorAck = 42,
    /// <summary>The page was lost with the nodes that had copies of it: who touches it is to know.</summary>
    Poisoned = 43,
    /// <summary>The answer to a Recall; with the contents, <see cref="MessageFlags.Zero"/>, or <see cref="MessageFlags.NoData"/> where the
    /// home itself had the copy. And the answer to a Promote, with <see cref="MessageFlags.NoData"/>.</summary>
    Recalled = 44,

    // Capacity and regions: between agents, off the fault path.

    /// <summary>Asks a node to become home of extents of a region.</summary>
    ReserveExtents = 64,
    /// <summary>The answer: how many were taken, what is left, who holds the rest.</summary>
    ReserveReply = 65,
    /// <summary>Gives extents back to their home, contents and all.</summary>
    ReleaseExtents = 66,
    /// <summary>The region is gone: its home drops everything of it.</summary>
    DropRegion = 67,
    /// <summary>The home has dropped everything of the region.</summary>
    DropRegionAck = 68,

    // Jobs: programs whose ranks run on several nodes. Between the job's leader and the nodes of its ranks, off the fault path.

    /// <summary>A rank calls: to the leader.</summary>
    JobCall = 72,
    /// <summary>The leader's answer to a call.</summary>
    JobReply = 73,
    /// <summary>A rank has ended: to the leader.</summary>
    JobRankGone = 74,
    /// <summary>A region of a job is made: the leader tells where its homes are.</summary>
    JobAttach = 75,
    /// <summary>The node has made it, or has no room: to the leader.</summary>
    JobAttachReply = 76,
    /// <summary>No rank has the region any more: drop it.</summary>
    JobDetach = 77,
    /// <summary>The job has failed: its ranks are to be ended.</summary>
    JobAbort = 78,
    /// <summary>Which pages ranks of a node have written and released: to the leader, before the call that releases.</summary>
    JobWrites = 79,

    // Membership.

    /// <summary>A node's load and capacity, told to every peer now and then.</summary>
    NodeReport = 80,
    /// <summary>The membership's record, as the sender has it; argument 0: its revision.</summary>
    ViewChange = 81,
    /// <summary>The sender cannot go on with the node that the requestor field names: nobody is to hear that one any more.</summary>
    Leave = 82,
    /// <summary>Asks for the membership's record, which comes as a ViewChange.</summary>
    AskView = 83,
    /// <summary>To the coordinator: a view to put in place of the record whose revision argument 0 has. Answered with a ViewChange.</summary>
    ProposeView = 84,
    /// <summary>A command's question to another node, or what it is to do; the answer is a <see cref="NodeAnswer"/>.</summary>
    NodeAsk = 85,
    /// <summary>A piece of the answer to a NodeAsk.</summary>
    NodeAnswer = 86,

    // Jobs: ranks that the leader has started on other hosts.

    /// <summary>The leader has a node start ranks: payload, what and as whom.</summary>
    JobStart = 88,
    /// <summary>What a rank printed, or how it ended: to the leader.</summary>
    JobOutput = 89,
    /// <summary>The leader has passed on what a rank printed: more may come.</summary>
    JobOutputAck = 90,
    /// <summary>A signal for the ranks that a node has started.</summary>
    JobSignal = 91,
    /// <summary>Write notices: which pages others have written, to a node before the answer to the call that acquires.</summary>
    JobNotices = 92,
    /// <summary>What a rank that a node has started is to read on its standard input; no payload: nothing more.</summary>
    JobInput = 93,
    /// <summary>That rank has taken it: more may come.</summary>
    JobInputAck = 94,

    // Recovery of a region, led by the node that made it.

    /// <summary>The region's directories are to be rebuilt: nothing of the generation before counts any more.</summary>
    RegionFreeze = 96,
    /// <summary>Done: to the leader.</summary>
    RegionFrozen = 97,
    /// <summary>To a user that does not lead: all have frozen, it is to tell the homes what it has.</summary>
    RegionRebuild = 98,
    /// <summary>What a node has of pages: to their homes.</summary>
    RegionClaims = 99,
    /// <summary>A home's directory is there again; with the pages that are lost: to the leader.</summary>
    RegionRebuilt = 100,
    /// <summary>All directories are there: on with it.</summary>
    RegionThaw = 101,
    /// <summary>To a home: where extents are mirrored from now on, or are to be.</summary>
    RegionMirror = 102,
    /// <summary>The mirror has all of these extents, or the former one nothing more to do with them: to the leader.</summary>
    RegionMirrored = 103,
    /// <summary>Which regions of the receiver's making the sender has, after one of the two agents was started again.</summary>
    RegionsHeld = 104,

    // Checkpoints, led by the node that leads what they are taken of.

    /// <summary>The leader has a node do a step of a checkpoint; with the first, what it is of.</summary>
    CheckpointOrder = 112,
    /// <summary>The node has done it, or cannot: to the leader.</summary>
    CheckpointDone = 113,
    /// <summary>A node is to fill its part of a region that was just made with what a generation has.</summary>
    CheckpointLoad = 114,
    /// <summary>It has, or cannot: to the leader.</summary>
    CheckpointLoaded = 115,

    // The session itself; never seen above the fabric.

    /// <summary>Carries nothing but the cumulative acknowledgement.</summary>
    SessionAck = 128,
    /// <summary>Ends a session on purpose: what is unacknowledged will not be asked for again.</summary>
    SessionClose = 129,
}

/// <summary>Bits that qualify a message. Values are on the wire.</summary>
[Flags]
public enum MessageFlags : byte
{
    /// <summary>Nothing special.</summary>
    None = 0,
    /// <summary>The pages' contents are zeros and do not travel.</summary>
    Zero = 1,
    /// <summary>The receiver has the contents already (an upgrade; a home that has just read the page).</summary>
    NoData = 2,
    /// <summary>Read ahead of need: nobody waits for these pages.</summary>
    Prefetch = 4,
    /// <summary>DataM: it comes from the former owner, not from the home copy. InstallAck: it is for the former owner.</summary>
    FromOwner = 8,
}

/// <summary>The virtual network of a message: frames are ordered within each, and responses never wait for the other two.</summary>
public enum VirtualNetwork : byte
{
    /// <summary>Node to home.</summary>
    Request = 0,
    /// <summary>Home to the nodes that have copies.</summary>
    Forward = 1,
    /// <summary>Grants, data and acknowledgements.</summary>
    Response = 2,
}

/// <summary>What follows from a message's type.</summary>
public static class MessageTypes
{
    /// <summary>Whether messages of this type keep pages coherent.</summary>
    public static bool IsCoherence(MessageType type) => type is > MessageType.None and < MessageType.ReserveExtents;

    /// <summary>The virtual network that messages of this type travel on.</summary>
    public static VirtualNetwork NetworkOf(MessageType type) => (byte)type switch
    {
        >= 16 and < 32 or (byte)MessageType.DataE => VirtualNetwork.Forward,
        >= 32 and < 64 => VirtualNetwork.Response,
        (byte)MessageType.ReserveReply or (byte)MessageType.DropRegionAck or (byte)MessageType.JobReply or (byte)MessageType.JobAttachReply
            or (byte)MessageType.JobNotices => VirtualNetwork.Response,
        _ => VirtualNetwork.Request,
    };
}
