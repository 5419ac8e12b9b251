// SPDX-License-Identifier: Apache-2.0
using System.Runtime.InteropServices;
using VSmp.Coherence;

namespace VSmp.Agent.Guests;

/// <summary>What a node tells its peers several times a second: the payload of a NodeReport, all 64-bit, little-endian.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct NodeReport
{
    public const int Bytes = 8 * sizeof(ulong);

    public ulong ContributedBytes, HomeBytes, CacheBytes, PrivateBytes, UsedBytes, Guests, MilliFaultsPerSecond, IsDraining;

    /// <summary>What is neither home nor cache.</summary>
    public readonly ulong FreeBytes => ContributedBytes - HomeBytes - CacheBytes;
}

/// <summary>The other nodes: who is up, and how much room each has by its last word. Owned by the reactor.</summary>
internal sealed class Peers
{
    private readonly SortedDictionary<ushort, Peer> _peers = [];

    /// <summary>All that were met, by number.</summary>
    public IEnumerable<Peer> All => _peers.Values;

    /// <summary>One more than the highest number met.</summary>
    public int NodeLimit { get; private set; } = 1;

    /// <summary>A node is a member.</summary>
    public Peer Add(NodeId node, string name, string address)
    {
        NodeLimit = Math.Max(NodeLimit, node.Value + 1);
        if (_peers.TryGetValue(node.Value, out Peer? peer)) return peer;
        _peers.Add(node.Value, peer = new Peer(node, name, address));
        return peer;
    }

    /// <summary>The peer of that number, or null.</summary>
    public Peer? Find(NodeId node) => _peers.GetValueOrDefault(node.Value);

    /// <summary>Forgets a node that left.</summary>
    public void Remove(NodeId node) => _peers.Remove(node.Value);

    /// <summary>Its name, or its number.</summary>
    public string NameOf(NodeId node) => Find(node)?.Name ?? node.ToString();

    /// <summary>Whether a session to it stands.</summary>
    public bool IsUp(NodeId node) => Find(node) is { IsUp: true };

    /// <summary>The peer with the greatest part of its memory free, other than those that said that they are full; none if there is none.</summary>
    /// <param name="except">Peers that are full by their own word.</param>
    /// <param name="ask">Also peers that seem full by their last report: it may be old.</param>
    /// <param name="otherThan">One more that it is not to be.</param>
    /// <remarks>A node that is being emptied is none.</remarks>
    public NodeId Roomiest(HashSet<NodeId> except, bool ask, NodeId otherThan)
    {
        Peer? best = null;
        foreach (Peer peer in _peers.Values)
        {
            if (!peer.IsUp || peer.IsDraining || (peer.FreeExtents <= 0 && !ask) || peer.Node == otherThan || except.Contains(peer.Node)) continue;
            if (best is null || peer.FreeFraction > best.FreeFraction) best = peer;
        }
        return best?.Node ?? NodeId.None;
    }

    /// <summary>Counts extents asked for (or, negative, given back) until the peer's next word.</summary>
    public void Take(NodeId node, int extents)
    {
        if (Find(node) is { } peer) peer.FreeExtents -= extents;
    }

    /// <summary>The peer's own word on what it has left.</summary>
    public void SetFree(NodeId node, uint extents)
    {
        if (Find(node) is { } peer) peer.FreeExtents = extents;
    }
}

/// <summary>Another node.</summary>
internal sealed class Peer(NodeId node, string name, string address)
{
    public NodeId Node { get; } = node;
    public string Name { get; } = name;
    public string Address { get; } = address;
    public bool IsUp { get; set; }
    /// <summary>Whether there is a session with it, whatever may be asked of it yet.</summary>
    public bool IsConnected { get; set; }

    /// <summary>Whether its agent, or this one, was started again, and it has not said yet what it has: until then it is not up.</summary>
    public bool IsReturning { get; private set; }

    public NodeReport Report { get; private set; }

    /// <summary>Whether it has said how much room it has since it was met, or was started again.</summary>
    public bool HasReported => Report.ContributedBytes > 0;

    /// <summary>Whether it is being emptied, to leave: it gets nothing new.</summary>
    public bool IsDraining { get; set; }

    /// <summary>Extents free, as far as known.</summary>
    public long FreeExtents { get; set; }

    /// <summary>Of its memory, the part that is free.</summary>
    public double FreeFraction => Report.ContributedBytes == 0 ? 0 : FreeExtents * (double)ExtentNumber.Bytes / Report.ContributedBytes;

    /// <summary>Its agent, or this one, is another one: nothing is to be asked of it until it has said what it has.</summary>
    public void OnRestarted()
    {
        IsReturning = true;
        IsUp = false;
        Report = default;
        FreeExtents = 0;
    }

    /// <summary>It has said what it has.</summary>
    public void OnReturned()
    {
        IsReturning = false;
        IsUp = IsConnected;
    }

    /// <summary>Takes its report.</summary>
    public void OnReport(in NodeReport report)
    {
        if (report.HomeBytes + report.CacheBytes > report.ContributedBytes) return; // nonsense: keep what is known
        Report = report;
        IsDraining = report.IsDraining != 0;
        FreeExtents = (long)(report.FreeBytes / ExtentNumber.Bytes);
    }
}
