// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent.Control;
using VSmp.Agent.Guests;
using VSmp.Coherence;
using VSmp.Coherence.Lazy;

namespace VSmp.Agent.Jobs;

/// <summary>A job that this node leads, and what its leader knows of the world. Owned by the reactor.</summary>
internal sealed class LedJob : IJobActions
{
    private readonly JobServer _server;

    /// <summary>Makes a job whose ranks have yet to join.</summary>
    public LedJob(JobServer server, JobId id, string defaultRegion, string protocol, string token, NodeId[] placement, NodeId[] nodes,
        IRunObserver observer)
    {
        _server = server;
        Observer = observer;
        Token = token;
        Placement = placement;
        Nodes = nodes;
        RanksLeft = placement.Length;
        Notices = new JobNotices([.. placement.Distinct()]);
        Job = new Job(id, placement.Length, defaultRegion, protocol, this);
    }

    /// <summary>The state machine.</summary>
    public Job Job { get; }

    /// <summary>What its nodes have yet to be told of each other's writes.</summary>
    public JobNotices Notices { get; }

    /// <summary>What ranks show to join.</summary>
    public string Token { get; }

    /// <summary>The node of each rank.</summary>
    public NodeId[] Placement { get; }

    /// <summary>The nodes that are homes of its regions.</summary>
    public NodeId[] Nodes { get; }

    /// <summary>What its ranks run, for listings.</summary>
    public required string Program { get; init; }

    /// <summary>Whether homes on nodes without which it could go on have mirrors.</summary>
    public required bool IsMirrored { get; init; }

    /// <summary>Whether it cannot go on, and its ranks are being ended.</summary>
    public bool IsBroken { get; set; }

    /// <summary>Why it cannot go on.</summary>
    public string BrokenBecause { get; set; } = "";

    /// <summary>
    /// Whether it ends when the agent of a node is killed, though another one takes its place: what ranks have written under lazy release is recorded nowhere,
    /// and who starts ranks on other hosts, and passes on what they print, ends with its agent.
    /// </summary>
    public bool EndsWithAgent(NodeId node) => Job.Protocol == LazyRelease.Name || RemoteRanks.Any(rank => Placement[rank] == node);

    /// <summary>Whether ranks of it run at a node.</summary>
    public bool HasRanks(NodeId node) => Placement.Contains(node);

    /// <summary>Whether it ends with a node: one that has ranks, or leads.</summary>
    public bool IsBound(NodeId node) => HasRanks(node) || node == Job.Id.Leader;

    /// <summary>Who hears of it.</summary>
    public IRunObserver Observer { get; }

    /// <summary>Ranks that their nodes have started, because they are on other hosts than vsmp spmd.</summary>
    public HashSet<int> RemoteRanks { get; } = [];

    /// <summary>Whether a rank is one of those.</summary>
    public bool IsRemote(int rank) => RemoteRanks.Contains(rank);

    /// <summary>Ranks that have not ended.</summary>
    public int RanksLeft { get; set; }

    /// <summary>The region that the nodes are making now.</summary>
    public RegionMaking? Making { get; set; }

    /// <inheritdoc/>
    public void Reply(int rank, in GuestMessage reply, ReadOnlySpan<byte> data)
    {
        if (Synchronization.Acquires(in reply))
        {
            NodeId node = Placement[rank];
            Notices.OnAcquire(node, (region, pages) => _server.SendNotices(Job.Id, node, region, pages));
        }
        _server.SendReply(this, rank, in reply, data);
    }

    /// <inheritdoc/>
    public RegionId NewRegionId() => _server.NewRegionId();

    /// <inheritdoc/>
    public void MakeRegion(JobRegion region)
    {
        if (Job.Protocol == LazyRelease.Name) Notices.Open(region.Id, region.ExtentCount);
        _server.MakeRegion(this, region);
    }

    /// <inheritdoc/>
    public void DropRegion(JobRegion region)
    {
        Notices.Close(region.Id);
        _server.DropRegion(this, region.Id);
    }

    /// <summary>A line for the user.</summary>
    public void Tell(string text) => Observer.OnMessage(text);
}

/// <summary>A region that the nodes of a job are making.</summary>
/// <param name="region">Which.</param>
internal sealed class RegionMaking(JobRegion region)
{
    /// <summary>Which.</summary>
    public JobRegion Region { get; } = region;

    /// <summary>Where its homes and mirrors are to be.</summary>
    public RegionPlan? Plan { get; set; }

    /// <summary>The nodes that are to make it.</summary>
    public NodeId[] Nodes { get; set; } = [];

    /// <summary>Who has yet to answer.</summary>
    public HashSet<NodeId> Awaited { get; } = [];

    /// <summary>Who has made it in this round.</summary>
    public List<NodeId> Made { get; } = [];

    /// <summary>What those said that have not.</summary>
    public List<string> Refused { get; } = [];

    /// <summary>Whether it is to be planned when all nodes of the job may be asked again.</summary>
    public bool IsWaiting { get; set; }

    /// <summary>How often it was planned.</summary>
    public int Rounds { get; set; }

    /// <summary>A node was lost meanwhile.</summary>
    public string? Lost { get; set; }
}
