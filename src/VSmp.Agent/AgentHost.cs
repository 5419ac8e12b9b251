// SPDX-License-Identifier: Apache-2.0
using System.Runtime.InteropServices;
using VSmp.Agent.Control;
using VSmp.Agent.Fabric;
using VSmp.Agent.Guests;
using VSmp.Agent.Interop;
using VSmp.Agent.Paging;
using VSmp.Coherence;
using VSmp.Coherence.Messages;

namespace VSmp.Agent;

/// <summary>One node of a cluster: puts the parts together, runs the reactor, takes everything down again in order.</summary>
internal sealed class AgentHost : IFrameReceiver, IDisposable
{
    private const long ReportPeriodMicroseconds = 200_000;

    /// <summary>A region's address space, in relation to all memory that it could get: room for fragmentation.</summary>
    private const ulong WindowFactor = 8;

    private const ulong LeastWindowBytes = 64ul << 30;

    private readonly AgentOptions _options;
    private readonly Reactor _reactor = new();
    private readonly List<IDisposable> _parts = []; // taken down in reverse order
    private readonly Capacity _capacity;
    private readonly Peers _peers = new();
    private NodeLink _link = null!;
    private Pager _pager = null!;
    private Reservations _reservations = null!;
    private Runs _runs = null!;
    private GuestServer _guests = null!;
    private AgentControl _control = null!;
    private Sampler _sampler = null!;
    private string? _ending;

    private AgentHost(AgentOptions options)
    {
        _options = options;
        _capacity = new Capacity(options.MemoryBytes);
    }

    /// <summary>Runs an agent until it is told to stop.</summary>
    /// <returns>The exit code.</returns>
    /// <exception cref="CommandException">It cannot start; the message says why and what to do.</exception>
    public static async Task<int> RunAsync(AgentOptions options, CancellationToken cancel)
    {
        using var host = new AgentHost(options);
        await host.StartAsync(cancel).ConfigureAwait(false);
        using CancellationTokenRegistration registration = cancel.Register(() => host.ShutDown("the agent was told to stop"));
        Exception? failure = null;
        var thread = new Thread(() =>
        {
            try { host._reactor.Run(); }
#pragma warning disable CA1031 // the thread's last words: whatever it was ends the agent
            catch (Exception e)
#pragma warning restore CA1031
            {
                failure = e;
            }
        })
        { Name = "reactor" };
        thread.Start();
        options.OnReady(host._link.ListenAddress);
        Log.Info($"node {options.Name} of cluster {options.Cluster} is up: {options.MemoryBytes >> 20} MiB, listening at {host._link.ListenAddress}");
        await Task.Run(thread.Join, CancellationToken.None).ConfigureAwait(false);
        if (failure is not null)
        {
            Log.Error($"the agent failed: {failure}");
            host.EndGuests("its agent failed");
            return ExitCodes.Failed;
        }
        return ExitCodes.Ok;
    }

    /// <inheritdoc/>
    public void OnFrame(NodeId peer, in FrameHeader header, ReadOnlySpan<byte> payload)
    {
        switch (header.Type)
        {
            case MessageType.ReserveExtents or MessageType.ReserveReply or MessageType.ReleaseExtents or MessageType.DropRegion:
                _reservations.OnFrame(peer, in header, payload);
                break;
            case MessageType.NodeReport:
                if (payload.Length == NodeReport.Bytes) _peers.Find(peer)?.OnReport(MemoryMarshal.Read<NodeReport>(payload));
                break;
            default:
                Message message = new()
                {
                    Type = header.Type,
                    Flags = header.Flags,
                    Source = header.Source,
                    Requestor = header.Requestor,
                    AckCount = header.AckCount,
                    Transaction = header.Transaction,
                    Count = header.Count,
                    Region = header.Region,
                    Page = header.Page,
                    Version = header.PageVersion,
                };
                _pager.OnMessage(in message, payload);
                break;
        }
    }

    /// <inheritdoc/>
    public void OnPeerUp(NodeId peer)
    {
        if (_peers.Find(peer) is { } p) p.IsUp = true;
        SendReport(peer);
    }

    /// <inheritdoc/>
    public void OnPeerDown(NodeId peer, string reason)
    {
        string name = _peers.NameOf(peer);
        Log.Error($"node {name} is lost: {reason}");
        if (_peers.Find(peer) is { } p) p.IsUp = false;
        foreach (Guest guest in _runs.Guests.ToArray())
        {
            if (guest.Run.Counters.HomeBytes.TryGetValue(peer, out var home) && home.Now > 0 && IsHomeOf(guest, peer))
            {
                guest.Kill($"node {name} is lost ({reason}), and part of the process's memory was there");
            }
        }
        _reservations.OnPeerLost(peer);
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        for (int i = _parts.Count - 1; i >= 0; i--) _parts[i].Dispose();
        _reactor.Dispose();
    }

    private static bool IsHomeOf(Guest guest, NodeId node)
    {
        Region core = guest.Region.Core;
        for (uint e = 0; e < core.ExtentCount; e++)
        {
            if (core.Homes!.HomeOf(new ExtentNumber(e)) == node) return true;
        }
        return false;
    }

    private async Task StartAsync(CancellationToken cancel)
    {
        _parts.Add(FramesMount.Create(_options.Folder.Frames, _options.MemoryBytes));
        _link = await NodeLink.OpenAsync(_options, _reactor, this, _peers, cancel).ConfigureAwait(false);
        _parts.Add(_link);
        _pager = new Pager(_link.Self, _reactor, _link.Fabric, () => _peers.NodeLimit);
        _parts.Add(_pager);
        _reservations = new Reservations(_link.Self, _pager, _link.Fabric, _capacity, _peers, _options.Folder.Frames);
        _runs = new Runs(_capacity, _pager, _reactor);
        UnixSocket socket = UnixSocket.Listen(_options.Folder.GuestSocket, UnixSocketType.SequencedPacket, _options.GroupId);
        int device = OpenDevice();
        _guests = new GuestServer(_reactor, _pager, _reservations, _runs, socket, device, _options.Folder.Frames, WindowExtents);
        _guests.GuestsChanged += OnGuestsChanged;
        _parts.Add(_guests);
        _sampler = new Sampler(_reactor, _runs, _pager);
        _parts.Add(_sampler);
        var parts = new AgentParts(_pager, _runs, _reservations, _peers, Report, () => _link.View, () => _link.Epoch);
        _control = new AgentControl(_options, _reactor, parts, ShutDown);
        _parts.Add(new ControlServer(_options.Folder, _options.GroupId, _control));
        _reactor.AtTurnEnd(_pager.OnTurnEnd);
        _reactor.AtTurnEnd(_link.Fabric.Flush);
        _reactor.Every(ReportPeriodMicroseconds, () =>
        {
            foreach (Peer peer in _peers.All) SendReport(peer.Node);
        });
    }

    /// <summary>Guests that are not root get the device: /dev/userfaultfd makes descriptors that see faults in system calls too.</summary>
    private static int OpenDevice()
    {
        int device = Libc.Open("/dev/userfaultfd", Libc.O_RDWR | Libc.O_CLOEXEC, 0);
        if (device >= 0) return device;
        int error = Errno.Last;
        if (Libc.GetEffectiveUserId() == 0) return -1; // the system call does as well
        throw new CommandException(ExitCodes.NotPermitted,
            $"userfaultfd is not permitted: cannot open /dev/userfaultfd: {Errno.Text(error)}; install the udev rule, or run the agent as root (see vsmp doctor)");
    }

    private int WindowExtents()
    {
        ulong pool = _options.MemoryBytes;
        foreach (Peer peer in _peers.All) pool += peer.Report.ContributedBytes;
        return (int)(Math.Max(LeastWindowBytes, pool * WindowFactor) / ExtentNumber.Bytes);
    }

    private NodeReport Report() => new()
    {
        ContributedBytes = _capacity.ContributedBytes,
        HomeBytes = _capacity.HomeBytes,
        CacheBytes = _capacity.CacheBytes,
        PrivateBytes = _sampler.PrivateBytes,
        UsedBytes = _sampler.UsedBytes,
        Guests = (ulong)_runs.Guests.Count(),
        MilliFaultsPerSecond = (ulong)(_sampler.FaultsPerSecond * 1000),
    };

    private void SendReport(NodeId peer)
    {
        if (peer == _link.Self || !_peers.IsUp(peer)) return;
        NodeReport report = Report();
        ReadOnlySpan<byte> bytes = MemoryMarshal.AsBytes(new ReadOnlySpan<NodeReport>(in report));
        bytes.CopyTo(_link.Fabric.Begin(peer, bytes.Length));
        FrameHeader header = new() { Type = MessageType.NodeReport, Requestor = _link.Self, Count = 1, Network = VirtualNetwork.Request };
        _link.Fabric.Commit(in header);
    }

    private void OnGuestsChanged()
    {
        _control.FinishEnding();
        // For whoever cleans up behind this agent, should it die.
        File.WriteAllLines(_options.Folder.GuestsFile, _runs.Guests.Where(g => g.Identity is not null).Select(g => g.Identity!.ToString()!));
        if (_ending is not null && !_runs.Guests.Any()) StopReactor();
    }

    /// <summary>Ends the guests, then the agent. From any thread.</summary>
    private void ShutDown(string reason) => _reactor.Post(() =>
    {
        if (_ending is not null) return;
        _ending = reason;
        Log.Info($"shutting down: {reason}");
        if (!_runs.Guests.Any())
        {
            StopReactor();
            return;
        }
        foreach (Guest guest in _runs.Guests.ToArray()) guest.Kill(reason);
    });

    private void StopReactor()
    {
        _link.Leave();
        _reactor.Stop();
    }

    private void EndGuests(string why)
    {
        foreach (Guest guest in _runs.Guests.ToArray()) guest.Kill(why);
    }
}
