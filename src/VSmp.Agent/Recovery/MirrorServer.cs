// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent.Control;
using VSmp.Agent.Fabric;
using VSmp.Agent.Guests;
using VSmp.Agent.Paging;
using VSmp.Coherence;
using VSmp.Coherence.Messages;
using VSmp.Coherence.Placement;
using ProtocolViolationException = VSmp.Coherence.ProtocolViolationException;

namespace VSmp.Agent.Recovery;

/// <summary>
/// Restores redundancy after a loss, in the background: finds new mirrors for extents that have none, whose homes then send them what they have.
/// The node that made a region looks for mirrors; its homes copy. Owned by the reactor.
/// </summary>
/// <remarks>
/// Copying is held back on purpose: 16 pages a millisecond at most, and only while the mirror keeps up. Guests come first. What is written home
/// meanwhile goes to the new mirror as it does to any.
/// </remarks>
internal sealed class MirrorServer
{
    private const long CopyPeriodMicroseconds = 1_000;
    private const uint PagesPerPeriod = FrameHeader.MaxPages;
    private const int MaxCopiesOut = 256;
    private const long LookPeriodMicroseconds = 200_000;

    private readonly NodeId _self;
    private readonly Pager _pager;
    private readonly IFabric _fabric;
    private readonly Reservations _reservations;
    private readonly RecoveryServer _recovery;
    private readonly Dictionary<(RegionId Region, ExtentNumber Extent), NodeId> _restoring = []; // at the region's maker: asked for, or being copied
    private readonly List<CopyJob> _copying = []; // at homes
    private readonly List<CopyJob> _parting = []; // at homes: the former mirror may still owe answers
    private bool _mayLackMirrors; // a node was lost under a mirrored region that is still there

    /// <summary>Makes the server of a node.</summary>
    public MirrorServer(NodeId self, Reactor reactor, Pager pager, IFabric fabric, Reservations reservations, RecoveryServer recovery)
    {
        _self = self;
        _pager = pager;
        _fabric = fabric;
        _reservations = reservations;
        _recovery = recovery;
        reactor.Every(CopyPeriodMicroseconds, Copy, () => _copying.Count + _parting.Count > 0);
        reactor.Every(LookPeriodMicroseconds, Look, () => _mayLackMirrors); // asked every turn: no more than a look at a field
        recovery.Adopted += OnAdopted;
        recovery.Recovered += OnRecovered;
        recovery.Dropped += Forget;
        pager.Removed += Forget;
    }

    /// <summary>Hears, at the node that made a region, that the mirror of an extent has all, or that the former one is not needed any more.</summary>
    public Action<LedRegion, ExtentNumber, MirrorOrder> Done { get; set; } = (_, _, _) => { };

    /// <summary>Whether an extent is getting a mirror in place of one that was lost.</summary>
    public bool IsRestoring(RegionId region, ExtentNumber extent) => _restoring.ContainsKey((region, extent));

    /// <summary>How much of a region that is led here has its home where it needs a mirror, how much of that is mirrored, and how much is about to be.</summary>
    public (ulong Bytes, ulong MirroredBytes, ulong RestoringBytes) ProgressOf(LedRegion region)
    {
        HomeMap homes = region.Homes;
        ulong all = 0, mirrored = 0, restoring = 0;
        for (uint e = 0; e < region.ExtentCount; e++)
        {
            ExtentNumber extent = new(e);
            NodeId home = homes.HomeOf(extent);
            if (home.IsNone || region.IsBound(home)) continue;
            all += ExtentNumber.Bytes;
            if (_restoring.ContainsKey((region.Id, extent))) restoring += ExtentNumber.Bytes;
            else if (!homes.MirrorOf(extent).IsNone) mirrored += ExtentNumber.Bytes;
        }
        return (all, mirrored, restoring);
    }

    /// <summary>A frame about mirrors.</summary>
    /// <exception cref="ProtocolViolationException">It makes no sense.</exception>
    public void OnFrame(NodeId peer, in FrameHeader header)
    {
        if (header.Type == MessageType.RegionMirror)
        {
            if (header.Region.Creator != peer) throw new ProtocolViolationException($"{peer} gives {header.Region} mirrors, which it has not made");
            if (_pager.Find(header.Region) is not { } here || Pager.GenerationOf(here) != header.Generation) return; // it will be said again
            Require(peer, in header, here.Layout.ExtentCount);
            Obey(here, header.Page.Extent, header.Count, new NodeId((ushort)header.Argument0), OrderOf(peer, in header));
            return;
        }
        if (_recovery.FindLed(header.Region) is not { } region || region.Generation != header.Generation) return; // it will be said again
        Require(peer, in header, region.ExtentCount);
        MirrorOrder order = OrderOf(peer, in header);
        bool wasRestoring = false;
        for (uint i = 0; i < header.Count; i++)
        {
            ExtentNumber extent = new(header.Page.Extent.Value + i);
            if (_restoring.Remove((region.Id, extent))) wasRestoring = true;
            else Done(region, extent, order);
        }
        if (!wasRestoring) return;
        (ulong all, ulong mirrored, _) = ProgressOf(region); // some may not have found one yet
        if (mirrored == all) Log.Info($"recovery of {region.Name}: every page has a mirror again");
    }

    private static void Require(NodeId peer, in FrameHeader header, int extentCount)
    {
        if (header.Page.Value + ((ulong)header.Count * ExtentNumber.Pages) <= (ulong)extentCount << ExtentNumber.PagesShift) return;
        throw new ProtocolViolationException($"{peer} speaks of extents {header.Page.Extent.Value}+{header.Count} of {header.Region}, which has {extentCount}");
    }

    private void Forget(RegionId region)
    {
        foreach ((RegionId, ExtentNumber) key in _restoring.Keys.Where(k => k.Region == region).ToArray()) _restoring.Remove(key);
        _copying.RemoveAll(job => job.Region.Id == region);
        _parting.RemoveAll(job => job.Region.Id == region);
    }

    // At the node that made the region.

    /// <summary>Looks for extents without mirror, now and then: room may have come with a new node.</summary>
    private void Look()
    {
        LedRegion[] regions = [.. _recovery.Led.Where(region => region is { IsMirrored: true, HasLostNode: true, IsOver: false })];
        _mayLackMirrors = regions.Length > 0;
        foreach (LedRegion region in regions)
        {
            if (!_recovery.IsUnderWay(region.Id)) LookFor(region);
        }
    }

    private void LookFor(LedRegion region)
    {
        HomeMap homes = region.Homes;
        for (uint e = 0; e < region.ExtentCount;)
        {
            ExtentNumber first = new(e);
            NodeId home = homes.HomeOf(first);
            uint count = 0;
            while (e + count < region.ExtentCount && MustRestore(region, new ExtentNumber(e + count), home)) count++;
            e += Math.Max(count, 1);
            if (count == 0) continue;
            NodeId mirror = region.Choose(home, [], isHome: false);
            if (mirror.IsNone) return;
            count = (uint)Math.Min(count, Math.Max(1, _reservations.FreeExtentsOf(mirror)));
            for (uint i = 0; i < count; i++) _restoring.Add((region.Id, new ExtentNumber(first.Value + i)), NodeId.None);
            _reservations.AskLateMirror(region, mirror, home, first, count, granted => OnAnswer(region, home, mirror, first, count, granted));
            e = first.Value + count;
        }
    }

    private bool MustRestore(LedRegion region, ExtentNumber extent, NodeId home) => region.IsBare(extent) && region.Homes.HomeOf(extent) == home
        && !_restoring.ContainsKey((region.Id, extent));

    private void OnAnswer(LedRegion region, NodeId home, NodeId mirror, ExtentNumber first, uint count, bool granted)
    {
        bool isThere = _recovery.FindLed(region.Id) is not null;
        for (uint i = 0; i < count; i++)
        {
            ExtentNumber extent = new(first.Value + i);
            bool isWanted = _restoring.Remove((region.Id, extent));
            if (!granted || !isThere) continue; // if the region is dropped, it is there as well
            if (!isWanted || _recovery.IsUnderWay(region.Id) || !MustRestore(region, extent, home))
            {
                _reservations.ReleaseMirror(region.Id, mirror, extent, 1); // much has happened since it was asked
                continue;
            }
            region.Homes.PlaceMirror(extent, mirror);
            region.OnMirrorPlaced(extent);
            _restoring.Add((region.Id, extent), mirror);
            SendMirror(region, extent, home, mirror);
        }
    }

    /// <summary>An agent before this one led the region: which of its mirrors had all is not known, so all are filled again, once the region is recovered.</summary>
    private void OnAdopted(LedRegion region)
    {
        for (uint e = 0; e < region.ExtentCount; e++)
        {
            ExtentNumber extent = new(e);
            if (region.Homes.MirrorOf(extent) is { IsNone: false } mirror) _restoring[(region.Id, extent)] = mirror;
        }
    }

    /// <summary>What homes had begun to copy they begin anew.</summary>
    private void OnRecovered(LedRegion region)
    {
        HomeMap homes = region.Homes;
        foreach (((RegionId, ExtentNumber Extent) key, NodeId mirror) in _restoring.Where(r => r.Key.Region == region.Id).ToArray())
        {
            if (mirror.IsNone) continue; // not answered yet
            if (homes.MirrorOf(key.Extent) == mirror) SendMirror(region, key.Extent, homes.HomeOf(key.Extent), mirror);
            else _restoring.Remove(key);
        }
        if (!region.IsMirrored) return;
        _mayLackMirrors = true;
        LookFor(region);
    }

    private void SendMirror(LedRegion region, ExtentNumber extent, NodeId home, NodeId mirror) => SendOrder(region, extent, home, mirror, MirrorOrder.Fill);

    /// <summary>Tells the home of an extent what to do about its mirror.</summary>
    public void SendOrder(LedRegion region, ExtentNumber extent, NodeId home, NodeId mirror, MirrorOrder order) =>
        Send(home, MessageType.RegionMirror, region.Id, region.Generation, extent, mirror.Value, order);

    // At a home.

    private static MirrorOrder OrderOf(NodeId peer, in FrameHeader header) => header.Argument1 <= (ulong)MirrorOrder.Part
        ? (MirrorOrder)header.Argument1
        : throw new ProtocolViolationException($"{peer} gives order {header.Argument1} about mirrors of {header.Region}");

    private void Obey(PagedRegion region, ExtentNumber first, uint count, NodeId mirror, MirrorOrder order)
    {
        for (uint i = 0; i < count; i++)
        {
            ExtentNumber extent = new(first.Value + i);
            if (!region.Layout.IsHome(extent)) continue; // given back meanwhile
            _copying.RemoveAll(job => job.Region == region && job.Extent == extent);
            if (order == MirrorOrder.FillNext) Pager.SetNextMirror(region, extent, mirror);
            else Pager.SetMirror(region, extent, mirror);
            if (order == MirrorOrder.Part) Pager.SetNextMirror(region, extent, NodeId.None);
            (order == MirrorOrder.Part ? _parting : _copying).Add(new CopyJob(region, extent, order));
        }
    }

    private void Copy()
    {
        for (int i = _parting.Count - 1; i >= 0; i--)
        {
            CopyJob part = _parting[i];
            bool counts = Pager.GenerationOf(part.Region) == part.Generation && part.Region.Layout.IsHome(part.Extent);
            if (counts && Pager.AwaitsMirror(part.Region, part.Extent)) continue;
            _parting.RemoveAt(i);
            if (counts) Send(part.Region.Id.Creator, MessageType.RegionMirrored, part.Region.Id, part.Generation, part.Extent, 0, part.Order);
        }
        if (_copying.Count == 0) return;
        CopyJob job = _copying[0];
        if (Pager.GenerationOf(job.Region) != job.Generation || !job.Region.Layout.IsHome(job.Extent))
        {
            _copying.RemoveAt(0); // after a recovery it is said again, what was given back is not wanted
            return;
        }
        if (Pager.MirrorCopiesOut(job.Region) >= MaxCopiesOut) return;
        if (!job.IsSent) job.IsSent = _pager.CopyToMirror(job.Region, job.Extent, ref job.Next, job.Busy, PagesPerPeriod);
        if (!job.IsSent || Pager.MirrorCopiesOut(job.Region) > 0) return;
        _copying.RemoveAt(0);
        Send(job.Region.Id.Creator, MessageType.RegionMirrored, job.Region.Id, job.Generation, job.Extent, 0, job.Order);
    }

    private void Send(NodeId to, MessageType type, RegionId region, Generation generation, ExtentNumber extent, ulong argument, MirrorOrder order)
    {
        FrameHeader header = new()
        {
            Type = type,
            Requestor = _self,
            Network = MessageTypes.NetworkOf(type),
            Region = region,
            Page = extent.FirstPage,
            Count = 1,
            Generation = generation,
            Argument0 = argument,
            Argument1 = (ulong)order,
        };
        _fabric.Begin(to, 0);
        _fabric.Commit(in header);
    }

    private sealed class CopyJob(PagedRegion region, ExtentNumber extent, MirrorOrder order)
    {
        public MirrorOrder Order { get; } = order;
        public PagedRegion Region { get; } = region;
        public ExtentNumber Extent { get; } = extent;
        public Generation Generation { get; } = Pager.GenerationOf(region);

        /// <summary>Pages that something was under way for when their turn came.</summary>
        public Queue<PageNumber> Busy { get; } = [];

        /// <summary>The next page, counted from the extent's first.</summary>
        public uint Next;

        public bool IsSent { get; set; }
    }
}

/// <summary>What a home is to do about the mirror of an extent. Values are on the wire.</summary>
internal enum MirrorOrder : byte
{
    /// <summary>It has got one, which knows nothing yet: fill it.</summary>
    Fill = 0,
    /// <summary>Another is to take the mirror's place: fill it, and write both until then.</summary>
    FillNext = 1,
    /// <summary>This one is the mirror from now on, or (none) there is none: part with the former.</summary>
    Part = 2,
}
