// SPDX-License-Identifier: Apache-2.0
using System.Runtime.InteropServices;
using BenchmarkDotNet.Attributes;
using VSmp.Agent.Control;
using VSmp.Agent.Fabric;
using VSmp.Agent.Guests;
using VSmp.Agent.Jobs;
using VSmp.Agent.Paging;
using VSmp.Coherence;
using VSmp.Coherence.Homes;
using VSmp.Coherence.Messages;
using VSmp.Coherence.Nodes;
using VSmp.Coherence.Placement;
using VSmp.Coherence.Protocols;

namespace VSmp.Bench.Micro;

/// <summary>
/// What else of an agent is on the way of a fault, besides the protocol and the kernel: looking pages up, framing, checksums, queues. The shipped
/// code, without sockets and frames. Each leaves things as it found them.
/// </summary>
#pragma warning disable CA1515 // the benchmark library wants a public class that it can derive from
public unsafe class Inside : IDisposable
#pragma warning restore CA1515
{
    /// <summary>1 GiB: its directory, of 4 MiB, is not in the processor's nearest caches.</summary>
    private const int Extents = 512;

    private const uint Pages = Extents * (uint)ExtentNumber.Pages;

    /// <summary>Holds that have not ended, and copies that may be evicted: as many as a busy run has.</summary>
    private const int Holds = 64, Copies = 4096;

    /// <summary>Calls in a journal before it begins anew, more than an agent lets it have: that is not to be measured.</summary>
    private const int CallsInJournal = 100_000;

    private static readonly NodeId Here = new(0), There = new(1);
    private static readonly RegionId RegionId = RegionId.Create(Here, 1);
    private static readonly ViewNumber View = new(1);

    private readonly ChunkPool _pool = new();
    private readonly PeerSession _sender, _receiver;
    private readonly byte* _frame = (byte*)NativeMemory.AlignedAlloc(FrameHeader.Bytes + PageNumber.Bytes, 4096);
    private readonly byte[] _page = new byte[PageNumber.Bytes];
    private readonly Region _region;
    private readonly PagedRegion _paged;
    private readonly EvictionQueue _copies = new();
    private readonly HoldRules _holdRules = new(Here);
    private readonly PriorityQueue<(PagedRegion Region, PageNumber Page, uint ThreadId, HoldRules.Hold Hold), long> _holds = new(2 * Holds);
    private readonly LatencyHistogram _latency = new();
    private readonly string _journalFolder = $"/dev/shm/vsmp-micro-{Environment.ProcessId}-{Guid.NewGuid():N}";
    private readonly LedState _standing = new(new JobState([1, 1], null, null, 0, null, [], [], [], [], [], [], new CheckpointState(0, IsTaking: false, IsStoring: false, [])), []);
    private readonly JobJournal _journal;
    private long _recorded;
    private uint _random = 1;
    private long _now;

    /// <summary>Makes a region whose home is here, all of whose pages are in use; two ends of a session; queues with something in them.</summary>
    public Inside()
    {
        _sender = new PeerSession(Here, There, new Epoch(1), _pool);
        _receiver = new PeerSession(There, Here, new Epoch(1), _pool);
        new Span<byte>(_frame, FrameHeader.Bytes + PageNumber.Bytes).Fill(0x5A);
        HomeMap homes = new(Extents);
        _region = new Region(RegionId, "micro", Extents, Msi.Protocol, homes, new FrameBudget(Pages));
        Run run = new("micro", new RunRequest(Name: null, "micro", LocalBytes: null, ProcessId: 0, UserId: 0), Pages * (ulong)PageNumber.Bytes, new NoObserver(), nowMicroseconds: 0);
        NodeController node = new(Here);
        // No frame is read or written here, so there is no file for them.
        _paged = new PagedRegion(new DirectoryProtocol(_region, node, new HomeController(Here, static () => 2), new MirrorController(Here)), frames: null!, run);
        for (uint e = 0; e < Extents; e++)
        {
            ExtentNumber extent = new(e);
            homes.Place(extent, Here);
            _region.BecomeHome(extent);
            _paged.Open(extent);
        }
        for (uint p = 0; p < Pages; p++) _region.EntryAt(new PageNumber(p)).Owner = There;
        for (int i = 0; i < Holds; i++) AddHold();
        _journal = JobJournal.Begin(_journalFolder, new JobHeader(JobHeader.CurrentFormat, 1, "", "region", Msi.Protocol.Name, false, [0, 0], [0], "micro", 0, 0),
            () => { }, why => throw new InvalidOperationException(why));
        for (int i = 0; i < Copies; i++) _copies.OnInstalled(_paged, new PageNumber((uint)i * 61), Copies);
    }

    /// <summary>A page's entry in the directory of its home, of a page that nobody has asked for lately.</summary>
    [Benchmark(Description = "directory lookup, random page")]
    public NodeId DirectoryLookup() => _region.EntryAt(RandomPage()).Owner;

    /// <summary>A page's state at a node, likewise.</summary>
    [Benchmark(Description = "page state lookup, random page")]
    public NodeState StateLookup() => _region.PageAt(RandomPage()).State;

    /// <summary>A request, from one end of a session to the other: header, checksum, outbox; judged and taken there; acknowledged now and then.</summary>
    [Benchmark(Description = "frame without payload, written and taken")]
    public void Request() => Pass(MessageType.GetS, default, []);

    /// <summary>Data of a page, likewise.</summary>
    [Benchmark(Description = "frame with a page, written and taken")]
    public void Data() => Pass(MessageType.DataS, default, _page);

    /// <summary>The checksum of a frame without payload.</summary>
    [Benchmark(Description = "CRC32C of a header (128 bytes)")]
    public uint ChecksumHeader() => Crc32C.Compute(_frame, FrameHeader.Bytes);

    /// <summary>The checksum of a frame with a page.</summary>
    [Benchmark(Description = "CRC32C of a header and a page (4224 bytes)")]
    public uint ChecksumPage() => Crc32C.Compute(_frame, FrameHeader.Bytes + PageNumber.Bytes);

    /// <summary>A hold begins, and the oldest one ends.</summary>
    [Benchmark(Description = "queue of holds, in and out")]
    public bool HoldQueue()
    {
        AddHold();
        var (_, _, _, hold) = _holds.Dequeue();
        return _holdRules.TryExtend(ref hold, waits: false);
    }

    /// <summary>The oldest copy is taken out of the queue, is evicted, and comes back.</summary>
    [Benchmark(Description = "eviction queue, out and in")]
    public void Eviction()
    {
        _ = _copies.TryTake(out PagedRegion region, out PageNumber page);
        _copies.OnEvicted(region, page);
        _copies.OnInstalled(region, page, budgetPages: 0);
    }

    /// <summary>What a fault took is counted.</summary>
    [Benchmark(Description = "latency histogram")]
    public void Latency() => _latency.Add(Random() & 0xFFFF);

    /// <summary>A rank's call is written down before it is done.</summary>
    [Benchmark(Description = "call recorded in the journal of a job")]
    public void Journal()
    {
        _journal.AppendCall(1, new GuestMessage { Type = GuestRequest.FetchAdd, Serial = Random() }, []);
        if (++_recorded % CallsInJournal == 0) _journal.Compact(_standing);
    }

    /// <inheritdoc/>
    [GlobalCleanup]
    public void Dispose()
    {
        Dispose(isDisposing: true);
        GC.SuppressFinalize(this);
    }

    /// <summary>Gives the memory back.</summary>
    protected virtual void Dispose(bool isDisposing)
    {
        if (!isDisposing) return;
        _sender.Dispose();
        _receiver.Dispose();
        _pool.Dispose();
        _journal.Dispose();
        Directory.Delete(_journalFolder, recursive: true);
        NativeMemory.AlignedFree(_frame);
    }

    private void Pass(MessageType type, MessageFlags flags, ReadOnlySpan<byte> payload)
    {
        payload.CopyTo(_sender.Begin(payload.Length));
        FrameHeader header = new()
        {
            Type = type,
            Flags = flags,
            Requestor = Here,
            Network = MessageTypes.NetworkOf(type),
            Count = 1,
            Region = RegionId,
            Page = new PageNumber(7),
        };
        _sender.Commit(in header, View);
        Take(_receiver, _sender.Outbox.NextUnsent(), FrameVerdict.Deliver);
        if (!_receiver.OwesAckNow) return;
        _receiver.WriteAck(_frame, View);
        Take(_sender, (FrameHeader*)_frame, FrameVerdict.Ignore);
    }

    private static void Take(PeerSession session, FrameHeader* frame, FrameVerdict expected)
    {
        FrameVerdict verdict = session.Take(frame);
        if (verdict != expected) throw new InvalidOperationException($"a frame was not taken: {verdict} {session.Violation}");
    }

    private void AddHold() => _holds.Enqueue((_paged, RandomPage(), 1, _holdRules.Begin()), _now++ + HoldRules.HoldMicroseconds);

    private PageNumber RandomPage() => new(Random() & (Pages - 1));

    // Marsaglia's xorshift: a nanosecond, which is in the figures.
    private uint Random()
    {
        _random ^= _random << 13;
        _random ^= _random >> 17;
        return _random ^= _random << 5;
    }

    private sealed class NoObserver : IRunObserver
    {
        public void OnMessage(string text)
        {
        }

        public void OnGuestAttached(int processId, int userfaultfd)
        {
        }

        public void OnGuestDetached(int processId)
        {
        }
    }
}
