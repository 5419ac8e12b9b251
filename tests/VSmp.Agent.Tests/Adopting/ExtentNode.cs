// SPDX-License-Identifier: Apache-2.0
using System.Runtime.InteropServices;
using Microsoft.Win32.SafeHandles;
using VSmp.Agent.Adopting;
using VSmp.Agent.Control;
using VSmp.Agent.Guests;
using VSmp.Agent.Interop;
using VSmp.Agent.Paging;
using VSmp.Agent.Recovery;
using VSmp.Coherence;
using VSmp.Coherence.Homes;
using VSmp.Coherence.Messages;
using VSmp.Coherence.Nodes;
using VSmp.Coherence.Placement;
using VSmp.Coherence.Protocols;

namespace VSmp.Agent.Tests.Adopting;

/// <summary>What a node is doing about its agent.</summary>
internal enum AgentState
{
    /// <summary>None runs.</summary>
    Killed,
    /// <summary>The others are being told that another one is coming.</summary>
    Announced,
    /// <summary>One runs.</summary>
    Running,
}

/// <summary>
/// A node of an <see cref="ExtentWorld"/>: what ships of its agent between a guest's requests and the fabric, put together as <see cref="AgentHost"/> does, and
/// the program that may run there.
/// </summary>
internal sealed class ExtentNode(ExtentWorld world, int number, uint contributedExtents, Redundancy? runs)
{
    private const ulong LocalBytes = 2 * (ulong)ExtentNumber.Bytes; // of which one extent may have its home here

    private readonly Dictionary<NodeId, int> _known = []; // which agent of each node this one speaks to
    private readonly EffectBuffer _effects = new();
    private RunRecord? _record;
    private Run? _run;

    public NodeId Id { get; } = new((ushort)number);

    public string Folder { get; } = Directory.CreateDirectory(Path.Combine(world.Folder, $"{number}")).FullName;

    public AgentState State { get; set; } = AgentState.Announced;

    /// <summary>Counts its agents.</summary>
    public int Incarnation { get; set; }

    public Pager Pager { get; private set; } = null!;

    public WireFabric Fabric { get; private set; } = null!;

    public Peers Peers { get; private set; } = null!;

    public Capacity Capacity { get; private set; } = null!;

    public Reservations Reservations { get; private set; } = null!;

    public RecoveryServer Recovery { get; private set; } = null!;

    /// <summary>Whether programs run here.</summary>
    public bool HasRun => runs is not null;

    public ulong RunBytes => HasRun ? LocalBytes : 0;

    public ExtentProgram? Program { get; set; }

    /// <summary>The agent that this node speaks to at another one.</summary>
    public int Knows(NodeId node) => _known.GetValueOrDefault(node);

    /// <summary>The next agent begins, with what the last has left.</summary>
    public void Start()
    {
        State = AgentState.Running;
        Fabric = new WireFabric(Id, (to, parcel) => world.Post(this, to, parcel)) { Tripwire = () => world.Trip(this) };
        Pager = new Pager(Id, world.Reactor, Fabric, () => world.Nodes.Length) { IsRecording = true, Tripwire = () => world.Trip(this, isWithinStep: true) };
        Peers = new Peers();
        Capacity = new Capacity(contributedExtents * (ulong)ExtentNumber.Bytes);
        Reservations = new Reservations(Id, Pager, Fabric, Capacity, Peers, Folder);
        Recovery = new RecoveryServer(Id, Pager, Fabric, Peers, Reservations);
        var runsHere = new Runs(Capacity, Pager, world.Reactor);
        Pager.Progressed += Reservations.Continue;
        Pager.Progressed += ContinueRelease;
        foreach (ExtentNode other in world.Nodes.Where(n => n != this))
        {
            _known[other.Id] = other.Incarnation;
            Peer peer = Peers.Add(other.Id, $"n{other.Id.Value}", "");
            peer.IsConnected = peer.IsUp = true;
        }
        bool isFirst = Incarnation == 0;
        var request = new RunRequest(null, "test", LocalBytes, Environment.ProcessId, 0, Redundancy: runs);
        if (HasRun) _run = isFirst ? runsHere.Begin(request, new AwaitedSupervisor(), () => "") : runsHere.Restore(_record!);
        if (!isFirst) TakeOver();
        Recovery.Returned += OnReturned;
        if (!isFirst)
        {
            foreach (Peer peer in Peers.All) peer.OnRestarted();
            Recovery.OnRestartedHere(Peers.All.Select(p => p.Node));
        }
        Tick();
        EndTurn();
        if (Program is { } program) Again(program);
    }

    /// <summary>The agent is gone. What it had open is closed, and nothing else done.</summary>
    public void Die()
    {
        State = AgentState.Killed;
        if (_run is not null) _record = RunRecord.Of(_run);
        if (Program is not null) Program.Guest = null;
        foreach (PagedRegion region in Pager.Regions)
        {
            region.Records?.Close();
            region.Kept.Close();
            region.Frames.Close();
        }
    }

    /// <summary>The agent of another node is another one.</summary>
    public void OnRestarted(NodeId other, int incarnation)
    {
        if (Knows(other) >= incarnation) return;
        EndTurn(); // what was said to the last one
        _known[other] = incarnation;
        Peers.Find(other)!.OnRestarted();
        Recovery.OnNodeRestarted(other);
        if (world.Bug != PlantedBug.WaitsForFormerAgents) Reservations.OnPeerRestarted(other);
        Recovery.AskHeld(other);
    }

    /// <summary>As agents do several times a second.</summary>
    public void Tick()
    {
        foreach (Peer peer in Peers.All)
        {
            if (peer.IsReturning) Recovery.AskHeld(peer.Node);
            else Report(peer.Node);
        }
    }

    public void EndTurn()
    {
        Pager.RecordLayouts();
        Fabric.Flush();
        Pager.OnTurnEnd();
        Fabric.Flush();
    }

    public void OnFrame(NodeId from, Parcel parcel)
    {
        FrameHeader header = parcel.Header;
        switch (header.Type)
        {
            case MessageType.ReserveExtents or MessageType.ReserveReply or MessageType.ReleaseExtents or MessageType.DropRegion:
                Reservations.OnFrame(from, in header, parcel.Payload);
                break;
            case (>= MessageType.RegionFreeze and <= MessageType.RegionThaw) or MessageType.RegionsHeld:
                Recovery.OnFrame(from, in header, parcel.Payload);
                break;
            default:
                Message message = parcel.Message;
                Pager.OnMessage(in message, parcel.Payload);
                break;
        }
    }

    /// <summary>Fewer copies have room here; the oldest must go home.</summary>
    public void Squeeze(int pages) => _run?.Budget.SetLimit(pages);

    // What a guest server does for a program.

    public void Attach(RegionId id)
    {
        Program = new ExtentProgram(id);
        var frames = FrameFile.Create(Folder, id, ExtentWorld.Extents * (ulong)ExtentNumber.Bytes);
        Serve(Pager.Add(new Region(id, "region", ExtentWorld.Extents, Msi.Protocol, new HomeMap(ExtentWorld.Extents), _run!.Budget), frames, _run));
    }

    /// <summary>The program has ended, with or without an agent that sees it.</summary>
    public void End()
    {
        Guest? guest = Program!.Guest;
        Program = null;
        if (guest is null) return;
        guest.Mappings[0].Region.RemoveMapping(guest.Mappings[0]);
        Reservations.Drop(guest);
    }

    public void Ask(ExtentProgram program, bool isRelease, ExtentNumber first, uint count)
    {
        program.Asked = (isRelease, first, count);
        Again(program);
    }

    /// <summary>What a program has asked for, and has no answer to.</summary>
    private void Again(ExtentProgram program)
    {
        if (program.Asked is not var (isRelease, first, count)) return;
        if (isRelease) ContinueRelease();
        else Reservations.Reserve(program.Guest!, first, count, why => Answer(program, why));
    }

    private void ContinueRelease()
    {
        if (Program is not { Asked: (true, var first, var count), Guest: { } guest } program) return;
        for (PageNumber page = first.FirstPage; page.Value < first.FirstPage.Value + (count * ExtentNumber.Pages); page = page.Plus(1))
        {
            if (Pager.Forget(guest.Region, page, 1) == 0) return;
        }
        Reservations.Release(guest, first, count);
        Answer(program, null);
    }

    private void Answer(ExtentProgram program, string? why)
    {
        world.Trip(this); // it is done, and not heard
        if (program != Program) throw new InvalidOperationException("a program that has ended is answered");
        program.OnAnswer(why);
    }

    /// <summary>A program's thread goes on with a load or store, as far as it can, as if it had faulted.</summary>
    public unsafe void Touch(ExtentProgram program)
    {
        if (program.Guest is not { } guest) return;
        PagedRegion region = guest.Region;
        bool isLost = program.Touched is { } at && region.Layout.IsOpen(at.Page.Extent) && region.LocalAt(at.Page).IsPoisoned;
        if (isLost || guest.EndedBecause is not null)
        {
            world.Tell($"{Id}: {region.Id} is lost: {guest.EndedBecause}");
            world.LostPrograms++;
            End();
            return;
        }
        if (program.Touched is not var (page, write)) return;
        PageCopy copy = region.Layout.IsOpen(page.Extent) ? region.Protocol.CopyOf(page) : PageCopy.None;
        if (copy is PageCopy.Writable || (!write && copy is PageCopy.Clean or PageCopy.Dirty))
        {
            ulong* words = stackalloc ulong[PageNumber.Bytes / sizeof(ulong)];
            region.Frames.Read(page, (byte*)words, 1);
            ulong next = program.OnTouched(words[0]);
            world.Touches++;
            if (write) region.Frames.WriteBytes(page, 0, MemoryMarshal.AsBytes(new ReadOnlySpan<ulong>(in next)));
            return;
        }
        if (copy == PageCopy.UnderWay) return;
        _effects.Clear();
        AccessResult result = region.Protocol.Access(page, write, _effects);
        if (result == AccessResult.NotReserved) throw new InvalidOperationException($"{page} of {region.Id} is the program's, and not open");
        for (int i = 0; i < _effects.Count; i++) region.Records!.Record(Pager.DirectoryOf(region)!, region.Node!, _effects[i].Page);
        for (int i = 0; i < _effects.Count; i++)
        {
            Effect effect = _effects[i];
            if (effect.Kind == EffectKind.Record) continue;
            if (effect.Kind != EffectKind.Send || effect.Source != DataSource.None) throw new InvalidOperationException($"a fault leads to {effect}");
            if (effect.To == Id) Pager.OnMessage(in effect.Message, []);
            else Say(effect.To, in effect.Message);
        }
    }

    private void Say(NodeId to, in Message m)
    {
        Fabric.Begin(to, 0);
        Fabric.Commit(FrameHeader.Of(in m));
    }

    private void OnReturned(NodeId node)
    {
        Peers.Find(node)!.OnReturned();
        Report(node);
        Reservations.OnPeerReturned();
    }

    private void Report(NodeId to)
    {
        if (!Peers.IsUp(to)) return;
        var report = new NodeReport { ContributedBytes = Capacity.ContributedBytes, HomeBytes = Capacity.HomeBytes, CacheBytes = Capacity.CacheBytes };
        Fabric.Say(to, () => world.Nodes[to.Value].Peers.Find(Id)!.OnReport(in report));
    }

    /// <summary>As <see cref="NodeAdopter"/> does, but for what a keeper has.</summary>
    private void TakeOver()
    {
        var adopter = new RegionAdopter(Pager, Capacity, Folder);
        if (world.Forgets()) adopter.DiscardOthers();
        foreach (RegionId id in adopter.Find())
        {
            try
            {
                bool isUsed = (adopter.Look(id).Traits & RegionTraits.IsUsed) != 0;
                if (!isUsed) _ = adopter.Adopt(id, run: null);
                else if (Program?.Region == id) Adopt(adopter, id);
            }
            catch (Exception e) when (e is InvalidDataException or IOException { HResult: Errno.ENOENT })
            {
                world.Tell($"node {number} does not adopt {id}: {e.Message}");
            }
        }
        adopter.DiscardOthers();
        if (Program is not { Guest: null } program) return;
        if (Array.Exists(program.Has, has => has)) world.LostPrograms++;
        Program = null;
    }

    private void Adopt(RegionAdopter adopter, RegionId id)
    {
        var recorded = new Dictionary<ExtentNumber, ExtentRecord>();
        if (world.Bug == PlantedBug.PlacesWhatWasGivenBack)
        {
            StateFile records = StateFile.Open(FrameFile.PathOf(Folder, id), id, Id);
            for (uint e = 0; e < ExtentWorld.Extents; e++) recorded.Add(new ExtentNumber(e), records[new ExtentNumber(e)]);
            records.Close();
        }
        PagedRegion region = adopter.Adopt(id, _run);
        foreach ((ExtentNumber extent, ExtentRecord record) in recorded)
        {
            if (record.Home == Id) continue;
            region.Layout.Homes!.Place(extent, record.Home);
            region.Layout.Homes.PlaceMirror(extent, record.Mirror);
        }
        Serve(region);
    }

    /// <summary>The program has the region as <see cref="Reservations"/> and recoveries see it; its address space is gone, so that nothing is mapped.</summary>
    private void Serve(PagedRegion region)
    {
        var guest = new Guest(Environment.ProcessId, _run!, region, new SafeFileHandle(-1, ownsHandle: false), 0);
        for (uint e = 0; e < ExtentWorld.Extents; e++)
        {
            if (region.Layout.IsOpen(new ExtentNumber(e))) guest.ReservedExtents++;
        }
        guest.Mappings.Add(new Mapping(guest, region, -1, 0, 0, 0) { IsGone = true });
        region.Mappings.Add(guest.Mappings[0]);
        Program!.Guest = guest;
    }
}

/// <summary>A program: what it has been told, and has written.</summary>
internal sealed class ExtentProgram(RegionId region)
{
    private readonly Dictionary<PageNumber, ulong> _written = [];
    private ulong _last;

    public RegionId Region => region;

    /// <summary>What it is to its agent; null while there is none.</summary>
    public Guest? Guest { get; set; }

    /// <summary>The extents that are its own.</summary>
    public bool[] Has { get; } = new bool[ExtentWorld.Extents];

    /// <summary>The request that is out.</summary>
    public (bool IsRelease, ExtentNumber First, uint Count)? Asked { get; set; }

    /// <summary>The page that a thread waits for.</summary>
    public (PageNumber Page, bool Write)? Touched { get; set; }

    /// <summary>Requests that were answered.</summary>
    public int Answers { get; private set; }

    public void OnAnswer(string? why)
    {
        (bool isRelease, ExtentNumber first, uint count) = Asked ?? throw new InvalidOperationException("a request is answered twice");
        Asked = null;
        Answers++;
        for (uint e = first.Value; why is null && e < first.Value + count; e++)
        {
            Has[e] = !isRelease;
            if (isRelease) foreach (PageNumber page in _written.Keys.Where(p => p.Extent.Value == e).ToArray()) _written.Remove(page);
        }
    }

    /// <summary>A page is there.</summary>
    /// <param name="found">What it has.</param>
    /// <returns>What the program writes, if it does.</returns>
    public ulong OnTouched(ulong found)
    {
        (PageNumber page, bool write) = Touched!.Value;
        ulong expected = _written.GetValueOrDefault(page);
        string should = expected == 0 ? "is new" : $"{expected:x} was written";
        if (found != expected) throw new InvalidOperationException($"{page} of {region} has {found:x}, and {should}");
        Touched = null;
        if (!write) return found;
        return _written[page] = (region.Value << 16) + ++_last;
    }
}
