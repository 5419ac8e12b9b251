// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent.Adopting;
using VSmp.Agent.Interop;
using VSmp.Agent.Jobs;
using VSmp.Agent.Keeping;
using VSmp.Agent.Paging;
using VSmp.Coherence;

namespace VSmp.Agent.Guests;

/// <content>Programs that had attached to an agent before this one.</content>
internal sealed partial class GuestServer
{
    /// <summary>Takes over a program that lives on; it finds out when it asks for something next.</summary>
    /// <param name="process">The program, as its keeper has it; its pidfd goes over to the guest.</param>
    /// <param name="mappings">Its memory; the userfaultfds go over to the mappings.</param>
    /// <param name="region">Its region, adopted.</param>
    public void Adopt(KeptGuest process, IReadOnlyCollection<KeptMapping> mappings, PagedRegion region)
    {
        var guest = new Guest(process.Who.Process.ProcessId, region.Run!, region, process.TakeProcess(), _reactor.NowMicroseconds) { IsAwaited = true };
        for (uint e = 0; e < (uint)region.Layout.ExtentCount; e++)
        {
            if (region.Layout.IsOpen(new ExtentNumber(e))) guest.ReservedExtents++;
        }
        Adopt(guest, process, mappings, _ => region);
        if (IsAddressSpaceGone(guest)) OnGone(guest); // another program (exec) while no agent was there to see it
    }

    /// <summary>Takes over a rank that lives on; it finds out when it asks for something next, or waits for an answer.</summary>
    /// <param name="process">The rank, as its keeper has it; its pidfd goes over to the guest.</param>
    /// <param name="mappings">Its memory; the userfaultfds go over to the mappings.</param>
    /// <param name="run">The run of its job here, with the regions, adopted.</param>
    public void AdoptRank(KeptGuest process, IReadOnlyCollection<KeptMapping> mappings, Run run)
    {
        var guest = new Guest(process.Who.Process.ProcessId, run, null, process.TakeProcess(), _reactor.NowMicroseconds) { IsAwaited = true };
        run.Job!.Add(new RankSession(process.Who.Rank!.Value, guest, (_, _) => { }));
        Adopt(guest, process, mappings, id => run.Job.FindRegion(id)!);
    }

    private void Adopt(Guest guest, KeptGuest process, IReadOnlyCollection<KeptMapping> mappings, Func<RegionId, PagedRegion> find)
    {
        var adopted = new List<(Mapping, HoldKey)>();
        foreach (KeptMapping kept in mappings)
        {
            MappingRecord range = kept.Range;
            PagedRegion region = find(range.Region);
            var mapping = new Mapping(guest, region, kept.TakeUserfaultfd(), range.Address, range.PageCount << PageNumber.Shift, range.First.Offset) { Bit = region.FreeBit(), IsHeld = true };
            RegionAdopter.Map(_reactor, mapping, new FaultWatch(_pager, mapping));
            adopted.Add((mapping, kept.Key));
        }
        _kept?.Adopt(guest, process.Key, adopted);
        Watch(guest);
    }

    /// <summary>The session of a rank that comes back. One that was never told that it had joined, so that nobody knows of it, begins anew.</summary>
    private (RankSession? Rank, string? Refusal, int Errno) Rejoin(PeerCredentials peer, string token, int rank, Action<GuestMessage, byte[]> send)
    {
        if (_runs.Find(token)?.Job?.Find(rank) is not { } session) return Join(peer, token, rank, send);
        if (session.Guest.ProcessId != peer.ProcessId || !session.Guest.IsAwaited)
            return (null, $"this agent has not taken rank {rank} over from the one that was killed", Errno.EACCES);
        session.Guest.IsAwaited = false;
        session.Resume(send);
        return (session, null, 0);
    }

    /// <summary>The guest of a process that was taken over, and is back; null if it is none. It comes once: what it asks for after that has an answer.</summary>
    private Guest? FindToResume(PeerCredentials peer, string token, RegionId region)
    {
        if (_runs.FindGuest(peer.ProcessId) is not { IsRank: false, IsAwaited: true } guest) return null;
        if (guest.Run.Token != token || guest.Region.Id != region) return null;
        guest.IsAwaited = false;
        return guest;
    }
}
