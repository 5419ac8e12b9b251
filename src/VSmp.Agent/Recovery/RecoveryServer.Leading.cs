// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent.Paging;
using VSmp.Coherence;
using VSmp.Coherence.Messages;
using VSmp.Coherence.Placement;
using VSmp.Coherence.Recovery;

namespace VSmp.Agent.Recovery;

/// <content>Leads the recovery of regions that were made here: guests' own, and those of jobs.</content>
internal sealed partial class RecoveryServer
{
    private readonly Dictionary<RegionId, LedRecovery> _underWay = [];
    private readonly Dictionary<RegionId, LedRegion> _shared = [];
    private readonly Dictionary<RegionId, PageNumber[]> _reported = []; // what was lost at the last recovery: users know of it
    private readonly Dictionary<RegionId, int> _adoptions = []; // answers that are out of nodes that are to be homes of what has none

    /// <summary>Raised when a region that was made here has been recovered.</summary>
    public event Action<LedRegion>? Recovered;

    /// <summary>Raised before a region that was made here is frozen because of a loss: what is being moved or copied is void.</summary>
    public event Action<LedRegion>? Interrupting;

    /// <summary>Whether a node has to do with a region in a way that its home map does not know of.</summary>
    public Func<LedRegion, NodeId, bool> IsInvolved { get; set; } = (_, _) => false;

    /// <summary>Raised when a region of a job that is led here is gone.</summary>
    public event Action<RegionId>? Dropped;

    /// <summary>What has been lost for good since the start.</summary>
    public List<LostMemory> Losses { get; } = [];

    /// <summary>The regions whose recovery this node leads.</summary>
    public IEnumerable<LedRegion> Led => _pager.Regions.Where(IsGuestsOwn).Select(NewGuestRegion).Concat(_shared.Values);

    /// <summary>A region that this node leads, or null.</summary>
    public LedRegion? FindLed(RegionId region)
    {
        if (_shared.TryGetValue(region, out LedRegion? shared)) return shared;
        return _pager.Find(region) is { } own && IsGuestsOwn(own) ? NewGuestRegion(own) : null;
    }

    /// <summary>Whether a region that is led here is being recovered.</summary>
    public bool IsUnderWay(RegionId region) => _underWay.ContainsKey(region);

    /// <summary>Whether homes of a region can be moved now: its directories are there, and nothing is being done about a loss.</summary>
    public bool IsQuiet(LedRegion region) => region.IsMovable && _pager.Find(region.Id) is { } here && !Pager.IsFrozen(here)
        && !IsUnderWay(region.Id) && !_adoptions.ContainsKey(region.Id);

    /// <summary>
    /// Extents and their mirrors change places: the mirrors become the homes, and the homes the mirrors. It is a recovery like any other, though nobody is
    /// lost; if somebody is meanwhile, it is one more.
    /// </summary>
    /// <param name="region">A region that is quiet; each extent has a mirror that has all.</param>
    /// <param name="extents">Which, ascending.</param>
    public void SwapHomes(LedRegion region, IReadOnlyList<ExtentNumber> extents)
    {
        HomeMap homes = region.Homes;
        var moves = new List<HomeMove>();
        foreach (ExtentNumber extent in extents)
        {
            NodeId from = homes.HomeOf(extent), to = homes.MirrorOf(extent);
            homes.Place(extent, to);
            homes.PlaceMirror(extent, from);
            region.OnHomeMoved(from, to);
            bool isNext = moves.Count > 0 && moves[^1] is var last && last.Home == to && last.Mirror == from && last.First.Value + last.Count == extent.Value;
            if (isNext) moves[^1] = moves[^1] with { Count = moves[^1].Count + 1 };
            else moves.Add(new HomeMove(extent, 1, to, from));
        }
        Begin(region, moves);
    }

    /// <summary>A region of a job is there; this node has made it.</summary>
    public void Lead(LedRegion region) => _shared.Add(region.Id, region);

    /// <summary>A region of a job is gone.</summary>
    public void Drop(RegionId region)
    {
        if (!_shared.Remove(region)) return;
        Forget(region);
        Dropped?.Invoke(region);
    }

    private bool IsGuestsOwn(PagedRegion region) => region is { Run.Job: null, Layout.Homes: not null } && region.Id.Creator == _self;

    private GuestRegion NewGuestRegion(PagedRegion region) => new(_self, region, _peers, _reservations);

    private bool IsTouchedBy(LedRegion region, NodeId node)
    {
        if (region.Users.Contains(node)) return true; // it may have copies, and hears nothing of the region before it is recovered
        if (_underWay.TryGetValue(region.Id, out LedRecovery? recovery) && recovery.Participants.Contains(node)) return true;
        for (uint e = 0; e < region.ExtentCount; e++)
        {
            ExtentNumber extent = new(e);
            if (region.Homes.HomeOf(extent) == node || region.Homes.MirrorOf(extent) == node) return true;
        }
        return false;
    }

    private void Begin(LedRegion region)
    {
        if (_adoptions.ContainsKey(region.Id)) return; // when the answers are there
        Interrupting?.Invoke(region);
        if (FindHomesForOrphans(region)) return;
        region.HasLostNode |= LostFor(region).Any(lost => IsTouchedBy(region, lost) || IsInvolved(region, lost));
        Begin(region, []);
    }

    private void Begin(LedRegion region, IReadOnlyList<HomeMove> moves)
    {
        var participants = new HashSet<NodeId>();
        region.AddParticipants(participants);
        HashSet<NodeId> lost = LostFor(region);
        string[] names = [.. lost.Where(n => IsTouchedBy(region, n)).Select(NameOfLost)];
        MoveHomes(region, participants);
        participants.RemoveWhere(lost.Contains);
        _underWay.TryGetValue(region.Id, out LedRecovery? earlier);
        Generation generation = (earlier?.Leader.Generation ?? region.Generation).Next();
        var recovery = new LedRecovery(region, earlier?.Leader ?? new RecoveryLeader(), [.. participants], Reactor.Clock());
        recovery.Lost.UnionWith(earlier?.Lost ?? []);
        recovery.Lost.UnionWith(names);
        // What was moving moves on, unless one of the two is lost: then the other is the home, as after any loss.
        recovery.Moves.AddRange(moves);
        recovery.Moves.AddRange(earlier?.Moves.Where(m => !lost.Contains(m.Home) && !lost.Contains(m.Mirror)) ?? []);
        bool isAdopted = _adopted.Contains(region.Id);
        if (isAdopted)
        {
            recovery.Moves.Clear();
            recovery.Moves.AddRange(region.Places());
        }
        _underWay[region.Id] = recovery;
        recovery.Leader.Begin(generation, participants, region.HomesAmong(participants));
        region.Generation = generation;
        int others = participants.Contains(_self) ? participants.Count - 1 : participants.Count;
        string why = names.Length > 0 ? $"{string.Join(", ", names)} lost" : isAdopted || recovery.Moves.Count == 0 ? "an agent was started again" : $"{recovery.Moves.Sum(m => m.Count)} extents get another home";
        Log.Info($"recovery of {region.Name}: {why}; {others} other nodes take part");
        recovery.Forgetful.UnionWith(lost.Except(_lost));
        var plan = new RecoveryPlan([.. lost], region.Users, IsAnyUserLost: false) { Moves = recovery.Moves, Forgetful = [.. recovery.Forgetful] }; // without any of its users a region is not recovered
        byte[] bytes = PlanFormat.Write(plan);
        bool takesPart = participants.Contains(_self);
        // Here first: the agent that comes after this one must know of every generation that others may have heard of.
        if (takesPart && _pager.Find(region.Id) is { } here) Freeze(here, generation, plan);
        foreach (NodeId participant in participants)
        {
            if (participant != _self) SendPlan(participant, region.Id, generation, bytes);
        }
        if (takesPart) OnFrozen(_self, region.Id, generation);
    }

    private void SendPlan(NodeId to, RegionId region, Generation generation, ReadOnlySpan<byte> plan)
    {
        while (!plan.IsEmpty)
        {
            ReadOnlySpan<byte> piece = plan[..Math.Min(plan.Length, FrameHeader.MaxPayloadBytes)];
            plan = plan[piece.Length..];
            piece.CopyTo(_fabric.Begin(to, piece.Length));
            _fabric.Commit(NewHeader(MessageType.RegionFreeze, region, generation) with { Argument0 = plan.IsEmpty ? 0ul : MorePieces });
        }
    }

    /// <summary>
    /// Extents whose home is lost, and which have no mirror, need a home all the same: what users have of their pages must be able to go somewhere. A
    /// node with room becomes their mirror, of which nothing is known; then all goes as with any mirror.
    /// </summary>
    /// <returns>Whether somebody was asked: the recovery begins when all have answered.</returns>
    private bool FindHomesForOrphans(LedRegion region)
    {
        HomeMap homes = region.Homes;
        HashSet<NodeId> lost = LostFor(region);
        _adoptions[region.Id] = 1; // this one: an answer may be there at once
        for (uint e = 0; e < region.ExtentCount;)
        {
            ExtentNumber first = new(e);
            NodeId home = homes.HomeOf(first);
            uint count = 0;
            while (e + count < region.ExtentCount && IsOrphan(homes, lost, new ExtentNumber(e + count), home)) count++;
            e += Math.Max(count, 1);
            if (count == 0) continue;
            NodeId adopter = region.Choose(home, lost, isHome: true);
            if (adopter.IsNone)
            {
                _adoptions.Remove(region.Id);
                region.Fail($"node {NameOfLost(home)} is lost");
                return true;
            }
            count = (uint)Math.Min(count, Math.Max(1, _reservations.FreeExtentsOf(adopter)));
            e = first.Value + count;
            _adoptions[region.Id]++;
            _reservations.AskLateMirror(region, adopter, home, first, count, granted => OnAdopted(region, adopter, first, count, granted));
        }
        if (--_adoptions[region.Id] > 0) return true;
        _adoptions.Remove(region.Id);
        return false; // only this node itself was asked, if any
    }

    private static bool IsOrphan(HomeMap homes, HashSet<NodeId> lost, ExtentNumber extent, NodeId home) => !home.IsNone && homes.HomeOf(extent) == home
        && lost.Contains(home) && (homes.MirrorOf(extent) is var mirror && (mirror.IsNone || lost.Contains(mirror)));

    private void OnAdopted(LedRegion region, NodeId adopter, ExtentNumber first, uint count, bool granted)
    {
        if (FindLed(region.Id) is null) return; // dropped, there as well
        if (!_adoptions.ContainsKey(region.Id))
        {
            if (granted) _reservations.ReleaseMirror(region.Id, adopter, first, count); // somebody else had no room
            return;
        }
        HomeMap homes = region.Homes;
        HashSet<NodeId> lost = LostFor(region);
        for (uint i = 0; i < count && granted; i++)
        {
            ExtentNumber extent = new(first.Value + i);
            if (IsOrphan(homes, lost, extent, homes.HomeOf(extent))) homes.PlaceMirror(extent, adopter);
            else _reservations.ReleaseMirror(region.Id, adopter, extent, 1);
        }
        if (--_adoptions[region.Id] > 0) return;
        _adoptions.Remove(region.Id);
        Begin(region); // looks again: who refused has said how much room there is
    }

    /// <summary>Mirrors of what is lost become homes.</summary>
    private void MoveHomes(LedRegion region, HashSet<NodeId> participants)
    {
        HomeMap homes = region.Homes;
        HashSet<NodeId> lost = LostFor(region);
        for (uint e = 0; e < region.ExtentCount; e++)
        {
            ExtentNumber extent = new(e);
            NodeId home = homes.HomeOf(extent), mirror = homes.MirrorOf(extent);
            if (home.IsNone) continue;
            if (lost.Contains(mirror))
            {
                mirror = NodeId.None;
                homes.PlaceMirror(extent, mirror);
            }
            if (lost.Contains(home))
            {
                homes.Place(extent, mirror);
                homes.PlaceMirror(extent, NodeId.None);
                region.OnHomeMoved(home, mirror);
                (home, mirror) = (mirror, NodeId.None);
            }
            participants.Add(home);
            if (!mirror.IsNone) participants.Add(mirror);
        }
    }

    private void OnFrozen(NodeId node, RegionId id, Generation generation)
    {
        if (!_underWay.TryGetValue(id, out LedRecovery? recovery) || !recovery.Leader.OnFrozen(node, generation)) return;
        recovery.FrozenMicroseconds = Reactor.Clock();
        LedRegion region = recovery.Region;
        List<byte[]>? moved = null;
        foreach (NodeId user in region.Users)
        {
            if (user == _self) continue;
            moved ??= HomeRuns.Write(region.Homes);
            for (int i = 0; i < moved.Count; i++)
            {
                moved[i].CopyTo(_fabric.Begin(user, moved[i].Length));
                _fabric.Commit(NewHeader(MessageType.RegionRebuild, id, generation) with { Argument0 = i == moved.Count - 1 ? 1ul : 0 });
            }
        }
        if (!region.Users.Contains(_self) || _pager.Find(id) is not { } here) return;
        if (here.IsShared)
        {
            foreach (byte[] piece in HomeRuns.Write(region.Homes))
            {
                if (HomeRuns.TryRead(piece, region.ExtentCount, _runs)) MoveHomes(here, _runs);
            }
        }
        SendClaims(here, [.. region.HomesAmong(recovery.Participants)]);
    }

    private void OnRebuilt(NodeId peer, in FrameHeader header, ReadOnlySpan<byte> payload)
    {
        if (!_underWay.TryGetValue(header.Region, out LedRecovery? recovery) || recovery.Leader.Generation != header.Generation) return;
        recovery.LostPages.AddRange(PageRuns.Read(payload, (ulong)recovery.Region.ExtentCount << ExtentNumber.PagesShift));
        if (header.Argument0 == 0) return; // more to come
        OnRebuilt(peer, recovery, header.Generation);
    }

    private void OnRebuilt(NodeId node, LedRecovery recovery, Generation generation)
    {
        if (!recovery.Leader.OnRebuilt(node, generation)) return;
        LedRegion region = recovery.Region;
        foreach (NodeId participant in recovery.Participants)
        {
            if (participant != _self) Send(participant, MessageType.RegionThaw, region.Id, generation, []);
        }
        _underWay.Remove(region.Id);
        _adopted.Remove(region.Id);
        ForgetForgetful(recovery);
        PagedRegion? here = _pager.Find(region.Id);
        if (here is not null && recovery.Participants.Contains(_self)) _pager.Thaw(here);
        long now = Reactor.Clock();
        int lost = recovery.LostPages.Count;
        Report(recovery);
        string outcome = lost == 0 ? "nothing is lost" : $"{lost} pages are lost (vsmp report lost)";
        Log.Info($"recovery of {region.Name}: done in {(now - recovery.StartedMicroseconds) / 1000.0:0.0} ms"
            + $" (frozen after {(recovery.FrozenMicroseconds - recovery.StartedMicroseconds) / 1000.0:0.0}), generation {generation.Value}; {outcome}");
        if (here is { IsShared: false }) _reservations.OnThawed(here);
        Recovered?.Invoke(region);
    }

    /// <summary>
    /// Nothing of the region is where it was forgotten; something new may be. Not so where that came out after this recovery had begun: the next one, which may have to
    /// wait for others, has to know.
    /// </summary>
    private void ForgetForgetful(LedRecovery recovery)
    {
        if (!_forgotten.TryGetValue(recovery.Region.Id, out HashSet<NodeId>? forgetful)) return;
        forgetful.ExceptWith(recovery.Forgetful);
        if (forgetful.Count == 0) _forgotten.Remove(recovery.Region.Id);
    }

    /// <summary>Tells of pages that are lost, of each once.</summary>
    private void Report(LedRecovery recovery)
    {
        _reported.TryGetValue(recovery.Region.Id, out PageNumber[]? reported);
        _reported[recovery.Region.Id] = [.. recovery.LostPages];
        PageNumber[] pages = [.. recovery.LostPages.Except(reported ?? []).OrderBy(page => page.Value)];
        if (pages.Length == 0) return;
        string nodes = recovery.Lost.Count > 0 ? string.Join(", ", recovery.Lost) : "a node lost before";
        (int processId, string program) = recovery.Region.Guest;
        if (Losses.Count == MaxLosses) Losses.RemoveAt(0);
        Losses.Add(new LostMemory(recovery.Region.Name, processId, program, nodes, pages));
        recovery.Region.TellOfLoss(nodes, pages.Length);
    }

    private sealed class LedRecovery(LedRegion region, RecoveryLeader leader, NodeId[] participants, long startedMicroseconds)
    {
        public LedRegion Region { get; } = region;
        public RecoveryLeader Leader { get; } = leader;
        public NodeId[] Participants { get; } = participants;
        public SortedSet<string> Lost { get; } = new(StringComparer.Ordinal);
        public HashSet<NodeId> Forgetful { get; } = [];
        public List<PageNumber> LostPages { get; } = [];
        public List<HomeMove> Moves { get; } = [];
        public long StartedMicroseconds { get; } = startedMicroseconds;
        public long FrozenMicroseconds { get; set; }
    }
}
