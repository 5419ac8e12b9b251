// SPDX-License-Identifier: Apache-2.0
using System.Text;
using System.Text.Json;
using VSmp.Agent.Checkpointing.Files;
using VSmp.Agent.Fabric;
using VSmp.Agent.Guests;
using VSmp.Agent.Interop;
using VSmp.Agent.Paging;
using VSmp.Coherence;
using VSmp.Coherence.Checkpointing;
using VSmp.Coherence.Messages;
using ProtocolViolationException = VSmp.Coherence.ProtocolViolationException;

namespace VSmp.Agent.Checkpointing;

/// <summary>
/// Checkpoints of regions: this node's part of each, and those that it leads. The protocol is <see cref="CheckpointLeader"/>'s and <see cref="CheckpointMember"/>'s; here it meets the pager, the
/// fabric and the disk. Owned by the reactor; files are written and read by threads of their own.
/// </summary>
/// <remarks>This file: the part of every node. CheckpointServer.Leading.cs: the leader's. CheckpointServer.Loading.cs: filling new regions with what a generation has.</remarks>
internal sealed partial class CheckpointServer
{
    /// <summary>Pages copied in a turn: a fault does not wait for more.</summary>
    private const int PagesPerTurn = 32;

    private readonly NodeId _self;
    private readonly Reactor _reactor;
    private readonly Pager _pager;
    private readonly IFabric _fabric;
    private readonly Peers _peers;
    private readonly CheckpointFiles _files;
    private readonly Dictionary<ulong, Taking> _here = [];
    private readonly List<Taking> _active = []; // those of them that wait for the protocol, or copy

    /// <summary>Makes the server of a node.</summary>
    /// <param name="self">The node.</param>
    /// <param name="reactor">Its reactor.</param>
    /// <param name="pager">Its pager.</param>
    /// <param name="fabric">Reaches the others.</param>
    /// <param name="peers">The others.</param>
    /// <param name="files">Where checkpoints are.</param>
    public CheckpointServer(NodeId self, Reactor reactor, Pager pager, IFabric fabric, Peers peers, CheckpointFiles files)
    {
        (_self, _reactor, _pager, _fabric, _peers, _files) = (self, reactor, pager, fabric, peers, files);
        pager.Removed += OnRemoved;
    }

    /// <summary>Where checkpoints are.</summary>
    public CheckpointFiles Files => _files;

    /// <summary>The end of a turn: what waits for the protocol is looked at, and pages are copied.</summary>
    public void OnTurnEnd()
    {
        for (int i = _active.Count - 1; i >= 0; i--)
        {
            Taking taking = _active[i];
            if (!TryContinue(taking)) continue;
            _active.Remove(taking);
        }
    }

    /// <summary>A frame about a checkpoint.</summary>
    /// <exception cref="ProtocolViolationException">It makes no sense.</exception>
    public void OnFrame(NodeId peer, in FrameHeader header, ReadOnlySpan<byte> payload)
    {
        switch (header.Type)
        {
            case MessageType.CheckpointOrder:
                OnOrder(peer, header.Argument0, StepOf(peer, in header), payload);
                break;
            case MessageType.CheckpointDone:
                OnDone(peer, header.Argument0, StepOf(peer, in header), payload.IsEmpty ? null : Read(peer, payload, CheckpointJson.Default.CheckpointAnswer));
                break;
            case MessageType.CheckpointLoad:
                OnLoad(peer, header.Argument0, Read(peer, payload, CheckpointJson.Default.LoadPlan));
                break;
            case MessageType.CheckpointLoaded:
                OnLoaded(peer, header.Argument0, payload.IsEmpty ? null : Encoding.UTF8.GetString(payload));
                break;
        }
    }

    /// <summary>A peer is lost, or its agent was started again: what it led is given up, and what it took part in.</summary>
    public void OnPeerLost(NodeId peer, string text)
    {
        foreach (Taking taking in _here.Values.Where(t => t.Leader == peer).ToArray()) Abandon(taking);
        foreach (HashSet<NodeId> awaited in _loads.Values.Select(load => load.Awaited)) awaited.Remove(peer); // whoever asked hears of the loss
        foreach (ulong number in _loads.Where(load => load.Value.Awaited.Count == 0).Select(load => load.Key).ToArray()) _loads.Remove(number);
        foreach (Led led in _led.Values.Where(l => l.Machine.Nodes.Contains(peer)).ToArray()) GiveUp(led, text);
    }

    private static CheckpointStep StepOf(NodeId peer, in FrameHeader header) => header.Argument1 is >= (ulong)CheckpointStep.Prepare and <= (ulong)CheckpointStep.End
        ? (CheckpointStep)header.Argument1
        : throw new ProtocolViolationException($"{peer} speaks of step {header.Argument1} of a checkpoint");

    private static T Read<T>(NodeId peer, ReadOnlySpan<byte> payload, System.Text.Json.Serialization.Metadata.JsonTypeInfo<T> type)
    {
        try { return JsonSerializer.Deserialize(payload, type) ?? throw new ProtocolViolationException($"{peer} says nothing of a checkpoint"); }
        catch (JsonException e) { throw new ProtocolViolationException($"what {peer} says of a checkpoint makes no sense: {e.Message}"); }
    }

    private void OnOrder(NodeId leader, ulong number, CheckpointStep step, ReadOnlySpan<byte> payload)
    {
        if (step == CheckpointStep.Prepare)
        {
            Prepare(leader, number, Read(leader, payload, CheckpointJson.Default.CheckpointPlan));
            return;
        }
        if (!_here.TryGetValue(number, out Taking? taking)) return; // given up here, and said so
        if (taking.Leader != leader) throw new ProtocolViolationException($"{leader} speaks for checkpoint {number:x}, which {taking.Leader} leads");
        if (step == CheckpointStep.End && payload.IsEmpty)
        {
            End(taking);
            return;
        }
        if (step == CheckpointStep.End)
        {
            Abandon(taking);
            return;
        }
        taking.Member.OnOrder(step);
        if (step == CheckpointStep.Cut) Cut(taking);
        else
        {
            if (step == CheckpointStep.Copy)
            {
                foreach (PagedRegion region in taking.Regions) _pager.GoOn(region);
            }
            _active.Add(taking);
        }
    }

    private void Prepare(NodeId leader, ulong number, CheckpointPlan plan)
    {
        bool makesSense = !_here.ContainsKey(number) && plan.Generation > 0 && plan.Regions.Length <= ushort.MaxValue && Control.RunDirectory.IsValidName(plan.Name)
            && (plan.Tier == CheckpointTier.Disk || (plan.Ring.Length > 1 && plan.Ring.Contains(_self.Value)));
        if (!makesSense) throw new ProtocolViolationException($"{leader} plans checkpoint {number:x} ({plan.Name}), which makes no sense");
        PagedRegion?[] regions = [.. plan.Regions.Select(id => _pager.Find(new RegionId(id)))];
        PagedRegion[] here = [.. regions.OfType<PagedRegion>()];
        if (here.Length < regions.Length || Array.Exists(here, region => region.Protocol is not DirectoryProtocol))
        {
            Answer(leader, number, CheckpointStep.Prepare, new CheckpointAnswer("it lacks a region of it", null));
            return;
        }
        // One that its leader knows nothing of any more.
        foreach (Taking former in _here.Values.Where(t => t.Regions.Intersect(here).Any()).ToArray()) Abandon(former);
        string folder = CheckpointStore.FolderOf(plan.Generation), node = _peers.NameOf(_self);
        NodeId[] ring = [.. plan.Ring.Select(n => new NodeId(n))];
        Taking taking = new(number, leader, plan, _pager.NewCheckpoint(here), here);
        taking.Part = new PartCapture(regions, plan.Generation, mostPages =>
        {
            IStorage storage = _files.Own(plan.Tier, plan.Name, ring);
            storage.MakeFolder(folder); // where nodes do not share it
            return new PartWriter(storage, folder, node, mostPages);
        }, () => _reactor.Post(_pager.OnTakerHasRoom), outcome => _reactor.Post(() => OnWritten(taking, outcome)));
        _here.Add(number, taking);
        Done(taking, null);
    }

    private void Cut(Taking taking)
    {
        ulong pages = 0;
        if (taking.Member.IsStale)
        {
            Done(taking, new CheckpointAnswer("a node was lost meanwhile", null));
            return;
        }
        foreach (PagedRegion region in taking.Regions)
        {
            if (!_pager.TryCut(region, taking.Plan.IsFull, taking.Part))
            {
                Done(taking, new CheckpointAnswer($"part of region {region.Layout.Name} is lost", null));
                return;
            }
            pages += Pager.PendingOf(region);
        }
        taking.Part.Begin(pages);
        Done(taking, null);
    }

    /// <returns>Whether nothing is to be looked at any more.</returns>
    private bool TryContinue(Taking taking)
    {
        if (taking.Member.Step == CheckpointStep.End) return true;
        if (taking.Member.IsStale)
        {
            Answer(taking.Leader, taking.Number, taking.Member.Step, new CheckpointAnswer("a node was lost meanwhile", null));
            Abandon(taking);
            return true;
        }
        if (taking.Member.Step is CheckpointStep.Hold or CheckpointStep.Settle)
        {
            if (!taking.Member.IsQuiet()) return false;
            Done(taking, null);
            return true;
        }
        for (; taking.At < taking.Regions.Count; taking.At++, taking.From = default)
        {
            if (!Pager.CopyPending(taking.Regions[taking.At], ref taking.From, PagesPerTurn)) continue;
            if (taking.Part.HasRoom) _reactor.WakeBy(_reactor.NowMicroseconds); // it goes on, after others had their share
            return false;
        }
        taking.Part.Finish();
        return true;
    }

    private void OnWritten(Taking taking, PartOutcome outcome)
    {
        if (!_here.ContainsKey(taking.Number)) return; // given up meanwhile
        if (outcome.Part is { } part)
        {
            Done(taking, new CheckpointAnswer(null, part));
            return;
        }
        Answer(taking.Leader, taking.Number, taking.Member.Step, new CheckpointAnswer(outcome.Error, null));
        Abandon(taking);
    }

    private void Done(Taking taking, CheckpointAnswer? answer)
    {
        taking.Member.OnDone();
        Answer(taking.Leader, taking.Number, taking.Member.Step, answer);
    }

    private void Answer(NodeId leader, ulong number, CheckpointStep step, CheckpointAnswer? answer)
    {
        if (leader == _self) OnDone(_self, number, step, answer);
        else if (_peers.IsUp(leader)) Send(leader, MessageType.CheckpointDone, number, step, answer is null ? [] : JsonSerializer.SerializeToUtf8Bytes(answer, CheckpointJson.Default.CheckpointAnswer));
    }

    /// <summary>The generation is there.</summary>
    private void End(Taking taking)
    {
        taking.Member.OnOrder(CheckpointStep.End);
        Forget(taking);
    }

    private void Abandon(Taking taking)
    {
        bool isHeld = taking.Member.Step is CheckpointStep.Hold or CheckpointStep.Settle or CheckpointStep.Cut;
        taking.Member.Abandon();
        Forget(taking);
        if (!isHeld) return;
        foreach (PagedRegion region in taking.Regions) _pager.GoOn(region);
    }

    private void Forget(Taking taking)
    {
        _here.Remove(taking.Number);
        _active.Remove(taking);
        taking.Part.Dispose();
        foreach (PagedRegion region in taking.Regions) region.Taker = null;
        // Who waits for room waits for none any more.
        _pager.OnTakerHasRoom();
        _reactor.WakeBy(_reactor.NowMicroseconds);
    }

    private void OnRemoved(RegionId id)
    {
        foreach (Taking taking in _here.Values.Where(t => t.Regions.Exists(region => region.Id == id)).ToArray())
        {
            taking.Regions.RemoveAll(region => region.Id == id);
            Answer(taking.Leader, taking.Number, taking.Member.Step, new CheckpointAnswer("a region of it was dropped meanwhile", null));
            Abandon(taking);
        }
    }

    private void Send(NodeId node, MessageType type, ulong number, CheckpointStep step, ReadOnlySpan<byte> payload)
    {
        payload.CopyTo(_fabric.Begin(node, payload.Length));
        FrameHeader header = new() { Type = type, Requestor = _self, Network = MessageTypes.NetworkOf(type), Argument0 = number, Argument1 = (ulong)step };
        _fabric.Commit(in header);
    }

    /// <summary>A checkpoint that this node takes part in.</summary>
    private sealed class Taking(ulong number, NodeId leader, CheckpointPlan plan, CheckpointMember member, PagedRegion[] regions)
    {
        public ulong Number => number;
        public NodeId Leader => leader;
        public CheckpointPlan Plan => plan;
        public CheckpointMember Member => member;
        public List<PagedRegion> Regions { get; } = [.. regions];
        public PartCapture Part { get; set; } = null!;

        /// <summary>The region that is being copied.</summary>
        public int At { get; set; }

        /// <summary>Where to go on in it.</summary>
        public PageNumber From;
    }
}
