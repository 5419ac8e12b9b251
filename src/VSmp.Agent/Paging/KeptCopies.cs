// SPDX-License-Identifier: Apache-2.0
using System.Runtime.InteropServices;
using VSmp.Coherence;

namespace VSmp.Agent.Paging;

/// <summary>
/// Copies of pages that this node has given up and must not drop before the receiver has acknowledged. Slots are allocated in slabs and
/// used again. A copy of zeros takes no slot.
/// </summary>
internal sealed unsafe class KeptCopies : IDisposable
{
    private const int PagesPerSlab = 64;
    private const int ZeroSlot = -1;

    private readonly Dictionary<(RegionId, PageNumber), int> _slotOf = new(1024);
    private readonly List<nint> _slabs = [];
    private readonly Stack<int> _free = new(1024);

    /// <summary>Copies kept.</summary>
    public int Count => _slotOf.Count;

    /// <summary>Takes a copy of a page out of its frame.</summary>
    public void Keep(RegionId region, PageNumber page, FrameFile frames)
    {
        if (_free.Count == 0) AddSlab();
        int slot = _free.Pop();
        byte* copy = At(slot);
        frames.Read(page, copy, 1);
        if (IsZero(copy))
        {
            _free.Push(slot);
            slot = ZeroSlot;
        }
        _slotOf.Add((region, page), slot);
    }

    /// <summary>Takes a copy in place of the one that is kept.</summary>
    public void KeepInstead(RegionId region, PageNumber page, FrameFile frames)
    {
        Release(region, page);
        Keep(region, page, frames);
    }

    /// <summary>The copy, or null if it is zeros.</summary>
    public byte* Find(RegionId region, PageNumber page)
    {
        int slot = _slotOf[(region, page)];
        return slot == ZeroSlot ? null : At(slot);
    }

    /// <summary>Drops a copy.</summary>
    public void Release(RegionId region, PageNumber page)
    {
        if (_slotOf.Remove((region, page), out int slot) && slot != ZeroSlot) _free.Push(slot);
    }

    /// <summary>Drops all copies of a region.</summary>
    public void Drop(RegionId region)
    {
        foreach ((RegionId Region, PageNumber Page) key in _slotOf.Keys.Where(k => k.Item1 == region).ToArray()) Release(key.Region, key.Page);
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        foreach (nint slab in _slabs) NativeMemory.AlignedFree((void*)slab);
        _slabs.Clear();
    }

    private static bool IsZero(byte* page) => !new ReadOnlySpan<byte>(page, PageNumber.Bytes).ContainsAnyExcept((byte)0);

    private byte* At(int slot) => (byte*)_slabs[slot / PagesPerSlab] + (slot % PagesPerSlab * PageNumber.Bytes);

    private void AddSlab()
    {
        _slabs.Add((nint)NativeMemory.AlignedAlloc(PagesPerSlab * PageNumber.Bytes, PageNumber.Bytes));
        for (int i = PagesPerSlab - 1; i >= 0; i--) _free.Push(((_slabs.Count - 1) * PagesPerSlab) + i);
    }
}
