// SPDX-License-Identifier: Apache-2.0
using VSmp.Coherence;
using VSmp.Coherence.Homes;
using VSmp.Coherence.Nodes;
using VSmp.Coherence.Protocols;
using VSmp.Coherence.Recovery;

namespace VSmp.Bench.Checking;

// Agents that are killed, between any two effects, and come back at once with what they have recorded; their guests, and the frames, stay.
internal sealed partial class World
{
    private readonly ulong[] _nodeWords, _homeWords;
    private readonly Records[] _records;
    private ulong _nowhere; // of pages that nobody uses
    private int _killAt; // the point of the turn at which the acting agent is killed; 0: not
    private bool _isKilled;

    /// <summary>Agents killed so far.</summary>
    public int Restarts { get; set; }

    /// <summary>Those of whom the leader does not know yet, a bit each.</summary>
    public int Restarted { get; set; }

    /// <summary>Points of the last turn at which its agent could have been killed.</summary>
    public int Points { get; private set; }

    /// <summary>Records everything, as after each turn: for a world that was loaded.</summary>
    public void RecordAll()
    {
        if (Scenario.Restarts == 0) return;
        for (int node = 0; node < Scenario.Nodes; node++) RecordAll(node);
    }

    /// <summary>Whether the acting agent is killed here, between two things that it does.</summary>
    private bool IsKilledHere()
    {
        _isKilled |= ++Points == _killAt;
        return _isKilled;
    }

    private void Record(int node, int page)
    {
        if (Scenario.Restarts > 0) _records[node].Record(Regions[node], Nodes[node], PageAt(page));
    }

    private void RecordAll(int node)
    {
        for (int page = 0; page < Scenario.Pages; page++) Record(node, page);
    }

    /// <summary>Whatever changed has been recorded: there is an effect on every page that a step changes.</summary>
    private void CheckRecorded(int node)
    {
        if (Scenario.Restarts == 0 || IsLost(node)) return;
        for (int page = 0; page < Scenario.Pages; page++)
        {
            ulong atNode = _nodeWords[(node * Scenario.Pages) + page], atHome = _homeWords[(node * Scenario.Pages) + page];
            Record(node, page);
            if (atNode != _nodeWords[(node * Scenario.Pages) + page] || atHome != _homeWords[(node * Scenario.Pages) + page])
                throw new InvariantException($"page {page} changed at node {node}, and was not recorded");
        }
    }

    /// <summary>The agent is gone, and the next one adopts what it left. What it was sent, and what it had not sent yet, is gone with it.</summary>
    private void Restart(int node)
    {
        _effects.Clear();
        _toSelf.Clear();
        _outbox.Clear();
        _retry.Clear();
        Region region = Regions[node];
        ForgetState(node);
        if (region.IsHome(Extent))
        {
            NodeId mirror = region.MirrorOf(Extent);
            bool isUndecided = region.UndecidedHomes.Contains(Extent);
            region.ResignHome(Extent);
            region.BecomeHome(Extent);
            region.SetMirror(Extent, mirror);
            if (isUndecided) region.LeaveUndecided(Extent);
        }
        if (region.Mirrored.Contains(Extent))
        {
            NodeId home = region.Mirrored.HomeOf(Extent);
            region.Mirrored.Remove(Extent);
            region.Mirrored.Add(Extent, home, isFresh: true);
        }
        for (int peer = 0; peer < Scenario.Nodes; peer++)
        {
            for (int network = 0; network < Networks; network++) Wires[WireOf(peer, node, network)].Clear();
        }
        if (node == Scenario.Creator) Leader.Restore(RecoveryPhase.None, region.Generation, [], []);
        Restarts++;
        Restarted |= 1 << node;
        Story?.Add($"node {node}: its agent is killed, and another adopts what is left");
        _isKilled = false;
        _killAt = 0;
        Adoption.Adopt(region, _records[node], Nodes[node], new FramesLeft(this, node), _effects);
        if ((_bugs & WorldBugs.AdoptedStayFrozen) != 0) region.FrozenPages.RemoveAll(page => (NodeState)(byte)_records[node].NodeWordOf(page) == NodeState.F);
        if ((_bugs & WorldBugs.AdoptedHears) != 0) region.IsDeaf = false;
        Execute(node, default);
        RecordAll(node);
    }

    private sealed class Records(World world, int node) : PageRecords
    {
        public override ref ulong NodeWordOf(PageNumber page) => ref WordOf(world._nodeWords, page);

        public override ref ulong HomeWordOf(PageNumber page) => ref WordOf(world._homeWords, page);

        protected override void Write(ref ulong word, ulong value) => word = value;

        private ref ulong WordOf(ulong[] words, PageNumber page)
        {
            if (page.Value < (ulong)world.Scenario.Pages) return ref words[(node * world.Scenario.Pages) + (int)page.Value];
            world._nowhere = 0;
            return ref world._nowhere;
        }
    }

    private sealed class FramesLeft(World world, int node) : IFramesLeft
    {
        public bool HasFrame(PageNumber page) => IsThere(page) && world.FrameOf(node, (int)page.Value) != Contents.None;

        public bool IsKept(PageNumber page) => IsThere(page) && world.KeptOf(node, (int)page.Value) != Contents.None;

        public void Keep(PageNumber page) => world.Execute(node, EffectKind.Keep, (int)page.Value, default);

        public void ReleaseKept(PageNumber page) => world.Execute(node, EffectKind.ReleaseKept, (int)page.Value, default);

        public void Free(PageNumber page)
        {
            if ((world._bugs & WorldBugs.AdoptedFrames) == 0) world.Execute(node, EffectKind.Unmap, (int)page.Value, default);
        }

        public void Unmap(PageNumber page)
        {
            for (int m = 0; m < world.Scenario.Mappings; m++) world.MappedOf(node, (int)page.Value, m) = Right.None;
        }

        private bool IsThere(PageNumber page) => page.Value < (ulong)world.Scenario.Pages;
    }
}
