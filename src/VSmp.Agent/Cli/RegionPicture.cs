// SPDX-License-Identifier: Apache-2.0
using VSmp.Coherence;

namespace VSmp.Agent.Cli;

/// <summary>Where in a region some of its pages are, as a line of cells: the more of a cell's pages, the darker it is.</summary>
/// <param name="pageCount">Pages of the region.</param>
internal sealed class RegionPicture(ulong pageCount)
{
    /// <summary>What the shades mean.</summary>
    public const string Legend = "░ ▒ ▓ █: up to a quarter, a half, three quarters, all of a cell's pages";

    private const int MostCells = 64;
    private const string Shades = " ░▒▓█";

    private readonly ulong[] _marked = new ulong[Math.Min(pageCount, MostCells)];

    /// <summary>How many pages were marked.</summary>
    public ulong Marked { get; private set; }

    private ulong Cells => (ulong)_marked.Length;

    /// <summary>Marks a page of the region, which was not marked before.</summary>
    public void Mark(PageNumber page)
    {
        _marked[page.Value * Cells / pageCount]++;
        Marked++;
    }

    /// <summary>Writes pictures of regions to standard output, each with what a cell stands for.</summary>
    public static void Write(IEnumerable<(string Name, ulong Bytes, RegionPicture Picture)> regions)
    {
        (string Name, ulong Bytes, RegionPicture Picture)[] all = [.. regions.Select(region => region with { Name = Printable.Of(region.Name) })];
        int width = all.Select(region => region.Name.Length).DefaultIfEmpty().Max();
        foreach ((string name, ulong bytes, RegionPicture picture) in all) Output.Line($"{name.PadRight(width)}  {picture}  {Sizes.Format(bytes / picture.Cells)} a cell");
    }

    /// <inheritdoc/>
    public override string ToString() => $"│{string.Concat(_marked.Select((marked, cell) => Shades[ShadeOf(marked, PagesOf((ulong)cell))]))}│";

    private static int ShadeOf(ulong marked, ulong pages) => (int)(((4 * marked) + pages - 1) / pages);

    private ulong PagesOf(ulong cell) => FirstOf(cell + 1) - FirstOf(cell);

    private ulong FirstOf(ulong cell) => ((cell * pageCount) + Cells - 1) / Cells;
}
