// SPDX-License-Identifier: Apache-2.0
using System.Collections.Concurrent;
using System.Globalization;
using System.Runtime.InteropServices;
using Microsoft.Win32.SafeHandles;
using VSmp.Agent.Adopting;
using VSmp.Agent.Control;
using VSmp.Agent.Guests;
using VSmp.Agent.Interop;
using VSmp.Agent.Paging;
using VSmp.Coherence;
using VSmp.Coherence.Messages;
using VSmp.Coherence.Nodes;
using VSmp.Coherence.Placement;
using VSmp.Coherence.Protocols;
using VSmp.Coherence.Recovery;

namespace VSmp.Agent.Tests.Adopting;

/// <summary>
/// Pagers of four nodes on real pages, in one process and on one reactor: nodes 0 (which leads) and 1 have guests, and each is home of an extent; node 2 is home of
/// one, which node 3 mirrors if that is asked for. Agents are killed wherever they can be, and adopted by the next.
/// </summary>
internal sealed class AdoptingWorld : IDisposable
{
    public const int Extents = 3, PagesInUse = 6, Slots = 3;
    private const int Nodes = 4, Users = 2, LocalPages = 8;

    private readonly Random _random;
    private readonly Reactor _reactor = new(maxSpinMicroseconds: 0);
    private readonly Thread _thread;
    private readonly string _folder;
    private readonly Node[] _nodes = new Node[Nodes];
    private readonly Queue<Parcel>[] _wires = new Queue<Parcel>[Nodes * Nodes];
    private readonly RegionId _id = RegionId.Create(new NodeId(0), 1);
    private readonly TaskCompletionSource _failed = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private RecoveryLeader _leader = new();
    private int _killsLeft, _countdown, _victim;

    public AdoptingWorld(int seed, Protocol protocol, bool isMirrored, int kills)
    {
        _random = new Random(seed);
        _folder = Path.Combine("/dev/shm", $"vsmp-adopting-{Environment.ProcessId}-{seed}-{protocol.Name}-{isMirrored}");
        for (int i = 0; i < _wires.Length; i++) _wires[i] = new Queue<Parcel>();
        for (int i = 0; i < Nodes; i++)
        {
            Directory.CreateDirectory(FolderOf(i));
            _nodes[i] = new Node(this, i);
            _nodes[i].Start();
            Make(_nodes[i], protocol, isMirrored);
        }
        _killsLeft = kills;
        ArmNext();
        _reactor.AtTurnEnd(EndTurn);
        _thread = new Thread(Run) { IsBackground = true };
        _thread.Start();
    }

    /// <summary>Ends when something has failed.</summary>
    public Task Failed => _failed.Task;

    /// <summary>Agents killed so far.</summary>
    public int Kills { get; private set; }

    /// <summary>Where they were killed, and what happened then.</summary>
    public ConcurrentQueue<string> Story { get; } = [];

    public GuestMemory MemoryOf(int user) => _nodes[user].Memory!;

    /// <summary>How things stand, where they should not stand: for messages.</summary>
    public string Describe()
    {
        var text = new System.Text.StringBuilder();
        text.AppendLine(CultureInfo.InvariantCulture, $"leader {_leader.Phase} {_leader.Generation.Value}, kills {Kills}, frames {_wires.Sum(w => w.Count)}");
        foreach (Node node in _nodes)
        {
            if (node.Pager.Find(_id) is not { } region || Pager.DirectoryOf(region) is not { } state) continue;
            text.AppendLine(CultureInfo.InvariantCulture, $"node {node.Number}: generation {state.Generation.Value} frozen {state.IsFrozen} deaf {state.IsDeaf} rebuilding {state.Rebuild is not null} faults {node.Pager.FaultCount} free {node.Run?.Budget.FreePages}");
            for (uint e = 0; e < Extents; e++)
            {
                for (uint i = 0; i < PagesInUse; i++)
                {
                    PageNumber page = new ExtentNumber(e).FirstPage.Plus(i);
                    if (state.IsOpen(page.Extent)) text.Append(CultureInfo.InvariantCulture, $" {page.Value}:{state.PageAt(page).State}/{state.PageAt(page).Flags}");
                    if (state.IsHome(page.Extent)) text.Append(CultureInfo.InvariantCulture, $" home {page.Value}:{state.EntryAt(page).State}/{state.EntryAt(page).Flags}");
                }
            }
            text.AppendLine();
        }
        return text.ToString();
    }

    /// <summary>What the agent of a home knows of its pages, and whether they have frames.</summary>
    private string PagesOf(Node node)
    {
        if (node.Pager.Find(_id) is not { } region || Pager.DirectoryOf(region) is not { } state || node.Number >= Extents) return "";
        PageNumber first = new ExtentNumber((uint)node.Number).FirstPage;
        return string.Join(", ", Enumerable.Range(0, PagesInUse).Select(i => first.Plus((uint)i)).Select(page =>
            $"{page.Value}: {(state.IsOpen(page.Extent) ? state.PageAt(page).State : null)} {state.EntryAt(page).State}/{state.EntryAt(page).Flags}/{state.EntryAt(page).Owner}"
            + $"{(region.Frames.Has(page) ? " frame" : "")}{(region.Kept.Contains(page) ? " kept" : "")}"));
    }

    public void Dispose()
    {
        try
        {
            _reactor.Stop();
            _thread.Join();
            foreach (Node node in _nodes) node.Dispose();
            _reactor.Dispose();
        }
        finally
        {
            Directory.Delete(_folder, recursive: true); // it is memory
        }
    }

    private string FolderOf(int node) => Path.Combine(_folder, node.ToString(CultureInfo.InvariantCulture));

    private static NodeId Id(int node) => new((ushort)node);

    private void Run()
    {
        try { _reactor.Run(); }
#pragma warning disable CA1031 // whatever it is, it is the test's failure
        catch (Exception e) { _failed.TrySetException(e); }
#pragma warning restore CA1031
    }

    private void Make(Node node, Protocol protocol, bool isMirrored)
    {
        HomeMap? homes = node.Run is null ? null : new HomeMap(Extents);
        var state = new Region(_id, "test", Extents, protocol, homes, node.Run?.Budget);
        var frames = FrameFile.Create(FolderOf(node.Number), _id, (ulong)Extents * ExtentNumber.Bytes);
        PagedRegion region = node.Pager.Add(state, frames, node.Run);
        region.IsShared = true;
        for (int e = 0; e < Extents; e++)
        {
            ExtentNumber extent = new((uint)e);
            homes?.Place(extent, Id(e));
            if (node.Number == e)
            {
                state.BecomeHome(extent);
                if (isMirrored && e == 2) state.SetMirror(extent, Id(3));
            }
            if (isMirrored && node.Number == 3 && e == 2) state.Mirrored.Add(extent, Id(2), isFresh: true);
            if (node.Run is not null) region.Open(extent);
        }
        node.Pager.RecordLayouts();
        if (node.Run is null) return;
        node.Memory = new GuestMemory(frames, (ulong)Extents * ExtentNumber.Bytes);
        node.MapMemory(region);
    }

    private void EndTurn()
    {
        bool isBusy = false;
        for (int steps = 0; steps < 64 && DeliverOne(); steps++) isBusy = true;
        foreach (Node node in _nodes) Attempt(node, node.EndTurn);
        if (isBusy || _wires.Any(wire => wire.Count > 0)) _reactor.WakeBy(_reactor.NowMicroseconds);
    }

    private bool DeliverOne()
    {
        int start = _random.Next(_wires.Length);
        for (int i = 0; i < _wires.Length; i++)
        {
            int wire = (start + i) % _wires.Length;
            if (!_wires[wire].TryDequeue(out Parcel? parcel)) continue;
            Node to = _nodes[wire % Nodes];
            Attempt(to, () =>
            {
                if (parcel.Control is not null) parcel.Control();
                else to.OnFrame(in parcel);
                if (_random.Next(3) == 0) to.EndTurn();
            });
            return true;
        }
        return false;
    }

    /// <summary>Has an agent act, and another take its place if it is killed over it.</summary>
    private void Attempt(Node node, Action action)
    {
        for (bool isDone = false; !isDone; action = () => Restart(node))
        {
            try
            {
                action();
                isDone = true;
            }
            catch (KilledException)
            {
                Kills++;
                ArmNext();
                Story.Enqueue(PagesOf(node));
                node.Die();
            }
        }
    }

    private void Restart(Node node)
    {
        for (int from = 0; from < Nodes; from++) _wires[(from * Nodes) + node.Number].Clear();
        node.Start();
        node.Adopt();
        Story.Enqueue($"node {node.Number} adopted generation {Pager.GenerationOf(node.Region).Value}; {PagesOf(node)}");
        if (node.Number == 0)
        {
            _leader = new RecoveryLeader();
            Recover();
        }
        else node.Fabric.Say(Id(0), Recover);
        node.Fabric.Flush();
        _reactor.WakeBy(_reactor.NowMicroseconds); // it may have been the last thing of a turn
    }

    /// <summary>The next agent to be killed, and after how many things that it does.</summary>
    private void ArmNext()
    {
        if (_killsLeft-- <= 0)
        {
            _victim = -1;
            return;
        }
        bool isSoon = _random.Next(3) == 0; // while it adopts, or is recovered
        if (!isSoon || _victim < 0) _victim = _random.Next(Nodes);
        _countdown = 1 + _random.Next(isSoon ? 60 : 600);
    }

    private void Trip(int node)
    {
        if (node != _victim || --_countdown > 0) return;
        Story.Enqueue($"node {node} is killed");
        throw new KilledException();
    }

    // A recovery with nobody lost, as the nodes' recovery servers make it.

    private void Recover()
    {
        Node leader = _nodes[0];
        Generation generation = Pager.GenerationOf(leader.Region).Next();
        var plan = new RecoveryPlan([], [.. Enumerable.Range(0, Users).Select(Id)], IsAnyUserLost: false);
        _leader.Begin(generation, Enumerable.Range(0, Nodes).Select(Id), Enumerable.Range(0, Extents).Select(Id));
        leader.Pager.Freeze(leader.Region, generation, plan);
        for (int i = 1; i < Nodes; i++)
        {
            Node node = _nodes[i];
            leader.Fabric.Say(Id(i), () =>
            {
                if (generation.Value > Pager.GenerationOf(node.Region).Value) node.Pager.Freeze(node.Region, generation, plan);
                node.Fabric.Say(Id(0), () => OnFrozen(node.Number, generation));
            });
        }
        OnFrozen(0, generation);
    }

    private void OnFrozen(int node, Generation generation)
    {
        if (!_leader.OnFrozen(Id(node), generation)) return;
        for (int i = 0; i < Users; i++)
        {
            Node user = _nodes[i];
            Tell(_nodes[0], i, () => SendClaims(user, generation));
        }
    }

    private void SendClaims(Node user, Generation generation)
    {
        if (Pager.GenerationOf(user.Region) != generation) return;
        for (int e = 0; e < Extents; e++)
        {
            var claims = new List<Claim>();
            Pager.ListClaims(user.Region, new ExtentNumber((uint)e), claims);
            Node home = _nodes[e];
            Tell(user, e, () =>
            {
                if (Pager.GenerationOf(home.Region) != generation || !Pager.IsRebuilding(home.Region)) return;
                home.Pager.OnClaims(home.Region, Id(user.Number), CollectionsMarshal.AsSpan(claims), isLast: true);
            });
        }
    }

    private void OnRebuilt(Node home)
    {
        Generation generation = Pager.GenerationOf(home.Region);
        if (home.Region.LostHere.Count > 0) throw new InvalidOperationException($"{home.Region.LostHere.Count} pages are taken for lost");
        Tell(home, 0, () =>
        {
            if (!_leader.OnRebuilt(Id(home.Number), generation)) return;
            for (int i = Nodes - 1; i >= 0; i--)
            {
                Node node = _nodes[i];
                Tell(_nodes[0], i, () =>
                {
                    if (Pager.GenerationOf(node.Region) == generation) node.Pager.Thaw(node.Region);
                });
            }
        });
    }

    private static void Tell(Node from, int to, Action action)
    {
        if (from.Number == to) action();
        else from.Fabric.Say(Id(to), action);
    }

    private sealed class KilledException : Exception;

    private sealed class Silent : IRunObserver
    {
        public void OnMessage(string text)
        {
        }

        public void OnGuestAttached(int processId, int userfaultfd)
        {
        }

        public void OnGuestDetached(int processId)
        {
        }
    }

    private sealed class Node(AdoptingWorld world, int number) : IReactorHandler, IDisposable
    {
        private Mapping? _mapping;

        public int Number => number;

        public Pager Pager { get; private set; } = null!;

        public WireFabric Fabric { get; private set; } = null!;

        public Run? Run { get; private set; }

        public GuestMemory? Memory { get; set; }

        public PagedRegion Region => Pager.Find(world._id) ?? throw new InvalidOperationException("no region");

        public void Start()
        {
            Fabric = new WireFabric(Id(number), (to, parcel) => world._wires[(number * Nodes) + to.Value].Enqueue(parcel));
            Pager = new Pager(Id(number), world._reactor, Fabric, () => Nodes) { IsRecording = true, Tripwire = () => world.Trip(number) };
            Pager.Rebuilt += _ => world.OnRebuilt(this);
            if (number >= Users) return;
            Run = new Run("run", new RunRequest(null, "test", null, Environment.ProcessId, 0), LocalPages * PageNumber.Bytes, new Silent(), 0);
            Pager.AddRun(Run);
        }

        public void Adopt()
        {
            var adopter = new RegionAdopter(Pager, new Capacity(1 << 30), world.FolderOf(number));
            PagedRegion region = adopter.Adopt(world._id, Run);
            if (Memory is not null) MapMemory(region);
        }

        public void MapMemory(PagedRegion region)
        {
            var guest = new Guest(Environment.ProcessId, Run!, null, new SafeFileHandle(-1, ownsHandle: false), 0);
            _mapping = new Mapping(guest, region, Memory!.Userfaultfd, Memory.Address, (ulong)Extents * ExtentNumber.Bytes, 0);
            RegionAdopter.Map(world._reactor, _mapping, this);
        }

        public void OnReady(EpollEvents events)
        {
            if (_mapping is { } mapping) world.Attempt(this, () => Pager.OnFaults(mapping));
        }

        public void OnFrame(in Parcel parcel)
        {
            Message message = parcel.Message;
            Pager.OnMessage(in message, parcel.Payload);
        }

        public void EndTurn()
        {
            Pager.RecordLayouts();
            Fabric.Flush();
            Pager.OnTurnEnd();
            Fabric.Flush();
            if (_mapping?.Guest.EndedBecause is { } why) throw new InvalidOperationException($"the guest of node {number} was ended: {why}");
        }

        /// <summary>The agent is gone. What it had open is closed, and nothing else done.</summary>
        public void Die()
        {
            if (Memory is not null) world._reactor.Unwatch(Memory.Userfaultfd);
            _mapping?.Guest.Dispose();
            _mapping = null;
            if (Pager.Find(world._id) is not { } region) return;
            region.Records!.Close();
            region.Kept.Close();
            region.Frames.Close();
        }

        public void Dispose()
        {
            Die();
            Memory?.Dispose();
        }
    }
}
