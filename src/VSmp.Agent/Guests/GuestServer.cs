// SPDX-License-Identifier: Apache-2.0
using System.Runtime.CompilerServices;
using System.Text;
using Microsoft.Win32.SafeHandles;
using VSmp.Agent.Interop;
using VSmp.Agent.Jobs;
using VSmp.Agent.Keeping;
using VSmp.Agent.Paging;
using VSmp.Coherence;
using VSmp.Coherence.Placement;
using VSmp.Coherence.Protocols;

namespace VSmp.Agent.Guests;

/// <summary>
/// The socket of the guests: processes of a run attach here, reserve and give back memory. Owned by the reactor.
/// </summary>
/// <remarks>GuestServer.Connection.cs: what they say, and hear. GuestServer.Adopting.cs: those that had attached to an agent before this one.</remarks>
internal sealed partial class GuestServer : IReactorHandler, IDisposable
{
    private const int MaxConnections = 4096;

    private readonly Reactor _reactor;
    private readonly Pager _pager;
    private readonly Reservations _reservations;
    private readonly Runs _runs;
    private readonly JobServer _jobs;
    private readonly KeptGuests? _kept;
    private readonly UnixSocket _listener;
    private readonly int _device;
    private readonly Func<int> _windowExtents;
    private readonly List<GuestConnection> _connections = [];
    private readonly List<RangeOperation> _operations = [];

    /// <summary>Starts to listen.</summary>
    /// <param name="reactor">The reactor.</param>
    /// <param name="pager">Serves the faults.</param>
    /// <param name="reservations">Admission.</param>
    /// <param name="runs">Who may attach.</param>
    /// <param name="jobs">What ranks are part of.</param>
    /// <param name="listener">The socket.</param>
    /// <param name="device">A descriptor of /dev/userfaultfd to hand to guests that need it, or −1.</param>
    /// <param name="nodeName">This node's name, for messages.</param>
    /// <param name="framesFolder">The tmpfs.</param>
    /// <param name="windowExtents">How long a new guest's region is to be.</param>
    /// <param name="kept">Has the keeper hold guests and their memory; null: no keeper has started this agent.</param>
    public GuestServer(Reactor reactor, Pager pager, Reservations reservations, Runs runs, JobServer jobs, UnixSocket listener,
        int device, string nodeName, string framesFolder, Func<int> windowExtents, KeptGuests? kept)
    {
        _reactor = reactor;
        _pager = pager;
        _reservations = reservations;
        _runs = runs;
        _jobs = jobs;
        _listener = listener;
        _device = device;
        NodeName = nodeName;
        FramesFolder = framesFolder;
        _windowExtents = windowExtents;
        _kept = kept;
        _pager.Progressed += ContinueOperations;
        _reactor.Watch(listener.Descriptor, EpollEvents.Readable, this);
    }

    /// <summary>This node's name.</summary>
    public string NodeName { get; }

    /// <summary>The tmpfs.</summary>
    public string FramesFolder { get; }

    /// <summary>Raised when a process attached or is gone.</summary>
    public event Action? GuestsChanged;

    /// <inheritdoc/>
    public void OnReady(EpollEvents events)
    {
        while (_listener.Accept() is { } socket)
        {
            if (_connections.Count >= MaxConnections)
            {
                socket.Dispose();
                continue;
            }
            _connections.Add(new GuestConnection(this, socket));
        }
    }

    /// <summary>The process is gone, or its address space is: everything of it is given back.</summary>
    public void OnGone(Guest guest)
    {
        if (!guest.Run.Guests.Remove(guest)) return;
        _reactor.Unwatch((int)guest.Process.DangerousGetHandle());
        foreach (Mapping mapping in guest.Mappings)
        {
            mapping.IsGone = true;
            _reactor.Unwatch(mapping.Userfaultfd);
            _ = Libc.Close(mapping.Userfaultfd);
            mapping.Region.RemoveMapping(mapping);
            _kept?.Remove(mapping);
        }
        guest.Mappings.Clear();
        _kept?.Remove(guest);
        if (guest.IsRank)
        {
            _jobs.OnUnmapped();
        }
        else
        {
            _operations.RemoveAll(o => o.Guest == guest);
            _reservations.Drop(guest);
        }
        guest.Dispose();
        guest.Run.Observer.OnGuestDetached(guest.ProcessId);
        GuestsChanged?.Invoke();
    }

    private void OnRankDied(Guest guest)
    {
        if (!guest.IsRank || guest.Run.Job is not { } job || job.FindRank(guest) is not { } rank) return;
        _jobs.OnRankGone(job, rank, guest.EndedBecause is { } why
            ? $"rank {rank} (process {guest.ProcessId} on {NodeName}) was ended: {why}"
            : $"rank {rank} (process {guest.ProcessId} on {NodeName}) has ended");
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        _reactor.Unwatch(_listener.Descriptor);
        _listener.Dispose();
        foreach (GuestConnection connection in _connections.ToArray()) connection.Close();
    }

    private void ContinueOperations()
    {
        for (int i = 0; i < _operations.Count; i++)
        {
            if (_operations[i].Continue()) _operations.RemoveAt(i--);
        }
    }

    private void Begin(RangeOperation operation)
    {
        if (!operation.Continue()) _operations.Add(operation);
    }

    private (Guest? Guest, string? Refusal, int Errno) Attach(GuestConnection connection, string token)
    {
        PeerCredentials peer = connection.Socket.Peer;
        (Run? run, SafeFileHandle? process, string? refusal, int errno) = Admit(peer, token);
        if (run is null || process is null) return (null, refusal, errno);
        if (run.Job is not null)
        {
            process.Dispose();
            return (null, "the program is a rank of a job: it attaches by vsmp_start, not by the guest library", Errno.EINVAL);
        }
        int extents = _windowExtents();
        RegionId id = _jobs.NewRegionId();
        string name = run.NextRegionName(peer.ProcessId);
        var frames = FrameFile.Create(FramesFolder, id, (ulong)extents * ExtentNumber.Bytes);
        PagedRegion region = _pager.Add(new Region(id, name, extents, Msi.Protocol, new HomeMap(extents), run.Budget), frames, run);
        var guest = new Guest(peer.ProcessId, run, region, process, _reactor.NowMicroseconds);
        Add(guest, rank: null);
        return (guest, null, 0);
    }

    private (RankSession? Rank, string? Refusal, int Errno) Join(PeerCredentials peer, string token, int rank, Action<GuestMessage, byte[]> send)
    {
        (Run? run, SafeFileHandle? process, string? refusal, int errno) = Admit(peer, token);
        if (run is null || process is null) return (null, refusal, errno);
        if (run.Job is not { } job || job.Find(rank) is not null)
        {
            process.Dispose();
            return run.Job is null
                ? (null, "VSMP_JOB is the token of a run, and of no job", Errno.EINVAL)
                : (null, $"rank {rank} has joined already: another process has taken its number", Errno.EBUSY);
        }
        var guest = new Guest(peer.ProcessId, run, null, process, _reactor.NowMicroseconds);
        var session = new RankSession(rank, guest, send);
        job.Add(session);
        Add(guest, rank);
        return (session, null, 0);
    }

    private (Run? Run, SafeFileHandle? Process, string? Refusal, int Errno) Admit(PeerCredentials peer, string token)
    {
        Run? run = _runs.Find(token);
        if (run is null) return (null, null, "the run is over, or its token is not of this agent", Errno.EACCES);
        if (peer.UserId != run.Request.UserId && peer.UserId != 0) return (null, null, "the run belongs to another user", Errno.EACCES);
        if (_runs.FindGuest(peer.ProcessId) is { } former)
        {
            // The same process with a new program (exec): its former address space is gone, which no pidfd tells. Or it was not told by an agent that was
            // killed that it is attached, and begins anew.
            bool isUnaware = former.ReservedExtents == 0 && !_connections.Exists(c => c.Guest == former);
            if (!isUnaware && !IsAddressSpaceGone(former)) return (null, null, "the process is attached already", Errno.EBUSY);
            OnGone(former);
        }
        SafeFileHandle? process = ProcessControl.Open(peer.ProcessId);
        return process is null ? (null, null, "the process cannot be watched", Errno.ESRCH) : (run, process, null, 0);
    }

    private void Add(Guest guest, int? rank)
    {
        _kept?.Add(guest, rank);
        Watch(guest);
    }

    private void Watch(Guest guest)
    {
        guest.Run.Guests.Add(guest);
        _reactor.Watch((int)guest.Process.DangerousGetHandle(), EpollEvents.Readable, new DeathWatch(this, guest));
        GuestsChanged?.Invoke();
    }

    /// <summary>A process gives a mapping back.</summary>
    private void Unmap(Mapping mapping)
    {
        mapping.IsGone = true;
        _reactor.Unwatch(mapping.Userfaultfd);
        _ = Libc.Close(mapping.Userfaultfd);
        mapping.Region.RemoveMapping(mapping);
        mapping.Guest.Mappings.Remove(mapping);
        _kept?.Remove(mapping);
        _jobs.OnUnmapped();
    }

    private static bool IsAddressSpaceGone(Guest guest)
    {
        if (guest.Mappings.Count == 0) return true;
        Mapping first = guest.Mappings[0];
        return first.IsGone
            || Userfaultfd.WriteProtect(first.Userfaultfd, first.AddressOf(new PageNumber(0)), PageNumber.Bytes, on: true) == Errno.ESRCH;
    }

    private delegate (RankSession? Rank, string? Refusal, int Errno) RankAdmission(PeerCredentials peer, string token, int rank, Action<GuestMessage, byte[]> send);

    private sealed class DeathWatch(GuestServer server, Guest guest) : IReactorHandler
    {
        public void OnReady(EpollEvents events)
        {
            server.OnRankDied(guest);
            server.OnGone(guest);
        }
    }

    private sealed class FaultWatch(Pager pager, Mapping mapping) : IReactorHandler
    {
        public void OnReady(EpollEvents events) => pager.OnFaults(mapping);
    }
}
