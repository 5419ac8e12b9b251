// SPDX-License-Identifier: Apache-2.0
using VSmp.Coherence;
using VSmp.Coherence.Messages;
using VSmp.Coherence.Placement;
using VSmp.Coherence.Recovery;

namespace VSmp.Bench.Simulation;

/// <content>The node that made the region leads its recoveries, and finds homes and mirrors for what has none, as its agent would.</content>
internal sealed partial class SimulatedNode
{
    private RecoveryLeader _leader = new();
    private readonly SortedSet<ushort> _lost = [];
    private readonly Dictionary<ExtentNumber, NodeId> _restoring = []; // asked for (none), or being copied to
    private readonly List<(NodeId Node, ExtentNumber Extent, bool IsAdoption)> _asked = []; // in order
    private NodeId[] _participants = [];
    private bool _isAnyUserLost; // in the recovery that is under way
    private bool _mustBegin; // when the answers are there

    /// <summary>What there is still to be done as a leader; null if nothing is.</summary>
    public string? Leading => _leader.Phase != RecoveryPhase.None ? $"the recovery is still {_leader.Phase}, of generation {_leader.Generation.Value}"
        : _asked.Count > 0 ? $"{_asked[0].Node} has not answered whether it takes extent {_asked[0].Extent.Value}"
        : _restoring.Count > 0 ? $"extent {_restoring.First().Key.Value} is still being copied to {_restoring.First().Value}"
        : null;

    private HomeMap Places => Region.Homes!;

    /// <summary>All but what outlives an agent that leads: where homes and mirrors are, and who is lost.</summary>
    private void ForgetLeading()
    {
        _leader = new RecoveryLeader();
        _restoring.Clear();
        _asked.Clear();
        _participants = [];
    }

    private void OnUserOrHomeLost(NodeId lost)
    {
        _lost.Add(lost.Value);
        if (_cluster.Nodes[lost.Value].IsUser) _isAnyUserLost = _mustBegin = true;
        bool isConcerned = _leader.Phase != RecoveryPhase.None && _participants.Contains(lost);
        for (uint e = 0; e < _cluster.ExtentCount; e++) isConcerned |= Places.HomeOf(new ExtentNumber(e)) == lost || Places.MirrorOf(new ExtentNumber(e)) == lost;
        _mustBegin |= isConcerned;
        foreach ((NodeId node, ExtentNumber extent, bool _) in _asked.ToArray())
        {
            if (node == lost) OnMirrorAnswer(lost, extent, granted: false);
        }
        Begin();
    }

    private void Begin()
    {
        if (!_mustBegin || _asked.Any(a => a.IsAdoption)) return;
        for (uint e = 0; e < _cluster.ExtentCount; e++)
        {
            if (IsOrphan(new ExtentNumber(e))) Ask(new ExtentNumber(e), Candidate(otherThan: Id, evenUsers: true), isAdoption: true);
        }
        if (_asked.Any(a => a.IsAdoption)) return;
        // A user that is out of the view, and may not be acted upon yet: it begins with its loss.
        NodeId[] members = [.. _cluster.Membership!.MembersSeenBy(Id)];
        if (_cluster.Nodes.Any(n => n.IsUser && !IsLost(n.Id) && !members.Contains(n.Id))) return;
        _mustBegin = false;
        for (uint e = 0; e < _cluster.ExtentCount; e++) MoveHome(new ExtentNumber(e));
        _participants = [.. members.Where(n => !IsLost(n))];
        NodeId[] homes = [.. Enumerable.Range(0, _cluster.ExtentCount).Select(e => Places.HomeOf(new ExtentNumber((uint)e)))];
        NodeId[] mirrors = [.. Enumerable.Range(0, _cluster.ExtentCount).Select(e => Places.MirrorOf(new ExtentNumber((uint)e)))];
        Generation before = _leader.Generation.Value > Region.Generation.Value ? _leader.Generation : Region.Generation;
        Generation generation = before.Next();
        _leader.Begin(generation, _participants, homes.Distinct());
        var plan = new Plan([.. _lost.Select(n => new NodeId(n))], [.. _participants.Where(n => _cluster.Nodes[n.Value].IsUser)], _isAnyUserLost, homes, mirrors);
        _cluster.Tell($"{Id}: leads recovery {generation.Value}, homes {string.Join(' ', homes)}, mirrors {string.Join(' ', mirrors)}");
        byte[] bytes = plan.Write();
        foreach (NodeId participant in _participants)
        {
            if (participant != Id) SendControl(participant, MessageType.RegionFreeze, generation, bytes, argument: _cluster.Membership!.ViewOf(Id).Value);
        }
        Freeze(generation, plan);
        OnFrozen(Id, generation);
    }

    private bool IsLost(NodeId node) => _lost.Contains(node.Value);

    private bool IsOrphan(ExtentNumber extent) => IsLost(Places.HomeOf(extent)) && (Places.MirrorOf(extent).IsNone || IsLost(Places.MirrorOf(extent)));

    private void MoveHome(ExtentNumber extent)
    {
        NodeId mirror = Places.MirrorOf(extent);
        if (IsLost(mirror)) Places.PlaceMirror(extent, mirror = NodeId.None);
        if (!IsLost(Places.HomeOf(extent))) return;
        Places.Place(extent, mirror);
        Places.PlaceMirror(extent, NodeId.None);
    }

    private void OnFrozen(NodeId node, Generation generation)
    {
        bool isLast = _leader.OnFrozen(node, generation);
        if (!isLast) return;
        foreach (NodeId user in _participants)
        {
            if (user != Id && _cluster.Nodes[user.Value].IsUser) SendControl(user, MessageType.RegionRebuild, generation);
        }
        SendClaims();
    }

    private void OnRebuilt(NodeId node, Generation generation)
    {
        if (!_leader.OnRebuilt(node, generation)) return;
        _isAnyUserLost = false;
        _cluster.OnRecovered();
        foreach (NodeId participant in _participants)
        {
            if (participant != Id) SendControl(participant, MessageType.RegionThaw, generation);
        }
        foreach ((ExtentNumber extent, NodeId mirror) in _restoring.ToArray())
        {
            if (mirror.IsNone) continue; // not answered yet
            if (Places.MirrorOf(extent) == mirror) TellMirror(extent, mirror);
            else _restoring.Remove(extent);
        }
        Thaw();
        LookForMirrors();
    }

    private void LookForMirrors()
    {
        if (!IsRegionHere || Region.IsFrozen) return;
        for (uint e = 0; e < _cluster.ExtentCount; e++)
        {
            ExtentNumber extent = new(e);
            if (!IsBare(extent)) continue;
            NodeId mirror = Candidate(otherThan: Places.HomeOf(extent), evenUsers: false);
            if (mirror.IsNone) continue;
            _restoring.Add(extent, NodeId.None);
            Ask(extent, mirror, isAdoption: false);
        }
    }

    /// <summary>Whether an extent lacks a mirror that nobody has been asked for; what is at home with a user has none.</summary>
    private bool IsBare(ExtentNumber extent) => _cluster.IsMirrored(extent) && !_cluster.Nodes[Places.HomeOf(extent).Value].IsUser && !IsLost(Places.HomeOf(extent))
        && Places.MirrorOf(extent).IsNone && !_restoring.ContainsKey(extent);

    private NodeId Candidate(NodeId otherThan, bool evenUsers)
    {
        NodeId[] others = [.. _cluster.Membership!.MembersSeenBy(Id).Where(n => !IsLost(n) && n != otherThan && (evenUsers || !_cluster.Nodes[n.Value].IsUser))];
        return others.Length > 0 ? others[_cluster.Random.Next(others.Length)] : evenUsers ? Id : NodeId.None;
    }

    private void Ask(ExtentNumber extent, NodeId node, bool isAdoption)
    {
        if (_asked.Any(a => a.Node == node && a.Extent == extent)) node = Id; // it is asked already, for something else
        _asked.Add((node, extent, isAdoption));
        SendControl(node, MessageType.ReserveExtents, Region.Generation, page: extent.FirstPage, argument: Places.HomeOf(extent).Value);
    }

    private void OnMirrorAnswer(NodeId node, ExtentNumber extent, bool granted)
    {
        int at = _asked.FindIndex(a => a.Node == node && a.Extent == extent);
        if (at < 0) return; // it was lost meanwhile
        bool isAdoption = _asked[at].IsAdoption;
        _asked.RemoveAt(at);
        if (isAdoption)
        {
            if (granted && IsOrphan(extent)) Places.PlaceMirror(extent, node);
            else if (granted) SendControl(node, MessageType.ReleaseExtents, Region.Generation, page: extent.FirstPage);
            Begin(); // looks again
            return;
        }
        bool isWanted = _restoring.Remove(extent);
        if (!granted)
        {
            LookForMirrors();
            return;
        }
        if (!isWanted || Region.IsFrozen || !IsBare(extent))
        {
            SendControl(node, MessageType.ReleaseExtents, Region.Generation, page: extent.FirstPage);
            if (!Region.IsFrozen) LookForMirrors();
            return;
        }
        Places.PlaceMirror(extent, node);
        _restoring.Add(extent, node);
        TellMirror(extent, node);
    }

    private void TellMirror(ExtentNumber extent, NodeId mirror) =>
        SendControl(Places.HomeOf(extent), MessageType.RegionMirror, Region.Generation, page: extent.FirstPage, argument: mirror.Value);
}
