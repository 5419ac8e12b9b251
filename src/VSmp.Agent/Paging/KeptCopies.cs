// SPDX-License-Identifier: Apache-2.0
using System.Runtime.InteropServices;
using VSmp.Agent.Adopting;
using VSmp.Coherence;

namespace VSmp.Agent.Paging;

/// <summary>
/// Copies of a region's pages that this node has given up and must not drop before the receiver has acknowledged. Slots are allocated in slabs, and used
/// again; slabs lie in a <see cref="KeptFile"/> where copies are to outlive the agent.
/// </summary>
/// <remarks>
/// A slab is a page of slots' heads, then their copies. A head says what is there; it is written when the copy is, and cleared in one store:
/// <code>in use 1 │ zeros 1 │ set aside 1 │ page 61 ║ sequence 64</code>
/// Of two copies of a page the one with the higher sequence counts: the other was being replaced by it.
/// </remarks>
internal sealed unsafe class KeptCopies : IDisposable
{
    /// <summary>Copies in a slab.</summary>
    public const int SlotsPerSlab = 64;

    /// <summary>Bytes of a slab.</summary>
    public const int SlabBytes = (1 + SlotsPerSlab) * PageNumber.Bytes;

    private const ulong InUse = 1UL << 63, Zeros = 1UL << 62, SetAside = 1UL << 61, PageMask = SetAside - 1;

    private readonly KeptFile? _file;
    private readonly Action<string> _onFull;
    private readonly Dictionary<PageNumber, int> _slotOf = [];
    private readonly List<(nint Base, bool IsInFile)> _slabs = [];
    private readonly Stack<int> _free = [];
    private ulong _sequence;

    /// <summary>Makes the store of a region of which no copies are kept yet.</summary>
    /// <param name="file">Where slabs are to lie; the store's from now on. Null: in the agent's own memory.</param>
    /// <param name="onFull">Hears that the file has no room: a copy that has to be kept is kept in the agent's own memory, and is lost with it.</param>
    public KeptCopies(KeptFile? file = null, Action<string>? onFull = null)
    {
        _file = file;
        _onFull = onFull ?? (_ => { });
    }

    /// <summary>Copies kept.</summary>
    public int Count => _slotOf.Count;

    /// <summary>Finds what another agent kept.</summary>
    /// <param name="pageCount">Pages of the region.</param>
    /// <returns>Pages whose frames were taken out for a moment, to be put back (<see cref="PutBack"/>).</returns>
    /// <exception cref="InvalidDataException">The file is damaged.</exception>
    /// <exception cref="IOException">It cannot be read.</exception>
    public IReadOnlyList<int> Load(ulong pageCount)
    {
        var aside = new List<int>();
        foreach (nint slab in _file!.Load()) _slabs.Add((slab, true));
        for (int slot = _slabs.Count * SlotsPerSlab; slot-- > 0;)
        {
            Head* head = HeadAt(slot);
            ulong word = head->Word;
            if (word == 0)
            {
                _free.Push(slot);
                continue;
            }
            var page = new PageNumber(word & PageMask);
            if ((word & InUse) == 0 || page.Value >= pageCount || (word & (Zeros | SetAside)) == (Zeros | SetAside)) throw _file.Invalid($"slot {slot} says 0x{word:x16}");
            _sequence = Math.Max(_sequence, head->Sequence);
            if ((word & SetAside) != 0) aside.Add(slot);
            else if (!_slotOf.TryGetValue(page, out int other)) _slotOf.Add(page, slot);
            else if (HeadAt(other)->Sequence == head->Sequence) throw _file.Invalid($"slots {slot} and {other} both have {page}");
            else
            {
                bool isNewer = head->Sequence > HeadAt(other)->Sequence;
                if (isNewer) _slotOf[page] = slot;
                Clear(isNewer ? other : slot);
            }
        }
        return aside;
    }

    /// <summary>Whether a copy of a page is kept.</summary>
    public bool Contains(PageNumber page) => _slotOf.ContainsKey(page);

    /// <summary>Takes a copy of a page out of its frame.</summary>
    public void Keep(PageNumber page, FrameFile frames) => _slotOf.Add(page, Put(page, frames, 0));

    /// <summary>Takes a copy in place of the one that is kept.</summary>
    public void KeepInstead(PageNumber page, FrameFile frames)
    {
        int former = _slotOf[page];
        _slotOf[page] = Put(page, frames, 0);
        Clear(former);
    }

    /// <summary>The copy, or null if it is zeros.</summary>
    public byte* Find(PageNumber page)
    {
        int slot = _slotOf[page];
        return (HeadAt(slot)->Word & Zeros) != 0 ? null : CopyAt(slot);
    }

    /// <summary>Drops a copy.</summary>
    public void Release(PageNumber page)
    {
        if (_slotOf.Remove(page, out int slot)) Clear(slot);
    }

    /// <summary>Takes a page out of its frame for a moment: whoever finds it set aside puts it back first of all.</summary>
    /// <returns>Where it is, for <see cref="PutBack"/>.</returns>
    public int TakeAside(PageNumber page, FrameFile frames) => Put(page, frames, SetAside);

    /// <summary>Puts a page back into its frame.</summary>
    public void PutBack(int slot, FrameFile frames)
    {
        frames.Write(new PageNumber(HeadAt(slot)->Word & PageMask), CopyAt(slot), 1);
        Clear(slot);
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        Close();
        _file?.Dispose();
    }

    /// <summary>Gives memory back, and leaves the file where it is.</summary>
    public void Close()
    {
        foreach ((nint slab, bool isInFile) in _slabs)
        {
            if (!isInFile) NativeMemory.AlignedFree((void*)slab);
        }
        _slabs.Clear();
        _file?.Close();
    }

    private static bool IsZero(byte* page) => !new ReadOnlySpan<byte>(page, PageNumber.Bytes).ContainsAnyExcept((byte)0);

    private int Put(PageNumber page, FrameFile frames, ulong flags)
    {
        if (_free.Count == 0) AddSlab();
        int slot = _free.Pop();
        byte* copy = CopyAt(slot);
        frames.Read(page, copy, 1);
        if (flags == 0 && IsZero(copy)) flags = Zeros;
        Head* head = HeadAt(slot);
        Volatile.Write(ref head->Sequence, ++_sequence);
        Volatile.Write(ref head->Word, InUse | flags | page.Value);
        return slot;
    }

    private void Clear(int slot)
    {
        Volatile.Write(ref HeadAt(slot)->Word, 0);
        _free.Push(slot);
    }

    private Head* HeadAt(int slot) => (Head*)_slabs[slot / SlotsPerSlab].Base + (slot % SlotsPerSlab);

    private byte* CopyAt(int slot) => (byte*)_slabs[slot / SlotsPerSlab].Base + ((1 + (slot % SlotsPerSlab)) * PageNumber.Bytes);

    private void AddSlab()
    {
        byte* slab = null;
        if (_file is not null && !_file.TryAddSlab(out slab)) _onFull($"there is no room to keep more pages in {_file.Path}");
        bool isInFile = slab != null;
        if (!isInFile)
        {
            slab = (byte*)NativeMemory.AlignedAlloc(SlabBytes, PageNumber.Bytes);
            NativeMemory.Clear(slab, PageNumber.Bytes);
        }
        _slabs.Add(((nint)slab, isInFile));
        for (int i = SlotsPerSlab - 1; i >= 0; i--) _free.Push(((_slabs.Count - 1) * SlotsPerSlab) + i);
    }

    [StructLayout(LayoutKind.Sequential)]
    private struct Head
    {
        public ulong Word;
        public ulong Sequence;
    }
}
