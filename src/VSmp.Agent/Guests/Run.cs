// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent.Control;
using VSmp.Agent.Jobs;
using VSmp.Agent.Paging;
using VSmp.Coherence;
using VSmp.Coherence.Placement;

namespace VSmp.Agent.Guests;

/// <summary>
/// A process tree with one budget of local frames. Half of the budget may become homes of its own pages; the rest, and at first all of
/// it, is set aside for copies of remote pages. Owned by the reactor.
/// </summary>
internal sealed class Run(string token, RunRequest request, ulong localBytes, IRunObserver observer, long nowMicroseconds)
{
    private bool _hasLostNode;
    private readonly ulong _localExtents = localBytes / ExtentNumber.Bytes;

    /// <summary>What its guests show to attach.</summary>
    public string Token { get; } = token;

    /// <summary>What was asked for.</summary>
    public RunRequest Request { get; } = request;

    /// <summary>Who hears what happens to it.</summary>
    public IRunObserver Observer { get; private set; } = observer;

    /// <summary>Whether <c>vsmp run</c>, which had begun it at an agent that was killed, has not come to this one yet.</summary>
    public bool IsAwaitingSupervisor => Observer is AwaitedSupervisor;

    /// <summary>How often its agent was started again since it began.</summary>
    public int AgentRestarts { get; init; }

    /// <summary>Something that <see cref="RunRecord"/> has of it is another now.</summary>
    public event Action<Run>? Changed;

    /// <summary>The job that its processes are ranks of, or null.</summary>
    public NodeJob? Job { get; set; }

    /// <summary>Its budget.</summary>
    public ulong LocalBytes { get; } = localBytes;

    /// <summary>Frames for copies of remote pages.</summary>
    public FrameBudget Budget { get; } = new((long)(localBytes / PageNumber.Bytes));

    /// <summary>Which copies to evict next.</summary>
    public EvictionQueue Copies { get; } = new();

    /// <summary>
    /// Whether a node that it had memory on was lost: what it asks for from then on it gets though there may be no second home for it, until a node
    /// with room is there.
    /// </summary>
    public bool HasLostNode
    {
        get => _hasLostNode;
        set
        {
            if (_hasLostNode == value) return;
            _hasLostNode = value;
            Changed?.Invoke(this);
        }
    }

    /// <summary>Whether its user knows that some of its memory has no second home.</summary>
    public bool WasToldOfMissingMirrors { get; set; }

    /// <summary>Its attached processes.</summary>
    public List<Guest> Guests { get; } = [];

    /// <summary>When it began.</summary>
    public long StartedMicroseconds { get; } = nowMicroseconds;

    /// <summary>Regions that have a name already.</summary>
    public int RegionsMade { get; private set; }

    /// <summary>The name of its next region: the run's own name for the first, with the process for the others.</summary>
    public string NextRegionName(int processId)
    {
        string name = Request.Name ?? Path.GetFileName(Request.Program);
        bool isFirst = RegionsMade++ == 0;
        Changed?.Invoke(this);
        return isFirst && Request.Name is not null ? name : $"{name}.{processId}";
    }

    /// <summary>Regions of its job that its ranks here shared when it was recorded, by an agent that was killed.</summary>
    public IReadOnlySet<RegionId> RegionsLeft { get; private set; } = new HashSet<RegionId>();

    /// <summary>Regions of its job that its ranks here share, or shared when an agent before this one was killed: some of those may be no more.</summary>
    public IEnumerable<RegionId> SharedRegions => Job is null ? RegionsLeft : RegionsLeft.Union(Job.Regions.Select(r => r.Id));

    /// <summary>Its ranks share other regions than before.</summary>
    public void OnRegionsChanged() => Changed?.Invoke(this);

    /// <summary>Takes over what is recorded of it.</summary>
    public void Restore(RunRecord record)
    {
        RegionsLeft = record.SharedRegions.Select(id => new RegionId(id)).ToHashSet();
        RegionsMade = record.RegionsMade;
        _hasLostNode = record.HasLostNode;
    }

    /// <summary>
    /// Its <c>vsmp run</c> is back: it is told what it has missed, and of all guests, as when they attached. Only while <see cref="IsAwaitingSupervisor"/>.
    /// </summary>
    public void Resume(IRunObserver supervisor)
    {
        var awaited = (AwaitedSupervisor)Observer;
        Observer = supervisor;
        awaited.TellAll(supervisor);
        foreach (Guest guest in Guests)
        {
            foreach (Mapping mapping in guest.Mappings.Where(m => !m.IsGone)) supervisor.OnGuestAttached(guest.ProcessId, mapping.Userfaultfd);
        }
    }

    /// <summary>Its figures.</summary>
    public RunCounters Counters { get; } = new();

    /// <summary>What the node had sent and received when the run began.</summary>
    public FabricStatistics FabricBefore { get; set; } = new();

    /// <summary>Extents of its regions whose home is this node.</summary>
    public ulong LocalHomeExtents { get; private set; }

    /// <summary>Extents that may still get a home here.</summary>
    public ulong LocalHomeExtentsLeft => (_localExtents / 2) - LocalHomeExtents;

    /// <summary>What is set aside for copies.</summary>
    public ulong CacheBytes => LocalBytes - (LocalHomeExtents * ExtentNumber.Bytes);

    /// <summary>Moves extents between homes and cache.</summary>
    public void AddLocalHomes(long extents)
    {
        LocalHomeExtents = (ulong)((long)LocalHomeExtents + extents);
        Budget.SetLimit((long)(CacheBytes / PageNumber.Bytes));
    }
}

/// <summary>Figures of a run, owned by the reactor.</summary>
internal sealed class RunCounters
{
    public ulong FaultsRead, FaultsWrite, PagesFetched, PagesForeseen, PagesEvicted, PagesWrittenBack, BytesSent, BytesReceived;
    public ulong LocalBytes, PeakLocalBytes, PoolBytes, PeakPoolBytes, PeakPrivateBytes;

    /// <summary>From the fault's arrival at the agent to its resolution.</summary>
    public LatencyHistogram FaultLatency { get; } = new();

    /// <summary>Home bytes by node: now, and at the peak.</summary>
    public Dictionary<NodeId, (ulong Now, ulong Peak)> HomeBytes { get; } = [];

    /// <summary>Counts extents reserved (or, negative, given back) at a home.</summary>
    public void AddHome(NodeId home, long extents)
    {
        (ulong now, ulong peak) = HomeBytes.GetValueOrDefault(home);
        now = (ulong)((long)now + (extents * ExtentNumber.Bytes));
        HomeBytes[home] = (now, Math.Max(peak, now));
        PoolBytes = (ulong)((long)PoolBytes + (extents * ExtentNumber.Bytes));
        PeakPoolBytes = Math.Max(PeakPoolBytes, PoolBytes);
    }

    /// <summary>Takes note of the local frames in use.</summary>
    public void SetLocalBytes(ulong bytes)
    {
        LocalBytes = bytes;
        PeakLocalBytes = Math.Max(PeakLocalBytes, bytes);
    }
}
