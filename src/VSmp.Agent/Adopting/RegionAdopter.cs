// SPDX-License-Identifier: Apache-2.0
using System.Globalization;
using VSmp.Agent.Guests;
using VSmp.Agent.Interop;
using VSmp.Agent.Paging;
using VSmp.Coherence;
using VSmp.Coherence.Placement;
using VSmp.Coherence.Protocols;

namespace VSmp.Agent.Adopting;

/// <summary>
/// Takes over the regions that another agent of this node has left: their frames, the copies that it kept, what it had recorded. A region that was adopted is
/// frozen, and deaf, until its maker has had its directories rebuilt. On the reactor's thread.
/// </summary>
/// <param name="pager">Whose they are from now on.</param>
/// <param name="capacity">What of this node's memory is theirs is taken out of it.</param>
/// <param name="framesFolder">Where frame files are.</param>
internal sealed class RegionAdopter(Pager pager, Capacity capacity, string framesFolder)
{
    /// <summary>Regions of which a state file was left, in order.</summary>
    public IReadOnlyList<RegionId> Find()
    {
        var found = new List<RegionId>();
        foreach (string path in Directory.EnumerateFiles(framesFolder, "*" + StateFile.Suffix))
        {
            if (IsNameOf(Path.GetFileName(path.AsSpan()), out RegionId id)) found.Add(id);
        }
        found.Sort((a, b) => a.Value.CompareTo(b.Value));
        return found;
    }

    /// <summary>What a region is, and whether guests of this node use it.</summary>
    /// <inheritdoc cref="Adopt" path="/exception"/>
    public (string Name, string Protocol, RegionTraits Traits) Look(RegionId id)
    {
        StateFile file = StateFile.Open(FrameFile.PathOf(framesFolder, id), id, pager.Self);
        try { return (file.Header.Name, file.Header.Protocol, file.Header.Traits); }
        finally { file.Close(); }
    }

    /// <summary>Adopts a region.</summary>
    /// <param name="id">Which.</param>
    /// <param name="run">Whose budget its guests use, with the memory set aside for it that it had; null where this node is only a home of it.</param>
    /// <exception cref="InvalidDataException">It cannot be adopted. The files are still there.</exception>
    /// <exception cref="IOException">The files cannot be read, or there is no room.</exception>
    public PagedRegion Adopt(RegionId id, Run? run)
    {
        StateFile records = StateFile.Open(FrameFile.PathOf(framesFolder, id), id, pager.Self);
        FrameFile? frames = null;
        KeptCopies? kept = null;
        try
        {
            bool isUsed = (records.Header.Traits & RegionTraits.IsUsed) != 0;
            if (isUsed != run is not null) throw new InvalidDataException($"{id} is {(isUsed ? "" : "not ")}used by guests here, and is to be adopted {(isUsed ? "without" : "with")} a run");
            Region state = NewRegion(records, run);
            frames = FrameFile.Open(framesFolder, id, (ulong)state.ExtentCount * ExtentNumber.Bytes);
            kept = new KeptCopies(KeptFile.Open(frames.Path), records.Abandon);
            IReadOnlyList<int> aside = kept.Load(state.PageCount);
            PagedRegion region = pager.NewAdopted(state, frames, kept, records, run);
            region.IsShared = (records.Header.Traits & RegionTraits.IsShared) != 0;
            region.IsMirrored = (records.Header.Traits & RegionTraits.IsMirrored) != 0;
            GiveRoles(state, region, records);
            TakeMemory(region);
            try
            {
                pager.Adopt(state, region, aside);
            }
            catch (InvalidDataException)
            {
                GiveMemoryBack(region);
                throw;
            }
            return region;
        }
        catch
        {
            records.Close();
            kept?.Close();
            frames?.Close();
            throw;
        }
    }

    /// <summary>Goes on with a guest's mapping: who waits there faults again, and is told to this agent.</summary>
    /// <param name="reactor">Watches the userfaultfd.</param>
    /// <param name="mapping">The mapping; its userfaultfd, its range and its place in the file are as they were.</param>
    /// <param name="watch">What hears of faults.</param>
    public static void Map(Reactor reactor, Mapping mapping, IReactorHandler watch)
    {
        mapping.Region.Mappings.Add(mapping);
        mapping.Guest.Mappings.Add(mapping);
        reactor.Watch(mapping.Userfaultfd, EpollEvents.Readable, watch);
        // What the former agent had read of faults is gone with it.
        int error = Userfaultfd.Wake(mapping.Userfaultfd, mapping.Address, mapping.Bytes);
        if (error is not (0 or Errno.ESRCH)) mapping.Guest.Kill($"its threads could not be woken: {Errno.Text(error)}");
    }

    /// <summary>Deletes what was left of regions that are not adopted. Nobody may use them any more.</summary>
    public void DiscardOthers()
    {
        foreach (string path in Directory.GetFiles(framesFolder))
        {
            if (!IsNameOf(Path.GetFileName(path.AsSpan()), out RegionId id) || pager.Find(id) is null) File.Delete(path);
        }
    }

    /// <summary>Names begin with the region's number; what follows says which file of it it is.</summary>
    private static bool IsNameOf(ReadOnlySpan<char> name, out RegionId id)
    {
        const int Digits = 16;
        bool isOne = name.Length >= Digits & ulong.TryParse(name[..Math.Min(Digits, name.Length)], NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out ulong number);
        id = new RegionId(number);
        return isOne;
    }

    private static Region NewRegion(StateFile records, Run? run)
    {
        ref StateHeader header = ref records.Header;
        Protocol protocol = ProtocolCatalog.Find(header.Protocol) ?? throw new InvalidDataException($"{header.Region} is kept coherent by {header.Protocol}, which is not known here");
        HomeMap? homes = run is null ? null : new HomeMap(header.ExtentCount);
        return new Region(header.Region, header.Name, header.ExtentCount, protocol, homes, run?.Budget) { Generation = records.Generation };
    }

    private static void GiveRoles(Region state, PagedRegion region, StateFile records)
    {
        for (uint e = 0; e < (uint)state.ExtentCount; e++)
        {
            ExtentNumber extent = new(e);
            ExtentRecord record = records[extent];
            if (record == ExtentRecord.None) continue;
            // What a guest has given back, or was not given yet, has no place: whoever was its home is told so, as of all that is placed nowhere.
            if (region.IsShared || (record.Roles & ExtentRoles.Open) != 0)
            {
                state.Homes?.Place(extent, record.Home);
                state.Homes?.PlaceMirror(extent, record.Mirror);
            }
            if ((record.Roles & ExtentRoles.Home) != 0)
            {
                state.BecomeHome(extent);
                state.SetMirror(extent, record.OwnMirror);
                state.SetNextMirror(extent, record.NextMirror);
                if ((record.Roles & ExtentRoles.Undecided) != 0) state.LeaveUndecided(extent);
            }
            // Those of which nothing is known are recorded as such.
            if ((record.Roles & ExtentRoles.Mirror) != 0) state.Mirrored.Add(extent, record.MirroredHome, isFresh: true);
            if ((record.Roles & ExtentRoles.Open) != 0) region.Open(extent);
        }
    }

    private void TakeMemory(PagedRegion region)
    {
        if (region.Run is { } run && !region.IsShared)
        {
            ResignUnused(region);
            uint local = region.GivenExtents;
            if (local * (ulong)ExtentNumber.Bytes > capacity.CacheBytes) throw NoMemory(region);
            capacity.CacheToHome(local);
            run.AddLocalHomes(local);
        }
        else if (!capacity.TryAddHome(region.GivenExtents)) throw NoMemory(region);
        CountHomes(region, 1);
    }

    private void GiveMemoryBack(PagedRegion region)
    {
        if (region.Run is { } run && !region.IsShared)
        {
            capacity.CacheToHome(-region.GivenExtents);
            run.AddLocalHomes(-region.GivenExtents);
        }
        else capacity.RemoveHome(region.GivenExtents);
        CountHomes(region, -1);
    }

    /// <summary>Homes here of a guest's extents that it was not given yet, or has given back: the agent was killed in the middle.</summary>
    private static void ResignUnused(PagedRegion region)
    {
        for (uint e = 0; e < (uint)region.Layout.ExtentCount; e++)
        {
            ExtentNumber extent = new(e);
            if (!region.Layout.IsHome(extent) || region.Layout.IsOpen(extent)) continue;
            region.Layout.ResignHome(extent);
            region.Layout.Homes!.Place(extent, NodeId.None);
            region.RecordExtent(extent);
        }
    }

    private static void CountHomes(PagedRegion region, long by)
    {
        if (region.Run is not { } run) return;
        for (uint e = 0; e < (uint)region.Layout.ExtentCount; e++)
        {
            NodeId home = region.Layout.Homes!.HomeOf(new ExtentNumber(e));
            if (!home.IsNone) run.Counters.AddHome(home, by);
        }
    }

    private static InvalidDataException NoMemory(PagedRegion region) =>
        new($"{region.Id} takes {region.GivenExtents * (ulong)ExtentNumber.Bytes >> 20} MiB of this node's memory, which are not free");
}
