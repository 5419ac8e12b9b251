// SPDX-License-Identifier: Apache-2.0
using System.Runtime.CompilerServices;
using System.Text;
using VSmp.Agent.Control;
using VSmp.Agent.Guests;
using VSmp.Agent.Interop;
using VSmp.Agent.Paging;
using VSmp.Coherence;
using VSmp.Coherence.Lazy;
using VSmp.Coherence.Messages;
using VSmp.Coherence.Placement;
using VSmp.Coherence.Protocols;
using ProtocolViolationException = VSmp.Coherence.ProtocolViolationException;

namespace VSmp.Agent.Jobs;

/// <content>The side of the nodes: ranks here, regions here.</content>
internal sealed partial class JobServer
{
    /// <summary>How long ranks of a broken job have to end by themselves.</summary>
    private const long GraceMicroseconds = 2_000_000;

    private readonly Dictionary<JobId, NodeJob> _here = [];
    private readonly List<PagedRegion> _leaving = []; // dropped by their leader, but still mapped by a process that is about to go

    /// <summary>Raised when a region of a job was dropped here: its run may be waiting for that to close.</summary>
    public event Action? RegionsChanged;

    /// <summary>A run of this node belongs to a job: its processes may join as ranks.</summary>
    /// <exception cref="ControlException">The job has a run here already.</exception>
    public void BeginRun(Run run, JobMembership membership)
    {
        JobId id = new(membership.Job);
        if (_here.ContainsKey(id)) throw new ControlException("the job has a run at this node already");
        _here.Add(id, run.Job = new NodeJob(id, run, pager, (rank, call, data) => SendCall(id, rank, in call, data), (region, pages) => SendWrites(id, region, pages)));
    }

    /// <summary>A run of a job is closed.</summary>
    public void EndRun(Run run)
    {
        if (run.Job is { } job) _here.Remove(job.Id);
    }

    /// <summary>A rank is gone, or cannot be talked to any more.</summary>
    public void OnRankGone(NodeJob job, int rank, string how)
    {
        job.OnGone(rank, how);
        SendGone(job.Id, rank, how);
    }

    private void SendGone(JobId job, int rank, string how)
    {
        if (job.Leader == self)
        {
            OnRankGone(self, job, rank, how);
        }
        else if (peers.Find(job.Leader) is not null)
        {
            Send(job.Leader, new FrameHeader { Type = MessageType.JobRankGone, Argument0 = job.Value, Argument1 = (ulong)rank }, Encoding.UTF8.GetBytes(how));
        }
    }

    /// <summary>A mapping is gone: what only waited for it is dropped.</summary>
    public void OnUnmapped()
    {
        foreach (PagedRegion region in _leaving.Where(r => r.Mappings.Count == 0).ToArray())
        {
            _leaving.Remove(region);
            Drop(region);
        }
    }

    /// <summary>A frame about a job.</summary>
    /// <exception cref="ProtocolViolationException">It makes no sense.</exception>
    public void OnFrame(NodeId peer, in FrameHeader header, ReadOnlySpan<byte> payload)
    {
        JobId job = new(header.Argument0);
        switch (header.Type)
        {
            case MessageType.JobCall:
                (int caller, GuestMessage call) = ReadRankMessage(in header, payload);
                OnCall(peer, job, caller, in call, payload[GuestMessage.Bytes..]);
                break;
            case MessageType.JobReply:
                RequireLeader(peer, job);
                (int rank, GuestMessage reply) = ReadRankMessage(in header, payload);
                OnReply(job, rank, in reply, payload[GuestMessage.Bytes..]);
                break;
            case MessageType.JobRankGone:
                OnRankGone(peer, job, (int)Math.Min(header.Argument1, int.MaxValue), Encoding.UTF8.GetString(payload));
                break;
            case MessageType.JobAttach:
                OnAttach(peer, in header, payload);
                break;
            case MessageType.JobAttachReply:
                peers.SetFree(peer, (uint)header.Argument1);
                if (_led.TryGetValue(job, out LedJob? maker) && maker.Making?.Region.Id == header.Region)
                {
                    OnMade(maker, peer, payload.IsEmpty ? null : Encoding.UTF8.GetString(payload));
                }
                break;
            case MessageType.JobDetach:
                if (header.Region.Creator == peer) OnDetach(header.Region);
                break;
            case MessageType.JobWrites:
                OnWrites(peer, job, header.Region, payload);
                break;
            case MessageType.JobNotices:
                RequireLeader(peer, job);
                OnNotices(header.Region, header.Argument1 != 0, payload);
                break;
            case MessageType.JobAbort:
                RequireLeader(peer, job);
                OnAbort(job, Encoding.UTF8.GetString(payload));
                break;
            default:
                OnRemoteFrame(peer, job, in header, payload);
                break;
        }
    }

    private static (int Rank, GuestMessage Message) ReadRankMessage(in FrameHeader header, ReadOnlySpan<byte> payload)
    {
        if (payload.Length < GuestMessage.Bytes || header.Argument1 >= JobLimits.MaxRanks)
        {
            throw new ProtocolViolationException($"{header.Type} of {payload.Length} bytes about rank {header.Argument1}");
        }
        return ((int)header.Argument1, Unsafe.ReadUnaligned<GuestMessage>(in payload[0]));
    }

    private static void RequireLeader(NodeId peer, JobId job)
    {
        if (job.Leader != peer) throw new ProtocolViolationException($"{peer} speaks for {job}, which it does not lead");
    }

    private void SendCall(JobId job, int rank, in GuestMessage call, ReadOnlySpan<byte> data)
    {
        if (job.Leader == self) OnCall(self, job, rank, in call, data);
        else SendRankMessage(job.Leader, MessageType.JobCall, job, rank, in call, data);
    }

    private void OnReply(JobId job, int rank, in GuestMessage reply, ReadOnlySpan<byte> data)
    {
        if (_here.TryGetValue(job, out NodeJob? here)) here.OnReply(rank, in reply, data);
    }

    private void OnAttach(NodeId peer, in FrameHeader header, ReadOnlySpan<byte> payload)
    {
        RegionPlan? plan = RegionPlan.Read(payload);
        if (plan is null || header.Region.Creator != peer || header.Argument1 is 0 or > int.MaxValue / 2)
        {
            throw new ProtocolViolationException($"{peer} plans {header.Region} of {header.Argument1} extents, which makes no sense");
        }
        string? refusal = Make(new JobId(header.Argument0), header.Region, (int)header.Argument1, plan);
        Send(peer, new FrameHeader
        {
            Type = MessageType.JobAttachReply,
            Region = header.Region,
            Argument0 = header.Argument0,
            Argument1 = capacity.FreeExtents,
        }, refusal is null ? [] : Encoding.UTF8.GetBytes(refusal));
    }

    /// <summary>Makes a region here: as home of its part, and open to the ranks, if this node has any.</summary>
    /// <returns>Null, or why not.</returns>
    private string? Make(JobId job, RegionId id, int extentCount, RegionPlan plan)
    {
        if (!ProtocolCatalog.Names.Contains(plan.Protocol)) return $"this agent does not know the protocol {plan.Protocol}: install the same vsmp everywhere";
        if (plan.Mirrors is not null && plan.Protocol == LazyRelease.Name) return $"regions under the protocol {plan.Protocol} cannot be mirrored";
        if (plan.Mirrors is not null && _here.ContainsKey(job) && plan.Mirrors.Contains(self)) return "ranks of the job run here: this node cannot be a mirror of its memory";
        if (pager.Find(id) is not null) return "the region is there already";
        uint given = plan.CountOf(extentCount, self);
        if (!capacity.TryAddHome(given)) return $"{capacity.FreeBytes >> 20} MiB free, {given * (ulong)ExtentNumber.Bytes >> 20} wanted";
        NodeJob? here = _here.GetValueOrDefault(job);
        FrameFile frames;
        try { frames = FrameFile.Create(folder.Frames, id, (ulong)extentCount * ExtentNumber.Bytes); }
        catch (IOException e)
        {
            capacity.RemoveHome(given);
            return e.Message;
        }
        HomeMap? map = here is null ? null : new HomeMap(extentCount, plan.Pattern);
        PagedRegion region = ProtocolCatalog.Find(plan.Protocol) is { } protocol
            ? pager.Add(new Region(id, plan.Name, extentCount, protocol, map, here?.Run.Budget), frames, here?.Run)
            : pager.Add(new LazyRegion(id, plan.Name, extentCount, map, here?.Run.Budget), frames, here?.Run);
        region.IsShared = true;
        region.IsMirrored = plan.Mirrors is not null;
        for (uint e = 0; e < extentCount; e++)
        {
            ExtentNumber extent = new(e);
            NodeId home = plan.Pattern[e % (uint)plan.Pattern.Length], mirror = plan.MirrorOf(e);
            if (home == self)
            {
                region.Layout.BecomeHome(extent);
                if (!mirror.IsNone) Pager.SetMirror(region, extent, mirror);
            }
            else if (mirror == self) region.Mirrored!.Add(extent, home, isFresh: true);
            if (here is not null) region.Open(extent);
        }
        here?.Regions.Add(region);
        here?.Run.OnRegionsChanged();
        CountHomes(region, 1);
        region.RecordLayout(); // before a rank hears of it, which may be in this turn
        return null;
    }

    /// <summary>The maker of a region knows nothing of it any more, as it has told when this agent, or its own, was started again.</summary>
    /// <returns>Whether it was one that ranks here shared.</returns>
    public bool OnForgotten(NodeId maker, RegionId id)
    {
        if (id.Creator != maker || pager.Find(id) is not { IsShared: true, Run: not null }) return false;
        OnDetach(id);
        return true;
    }

    private void OnDetach(RegionId id)
    {
        if (pager.Find(id) is not { } region) return;
        if (region.Mappings.Count == 0) Drop(region);
        else if (!_leaving.Contains(region)) _leaving.Add(region);
    }

    private void Drop(PagedRegion region)
    {
        capacity.RemoveHome(region.GivenExtents);
        CountHomes(region, -1);
        if (region.Run?.Job is { } job && job.Regions.Remove(region)) job.Run.OnRegionsChanged();
        pager.Remove(region);
        RegionsChanged?.Invoke();
    }

    private void OnAbort(JobId job, string text)
    {
        if (_starters.TryGetValue(job, out RankStarter? starter)) reactor.After(GraceMicroseconds, () => starter.Signal(Signals.SIGKILL));
        if (!_here.TryGetValue(job, out NodeJob? here)) return;
        here.OnLost(text);
        // They get the error, and a moment to say so; then they go, for what they touch may never come.
        reactor.After(GraceMicroseconds, () =>
        {
            foreach (Guest guest in here.Run.Guests.ToArray()) guest.Kill(text);
        });
    }

    /// <summary>
    /// The agent of a leader was started again. Jobs of which it knows go on; ranks of others are ended by whoever started them. That may be this agent, or they may
    /// wait under lazy release for what nobody will tell them.
    /// </summary>
    private void OnLeaderRestarted(NodeId leader, string text)
    {
        ForgetOutput(leader);
        JobId[] ending = [.. _starters.Keys.Union(_here.Values.Where(job => job.Regions.Exists(r => r.Protocol is LazyProtocol)).Select(job => job.Id)).Where(id => id.Leader == leader)];
        foreach (JobId job in ending) EndWithLeader(job, text);
    }

    private void OnLeaderLost(NodeId leader, string text)
    {
        ForgetOutput(leader);
        // Those that have no run yet, too: who started them is not there any more.
        foreach (JobId job in _starters.Keys.Union(_here.Keys).Where(id => id.Leader == leader).ToArray()) EndWithLeader(job, text);
    }

    private void EndWithLeader(JobId job, string text)
    {
        OnAbort(job, text);
        if (!_here.TryGetValue(job, out NodeJob? here)) return;
        here.Run.Observer.OnMessage(text);
        foreach (PagedRegion region in here.Regions.ToArray()) OnDetach(region.Id);
    }
}
