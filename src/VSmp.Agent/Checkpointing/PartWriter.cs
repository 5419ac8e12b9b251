// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent.Fabric;
using VSmp.Coherence;

namespace VSmp.Agent.Checkpointing;

/// <summary>
/// Writes a node's part of a checkpoint: the pages one after the other (<c>NODE.pages</c>), and what they are (<c>NODE.index</c>, <see cref="IndexRecord"/>). Neither is as
/// much as looked at before a manifest names both.
/// </summary>
internal sealed class PartWriter : IDisposable
{
    private const int BatchPages = 64;

    private readonly IStorageFile _pages, _index;
    private readonly string _node;
    private readonly byte[] _batch = new byte[BatchPages * PageNumber.Bytes], _records = new byte[BatchPages * IndexRecord.Bytes];
    private int _batched, _recorded;
    private ulong _pageCount, _storedCount;
    private uint _indexCrc;

    /// <summary>Begins a part.</summary>
    /// <param name="storage">Where.</param>
    /// <param name="folder">In which folder.</param>
    /// <param name="node">Whose part.</param>
    /// <param name="mostPages">How many pages it will have at most; the room for them is taken at once.</param>
    /// <exception cref="IOException">There is no room, or another reason; what was made is to be deleted with the folder.</exception>
    public PartWriter(IStorage storage, string folder, string node, ulong mostPages)
    {
        _node = node;
        _pages = storage.Create(folder, PagesName(node), checked((long)mostPages * PageNumber.Bytes));
        try { _index = storage.Create(folder, IndexName(node), checked((long)mostPages * IndexRecord.Bytes)); }
        catch
        {
            _pages.Dispose();
            throw;
        }
    }

    /// <summary>CRC-32C of a zero page.</summary>
    public static uint ZeroCrc { get; } = Crc32C.Compute(new byte[PageNumber.Bytes]);

    /// <summary>The file with a node's pages.</summary>
    public static string PagesName(string node) => $"{node}.pages";

    /// <summary>The file that says what they are.</summary>
    public static string IndexName(string node) => $"{node}.index";

    /// <summary>Adds a page.</summary>
    /// <param name="region">Of which region: its place in the manifest's list.</param>
    /// <param name="page">Which.</param>
    /// <param name="generation">The generation that it was captured for.</param>
    /// <param name="bytes">What is in it; empty: zeros.</param>
    /// <exception cref="IOException">It could not be written. The part is of no use.</exception>
    public void Add(ushort region, PageNumber page, uint generation, ReadOnlySpan<byte> bytes)
    {
        bool isZero = bytes.IsEmpty || !bytes.ContainsAnyExcept((byte)0);
        IndexRecord record = new(region, page, isZero ? ZeroCrc : Crc32C.Compute(bytes), generation, isZero);
        record.Write(_records.AsSpan(_recorded * IndexRecord.Bytes));
        _recorded++;
        _pageCount++;
        if (!isZero)
        {
            bytes.CopyTo(_batch.AsSpan(_batched * PageNumber.Bytes));
            _batched++;
            _storedCount++;
        }
        if (_recorded == BatchPages) Flush();
    }

    /// <summary>All pages were added: they outlive a crash from now on, but for the names of the files.</summary>
    /// <exception cref="IOException">They could not be written. The part is of no use.</exception>
    public PartSummary Finish()
    {
        Flush();
        _pages.Sync();
        _index.Sync();
        return new PartSummary(_node, _pageCount, _storedCount, _indexCrc);
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        _pages.Dispose();
        _index.Dispose();
    }

    private void Flush()
    {
        if (_batched > 0) _pages.Write(_batch.AsSpan(0, _batched * PageNumber.Bytes));
        if (_recorded > 0)
        {
            ReadOnlySpan<byte> records = _records.AsSpan(0, _recorded * IndexRecord.Bytes);
            _index.Write(records);
            _indexCrc = Crc32C.Compute(records, _indexCrc);
        }
        (_batched, _recorded) = (0, 0);
    }
}

/// <summary>A part that was written.</summary>
/// <param name="Node">Whose.</param>
/// <param name="Pages">How many pages it has.</param>
/// <param name="StoredPages">How many of these are not zero.</param>
/// <param name="IndexCrc">CRC-32C of its index.</param>
internal sealed record PartSummary(string Node, ulong Pages, ulong StoredPages, uint IndexCrc);
