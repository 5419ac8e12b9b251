// SPDX-License-Identifier: Apache-2.0
using System.Buffers.Binary;
using VSmp.Coherence;
using VSmp.Coherence.Messages;
using VSmp.Coherence.Placement;

namespace VSmp.Agent.Recovery;

/// <summary>Neighbouring extents that have one home.</summary>
/// <param name="First">The first.</param>
/// <param name="Count">How many.</param>
/// <param name="Home">Where it is.</param>
internal readonly record struct HomeRun(ExtentNumber First, uint Count, NodeId Home);

/// <summary>
/// Where homes of a region are that have moved since it was made, as bytes, the payload of a RegionRebuild:
/// <code>first extent 32 │ count 16 │ home 16, for each run</code>
/// </summary>
internal static class HomeRuns
{
    /// <summary>Bytes of a run.</summary>
    public const int Bytes = 8;

    private const int MaxPerPiece = FrameHeader.MaxPayloadBytes / Bytes;

    /// <summary>All that have moved, in pieces that fit into a frame each; one piece at least.</summary>
    public static List<byte[]> Write(HomeMap homes)
    {
        var runs = new List<HomeRun>();
        for (uint e = 0; e < homes.ExtentCount; e++)
        {
            ExtentNumber extent = new(e);
            NodeId home = homes.ExceptionOf(extent);
            if (home.IsNone) continue;
            if (runs.Count > 0 && runs[^1] is var last && last.Home == home && last.First.Value + last.Count == e && last.Count < ushort.MaxValue)
            {
                runs[^1] = last with { Count = last.Count + 1 };
            }
            else runs.Add(new HomeRun(extent, 1, home));
        }
        var pieces = new List<byte[]>();
        for (int at = 0; at < runs.Count || pieces.Count == 0; at += MaxPerPiece)
        {
            byte[] piece = new byte[Math.Min(runs.Count - at, MaxPerPiece) * Bytes];
            for (int i = 0; i < piece.Length / Bytes; i++)
            {
                Span<byte> to = piece.AsSpan(i * Bytes);
                BinaryPrimitives.WriteUInt32LittleEndian(to, runs[at + i].First.Value);
                BinaryPrimitives.WriteUInt16LittleEndian(to[4..], (ushort)runs[at + i].Count);
                BinaryPrimitives.WriteUInt16LittleEndian(to[6..], runs[at + i].Home.Value);
            }
            pieces.Add(piece);
        }
        return pieces;
    }

    /// <summary>Reads a piece.</summary>
    /// <param name="bytes">The bytes.</param>
    /// <param name="extentCount">Extents of the region.</param>
    /// <param name="runs">Gets the runs.</param>
    /// <returns>False if the bytes are none.</returns>
    public static bool TryRead(ReadOnlySpan<byte> bytes, int extentCount, List<HomeRun> runs)
    {
        runs.Clear();
        if (bytes.Length % Bytes != 0) return false;
        for (; !bytes.IsEmpty; bytes = bytes[Bytes..])
        {
            var run = new HomeRun(new ExtentNumber(BinaryPrimitives.ReadUInt32LittleEndian(bytes)), BinaryPrimitives.ReadUInt16LittleEndian(bytes[4..]),
                new NodeId(BinaryPrimitives.ReadUInt16LittleEndian(bytes[6..])));
            if (run.Count == 0 || run.Home.IsNone || (ulong)run.First.Value + run.Count > (ulong)extentCount) return false;
            runs.Add(run);
        }
        return true;
    }
}
