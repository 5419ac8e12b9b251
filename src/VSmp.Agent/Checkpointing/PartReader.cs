// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent.Fabric;
using VSmp.Coherence;

namespace VSmp.Agent.Checkpointing;

/// <summary>Reads a node's part of a generation, and trusts nothing in it: lengths, checksums and ranges are those that the manifest says, or it is damaged.</summary>
/// <param name="storage">Where it is.</param>
/// <param name="manifest">Names it.</param>
/// <param name="part">Which.</param>
internal sealed class PartReader(IStorage storage, Manifest manifest, SavedPart part)
{
    private const int BatchRecords = 4096, BatchPages = 64;

    private string Folder => CheckpointStore.FolderOf(part.Generation);

    /// <summary>Passes its pages on, without reading them: what the index says.</summary>
    /// <param name="take">Gets each record, and where the page is in the other file (−1: it is zero).</param>
    /// <exception cref="CheckpointException">It is damaged.</exception>
    public void ReadIndex(Action<IndexRecord, long> take)
    {
        string name = PartWriter.IndexName(part.Node);
        using IStorageReader index = Open(name, checked((long)part.Pages * IndexRecord.Bytes));
        // All of it before any of it is used.
        uint crc = 0;
        byte[] buffer = new byte[BatchRecords * IndexRecord.Bytes];
        ForEachBatch(index, buffer, batch => crc = Crc32C.Compute(batch, crc));
        if (crc != part.IndexCrc) throw Damaged(name, $"its checksum is {crc:x8}, and should be {part.IndexCrc:x8}");
        ulong stored = 0;
        ForEachBatch(index, buffer, batch =>
        {
            for (; !batch.IsEmpty; batch = batch[IndexRecord.Bytes..])
            {
                IndexRecord record;
                try { record = IndexRecord.Read(batch); }
                catch (InvalidDataException e) { throw Damaged(name, e.Message); }
                if (record.Region >= manifest.Regions.Count || record.Page.Value >= manifest.Regions[record.Region].PageCount) throw Damaged(name, "it has a page that no region has");
                take(record, record.IsZero ? -1 : checked((long)stored * PageNumber.Bytes));
                if (!record.IsZero) stored++;
            }
        });
        if (stored != part.StoredPages) throw Damaged(name, $"it has {stored} pages that are not zero, and should have {part.StoredPages}");
    }

    /// <summary>Passes its pages on.</summary>
    /// <param name="isWanted">Asked of each; of those that are not, nothing is read.</param>
    /// <param name="take">Gets each, and what is in it; empty: zeros.</param>
    /// <exception cref="CheckpointException">It is damaged. Pages that were passed on before are sound.</exception>
    public void ReadPages(Func<IndexRecord, bool> isWanted, PageTaker take)
    {
        string name = PartWriter.PagesName(part.Node);
        using IStorageReader pages = Open(name, checked((long)part.StoredPages * PageNumber.Bytes));
        byte[] buffer = new byte[BatchPages * PageNumber.Bytes];
        var batch = new List<IndexRecord>(BatchPages); // of pages that lie one behind the other
        long first = 0;
        ReadIndex((record, at) =>
        {
            if (!isWanted(record)) return;
            if (at < 0)
            {
                take(record, []);
                return;
            }
            if (batch.Count == BatchPages || at != first + ((long)batch.Count * PageNumber.Bytes)) Flush();
            if (batch.Count == 0) first = at;
            batch.Add(record);
        });
        Flush();

        void Flush()
        {
            Span<byte> bytes = buffer.AsSpan(0, batch.Count * PageNumber.Bytes);
            pages.Read(first, bytes);
            for (int i = 0; i < batch.Count; i++)
            {
                ReadOnlySpan<byte> page = bytes.Slice(i * PageNumber.Bytes, PageNumber.Bytes);
                IndexRecord record = batch[i];
                if (Crc32C.Compute(page) != record.Crc)
                {
                    throw Damaged(name,
                        $"the page at byte {first + (i * PageNumber.Bytes)} (region {manifest.Regions[record.Region].Name}, page {record.Page.Value}) has another checksum than when it was written");
                }
                take(record, page);
            }
            batch.Clear();
        }
    }

    private static void ForEachBatch(IStorageReader index, byte[] buffer, BatchTaker take)
    {
        for (long at = 0; at < index.Length; at += buffer.Length)
        {
            Span<byte> batch = buffer.AsSpan(0, (int)Math.Min(buffer.Length, index.Length - at));
            index.Read(at, batch);
            take(batch);
        }
    }

    private IStorageReader Open(string name, long length)
    {
        IStorageReader file;
        try { file = storage.Open(Folder, name); }
        catch (IOException e) { throw new CheckpointException($"{Folder}/{name} cannot be read: {e.Message}", e); }
        if (file.Length == length) return file;
        using (file) throw Damaged(name, $"it is {file.Length} bytes long, and should be {length}");
    }

    private CheckpointException Damaged(string name, string how) => new($"{Folder}/{name} is damaged: {how}");

    private delegate void BatchTaker(ReadOnlySpan<byte> batch);
}

/// <summary>Takes a page of a checkpoint.</summary>
/// <param name="record">Which.</param>
/// <param name="bytes">What is in it; empty: zeros.</param>
internal delegate void PageTaker(IndexRecord record, ReadOnlySpan<byte> bytes);
