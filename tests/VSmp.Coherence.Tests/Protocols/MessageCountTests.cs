// SPDX-License-Identifier: Apache-2.0
using VSmp.Coherence.Homes;
using VSmp.Coherence.Messages;
using VSmp.Coherence.Nodes;
using VSmp.Coherence.Placement;
using VSmp.Coherence.Protocols;

namespace VSmp.Coherence.Tests.Protocols;

/// <summary>What goes over the network, of all nodes together, when a node far from the home uses a page that nobody fights for.</summary>
public sealed class MessageCountTests
{
    private const int NodeCount = 3;
    private static readonly PageNumber Page = new(7);

    [Theory]
    [InlineData("msi", MessageType.DataS)]
    [InlineData("mesi", MessageType.DataE)]
    [InlineData("moesi", MessageType.DataE)]
    public void A_read_of_a_page_that_the_home_has_is_a_request_and_a_response(string name, MessageType grant)
    {
        var cluster = new Nodes(ProtocolCatalog.Find(name)!);
        Assert.Equal([MessageType.GetS, grant], cluster.Access(1, write: false));
        // The same once the page was written, and given back.
        cluster = new Nodes(ProtocolCatalog.Find(name)!);
        cluster.Access(2, write: true);
        cluster.Evict(2);
        Assert.Equal([MessageType.GetS, grant], cluster.Access(1, write: false));
    }

    [Fact]
    public void An_upgrade_by_the_only_sharer_is_a_request_and_a_response()
    {
        var cluster = new Nodes(Msi.Protocol);
        cluster.Access(1, write: false);
        Assert.Equal([MessageType.Upgrade, MessageType.SoleGrant], cluster.Access(1, write: true));
    }

    [Theory]
    [InlineData("mesi")]
    [InlineData("moesi")]
    public void An_upgrade_of_an_exclusive_page_is_nothing(string name)
    {
        var cluster = new Nodes(ProtocolCatalog.Find(name)!);
        cluster.Access(1, write: false);
        Assert.Empty(cluster.Access(1, write: true));
    }

    [Fact]
    public void A_reader_that_the_owner_has_left_alone_upgrades_with_a_request_and_a_response()
    {
        var cluster = new Nodes(Moesi.Protocol);
        cluster.Access(2, write: true);
        cluster.Access(1, write: false);
        Assert.Equal([MessageType.PutO, MessageType.PutAck], cluster.Evict(2));
        Assert.Equal([MessageType.Upgrade, MessageType.SoleGrant], cluster.Access(1, write: true));
    }

    private sealed class Nodes
    {
        private readonly NodeController[] _nodes = new NodeController[NodeCount];
        private readonly Region[] _regions = new Region[NodeCount];
        private readonly HomeController _home = new(new NodeId(0), static () => NodeCount);
        private readonly EffectBuffer _effects = new();

        public Nodes(Protocol protocol)
        {
            var homes = new HomeMap(1);
            homes.Place(new ExtentNumber(0), new NodeId(0));
            for (ushort n = 0; n < NodeCount; n++)
            {
                _nodes[n] = new NodeController(new NodeId(n));
                _regions[n] = new Region(new RegionId(1), "t", 1, protocol, homes, new FrameBudget(4));
                _regions[n].Open(new ExtentNumber(0));
            }
            _regions[0].BecomeHome(new ExtentNumber(0));
        }

        public List<MessageType> Access(int node, bool write)
        {
            AccessResult result = _nodes[node].Access(_regions[node], Page, write, MessageFlags.None, _effects);
            List<MessageType> messages = Deliver();
            Assert.True(result is AccessResult.Hit or AccessResult.Pending, $"{result}");
            NodeState state = _regions[node].PageAt(Page).State;
            Assert.True(write ? NodeStates.MayWrite(state) : NodeStates.MayRead(state), $"{state}");
            return messages;
        }

        public List<MessageType> Evict(int node)
        {
            Assert.True(_nodes[node].TryEvict(_regions[node], Page, _effects));
            return Deliver();
        }

        private List<MessageType> Deliver()
        {
            var messages = new List<MessageType>();
            var wire = new Queue<(NodeId To, Message Message)>();
            do
            {
                if (wire.TryDequeue(out var next))
                {
                    messages.Add(next.Message.Type);
                    if (HomeController.Takes(in next.Message)) _home.OnMessage(_regions[0], in next.Message, _effects);
                    else _nodes[next.To.Value].OnMessage(_regions[next.To.Value], in next.Message, _effects);
                }
                for (int i = 0; i < _effects.Count; i++)
                {
                    if (_effects[i].Kind == EffectKind.Send) wire.Enqueue((_effects[i].To, _effects[i].Message));
                }
                _effects.Clear();
            }
            while (wire.Count > 0);
            return messages;
        }
    }
}
