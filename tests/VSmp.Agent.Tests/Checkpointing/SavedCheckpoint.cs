// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent.Checkpointing;
using VSmp.Coherence;

namespace VSmp.Agent.Tests.Checkpointing;

/// <summary>A small checkpoint on disk: of two regions, by two nodes; with each generation after the first the next four pages of the grid change, of which the last becomes zero.</summary>
/// <param name="folder">Its folder; it is made.</param>
internal sealed class SavedCheckpoint(string folder)
{
    public const int GridPages = 128, HeapPages = 3, ChangedPages = 4;

    public static readonly SavedRegion Grid = new("grid", GridPages * PageNumber.Bytes, 0x2000_0000_0000), Heap = new("heap", (HeapPages * PageNumber.Bytes) - 7, 0x2000_0040_0000);

    public CheckpointStore Store { get; } = new(new DiskStorage(Directory.CreateDirectory(folder).FullName));

    public SavedRegion[] Regions { get; init; } = [Grid, Heap];

    public string Program { get; init; } = "heat";

    /// <summary>Writes generations 1, 2, ….</summary>
    public static SavedCheckpoint Write(string folder, uint generations)
    {
        SavedCheckpoint made = new(folder);
        for (uint generation = 1; generation <= generations; generation++) made.Write(generation);
        return made;
    }

    /// <summary>Writes the next generation.</summary>
    public void Write(uint generation)
    {
        string where = Store.Begin(generation);
        List<SavedPart> parts = generation == 1
            ? [WritePart(where, "n0", 1, Enumerable.Range(0, GridPages).Select(page => ((ushort)0, page, page % 8 == 7)), true),
                WritePart(where, "n1", 1, Enumerable.Range(0, HeapPages).Select(page => ((ushort)1, page, false)), Regions.Length > 1)]
            : [WritePart(where, "n0", generation, Changed(generation), true), .. Store.Load(generation - 1).Parts];
        Store.Commit(New(generation, parts));
    }

    /// <summary>The first page of the grid that changes with a generation.</summary>
    public static int FirstChanged(uint generation) => (int)(generation - 1) * ChangedPages;

    /// <summary>A manifest.</summary>
    public Manifest New(uint generation, IReadOnlyList<SavedPart> parts) =>
        new(Manifest.CurrentFormat, "heat", generation, new DateTimeOffset(2026, 3, 1, 12, 0, (int)generation, TimeSpan.Zero), Program, 2, 1000, Regions, parts, [1, 2, 3]);

    /// <summary>The path of a file.</summary>
    public string PathOf(uint generation, string file) => Path.Combine(folder, CheckpointStore.FolderOf(generation), file);

    /// <summary>Flips a bit of a file.</summary>
    public void Damage(uint generation, string file, int at)
    {
        byte[] bytes = File.ReadAllBytes(PathOf(generation, file));
        bytes[at] ^= 1;
        File.WriteAllBytes(PathOf(generation, file), bytes);
    }

    /// <summary>Puts another manifest, sealed, in place of a generation's.</summary>
    public void Replace(uint generation, Manifest manifest) => File.WriteAllBytes(PathOf(generation, Manifest.FileName), manifest.Write());

    private static IEnumerable<(ushort Region, int Page, bool IsZero)> Changed(uint generation) =>
        Enumerable.Range(FirstChanged(generation), ChangedPages).Select(page => ((ushort)0, page, page == FirstChanged(generation) + ChangedPages - 1));

    private SavedPart WritePart(string where, string node, uint generation, IEnumerable<(ushort Region, int Page, bool IsZero)> pages, bool isWritten)
    {
        using PartWriter part = new(Store.Storage, where, node, GridPages);
        byte[] bytes = new byte[PageNumber.Bytes];
        foreach ((ushort region, int page, bool isZero) in isWritten ? pages : [])
        {
            new Random((int)(generation * 1000) + page).NextBytes(bytes);
            part.Add(region, new PageNumber((ulong)page), generation, isZero ? [] : bytes);
        }
        PartSummary summary = part.Finish();
        return new SavedPart(generation, summary.Node, summary.Pages, summary.StoredPages, summary.IndexCrc);
    }
}
