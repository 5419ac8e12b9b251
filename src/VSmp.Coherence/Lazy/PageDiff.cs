// SPDX-License-Identifier: Apache-2.0
using System.Buffers.Binary;
using System.Numerics;
using System.Runtime.InteropServices;

namespace VSmp.Coherence.Lazy;

/// <summary>
/// What a node changed in a page: runs of changed bytes, in ascending order, each as <code>offset 16 │ length 16 │ bytes</code>
/// little-endian. Unchanged bytes are never part of a run, however short a gap they leave: somebody else may have changed them.
/// </summary>
public static class PageDiff
{
    /// <summary>Bytes before a run's contents.</summary>
    public const int RunHeaderBytes = 4;

    /// <summary>Longest diff: every other byte of the page changed.</summary>
    public const int MaxBytes = PageNumber.Bytes / 2 * (RunHeaderBytes + 1);

    /// <summary>Writes what differs between a page and its twin.</summary>
    /// <param name="twin">The page as it was.</param>
    /// <param name="page">The page as it is.</param>
    /// <param name="diff">Room for <see cref="MaxBytes"/>.</param>
    /// <returns>Bytes written; 0 if nothing differs.</returns>
    public static int Write(ReadOnlySpan<byte> twin, ReadOnlySpan<byte> page, Span<byte> diff)
    {
        if (twin.Length != PageNumber.Bytes || page.Length != PageNumber.Bytes) throw new ArgumentException("a page and its twin are whole pages");
        ReadOnlySpan<ulong> twinWords = MemoryMarshal.Cast<byte, ulong>(twin), pageWords = MemoryMarshal.Cast<byte, ulong>(page);
        int written = 0;
        for (int at = 0; at < PageNumber.Bytes;)
        {
            ulong changed = twinWords[at >> 3] ^ pageWords[at >> 3];
            changed &= ulong.MaxValue << ((at & 7) * 8); // what is behind us in this word
            if (changed == 0)
            {
                at = (at | 7) + 1;
                continue;
            }
            int start = (at & ~7) + (BitOperations.TrailingZeroCount(changed) >> 3);
            int end = start + 1;
            while (end < PageNumber.Bytes && twin[end] != page[end]) end++;
            BinaryPrimitives.WriteUInt16LittleEndian(diff[written..], (ushort)start);
            BinaryPrimitives.WriteUInt16LittleEndian(diff[(written + 2)..], (ushort)(end - start));
            page[start..end].CopyTo(diff[(written + RunHeaderBytes)..]);
            written += RunHeaderBytes + end - start;
            at = end;
        }
        return written;
    }

    /// <summary>What is wrong with a diff that came from elsewhere, or null. Look before anything of it is applied.</summary>
    public static string? Violation(ReadOnlySpan<byte> diff)
    {
        if (diff.Length > MaxBytes) return "a diff that is longer than any can be";
        int least = 0;
        while (diff.Length > 0)
        {
            if (diff.Length < RunHeaderBytes) return "a diff that ends within a run";
            int start = BinaryPrimitives.ReadUInt16LittleEndian(diff), length = BinaryPrimitives.ReadUInt16LittleEndian(diff[2..]);
            if (length == 0 || start + length > PageNumber.Bytes) return "a run beyond its page";
            if (start < least) return "runs out of order";
            if (diff.Length < RunHeaderBytes + length) return "a diff that ends within a run";
            least = start + length + 1; // or the two were one run
            diff = diff[(RunHeaderBytes + length)..];
        }
        return null;
    }

    /// <summary>Takes the first run off a diff that <see cref="Violation"/> found nothing wrong with.</summary>
    /// <param name="diff">The diff; what is left of it.</param>
    /// <param name="offsetBytes">Where in the page the run goes.</param>
    /// <param name="bytes">Its contents.</param>
    /// <returns>False if there is none left.</returns>
    public static bool TryTakeRun(ref ReadOnlySpan<byte> diff, out int offsetBytes, out ReadOnlySpan<byte> bytes)
    {
        if (diff.IsEmpty)
        {
            offsetBytes = 0;
            bytes = default;
            return false;
        }
        offsetBytes = BinaryPrimitives.ReadUInt16LittleEndian(diff);
        bytes = diff.Slice(RunHeaderBytes, BinaryPrimitives.ReadUInt16LittleEndian(diff[2..]));
        diff = diff[(RunHeaderBytes + bytes.Length)..];
        return true;
    }

    /// <summary>Merges a diff that <see cref="Violation"/> found nothing wrong with into a page.</summary>
    public static void Apply(ReadOnlySpan<byte> diff, Span<byte> page)
    {
        while (TryTakeRun(ref diff, out int offset, out ReadOnlySpan<byte> bytes)) bytes.CopyTo(page[offset..]);
    }
}
