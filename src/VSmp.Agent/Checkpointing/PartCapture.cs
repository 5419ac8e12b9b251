// SPDX-License-Identifier: Apache-2.0
using System.Collections.Concurrent;
using System.Diagnostics;
using VSmp.Agent.Paging;
using VSmp.Coherence;

namespace VSmp.Agent.Checkpointing;

/// <summary>
/// A node's part of a checkpoint, while it is made: the reactor copies pages into blocks, a thread of its own writes these. What the reactor has no choice but to copy it copies, if need be
/// beyond the blocks that there should be; what can wait, waits.
/// </summary>
internal sealed unsafe class PartCapture : IPageTaker, IDisposable
{
    private const int PagesPerBlock = 64;

    /// <summary>32 MiB.</summary>
    private const int MostBlocks = 128;

    private readonly Dictionary<PagedRegion, ushort> _regions = [];
    private readonly Action<PartOutcome> _onEnded;
    private readonly Action _onRoom;
    private readonly ConcurrentBag<Block> _free = [];
    private readonly BlockingCollection<Block?> _toWrite = []; // null: that is all
    private readonly Func<ulong, PartWriter> _open;
    private readonly uint _generation;
    private Block? _current;
    private int _blocksOut;
    private readonly ManualResetEventSlim _hasBegun = new(); // or is abandoned
    private volatile bool _isFull, _isAbandoned;
    private ulong _mostPages;

    /// <summary>Makes a part of which nothing is there yet.</summary>
    /// <param name="regions">The regions, as the manifest will list them; null where this node has nothing of one.</param>
    /// <param name="generation">For which generation.</param>
    /// <param name="open">Opens the files, once it is known for how many pages at most; on the part's own thread.</param>
    /// <param name="onRoom">There is room again; on any thread.</param>
    /// <param name="onEnded">All is written, and safe, or cannot be; on the part's own thread.</param>
    public PartCapture(IReadOnlyList<PagedRegion?> regions, uint generation, Func<ulong, PartWriter> open, Action onRoom, Action<PartOutcome> onEnded)
    {
        for (int i = 0; i < regions.Count; i++)
        {
            if (regions[i] is { } region) _regions.Add(region, (ushort)i);
        }
        (_generation, _open, _onRoom, _onEnded) = (generation, open, onRoom, onEnded);
        // Now, not at the cut, and not here: whoever starts a thread waits until it runs.
        _ = Task.Run(new Thread(Write) { Name = "checkpoint", IsBackground = true }.Start);
    }

    /// <inheritdoc/>
    public bool HasRoom
    {
        get
        {
            if (Volatile.Read(ref _blocksOut) < MostBlocks) return true;
            _isFull = true; // first: the thread that gives blocks back looks at it afterwards
            return Volatile.Read(ref _blocksOut) < MostBlocks;
        }
    }

    /// <summary>It was cut.</summary>
    /// <param name="mostPages">How many pages it will have.</param>
    public void Begin(ulong mostPages)
    {
        _mostPages = mostPages;
        _hasBegun.Set();
    }

    /// <inheritdoc/>
    public void Take(PagedRegion region, PageNumber page)
    {
        Block block = _current ??= NewBlock();
        fixed (byte* room = &block.Data[block.Count * PageNumber.Bytes]) region.Frames.Read(page, room, 1);
        block.Pages[block.Count++] = (_regions[region], page);
        if (block.Count == PagesPerBlock) Pass();
    }

    /// <summary>All pages were copied.</summary>
    public void Finish()
    {
        if (_current is not null) Pass();
        _toWrite.Add(null);
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        if (_isAbandoned) return;
        _isAbandoned = true;
        _hasBegun.Set();
        _toWrite.Add(null); // the thread goes when it has done what it is at
    }

    private Block NewBlock()
    {
        Interlocked.Increment(ref _blocksOut);
        return _free.TryTake(out Block? block) ? block : new Block();
    }

    private void Pass()
    {
        _toWrite.Add(_current);
        _current = null;
    }

    private void Write()
    {
        _hasBegun.Wait();
        if (_isAbandoned) return;
        var watch = Stopwatch.StartNew();
        PartOutcome outcome;
        try
        {
            using PartWriter writer = _open(_mostPages);
            while (_toWrite.Take() is { } block)
            {
                for (int i = 0; i < block.Count && !_isAbandoned; i++)
                    writer.Add(block.Pages[i].Region, block.Pages[i].Page, _generation, block.Data.AsSpan(i * PageNumber.Bytes, PageNumber.Bytes));
                GiveBack(block);
            }
            if (_isAbandoned) return;
            outcome = new PartOutcome(writer.Finish(), null, watch.Elapsed);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            outcome = new PartOutcome(null, e.Message, watch.Elapsed);
        }
        _onEnded(outcome);
        // Whoever copies goes on until he is told: nobody may wait for room that never comes.
        while (outcome.Part is null && !_isAbandoned && _toWrite.Take() is { } block) GiveBack(block);
    }

    private void GiveBack(Block block)
    {
        block.Count = 0;
        _free.Add(block);
        Interlocked.Decrement(ref _blocksOut);
        if (!_isFull) return;
        _isFull = false;
        _onRoom();
    }

    private sealed class Block
    {
        public byte[] Data { get; } = GC.AllocateUninitializedArray<byte>(PagesPerBlock * PageNumber.Bytes, pinned: true);
        public (ushort Region, PageNumber Page)[] Pages { get; } = new (ushort, PageNumber)[PagesPerBlock];
        public int Count { get; set; }
    }
}

/// <summary>What became of a part.</summary>
/// <param name="Part">It; null if it could not be written.</param>
/// <param name="Error">Why not.</param>
/// <param name="Took">How long it took from the cut on.</param>
internal readonly record struct PartOutcome(PartSummary? Part, string? Error, TimeSpan Took);
