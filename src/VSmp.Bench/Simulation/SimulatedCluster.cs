// SPDX-License-Identifier: Apache-2.0
using System.Globalization;
using VSmp.Agent.Fabric;
using VSmp.Coherence;
using VSmp.Coherence.Homes;
using VSmp.Coherence.Nodes;
using VSmp.Coherence.Placement;
using VSmp.Coherence.Protocols;

namespace VSmp.Bench.Simulation;

/// <summary>
/// A cluster in virtual time: the shipped controllers and the shipped sessions, on a network that delays, loses, repeats and reorders
/// frames and breaks connections, with nodes that are slow or pause, and budgets that hold a few pages. Safety is checked at
/// every step; then faults stop, and everything must come to its end within a bounded time.
/// </summary>
internal sealed partial class SimulatedCluster : IDisposable
{
    /// <summary>Neighbouring pages at the start of an extent that are used.</summary>
    public const int PagesPerExtent = 4;

    /// <summary>The region.</summary>
    public static readonly RegionId RegionId = new(1);

    private readonly SimulationOptions _options;
    private readonly ChunkPool? _ownChunks;
    private readonly PriorityQueue<Action, (long Tick, long Order)> _events = new();
    private readonly uint[] _latest; // what was written last to each page
    private readonly List<SimulatedNode> _nodes;
    private readonly List<string>? _trace;
    private long _order;
    private uint _lastValue;
    private int _stepsUntilAudit;

    /// <summary>Makes a cluster from a seed.</summary>
    /// <param name="options">The seed, and what is not left to it.</param>
    /// <param name="chunks">Memory for its sessions, used again from cluster to cluster; its own if null.</param>
    public SimulatedCluster(SimulationOptions options, ChunkPool? chunks = null)
    {
        _options = options;
        _ownChunks = chunks is null ? new ChunkPool() : null;
        Random = new Random(options.Seed);
        _trace = options.Traces ? [] : null;
        // Small clusters are drawn more often: they meet in the same pages more.
        int count = options.Nodes ?? (options.Losses ? Random.Next(3, Math.Min(9, options.MaxNodes + 1)) : (Random.Next(4) == 0 ? Random.Next(2, options.MaxNodes + 1) : Random.Next(2, Math.Min(9, options.MaxNodes + 1))));
        ExtentCount = Random.Next(1, 4);
        _latest = new uint[PageCount];
        _isLost = new bool[PageCount];
        _mayBeLost = new bool[PageCount];
        _unacknowledged = new Unacknowledged[PageCount];
        _isMirrored = new bool[ExtentCount];
        Array.Fill(_unacknowledged, Unacknowledged.None);
        Epoch = new Epoch((uint)Random.Next(1, int.MaxValue));
        var homes = new HomeMap(ExtentCount);
        bool[] isUser = new bool[count];
        if (options.Losses) DrawRegion(homes, isUser);
        else Array.Fill(isUser, true);
        for (uint e = 0; e < ExtentCount && !options.Losses; e++) homes.Place(new ExtentNumber(e), new NodeId((ushort)Random.Next(count)));
        NetworkWeather weather = Random.Next(3) == 0 ? NetworkWeather.Calm : NetworkWeather.Draw(Random);
        Network = new SimulatedNetwork(this, weather, chunks ?? _ownChunks!);
        int budget = Random.Next(2) == 0 ? Random.Next(1, 4) : Random.Next(4, 64);
        _nodes = [.. Enumerable.Range(0, count).Select(n => new SimulatedNode(this, new NodeId((ushort)n), options.Protocol, homes, budget, isUser[n]))];
    }

    /// <summary>The only source of chance.</summary>
    public Random Random { get; }

    /// <summary>Now, in ticks.</summary>
    public long Now { get; private set; }

    /// <summary>Extents of the region.</summary>
    public int ExtentCount { get; }

    /// <summary>Pages that are used, in all.</summary>
    public int PageCount => ExtentCount * PagesPerExtent;

    /// <summary>Whether agents are killed, and started again.</summary>
    public bool Restarts => _options.Restarts;

    /// <summary>Bugs to be found.</summary>
    public SimulationBugs Planted => _options.Planted;

    /// <summary>The cluster's life.</summary>
    public Epoch Epoch { get; }

    /// <summary>The members' view of it, stamped on frames.</summary>
    public ViewNumber View { get; set; } = new(1);

    /// <summary>What carries frames.</summary>
    public SimulatedNetwork Network { get; }

    /// <summary>Whether faults and new accesses still happen.</summary>
    public bool IsWorking => Now < _options.WorkTicks;

    /// <summary>The nodes, by number.</summary>
    public IReadOnlyList<SimulatedNode> Nodes => _nodes;

    /// <summary>What happened, if it was asked for.</summary>
    public IReadOnlyList<string> TraceLines => _trace ?? [];

    /// <summary>Whether anybody reads what is told to <see cref="Tell"/>.</summary>
    public bool IsTracing => _trace is not null;

    /// <summary>Keeps a line of what happens.</summary>
    public void Tell(string line) => _trace?.Add(string.Create(CultureInfo.InvariantCulture, $"{Now,8} {line}"));

    /// <summary>Lets something happen after so many ticks.</summary>
    public void After(long ticks, Action action) => _events.Enqueue(action, (Now + ticks, _order++));

    /// <summary>Runs from the first access to the last end.</summary>
    /// <exception cref="SimulationException">Something is wrong.</exception>
    public SimulationResult Run()
    {
        foreach (SimulatedNode node in _nodes) node.Start();
        if (_options.Losses)
        {
            _membership = new SimulatedMembership(this);
            _membership.Start();
            DrawLosses();
            return RunEvents();
        }
        if (Random.Next(2) == 0) After(Random.Next((int)_options.WorkTicks), ChangeView);
        return RunEvents();
    }

    /// <summary>Instead of random work: all nodes read one page, one writes it, all read it again.</summary>
    /// <exception cref="SimulationException">Something is wrong.</exception>
    public SimulationResult RunShared()
    {
        PageNumber page = PageAt(0);
        foreach (int round in (ReadOnlySpan<int>)[0, 2])
        {
            foreach (SimulatedNode node in _nodes)
                After((round * _options.WorkTicks) + Random.Next((int)_options.WorkTicks / 2), () => node.Touch(page, write: false));
        }
        After(_options.WorkTicks, () =>
        {
            int readers = _nodes.Count(n => n.RightTo(page) == Right.Read);
            if (readers != _nodes.Count) throw new SimulationException($"{readers} of {_nodes.Count} nodes share {page}");
            _nodes[Random.Next(_nodes.Count)].Touch(page, write: true);
        });
        return RunEvents();
    }

    private SimulationResult RunEvents()
    {
        RunUntil(long.MaxValue);
        Audit();
        bool isStuck = _membership is { IsStuck: true };
        if (!isStuck && StillBusy() is { } busy) throw new SimulationException($"nothing is under way any more, but {busy}");
        if (_membership is not null && !isStuck) CheckRecovered();
        if (!IsRegionGone && !isStuck) CheckQuiet();
        return new SimulationResult(_nodes.Count, Now, _nodes.Sum(n => n.AccessesEnded), Network.FramesDelivered, Network.Reconnects,
            _nodes.Sum(n => n.Evictions), Network.Fenced)
        {
            NodesLost = _nodes.Count(IsOut),
            Recoveries = Recoveries,
            PagesLost = LostPages,
            AgentsKilled = AgentsKilled,
        };
    }

    /// <summary>Lets time pass, and everything happen that is to happen meanwhile.</summary>
    public void RunUntil(long tick)
    {
        long deadline = _options.WorkTicks + _options.QuietTicks;
        while (_events.TryPeek(out _, out (long Tick, long Order) at) && at.Tick <= tick)
        {
            if (at.Tick > deadline && _membership is { IsStuck: true }) break; // who is left waits for those who are lost, and connects to them, for ever
            if (at.Tick > deadline) throw new SimulationException($"{_options.QuietTicks} ticks after the last fault: {StillBusy() ?? _membership?.Trouble()}");
            Action action = _events.Dequeue();
            Now = at.Tick;
            try
            {
                action();
            }
            catch (AgentKilledException killed)
            {
                killed.Node.OnKilled();
            }
            if (--_stepsUntilAudit <= 0) Audit();
        }
        if (tick != long.MaxValue) Now = Math.Max(Now, tick);
    }

    /// <summary>A guest reads or writes a page that it has the right to.</summary>
    public void OnAccess(SimulatedNode node, PageNumber page, bool write)
    {
        ref uint latest = ref _latest[IndexOf(page)];
        if (_isLost[IndexOf(page)]) throw new SimulationException($"{node.Id} uses {page}, which was lost");
        if (!node.HasFrame(page)) throw new SimulationException($"{node.Id} uses {page} without a frame");
        uint value = node.Contents(page);
        if (value != latest) throw new SimulationException($"{node.Id} reads {value} from {page}; what was written last is {latest}");
        if (!write) return;
        if (node.RightTo(page) != Right.Write) throw new SimulationException($"{node.Id} writes to {page} without the right");
        NoteUnacknowledged(node, page);
        latest = ++_lastValue;
        node.Write(page, latest);
        if (IsTracing) Tell($"{node.Id}: writes {_lastValue} to {page}");
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        Network.Dispose();
        _ownChunks?.Dispose();
    }

    /// <summary>A page that is used, by number.</summary>
    public static PageNumber PageAt(int index) =>
        new(((ulong)(index / PagesPerExtent) << ExtentNumber.PagesShift) + (ulong)(index % PagesPerExtent));

    /// <summary>The number of a page that is used.</summary>
    public static int IndexOf(PageNumber page) =>
        ((int)(page.Value >> ExtentNumber.PagesShift) * PagesPerExtent) + (int)(page.Value & (ExtentNumber.Pages - 1));

    /// <summary>Whether a page is one of those that are used.</summary>
    public static bool IsUsed(PageNumber page) => (page.Value & (ExtentNumber.Pages - 1)) < PagesPerExtent;

    private void ChangeView()
    {
        // Members come and go elsewhere: frames of the old view are under way, and count.
        View = new ViewNumber(View.Value + 1);
        Tell($"view {View.Value}");
        if ((Planted & SimulationBugs.QueueLostByViewChange) != 0)
        {
            foreach (SimulatedNode node in _nodes) node.LoseWaitingRequest();
        }
        Network.ReplayOtherEpoch();
        if (IsWorking) After(Random.Next(1000), ChangeView);
    }

    /// <summary>Single writer or many readers, and every reader sees the last write. After every step that matters for small clusters.</summary>
    private void Audit()
    {
        _stepsUntilAudit = _nodes.Count / 4;
        for (int i = 0; i < PageCount; i++)
        {
            uint latest = _latest[i];
            SimulatedNode? writer = null, reader = null;
            foreach (SimulatedNode node in _nodes)
            {
                Right right = node.RightTo(i);
                if (right == Right.None || IsOut(node)) continue;
                uint? value = node.ContentsOrNone(i);
                if (value != latest)
                    throw new SimulationException($"{node.Id} may read {value} from {PageAt(i)}; what was written last is {latest}");
                if (right == Right.Read) reader = node;
                else if (writer is null) writer = node;
                else throw new SimulationException($"{writer.Id} and {node.Id} may both write {PageAt(i)}");
            }
            if (writer is not null && reader is not null)
                throw new SimulationException($"{writer.Id} may write {PageAt(i)} while {reader.Id} reads it");
        }
        foreach (SimulatedNode node in _nodes)
        {
            if (node.CopyCount > node.BudgetPages)
                throw new SimulationException($"{node.Id} has frames for {node.CopyCount} pages of others; its budget is {node.BudgetPages}");
        }
    }

    private string? StillBusy()
    {
        foreach (SimulatedNode node in _nodes)
        {
            if (!IsOut(node) && node.Waiting is { } waiting) return $"{node.Id} waits for {waiting}";
        }
        return null;
    }

    private void CheckQuiet()
    {
        foreach (SimulatedNode node in _nodes)
        {
            if (IsOut(node)) continue;
            if (node.KeptCount > 0) throw new SimulationException($"{node.Id} still keeps {node.KeptCount} copies");
            if (node.Home.WaitingCount > 0) throw new SimulationException($"{node.Home.WaitingCount} requests still wait at {node.Id}");
            for (int i = 0; i < PageCount; i++)
            {
                PageNumber page = PageAt(i);
                NodeState state = node.IsUser ? node.Region.PageAt(page).State : NodeState.I;
                if (!NodeStates.IsStable(state)) throw new SimulationException($"{page} stays {state} at {node.Id}");
                if (node.Region.IsHome(page.Extent)) CheckDirectory(node, page);
            }
        }
    }

    private void CheckDirectory(SimulatedNode home, PageNumber page)
    {
        ref DirectoryEntry entry = ref home.Region.EntryAt(page);
        foreach (SimulatedNode node in _nodes)
        {
            if (IsOut(node) || !node.IsUser) continue;
            NodeState state = node.Region.PageAt(page).State;
            if (!NodeStates.Agrees(entry.State, entry.Owner == node.Id, entry.MayShare(node.Id), state))
                throw new SimulationException($"{page} is {entry.State} (owner {entry.Owner}) at its home and {state} at {node.Id}");
        }
        if (!NodeStates.HomeIsValid(entry.State)) return;
        int index = IndexOf(page);
        uint? value = (entry.Flags & DirectoryFlags.Zero) != 0 ? 0 : home.ContentsOrNone(index);
        if (value != _latest[index])
            throw new SimulationException($"the home copy of {page} is {value}; what was written last is {_latest[index]}");
    }
}

/// <summary>What a guest may do with a page without asking.</summary>
internal enum Right : byte
{
    None,
    Read,
    Write,
}
