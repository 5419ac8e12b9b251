// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent.Guests;
using VSmp.Agent.Interop;
using VSmp.Agent.Paging;
using VSmp.Coherence;
using VSmp.Coherence.Lazy;

namespace VSmp.Agent.Jobs;

/// <summary>
/// Which calls order ranks: under lazy release consistency they release before and acquire after. Whatever one rank can learn from
/// another through the library is among them, handing memory on included; so programs that know no other way have no data races.
/// </summary>
internal static class Synchronization
{
    /// <summary>Whether what the rank wrote must be seen by whoever the call lets go on.</summary>
    public static bool Releases(GuestRequest call) => IsBoth(call) || call is GuestRequest.Unlock or GuestRequest.Free or GuestRequest.ReleaseRegion;

    /// <summary>Whether the rank must see what was released before the call succeeded.</summary>
    public static bool Acquires(in GuestMessage reply)
    {
        GuestRequest call = reply.Type & ~GuestRequest.Reply;
        // With EOWNERDEAD the lock is held.
        return reply.Status is 0 or Errno.EOWNERDEAD && (IsBoth(call) || call is GuestRequest.Lock or GuestRequest.Alloc or GuestRequest.Acquire);
    }

    private static bool IsBoth(GuestRequest call) =>
        call is GuestRequest.Barrier or GuestRequest.Broadcast or GuestRequest.AllocAll or GuestRequest.FetchAdd;
}

/// <summary>
/// Calls of a node's ranks that wait for the homes to merge what was written: in one queue, since what one rank's call tells the leader
/// may include what another rank wrote.
/// </summary>
/// <param name="pager">Steps the protocol.</param>
/// <param name="regions">The job's regions here.</param>
/// <param name="sendWrites">Tells the leader which pages were written.</param>
/// <param name="sendCall">Lets a call go on to the leader.</param>
internal sealed class ReleaseQueue(Pager pager, List<PagedRegion> regions, Action<RegionId, List<PageNumber>> sendWrites,
    Action<int, GuestMessage, byte[]> sendCall)
{
    private readonly Queue<(int Rank, GuestMessage Call, byte[] Data)> _waiting = [];
    private readonly List<PageNumber> _pages = [];

    /// <summary>Releases on behalf of a call, which goes on when that is complete.</summary>
    public void Release(int rank, in GuestMessage call, byte[] data)
    {
        foreach (PagedRegion region in regions)
        {
            if (region.Protocol is LazyProtocol lazy) pager.Release(lazy);
        }
        _waiting.Enqueue((rank, call, data));
        Continue();
    }

    /// <summary>Looks whether the releases are complete: diffs may have been acknowledged.</summary>
    public void Continue()
    {
        if (_waiting.Count == 0) return;
        bool isComplete = true;
        foreach (PagedRegion region in regions)
        {
            if (region.Protocol is not LazyProtocol lazy) continue;
            _pages.Clear();
            if (!LazyNodeController.TryTakeNotices(lazy.Region, _pages)) isComplete = false;
            else if (_pages.Count > 0) sendWrites(region.Id, _pages);
        }
        while (isComplete && _waiting.TryDequeue(out var waiting)) sendCall(waiting.Rank, waiting.Call, waiting.Data);
    }

    /// <summary>The job is broken: nothing goes on.</summary>
    public void Drop() => _waiting.Clear();
}
