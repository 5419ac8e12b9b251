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

/// <content>What guests say, and hear.</content>
internal sealed partial class GuestServer
{
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
                case (> GuestRequest.Join and <= GuestRequest.Finish) or GuestRequest.Checkpoint when _rank is not null:
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
}
