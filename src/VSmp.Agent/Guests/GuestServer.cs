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
/// <remarks>GuestServer.Adopting.cs: those that had attached to an agent before this one.</remarks>
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

    /// <summary>A guest's connection: of a program, which has one request out at a time, or of a rank, which may have several.</summary>
    private sealed class GuestConnection : IReactorHandler
    {
        /// <summary>Replies that may wait for a rank that does not read.</summary>
        private const int MaxOutbox = 4096;

        private readonly GuestServer _server;
        private readonly List<int> _descriptors = [];
        private readonly Queue<(byte[] Message, int[] Descriptors)> _outbox = new();
        private byte[] _buffer = new byte[GuestMessage.Bytes + GuestMessage.MaxTextBytes];
        private Guest? _guest;
        private RankSession? _rank;
        private bool _isClosed;
        private bool _isFull; // the rank does not read; it is told to us when there is room

        public GuestConnection(GuestServer server, UnixSocket socket)
        {
            _server = server;
            Socket = socket;
            server._reactor.Watch(socket.Descriptor, EpollEvents.Readable | EpollEvents.PeerClosed, this);
        }

        public UnixSocket Socket { get; }

        /// <summary>Who is attached by it.</summary>
        public Guest? Guest => _guest;

        /// <summary>What a guest is told of its agent when it attaches.</summary>
        private ulong Abilities => (_server._device >= 0 ? GuestMessage.HasDevice : 0) | (_server._kept is not null ? GuestMessage.IsKept : 0);

        public void OnReady(EpollEvents events)
        {
            if ((events & EpollEvents.Writable) != 0) Flush();
            while (!_isClosed)
            {
                _descriptors.Clear();
                int received = Socket.Receive(_buffer, _descriptors);
                if (received == -Errno.EAGAIN) return;
                if (received < GuestMessage.Bytes)
                {
                    Close();
                    return;
                }
                Handle(Unsafe.ReadUnaligned<GuestMessage>(ref _buffer[0]), received);
                foreach (int unclaimed in _descriptors) _ = Libc.Close(unclaimed);
            }
        }

        public void Close()
        {
            if (_isClosed) return;
            _isClosed = true;
            _server._connections.Remove(this);
            _server._reactor.Unwatch(Socket.Descriptor);
            Socket.Dispose();
            if (_rank is not null)
            {
                // Not at once: that it is gone may have been found when it was to be answered, in the middle of what its job is told.
                (NodeJob job, int rank) = (_guest!.Run.Job!, _rank.Rank);
                string how = $"rank {rank} (process {_guest.ProcessId} on {_server.NodeName}) has ended, or left without vsmp_finish";
                _server._reactor.Post(() => _server._jobs.OnRankGone(job, rank, how));
            }
            // A program may close descriptors that it does not know, and live on; but after an exec its memory is gone.
            if (_guest is not null && IsAddressSpaceGone(_guest)) _server.OnGone(_guest);
        }

        private void Handle(in GuestMessage m, int received)
        {
            if (m.Magic != GuestMessage.MagicValue || m.TextBytes != received - GuestMessage.Bytes)
            {
                Close();
                return;
            }
            if (m.Version != GuestMessage.CurrentVersion)
            {
                Reply(in m, Errno.EPROTO, $"the guest library speaks version {m.Version}, this agent {GuestMessage.CurrentVersion}: install both from one build");
                return;
            }
            switch (m.Type)
            {
                case GuestRequest.Hello when _guest is null:
                    OnHello(in m, Encoding.UTF8.GetString(_buffer, GuestMessage.Bytes, (int)m.TextBytes));
                    break;
                case GuestRequest.Resume when _guest is null:
                    OnResume(in m, Encoding.UTF8.GetString(_buffer, GuestMessage.Bytes, (int)m.TextBytes));
                    break;
                case GuestRequest.Join when _guest is null:
                    OnJoin(in m, Encoding.UTF8.GetString(_buffer, GuestMessage.Bytes, (int)m.TextBytes));
                    break;
                case GuestRequest.Rejoin when _guest is null:
                    OnRejoin(in m, Encoding.UTF8.GetString(_buffer, GuestMessage.Bytes, (int)m.TextBytes));
                    break;
                case GuestRequest.Join when _rank is not null: // again
                    _guest!.Run.Job!.OnCall(_rank, in m, _buffer.AsSpan(GuestMessage.Bytes, (int)m.TextBytes));
                    break;
                case GuestRequest.Map when _guest is not null:
                    OnMap(m);
                    break;
                case > GuestRequest.Join and <= GuestRequest.Finish when _rank is not null:
                    OnRankCall(in m, _buffer.AsSpan(GuestMessage.Bytes, (int)m.TextBytes));
                    break;
                case GuestRequest.Reserve or GuestRequest.Release or GuestRequest.Discard when _guest is not null && _rank is null:
                    OnRange(m);
                    break;
                default:
                    Reply(in m, Errno.EINVAL, $"a request of type {(ushort)m.Type} is not understood here");
                    break;
            }
        }

        private void OnHello(in GuestMessage m, string token)
        {
            (Guest? guest, string? refusal, int errno) = _server.Attach(this, token);
            if (guest is null)
            {
                Reply(in m, errno, refusal!);
                return;
            }
            _guest = guest;
            GuestMessage reply = ReplyTo(in m);
            reply.A = guest.Region.Id.Value;
            reply.B = (ulong)guest.Region.Layout.ExtentCount * ExtentNumber.Bytes;
            reply.C = Abilities;
            int frames = guest.Region.Frames.Descriptor;
            Send(ref reply, [], _server._device >= 0 ? [frames, _server._device] : [frames]);
        }

        private void OnResume(in GuestMessage m, string token)
        {
            _guest = _server.FindToResume(Socket.Peer, token, new RegionId(m.A));
            if (_guest is null) Reply(in m, Errno.EACCES, "this agent has not taken the process over from the one that was killed");
            else Reply(in m, 0, "");
        }

        private void OnJoin(in GuestMessage m, string token)
        {
            if (!TryBecomeRank(in m, token, _server.Join)) return;
            _guest!.Run.Job!.OnCall(_rank!, in m, Encoding.UTF8.GetBytes(token));
        }

        private void OnRejoin(in GuestMessage m, string token)
        {
            if (TryBecomeRank(in m, token, _server.Rejoin)) Reply(in m, 0, "");
        }

        private bool TryBecomeRank(in GuestMessage m, string token, RankAdmission admit)
        {
            string? refusal = "a rank has a number of 0 or more";
            int errno = Errno.EINVAL;
            RankSession? session = null;
            if (m.A < JobLimits.MaxRanks) (session, refusal, errno) = admit(Socket.Peer, token, (int)m.A, Deliver);
            if (session is null)
            {
                Reply(in m, errno, refusal!);
                return false;
            }
            (_rank, _guest) = (session, session.Guest);
            _buffer = new byte[GuestMessage.Bytes + GuestMessage.MaxDataBytes];
            return true;
        }

        private void OnRankCall(in GuestMessage m, ReadOnlySpan<byte> data)
        {
            int most = m.Type switch
            {
                GuestRequest.Attach => JobLimits.MaxNameBytes,
                GuestRequest.Mapped => GuestMessage.MaxTextBytes,
                GuestRequest.Broadcast => GuestMessage.MaxDataBytes,
                _ => 0,
            };
            if (data.Length > most)
            {
                Reply(in m, Errno.EINVAL, $"{data.Length} bytes come with a request of type {(ushort)m.Type}, which takes {most} at most");
                return;
            }
            Guest guest = _guest!;
            foreach (Mapping mapping in guest.Mappings.ToArray())
            {
                if (m.Type == GuestRequest.Finish || (m.Type == GuestRequest.Detach && mapping.Region.Id.Value == m.A)) _server.Unmap(mapping);
            }
            guest.Run.Job!.OnCall(_rank!, in m, data);
        }

        /// <summary>The leader's answer, or this node's, to a rank.</summary>
        private void Deliver(GuestMessage reply, byte[] data)
        {
            int[] descriptors = [];
            if (reply.Status == 0 && reply.Type == (GuestRequest.Join | GuestRequest.Reply))
            {
                reply.C = Abilities;
                if (_server._device >= 0) descriptors = [_server._device];
            }
            else if (reply.Status == 0 && reply.Type == (GuestRequest.Attach | GuestRequest.Reply)
                && _guest!.Run.Job!.FindRegion(new RegionId(reply.A)) is { } region)
            {
                descriptors = [region.Frames.Descriptor];
            }
            Send(ref reply, data, descriptors);
        }

        private void OnMap(GuestMessage m)
        {
            Guest guest = _guest!;
            PagedRegion? region = _rank is null ? guest.Region : guest.Run.Job!.FindRegion(new RegionId(m.D));
            if (region is null)
            {
                Reply(in m, Errno.EINVAL, "there is no such region in this job");
                return;
            }
            if (_rank is not null && guest.Mappings.Find(there => there.Region == region && there.Address == m.A && there.Bytes == m.B) is { } former)
            {
                if (former.IsHeld) Reply(in m, 0, ""); // again; otherwise the first one is about to be answered
                return;
            }
            ulong window = (ulong)region.Layout.ExtentCount * ExtentNumber.Bytes;
            bool isSound = _descriptors.Count == 1 && region.Mappings.Count < PagedRegion.MaxMappings
                && (_rank is null || !guest.Mappings.Exists(other => other.Region == region))
                && (m.A | m.B | m.C) % PageNumber.Bytes == 0 && m.B > 0 && m.C <= window && m.B <= window - m.C && m.A <= ulong.MaxValue - m.B;
            if (!isSound)
            {
                Reply(in m, Errno.EINVAL, "the mapping does not fit the region");
                return;
            }
            int userfaultfd = _descriptors[0];
            _descriptors.Clear();
            var mapping = new Mapping(guest, region, userfaultfd, m.A, m.B, m.C) { Bit = region.FreeBit() };
            region.Mappings.Add(mapping);
            guest.Mappings.Add(mapping);
            _server._reactor.Watch(userfaultfd, EpollEvents.Readable, new FaultWatch(_server._pager, mapping));
            if (_server._kept is not { } kept) OnMapped(in m, mapping);
            else kept.Add(mapping, m.A, new PageNumber(m.C >> PageNumber.Shift), m.B >> PageNumber.Shift, error => OnKept(in m, mapping, error));
        }

        /// <summary>Until the keeper holds a copy, the guest keeps its own: it is told of nothing before.</summary>
        private void OnKept(in GuestMessage m, Mapping mapping, int error)
        {
            if (mapping.IsGone) return; // and so is whoever would be told
            if (error == 0)
            {
                OnMapped(in m, mapping);
                return;
            }
            _server.Unmap(mapping);
            Reply(in m, Errno.ENOMEM, $"the keeper of {_server.NodeName} cannot hold the process's memory: {Errno.Text(error)}");
        }

        private void OnMapped(in GuestMessage m, Mapping mapping)
        {
            mapping.IsHeld = true;
            mapping.Guest.Run.Observer.OnGuestAttached(mapping.Guest.ProcessId, mapping.Userfaultfd);
            Reply(in m, 0, "");
        }

        private void OnRange(GuestMessage m)
        {
            Guest guest = _guest!;
            ulong window = (ulong)guest.Region.Layout.ExtentCount * ExtentNumber.Bytes;
            ulong unit = m.Type == GuestRequest.Discard ? PageNumber.Bytes : (ulong)ExtentNumber.Bytes;
            if ((m.A | m.B) % unit != 0 || m.B == 0 || m.A > window || m.B > window - m.A)
            {
                Reply(in m, Errno.EINVAL, "the range does not fit the region");
                return;
            }
            var page = new PageNumber(m.A >> PageNumber.Shift);
            uint pageCount = (uint)(m.B >> PageNumber.Shift);
            switch (m.Type)
            {
                case GuestRequest.Reserve:
                    _server._reservations.Reserve(guest, page.Extent, pageCount >> ExtentNumber.PagesShift,
                        why => ReplyToReserve(in m, guest, why));
                    break;
                case GuestRequest.Release:
                    _server.Begin(new RangeOperation(guest, page, pageCount, _server._pager.Forget, () =>
                    {
                        _server._reservations.Release(guest, page.Extent, pageCount >> ExtentNumber.PagesShift);
                        Reply(in m, 0, "");
                    }));
                    break;
                default:
                    _server.Begin(new RangeOperation(guest, page, pageCount, _server._pager.Discard, () => Reply(in m, 0, "")));
                    break;
            }
        }

        private void ReplyToReserve(in GuestMessage m, Guest guest, string? why)
        {
            if (why is not null) Log.Warn(why);
            Reply(in m, why is null ? 0 : Errno.ENOMEM, why ?? "");
        }

        private static GuestMessage ReplyTo(in GuestMessage m) => new()
        {
            Magic = GuestMessage.MagicValue,
            Version = GuestMessage.CurrentVersion,
            Type = m.Type | GuestRequest.Reply,
            Serial = m.Serial,
        };

        private void Reply(in GuestMessage m, int errno, string text)
        {
            GuestMessage reply = ReplyTo(in m);
            reply.Status = errno;
            byte[] words = Encoding.UTF8.GetBytes(text);
            Send(ref reply, words.AsSpan(0, Math.Min(words.Length, GuestMessage.MaxTextBytes)), []);
        }

        private void Send(ref GuestMessage reply, ReadOnlySpan<byte> data, int[] descriptors)
        {
            if (_isClosed) return;
            if (reply.Status != 0 && data.Length > GuestMessage.MaxTextBytes) data = data[..GuestMessage.MaxTextBytes];
            reply.TextBytes = (uint)data.Length;
            var bytes = new byte[GuestMessage.Bytes + data.Length];
            Unsafe.WriteUnaligned(ref bytes[0], reply);
            data.CopyTo(bytes.AsSpan(GuestMessage.Bytes));
            _outbox.Enqueue((bytes, descriptors));
            if (_outbox.Count == 1) Flush();
        }

        private void Flush()
        {
            while (!_isClosed && _outbox.TryPeek(out var next))
            {
                int sent = Socket.Send(next.Message, next.Descriptors, wait: false);
                if (sent == -Errno.EAGAIN && _rank is not null && _outbox.Count <= MaxOutbox)
                {
                    _server._reactor.Change(Socket.Descriptor, EpollEvents.Readable | EpollEvents.PeerClosed | EpollEvents.Writable);
                    _isFull = true;
                    return;
                }
                // A program has one request out and waits for this reply: there is room, or it is gone.
                if (sent < 0)
                {
                    Close();
                    return;
                }
                _outbox.Dequeue();
            }
            if (_isClosed || !_isFull) return;
            _server._reactor.Change(Socket.Descriptor, EpollEvents.Readable | EpollEvents.PeerClosed);
            _isFull = false;
        }
    }

    /// <summary>A range of pages to be dropped: as far as it goes at once, the rest when transactions on it have ended.</summary>
    private sealed class RangeOperation(Guest guest, PageNumber page, uint pageCount, Func<PagedRegion, PageNumber, uint, uint> drop, Action done)
    {
        private uint _done;

        public Guest Guest { get; } = guest;

        public bool Continue()
        {
            _done += drop(Guest.Region, page.Plus(_done), pageCount - _done);
            if (_done < pageCount) return false;
            done();
            return true;
        }
    }

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
