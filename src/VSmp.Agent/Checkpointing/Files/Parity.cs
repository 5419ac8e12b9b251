// SPDX-License-Identifier: Apache-2.0
using System.Numerics;
using System.Runtime.InteropServices;
using System.Text;
using System.Text.Json;
using System.Text.Json.Serialization;
using VSmp.Agent.Fabric;

namespace VSmp.Agent.Checkpointing.Files;

/// <summary>
/// What the nodes of a ring have beside their parts of a generation, so that what any one of them has can be computed from what the others have: with N nodes 1/(N−1) as much as the longest part,
/// at each. As in RAID-5, and in SCR's XOR scheme: a node's part is cut into N−1 pieces, one for each of the others, and each node keeps the sum (XOR) of the pieces that are for it.
/// </summary>
/// <remarks>
/// A part is its pages followed by its index, filled up with zeros. <code>
///             n0      n1      n2      n3
///   part of   a0 a1 a2  b0 b1 b2  c0 c1 c2  d0 d1 d2
///   n0.xor =            b0      + c0      + d0
///   n1.xor =  a0                + c1      + d1
///   n2.xor =     a1   +    b1             + d2
///   n3.xor =        a2 +      b2  +   c2
/// </code>
/// The file <c>NODE.xor</c> is a line of JSON (<see cref="ParityHeader"/>), a line with the checksum of that, and the sum. The sum needs no checksum: what is computed from it has one.
/// </remarks>
internal static class Parity
{
    /// <summary>What the names of its files end with.</summary>
    public const string Suffix = ".xor";

    private const string SealWord = "crc32c ";
    private const int SealBytes = 7 + 8 + 1, MaxHeaderBytes = 1 << 20, BatchBytes = 240 << 10;

    /// <summary>The file of a node.</summary>
    public static string NameOf(string node) => node + Suffix;

    /// <summary>Writes a node's file; all parts of the generation are complete.</summary>
    /// <param name="from">Where the parts of all nodes are.</param>
    /// <param name="to">Where the node's files are.</param>
    /// <param name="folder">Of the generation.</param>
    /// <param name="ring">Names of the nodes, in order; two at least.</param>
    /// <param name="self">Which of them the node is.</param>
    /// <exception cref="IOException">It cannot be.</exception>
    public static void Write(IStorage from, IStorage to, string folder, IReadOnlyList<string> ring, int self)
    {
        var parts = new PartBytes?[ring.Count];
        try
        {
            for (int i = 0; i < ring.Count; i++) parts[i] = new PartBytes(from, folder, ring[i]);
            ParityHeader header = new(ParityHeader.CurrentFormat, ring, [.. parts.Select(part => part!.PagesLength)], [.. parts.Select(part => part!.IndexLength)]);
            byte[] lines = header.Write();
            long piece = header.PieceBytes;
            using IStorageFile file = to.Create(folder, NameOf(ring[self]), lines.Length + piece);
            file.Write(lines);
            byte[] sum = new byte[(int)Math.Min(BatchBytes, Math.Max(piece, 1))], other = new byte[sum.Length];
            for (long at = 0; at < piece; at += sum.Length)
            {
                Span<byte> batch = sum.AsSpan(0, (int)Math.Min(sum.Length, piece - at));
                batch.Clear();
                for (int i = 0; i < ring.Count; i++)
                {
                    if (i != self) Add(parts[i]!, (PieceOf(i, self) * piece) + at, other.AsSpan(0, batch.Length), batch);
                }
                file.Write(batch);
            }
            file.Sync();
        }
        finally
        {
            foreach (PartBytes? part in parts) part?.Dispose();
        }
    }

    /// <summary>Opens a file of a part that is nowhere, by computing it from what the other nodes of its ring have.</summary>
    /// <param name="storage">Where that is.</param>
    /// <param name="folder">Of the generation.</param>
    /// <param name="name">The file.</param>
    /// <returns>Null: there is nothing to compute it from.</returns>
    /// <exception cref="IOException">More than it is missing.</exception>
    public static IStorageReader? TryOpen(IStorage storage, string folder, string name)
    {
        foreach (string file in storage.Files(folder).Where(file => file.EndsWith(Suffix, StringComparison.Ordinal)))
        {
            (ParityHeader header, _) = ReadHeader(storage, folder, file);
            for (int i = 0; i < header.Ring.Count; i++)
            {
                if (name == PartWriter.PagesName(header.Ring[i])) return new Computed(storage, folder, header, i, 0, header.Pages[i]);
                if (name == PartWriter.IndexName(header.Ring[i])) return new Computed(storage, folder, header, i, header.Pages[i], header.Index[i]);
            }
        }
        return null;
    }

    // Which piece of a node's part is for another node.
    private static int PieceOf(int node, int other) => other < node ? other : other - 1;

    // Which node a piece of a node's part is for.
    private static int NodeOf(int node, long piece) => (int)(piece < node ? piece : piece + 1);

    private static void Add(PartBytes part, long offset, Span<byte> buffer, Span<byte> sum)
    {
        part.Read(offset, buffer);
        Add(buffer, sum);
    }

    private static void Add(ReadOnlySpan<byte> bytes, Span<byte> sum)
    {
        ReadOnlySpan<Vector<byte>> from = MemoryMarshal.Cast<byte, Vector<byte>>(bytes);
        Span<Vector<byte>> to = MemoryMarshal.Cast<byte, Vector<byte>>(sum);
        for (int i = 0; i < from.Length; i++) to[i] ^= from[i];
        for (int i = from.Length * Vector<byte>.Count; i < bytes.Length; i++) sum[i] ^= bytes[i];
    }

    private static (ParityHeader Header, long Bytes) ReadHeader(IStorage storage, string folder, string name)
    {
        using IStorageReader file = storage.Open(folder, name);
        byte[] start = new byte[(int)Math.Min(file.Length, MaxHeaderBytes)];
        file.Read(0, start);
        int end = start.AsSpan().IndexOf((byte)'\n') + 1;
        bool isSealed = end > 0 && start.Length >= end + SealBytes && start.AsSpan(end, SealBytes).SequenceEqual(Seal(start.AsSpan(0, end)));
        if (!isSealed) throw new IOException($"{folder}/{name} is damaged: its first lines have another checksum");
        try
        {
            ParityHeader? header = JsonSerializer.Deserialize(start.AsSpan(0, end), ParityJson.Default.ParityHeader);
            if (header is { Format: not ParityHeader.CurrentFormat }) throw new IOException($"{folder}/{name} has format {header.Format}, and this vsmp reads format {ParityHeader.CurrentFormat}");
            if (header is null || !header.MakesSense() || file.Length != end + SealBytes + header.PieceBytes) throw new IOException($"{folder}/{name} is damaged: it has no length that it can have");
            return (header, end + SealBytes);
        }
        catch (JsonException e) { throw new IOException($"{folder}/{name} makes no sense: {e.Message}", e); }
    }

    private static byte[] Seal(ReadOnlySpan<byte> line) => Encoding.ASCII.GetBytes($"{SealWord}{Crc32C.Compute(line):x8}\n");

    /// <summary>What the file begins with.</summary>
    /// <param name="Format">Of the file.</param>
    /// <param name="Ring">Names of the nodes, in order.</param>
    /// <param name="Pages">How long the pages of each are, in bytes.</param>
    /// <param name="Index">How long the index of each is.</param>
    internal sealed record ParityHeader(int Format, IReadOnlyList<string> Ring, IReadOnlyList<long> Pages, IReadOnlyList<long> Index)
    {
        /// <summary>The format that this build reads and writes.</summary>
        public const int CurrentFormat = 1;

        /// <summary>How long a piece is.</summary>
        [JsonIgnore]
        public long PieceBytes => (Enumerable.Range(0, Ring.Count).Max(i => Pages[i] + Index[i]) + Ring.Count - 2) / (Ring.Count - 1);

        /// <summary>Whether a ring can be so.</summary>
        public bool MakesSense() => Ring.Count >= 2 && Pages.Count == Ring.Count && Index.Count == Ring.Count && Ring.All(node => node is not null && Control.RunDirectory.IsValidName(node))
            && Ring.Distinct().Count() == Ring.Count && Pages.Concat(Index).All(length => length is >= 0 and <= long.MaxValue / 4);

        /// <summary>Its lines.</summary>
        public byte[] Write()
        {
            byte[] line = [.. JsonSerializer.SerializeToUtf8Bytes(this, ParityJson.Default.ParityHeader), (byte)'\n'];
            return [.. line, .. Seal(line)];
        }
    }

    /// <summary>A node's part as a row of bytes: its pages, its index, then zeros.</summary>
    private sealed class PartBytes : IDisposable
    {
        private readonly IStorageReader _pages, _index;

        public PartBytes(IStorage storage, string folder, string node)
        {
            _pages = storage.Open(folder, PartWriter.PagesName(node));
            try { _index = storage.Open(folder, PartWriter.IndexName(node)); }
            catch
            {
                _pages.Dispose();
                throw;
            }
        }

        public long PagesLength => _pages.Length;

        public long IndexLength => _index.Length;

        public void Read(long offset, Span<byte> bytes)
        {
            bytes.Clear();
            ReadOf(_pages, offset, bytes);
            if (offset + bytes.Length > _pages.Length) ReadOf(_index, Math.Max(0, offset - _pages.Length), bytes[(int)Math.Max(0, _pages.Length - offset)..]);
        }

        public void Dispose()
        {
            _pages.Dispose();
            _index.Dispose();
        }

        private static void ReadOf(IStorageReader file, long offset, Span<byte> bytes)
        {
            long there = Math.Min(bytes.Length, file.Length - offset);
            if (there > 0) file.Read(offset, bytes[..(int)there]);
        }
    }

    /// <summary>A file of a part that is computed.</summary>
    private sealed class Computed : IStorageReader
    {
        private readonly ParityHeader _header;
        private readonly int _lost;
        private readonly long _base;
        private readonly PartBytes?[] _parts;
        private readonly IStorageReader?[] _sums;
        private readonly long[] _sumsAt;
        private byte[] _buffer = [];

        public Computed(IStorage storage, string folder, ParityHeader header, int lost, long @base, long length)
        {
            (_header, _lost, _base, Length) = (header, lost, @base, length);
            (_parts, _sums, _sumsAt) = (new PartBytes?[header.Ring.Count], new IStorageReader?[header.Ring.Count], new long[header.Ring.Count]);
            try
            {
                for (int i = 0; i < header.Ring.Count; i++)
                {
                    if (i == lost) continue;
                    string name = NameOf(header.Ring[i]);
                    (ParityHeader own, _sumsAt[i]) = ReadHeader(storage, folder, name);
                    bool agrees = own.Ring.SequenceEqual(header.Ring) && own.Pages.SequenceEqual(header.Pages) && own.Index.SequenceEqual(header.Index);
                    if (!agrees) throw new IOException($"{folder}/{name} is of another ring than the others");
                    _sums[i] = storage.Open(folder, name);
                    _parts[i] = new PartBytes(storage, folder, header.Ring[i]);
                    if (_parts[i]!.PagesLength != header.Pages[i] || _parts[i]!.IndexLength != header.Index[i]) throw new IOException($"{folder}: the part of node {header.Ring[i]} has another length than when {name} was written");
                }
            }
            catch
            {
                Dispose();
                throw;
            }
        }

        public long Length { get; }

        public void Read(long offset, Span<byte> bytes)
        {
            if (offset < 0 || offset + bytes.Length > Length) throw new EndOfStreamException($"the part of node {_header.Ring[_lost]} ends before byte {offset + bytes.Length}");
            long piece = _header.PieceBytes;
            while (!bytes.IsEmpty)
            {
                (long number, long at) = Math.DivRem(_base + offset, piece);
                Span<byte> now = bytes[..(int)Math.Min(bytes.Length, piece - at)];
                int keeper = NodeOf(_lost, number);
                _sums[keeper]!.Read(_sumsAt[keeper] + at, now);
                if (_buffer.Length < now.Length) _buffer = new byte[now.Length];
                for (int i = 0; i < _parts.Length; i++)
                {
                    if (i != keeper && i != _lost) Add(_parts[i]!, (PieceOf(i, keeper) * piece) + at, _buffer.AsSpan(0, now.Length), now);
                }
                offset += now.Length;
                bytes = bytes[now.Length..];
            }
        }

        public void Dispose()
        {
            foreach (PartBytes? part in _parts) part?.Dispose();
            foreach (IStorageReader? sum in _sums) sum?.Dispose();
        }
    }
}

/// <summary>These as JSON.</summary>
[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase, RespectNullableAnnotations = true, RespectRequiredConstructorParameters = true)]
[JsonSerializable(typeof(Parity.ParityHeader))]
internal sealed partial class ParityJson : JsonSerializerContext;
