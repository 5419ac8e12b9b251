// SPDX-License-Identifier: Apache-2.0
using VSmp.Coherence;
using VSmp.Coherence.Homes;
using VSmp.Coherence.Messages;
using VSmp.Coherence.Nodes;
using VSmp.Coherence.Placement;
using VSmp.Coherence.Protocols;
using VSmp.Coherence.Recovery;

namespace VSmp.Bench.Simulation;

/// <content>
/// An agent that is killed between any two effects, and the next one, which goes on with what was recorded. Frames, kept copies, mappings and guests stay.
/// </content>
internal sealed partial class SimulatedNode
{
    private const int KillWithinTicks = 300;

    private readonly Records? _records; // where agents are killed
    private readonly List<Thread> _all = [];
    private readonly List<(NodeId To, FrameHeader Header, byte[] Payload)> _outbox = []; // until all is recorded
    private int _killIn; // so many points further on the agent is killed; 0: not
    private int _life;

    /// <summary>Whether the agent was killed, and the next one has not taken its place yet.</summary>
    public bool IsKilled { get; private set; }

    /// <summary>Whether the others go on without this node.</summary>
    public bool IsExpelled => _isExpelled;

    /// <summary>What the home of a page knows of it, and would know if its agent were killed now.</summary>
    public DirectoryEntry EntryOfHome(PageNumber page) =>
        _records is not null && (IsSuspended || IsKilled) ? PageRecords.HomeEntry(_records.HomeWordOf(page)) : Region.EntryAt(page);

    /// <summary>The agent is to be killed soon, at some point of what it does, or between two things that it does.</summary>
    public void KillSoon()
    {
        if (_killIn > 0) return;
        _killIn = _cluster.Random.Next(1, 40);
        int life = _life;
        _cluster.After(1 + _cluster.Random.Next(KillWithinTicks), () =>
        {
            if (life != _life || IsOver || IsKilled || _killIn == 0 || !_cluster.IsWorking) return;
            if (IsSuspended) _killIn = 1;
            else throw new AgentKilledException(this);
        });
    }

    /// <summary>The agent is gone, with all that it knew and has not recorded, and what it was sent and has not sent.</summary>
    public void OnKilled()
    {
        _life++;
        _killIn = 0;
        IsKilled = true;
        _cluster.Tell($"{Id}: its agent is killed");
        _effects.Clear();
        _toSelf.Clear();
        _outbox.Clear();
        _deferred.Clear();
        _copying.Clear();
        _early.Clear();
        _afterFreeze.Clear();
        ForgetThreads(); // they wait for the next one
        _cluster.OnKilled(this);
    }

    /// <summary>The next agent adopts what is left.</summary>
    public void Adopt()
    {
        Region left = Region;
        var budget = IsUser ? new FrameBudget(BudgetPages) : null;
        Region = new Region(left.Id, left.Name, left.ExtentCount, left.Protocol, left.Homes, budget) { Generation = left.Generation };
        for (uint e = 0; e < left.ExtentCount; e++)
        {
            ExtentNumber extent = new(e);
            if (left.IsOpen(extent)) Region.Open(extent);
            if (left.Mirrored.Contains(extent)) Region.Mirrored.Add(extent, left.Mirrored.HomeOf(extent), isFresh: true);
            if (!left.IsHome(extent)) continue;
            Region.BecomeHome(extent);
            Region.SetMirror(extent, left.MirrorOf(extent));
            if (left.UndecidedHomes.Contains(extent)) Region.LeaveUndecided(extent);
        }
        Node = new NodeController(Id, TransactionCapacity);
        Home = new HomeController(Id, () => _cluster.Nodes.Count);
        _mirror = new MirrorController(Id);
        _recovery = new RecoveryController(Id, Node, Home);
        ForgetLeading();
        Adoption.Adopt(Region, _records!, Node, new FramesLeft(this), _effects);
        Execute(default, default);
        RecordAll();
        CountCopies();
        _copies.Clear();
        for (int i = 0; i < _frames.Length; i++)
        {
            PageNumber page = SimulatedCluster.PageAt(i);
            if (_frames[i] != NoFrame && Region.IsOpen(page.Extent) && !Region.IsHome(page.Extent)) _copies.Add(page);
        }
        IsKilled = false;
        foreach (Thread thread in _all)
        {
            if (!thread.IsThinking && !_isExpelled) Fault(thread); // again
        }
    }

    /// <summary>This node's agent is a member, in the place of another that was killed.</summary>
    /// <param name="lost">Who is no member any more.</param>
    public void OnRestartedHere(IEnumerable<NodeId> lost)
    {
        foreach (NodeId node in lost)
        {
            _cluster.Network.Close(Id, node);
            if (node == _cluster.Creator) ForgetThreads(); // the region went meanwhile
            if (Id != _cluster.Creator || !_lost.Add(node.Value)) continue;
            _isAnyUserLost |= _cluster.Nodes[node.Value].IsUser;
        }
        if (Id != _cluster.Creator || !IsRegionHere) return;
        // How far mirrors were filled is not known any more.
        for (uint e = 0; e < _cluster.ExtentCount; e++)
        {
            ExtentNumber extent = new(e);
            if (!Places.MirrorOf(extent).IsNone) _restoring.Add(extent, Places.MirrorOf(extent));
        }
        foreach (NodeId node in _cluster.Membership!.MembersSeenBy(Id))
        {
            if (node != Id && !IsLost(node)) ReleaseUnplaced(node);
        }
        _mustBegin = true;
        Begin();
        EndTurn();
    }

    /// <summary>The agent of another node is another one: nothing is lost, and what was under way is void.</summary>
    public void OnNodeRestarted(NodeId node)
    {
        if (node == _cluster.Creator)
        {
            _early.Clear();
            _afterFreeze.Clear();
        }
        if (Id != _cluster.Creator || !IsRegionHere) return;
        _mustBegin = true;
        ReleaseUnplaced(node); // before it is asked for anything
        foreach ((NodeId asked, ExtentNumber extent, bool _) in _asked.ToArray())
        {
            if (asked == node) OnMirrorAnswer(node, extent, granted: false);
        }
        Begin();
        EndTurn();
    }

    /// <summary>Has a node let go of mirrors that are not known here: it, or this one, had granted or heard of them when an agent was killed.</summary>
    private void ReleaseUnplaced(NodeId node)
    {
        for (uint e = 0; e < _cluster.ExtentCount; e++)
        {
            ExtentNumber extent = new(e);
            if (Places.HomeOf(extent) != node && Places.MirrorOf(extent) != node) SendControl(node, MessageType.ReleaseExtents, Region.Generation, page: extent.FirstPage);
        }
    }

    /// <summary>Between two things that the agent does.</summary>
    private void MayBeKilled()
    {
        if (_killIn > 0 && _cluster.IsWorking && --_killIn == 0) throw new AgentKilledException(this);
    }

    private void Record(PageNumber page)
    {
        if (SimulatedCluster.IsUsed(page)) _records?.Record(Region, Node, page);
    }

    private void Record(in Effect effect)
    {
        for (uint p = 0; p < effect.Count; p++) Record(effect.Page.Plus(p));
    }

    /// <summary>All pages: after what changes many of them without an effect on each.</summary>
    private void RecordAll()
    {
        for (int i = 0; i < _cluster.PageCount && _records is not null; i++)
        {
            PageNumber page = SimulatedCluster.PageAt(i);
            if (!Region.IsHome(page.Extent) && !Region.Mirrored.Contains(page.Extent)) _records.HomeWordOf(page) = 0;
            Record(page);
        }
    }

    /// <summary>What was done without effects on pages is recorded, and what was sent leaves.</summary>
    private void EndTurn()
    {
        if (_records is null || IsDown) return;
        RecordAll();
        Flush();
    }

    /// <summary>What was sent leaves when all is recorded.</summary>
    private void Flush()
    {
        foreach ((NodeId to, FrameHeader header, byte[] payload) in _outbox)
        {
            payload.CopyTo(_cluster.Network.Begin(Id, to, payload.Length));
            _cluster.Network.Commit(Id, to, in header);
        }
        _outbox.Clear();
    }

    private sealed class Records(int pages) : PageRecords
    {
        private readonly ulong[] _ofNode = new ulong[pages], _ofHome = new ulong[pages];
        private ulong _nowhere; // of pages that nobody uses

        public override ref ulong NodeWordOf(PageNumber page) => ref WordOf(_ofNode, page);

        public override ref ulong HomeWordOf(PageNumber page) => ref WordOf(_ofHome, page);

        protected override void Write(ref ulong word, ulong value) => word = value;

        private ref ulong WordOf(ulong[] words, PageNumber page)
        {
            if (SimulatedCluster.IsUsed(page)) return ref words[SimulatedCluster.IndexOf(page)];
            _nowhere = 0;
            return ref _nowhere;
        }
    }

    private sealed class FramesLeft(SimulatedNode node) : IFramesLeft
    {
        public bool HasFrame(PageNumber page) => SimulatedCluster.IsUsed(page) && node.HasFrame(page);

        public bool IsKept(PageNumber page) => node._kept.ContainsKey(page);

        public void Keep(PageNumber page) => node._kept.Add(page, node.Contents(page));

        public void ReleaseKept(PageNumber page) => node._kept.Remove(page);

        public void Free(PageNumber page)
        {
            Unmap(page);
            node.SetFrame(page, NoFrame);
        }

        public void Unmap(PageNumber page) => node._mapped[SimulatedCluster.IndexOf(page)] = Right.None;
    }
}

/// <summary>An agent is killed in the middle of what it does.</summary>
internal sealed class AgentKilledException(SimulatedNode node) : Exception($"the agent of {node.Id} is killed")
{
    /// <summary>Whose it was.</summary>
    public SimulatedNode Node => node;
}
