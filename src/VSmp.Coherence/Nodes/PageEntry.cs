// SPDX-License-Identifier: Apache-2.0
using VSmp.Coherence.Protocols;

namespace VSmp.Coherence.Nodes;

/// <summary>
/// A page at a node, in 8 bytes: <code>state 8 │ flags 8 │ transaction slot 16 │ version 32</code>
/// </summary>
public struct PageEntry
{
    /// <summary>Its state.</summary>
    public NodeState State;

    /// <summary>What else is known of it.</summary>
    public PageFlags Flags;

    /// <summary>Its open transaction, or 0.</summary>
    public ushort Slot;

    /// <summary>Version of the contents here, or of the copy that is kept.</summary>
    public PageVersion Version;
}

/// <summary>What a node knows of a page beside its state.</summary>
[Flags]
public enum PageFlags : byte
{
    /// <summary>Nothing.</summary>
    None = 0,
    /// <summary>A local frame is taken out of the budget for it.</summary>
    HasFrame = 1,
    /// <summary>Just granted: must stay until the thread that faulted could use it.</summary>
    Held = 2,
    /// <summary>This node was granted writing since the page was last thrown away: it may be other than zero.</summary>
    MayBeWritten = 4,
    /// <summary>The copy that is kept is zeros.</summary>
    KeptZero = 8,
    /// <summary>Accesses to it wait in the pager.</summary>
    Awaited = 16,
    /// <summary>In F: it was being thrown away, and reads zeros.</summary>
    ThrownAway = 32,
}
