// SPDX-License-Identifier: Apache-2.0
using System.Runtime.Intrinsics.X86;

namespace VSmp.Agent.Fabric;

/// <summary>
/// CRC-32C (Castagnoli; RFC 3720, appendix B.4) with the instruction that every x86-64 processor since 2008 has.
/// </summary>
/// <remarks>
/// The instruction takes three cycles but one can start in each: long ranges go in three lanes at once, whose checksums are then
/// put together. A CRC is linear: appending n zero bytes to a message multiplies its checksum by a fixed matrix over GF(2), kept
/// here as a table per byte of the checksum (the method is Mark Adler's, from crc32c.c).
/// </remarks>
internal static unsafe class Crc32C
{
    private const uint Polynomial = 0x82F63B78; // reflected
    private const int LongLane = 1024, ShortLane = 128;

    private static readonly uint[] LongShift = MakeShift(LongLane);
    private static readonly uint[] ShortShift = MakeShift(ShortLane);

    /// <summary>The checksum of some bytes; of more than that, if those before had <paramref name="previous"/>.</summary>
    public static uint Compute(ReadOnlySpan<byte> bytes, uint previous = 0)
    {
        // SAFETY: the span is pinned, and no more than its length is read.
        fixed (byte* start = bytes) return Compute(start, bytes.Length, previous);
    }

    /// <summary>The checksum of a range of bytes: initial value and final XOR are all ones. Of a longer one, if the bytes before it had <paramref name="previous"/>.</summary>
    public static uint Compute(byte* bytes, int byteCount, uint previous = 0)
    {
        ulong crc = ~previous;
        // SAFETY: reads [bytes, bytes + byteCount), which the caller owns.
        unsafe
        {
            byte* end = bytes + byteCount;
            for (; end - bytes >= 3 * LongLane; bytes += 3 * LongLane) crc = Lanes(crc, bytes, LongLane, LongShift);
            for (; end - bytes >= 3 * ShortLane; bytes += 3 * ShortLane) crc = Lanes(crc, bytes, ShortLane, ShortShift);
            for (; end - bytes >= 8; bytes += 8) crc = Sse42.X64.Crc32(crc, *(ulong*)bytes);
            for (; bytes < end; bytes++) crc = Sse42.Crc32((uint)crc, *bytes);
        }
        return ~(uint)crc;
    }

    /// <summary>Three lanes, one behind the other in memory.</summary>
    private static ulong Lanes(ulong first, byte* bytes, int laneBytes, uint[] shift)
    {
        ulong second = 0, third = 0;
        // SAFETY: the caller has three lanes' worth of bytes.
        unsafe
        {
            for (byte* end = bytes + laneBytes; bytes < end; bytes += 8)
            {
                first = Sse42.X64.Crc32(first, *(ulong*)bytes);
                second = Sse42.X64.Crc32(second, *(ulong*)(bytes + laneBytes));
                third = Sse42.X64.Crc32(third, *(ulong*)(bytes + (2 * laneBytes)));
            }
        }
        return Shift(shift, Shift(shift, (uint)first) ^ (uint)second) ^ (uint)third;
    }

    private static uint Shift(uint[] table, uint crc) =>
        table[crc & 0xFF] ^ table[256 + ((crc >> 8) & 0xFF)] ^ table[512 + ((crc >> 16) & 0xFF)] ^ table[768 + (crc >> 24)];

    private static uint[] MakeShift(int zeroBytes)
    {
        uint[] ofBit = new uint[32];
        for (int bit = 0; bit < 32; bit++)
        {
            uint crc = 1u << bit;
            for (int i = 0; i < zeroBytes * 8; i++) crc = (crc >> 1) ^ ((crc & 1) != 0 ? Polynomial : 0);
            ofBit[bit] = crc;
        }
        uint[] table = new uint[4 * 256];
        for (int i = 0; i < table.Length; i++)
        {
            for (int bit = 0; bit < 8; bit++)
                if ((i & (1 << bit)) != 0) table[i] ^= ofBit[(i / 256 * 8) + bit];
        }
        return table;
    }
}
