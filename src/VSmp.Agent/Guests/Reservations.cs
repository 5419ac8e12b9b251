// SPDX-License-Identifier: Apache-2.0
using System.Text;
using VSmp.Agent.Control;
using VSmp.Agent.Fabric;
using VSmp.Agent.Paging;
using VSmp.Agent.Recovery;
using VSmp.Coherence;
using VSmp.Coherence.Messages;
using VSmp.Coherence.Placement;
using VSmp.Coherence.Protocols;

namespace VSmp.Agent.Guests;

/// <summary>
/// Admission: finds homes for the extents that guests of this node reserve, and gives home to extents of others. The peers first, each time
/// the one with the most room left: local frames then hold whatever of all that is in use. A home here holds its own pages only, in use or
/// not; so only what finds no place elsewhere has its home here, as far as the run's budget allows. Where a run's memory is mirrored, each extent gets a
/// second home on yet another node; what has its home here needs none, for if this node is lost, so is the program. Owned by the reactor.
/// </summary>
/// <remarks>Reservations.Returning.cs: what is asked of agents that are started again.</remarks>
internal sealed partial class Reservations(NodeId self, Pager pager, IFabric fabric, Capacity capacity, Peers peers, string framesFolder)
{
    /// <summary>How often what a peer refused is planned anew with what it says to have left.</summary>
    private const int MaxRounds = 4;

    private readonly Dictionary<ulong, Pending> _pending = [];
    private readonly Dictionary<ulong, (RegionId Region, NodeId To, Action<bool> Done)> _lateMirrors = [];
    private readonly List<Pending> _awaitFrames = [];
    private readonly List<Pending> _awaitRecovery = []; // their region's directories are being rebuilt, or a node is coming back that may have room
    private ulong _lastRequest;

    /// <summary>Raised when a guest has given an extent back, before its home hears of it.</summary>
    public event Action<PagedRegion, ExtentNumber>? GivingBack;

    /// <summary>Whether this node is being emptied: it gives nothing away.</summary>
    public bool IsClosed { get; set; }

    /// <summary>
    /// Puts something off if a region is to be frozen here once this node has heard of a loss, until it is; says whether it does. What its maker asks for
    /// meanwhile is of a generation for which the region would be taken for frozen.
    /// </summary>
    public Func<RegionId, Action, bool> PutOffUntilFrozen { get; set; } = (_, _) => false;

    /// <summary>
    /// Whether a node has forgotten what it had of a guest's region, and the recovery that this needs has not ended: it would take what the node is given anew
    /// for lost as well.
    /// </summary>
    public Func<RegionId, bool> IsForgottenSomewhere { get; set; } = _ => false;

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
            if (layout.Homes.MirrorOf(extent) is { IsNone: false } mirror)
            {
                homes.Add(mirror);
                layout.Homes.PlaceMirror(extent, NodeId.None);
            }
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
        // Where a reservation is still under way, extents may be granted that nobody will use: those homes, and mirrors, are told as well.
        homes.UnionWith(_lateMirrors.Values.Where(m => m.Region == guest.Region.Id).Select(m => m.To));
        foreach (Pending request in Requests.Where(p => p.Guest == guest).ToArray())
        {
            homes.UnionWith(request.Asked);
            foreach ((ExtentNumber _, Placement at) in request.Granted)
            {
                if (at.Home != self) continue;
                capacity.CacheToHome(-1);
                guest.Run.AddLocalHomes(-1);
            }
            request.Granted.Clear();
        }
        // An answer has no consequence any more: that of a mirror would have the home asked, and nobody would tell that one of the end.
        foreach (ulong id in _pending.Where(p => p.Value.Guest == guest).Select(p => p.Key).ToArray()) _pending.Remove(id);
        _awaitFrames.RemoveAll(p => p.Guest == guest);
        _awaitRecovery.RemoveAll(p => p.Guest == guest);
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
                FrameHeader asked = header;
                ExtentOrder order = RequireOrder(peer, in header, payload);
                if (!PutOffUntilFrozen(header.Region, () => OnReserve(peer, in asked, order))) OnReserve(peer, in header, order);
                break;
            case MessageType.ReserveReply:
                OnReply(peer, in header, payload);
                break;
            case MessageType.ReleaseExtents:
                Release(header.Region, header.Page.Extent, header.Count);
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

    /// <summary>Nodes that may know of a guest's region, though no extent of it is placed there yet.</summary>
    public IEnumerable<NodeId> AskedFor(Guest guest) => Requests.Where(p => p.Guest == guest).SelectMany(p => p.Asked)
        .Concat(_lateMirrors.Values.Where(m => m.Region == guest.Region.Id).Select(m => m.To));

    /// <summary>Extents that a node has free, as far as known.</summary>
    public long FreeExtentsOf(NodeId node) => node == self ? capacity.FreeExtents : peers.Find(node)?.FreeExtents ?? 0;

    /// <summary>Asks a node to become the mirror of extents that have a home already.</summary>
    /// <param name="region">The region; made here.</param>
    /// <param name="mirror">The node; of a region of a job, it may be this one.</param>
    /// <param name="home">Their home.</param>
    /// <param name="first">The first extent.</param>
    /// <param name="count">How many.</param>
    /// <param name="done">Hears whether it has: at once, if it is this node.</param>
    public void AskLateMirror(LedRegion region, NodeId mirror, NodeId home, ExtentNumber first, uint count, Action<bool> done)
    {
        var order = new ExtentOrder(ExtentRole.LateMirror, home, region.Name);
        if (mirror == self)
        {
            bool isGranted = pager.Find(region.Id) is not null && capacity.TryAddHome(count);
            if (isGranted) Take(pager.Find(region.Id)!, first, count, order);
            done(isGranted);
            return;
        }
        _lateMirrors.Add(++_lastRequest, (region.Id, mirror, done));
        peers.Take(mirror, (int)count);
        Send(mirror, new FrameHeader
        {
            Type = MessageType.ReserveExtents,
            Region = region.Id,
            Page = first.FirstPage,
            Count = count,
            Argument0 = _lastRequest,
            Argument1 = (ulong)region.ExtentCount,
            Generation = region.Generation,
        }, order.Write());
    }

    /// <summary>Gives back extents that a node was made the mirror of.</summary>
    public void ReleaseMirror(RegionId region, NodeId mirror, ExtentNumber first, uint count)
    {
        if (mirror == self) Release(region, first, count);
        else SendRelease(mirror, region, first, count);
    }

    /// <summary>A region's directories are there again: what was asked for meanwhile is placed.</summary>
    public void OnThawed(PagedRegion region)
    {
        foreach (Pending request in _awaitRecovery.Where(p => p.Guest.Region == region).ToArray())
        {
            _awaitRecovery.Remove(request);
            Place(request);
        }
    }

    /// <summary>A peer is lost: what it made is dropped here; what waits for it is answered.</summary>
    public void OnPeerLost(NodeId peer)
    {
        foreach (PagedRegion region in pager.Regions.Where(r => r.Run is null && r.Id.Creator == peer).ToArray()) DropHomes(region);
        foreach ((ulong id, (RegionId _, NodeId _, Action<bool> done)) in _lateMirrors.Where(p => p.Value.To == peer).ToArray())
        {
            _lateMirrors.Remove(id);
            done(false);
        }
        foreach ((ulong id, Pending request) in _pending.Where(p => p.Value.To == peer).ToArray())
        {
            _pending.Remove(id);
            request.Parent!.Refused.AppendLine($"{peer} is lost");
            foreach (ExtentNumber extent in request.Wanted) request.Parent.Wanted.Enqueue(extent);
            if (request.IsMirrorGranted && request.At.Mirror != peer) SendRelease(request.At.Mirror, request.Guest.Region.Id, request.Wanted.Peek(), (uint)request.Wanted.Count);
            if (--request.Parent.Outstanding == 0) Place(request.Parent);
        }
    }

    /// <summary>Who holds this node's memory, for messages: one line.</summary>
    public string Holders()
    {
        var text = new StringBuilder();
        text.Append(peers.NameOf(self)).Append(": ").Append(Megabytes(capacity.ContributedBytes)).Append(" MiB contributed, ")
            .Append(Megabytes(capacity.FreeBytes)).Append(IsClosed ? " free, but it is being emptied" : " free");
        foreach (PagedRegion region in pager.Regions.OrderByDescending(r => r.GivenExtents).Take(3))
        {
            if (region.GivenExtents == 0) continue;
            text.Append(", ").Append(region.Layout.Name).Append(" holds ").Append(Megabytes((ulong)region.GivenExtents * ExtentNumber.Bytes));
        }
        if (capacity.CacheBytes > 0) text.Append(", ").Append(Megabytes(capacity.CacheBytes)).Append(" set aside for copies");
        return text.ToString();
    }

    /// <summary>What guests have asked for, and have no answer to: whether others are asked, or what they have granted waits for something else.</summary>
    private IEnumerable<Pending> Requests => _pending.Values.Select(p => p.Parent!).Concat(_awaitFrames).Concat(_awaitRecovery).Distinct();

    private static ulong Megabytes(ulong bytes) => bytes >> 20;

    /// <summary>Gives what is wanted to homes, and asks them; ends the request when nothing is wanted or nobody has room.</summary>
    private void Place(Pending request)
    {
        Guest guest = request.Guest;
        Run run = guest.Run;
        if (pager.Find(guest.Region.Id) != guest.Region) return; // it died meanwhile
        if (Pager.IsFrozen(guest.Region) || IsForgottenSomewhere(guest.Region.Id))
        {
            _awaitRecovery.Add(request);
            return;
        }
        request.Rounds++;
        var plan = new Dictionary<Placement, List<ExtentNumber>>();
        while (request.Wanted.Count > 0 && TryChoose(request, ask: false, out Placement at)) PlanOne(request, at, plan);
        while (request.Wanted.Count > 0 && run.LocalHomeExtentsLeft > 0)
        {
            ExtentNumber extent = request.Wanted.Dequeue();
            capacity.CacheToHome(1);
            run.AddLocalHomes(1);
            guest.Region.Layout.BecomeHome(extent);
            request.Granted.Add((extent, new Placement(self, NodeId.None)));
        }
        if (request.Wanted.Count > 0 && plan.Count == 0 && TryChoose(request, ask: true, out Placement asked)) PlanOne(request, asked, plan);
        if (request.Wanted.Count > 0 && plan.Count == 0)
        {
            if (peers.All.Any(p => p.IsReturning)) _awaitRecovery.Add(request);
            else Fail(request);
            return;
        }
        // What found no place now may find one when the answers say how much room there really is.
        foreach ((Placement place, List<ExtentNumber> extents) in plan) Ask(request, place, extents);
        if (request.Outstanding == 0) Succeed(request);
    }

    private bool TryChoose(Pending request, bool ask, out Placement at)
    {
        NodeId home = peers.Roomiest(request.Full, ask, otherThan: NodeId.None), mirror = NodeId.None;
        bool isMirrored = request.Guest.Run.Request.Redundancy == Redundancy.Mirror;
        if (isMirrored && !home.IsNone) mirror = peers.Roomiest(request.Full, ask, otherThan: home);
        at = new Placement(home, mirror);
        if (home.IsNone || !isMirrored || !mirror.IsNone) return !home.IsNone;
        // As a disk array that has lost a disk goes on: better without a mirror for a while than to fail because of what it is there for.
        if (!request.Guest.Run.HasLostNode) return false;
        if (request.Guest.Run.WasToldOfMissingMirrors) return true;
        request.Guest.Run.WasToldOfMissingMirrors = true;
        request.Guest.Tell("since a node was lost there is no room for second homes: new memory gets its own when a node with room joins");
        return true;
    }

    private void PlanOne(Pending request, Placement at, Dictionary<Placement, List<ExtentNumber>> plan)
    {
        peers.Take(at.Home, 1);
        if (!at.Mirror.IsNone) peers.Take(at.Mirror, 1);
        if (!plan.TryGetValue(at, out List<ExtentNumber>? extents)) plan.Add(at, extents = []);
        extents.Add(request.Wanted.Dequeue());
    }

    /// <summary>The mirror first: a home that has one never serves without it.</summary>
    private void Ask(Pending parent, Placement at, List<ExtentNumber> extents)
    {
        for (int i = 0; i < extents.Count;)
        {
            int run = 1;
            while (i + run < extents.Count && extents[i + run].Value == extents[i].Value + run) run++;
            var part = new Pending(parent.Guest, parent.Done) { Parent = parent, At = at };
            for (int j = 0; j < run; j++) part.Wanted.Enqueue(extents[i + j]);
            parent.Outstanding++;
            if (at.Mirror.IsNone) Ask(part, at.Home, ExtentRole.Home);
            else Ask(part, at.Mirror, ExtentRole.Mirror);
            i += run;
        }
    }

    private void Ask(Pending part, NodeId node, ExtentRole role)
    {
        PagedRegion region = part.Guest.Region;
        part.To = node;
        part.Parent!.Asked.Add(node);
        _pending.Add(++_lastRequest, part);
        var order = new ExtentOrder(role, role == ExtentRole.Home ? part.At.Mirror : part.At.Home, region.Layout.Name);
        Send(node, new FrameHeader
        {
            Type = MessageType.ReserveExtents,
            Region = region.Id,
            Page = part.Wanted.Peek().FirstPage,
            Count = (uint)part.Wanted.Count,
            Argument0 = _lastRequest,
            Argument1 = (ulong)region.Layout.ExtentCount,
            Generation = Pager.GenerationOf(region),
        }, order.Write());
    }

    private void OnReply(NodeId peer, in FrameHeader header, ReadOnlySpan<byte> payload)
    {
        if (_lateMirrors.Remove(header.Argument0, out (RegionId Region, NodeId To, Action<bool> Done) late))
        {
            peers.SetFree(peer, (uint)header.Argument1);
            late.Done(header.Count > 0);
            return;
        }
        if (!_pending.Remove(header.Argument0, out Pending? part) || part.To != peer) return;
        Pending parent = part.Parent!;
        peers.SetFree(peer, (uint)header.Argument1);
        bool granted = header.Count > 0 && !part.IsVoid;
        if (part.IsVoid && header.Count > 0) SendRelease(peer, header.Region, part.Wanted.Peek(), (uint)part.Wanted.Count);
        if (!granted && !part.IsVoid)
        {
            // It says how much it does have: asked for that, it may say yes.
            if (header.Argument1 == 0 || parent.Rounds >= MaxRounds) parent.Full.Add(peer);
            if (parent.Full.Contains(peer)) parent.Refused.Append("; ").Append(Encoding.UTF8.GetString(payload));
        }
        if (granted && peer == part.At.Mirror)
        {
            part.IsMirrorGranted = true;
            Ask(part, part.At.Home, ExtentRole.Home);
            return;
        }
        if (!granted && part.IsMirrorGranted) SendRelease(part.At.Mirror, header.Region, part.Wanted.Peek(), (uint)part.Wanted.Count);
        foreach (ExtentNumber extent in part.Wanted)
        {
            if (granted) parent.Granted.Add((extent, part.At));
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
        foreach ((ExtentNumber extent, Placement at) in request.Granted)
        {
            guest.Region.Layout.Homes!.Place(extent, at.Home);
            guest.Region.Layout.Homes.PlaceMirror(extent, at.Mirror);
            guest.Region.Open(extent);
            guest.ReservedExtents++;
            guest.Run.Counters.AddHome(at.Home, 1);
        }
        request.Done(null);
    }

    /// <summary>Whether homes were granted here in frames that still have copies in them: these are on their way out.</summary>
    private bool MustAwaitFrames(Pending request) => request.Guest.Run.Budget.FreePages < 0 && request.Granted.Exists(granted => granted.At.Home == self);

    private void Fail(Pending request)
    {
        Guest guest = request.Guest;
        if (pager.Find(guest.Region.Id) != guest.Region) return;
        string who = $"{Holders()}{request.Refused}";
        uint wanted = (uint)(request.Wanted.Count + request.Granted.Count);
        foreach ((ExtentNumber extent, Placement at) in request.Granted) GiveBackUncounted(guest, extent, at);
        string needs = guest.Run.Request.Redundancy == Redundancy.Mirror ? ", each on two other nodes," : "";
        request.Done($"the pool is exhausted: {Megabytes(wanted * (ulong)ExtentNumber.Bytes)} MiB{needs} were asked for by process {guest.ProcessId} ({who})");
    }

    private void GiveBack(Guest guest, ExtentNumber extent, NodeId home)
    {
        GivingBack?.Invoke(guest.Region, extent);
        var at = new Placement(home, guest.Region.Layout.Homes!.MirrorOf(extent));
        guest.Region.Layout.Homes.Place(extent, NodeId.None);
        guest.Region.Layout.Homes.PlaceMirror(extent, NodeId.None);
        guest.Run.Counters.AddHome(home, -1);
        GiveBackUncounted(guest, extent, at);
    }

    private void GiveBackUncounted(Guest guest, ExtentNumber extent, Placement at)
    {
        PagedRegion region = guest.Region;
        if (at.Home == self)
        {
            region.Layout.ResignHome(extent);
            region.RecordExtent(extent);
            region.Frames.Punch(extent.FirstPage, ExtentNumber.Pages);
            capacity.CacheToHome(-1);
            guest.Run.AddLocalHomes(-1);
            return;
        }
        SendRelease(at.Home, region.Id, extent, 1);
        if (!at.Mirror.IsNone) SendRelease(at.Mirror, region.Id, extent, 1);
    }

    private void SendRelease(NodeId node, RegionId region, ExtentNumber first, uint count)
    {
        Send(node, new FrameHeader { Type = MessageType.ReleaseExtents, Region = region, Page = first.FirstPage, Count = count }, []);
        peers.Take(node, -(int)count);
    }

    private static ExtentOrder RequireOrder(NodeId peer, in FrameHeader header, ReadOnlySpan<byte> payload)
    {
        ExtentNumber first = header.Page.Extent;
        bool isSound = header.Region.Creator == peer && header.Argument1 <= int.MaxValue / 2 && header.Count > 0
            && first.Value + (ulong)header.Count <= header.Argument1;
        return isSound && ExtentOrder.Read(payload) is { } order
            ? order
            : throw new ProtocolViolationException($"{peer} asks for extents {first.Value}+{header.Count} of {header.Region}, of {header.Argument1}");
    }

    private void OnReserve(NodeId peer, in FrameHeader header, ExtentOrder order)
    {
        ExtentNumber first = header.Page.Extent;
        uint granted = 0;
        PagedRegion? region = pager.Find(header.Region);
        // Whoever made the region knows of nothing here: what is in these extents, if they are here, must not be taken for new.
        bool isHere = region is not null && IsAnyGiven(region, first, header.Count);
        if (isHere) Log.Error($"{peers.NameOf(peer)} asks for extents {first.Value}+{header.Count} of {order.Name}, which it has here already: they are refused");
        if (!isHere && !IsClosed && capacity.TryAddHome(header.Count))
        {
            if (region is null)
            {
                int extents = (int)header.Argument1;
                FrameFile frames = FrameFile.Create(framesFolder, header.Region, (ulong)extents * ExtentNumber.Bytes);
                var state = new Region(header.Region, order.Name, extents, Msi.Protocol, homes: null, budget: null) { Generation = header.Generation };
                region = pager.Add(state, frames, run: null);
            }
            Pager.CatchUp(region, header.Generation);
            Take(region, first, header.Count, order);
            granted = header.Count;
        }
        Send(peer, new FrameHeader
        {
            Type = MessageType.ReserveReply,
            Region = header.Region,
            Page = header.Page,
            Count = granted,
            Argument0 = header.Argument0,
            Argument1 = IsClosed ? 0 : capacity.FreeExtents,
        }, granted > 0 ? [] : Encoding.UTF8.GetBytes(Holders()));
    }

    private static bool IsAnyGiven(PagedRegion region, ExtentNumber first, uint count)
    {
        for (uint e = 0; e < count; e++)
        {
            ExtentNumber extent = new(first.Value + e);
            if (extent.Value < (uint)region.Layout.ExtentCount && (region.Layout.IsHome(extent) || region.Mirrored?.Contains(extent) == true)) return true;
        }
        return false;
    }

    /// <summary>Extents that this node gave memory for are not wanted any more. (Of a job's region it stays home: that is given back as a whole.)</summary>
    private void Release(RegionId id, ExtentNumber first, uint count)
    {
        if (pager.Find(id) is not { } region || (region.Run is not null && !region.IsShared)) return;
        for (uint e = 0; e < count; e++)
        {
            ExtentNumber extent = new(first.Value + e);
            if ((region.IsShared || !region.Layout.ResignHome(extent)) && region.Mirrored?.Remove(extent) != true) continue;
            region.RecordExtent(extent);
            // Where guests use it, it was never written as a mirror: what is in the frames is theirs.
            if (!region.Layout.IsOpen(extent)) region.Frames.Punch(extent.FirstPage, ExtentNumber.Pages);
            capacity.RemoveHome(1);
        }
        if (region is { IsShared: false, GivenExtents: 0 }) pager.Remove(region);
    }

    private void DropHomes(PagedRegion region)
    {
        capacity.RemoveHome(region.GivenExtents);
        pager.Remove(region);
    }

    private void Take(PagedRegion region, ExtentNumber first, uint count, ExtentOrder order)
    {
        for (uint e = 0; e < count; e++)
        {
            if (!Take(region, new ExtentNumber(first.Value + e), order)) capacity.RemoveHome(1); // asked twice
        }
    }

    private static bool Take(PagedRegion region, ExtentNumber extent, ExtentOrder order)
    {
        if (region.Mirrored is not { } mirrored || region.Layout.IsHome(extent) || mirrored.Contains(extent)) return false;
        if (order.Role != ExtentRole.Home)
        {
            mirrored.Add(extent, order.Partner, isFresh: order.Role == ExtentRole.Mirror);
        }
        else
        {
            region.Layout.BecomeHome(extent);
            Pager.SetMirror(region, extent, order.Partner);
        }
        region.RecordExtent(extent);
        return true;
    }

    private void Send(NodeId peer, FrameHeader header, ReadOnlySpan<byte> payload)
    {
        header.Requestor = self;
        header.Network = MessageTypes.NetworkOf(header.Type);
        payload.CopyTo(fabric.Begin(peer, payload.Length));
        fabric.Commit(in header);
    }

    /// <summary>Where an extent is to be.</summary>
    private readonly record struct Placement(NodeId Home, NodeId Mirror);

    /// <summary>A request of a guest (no <see cref="Parent"/>), or a part of one that a peer was asked for.</summary>
    private sealed class Pending(Guest guest, Action<string?> done)
    {
        public Guest Guest { get; } = guest;
        public Action<string?> Done { get; } = done;
        public Queue<ExtentNumber> Wanted { get; } = [];
        public List<(ExtentNumber Extent, Placement At)> Granted { get; } = [];
        public HashSet<NodeId> Full { get; } = [];
        public HashSet<NodeId> Asked { get; } = [];
        public StringBuilder Refused { get; } = new();
        public Pending? Parent { get; init; }
        public NodeId To { get; set; } = NodeId.None;
        public Placement At { get; init; }
        public bool IsMirrorGranted { get; set; }

        /// <summary>The other node that it is about has forgotten it: what this one grants is given back.</summary>
        public bool IsVoid { get; set; }

        public int Outstanding { get; set; }
        public int Rounds { get; set; }
    }
}
