// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent.Checkpointing;
using VSmp.Agent.Control;
using VSmp.Coherence;

namespace VSmp.Agent.Cli;

/// <summary>How a page of two generations differs.</summary>
internal enum PageDifference
{
    /// <summary>Its content is another.</summary>
    Content,
    /// <summary>In the second it is zero, or is not there.</summary>
    OnlyInFirst,
    /// <summary>In the first it is zero, or is not there.</summary>
    OnlyInSecond,
}

/// <summary>A region of two generations, of which one may not have it: where they differ.</summary>
internal sealed class RegionDiff
{
    private readonly SavedRegion? _first, _second;
    private readonly List<(PageSpan Span, PageDifference Difference)> _spans = [];
    private readonly ulong[] _counts = new ulong[3];

    private RegionDiff(RegionSums? first, RegionSums? second)
    {
        (_first, _second) = (first?.Region, second?.Region);
        PageCount = Math.Max(_first?.UsedPages ?? 0, _second?.UsedPages ?? 0);
        Where = new RegionPicture(PageCount);
        foreach (ulong piece in (first?.Pieces ?? []).Union(second?.Pieces ?? []).Order()) ComparePieces(piece, first, second);
    }

    /// <summary>Its name.</summary>
    public string Name => (_first ?? _second)!.Name;

    /// <summary>Its length in pages; that of the longer one.</summary>
    public ulong PageCount { get; }

    /// <summary>Where it lies; in the first, if that has it.</summary>
    public ulong Address => (_first ?? _second)!.Address;

    /// <summary>Where its pages differ.</summary>
    public RegionPicture Where { get; }

    /// <summary>The pages that differ, in ascending order.</summary>
    public IReadOnlyList<(PageSpan Span, PageDifference Difference)> Spans => _spans;

    /// <summary>What there is to say of it beside its pages; empty if it is the same in both.</summary>
    public string Note => (_first, _second) switch
    {
        (null, _) => "this region is only in the second",
        (_, null) => "this region is only in the first",
        ({ } first, { } second) => string.Join("; ", ((string[])[
            first.Bytes == second.Bytes ? "" : $"{first.Bytes} bytes in the first, {second.Bytes} in the second",
            first.Address == second.Address ? "" : $"at 0x{first.Address:x} in the first, at 0x{second.Address:x} in the second",
        ]).Where(text => text.Length > 0)),
    };

    /// <summary>Whether it is the same in both.</summary>
    public bool IsSame => Where.Marked == 0 && Note.Length == 0;

    /// <summary>How many pages differ so.</summary>
    public ulong Count(PageDifference difference) => _counts[(int)difference];

    /// <summary>Compares the regions of two generations: those of the first, and those that only the second has.</summary>
    public static RegionDiff[] Compare(GenerationSums first, GenerationSums second) =>
    [
        .. first.Regions.Select(region => new RegionDiff(region, second.Find(region.Region.Name))),
        .. second.Regions.Where(region => first.Find(region.Region.Name) is null).Select(region => new RegionDiff(null, region)),
    ];

    private void ComparePieces(ulong piece, RegionSums? first, RegionSums? second)
    {
        uint[]? ours = first?.Find(piece), theirs = second?.Find(piece);
        for (int i = 0; i < RegionSums.PiecePages; i++)
        {
            uint sum = ours?[i] ?? 0, other = theirs?[i] ?? 0;
            if (sum != other) Add((piece * RegionSums.PiecePages) + (ulong)i, other == 0 ? PageDifference.OnlyInFirst : sum == 0 ? PageDifference.OnlyInSecond : PageDifference.Content);
        }
    }

    private void Add(ulong page, PageDifference difference)
    {
        Where.Mark(new PageNumber(page));
        _counts[(int)difference]++;
        if (_spans.Count > 0 && _spans[^1] is var (last, same) && same == difference && last.First + last.Count == page) _spans[^1] = (last with { Count = last.Count + 1 }, same);
        else _spans.Add((new PageSpan(page, 1), difference));
    }
}

/// <summary>The checksums of a generation's pages.</summary>
internal sealed class GenerationSums
{
    private readonly Dictionary<string, RegionSums> _byName;

    /// <summary>Reads them, from the indexes.</summary>
    /// <exception cref="CheckpointException">It is damaged.</exception>
    /// <exception cref="IOException">It cannot be read.</exception>
    public GenerationSums(CheckpointStore store, Manifest manifest)
    {
        Regions = [.. manifest.Regions.Select(region => new RegionSums(region))];
        _byName = Regions.ToDictionary(region => region.Region.Name);
        store.ReadIndex(manifest, record =>
        {
            // What is behind its end nobody has put there.
            if (record.Page.Value < manifest.Regions[record.Region].UsedPages) Regions[record.Region].Add(record);
        });
    }

    /// <summary>By region.</summary>
    public RegionSums[] Regions { get; }

    /// <summary>Those of a region; null: it has none of that name.</summary>
    public RegionSums? Find(string name) => _byName.GetValueOrDefault(name);
}

/// <summary>The checksums of a region's pages, in pieces of which there are any.</summary>
internal sealed class RegionSums(SavedRegion region)
{
    /// <summary>Pages of a piece.</summary>
    public const int PiecePages = 512;

    private readonly Dictionary<ulong, uint[]> _pieces = [];

    /// <summary>Which region.</summary>
    public SavedRegion Region { get; } = region;

    /// <summary>The pieces that there are.</summary>
    public IEnumerable<ulong> Pieces => _pieces.Keys;

    /// <summary>A piece, if it is there: checksums that are 0 for a zero page, whether it was saved or not.</summary>
    public uint[]? Find(ulong piece) => _pieces.GetValueOrDefault(piece);

    /// <summary>Adds a page.</summary>
    public void Add(IndexRecord record)
    {
        if (record.IsZero) return;
        if (!_pieces.TryGetValue(record.Page.Value / PiecePages, out uint[]? piece)) _pieces.Add(record.Page.Value / PiecePages, piece = new uint[PiecePages]);
        piece[record.Page.Value % PiecePages] = record.Crc ^ PartWriter.ZeroCrc;
    }
}
