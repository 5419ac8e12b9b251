// SPDX-License-Identifier: Apache-2.0
using System.Globalization;
using VSmp.Agent.Checkpointing;
using VSmp.Agent.Checkpointing.Files;
using VSmp.Agent.Elasticity;
using VSmp.Agent.Guests;
using VSmp.Agent.Interop;
using VSmp.Agent.Jobs;
using VSmp.Agent.Membership;
using VSmp.Agent.Paging;
using VSmp.Agent.Recovery;
using VSmp.Coherence;

namespace VSmp.Agent.Control;

/// <summary>What the control socket asks of this agent: every question is answered on the reactor's thread.</summary>
internal sealed class AgentControl(AgentOptions options, Reactor reactor, AgentParts parts, Action<string> shutDown) : IAgentControl
{
    private readonly Dictionary<string, TaskCompletionSource<RunStatistics>> _ending = [];

    /// <inheritdoc/>
    public Task<ClusterStatus> GetStatusAsync() => reactor.Ask(() => new ClusterStatus(
        options.Cluster, parts.Membership.View.Value, parts.Membership.Epoch.Value, options.Name, parts.Peers.All.Select(StatusOf).ToArray(), parts.Fabric(),
        new AgentStatistics(parts.Pager.FaultCount, (ulong)GC.GetAllocatedBytesForCurrentThread()))
    {
        Membership = parts.Membership.Decision,
        MembershipProblem = parts.Membership.StoreProblem,
    });

    /// <inheritdoc/>
    public Task<IReadOnlyList<GuestStatus>> GetGuestsAsync() => reactor.Ask(() => (IReadOnlyList<GuestStatus>)parts.Runs.Guests.Select(StatusOf).ToArray());

    /// <inheritdoc/>
    public Task<IReadOnlyList<RegionStatus>> GetRegionsAsync() =>
        reactor.Ask(() => (IReadOnlyList<RegionStatus>)parts.Pager.Regions.Select(StatusOf).ToArray());

    /// <inheritdoc/>
    public Task<IReadOnlyList<LossStatus>> GetLossesAsync() =>
        reactor.Ask(() => (IReadOnlyList<LossStatus>)parts.Recovery.Losses.Select(StatusOf).ToArray());

    /// <inheritdoc/>
    public Task<bool> StopGuestAsync(int processId) => reactor.Ask(() =>
    {
        Guest? guest = parts.Runs.FindGuest(processId);
        guest?.Kill("stopped by vsmp guest stop");
        return guest is not null;
    });

    /// <inheritdoc/>
    public Task<RunTicket> BeginRunAsync(RunRequest request, IRunObserver observer) => reactor.Ask(() =>
    {
        if (parts.Drain.IsDraining)
        {
            throw new ControlException($"node {options.Name} is being drained, to leave the cluster: use another (--node), or stop that: vsmp node drain {options.Name} --stop", ExitCodes.Refused);
        }
        // What regions of ranks survive, their job says.
        request = request with { Redundancy = request.Job is null ? request.Redundancy ?? options.Redundancy : Redundancy.None };
        Run run = parts.Runs.Begin(request, observer, parts.Reservations.Holders);
        run.FabricBefore = parts.Fabric();
        // Before a rank of it can ask for memory, everybody knows what its budget has left here.
        parts.SendReports();
        if (request.Job is { } job) parts.Jobs.BeginRun(run, job);
        return new RunTicket(run.Token, options.Folder.GuestSocket, run.LocalBytes);
    });

    /// <inheritdoc/>
    public Task<RunTicket?> ResumeRunAsync(string token, uint userId, IRunObserver observer) => reactor.Ask(() =>
    {
        if (parts.Runs.Find(token) is not { } run) return null;
        if (userId != run.Request.UserId && userId != 0) throw new ControlException("the run belongs to another user", ExitCodes.Refused);
        if (!run.IsAwaitingSupervisor) throw new ControlException("the run has its vsmp run", ExitCodes.Taken);
        if (_ending.ContainsKey(token)) throw new ControlException("the run is ended: its vsmp run did not come back to it in time", ExitCodes.AgentLost);
        run.Resume(observer);
        return new RunTicket(run.Token, options.Folder.GuestSocket, run.LocalBytes);
    });

    /// <inheritdoc/>
    public async Task<JobTicket> BeginJobAsync(JobRequest request, uint userId, int processId, IRunObserver observer)
    {
        // Here, since disks are slow.
        CheckpointSeries? series = request.Checkpoint is { } wish ? CheckpointSeries.Open(parts.Files, wish, userId) : null;
        try
        {
            return await reactor.Ask(() => parts.Jobs.Begin(request with { Redundancy = request.Redundancy ?? options.Redundancy }, userId, processId, series, observer)).ConfigureAwait(false);
        }
        catch
        {
            series?.Dispose();
            throw;
        }
    }

    /// <inheritdoc/>
    public Task<JobTicket?> ResumeJobAsync(string token, uint userId, IRunObserver observer) => reactor.Ask(() => parts.Jobs.Resume(token, userId, observer));

    /// <inheritdoc/>
    public Task ReportRankAsync(ulong job, int rank, string how) => reactor.Ask(() =>
    {
        parts.Jobs.OnRankEnded(new JobId(job), rank, how);
        return true;
    });

    /// <inheritdoc/>
    public Task StartRanksAsync(ulong job, uint userId, uint groupId, RankProgram program) => reactor.Ask(() =>
    {
        parts.Jobs.StartRanks(new JobId(job), userId, groupId, program);
        return true;
    });

    /// <inheritdoc/>
    public Task SignalRanksAsync(ulong job, int signal) => reactor.Ask(() =>
    {
        parts.Jobs.SignalRanks(new JobId(job), signal);
        return true;
    });

    /// <inheritdoc/>
    public Task PassInputAsync(ulong job, int rank, byte[] data) => reactor.Ask(() =>
    {
        parts.Jobs.PassInput(new JobId(job), rank, data);
        return true;
    });

    /// <inheritdoc/>
    public Task InputTakenAsync(int processId, int rank) => reactor.Ask(() =>
    {
        parts.Jobs.OnInputTaken(processId, rank);
        return true;
    });

    /// <inheritdoc/>
    public Task<RankOrders> TakeRanksAsync(int processId, IRunObserver observer) => reactor.Ask(() => parts.Jobs.TakeRanks(processId, observer));

    /// <inheritdoc/>
    public async Task PassOutputAsync(int processId, int rank, int stream, byte[] data)
    {
        Task passedOn = await reactor.Ask(() => parts.Jobs.PassOutput(processId, rank, stream, data)).ConfigureAwait(false);
        await passedOn.ConfigureAwait(false);
    }

    /// <inheritdoc/>
    public Task RankEndedAsync(int processId, int rank, bool isSignaled, int status, string text) => reactor.Ask(() =>
    {
        parts.Jobs.OnRemoteRankEnded(processId, rank, isSignaled, status, text);
        return true;
    });

    /// <inheritdoc/>
    public Task EndJobAsync(ulong job) => reactor.Ask(() =>
    {
        parts.Jobs.End(new JobId(job));
        return true;
    });

    /// <inheritdoc/>
    public Task<RunStatistics> EndRunAsync(string token)
    {
        var ended = new TaskCompletionSource<RunStatistics>(TaskCreationOptions.RunContinuationsAsynchronously);
        reactor.Post(() =>
        {
            if (parts.Runs.Find(token) is not { } run)
            {
                ended.SetException(new ControlException("the run is over already"));
                return;
            }
            // The program has ended; what its tree left running has lost its terminal and its statistics.
            foreach (Guest guest in run.Guests.ToArray())
            {
                if (guest.Identity is { IsAlive: true }) guest.Kill("the run that it belongs to is over");
            }
            _ending[token] = ended;
            FinishEnding();
        });
        return ended.Task;
    }

    /// <summary>Runs that were restored wait for their <c>vsmp run</c> from now on: it can connect.</summary>
    public void AwaitSupervisors() => parts.Runs.AwaitSupervisors(EndAbandoned);

    /// <summary>Nobody is there any more who could tell how it ended.</summary>
    private void EndAbandoned(Run run)
    {
        Log.Warn($"the run of {run.Request.Program} is ended: its vsmp run (process {run.Request.ProcessId}) is gone");
        _ = EndRunAsync(run.Token);
    }

    /// <summary>A guest is gone, or a region of a job is: runs that only waited for it are closed.</summary>
    public void FinishEnding()
    {
        foreach ((string token, TaskCompletionSource<RunStatistics> ended) in _ending.ToArray())
        {
            Run run = parts.Runs.Find(token)!;
            if (run.Guests.Count > 0 || run.Job is { Regions.Count: > 0 }) continue;
            _ending.Remove(token);
            RunStatistics statistics = StatisticsOf(run);
            parts.Jobs.EndRun(run);
            parts.Runs.End(run);
            ended.SetResult(statistics);
        }
    }

    /// <inheritdoc/>
    public Task<RunStatistics> GetRunAsync(string token) => reactor.Ask(() =>
        parts.Runs.Find(token) is { } run ? StatisticsOf(run) : throw new ControlException("the run is over"));

    /// <inheritdoc/>
    public Task InjectAsync(FaultOrder order) => reactor.Ask(() =>
    {
        parts.Faults.Inject(order);
        return true;
    });

    /// <inheritdoc/>
    public Task<IReadOnlyList<FaultStatus>> GetFaultsAsync() => reactor.Ask(() => parts.Faults.InForce);

    /// <inheritdoc/>
    public async Task<byte[]> AskNodeAsync(string node, NodeQuestion question, byte[] data)
    {
        Task<byte[]> answer = await reactor.Ask(() => parts.Queries.Ask(node, question, data)).ConfigureAwait(false);
        return await answer.ConfigureAwait(false);
    }

    /// <inheritdoc/>
    public Task ShutdownAsync(string reason)
    {
        shutDown(reason);
        return Task.CompletedTask;
    }

    private NodeStatus StatusOf(Peer peer)
    {
        bool isSelf = peer.Node == parts.Pager.Self;
        NodeReport r = isSelf ? parts.Report() : peer.Report;
        return new NodeStatus(peer.Name, peer.Node.Value, peer.Address, StateOf(peer, isSelf), r.ContributedBytes,
            r.HomeBytes, r.CacheBytes, r.FreeBytes, r.PrivateBytes, r.UsedBytes, (uint)r.Guests, r.MilliFaultsPerSecond / 1000.0);
    }

    private string StateOf(Peer peer, bool isSelf)
    {
        if (isSelf && !parts.Membership.HasLease) return "no lease";
        if (!isSelf && parts.Membership.IsSuspected(peer.Node)) return "suspected";
        if (!isSelf && !peer.IsUp) return "unreachable";
        return peer.IsDraining ? "draining" : "up";
    }

    private GuestStatus StatusOf(Guest guest) => new(guest.ProcessId, guest.Run.Request.Program, RegionNames(guest), guest.Run.Request.UserId,
        guest.PoolBytes, (ulong)guest.Regions.Sum(r => (long)FileUse.AllocatedBytes(r.Frames.Descriptor)), guest.PrivateBytes, guest.Faults,
        (reactor.NowMicroseconds - guest.AttachedMicroseconds) / 1e6);

    private static LossStatus StatusOf(LostMemory loss)
    {
        var spans = new List<PageSpan>();
        foreach (PageNumber page in loss.Pages)
        {
            if (spans.Count > 0 && spans[^1].First + spans[^1].Count == page.Value) spans[^1] = spans[^1] with { Count = spans[^1].Count + 1 };
            else spans.Add(new PageSpan(page.Value, 1));
        }
        return new LossStatus(loss.Region, loss.ProcessId, loss.Program, loss.Nodes, spans);
    }

    private string RedundancyOf(PagedRegion region)
    {
        if (parts.Recovery.FindLed(region.Id) is not { } led) return region.IsMirrored || region.Mirrored?.Count > 0 ? "mirror" : "none";
        if (!led.IsMirrored) return "none";
        (ulong all, ulong mirrored, ulong restoring) = parts.Mirrors.ProgressOf(led);
        if (mirrored == all) return "mirror";
        string percent = string.Create(CultureInfo.InvariantCulture, $"mirror {100.0 * mirrored / all:0} %");
        return restoring > 0 ? $"{percent}, restoring" : $"{percent}, no room";
    }

    private static string RegionNames(Guest guest) => string.Join(',', guest.Regions.Select(r => r.Layout.Name)) is { Length: > 0 } names ? names : "-";

    private RegionStatus StatusOf(PagedRegion region)
    {
        var homes = new Dictionary<string, ulong>();
        if (region.Layout.Homes is { } map)
        {
            for (uint e = 0; e < region.Layout.ExtentCount; e++)
            {
                NodeId home = map.HomeOf(new ExtentNumber(e));
                if (home.IsNone) continue;
                string name = parts.Peers.NameOf(home);
                homes[name] = homes.GetValueOrDefault(name) + ExtentNumber.Bytes;
            }
        }
        else
        {
            homes[options.Name] = (ulong)region.Layout.HomeExtentCount * ExtentNumber.Bytes;
        }
        string id = region.Id.Value.ToString("x16", CultureInfo.InvariantCulture);
        return new RegionStatus(region.Layout.Name, id, region.Layout.ProtocolName, (ulong)homes.Values.Sum(b => (long)b), parts.Peers.NameOf(region.Id.Creator), RedundancyOf(region), homes);
    }

    private RunStatistics StatisticsOf(Run run)
    {
        RunCounters c = run.Counters;
        return new RunStatistics
        {
            WallSeconds = (Reactor.Clock() - run.StartedMicroseconds) / 1e6,
            AgentRestarts = run.AgentRestarts,
            FaultsRead = c.FaultsRead,
            FaultsWrite = c.FaultsWrite,
            PagesFetched = c.PagesFetched,
            PagesForeseen = c.PagesForeseen,
            PagesEvicted = c.PagesEvicted,
            PagesWrittenBack = c.PagesWrittenBack,
            BytesSent = c.BytesSent,
            BytesReceived = c.BytesReceived,
            PeakLocalBytes = c.PeakLocalBytes,
            PeakPoolBytes = c.PeakPoolBytes,
            PeakPrivateBytes = c.PeakPrivateBytes,
            FaultMicroseconds = new FaultMicroseconds(c.FaultLatency.QuantileMicroseconds(0.5), c.FaultLatency.QuantileMicroseconds(0.99),
                c.FaultLatency.MaxMicroseconds),
            Fabric = parts.Fabric().Since(run.FabricBefore),
            PeakHomeBytes = c.HomeBytes.ToDictionary(p => parts.Peers.NameOf(p.Key), p => p.Value.Peak),
        };
    }
}

/// <summary>The parts of an agent that its control socket looks into. Owned by the reactor.</summary>
internal sealed record AgentParts(Pager Pager, Runs Runs, Reservations Reservations, JobServer Jobs, RecoveryServer Recovery, MirrorServer Mirrors,
    DrainServer Drain, NodeQueries Queries, Peers Peers, Func<NodeReport> Report, Action SendReports, Func<FabricStatistics> Fabric, ClusterMembership Membership,
    FaultControl Faults, CheckpointFiles Files);
