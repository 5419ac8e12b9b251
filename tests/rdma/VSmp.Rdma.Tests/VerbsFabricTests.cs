// SPDX-License-Identifier: Apache-2.0
using System.Globalization;
using System.Net;
using VSmp.Agent.Fabric;
using VSmp.Agent.Fabric.Verbs;
using VSmp.Agent.Interop;
using VSmp.Agent.Tests.Fabric;
using VSmp.Coherence;
using VSmp.Coherence.Messages;
using Xunit;

namespace VSmp.Rdma.Tests;

/// <summary>The fabric over RDMA: what any fabric promises.</summary>
public sealed class VerbsFabricTests : FabricTests
{
    private const int RoundTrips = 1000;

    [Fact]
    public async Task Links_made_and_broken_again_and_again_leave_nothing_behind()
    {
        await using SessionWorld world = NewWorld();
        await world.StartAsync(2);
        await CutAsync(world, 2, 0); // what the runtime opens once is open then
        await ExchangeAsync(world, 100, 2);
        (string resources, string[] descriptors, long locked) before = (Device.Resources(), OpenDescriptors(), LockedKilobytes());
        int cuts = int.Parse(Environment.GetEnvironmentVariable("VSMP_RDMA_CUTS") ?? "1000", CultureInfo.InvariantCulture);
        await CutAsync(world, cuts, 102);
        await ExchangeAsync(world, 100, 102 + cuts);
        await Device.HasAgainAsync(before.resources);
        string[] after = OpenDescriptors();
        Assert.True(after.Length <= before.descriptors.Length, $"{string.Join(' ', after)} were {string.Join(' ', before.descriptors)}");
        foreach (int node in (int[])[0, 1]) Assert.InRange(world[node].Fabric.Counters.Reconnects, (ulong)cuts, ulong.MaxValue);
        Assert.InRange(LockedKilobytes(), 0, before.locked + 512);
        Assert.InRange(LockedKilobytes(), 0, 2 * (long)VerbsLink.LockedBytes / 1024);
        Assert.Empty(world.Received(0).Downs);
    }

    [Fact]
    public async Task Both_sides_at_once_with_more_than_all_credit_never_wait_for_each_other()
    {
        await using SessionWorld world = NewWorld();
        await world.StartAsync(2);
        const int Frames = 400;
        foreach (int node in (int[])[0, 1])
        {
            await world.OnAsync(node, fabric =>
            {
                for (uint i = 1; i <= Frames; i++) Send(fabric, 1 - node, i, FrameHeader.MaxPayloadBytes);
            });
        }
        foreach (int node in (int[])[0, 1]) await world.UntilAsync(node, () => world.Received(node).Count(1 - node) >= Frames);
    }

    [Fact]
    public async Task Reactors_that_look_before_they_sleep_sleep_less()
    {
        ulong sleeping = await PingPongAsync(maxSpinMicroseconds: 0);
        ulong looking = await PingPongAsync(maxSpinMicroseconds: 1_000_000); // emulation is slow, and slower where others compute
        TestContext.Current.TestOutputHelper?.WriteLine($"sleeps in {RoundTrips} round trips: {sleeping}; where they may look first: {looking}");
        Assert.InRange(looking, 0ul, sleeping / 2);
    }

    [Fact]
    public void An_address_that_no_device_has_is_refused_with_advice()
    {
        using var reactor = new VSmp.Agent.Reactor();
        IOException refusal = Assert.Throws<IOException>(() => new VerbsTransport(reactor, new IPEndPoint(IPAddress.Parse("127.0.0.1"), 0), "no_such_device", _ => { }));
        Assert.Contains("no_such_device", refusal.Message, StringComparison.Ordinal);
    }

    private protected override IFabricWorld CreateWorld() => NewWorld();

    private static SessionWorld NewWorld() => new(Device.Address, NewTransport);

    private static VerbsTransport NewTransport(VSmp.Agent.Reactor reactor, IPEndPoint address) =>
        new(reactor, address, null, line => TestContext.Current.SendDiagnosticMessage(line));

    private static async Task ExchangeAsync(SessionWorld world, int frames, int before)
    {
        foreach (int node in (int[])[0, 1])
        {
            await world.OnAsync(node, fabric =>
            {
                for (int i = 1; i <= frames; i++) Send(fabric, 1 - node, (uint)(before + i), i % 7 * 1000);
            });
        }
        foreach (int node in (int[])[0, 1]) await world.UntilAsync(node, () => world.Received(node).Count(1 - node) >= before + frames);
    }

    /// <summary>Sends one frame to and fro.</summary>
    /// <returns>How often both sides together slept.</returns>
    private static async Task<ulong> PingPongAsync(long maxSpinMicroseconds)
    {
        await using FabricNode left = NewNode(0, maxSpinMicroseconds), right = NewNode(1, maxSpinMicroseconds);
        await left.OnAsync(fabric => fabric.Add(new NodeId(1), right.Address));
        await right.OnAsync(fabric => fabric.Add(new NodeId(0), left.Address));
        left.Recorder.OnFrameHook = (_, header) => Answer(left, 1, header);
        right.Recorder.OnFrameHook = (_, header) => Answer(right, 0, header);
        await left.UntilAsync(() => left.Recorder.Ups.Count == 1);
        ulong before = left.Reactor.SleepCount + right.Reactor.SleepCount;
        await left.OnAsync(fabric => Send(fabric, 1, 1, 100));
        await left.UntilAsync(() => left.Recorder.Count(1) == RoundTrips);
        return left.Reactor.SleepCount + right.Reactor.SleepCount - before;
    }

    private static FabricNode NewNode(ushort id, long maxSpinMicroseconds)
    {
        var node = new FabricNode(address: Device.Address, transport: NewTransport, reactor: new VSmp.Agent.Reactor(maxSpinMicroseconds));
        node.Fabric.SetIdentity(new NodeId(id), new Epoch(5));
        node.Start();
        return node;
    }

    private static void Answer(FabricNode node, int peer, FrameHeader header)
    {
        if (header.Transaction < 2 * RoundTrips) Send(node.Fabric, peer, header.Transaction + 1, 100);
    }

    /// <summary>Breaks the connection, by turns from either side, and waits until a frame each has come over a new one.</summary>
    private static async Task CutAsync(SessionWorld world, int cuts, int before)
    {
        for (int i = 0; i < cuts; i++)
        {
            await world.CutAsync(i % 2, 1 - (i % 2));
            await ExchangeAsync(world, 1, before + i);
        }
    }

    /// <summary>What each open descriptor is of, but for assemblies: the runtime opens one when it is first needed, for good.</summary>
    private static string[] OpenDescriptors() =>
        [.. Directory.GetFiles("/proc/self/fd").Select(Target).OfType<string>().Where(name => !name.EndsWith(".dll", StringComparison.Ordinal)).Order()];

    /// <returns>What a descriptor is of; null if it has been closed meanwhile, as the listing's own has.</returns>
    private static string? Target(string descriptor)
    {
        try
        {
            return File.ResolveLinkTarget(descriptor, returnFinalTarget: false)?.Name;
        }
        catch (FileNotFoundException)
        {
            return null;
        }
    }

    private static long LockedKilobytes() => File.ReadLines("/proc/self/status").Where(l => l.StartsWith("VmPin:", StringComparison.Ordinal))
        .Select(l => long.Parse(new string([.. l.Where(char.IsAsciiDigit)]), CultureInfo.InvariantCulture)).First();
}
