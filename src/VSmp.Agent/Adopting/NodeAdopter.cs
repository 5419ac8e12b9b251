// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent.Guests;
using VSmp.Agent.Interop;
using VSmp.Agent.Jobs;
using VSmp.Agent.Keeping;
using VSmp.Agent.Paging;
using VSmp.Coherence;

namespace VSmp.Agent.Adopting;

/// <summary>
/// Takes over what an agent of this node that was killed has left: regions, and the programs that use them. What cannot be taken over is ended, or deleted,
/// before anybody can see that it is not what it was. On the reactor's thread, before it watches the keeper.
/// </summary>
/// <param name="keeper">Holds the programs, and their memory.</param>
/// <param name="node">What it holds.</param>
/// <param name="regions">Adopts regions.</param>
/// <param name="runs">The runs, which have been restored.</param>
/// <param name="guests">Serves the programs from now on.</param>
/// <param name="jobs">The jobs, which have been restored; hears of ranks that are no more.</param>
internal sealed class NodeAdopter(KeeperClient keeper, KeptNode node, RegionAdopter regions, Runs runs, GuestServer guests, JobServer jobs)
{
    private const string Unknown = "its agent was killed, and the next one cannot take it over";

    /// <summary>Takes over what it can.</summary>
    /// <returns>What was done, for the log.</returns>
    /// <exception cref="IOException">There is no room, no keeper any more, or a guest cannot be ended.</exception>
    public string Adopt()
    {
        int homeCount = 0, guestCount = 0;
        var left = new List<KeptGuest>(node.Guests);
        foreach (RegionId id in regions.Find())
        {
            try
            {
                (string name, _, RegionTraits traits) = regions.Look(id);
                if ((traits & RegionTraits.IsShared) != 0 && jobs.IsForgotten(id))
                {
                    Log.Info($"region {name} is not taken over: the job that made it is over, or makes it anew");
                }
                else if ((traits & RegionTraits.IsUsed) == 0)
                {
                    _ = regions.Adopt(id, run: null);
                    homeCount++;
                }
                else if ((traits & RegionTraits.IsShared) == 0 && UserOf(id) is var (user, run))
                {
                    guests.Adopt(user, [.. node.MappingsOf(user)], regions.Adopt(id, run));
                    _ = left.Remove(user);
                    guestCount++;
                }
                else if ((traits & RegionTraits.IsShared) != 0 && runs.All.FirstOrDefault(run => run.RegionsLeft.Contains(id)) is { Job: { } job } shared)
                {
                    job.Regions.Add(regions.Adopt(id, shared));
                }
                else
                {
                    Log.Info($"region {name} is not taken over: nobody of this node uses it any more");
                }
            }
            catch (Exception e) when (e is InvalidDataException or IOException { HResult: Errno.ENOENT }) // a region that was being made has not all files yet
            {
                Log.Error($"{id} is not taken over: {e.Message}");
            }
        }
        foreach (KeptGuest rank in left.Where(guest => guest.Who.Rank is not null && !guest.IsGone).ToArray())
        {
            if (!TryAdoptRank(rank)) continue;
            _ = left.Remove(rank);
            guestCount++;
        }
        // Who has attached, and was not told yet, has nothing: it will attach again.
        KeptGuest[] early = [.. left.Where(guest => !guest.IsGone && guest.Who.Rank is null && !node.MappingsOf(guest).Any())];
        foreach (KeptGuest guest in early) KeptGuests.Drop(keeper, node, guest);
        KeptGuest[] lost = [.. left.Except(early)];
        foreach (KeptGuest guest in lost.Where(guest => !guest.IsGone))
            runs.Find(guest.Who.RunToken)?.Observer.OnMessage($"process {guest.Who.Process.ProcessId} ({guest.Who.Name}) was ended: {Unknown}");
        int ended = KeptGuests.End(keeper, node, lost, Unknown);
        foreach (KeptGuest rank in lost)
        {
            if (rank.Who.Rank is { } number && runs.Find(rank.Who.RunToken)?.Job is { } job)
                jobs.OnRankGone(job, number, $"rank {number} (process {rank.Who.Process.ProcessId} on {guests.NodeName}) has ended");
        }
        regions.DiscardOthers();
        string text = $"took over {guestCount} {(guestCount == 1 ? "guest" : "guests")}, and {homeCount} {(homeCount == 1 ? "region" : "regions")} of other nodes, of an agent that was killed";
        return ended == 0 ? text : $"{text}; {ended} {(ended == 1 ? "guest" : "guests")} could not be taken over, and {(ended == 1 ? "was" : "were")} ended";
    }

    /// <summary>Takes over a rank, if all that it has mapped was taken over.</summary>
    private bool TryAdoptRank(KeptGuest rank)
    {
        if (runs.Find(rank.Who.RunToken) is not { Job: { } job } run) return false;
        KeptMapping[] mappings = [.. node.MappingsOf(rank)];
        if (!Array.TrueForAll(mappings, mapping => job.FindRegion(mapping.Range.Region) is not null)) return false;
        guests.AdoptRank(rank, mappings, run);
        return true;
    }

    /// <summary>The program whose region it is, if it lives, and has been told that it may use it.</summary>
    private (KeptGuest User, Run Run)? UserOf(RegionId id)
    {
        KeptGuest? user = node.Guests.FirstOrDefault(guest => guest.Who.Region == id && !guest.IsGone && node.MappingsOf(guest).Any());
        return user is not null && runs.Find(user.Who.RunToken) is { } run ? (user, run) : null;
    }
}
