// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent.Fabric;
using VSmp.Agent.Guests;
using VSmp.Agent.Paging;
using VSmp.Agent.Recovery;
using VSmp.Coherence;
using VSmp.Coherence.Homes;
using VSmp.Coherence.Messages;
using VSmp.Coherence.Placement;
using VSmp.Coherence.Protocols;
using VSmp.Coherence.Recovery;
using Xunit;

namespace VSmp.Agent.Tests.Recovery;

/// <summary>What recoveries make of agents that are started again: node 0 makes and uses a region, node 1 is its home, node 2 its mirror.</summary>
public sealed class RestartedAgentTests
{
    private const int Extents = 4;

    private static readonly RegionId TheRegion = RegionId.Create(new NodeId(0), 1);

    [Theory]
    [InlineData(0)]
    [InlineData(1)]
    [InlineData(2)]
    public void A_region_is_recovered_with_nobody_lost_when_an_agent_of_it_was_started_again(int node)
    {
        using var world = new World(1);
        world.Restart(node);
        world.CheckRecovered(home: 1);
        Assert.Equal(1, world.Agents[0].RecoveredCount);
        Assert.Equal(new NodeId(2), world.Agents[0].Led.Homes.MirrorOf(new ExtentNumber(0)));
        Assert.All(world.Agents[0].Peers.All, peer => Assert.False(peer.IsReturning));
    }

    [Theory]
    [InlineData("mesi")]
    [InlineData("moesi")]
    public void Where_homes_are_is_said_again_under_protocols_too_whose_homes_do_not_move(string protocol)
    {
        using var world = new World(1, ProtocolCatalog.Find(protocol));
        world.Restart(1, forgets: true); // the mirror becomes the home
        world.CheckRecovered(home: 2);
        world.Restart(0);
        world.CheckRecovered(home: 2);
        Assert.Equal(1, world.Agents[0].RecoveredCount);
    }

    [Fact]
    public void What_a_leader_was_about_to_become_home_of_it_is_not_when_it_was_started_again()
    {
        using var world = new World(1) { StraysAtLeader = 2 };
        world.Restart(0);
        world.CheckRecovered(home: 1);
        PagedRegion region = world.Agents[0].Pager.Find(TheRegion)!;
        Assert.Equal(0u, region.GivenExtents);
        Assert.Equal(0ul, world.Agents[0].Capacity.HomeBytes);
    }

    [Fact]
    public void A_plan_that_is_longer_than_a_frame_is_understood()
    {
        using var world = new World(1) { PlacesAreToldTimes = 20_000 }; // as if each extent had another home than its neighbours
        world.Restart(0);
        world.CheckRecovered(home: 1);
        Assert.Equal(1, world.Agents[0].RecoveredCount);
        world.Restart(0);
        world.Restart(1);
        world.CheckRecovered(home: 1);
    }

    [Fact]
    public void An_agent_that_knows_a_region_no_more_is_lost_to_it_and_its_mirror_becomes_the_home()
    {
        using var world = new World(1);
        world.Restart(1, forgets: true);
        world.CheckRecovered(home: 2);
        Assert.True(world.Agents[0].Led.Homes.MirrorOf(new ExtentNumber(0)).IsNone);
        Assert.True(world.Agents[0].Led.HasLostNode);
        Assert.Null(world.Agents[1].Pager.Find(TheRegion));
        Assert.False(world.Agents[0].Peers.Find(new NodeId(1))!.IsReturning); // it is a member, and may get something new
    }

    [Fact]
    public void A_region_that_its_maker_does_not_know_any_more_is_dropped_where_it_was_adopted()
    {
        using var world = new World(1);
        world.Agents[1].AddHome(RegionId.Create(new NodeId(0), 7), default, home: _ => true, mirror: _ => NodeId.None, mirrored: _ => false);
        world.Restart(1);
        world.CheckRecovered(home: 1);
        Assert.Single(world.Agents[1].Pager.Regions);
        Assert.Equal(Extents * (ulong)ExtentNumber.Bytes, world.Agents[1].Capacity.HomeBytes);
    }

    [Fact]
    public void Extents_that_were_given_back_unheard_are_given_back_afterwards()
    {
        using var world = new World(1);
        world.Agents[0].Led.Homes.Place(new ExtentNumber(3), NodeId.None);
        world.Agents[0].Led.Homes.PlaceMirror(new ExtentNumber(3), NodeId.None);
        world.Restart(1);
        world.Restart(2);
        Assert.False(world.Agents[1].Pager.Find(TheRegion)!.Layout.IsHome(new ExtentNumber(3)));
        Assert.False(world.Agents[2].Pager.Find(TheRegion)!.Mirrored!.Contains(new ExtentNumber(3)));
        Assert.Equal(3u, world.Agents[1].Pager.Find(TheRegion)!.GivenExtents);
    }

    [Fact]
    public void A_member_that_is_lost_while_it_is_waited_for_is_waited_for_no_more()
    {
        using var world = new World(1);
        world.Kill(0);
        world.Kill(1);
        world.Announce(0);
        world.Announce(1);
        world.Begin(0, forgets: false); // asks both, and only one answers
        world.Run();
        Assert.Equal(0, world.Agents[0].RecoveredCount);
        foreach (int node in (int[])[0, 2])
        {
            world.Agents[node].Peers.Remove(new NodeId(1));
            world.Agents[node].Recovery.OnNodeLost(new NodeId(1), "n1");
        }
        world.Run();
        world.CheckRecovered(home: 2);
    }

    [Fact]
    public void A_node_that_is_behind_takes_part_when_it_knows_which_agents_are_there()
    {
        using var world = new World(1);
        TestAgent home = world.Agents[1];
        PagedRegion region = home.Pager.Find(TheRegion)!;
        Generation before = Pager.GenerationOf(region), next = before.Next();
        home.Recovery.OnViewAdopted(new ViewNumber(4));
        FrameHeader freeze = new() { Type = MessageType.RegionFreeze, Region = TheRegion, Generation = next, View = new ViewNumber(5) };
        home.Recovery.OnFrame(new NodeId(0), in freeze, PlanFormat.Write(new RecoveryPlan([], [new NodeId(0)], IsAnyUserLost: false)));
        Assert.Equal(before, Pager.GenerationOf(region));
        home.Recovery.OnViewAdopted(new ViewNumber(5));
        Assert.Equal(next, Pager.GenerationOf(region));
        Assert.True(Pager.IsFrozen(region));
    }

    [Fact]
    public void Agents_that_are_started_again_at_any_moment_leave_every_extent_one_home()
    {
        for (int seed = 1; seed <= 200; seed++)
        {
            try { RestartAtRandom(seed); }
            catch (Exception e) { throw new InvalidOperationException($"seed {seed}: {e.Message}", e); }
        }
    }

    private static void RestartAtRandom(int seed)
    {
        var random = new Random(seed);
        using var world = new World(seed);
        bool mayForget = random.Next(2) == 0;
        var gone = new List<int>();
        for (int kills = random.Next(1, 8); kills > 0; kills--)
        {
            int node = random.Next(3);
            if (!gone.Contains(node))
            {
                world.Kill(node);
                gone.Add(node);
            }
            for (int steps = random.Next(60); steps > 0 && world.Network.Step(); steps--) { }
            while (gone.Count > 0 && random.Next(3) != 0) Return();
            for (int steps = random.Next(60); steps > 0 && world.Network.Step(); steps--) { }
        }
        while (gone.Count > 0) Return();
        world.Run();
        world.CheckRecovered();

        void Return()
        {
            int node = gone[0];
            gone.RemoveAt(0);
            bool forgets = mayForget && node != 0 && random.Next(3) == 0;
            mayForget &= !forgets;
            world.Announce(node);
            world.Begin(node, forgets);
        }
    }

    private sealed class World : IDisposable
    {
        private readonly string _folder = Directory.CreateTempSubdirectory("vsmp-restarted-").FullName;
        private readonly Switch[] _switches = [.. Enumerable.Range(0, 3).Select(_ => new Switch())];
        private readonly InMemoryFabric[] _fabrics = new InMemoryFabric[3];
        private readonly Protocol _protocol;
        private int _started;

        public World(int seed, Protocol? protocol = null)
        {
            _protocol = protocol ?? Msi.Protocol;
            Network = new InMemoryNetwork(seed);
            for (int i = 0; i < 3; i++) _fabrics[i] = Network.CreateFabric(new NodeId((ushort)i), new Epoch(5), _switches[i]);
            for (int i = 0; i < 3; i++)
            {
                for (int j = 0; j < 3; j++)
                    if (i != j) _fabrics[i].Add(new NodeId((ushort)j), new System.Net.IPEndPoint(System.Net.IPAddress.Loopback, 1));
            }
            for (int i = 0; i < 3; i++) Make(i);
            Run();
            var homes = new HomeMap(Extents);
            for (uint e = 0; e < Extents; e++)
            {
                homes.Place(new ExtentNumber(e), new NodeId(1));
                homes.PlaceMirror(new ExtentNumber(e), new NodeId(2));
            }
            Agents[0].AddLed(homes, default);
            Agents[1].AddHome(TheRegion, default, home: _ => true, mirror: _ => new NodeId(2), mirrored: _ => false);
            Agents[2].AddHome(TheRegion, default, home: _ => false, mirror: _ => NodeId.None, mirrored: _ => true);
        }

        public InMemoryNetwork Network { get; }

        /// <summary>How often the plan of a recovery says where each home is.</summary>
        public int PlacesAreToldTimes { get; init; } = 1;

        /// <summary>Extents that an agent of the leader's finds on its node, as the mirror of a home that was lost, and of which no map knows.</summary>
        public uint StraysAtLeader { get; init; }

        public TestAgent[] Agents { get; } = new TestAgent[3];

        /// <summary>Its last words are heard, and nothing that is said to it.</summary>
        public void Kill(int node)
        {
            _switches[node].Agent = null;
            Run();
        }

        /// <summary>The others are told.</summary>
        public void Announce(int node)
        {
            Run(); // what the old session carried
            foreach (TestAgent agent in Agents.Where(a => a != Agents[node] && _switches[a.Self.Value].Agent == a))
            {
                agent.Peers.Find(new NodeId((ushort)node))!.OnRestarted();
                agent.Recovery.OnNodeRestarted(new NodeId((ushort)node));
                agent.Reservations.OnPeerRestarted(new NodeId((ushort)node));
            }
        }

        public void Begin(int node, bool forgets)
        {
            TestAgent before = Agents[node];
            PagedRegion[] regions = [.. before.Pager.Regions];
            Make(node);
            TestAgent after = Agents[node];
            foreach (PagedRegion region in regions)
            {
                if (forgets) break;
                if (node == 0) after.AddLed(before.Led.Homes, Pager.GenerationOf(region), PlacesAreToldTimes, StraysAtLeader);
                else after.AddHome(region.Id, Pager.GenerationOf(region), region.Layout.IsHome, e => Pager.MirrorOf(region, e), region.Mirrored!.Contains);
            }
            foreach (Peer peer in after.Peers.All) peer.OnRestarted();
            after.Recovery.OnRestartedHere(after.Peers.All.Select(p => p.Node));
            Ask();
        }

        public void Restart(int node, bool forgets = false)
        {
            Kill(node);
            Announce(node);
            Begin(node, forgets);
            Run();
        }

        public void Run()
        {
            do
            {
                while (Network.Step()) { }
            }
            while (Ask() && _asked++ < 20);
            _asked = 0;
        }

        private int _asked;

        /// <summary>As every agent does now and then.</summary>
        private bool Ask()
        {
            bool any = false;
            foreach (TestAgent agent in Agents.Where(a => a is not null && _switches[a.Self.Value].Agent == a))
            {
                foreach (Peer peer in agent.Peers.All.Where(p => p.IsReturning && _switches[p.Node.Value].Agent is not null))
                {
                    agent.Recovery.AskHeld(peer.Node);
                    any = true;
                }
            }
            return any;
        }

        public void CheckRecovered(int? home = null)
        {
            LedRegion led = Agents[0].Led;
            Assert.False(Agents[0].Recovery.IsUnderWay(TheRegion));
            Assert.Empty(Agents[0].Recovery.Losses);
            foreach (TestAgent agent in Agents)
            {
                if (_switches[agent.Self.Value].Agent != agent || agent.Pager.Find(TheRegion) is not { } region) continue;
                Assert.False(Pager.IsFrozen(region), $"{agent.Self} stays frozen");
                if (region.GivenExtents > 0 || agent.Self.Value == 0) Assert.Equal(led.Generation, Pager.GenerationOf(region));
            }
            for (uint e = 0; e < Extents; e++)
            {
                ExtentNumber extent = new(e);
                NodeId at = led.Homes.HomeOf(extent);
                if (home is { } expected) Assert.Equal(expected, at.Value);
                Assert.Equal([at], Agents.Where(a => _switches[a.Self.Value].Agent == a && a.Pager.Find(TheRegion)?.Layout.IsHome(extent) == true).Select(a => a.Self));
            }
        }

        public void Dispose()
        {
            Network.Dispose();
            foreach (TestAgent agent in _all) agent.Dispose();
            Directory.Delete(_folder, recursive: true);
        }

        private readonly List<TestAgent> _all = [];

        private void Make(int node)
        {
            string folder = Directory.CreateDirectory(Path.Combine(_folder, $"{node}-{_started++}")).FullName;
            Agents[node] = new TestAgent(new NodeId((ushort)node), _fabrics[node], folder) { Protocol = _protocol };
            _all.Add(Agents[node]);
            _switches[node].Agent = Agents[node];
        }
    }

    /// <summary>Frames for an agent that is not there are heard by nobody.</summary>
    private sealed class Switch : IFrameReceiver
    {
        public TestAgent? Agent { get; set; }

        public void OnFrame(NodeId peer, in FrameHeader header, ReadOnlySpan<byte> payload) => Agent?.OnFrame(peer, in header, payload);

        public void OnPeerUp(NodeId peer)
        {
        }

        public void OnPeerDown(NodeId peer, string reason)
        {
        }
    }

    private sealed class TestAgent : IDisposable
    {
        private readonly Reactor _reactor = new();
        private readonly string _folder;

        public TestAgent(NodeId self, IFabric fabric, string folder)
        {
            Self = self;
            _folder = folder;
            Pager = new Pager(self, _reactor, fabric, () => 3);
            for (ushort n = 0; n < 3; n++)
            {
                if (n == self.Value) continue;
                Peer peer = Peers.Add(new NodeId(n), $"n{n}", "");
                peer.IsConnected = peer.IsUp = true;
            }
            Reservations = new Reservations(self, Pager, fabric, Capacity, Peers, folder);
            Recovery = new RecoveryServer(self, Pager, fabric, Peers, Reservations);
            Recovery.Returned += node => Peers.Find(node)!.OnReturned();
            Recovery.Recovered += _ => RecoveredCount++;
        }

        public NodeId Self { get; }

        public required Protocol Protocol { get; init; }

        public Pager Pager { get; }

        public Peers Peers { get; } = new();

        public Capacity Capacity { get; } = new(1ul << 30);

        public Reservations Reservations { get; }

        public RecoveryServer Recovery { get; }

        public int RecoveredCount { get; private set; }

        public LedRegion Led { get; private set; } = null!;

        public void AddLed(HomeMap homes, Generation generation, int placesAreToldTimes = 1, uint strays = 0)
        {
            var state = new Region(TheRegion, "region", Extents, Protocol, homes, new FrameBudget(16)) { Generation = generation };
            PagedRegion region = Pager.Add(state, Frames(TheRegion), run: null);
            for (uint e = 0; e < Extents; e++) state.Open(new ExtentNumber(e));
            region.IsShared = true;
            for (uint e = 0; e < strays; e++) state.Mirrored.Add(new ExtentNumber(e), new NodeId(9), isFresh: false);
            Assert.True(Capacity.TryAddHome(strays));
            Recovery.Lead(Led = new TestRegion(region, homes, placesAreToldTimes));
        }

        public void AddHome(RegionId id, Generation generation, Func<ExtentNumber, bool> home, Func<ExtentNumber, NodeId> mirror, Func<ExtentNumber, bool> mirrored)
        {
            var state = new Region(id, "region", Extents, Protocol, homes: null, budget: null) { Generation = generation };
            PagedRegion region = Pager.Add(state, Frames(id), run: null);
            for (uint e = 0; e < Extents; e++)
            {
                ExtentNumber extent = new(e);
                if (home(extent))
                {
                    state.BecomeHome(extent);
                    state.SetMirror(extent, mirror(extent));
                }
                else if (mirrored(extent)) state.Mirrored.Add(extent, new NodeId(1), isFresh: true);
            }
            Assert.True(Capacity.TryAddHome(region.GivenExtents));
        }

        public void OnFrame(NodeId peer, in FrameHeader header, ReadOnlySpan<byte> payload)
        {
            if (header.Type is >= MessageType.RegionFreeze and <= MessageType.RegionThaw or MessageType.RegionsHeld) Recovery.OnFrame(peer, in header, payload);
            else Reservations.OnFrame(peer, in header, payload);
        }

        public void Dispose()
        {
            Pager.Dispose();
            _reactor.Dispose();
        }

        private FrameFile Frames(RegionId id) => FrameFile.Create(_folder, id, Extents * (ulong)ExtentNumber.Bytes);
    }

    private sealed class TestRegion(PagedRegion region, HomeMap homes, int placesAreToldTimes) : LedRegion(region.Id, "region", homes)
    {
        public override List<HomeMove> Places() => [.. Enumerable.Repeat(base.Places(), placesAreToldTimes).SelectMany(p => p)];

        public override Generation Generation
        {
            get => Pager.GenerationOf(region);
            set { }
        }

        public override bool IsOver => false;

        public override bool IsMirrored => true;

        public override bool IsMovable => false;

        public override bool HasLostNode { get; set; }

        public override IReadOnlyList<NodeId> Users { get; } = [new NodeId(0)];

        public override (int ProcessId, string Program) Guest => (0, "");

        public override bool IsBound(NodeId home) => home.Value == 0;

        public override void AddParticipants(HashSet<NodeId> participants) => participants.Add(new NodeId(0));

        public override IEnumerable<NodeId> HomesAmong(IReadOnlyCollection<NodeId> participants) => participants;

        public override NodeId Choose(NodeId home, HashSet<NodeId> lost, bool isHome) => NodeId.None;

        public override void OnHomeMoved(NodeId from, NodeId to)
        {
        }

        public override void Fail(string why) => throw new InvalidOperationException(why);

        public override void TellOfLoss(string nodes, int pageCount) => throw new InvalidOperationException($"{pageCount} pages lost with {nodes}");
    }
}
