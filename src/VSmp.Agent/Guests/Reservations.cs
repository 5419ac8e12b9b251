// SPDX-License-Identifier: Apache-2.0
using System.Text;
using VSmp.Agent.Fabric;
using VSmp.Agent.Paging;
using VSmp.Coherence;
using VSmp.Coherence.Messages;
using VSmp.Coherence.Placement;
using VSmp.Coherence.Protocols;

namespace VSmp.Agent.Guests;

/// <summary>
/// Admission: finds homes for the extents that guests of this node reserve, and gives home to extents of others. The peers first, each time
/// the one with the most room left: local frames then hold whatever of all that is in use. A home here holds its own pages only, in use or
/// not; so only what finds no place elsewhere has its home here, as far as the run's budget allows. Owned by the reactor.
/// </summary>
internal sealed class Reservations(NodeId self, Pager pager, IFabric fabric, Capacity capacity, Peers peers, string framesFolder)
{
    /// <summary>How often what a peer refused is planned anew with what it says to have left.</summary>
    private const int MaxRounds = 4;

    private readonly Dictionary<ulong, Pending> _pending = [];
    private readonly List<Pending> _awaitFrames = [];
    private ulong _lastRequest;

    /// <summary>Reserves extents of a guest's region: all of them or none. Those that are reserved already count as such.</summary>
    /// <param name="guest">For whom.</param>
    /// <param name="first">The first extent.</param>
    /// <param name="count">How many.</param>
    /// <param name="done">Gets null, or why not: who holds what.</param>
    public void Reserve(Guest guest, ExtentNumber first, uint count, Action<string?> done)
    {
        var request = new Pending(guest, done);
        for (uint e = 0; e < count; e++)
        {
            ExtentNumber extent = new(first.Value + e);
            if (!guest.Region.Layout.IsOpen(extent)) request.Wanted.Enqueue(extent);
        }
        Place(request);
    }

    /// <summary>Gives extents back. Their pages have been dropped here.</summary>
    public void Release(Guest guest, ExtentNumber first, uint count)
    {
        for (uint e = 0; e < count; e++)
        {
            ExtentNumber extent = new(first.Value + e);
            if (!guest.Region.Layout.IsOpen(extent)) continue;
            guest.Region.Close(extent);
            guest.ReservedExtents--;
            GiveBack(guest, extent, guest.Region.Layout.Homes!.HomeOf(extent));
        }
    }

    /// <summary>The guest is gone: its region is dropped everywhere.</summary>
    public void Drop(Guest guest)
    {
        RegionLayout layout = guest.Region.Layout;
        var homes = new HashSet<NodeId>();
        for (uint e = 0; e < layout.ExtentCount; e++)
        {
            ExtentNumber extent = new(e);
            NodeId home = layout.Homes!.HomeOf(extent);
            if (home.IsNone) continue;
            if (home == self)
            {
                capacity.CacheToHome(-1);
                guest.Run.AddLocalHomes(-1);
            }
            else
            {
                homes.Add(home);
            }
            guest.Run.Counters.AddHome(home, -1);
            layout.Homes.Place(extent, NodeId.None);
        }
        // Where a reservation is still under way, extents may be granted that nobody will use: those homes are told as well.
        foreach (Pending request in _pending.Values.Select(p => p.Parent!).Concat(_awaitFrames).Where(p => p.Guest == guest).Distinct().ToArray())
        {
            homes.UnionWith(request.Asked);
            foreach ((ExtentNumber _, NodeId home) in request.Granted)
            {
                if (home != self) continue;
                capacity.CacheToHome(-1);
                guest.Run.AddLocalHomes(-1);
            }
            request.Granted.Clear();
        }
        _awaitFrames.RemoveAll(p => p.Guest == guest);
        guest.ReservedExtents = 0;
        pager.Remove(guest.Region);
        foreach (NodeId home in homes)
        {
            if (peers.IsUp(home)) Send(home, new FrameHeader { Type = MessageType.DropRegion, Region = layout.Id }, []);
        }
    }

    /// <summary>A peer asks, or answers.</summary>
    public void OnFrame(NodeId peer, in FrameHeader header, ReadOnlySpan<byte> payload)
    {
        switch (header.Type)
        {
            case MessageType.ReserveExtents:
                OnReserve(peer, in header, payload);
                break;
            case MessageType.ReserveReply:
                OnReply(peer, in header, payload);
                break;
            case MessageType.ReleaseExtents:
                OnRelease(in header);
                break;
            case MessageType.DropRegion:
                if (pager.Find(header.Region) is { Run: null } region) DropHomes(region);
                break;
        }
    }

    /// <summary>Ends requests that waited for frames. To be called when the pager says that it has got further.</summary>
    public void Continue()
    {
        for (int i = _awaitFrames.Count - 1; i >= 0; i--)
        {
            Pending request = _awaitFrames[i];
            if (MustAwaitFrames(request)) continue;
            _awaitFrames.RemoveAt(i);
            Succeed(request);
        }
    }

    /// <summary>A peer is lost: what it made is dropped here; what waits for it is answered.</summary>
    public void OnPeerLost(NodeId peer)
    {
        foreach (PagedRegion region in pager.Regions.Where(r => r.Run is null && r.Id.Creator == peer).ToArray()) DropHomes(region);
        foreach ((ulong id, Pending request) in _pending.Where(p => p.Value.To == peer).ToArray())
        {
            _pending.Remove(id);
            request.Parent!.Refused.AppendLine($"{peer} is lost");
            foreach (ExtentNumber extent in request.Wanted) request.Parent.Wanted.Enqueue(extent);
            if (--request.Parent.Outstanding == 0) Place(request.Parent);
        }
    }

    /// <summary>Who holds this node's memory, for messages: one line.</summary>
    public string Holders()
    {
        var text = new StringBuilder();
        text.Append(peers.NameOf(self)).Append(": ").Append(Megabytes(capacity.ContributedBytes)).Append(" MiB contributed, ")
            .Append(Megabytes(capacity.FreeBytes)).Append(" free");
        foreach (PagedRegion region in pager.Regions.OrderByDescending(r => r.Layout.HomeExtentCount).Take(3))
        {
            if (region.Layout.HomeExtentCount == 0) continue;
            text.Append(", ").Append(region.Layout.Name).Append(" holds ").Append(Megabytes((ulong)region.Layout.HomeExtentCount * ExtentNumber.Bytes));
        }
        if (capacity.CacheBytes > 0) text.Append(", ").Append(Megabytes(capacity.CacheBytes)).Append(" set aside for copies");
        return text.ToString();
    }

    private static ulong Megabytes(ulong bytes) => bytes >> 20;

    /// <summary>Gives what is wanted to homes, and asks them; ends the request when nothing is wanted or nobody has room.</summary>
    private void Place(Pending request)
    {
        Guest guest = request.Guest;
        Run run = guest.Run;
        if (pager.Find(guest.Region.Id) != guest.Region) return; // it died meanwhile
        request.Rounds++;
        var plan = new Dictionary<NodeId, List<ExtentNumber>>();
        while (request.Wanted.Count > 0 && peers.Roomiest(request.Full, ask: false) is { IsNone: false } home) PlanOne(request, home, plan);
        while (request.Wanted.Count > 0 && run.LocalHomeExtentsLeft > 0)
        {
            ExtentNumber extent = request.Wanted.Dequeue();
            capacity.CacheToHome(1);
            run.AddLocalHomes(1);
            guest.Region.Layout.BecomeHome(extent);
            request.Granted.Add((extent, self));
        }
        if (request.Wanted.Count > 0 && plan.Count == 0 && peers.Roomiest(request.Full, ask: true) is { IsNone: false } asked) PlanOne(request, asked, plan);
        if (request.Wanted.Count > 0 && plan.Count == 0)
        {
            Fail(request);
            return;
        }
        // What found no place now may find one when the answers say how much room there really is.
        foreach ((NodeId home, List<ExtentNumber> extents) in plan) Ask(request, home, extents);
        if (request.Outstanding == 0) Succeed(request);
    }

    private void PlanOne(Pending request, NodeId home, Dictionary<NodeId, List<ExtentNumber>> plan)
    {
        peers.Take(home, 1);
        if (!plan.TryGetValue(home, out List<ExtentNumber>? extents)) plan.Add(home, extents = []);
        extents.Add(request.Wanted.Dequeue());
    }

    private void Ask(Pending parent, NodeId home, List<ExtentNumber> extents)
    {
        RegionLayout layout = parent.Guest.Region.Layout;
        byte[] name = Encoding.UTF8.GetBytes(layout.Name);
        parent.Asked.Add(home);
        for (int i = 0; i < extents.Count;)
        {
            int run = 1;
            while (i + run < extents.Count && extents[i + run].Value == extents[i].Value + run) run++;
            var part = new Pending(parent.Guest, parent.Done) { Parent = parent, To = home };
            for (int j = 0; j < run; j++) part.Wanted.Enqueue(extents[i + j]);
            parent.Outstanding++;
            _pending.Add(++_lastRequest, part);
            Send(home, new FrameHeader
            {
                Type = MessageType.ReserveExtents,
                Region = layout.Id,
                Page = extents[i].FirstPage,
                Count = (uint)run,
                Argument0 = _lastRequest,
                Argument1 = (ulong)layout.ExtentCount,
            }, name);
            i += run;
        }
    }

    private void OnReply(NodeId peer, in FrameHeader header, ReadOnlySpan<byte> payload)
    {
        if (!_pending.Remove(header.Argument0, out Pending? part) || part.To != peer) return;
        Pending parent = part.Parent!;
        peers.SetFree(peer, (uint)header.Argument1);
        bool granted = header.Count > 0;
        if (!granted)
        {
            // It says how much it does have: asked for that, it may say yes.
            if (header.Argument1 == 0 || parent.Rounds >= MaxRounds) parent.Full.Add(peer);
            if (parent.Full.Contains(peer)) parent.Refused.Append("; ").Append(Encoding.UTF8.GetString(payload));
        }
        foreach (ExtentNumber extent in part.Wanted)
        {
            if (granted) parent.Granted.Add((extent, peer));
            else parent.Wanted.Enqueue(extent);
        }
        if (--parent.Outstanding > 0) return;
        if (parent.Wanted.Count > 0) Place(parent);
        else Succeed(parent);
    }

    private void Succeed(Pending request)
    {
        Guest guest = request.Guest;
        if (pager.Find(guest.Region.Id) != guest.Region) return; // it died meanwhile
        if (MustAwaitFrames(request))
        {
            _awaitFrames.Add(request);
            return;
        }
        foreach ((ExtentNumber extent, NodeId home) in request.Granted)
        {
            guest.Region.Layout.Homes!.Place(extent, home);
            guest.Region.Open(extent);
            guest.ReservedExtents++;
            guest.Run.Counters.AddHome(home, 1);
        }
        request.Done(null);
    }

    /// <summary>Whether homes were granted here in frames that still have copies in them: these are on their way out.</summary>
    private bool MustAwaitFrames(Pending request) => request.Guest.Run.Budget.FreePages < 0 && request.Granted.Exists(granted => granted.Home == self);

    private void Fail(Pending request)
    {
        Guest guest = request.Guest;
        if (pager.Find(guest.Region.Id) != guest.Region) return;
        string who = $"{Holders()}{request.Refused}";
        uint wanted = (uint)(request.Wanted.Count + request.Granted.Count);
        foreach ((ExtentNumber extent, NodeId home) in request.Granted) GiveBackUncounted(guest, extent, home);
        request.Done($"the pool is exhausted: {Megabytes(wanted * (ulong)ExtentNumber.Bytes)} MiB were asked for by process {guest.ProcessId} ({who})");
    }

    private void GiveBack(Guest guest, ExtentNumber extent, NodeId home)
    {
        guest.Region.Layout.Homes!.Place(extent, NodeId.None);
        guest.Run.Counters.AddHome(home, -1);
        GiveBackUncounted(guest, extent, home);
    }

    private void GiveBackUncounted(Guest guest, ExtentNumber extent, NodeId home)
    {
        PagedRegion region = guest.Region;
        if (home == self)
        {
            region.Layout.ResignHome(extent);
            region.Frames.Punch(extent.FirstPage, ExtentNumber.Pages);
            capacity.CacheToHome(-1);
            guest.Run.AddLocalHomes(-1);
            return;
        }
        Send(home, new FrameHeader { Type = MessageType.ReleaseExtents, Region = region.Id, Page = extent.FirstPage, Count = 1 }, []);
        peers.Take(home, -1);
    }

    private void OnReserve(NodeId peer, in FrameHeader header, ReadOnlySpan<byte> payload)
    {
        ExtentNumber first = header.Page.Extent;
        bool isSound = header.Region.Creator == peer && header.Argument1 <= int.MaxValue / 2 && header.Count > 0
            && first.Value + (ulong)header.Count <= header.Argument1;
        if (!isSound) throw new ProtocolViolationException($"{peer} asks for extents {first.Value}+{header.Count} of {header.Region}, of {header.Argument1}");
        uint granted = 0;
        if (capacity.TryAddHome(header.Count))
        {
            PagedRegion? region = pager.Find(header.Region);
            if (region is null)
            {
                int extents = (int)header.Argument1;
                string name = Encoding.UTF8.GetString(payload[..Math.Min(payload.Length, 128)]);
                FrameFile frames = FrameFile.Create(framesFolder, header.Region, (ulong)extents * ExtentNumber.Bytes);
                region = pager.Add(new Region(header.Region, name, extents, Msi.Protocol, homes: null, budget: null), frames, run: null);
            }
            for (uint e = 0; e < header.Count; e++)
            {
                if (!region.Layout.BecomeHome(new ExtentNumber(first.Value + e))) capacity.RemoveHome(1); // asked twice
            }
            granted = header.Count;
        }
        Send(peer, new FrameHeader
        {
            Type = MessageType.ReserveReply,
            Region = header.Region,
            Page = header.Page,
            Count = granted,
            Argument0 = header.Argument0,
            Argument1 = capacity.FreeExtents,
        }, granted > 0 ? [] : Encoding.UTF8.GetBytes(Holders()));
    }

    private void OnRelease(in FrameHeader header)
    {
        if (pager.Find(header.Region) is not { Run: null } region) return;
        ExtentNumber first = header.Page.Extent;
        for (uint e = 0; e < header.Count; e++)
        {
            ExtentNumber extent = new(first.Value + e);
            if (!region.Layout.ResignHome(extent)) continue;
            region.Frames.Punch(extent.FirstPage, ExtentNumber.Pages);
            capacity.RemoveHome(1);
        }
        if (region.Layout.HomeExtentCount == 0) pager.Remove(region);
    }

    private void DropHomes(PagedRegion region)
    {
        capacity.RemoveHome((uint)region.Layout.HomeExtentCount);
        pager.Remove(region);
    }

    private void Send(NodeId peer, FrameHeader header, ReadOnlySpan<byte> payload)
    {
        header.Requestor = self;
        header.Network = MessageTypes.NetworkOf(header.Type);
        payload.CopyTo(fabric.Begin(peer, payload.Length));
        fabric.Commit(in header);
    }

    /// <summary>A request of a guest (no <see cref="Parent"/>), or a part of one that a peer was asked for.</summary>
    private sealed class Pending(Guest guest, Action<string?> done)
    {
        public Guest Guest { get; } = guest;
        public Action<string?> Done { get; } = done;
        public Queue<ExtentNumber> Wanted { get; } = [];
        public List<(ExtentNumber Extent, NodeId Home)> Granted { get; } = [];
        public HashSet<NodeId> Full { get; } = [];
        public HashSet<NodeId> Asked { get; } = [];
        public StringBuilder Refused { get; } = new();
        public Pending? Parent { get; init; }
        public NodeId To { get; init; } = NodeId.None;
        public int Outstanding { get; set; }
        public int Rounds { get; set; }
    }
}
