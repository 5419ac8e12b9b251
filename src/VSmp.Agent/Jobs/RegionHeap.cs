// SPDX-License-Identifier: Apache-2.0
namespace VSmp.Agent.Jobs;

/// <summary>
/// Which parts of a region a job's ranks have allocated: first fit by address, neighbours merged as they come free. It keeps its books
/// beside the region, never in it, so that allocating touches no page.
/// </summary>
/// <param name="bytes">The region's length.</param>
internal sealed class RegionHeap(ulong bytes)
{
    private const ulong Unit = 16;

    private readonly SortedList<ulong, ulong> _free = new() { [0] = bytes }; // offset → length
    private readonly Dictionary<ulong, ulong> _blocks = []; // offset → length

    /// <summary>Bytes that no block has; they may lie in pieces.</summary>
    public ulong FreeBytes
    {
        get
        {
            ulong sum = 0;
            foreach (ulong length in _free.Values) sum += length;
            return sum;
        }
    }

    /// <summary>Memory below it may have been used.</summary>
    public ulong HighWater { get; private set; }

    /// <summary>Blocks that are allocated.</summary>
    public int BlockCount => _blocks.Count;

    /// <summary>Takes a block.</summary>
    /// <param name="wanted">Its length in bytes; 0 counts as 1.</param>
    /// <param name="alignment">A power of two.</param>
    /// <param name="offset">Where it is.</param>
    /// <param name="wasUsed">Whether some of it may have been part of a former block.</param>
    /// <returns>False if no piece is large enough.</returns>
    public bool TryAllocate(ulong wanted, ulong alignment, out ulong offset, out bool wasUsed)
    {
        ulong length = (Math.Max(wanted, 1) + Unit - 1) / Unit * Unit;
        alignment = Math.Max(alignment, Unit);
        for (int i = 0; i < _free.Count && length >= wanted; i++)
        {
            ulong start = _free.GetKeyAtIndex(i), end = start + _free.GetValueAtIndex(i);
            offset = (start + alignment - 1) / alignment * alignment;
            if (offset < start || offset > end || end - offset < length) continue;
            _free.RemoveAt(i);
            if (offset > start) _free.Add(start, offset - start);
            if (offset + length < end) _free.Add(offset + length, end - offset - length);
            _blocks.Add(offset, length);
            wasUsed = offset < HighWater;
            HighWater = Math.Max(HighWater, offset + length);
            return true;
        }
        (offset, wasUsed) = (0, false);
        return false;
    }

    /// <summary>Gives a block back.</summary>
    /// <returns>False if none starts there.</returns>
    public bool TryFree(ulong offset)
    {
        if (!_blocks.Remove(offset, out ulong length)) return false;
        _free.Add(offset, length);
        int i = _free.IndexOfKey(offset);
        if (i + 1 < _free.Count && offset + length == _free.GetKeyAtIndex(i + 1))
        {
            length += _free.GetValueAtIndex(i + 1);
            _free.RemoveAt(i + 1);
            _free[offset] = length;
        }
        if (i > 0 && _free.GetKeyAtIndex(i - 1) + _free.GetValueAtIndex(i - 1) == offset)
        {
            _free.RemoveAt(i);
            ulong before = _free.GetKeyAtIndex(i - 1);
            _free[before] += length;
        }
        return true;
    }

    /// <summary>Offset and length of each block, in turn, in ascending order.</summary>
    public ulong[] SaveBlocks() => [.. _blocks.OrderBy(block => block.Key).SelectMany(block => new[] { block.Key, block.Value })];

    /// <summary>Takes blocks as they were saved; of a heap that was just made.</summary>
    /// <returns>False if no heap of this length can have them.</returns>
    public bool TryLoad(ulong[] blocks, ulong highWater)
    {
        if (blocks.Length % 2 != 0 || highWater > bytes) return false;
        _free.Clear();
        ulong end = 0;
        for (int i = 0; i < blocks.Length; i += 2)
        {
            (ulong offset, ulong length) = (blocks[i], blocks[i + 1]);
            if (offset < end || length == 0 || offset % Unit != 0 || length % Unit != 0 || offset > highWater || length > highWater - offset) return false;
            if (offset > end) _free.Add(end, offset - end);
            _blocks.Add(offset, length);
            end = offset + length;
        }
        if (end < bytes) _free.Add(end, bytes - end);
        HighWater = highWater;
        return true;
    }
}
