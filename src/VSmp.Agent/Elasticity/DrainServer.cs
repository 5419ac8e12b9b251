// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent.Control;
using VSmp.Agent.Guests;
using VSmp.Agent.Jobs;
using VSmp.Agent.Paging;
using VSmp.Coherence;
using VSmp.Coherence.Homes;

namespace VSmp.Agent.Elasticity;

/// <summary>
/// Empties this node, so that it can leave: it takes nothing new, and says so; the nodes whose guests have memory here move that elsewhere
/// (<see cref="HomeMover"/>); when nothing is left, no guest and no job, the node leaves. Owned by the reactor.
/// </summary>
internal sealed class DrainServer
{
    private const long CheckPeriodMicroseconds = 200_000;

    /// <summary>Who watches is to see that it is done, before the node is gone.</summary>
    private const long FarewellMicroseconds = 1_000_000;

    private readonly NodeId _self;
    private readonly Reactor _reactor;
    private readonly Pager _pager;
    private readonly Peers _peers;
    private readonly Reservations _reservations;
    private readonly Runs _runs;
    private readonly Action _tell;
    private readonly Action<string> _leave;
    private long _emptySince;
    private ulong _mostBytes;

    /// <summary>Makes the server of a node.</summary>
    /// <param name="self">The node.</param>
    /// <param name="reactor">Its reactor.</param>
    /// <param name="pager">Its regions.</param>
    /// <param name="peers">The others.</param>
    /// <param name="reservations">Is closed while the node is emptied.</param>
    /// <param name="runs">Its guests.</param>
    /// <param name="tell">Tells the others that something has changed.</param>
    /// <param name="leave">Ends the agent.</param>
    public DrainServer(NodeId self, Reactor reactor, Pager pager, Peers peers, Reservations reservations, Runs runs, Action tell, Action<string> leave)
    {
        _self = self;
        _reactor = reactor;
        _pager = pager;
        _peers = peers;
        _reservations = reservations;
        _runs = runs;
        _tell = tell;
        _leave = leave;
        reactor.Every(CheckPeriodMicroseconds, Check, () => IsDraining);
    }

    /// <summary>Whether the cluster could not do without this node.</summary>
    public bool IsCoordinator { get; init; }

    /// <summary>Whether the node is being emptied.</summary>
    public bool IsDraining { get; private set; }

    /// <summary>How far it is.</summary>
    public DrainStatus Status()
    {
        ulong left = BytesOfOthers();
        _mostBytes = Math.Max(_mostBytes, left);
        return new DrainStatus(IsDraining, left, _mostBytes, _emptySince != 0,
            [.. _runs.All.Where(r => r.Job is null).SelectMany(r => r.Guests.Count == 0 ? [$"{r.Request.Program} (process {r.Request.ProcessId})"] : r.Guests.Select(g => $"{r.Request.Program} (process {g.ProcessId})"))],
            [.. Jobs()]);
    }

    /// <summary>Begins, unless the others have no room for what is here.</summary>
    /// <exception cref="ControlException">They have not; the message says how much is missing. Nothing has changed.</exception>
    public DrainStatus Begin()
    {
        if (IsDraining) return Status();
        if (IsCoordinator)
        {
            throw new ControlException($"node {_peers.NameOf(_self)} coordinates the cluster: without it nobody could join or leave; drain another", ExitCodes.Refused);
        }
        CheckRoom();
        _mostBytes = 0;
        Set(true);
        Log.Info("draining: this node is being emptied, and takes nothing new");
        return Status();
    }

    /// <summary>Stops: what was moved stays moved; the node takes memory again.</summary>
    public DrainStatus Stop()
    {
        if (IsDraining)
        {
            Set(false);
            Log.Info("draining is stopped: this node takes memory again");
        }
        return Status();
    }

    private void Set(bool on)
    {
        IsDraining = on;
        _reservations.IsClosed = on;
        _emptySince = 0;
        if (_peers.Find(_self) is { } self) self.IsDraining = on;
        _tell();
    }

    private void Check()
    {
        bool isEmpty = BytesOfOthers() == 0 && _runs.All.Count == 0 && !Jobs().Any();
        if (!isEmpty)
        {
            _emptySince = 0;
            return;
        }
        long now = _reactor.NowMicroseconds;
        if (_emptySince == 0) _emptySince = now;
        else if (now - _emptySince >= FarewellMicroseconds) _leave("it was drained");
    }

    private IEnumerable<PagedRegion> RegionsOfOthers() => _pager.Regions.Where(r => r.Run is null && !r.IsShared && r.GivenExtents > 0);

    private ulong BytesOfOthers() => RegionsOfOthers().Aggregate(0ul, (sum, r) => sum + (r.GivenExtents * (ulong)ExtentNumber.Bytes));

    private IEnumerable<string> Jobs() => _pager.Regions.Where(r => r.IsShared)
        .Select(r => $"{r.Layout.Name} (job led by {_peers.NameOf(r.Id.Creator)})")
        .Concat(_runs.All.Where(r => r.Job is not null).Select(r => r.Request.Program)).Distinct();

    /// <summary>
    /// Extents may go to any node but the one whose guest they belong to, and the one that has them already. For each such pair there must be room, and in
    /// all; that is a little less strict than it could be: where it is not enough, draining waits for room, and says so.
    /// </summary>
    private void CheckRoom()
    {
        var needs = new Dictionary<(NodeId Guest, NodeId Partner), long>();
        foreach (PagedRegion region in RegionsOfOthers())
        {
            for (uint e = 0; e < region.Layout.ExtentCount; e++)
            {
                ExtentNumber extent = new(e);
                MirrorSet? mirrored = region.Mirrored;
                NodeId partner = region.Layout.IsHome(extent) ? Pager.MirrorOf(region, extent)
                    : mirrored?.Contains(extent) == true ? mirrored.HomeOf(extent) : NodeId.None;
                if (!region.Layout.IsHome(extent) && mirrored?.Contains(extent) != true) continue;
                var key = (region.Id.Creator, partner);
                needs[key] = needs.GetValueOrDefault(key) + 1;
            }
        }
        Peer[] others = [.. _peers.All.Where(p => p.Node != _self && p is { IsUp: true, IsDraining: false })];
        long missing = Missing(needs.Values.Sum(), others.Where(p => needs.Keys.Any(k => p.Node != k.Guest && p.Node != k.Partner)));
        foreach (((NodeId guest, NodeId partner), long count) in needs)
        {
            missing = Math.Max(missing, Missing(count, others.Where(p => p.Node != guest && p.Node != partner)));
        }
        if (missing <= 0) return;
        throw new ControlException($"node {_peers.NameOf(_self)} cannot be emptied: {missing * ExtentNumber.Bytes >> 20} MiB of the {needs.Values.Sum() * ExtentNumber.Bytes >> 20} MiB that others "
            + "have here find no room elsewhere (memory moves neither to its guest's own node, nor to where its second home is); add a node, or end guests", ExitCodes.NoMemory);
    }

    private static long Missing(long needed, IEnumerable<Peer> places) => needed - places.Sum(p => Math.Max(0, p.FreeExtents));
}

/// <summary>How far the emptying of a node is.</summary>
/// <param name="IsDraining">Whether it is being emptied.</param>
/// <param name="LeftBytes">Reserved here by guests of other nodes.</param>
/// <param name="MostBytes">The most of that since it began.</param>
/// <param name="IsLeaving">Whether nothing is left, and the node is about to leave.</param>
/// <param name="Guests">Programs that run on the node: they cannot be moved.</param>
/// <param name="Jobs">Jobs that have memory or ranks here: they cannot be moved.</param>
internal sealed record DrainStatus(bool IsDraining, ulong LeftBytes, ulong MostBytes, bool IsLeaving, string[] Guests, string[] Jobs);

/// <summary>How far a node is with moving homes of what was made there.</summary>
/// <param name="IsRebalancing">Whether it goes on.</param>
/// <param name="MovedBytes">Moved since the agent started.</param>
internal sealed record RebalanceStatus(bool IsRebalancing, ulong MovedBytes);
