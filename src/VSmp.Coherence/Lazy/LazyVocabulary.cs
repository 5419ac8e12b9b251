// SPDX-License-Identifier: Apache-2.0
namespace VSmp.Coherence.Lazy;

/// <summary>State of a page at a node under lazy release consistency. D: waits for data.</summary>
public enum LazyState : byte
{
    /// <summary>Nothing here.</summary>
    I,
    /// <summary>A clean copy, mapped write-protected.</summary>
    R,
    /// <summary>Written since it was last sent home; its twin is what it was before. Other nodes may have it so too.</summary>
    W,
    /// <summary>Asked to read.</summary>
    IR_D,
    /// <summary>Asked to read; a write notice came meanwhile, so what comes may be stale.</summary>
    IR_D_I,
    /// <summary>Asked to write.</summary>
    IW_D,
    /// <summary>Asked to write; a write notice came meanwhile, so what comes may be stale.</summary>
    IW_D_I,
}

/// <summary>What can happen to a page at a node.</summary>
public enum LazyEvent : byte
{
    /// <summary>A guest reads.</summary>
    Load,
    /// <summary>A guest writes.</summary>
    Store,
    /// <summary>The agent wants the frame.</summary>
    Evict,
    /// <summary>A guest acquires, and the page is among the write notices.</summary>
    Notice,
    /// <summary>A guest releases, and the page was written since the last release.</summary>
    Release,
    /// <summary>The home copy has come.</summary>
    Data,
}

/// <summary>What a node does about an event.</summary>
public enum LazyAction : byte
{
    /// <summary>The page is there with the right that is asked for: map it.</summary>
    Hit,
    /// <summary>Ask the home for its copy.</summary>
    SendGetS,
    /// <summary>Data into the frame, mapped write-protected; accesses that wait are tried again.</summary>
    InstallReadable,
    /// <summary>Data into the frame, not mapped yet.</summary>
    WriteFrame,
    /// <summary>Copy the frame to its twin (not at the home, whose frame is the home copy), and note the page for the next release.</summary>
    MakeTwin,
    /// <summary>Map writable what is in the frame; accesses that wait are tried again.</summary>
    MakeWritable,
    /// <summary>Take the right to write away from every local mapping.</summary>
    WriteProtect,
    /// <summary>Send the home what differs from the twin (nothing from the home itself), and drop the twin.</summary>
    SendDiff,
    /// <summary>Unmap everywhere and free the frame.</summary>
    Unmap,
}
