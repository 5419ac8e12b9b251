// SPDX-License-Identifier: Apache-2.0
using System.Buffers.Binary;
using VSmp.Coherence;
using VSmp.Coherence.Messages;

namespace VSmp.Agent.Paging;

/// <summary>Sets of pages as they travel in JobWrites, JobNotices and RegionRebuilt: runs, each <code>first page 40 │ length − 1, 24</code>, ascending and apart.</summary>
internal static class PageRuns
{
    /// <summary>Longest run that one entry can say; longer ones take several.</summary>
    private const ulong MaxLength = 1 << 24;

    private const int MaxRuns = FrameHeader.MaxPayloadBytes / sizeof(ulong);

    /// <summary>Writes a set of pages, in pieces that fit into a frame each.</summary>
    /// <param name="pages">The pages, in any order, some perhaps twice; sorted afterwards.</param>
    public static IEnumerable<byte[]> Write(List<PageNumber> pages)
    {
        pages.Sort((a, b) => a.Value.CompareTo(b.Value));
        var runs = new List<ulong>();
        for (int at = 0; at < pages.Count;)
        {
            ulong first = pages[at].Value, end = first + 1;
            while (++at < pages.Count && pages[at].Value <= end && end - first < MaxLength) end = Math.Max(end, pages[at].Value + 1);
            runs.Add((first << 24) | (end - first - 1));
        }
        foreach (ulong[] piece in runs.Chunk(MaxRuns))
        {
            byte[] bytes = new byte[piece.Length * sizeof(ulong)];
            for (int i = 0; i < piece.Length; i++) BinaryPrimitives.WriteUInt64LittleEndian(bytes.AsSpan(i * sizeof(ulong)), piece[i]);
            yield return bytes;
        }
    }

    /// <summary>Reads a set of pages.</summary>
    /// <param name="bytes">What came.</param>
    /// <param name="pageCount">Pages of the region.</param>
    /// <exception cref="ProtocolViolationException">It is no such set, or of a larger region.</exception>
    public static PageNumber[] Read(ReadOnlySpan<byte> bytes, ulong pageCount)
    {
        if (bytes.Length % sizeof(ulong) != 0) throw new ProtocolViolationException($"a set of pages of {bytes.Length} bytes");
        var pages = new List<PageNumber>();
        ulong least = 0;
        for (; !bytes.IsEmpty; bytes = bytes[sizeof(ulong)..])
        {
            ulong run = BinaryPrimitives.ReadUInt64LittleEndian(bytes), first = run >> 24, length = (run & (MaxLength - 1)) + 1;
            if (first < least || first + length > pageCount) throw new ProtocolViolationException($"pages {first}+{length} among {pageCount}, behind {least}");
            for (ulong i = 0; i < length; i++) pages.Add(new PageNumber(first + i));
            least = first + length;
        }
        return [.. pages];
    }
}
