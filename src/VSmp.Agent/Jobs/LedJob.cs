// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent.Checkpointing;
using VSmp.Agent.Control;
using VSmp.Agent.Guests;
using VSmp.Coherence;
using VSmp.Coherence.Lazy;

namespace VSmp.Agent.Jobs;

/// <summary>A job that this node leads, and what its leader knows of the world. Owned by the reactor.</summary>
internal sealed partial class LedJob : IJobActions
{
    private readonly ILeadingNode _node;

    /// <summary>Makes a job whose ranks have yet to join.</summary>
    /// <param name="node">The node that leads it.</param>
    /// <param name="header">What job it is.</param>
    /// <param name="observer">Who hears of it.</param>
    public LedJob(ILeadingNode node, JobHeader header, IRunObserver observer)
    {
        _node = node;
        Observer = observer;
        Header = header;
        Placement = [.. header.Placement.Select(node => new NodeId(node))];
        Nodes = [.. header.Nodes.Select(node => new NodeId(node))];
        Notices = new JobNotices([.. Placement.Distinct()]);
        Job = new Job(new JobId(header.Job), Placement.Length, header.DefaultRegion, header.Protocol, this);
    }

    /// <summary>What job it is.</summary>
    public JobHeader Header { get; }

    /// <summary>The state machine.</summary>
    public Job Job { get; }

    /// <summary>What its nodes have yet to be told of each other's writes.</summary>
    public JobNotices Notices { get; }

    /// <summary>What ranks show to join.</summary>
    public string Token => Header.Token;

    /// <summary>The node of each rank.</summary>
    public NodeId[] Placement { get; }

    /// <summary>The nodes that are homes of its regions.</summary>
    public NodeId[] Nodes { get; }

    /// <summary>Its regions that every node has made, as they are recovered; none under lazy release.</summary>
    public Dictionary<RegionId, SharedRegion> Regions { get; } = [];

    /// <summary>What its ranks run, for listings.</summary>
    public string Program => Header.Program;

    /// <summary>Whether homes on nodes without which it could go on have mirrors.</summary>
    public bool IsMirrored => Header.IsMirrored;

    /// <summary>Whether it is begun again from its checkpoint if a node is lost that it cannot do without.</summary>
    public bool IsRestartable => Header.Checkpoint is { IsRestartable: true };

    /// <summary>Why it cannot go on, and its ranks are being ended; null: it can.</summary>
    public string? BrokenBecause => Job.LostText;

    /// <summary>
    /// Whether it ends when the agent of a node is killed, though another one takes its place: what ranks have written under lazy release is recorded nowhere,
    /// and who starts ranks on other hosts, and passes on what they print, ends with its agent.
    /// </summary>
    public bool EndsWithAgent(NodeId node) => IsLazy || RemoteRanks.Any(rank => Placement[rank] == node);

    /// <summary>Whether its regions are kept coherent by lazy release.</summary>
    public bool IsLazy => Job.Protocol == LazyRelease.Name;

    /// <summary>Whether ranks of it run at a node.</summary>
    public bool HasRanks(NodeId node) => Placement.Contains(node);

    /// <summary>Whether it ends with a node: one that has ranks, or leads.</summary>
    public bool IsBound(NodeId node) => HasRanks(node) || node == Job.Id.Leader;

    /// <summary>Who hears of it.</summary>
    public IRunObserver Observer { get; private set; }

    /// <summary>Ranks that their nodes have started, because they are on other hosts than vsmp spmd.</summary>
    public HashSet<int> RemoteRanks { get; } = [];

    /// <summary>Whether a rank is one of those.</summary>
    public bool IsRemote(int rank) => RemoteRanks.Contains(rank);

    /// <summary>Its checkpoints; null: it has none.</summary>
    public CheckpointSeries? Series { get; set; }

    /// <summary>The generation that is being taken, or copied.</summary>
    public JobCheckpoint? Checkpoint { get; set; }

    /// <summary>How many generations were given up since the last that is safe.</summary>
    public int GivenUpInRow { get; set; }

    /// <summary>Whether files are being removed that the last generation has made needless.</summary>
    public bool IsTidying { get; set; }

    /// <summary>Whether the user was told that regions of the restored generation are not attached.</summary>
    public bool WasToldOfUnattached { get; set; }

    /// <summary>Who has asked for a checkpoint (<c>vsmp checkpoint create</c>), and hears what comes of it: the generation, or why there is none.</summary>
    public List<Action<uint, string?>> Wanters { get; } = [];

    /// <summary>Tells them, once.</summary>
    public void TellWanters(uint generation, string? why)
    {
        Action<uint, string?>[] wanters = [.. Wanters];
        Wanters.Clear();
        foreach (Action<uint, string?> wanter in wanters) wanter(generation, why);
    }

    /// <summary>The region that the nodes are making now.</summary>
    public RegionMaking? Making { get; set; }

    /// <inheritdoc/>
    public void Reply(int rank, in GuestMessage reply, ReadOnlySpan<byte> data)
    {
        if (_replay is not null) return; // whoever was not answered then asks again
        if (Synchronization.Acquires(in reply))
        {
            NodeId node = Placement[rank];
            Notices.OnAcquire(node, (region, pages) => _node.SendNotices(Job.Id, node, region, pages));
        }
        _node.SendReply(this, rank, in reply, data);
    }

    /// <inheritdoc/>
    public RegionId NewRegionId()
    {
        if (_replay?.TakeRegionNumber() is { } given) return given;
        RegionId id = _node.NewRegionId();
        _journal?.AppendRegionNumber(id.Value);
        return id;
    }

    /// <inheritdoc/>
    public void MakeRegion(JobRegion region)
    {
        if (IsLazy) Notices.Open(region.Id, region.ExtentCount);
        if (_replay is null) _node.MakeRegion(this, region);
    }

    /// <inheritdoc/>
    public void TakeCheckpoint()
    {
        if (_replay is null) _node.TakeCheckpoint(this);
    }

    /// <inheritdoc/>
    public void DropRegion(JobRegion region)
    {
        Notices.Close(region.Id);
        Regions.Remove(region.Id);
        if (_replay is null) _node.DropRegion(this, region.Id);
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

    /// <summary>Whether they fill it with what a checkpoint has: they have made it.</summary>
    public bool IsLoading { get; set; }

    /// <summary>Why they cannot fill it.</summary>
    public string? LoadError { get; set; }

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
