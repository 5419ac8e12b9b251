// SPDX-License-Identifier: Apache-2.0
namespace VSmp.Coherence.Messages;

/// <summary>
/// A coherence message as the protocol sees it. One message about <see cref="Count"/> pages means the same as that many messages
/// about one page each, in ascending order: runs save frames, they add nothing to the protocol.
/// </summary>
public struct Message
{
    /// <summary>What it is.</summary>
    public MessageType Type;
    /// <summary>Qualifies the type.</summary>
    public MessageFlags Flags;
    /// <summary>Who sent it.</summary>
    public NodeId Source;
    /// <summary>The node whose access this serves.</summary>
    public NodeId Requestor;
    /// <summary>DataM: InvAcks to be collected by the requestor.</summary>
    public ushort AckCount;
    /// <summary>The requestor's transaction.</summary>
    public uint Transaction;
    /// <summary>Pages, from <see cref="Page"/> on.</summary>
    public uint Count;
    /// <summary>The region.</summary>
    public RegionId Region;
    /// <summary>The first page.</summary>
    public PageNumber Page;
    /// <summary>Version of the contents, or of the grant.</summary>
    public PageVersion Version;
    /// <summary>The generation of the region's directories that it belongs to; of another, it is dropped.</summary>
    public Generation Generation;

    /// <inheritdoc/>
    public override readonly string ToString() =>
        $"{Type}{(Flags == 0 ? "" : $"[{Flags}]")} {Page}+{Count} of {Region} from {Source} for {Requestor} v{Version.Value}";
}
