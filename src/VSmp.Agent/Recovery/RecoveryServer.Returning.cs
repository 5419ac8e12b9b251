// SPDX-License-Identifier: Apache-2.0
using System.Buffers.Binary;
using VSmp.Agent.Paging;
using VSmp.Coherence;
using VSmp.Coherence.Messages;
using VSmp.Coherence.Recovery;
using ProtocolViolationException = VSmp.Coherence.ProtocolViolationException;

namespace VSmp.Agent.Recovery;

/// <content>
/// Agents that are started again. Each tells each other which regions of its making it has, when one of the two is another agent than before; what the maker does not know
/// any more is dropped, what the other does not know any more is lost there, and all the rest is recovered with nobody lost.
/// </content>
internal sealed partial class RecoveryServer
{
    private const ulong IsLast = 1, IsAsked = 2;
    private const int RegionIdsPerFrame = FrameHeader.MaxPayloadBytes / sizeof(ulong);

    private readonly HashSet<NodeId> _awaited = []; // who has yet to say what it has, or this node to ask
    private readonly Dictionary<NodeId, HashSet<RegionId>> _held = []; // what they have said so far
    private readonly Dictionary<RegionId, HashSet<NodeId>> _forgotten = []; // who is a member, and knows nothing of a region
    private readonly HashSet<RegionId> _toReturn = []; // to be recovered when all have said what they have
    private readonly HashSet<RegionId> _adopted = []; // led by an agent before, who may have been killed before others heard where homes are

    /// <summary>Raised when a node has said what it has: it may be asked for things again.</summary>
    public event Action<NodeId>? Returned;

    /// <summary>Raised for each region that an agent of this node led before, and that is to be recovered: how far its mirrors were filled is not known any more.</summary>
    public event Action<LedRegion>? Adopted;

    /// <summary>The agent of a node is another one: until it has said what it has, nothing that concerns it goes on.</summary>
    public void OnNodeRestarted(NodeId node)
    {
        _awaited.Add(node);
        _held.Remove(node);
        // What the one before has led, or asked for, is void.
        _early.RemoveAll(e => e.From == node);
        ForgetPieces(node);
        _afterFreeze.RemoveAll(a => a.Region.Creator == node);
    }

    private void ForgetPieces(NodeId leader)
    {
        foreach (RegionId region in _pieces.Keys.Where(id => id.Creator == leader).ToArray()) _pieces.Remove(region);
    }

    /// <summary>
    /// This node's agent is another one: its regions are recovered as soon as the others have said what they have of them. Homes and mirrors that are no members
    /// any more were excluded meanwhile, and may be acted upon.
    /// </summary>
    public void OnRestartedHere(IEnumerable<NodeId> others)
    {
        foreach (NodeId node in others) OnNodeRestarted(node);
        foreach (LedRegion region in Led.ToArray())
        {
            var participants = new HashSet<NodeId>();
            region.AddParticipants(participants);
            foreach (NodeId node in participants) NoteIfGone(node);
            for (uint e = 0; e < region.ExtentCount; e++)
            {
                ExtentNumber extent = new(e);
                NoteIfGone(region.Homes.HomeOf(extent));
                NoteIfGone(region.Homes.MirrorOf(extent));
                region.HasLostNode |= region.IsMirrored && region.IsBare(extent);
            }
            // This node may have been about to become home of what was lost, when its agent was killed before all of that had found a place.
            if (_pager.Find(region.Id) is { IsShared: true }) _reservations.ReleaseUnplaced(region, _self);
            _toReturn.Add(region.Id);
            _adopted.Add(region.Id);
            Adopted?.Invoke(region);
        }
        BeginReturned();
    }

    private void NoteIfGone(NodeId node)
    {
        if (!node.IsNone && node != _self && _peers.Find(node) is null) _lost.Add(node);
    }

    /// <summary>Asks a node what it has, and tells it what this one has. To be asked again until it has answered: it may not be ready.</summary>
    public void AskHeld(NodeId node) => SendHeld(node, IsAsked);

    private void SendHeld(NodeId to, ulong flags)
    {
        RegionId[] held = [.. _pager.Regions.Where(r => r.Id.Creator == to).Select(r => r.Id)];
        for (int at = 0; ;)
        {
            int count = Math.Min(held.Length - at, RegionIdsPerFrame);
            Span<byte> room = _fabric.Begin(to, count * sizeof(ulong));
            for (int i = 0; i < count; i++) BinaryPrimitives.WriteUInt64LittleEndian(room[(i * sizeof(ulong))..], held[at + i].Value);
            at += count;
            bool isLast = at == held.Length;
            _fabric.Commit(NewHeader(MessageType.RegionsHeld, default, default) with { Argument0 = isLast ? IsLast | flags : 0 });
            if (isLast) return;
        }
    }

    private void OnHeld(NodeId from, in FrameHeader header, ReadOnlySpan<byte> payload)
    {
        if (payload.Length % sizeof(ulong) != 0 || header.Argument0 > (IsLast | IsAsked)) throw new ProtocolViolationException($"{from} has regions that make no sense");
        if (!_held.TryGetValue(from, out HashSet<RegionId>? held)) _held.Add(from, held = []);
        for (; !payload.IsEmpty; payload = payload[sizeof(ulong)..])
        {
            var id = new RegionId(BinaryPrimitives.ReadUInt64LittleEndian(payload));
            if (id.Creator != _self) throw new ProtocolViolationException($"{from} has {id}, and tells {_self}, who has not made it");
            held.Add(id);
        }
        if ((header.Argument0 & IsLast) == 0) return;
        _held.Remove(from);
        if ((header.Argument0 & IsAsked) != 0) SendHeld(from, 0);
        if (_awaited.Remove(from)) OnReturned(from, held);
    }

    /// <summary>Nothing is on the way between the two but this: what is known here, and what is there, can be compared.</summary>
    private void OnReturned(NodeId node, HashSet<RegionId> held)
    {
        foreach (RegionId id in held)
        {
            if (FindLed(id) is { } region) _reservations.ReleaseUnplaced(region, node);
            else _reservations.DropAt(node, id);
        }
        foreach (LedRegion region in Led.ToArray())
        {
            if (region.IsOver || (!IsTouchedBy(region, node) && !IsInvolved(region, node))) continue;
            if (!held.Contains(region.Id))
            {
                if (!_forgotten.TryGetValue(region.Id, out HashSet<NodeId>? forgetful)) _forgotten.Add(region.Id, forgetful = []);
                forgetful.Add(node);
                Log.Warn($"the agent of node {_peers.NameOf(node)} was started again, and has nothing of {region.Name} any more");
            }
            _toReturn.Add(region.Id);
        }
        Returned?.Invoke(node);
        BeginReturned();
    }

    /// <summary>Recovers what was made here, and has to do with an agent that was started again, where all have said what they have.</summary>
    private void BeginReturned()
    {
        foreach (RegionId id in _toReturn.ToArray())
        {
            if (FindLed(id) is { IsOver: false } region)
            {
                if (_awaited.Any(node => IsTouchedBy(region, node) || IsInvolved(region, node))) continue;
                Begin(region);
            }
            _toReturn.Remove(id);
        }
    }

    /// <summary>The nodes that are lost as far as a region goes.</summary>
    private HashSet<NodeId> LostFor(LedRegion region) => _forgotten.TryGetValue(region.Id, out HashSet<NodeId>? forgetful) ? [.. _lost, .. forgetful] : _lost;
}
