// SPDX-License-Identifier: Apache-2.0
using System.Net;
using VSmp.Agent.Fabric;
using VSmp.Coherence;
using Xunit;

namespace VSmp.Agent.Tests.Fabric;

/// <summary>The in-memory fabric on a network without faults.</summary>
public sealed class InMemoryFabricTests : FabricTests
{
    private protected override IFabricWorld CreateWorld() => new InMemoryWorld(new InMemoryNetwork(seed: 1));
}

/// <summary>The in-memory fabric on a network that cuts connections, loses and repeats frames.</summary>
public sealed class FaultyInMemoryFabricTests : FabricTests
{
    private readonly int _seed = Environment.TickCount;

    private protected override IFabricWorld CreateWorld()
    {
        TestContext.Current.TestOutputHelper?.WriteLine($"seed {_seed}");
        return new InMemoryWorld(new InMemoryNetwork(_seed,
            new NetworkFaults(CutPerMille: 3, DropPerMille: 5, DuplicatePerMille: 20)));
    }
}

/// <summary>A seed with which the very last frame of a pair is lost, so that no later one shows the gap.</summary>
public sealed class LostLastFrameTests : FabricTests
{
    private protected override IFabricWorld CreateWorld() => new InMemoryWorld(new InMemoryNetwork(17578682,
        new NetworkFaults(CutPerMille: 3, DropPerMille: 5, DuplicatePerMille: 20)));
}

internal sealed class InMemoryWorld(InMemoryNetwork network) : IFabricWorld
{
    private const int MaxSteps = 5_000_000;

    private readonly List<(InMemoryFabric Fabric, Recorder Recorder)> _nodes = [];

    public Task StartAsync(int nodeCount)
    {
        for (int i = 0; i < nodeCount; i++)
        {
            var recorder = new Recorder();
            _nodes.Add((network.CreateFabric(new NodeId((ushort)i), new Epoch(5), recorder), recorder));
        }
        for (int i = 0; i < nodeCount; i++)
        {
            for (int j = 0; j < nodeCount; j++)
                if (i != j) _nodes[i].Fabric.Add(new NodeId((ushort)j), new IPEndPoint(IPAddress.Loopback, 1));
        }
        return UntilAsync(0, () => _nodes.TrueForAll(node => node.Recorder.Ups.Count == nodeCount - 1));
    }

    public Recorder Received(int node) => _nodes[node].Recorder;

    public Task OnAsync(int node, Action<IFabric> action)
    {
        action(_nodes[node].Fabric);
        return Task.CompletedTask;
    }

    public Task UntilAsync(int node, Func<bool> condition)
    {
        for (int i = 0; i < MaxSteps && !condition(); i++)
        {
            if (!network.Step()) Assert.True(condition(), "nothing is left to happen, and the condition does not hold");
        }
        Assert.True(condition(), "the condition does not come true");
        return Task.CompletedTask;
    }

    public Task CutAsync(int node, int peer)
    {
        network.Cut(new NodeId((ushort)node), new NodeId((ushort)peer));
        return Task.CompletedTask;
    }

    public ValueTask DisposeAsync()
    {
        network.Dispose();
        return ValueTask.CompletedTask;
    }
}
