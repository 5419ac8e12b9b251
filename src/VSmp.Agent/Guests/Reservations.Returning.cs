// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent.Recovery;
using VSmp.Coherence;
using VSmp.Coherence.Messages;

namespace VSmp.Agent.Guests;

/// <content>What is asked of agents that are started again: of their answers none counts, and what they have in vain they are told to let go.</content>
internal sealed partial class Reservations
{
    /// <summary>The agent of a peer is another one: what was asked of the last is asked anew, of it or of others. What they had granted, and nobody uses yet, is void.</summary>
    public void OnPeerRestarted(NodeId peer)
    {
        foreach ((ulong id, (RegionId _, NodeId _, Action<bool> done)) in _lateMirrors.Where(p => p.Value.To == peer).ToArray())
        {
            if (_lateMirrors.Remove(id)) done(false);
        }
        var anew = new HashSet<Pending>();
        foreach ((ulong id, Pending part) in _pending.Where(p => Concerns(p.Value.At, peer)).ToArray())
        {
            if (part.To != peer)
            {
                part.IsVoid = true; // when it has answered
                continue;
            }
            _pending.Remove(id);
            if (part.IsMirrorGranted && part.At.Mirror != peer) SendRelease(part.At.Mirror, part.Guest.Region.Id, part.Wanted.Peek(), (uint)part.Wanted.Count);
            foreach (ExtentNumber extent in part.Wanted) part.Parent!.Wanted.Enqueue(extent);
            if (--part.Parent!.Outstanding == 0) anew.Add(part.Parent);
        }
        foreach (Pending request in Requests.Union(anew).ToArray())
        {
            foreach ((ExtentNumber Extent, Placement At) granted in request.Granted.Where(g => Concerns(g.At, peer)).ToArray())
            {
                request.Granted.Remove(granted);
                request.Wanted.Enqueue(granted.Extent);
                NodeId other = granted.At.Home == peer ? granted.At.Mirror : granted.At.Home;
                if (!other.IsNone) SendRelease(other, request.Guest.Region.Id, granted.Extent, 1);
            }
            if (request.Wanted.Count > 0 && _awaitFrames.Remove(request)) anew.Add(request);
        }
        foreach (Pending request in anew) Place(request);
    }

    /// <summary>A node that was coming back is there, or is lost: who waited for its room looks again.</summary>
    public void OnPeerReturned()
    {
        Pending[] waiting = [.. _awaitRecovery];
        _awaitRecovery.Clear();
        foreach (Pending request in waiting) Place(request);
    }

    /// <summary>Has a node let go of what it has of a region, and is not known here to have: words about it were lost.</summary>
    public void ReleaseUnplaced(LedRegion region, NodeId node)
    {
        for (uint e = 0; e < region.ExtentCount;)
        {
            uint count = 0;
            while (e + count < region.ExtentCount && !IsPlacedAt(region, new ExtentNumber(e + count), node)) count++;
            if (count > 0 && node == self) Release(region.Id, new ExtentNumber(e), count);
            else if (count > 0) Send(node, new FrameHeader { Type = MessageType.ReleaseExtents, Region = region.Id, Page = new ExtentNumber(e).FirstPage, Count = count }, []);
            e += Math.Max(count, 1);
        }
    }

    /// <summary>Has a node drop a region that is gone.</summary>
    public void DropAt(NodeId node, RegionId region) => Send(node, new FrameHeader { Type = MessageType.DropRegion, Region = region }, []);

    private static bool IsPlacedAt(LedRegion region, ExtentNumber extent, NodeId node) => region.Homes.HomeOf(extent) == node || region.Homes.MirrorOf(extent) == node;

    private static bool Concerns(Placement at, NodeId node) => at.Home == node || at.Mirror == node;
}
