// SPDX-License-Identifier: Apache-2.0
using System.Collections.Concurrent;
using System.Net;
using VSmp.Agent.Fabric;
using VSmp.Agent.Fabric.FaultInjection;
using VSmp.Coherence;
using Xunit;

namespace VSmp.Agent.Tests.Fabric;

/// <summary>A node of a test: a reactor on a thread of its own, a gate, a fabric of sessions; by default over TCP on loopback.</summary>
internal sealed class FabricNode : IAsyncDisposable
{
    public static readonly ClusterSecret Secret = ClusterSecret.FromBytes(new byte[32]);

    private const long LookAgainMicroseconds = 10_000;
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(60);

    private readonly List<(Func<bool> Condition, TaskCompletionSource Done)> _waiters = [];
    private readonly Thread _thread;

    public FabricNode(IFrameReceiver? receiver = null, FabricOptions? options = null, ClusterSecret? secret = null,
        string cluster = "test", IPAddress? address = null, Func<Reactor, IPEndPoint, ITransport>? transport = null, Reactor? reactor = null,
        FaultPlan? faults = null, int port = 0)
    {
        Reactor = reactor ?? new Reactor();
        Gate = new PeerGate(cluster, secret ?? Secret, Log.Enqueue) { Faults = faults };
        Address = Gate.Listen(new IPEndPoint(address ?? IPAddress.Loopback, port));
        ITransport carrier = transport?.Invoke(Reactor, Address) ?? new TcpTransport();
        Gate.Transport = carrier.Kind;
        Fabric = new SessionFabric(Reactor, Gate, carrier, options ?? new FabricOptions(), Log.Enqueue) { Receiver = receiver ?? Recorder, Faults = faults };
        Reactor.AtTurnEnd(Fabric.Flush);
        Reactor.AtTurnEnd(CheckWaiters);
        _thread = new Thread(Reactor.Run) { IsBackground = true };
    }

    public Reactor Reactor { get; }

    public PeerGate Gate { get; }

    public SessionFabric Fabric { get; }

    public IPEndPoint Address { get; }

    public Recorder Recorder { get; } = new();

    public ConcurrentQueue<string> Log { get; } = new();

    public void Start()
    {
        Gate.Start();
        _thread.Start();
    }

    /// <summary>Acts on the reactor's thread; an exception goes to the caller.</summary>
    public Task OnAsync(Action<SessionFabric> action)
    {
        var done = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        Reactor.Post(() =>
        {
            try
            {
                action(Fabric);
                done.SetResult();
            }
#pragma warning disable CA1031 // whatever a test throws belongs to the test, not to the reactor
            catch (Exception e)
#pragma warning restore CA1031
            {
                done.SetException(e);
            }
        });
        return done.Task.WaitAsync(Patience);
    }

    /// <summary>Returns once the condition, looked at after each of the reactor's turns, holds.</summary>
    public async Task UntilAsync(Func<bool> condition)
    {
        var done = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        Reactor.Post(() => _waiters.Add((condition, done)));
        try
        {
            await done.Task.WaitAsync(Patience);
        }
        catch (TimeoutException e)
        {
            throw new TimeoutException($"not within {Patience.TotalSeconds} s; the fabric's log:\n{string.Join('\n', Log.TakeLast(20))}", e);
        }
    }

    public async ValueTask DisposeAsync()
    {
        await OnAsync(fabric => fabric.Dispose());
        Gate.Dispose();
        Reactor.Stop();
        _thread.Join();
        Reactor.Dispose();
    }

    private void CheckWaiters()
    {
        for (int i = _waiters.Count - 1; i >= 0; i--)
        {
            if (!_waiters[i].Condition()) continue;
            _waiters[i].Done.SetResult();
            _waiters.RemoveAt(i);
        }
        // What else runs at the end of a turn may have changed what they wait for, and be the last to happen.
        if (_waiters.Count > 0) Reactor.WakeBy(Reactor.Clock() + LookAgainMicroseconds);
    }
}

internal sealed class SessionWorld(IPAddress? address = null, Func<Reactor, IPEndPoint, ITransport>? transport = null) : IFabricWorld
{
    private readonly List<FabricNode> _nodes = [];

    public FabricNode this[int node] => _nodes[node];

    public FabricOptions Options { get; init; } = new();

    /// <summary>Makes each node's faults; null: nothing can be injected.</summary>
    public Func<FaultPlan>? Faults { get; init; }

    public async Task StartAsync(int nodeCount)
    {
        for (int i = 0; i < nodeCount; i++)
        {
            var node = new FabricNode(options: Options, address: address, transport: transport, faults: Faults?.Invoke());
            node.Fabric.SetIdentity(new NodeId((ushort)i), new Epoch(5));
            _nodes.Add(node);
            node.Start();
        }
        for (int i = 0; i < nodeCount; i++)
        {
            await _nodes[i].OnAsync(fabric =>
            {
                for (int j = 0; j < nodeCount; j++)
                    if (i != j) fabric.Add(new NodeId((ushort)j), _nodes[j].Address);
            });
        }
        foreach (FabricNode node in _nodes) await node.UntilAsync(() => node.Recorder.Ups.Count == nodeCount - 1);
    }

    public Recorder Received(int node) => _nodes[node].Recorder;

    public Task OnAsync(int node, Action<IFabric> action) => _nodes[node].OnAsync(action);

    public Task UntilAsync(int node, Func<bool> condition) => _nodes[node].UntilAsync(condition);

    public Task CutAsync(int node, int peer) => _nodes[node].OnAsync(fabric => fabric.CutConnection(new NodeId((ushort)peer)));

    public async ValueTask DisposeAsync()
    {
        foreach (FabricNode node in _nodes) await node.DisposeAsync();
    }
}
