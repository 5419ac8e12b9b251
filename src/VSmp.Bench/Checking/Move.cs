// SPDX-License-Identifier: Apache-2.0
namespace VSmp.Bench.Checking;

/// <summary>What can happen next.</summary>
internal enum MoveKind : byte
{
    /// <summary>A thread writes what its mapping lets it write; nobody is told.</summary>
    WriteHit,
    /// <summary>A thread faults for reading; maybe late: the page may be there.</summary>
    ReadFault,
    /// <summary>A thread faults for writing.</summary>
    WriteFault,
    /// <summary>As <see cref="ReadFault"/>, and the next page is asked for in the same run.</summary>
    ReadFaultAhead,
    /// <summary>As <see cref="WriteFault"/>, and the next page is asked for in the same run.</summary>
    WriteFaultAhead,
    /// <summary>The agent wants the frame.</summary>
    Evict,
    /// <summary>The guest throws the page away.</summary>
    Discard,
    /// <summary>A hold ends: the thread that got the page had its chance.</summary>
    Unhold,
    /// <summary>A node is lost, and all that was in its memory.</summary>
    Crash,
    /// <summary>The node that made the region learns who is lost, and begins to lead the recovery.</summary>
    Learn,
    /// <summary>An agent is killed between two of its turns, and another adopts what it left.</summary>
    Restart,
    /// <summary>The node that made the region has home and mirror change places.</summary>
    MoveHome,
    /// <summary>The home copies a page to a mirror that is younger than it.</summary>
    CopyToMirror,
    /// <summary>A checkpoint begins: all nodes are told to prepare, and have.</summary>
    CheckpointBegin,
    /// <summary>A node hears what is to be done for a checkpoint, or has done it, or hears that it was given up.</summary>
    CheckpointStep,
    /// <summary>A node copies a page in passing.</summary>
    CheckpointCopy,
    /// <summary>All is copied, and the generation counts.</summary>
    CheckpointCommit,
    /// <summary>A checkpoint is given up: a node of it is lost, or the one that leads it.</summary>
    CheckpointGiveUp,
    /// <summary>The first message of a wire arrives.</summary>
    Deliver,
    /// <summary>As <see cref="Deliver"/>, and the receiver holds the page just then: some thread faulted late.</summary>
    DeliverHeld,
    /// <summary>As <see cref="Deliver"/>, but the kernel refuses to map what it grants.</summary>
    DeliverRefused,
    /// <summary>As <see cref="Deliver"/>, but of a run the first page only: it could as well have been two messages.</summary>
    DeliverFirst,
    /// <summary>As <see cref="DeliverFirst"/>, and the receiver holds that page just then.</summary>
    DeliverFirstHeld,
    /// <summary>A planted bug: the second message of a wire arrives first.</summary>
    DeliverSecond,
    /// <summary>A planted bug: the first message arrives, and stays on the wire.</summary>
    DeliverTwice,
    /// <summary>A planted bug: the first message is lost.</summary>
    Lose,
}

/// <summary>A transition: what happens, where.</summary>
/// <param name="Kind">What.</param>
/// <param name="Node">The node; of a delivery, the sender.</param>
/// <param name="Page">The page; of a delivery, the receiver.</param>
/// <param name="Mapping">The mapping; of a delivery, the virtual network.</param>
internal readonly record struct Move(MoveKind Kind, byte Node, byte Page, byte Mapping)
{
    /// <summary>The point of its turn at which the acting agent is killed; 0: it is not.</summary>
    public byte KillAt { get; init; }

    /// <summary>Whether it delivers a message.</summary>
    public bool IsDelivery => Kind >= MoveKind.Deliver;

    /// <summary>In 32 bits.</summary>
    public uint Packed => (uint)Kind | (uint)Node << 8 | (uint)Page << 12 | (uint)Mapping << 16 | (uint)KillAt << 24;

    /// <summary>Out of 32 bits.</summary>
    public static Move Unpack(uint packed) =>
        new((MoveKind)(byte)packed, (byte)(packed >> 8 & 15), (byte)(packed >> 12 & 15), (byte)(packed >> 16 & 15)) { KillAt = (byte)(packed >> 24) };

    /// <summary>The same with the nodes renamed.</summary>
    public Move Rename(ReadOnlySpan<byte> names) =>
        IsDelivery ? this with { Node = names[Node], Page = names[Page] } : this with { Node = names[Node] };
}
