// SPDX-License-Identifier: Apache-2.0
using System.Buffers.Binary;
using System.Runtime.InteropServices;
using VSmp.Agent.Fabric;
using VSmp.Coherence;
using VSmp.Coherence.Homes;
using VSmp.Coherence.Messages;
using VSmp.Coherence.Nodes;
using VSmp.Coherence.Recovery;

namespace VSmp.Bench.Simulation;

/// <content>A node's part when others are lost, as an agent plays it: home, mirror, user. And its own end.</content>
internal sealed partial class SimulatedNode
{
    private const int CopyTicks = 20, CopiesPerTurn = 16, MaxCopiesOut = 64;

    private MirrorController _mirror;
    private RecoveryController _recovery;
    private readonly List<Claim> _claims = [];
    private readonly List<PageNumber> _lostPages = [];
    private readonly List<Thread> _stopped = []; // until there is a lease
    private readonly List<EarlyFreeze> _early = []; // about a loss that this node has not been told of yet
    private readonly List<FrameHeader> _afterFreeze = []; // asked for after such a freeze
    private readonly List<CopyJob> _copying = [];

    /// <summary>Whether its guests use the region.</summary>
    public bool IsUser { get; }

    /// <summary>Whether it is dead.</summary>
    public bool IsDown { get; private set; }

    private bool IsOver => IsDown || _isExpelled;

    private bool MayRun => !IsDown && (_cluster.Membership is null || _cluster.Membership.MayRun(Id));

    private bool _isExpelled;

    /// <summary>Everything that is here is gone.</summary>
    public void Die()
    {
        IsDown = true;
        Array.Fill(_frames, NoFrame);
        Array.Fill(_mapped, Right.None);
        _kept.Clear();
        ForgetThreads();
        _deferred.Clear();
        _copying.Clear();
        _toSelf.Clear();
    }

    /// <summary>The others go on without this node, whose guests have been stopped for good.</summary>
    public void OnExpelled()
    {
        _isExpelled = true;
        if ((_cluster.Planted & SimulationBugs.LeaseIgnored) == 0) ForgetThreads();
    }

    /// <summary>A node is out of the view, and its guests are stopped.</summary>
    public void OnNodeLost(NodeId lost)
    {
        _cluster.Network.Close(Id, lost);
        if (lost == _cluster.Creator)
        {
            ForgetThreads(); // the region is gone, and its guests with it
            return;
        }
        if (Id == _cluster.Creator) OnUserOrHomeLost(lost);
        FreezeLate();
        EndTurn();
    }

    private void FreezeLate()
    {
        foreach (EarlyFreeze early in _early.ToArray())
        {
            if (TryFreeze(early)) _early.Remove(early);
        }
        if (_early.Count > 0) return;
        foreach (FrameHeader asked in _afterFreeze) OnMirrorAsked(in asked);
        _afterFreeze.Clear();
    }

    /// <summary>A node has come.</summary>
    public void OnViewAdopted()
    {
        FreezeLate();
        if (Id == _cluster.Creator && !Region.IsDeaf) LookForMirrors();
        EndTurn();
    }

    private void ForgetThreads()
    {
        _waiting.Clear();
        _starved.Clear();
        _stopped.Clear();
        _again.Clear();
    }

    private bool IsRegionHere => !IsOver && !_cluster.IsRegionGone;

    private void OnControl(NodeId from, in FrameHeader header, ReadOnlySpan<byte> payload)
    {
        // What was adopted is to be frozen first.
        if (Region.IsDeaf && (header.Type is MessageType.RegionRebuild or MessageType.RegionClaims or MessageType.RegionThaw or MessageType.RegionMirror)) return;
        switch (header.Type)
        {
            case MessageType.RegionFreeze:
                Plan plan = Plan.Read(payload, _cluster.ExtentCount);
                var freeze = new EarlyFreeze(new ViewNumber((uint)header.Argument0), header.Generation, plan);
                if (!TryFreeze(freeze)) _early.Add(freeze);
                break;
            case MessageType.RegionFrozen:
                OnFrozen(from, header.Generation);
                break;
            case MessageType.RegionRebuild:
                if (header.Generation == Region.Generation) SendClaims();
                break;
            case MessageType.RegionClaims:
                OnClaims(from, header.Generation, payload, isLast: header.Argument0 == 1);
                break;
            case MessageType.RegionRebuilt:
                OnRebuilt(from, header.Generation);
                break;
            case MessageType.RegionThaw:
                if (header.Generation == Region.Generation) Thaw();
                break;
            case MessageType.ReserveExtents:
                OnMirrorAsked(in header);
                break;
            case MessageType.ReserveReply:
                OnMirrorAnswer(from, header.Page.Extent, header.Argument0 == 1);
                break;
            case MessageType.ReleaseExtents:
                StopMirroring(header.Page.Extent);
                break;
            case MessageType.RegionMirror:
                BeginCopying(in header);
                break;
            case MessageType.RegionMirrored:
                if (header.Generation == Region.Generation) _restoring.Remove(header.Page.Extent);
                break;
        }
    }

    /// <returns>False if this node has not been told yet that the others are lost: not before that may it act upon it.</returns>
    private bool TryFreeze(EarlyFreeze freeze)
    {
        (ViewNumber view, Generation generation, Plan plan) = freeze;
        if (view.Value > _cluster.Membership!.ViewOf(Id).Value) return false; // what it would tell an agent that was started again would go to the one before
        foreach (NodeId lost in plan.Lost)
        {
            if (!_cluster.Membership.HasExcluded(Id, lost)) return false;
        }
        if (generation.Value > Region.Generation.Value) Freeze(generation, plan);
        SendControl(_cluster.Creator, MessageType.RegionFrozen, generation);
        return true;
    }

    private void Freeze(Generation generation, Plan plan)
    {
        var recovery = new RecoveryPlan(plan.Lost, plan.Users, plan.IsAnyUserLost);
        for (uint e = 0; e < _cluster.ExtentCount; e++)
        {
            ExtentNumber extent = new(e);
            NodeId home = plan.Homes[e];
            // What was asked for before the loss, and is not wanted any more.
            if (Region.Mirrored.Contains(extent) && home != Id && plan.Mirrors[e] != Id) StopMirroring(extent);
            if (IsUser) Region.Homes!.Place(extent, home);
            if (Has(SimulationBugs.TwoHomes) && Region.Mirrored.Contains(extent)) recovery = recovery with { Lost = [.. recovery.Lost, Region.Mirrored.HomeOf(extent)] };
        }
        _cluster.Foresee(this, recovery);
        int promoted = _recovery.Freeze(Region, generation, recovery, _effects);
        _copying.Clear();
        if (promoted > 0)
        {
            CountCopies();
            _killIn = 0; // what is recorded of the extents cannot be adopted before all of it has changed
        }
        Drain();
    }

    /// <summary>What is in frames of pages that have their home here now is no copy any more.</summary>
    private void CountCopies()
    {
        CopyCount = 0;
        for (int i = 0; i < _frames.Length; i++)
        {
            ExtentNumber extent = SimulatedCluster.PageAt(i).Extent;
            if (_frames[i] != NoFrame && !Region.IsHome(extent) && !Region.Mirrored.Contains(extent)) CopyCount++;
        }
    }

    private void SendClaims()
    {
        var ofHome = new SortedDictionary<ushort, List<Claim>>();
        for (uint e = 0; e < _cluster.ExtentCount; e++)
        {
            ExtentNumber extent = new(e);
            NodeId home = Region.Homes!.HomeOf(extent);
            if (!ofHome.TryGetValue(home.Value, out List<Claim>? claims)) ofHome.Add(home.Value, claims = []);
            _claims.Clear();
            NodeController.ListClaims(Region, extent, _claims);
            claims.AddRange(_claims);
        }
        Generation generation = Region.Generation;
        foreach ((ushort home, List<Claim> claims) in ofHome)
        {
            byte[] payload = new byte[claims.Count * Claim.Bytes];
            for (int i = 0; i < claims.Count; i++) claims[i].Write(payload.AsSpan(i * Claim.Bytes));
            if (home == Id.Value) OnClaims(Id, generation, payload, isLast: true);
            else SendControl(new NodeId(home), MessageType.RegionClaims, generation, payload, argument: 1);
        }
    }

    private void OnClaims(NodeId from, Generation generation, ReadOnlySpan<byte> payload, bool isLast)
    {
        if (generation != Region.Generation) return;
        _claims.Clear();
        for (; !payload.IsEmpty; payload = payload[Claim.Bytes..])
        {
            if (!Claim.TryRead(payload, out Claim claim)) throw new SimulationException($"{from} claims what makes no sense");
            if (_cluster.IsTracing) _cluster.Tell($"{Id}: {from} claims {claim}");
            _claims.Add(claim);
        }
        _lostPages.Clear();
        _recovery.OnClaims(Region, from, CollectionsMarshal.AsSpan(_claims), isLast, _effects, _lostPages);
        foreach (PageNumber page in _lostPages)
        {
            if (SimulatedCluster.IsUsed(page)) _cluster.OnPageLost(this, page);
        }
        Drain();
    }

    private bool ReportRebuilt()
    {
        if (Region.Rebuild is null || !RecoveryController.TryComplete(Region)) return false;
        SendControl(_cluster.Creator, MessageType.RegionRebuilt, Region.Generation);
        return true;
    }

    private void Thaw()
    {
        _recovery.Thaw(Region, _effects);
        Thread[] threads = [.. _waiting];
        _waiting.Clear();
        foreach (Thread thread in threads)
        {
            Region.PageAt(thread.Page).Flags &= ~PageFlags.Awaited;
            _again.Enqueue(thread);
        }
        Drain();
        Starved();
    }

    private void Poison(PageNumber page)
    {
        _cluster.OnPoisoned(this, page);
        Region.PageAt(page).Flags &= ~PageFlags.Awaited;
        for (int i = _waiting.Count - 1; i >= 0; i--)
        {
            if (_waiting[i].Page != page) continue;
            Thread thread = _waiting[i];
            _waiting.RemoveAt(i);
            AccessesLost++;
            Think(thread); // it is told by a signal, and handles it
        }
    }

    /// <summary>A planted bug: the home does not wait for the mirror's word.</summary>
    private void AcknowledgeForMirror(Message put, NodeId mirror)
    {
        if ((put.Flags & MessageFlags.Prefetch) != 0) return;
        for (uint i = 0; i < put.Count; i++)
            _toSelf.Enqueue(put with { Type = MessageType.MirrorAck, Flags = MessageFlags.None, Source = mirror, Page = put.Page.Plus(i), Count = 1 });
    }

    // As a mirror, and as the home of what gets a new one.

    private void OnMirrorAsked(in FrameHeader header)
    {
        ExtentNumber extent = header.Page.Extent;
        if (_early.Count > 0)
        {
            _afterFreeze.Add(header); // it has seen less than who asks
            return;
        }
        if (header.Generation.Value > Region.Generation.Value) Region.Generation = header.Generation; // it took no part before
        bool granted = !Region.IsHome(extent) && Region.Mirrored.Add(extent, new NodeId((ushort)header.Argument0), isFresh: false);
        SendControl(header.Source, MessageType.ReserveReply, Region.Generation, page: extent.FirstPage, argument: granted ? 1u : 0);
    }

    private void StopMirroring(ExtentNumber extent)
    {
        if (!Region.Mirrored.Remove(extent)) return;
        for (uint i = 0; i < SimulatedCluster.PagesPerExtent && !IsUser; i++) _frames[SimulatedCluster.IndexOf(extent.FirstPage.Plus(i))] = NoFrame;
    }

    private void BeginCopying(in FrameHeader header)
    {
        ExtentNumber extent = header.Page.Extent;
        if (header.Generation != Region.Generation || !Region.IsHome(extent)) return; // it is said again
        Region.SetMirror(extent, new NodeId((ushort)header.Argument0));
        _copying.RemoveAll(job => job.Extent == extent);
        _copying.Add(new CopyJob(extent, Region.Generation));
        if (_copying.Count == 1) _cluster.After(CopyTicks, () => WhenAwake(Copy));
    }

    private void Copy()
    {
        if (!IsRegionHere || _copying.Count == 0) return;
        CopyJob job = _copying[0];
        _cluster.After(CopyTicks, () => WhenAwake(Copy));
        if (Region.MirrorCopiesOut >= MaxCopiesOut) return;
        for (int i = 0; i < CopiesPerTurn && job.Left.Count > 0; i++)
        {
            PageNumber page = job.Left.Dequeue();
            if (!Home.TryCopyToMirror(Region, page, _effects)) job.Left.Enqueue(page);
        }
        Drain();
        if (job.Left.Count > 0 || Region.MirrorCopiesOut > 0 || _copying.Count == 0 || _copying[0] != job) return;
        _copying.RemoveAt(0);
        SendControl(_cluster.Creator, MessageType.RegionMirrored, job.Generation, page: job.Extent.FirstPage);
        EndTurn();
    }

    private void SendControl(NodeId to, MessageType type, Generation generation, ReadOnlySpan<byte> payload = default, PageNumber page = default, ulong argument = 0)
    {
        FrameHeader header = new()
        {
            Type = type,
            Source = Id,
            Requestor = Id,
            Network = MessageTypes.NetworkOf(type),
            Count = 1,
            Region = SimulatedCluster.RegionId,
            Page = page,
            Generation = generation,
            Argument0 = argument,
        };
        if (_cluster.IsTracing) _cluster.Tell($"{Id}:   tells {to}: {type}, generation {generation.Value}{(argument != 0 ? $", {argument}" : "")}");
        if (to == Id)
        {
            OnControl(Id, in header, payload);
            return;
        }
        if (_records is not null)
        {
            _outbox.Add((to, header, payload.ToArray()));
            return;
        }
        payload.CopyTo(_cluster.Network.Begin(Id, to, payload.Length));
        _cluster.Network.Commit(Id, to, in header);
    }

    /// <summary>What is told to all who take part: of the shipped plan, and where homes and mirrors are from now on.</summary>
    private sealed record Plan(NodeId[] Lost, NodeId[] Users, bool IsAnyUserLost, NodeId[] Homes, NodeId[] Mirrors)
    {
        public byte[] Write()
        {
            ushort[] words = [(ushort)Lost.Length, (ushort)Users.Length, IsAnyUserLost ? (ushort)1 : (ushort)0,
                .. ((NodeId[])[.. Lost, .. Users, .. Homes, .. Mirrors]).Select(n => n.Value)];
            byte[] bytes = new byte[words.Length * 2];
            for (int i = 0; i < words.Length; i++) BinaryPrimitives.WriteUInt16LittleEndian(bytes.AsSpan(i * 2), words[i]);
            return bytes;
        }

        public static Plan Read(ReadOnlySpan<byte> bytes, int extents)
        {
            ushort[] words = new ushort[bytes.Length / 2];
            for (int i = 0; i < words.Length; i++) words[i] = BinaryPrimitives.ReadUInt16LittleEndian(bytes[(i * 2)..]);
            NodeId[] nodes = [.. words.Skip(3).Select(w => new NodeId(w))];
            int lost = words[0], users = words[1];
            return new Plan(nodes[..lost], nodes[lost..(lost + users)], words[2] == 1, nodes[(lost + users)..(lost + users + extents)], nodes[^extents..]);
        }
    }

    private sealed record EarlyFreeze(ViewNumber View, Generation Generation, Plan Plan);

    private sealed class CopyJob(ExtentNumber extent, Generation generation)
    {
        public ExtentNumber Extent => extent;
        public Generation Generation => generation;
        public Queue<PageNumber> Left { get; } = new(Enumerable.Range(0, SimulatedCluster.PagesPerExtent).Select(i => extent.FirstPage.Plus((uint)i)));
    }
}
