// SPDX-License-Identifier: Apache-2.0
using System.Numerics;
using System.Runtime.InteropServices;

namespace VSmp.Bench.Checking;

/// <summary>
/// The states seen so far, each by a hash of 128 bits, with the state and the move that led to it first. Two states of one hash
/// would be taken for one; among a thousand million states the chance of any such pair is below 10⁻²⁰.
/// </summary>
internal sealed class StateSet
{
    private Entry[] _entries = new Entry[1 << 16];
    private int[] _slots = new int[1 << 17]; // index + 1 of an entry, 0 for none

    /// <summary>How many states there are.</summary>
    public int Count { get; private set; }

    /// <summary>Bytes of memory that they take.</summary>
    public long Bytes => ((long)_entries.Length * Marshal.SizeOf<Entry>()) + ((long)_slots.Length * sizeof(int));

    /// <summary>The hash of a state.</summary>
    public static (ulong Low, ulong High) Hash(ReadOnlySpan<byte> state)
    {
        ulong low = 0x9E37_79B9_7F4A_7C15 ^ (ulong)state.Length, high = 0xC2B2_AE3D_27D4_EB4F;
        ReadOnlySpan<ulong> words = MemoryMarshal.Cast<byte, ulong>(state);
        foreach (ulong word in words) Mix(ref low, ref high, word);
        ulong rest = 0;
        foreach (byte b in state[(words.Length * sizeof(ulong))..]) rest = rest << 8 | b;
        Mix(ref low, ref high, rest);
        Mix(ref low, ref high, 0);
        return (low, high);
    }

    /// <summary>Adds a state.</summary>
    /// <returns>Its index, or −1 if it is known.</returns>
    public int TryAdd(ulong low, ulong high, int parent, uint move)
    {
        if (Count * 2 >= _slots.Length) Grow();
        int mask = _slots.Length - 1;
        for (int slot = (int)low & mask; ; slot = (slot + 1) & mask)
        {
            int index = _slots[slot];
            if (index == 0)
            {
                if (Count == _entries.Length) Array.Resize(ref _entries, Count * 2);
                _entries[Count] = new Entry { Low = low, High = high, Parent = parent, Move = move };
                _slots[slot] = ++Count;
                return Count - 1;
            }
            ref Entry entry = ref _entries[index - 1];
            if (entry.Low == low && entry.High == high) return -1;
        }
    }

    /// <summary>Whether a state is known.</summary>
    public bool Contains(ReadOnlySpan<byte> state)
    {
        (ulong low, ulong high) = Hash(state);
        int mask = _slots.Length - 1;
        for (int slot = (int)low & mask; _slots[slot] != 0; slot = (slot + 1) & mask)
        {
            ref Entry entry = ref _entries[_slots[slot] - 1];
            if (entry.Low == low && entry.High == high) return true;
        }
        return false;
    }

    /// <summary>The moves from the initial state to a state.</summary>
    public List<Move> PathTo(int index)
    {
        var path = new List<Move>();
        for (; _entries[index].Parent >= 0; index = _entries[index].Parent) path.Add(Move.Unpack(_entries[index].Move));
        path.Reverse();
        return path;
    }

    private static void Mix(ref ulong low, ref ulong high, ulong word)
    {
        low = BitOperations.RotateLeft((low ^ word) * 0x87C3_7B91_1142_53D5, 31) + high;
        high = BitOperations.RotateLeft((high ^ word) * 0x4CF5_AD43_2745_937F, 33) + (low ^ (low >> 29));
    }

    private void Grow()
    {
        var slots = new int[_slots.Length * 2];
        int mask = slots.Length - 1;
        for (int i = 0; i < Count; i++)
        {
            int slot = (int)_entries[i].Low & mask;
            while (slots[slot] != 0) slot = (slot + 1) & mask;
            slots[slot] = i + 1;
        }
        _slots = slots;
    }

    private struct Entry
    {
        public ulong Low;
        public ulong High;
        public int Parent;
        public uint Move;
    }
}
