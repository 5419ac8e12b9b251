// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent.Control;
using VSmp.Agent.Paging;
using VSmp.Coherence;
using VSmp.Coherence.Messages;

namespace VSmp.Agent.Tests.Adopting;

/// <summary>Bugs of the world around the agents, for finding out what the search finds.</summary>
internal enum PlantedBug
{
    /// <summary>None.</summary>
    None,
    /// <summary>An agent takes the homes that its predecessor had recorded of extents which are not open for homes of its own.</summary>
    PlacesWhatWasGivenBack,
    /// <summary>Who has asked an agent that was killed waits for its answer.</summary>
    WaitsForFormerAgents,
    /// <summary>Nodes sometimes keep what they are told to let go.</summary>
    KeepsWhatNobodyPlaces,
}

/// <summary>
/// Extents of two to four nodes: reserved, written, evicted, given back, reserved again, while agents are killed and others adopt what they left. One thread, one
/// seed; frames of a pair stay in order, and those of different pairs overtake each other.
/// </summary>
internal sealed class ExtentWorld : IDisposable
{
    /// <summary>Of each program's region.</summary>
    public const int Extents = 5;

    private const int Steps = 800, PagesInUse = 2, MaxRounds = 200, ToAnyAgent = -1;

    private readonly Random _random;
    private readonly Queue<(Parcel Parcel, int ToIncarnation)>[,] _wires;
    private readonly List<string> _story = [];
    private ulong _lastRegion;
    private readonly bool _mayForget;
    private int _killsLeft;

    public ExtentWorld(int seed, PlantedBug bug = PlantedBug.None)
    {
        Bug = bug;
        _random = new Random(seed);
        _killsLeft = _random.Next(_random.Next(4) == 0 ? 16 : 6);
        _mayForget = _random.Next(3) == 0;
        int count = _random.Next(2, 5);
        Folder = Directory.CreateDirectory(Path.Combine("/dev/shm", $"vsmp-extents-{Environment.ProcessId}-{Guid.NewGuid():n}")).FullName;
        _wires = new Queue<(Parcel, int)>[count, count];
        Nodes = new ExtentNode[count];
        for (int i = 0; i < count; i++)
        {
            for (int j = 0; j < count; j++) _wires[i, j] = [];
            Redundancy? run = i >= 2 ? null : count > 2 && _random.Next(2) == 0 ? Redundancy.Mirror : Redundancy.None;
            Nodes[i] = new ExtentNode(this, i, (uint)_random.Next(3, 8), run);
        }
        foreach (ExtentNode node in Nodes) Attempt(node, node.Start);
    }

    public PlantedBug Bug { get; }

    public string Folder { get; }

    public ExtentNode[] Nodes { get; }

    public Reactor Reactor { get; } = new(maxSpinMicroseconds: 0);

    /// <summary>Agents that were killed.</summary>
    public int Kills { get; private set; }

    /// <summary>Requests that were answered.</summary>
    public int Answers { get; private set; }

    /// <summary>Loads and stores of programs.</summary>
    public int Touches { get; set; }

    /// <summary>Programs that could not go on because what they had could not be adopted somewhere.</summary>
    public int LostPrograms { get; set; }

    /// <summary>The last that happened, for messages.</summary>
    public IEnumerable<string> Story => _story.TakeLast(100);

    /// <summary>Whether an agent that starts finds nothing of what the last had: it could not be recorded.</summary>
    public bool Forgets() => _mayForget && _random.Next(4) == 0;

    public void Tell(string text) => _story.Add(text);

    /// <summary>Does what the seed says, has all of it end, and looks whether everything is where it is to be.</summary>
    public void Run()
    {
        for (int i = 0; i < Steps; i++)
        {
            Step();
            foreach (ExtentNode node in Nodes.Where(n => n.State == AgentState.Running)) CheckCapacity(node);
        }
        _killsLeft = 0;
        Quiesce();
        Require(_mayForget || LostPrograms == 0, "a program is lost, though everything was recorded");
        foreach (ExtentNode node in Nodes) CheckPlaces(node);
        foreach (ExtentNode node in Nodes.Where(n => n.Program is not null)) Attempt(node, () => End(node));
        Quiesce();
        foreach (ExtentNode node in Nodes)
        {
            Require(node.Pager.Regions.Count == 0 && node.Capacity.HomeBytes == 0, $"{node.Id} has {node.Pager.Regions.Count} regions that nobody uses");
            Require(node.Capacity.CacheBytes == node.RunBytes, $"{node.Id} has {node.Capacity.CacheBytes >> 20} MiB for copies");
        }
    }

    public void Dispose()
    {
        try
        {
            foreach (ExtentNode node in Nodes.Where(n => n.State == AgentState.Running)) node.Die();
            Reactor.Dispose();
        }
        finally
        {
            Directory.Delete(Folder, recursive: true); // it is memory
        }
    }

    /// <summary>A frame leaves.</summary>
    public void Post(ExtentNode from, NodeId to, Parcel parcel) => _wires[from.Id.Value, to.Value].Enqueue((parcel, from.Knows(to)));

    /// <summary>An agent can be killed here: between two steps of it, before each frame that it sends, before a program hears an answer, between two effects.</summary>
    public void Trip(ExtentNode node, bool isWithinStep = false)
    {
        if (_killsLeft == 0 || _random.Next(isWithinStep ? 20_000 : 150) > 0) return;
        _killsLeft--;
        Tell($"{node.Id}: killed");
        throw new KilledException();
    }

    private static void Require(bool condition, string otherwise)
    {
        if (!condition) throw new InvalidOperationException(otherwise);
    }

    private void Step()
    {
        ExtentNode node = Nodes[_random.Next(Nodes.Length)];
        int what = _random.Next(100);
        if (what < 60) _ = DeliverOne();
        else if (node.State != AgentState.Running) Advance(node);
        else if (what < 85) Attempt(node, () => Use(node));
        else if (what < 94) Attempt(node, node.EndTurn);
        else if (what < 97) Attempt(node, node.Tick);
        else node.Squeeze(_random.Next(1, 6));
    }

    /// <summary>Something that the program of a node does.</summary>
    private void Use(ExtentNode node)
    {
        if (!node.HasRun) return;
        if (node.Program is not { } program)
        {
            RegionId id = RegionId.Create(node.Id, ++_lastRegion);
            Tell($"{node.Id}: {id} begins");
            node.Attach(id);
            return;
        }
        uint first = (uint)_random.Next(Extents), count = (uint)_random.Next(1, Math.Min(4, Extents - (int)first + 1));
        switch (_random.Next(100))
        {
            case 0:
                End(node);
                break;
            case < 25 when program.Asked is null:
                bool isRelease = _random.Next(2) == 0;
                if (isRelease && program.Touched is { } touched && touched.Page.Extent.Value - first < count) break; // no program does that
                Tell($"{node.Id}: {program.Region} asks to {(isRelease ? "release" : "reserve")} {first}+{count}");
                node.Ask(program, isRelease, new ExtentNumber(first), count);
                break;
            default:
                while (first < Extents && !program.Has[first]) first++;
                bool mayTouch = program.Touched is null && program.Asked is not { IsRelease: true } && first < Extents;
                if (mayTouch) program.Touched = (new ExtentNumber(first).FirstPage.Plus((uint)_random.Next(PagesInUse)), _random.Next(4) > 0);
                node.Touch(program);
                break;
        }
    }

    private void End(ExtentNode node)
    {
        Tell($"{node.Id}: {node.Program!.Region} ends");
        Answers += node.Program.Answers;
        node.End();
    }

    private bool DeliverOne()
    {
        int start = _random.Next(_wires.Length);
        for (int i = 0; i < _wires.Length; i++)
        {
            (int from, int to) = Math.DivRem((start + i) % _wires.Length, Nodes.Length);
            if (!_wires[from, to].TryDequeue(out var next)) continue;
            ExtentNode node = Nodes[to];
            bool isForIt = next.ToIncarnation == node.Incarnation || next.ToIncarnation == ToAnyAgent;
            bool isKept = Bug == PlantedBug.KeepsWhatNobodyPlaces && next.Parcel.Header.Type == MessageType.ReleaseExtents && _random.Next(10) == 0;
            if (node.State != AgentState.Running || !isForIt || isKept) return true;
            FrameHeader header = next.Parcel.Header;
            if (next.Parcel.Control is null) Tell($"{from} to {to}: {header.Type} {header.Region} {header.Page.Extent.Value}+{header.Count}");
            Attempt(node, () =>
            {
                if (next.Parcel.Control is { } control) control();
                else node.OnFrame(Nodes[from].Id, next.Parcel);
            });
            return true;
        }
        return false;
    }

    /// <summary>Has an agent act. What it sends leaves now, or after what it does next, or never.</summary>
    private void Attempt(ExtentNode node, Action action)
    {
        try
        {
            action();
            Trip(node);
            if (_random.Next(2) == 0) node.EndTurn();
        }
        catch (KilledException)
        {
            Kills++;
            node.Die();
            for (int other = 0; other < Nodes.Length; other++)
            {
                // Of what it said, the others hear the beginning, or all.
                Queue<(Parcel, int)> said = _wires[node.Id.Value, other];
                (Parcel, int)[] heard = [.. said.Take(_random.Next(said.Count * 2 + 1))];
                said.Clear();
                foreach ((Parcel, int) parcel in heard) said.Enqueue(parcel);
            }
        }
    }

    /// <summary>The next agent of a node gets on.</summary>
    private void Advance(ExtentNode node)
    {
        if (node.State == AgentState.Announced)
        {
            Tell($"{node.Id}: agent {node.Incarnation} starts");
            Attempt(node, node.Start);
            return;
        }
        int incarnation = ++node.Incarnation;
        node.State = AgentState.Announced;
        foreach (ExtentNode other in Nodes.Where(n => n != node))
        {
            _wires[node.Id.Value, other.Id.Value].Enqueue((new Parcel(default, [], () => other.OnRestarted(node.Id, incarnation)), ToAnyAgent));
        }
    }

    /// <summary>All agents are there, everything that is under way arrives, and everything that waits goes on, until nothing does.</summary>
    private void Quiesce()
    {
        int calm = 0;
        for (int round = 0; calm < 3; round++)
        {
            Require(round < MaxRounds, $"there is no end to it: {string.Join("; ", Nodes.Select(Describe))}");
            foreach (ExtentNode node in Nodes)
            {
                while (node.State != AgentState.Running) Advance(node);
                node.Tick();
                if (node.Program is { } program) node.Touch(program);
                node.EndTurn();
            }
            while (DeliverOne()) { }
            bool isCalm = Nodes.All(n => n.Peers.All.All(p => !p.IsReturning) && n.Program is null or { Asked: null, Touched: null }
                && !n.Recovery.Led.Any(led => n.Recovery.IsUnderWay(led.Id)));
            calm = isCalm ? calm + 1 : 0;
        }
    }

    private static string Describe(ExtentNode node) => $"{node.Id}: {node.Program?.Region} asked {node.Program?.Asked} touched {node.Program?.Touched} "
        + string.Join(", ", node.Pager.Regions.Select(r => $"{r.Id} generation {Pager.GenerationOf(r).Value}{(Pager.IsFrozen(r) ? " frozen" : "")}"));

    /// <summary>Always: what is set aside is what was given.</summary>
    private static void CheckCapacity(ExtentNode node)
    {
        long given = node.Pager.Regions.Sum(r => r.GivenExtents);
        Require((long)node.Capacity.HomeBytes == given * ExtentNumber.Bytes, $"{node.Id} counts {node.Capacity.HomeBytes >> 21} extents, and has given {given}");
        Require(node.Capacity.HomeBytes + node.Capacity.CacheBytes <= node.Capacity.ContributedBytes, $"{node.Id} has given more than it has");
    }

    /// <summary>When nothing is under way: an extent is where its maker has placed it and nowhere else, and placed where its program has it.</summary>
    private void CheckPlaces(ExtentNode node)
    {
        CheckCapacity(node);
        foreach (PagedRegion here in node.Pager.Regions)
        {
            ExtentNode maker = Nodes[here.Id.Creator.Value];
            bool isMade = maker.Program?.Region == here.Id && maker.Pager.Find(here.Id) is not null;
            Require(isMade, $"{node.Id} has {here.Id}, which nobody uses");
            PagedRegion made = maker.Pager.Find(here.Id)!;
            bool isRecovered = !Pager.IsFrozen(here) && !Pager.IsDeaf(here) && Pager.GenerationOf(here) == Pager.GenerationOf(made);
            Require(isRecovered, $"{node.Id} has {here.Id} as it was before it was recovered");
            for (uint e = 0; e < Extents; e++)
            {
                ExtentNumber extent = new(e);
                NodeId home = made.Layout.Homes!.HomeOf(extent), mirror = made.Layout.Homes.MirrorOf(extent);
                string what = $"{extent} of {here.Id} has its home at {home}, and its mirror at {mirror}";
                Require(here.Layout.IsHome(extent) == (home == node.Id), $"{what}, and {node.Id} knows something else of its home");
                Require(here.Mirrored!.Contains(extent) == (mirror == node.Id), $"{what}, and {node.Id} knows something else of its mirror");
                Require(home != node.Id || Pager.MirrorOf(here, extent) == mirror, $"{what}, and its home takes {Pager.MirrorOf(here, extent)} for that");
                if (node != maker) continue;
                bool isUsed = node.Program!.Has[e];
                Require(home.IsNone != isUsed && made.Layout.IsOpen(extent) == isUsed, $"{what}, and is {(isUsed ? "" : "not ")}the program's");
                Require(home.IsNone || Nodes[home.Value].Pager.Find(here.Id) is not null, $"{what}, and the home knows nothing of it");
                Require(mirror.IsNone || Nodes[mirror.Value].Pager.Find(here.Id) is not null, $"{what}, and the mirror knows nothing of it");
            }
        }
    }

    private sealed class KilledException : Exception;
}
