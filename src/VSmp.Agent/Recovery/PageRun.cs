// SPDX-License-Identifier: Apache-2.0
using System.Buffers.Binary;
using VSmp.Coherence;
using VSmp.Coherence.Messages;
using ProtocolViolationException = VSmp.Coherence.ProtocolViolationException;

namespace VSmp.Agent.Recovery;

/// <summary>Neighbouring pages. On the wire: first page (64 bits), count (32).</summary>
/// <param name="First">The first.</param>
/// <param name="Count">How many.</param>
internal readonly record struct PageRun(PageNumber First, uint Count)
{
    /// <summary>Runs in a frame at most.</summary>
    public const int PerFrame = FrameHeader.MaxPayloadBytes / Bytes;

    private const int Bytes = 12;

    /// <summary>Pages, in ascending order, as runs.</summary>
    public static List<PageRun> Of(IReadOnlyList<PageNumber> pages)
    {
        var runs = new List<PageRun>();
        foreach (PageNumber page in pages)
        {
            if (runs.Count > 0 && runs[^1] is var last && last.First.Value + last.Count == page.Value) runs[^1] = last with { Count = last.Count + 1 };
            else runs.Add(new PageRun(page, 1));
        }
        return runs;
    }

    /// <summary>As bytes.</summary>
    public static byte[] Write(ReadOnlySpan<PageRun> runs)
    {
        byte[] bytes = new byte[runs.Length * Bytes];
        for (int i = 0; i < runs.Length; i++)
        {
            BinaryPrimitives.WriteUInt64LittleEndian(bytes.AsSpan(i * Bytes), runs[i].First.Value);
            BinaryPrimitives.WriteUInt32LittleEndian(bytes.AsSpan((i * Bytes) + 8), runs[i].Count);
        }
        return bytes;
    }

    /// <summary>From bytes.</summary>
    /// <exception cref="ProtocolViolationException">They are none.</exception>
    public static List<PageRun> Read(ReadOnlySpan<byte> bytes)
    {
        if (bytes.Length % Bytes != 0) throw new ProtocolViolationException($"{bytes.Length} bytes are no runs of pages");
        var runs = new List<PageRun>(bytes.Length / Bytes);
        for (; !bytes.IsEmpty; bytes = bytes[Bytes..])
        {
            runs.Add(new PageRun(new PageNumber(BinaryPrimitives.ReadUInt64LittleEndian(bytes)), BinaryPrimitives.ReadUInt32LittleEndian(bytes[8..])));
        }
        return runs;
    }
}
