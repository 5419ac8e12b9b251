// SPDX-License-Identifier: Apache-2.0
using System.Runtime.Intrinsics.X86;

namespace VSmp.Agent.Fabric;

/// <summary>CRC-32C (Castagnoli; RFC 3720, appendix B.4) with the instruction that every x86-64 processor since 2008 has.</summary>
internal static unsafe class Crc32C
{
    /// <summary>The checksum of a range of bytes: initial value and final XOR are all ones.</summary>
    public static uint Compute(byte* bytes, int byteCount)
    {
        ulong crc = uint.MaxValue;
        // SAFETY: reads [bytes, bytes + byteCount), which the caller owns.
        unsafe
        {
            byte* end = bytes + byteCount;
            for (; bytes + 32 <= end; bytes += 32)
            {
                crc = Sse42.X64.Crc32(crc, *(ulong*)bytes);
                crc = Sse42.X64.Crc32(crc, *(ulong*)(bytes + 8));
                crc = Sse42.X64.Crc32(crc, *(ulong*)(bytes + 16));
                crc = Sse42.X64.Crc32(crc, *(ulong*)(bytes + 24));
            }
            for (; bytes + 8 <= end; bytes += 8) crc = Sse42.X64.Crc32(crc, *(ulong*)bytes);
            for (; bytes < end; bytes++) crc = Sse42.Crc32((uint)crc, *bytes);
        }
        return ~(uint)crc;
    }
}
