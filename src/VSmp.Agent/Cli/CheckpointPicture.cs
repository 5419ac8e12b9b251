// SPDX-License-Identifier: Apache-2.0
using System.Globalization;
using VSmp.Agent.Checkpointing;
using VSmp.Coherence;

namespace VSmp.Agent.Cli;

/// <summary>What a generation has, and how two differ, in figures and as pictures: a line of cells for each region, the darker the more of it.</summary>
internal static class CheckpointPicture
{
    private const int Cells = 64;
    private const string Shades = " ░▒▓█";

    /// <summary>Shows a generation.</summary>
    public static void Show(CheckpointFolder folder, Manifest manifest)
    {
        Output.Line($"{folder.Name}, generation {manifest.Generation}, taken {CheckpointCommand.When(manifest)} of {CheckpointCommand.Printable(manifest.Program)}, {manifest.Ranks} ranks");
        var counts = new SortedDictionary<uint, ulong>();
        int[][] changed = [.. manifest.Regions.Select(_ => new int[Cells])];
        ulong[] zeros = new ulong[manifest.Regions.Count], pages = new ulong[manifest.Regions.Count], news = new ulong[manifest.Regions.Count];
        folder.Store.ReadIndex(manifest, record =>
        {
            counts[record.Generation] = counts.GetValueOrDefault(record.Generation) + 1;
            pages[record.Region]++;
            if (record.IsZero) zeros[record.Region]++;
            if (record.Generation != manifest.Generation) return;
            news[record.Region]++;
            changed[record.Region][CellOf(manifest.Regions[record.Region], record.Page)]++;
        });
        Table regions = new(new("region"), new("size", true), new("address", true), new("pages", true), new("of them zero", true), new("new in this", true));
        for (int i = 0; i < manifest.Regions.Count; i++)
        {
            SavedRegion region = manifest.Regions[i];
            regions.Add(CheckpointCommand.Printable(region.Name), Sizes.Format(region.Bytes), $"0x{region.Address:x}", Number(pages[i]), Number(zeros[i]), Number(news[i]));
        }
        regions.Write();
        Table parts = new(new("generation", true), new("node"), new("pages", true), new("bytes", true));
        foreach (SavedPart part in manifest.Parts) parts.Add(Number(part.Generation), part.Node, Number(part.Pages), Sizes.Format(part.StoredPages * PageNumber.Bytes));
        parts.Write();
        Output.Line("pages that are as a generation has stored them: " + string.Join(", ", counts.Select(c => $"{c.Value} of generation {c.Key}")));
        for (int i = 0; i < manifest.Regions.Count; i++) Draw(manifest.Regions[i], changed[i], $"changed with generation {manifest.Generation}");
    }

    /// <summary>Compares two generations.</summary>
    /// <returns>Whether they are the same.</returns>
    public static bool Compare(CheckpointFolder folder, Manifest manifest, CheckpointFolder otherFolder, Manifest other, bool listPages)
    {
        Dictionary<string, Dictionary<ulong, uint>> before = Contents(folder, manifest), after = Contents(otherFolder, other);
        Table table = new(new("region"), new("pages that differ", true), new("same", true), new("what"));
        var pictures = new List<(SavedRegion Region, int[] Cells)>();
        var ranges = new List<string>();
        bool isSame = true;
        foreach (string name in manifest.Regions.Concat(other.Regions).Select(r => r.Name).Distinct())
        {
            SavedRegion? a = manifest.Regions.FirstOrDefault(r => r.Name == name), b = other.Regions.FirstOrDefault(r => r.Name == name);
            if (a is null || b is null || a.Bytes != b.Bytes)
            {
                isSame = false;
                table.Add(CheckpointCommand.Printable(name), "-", "-", a is null ? "only in the second" : b is null ? "only in the first" : $"{Sizes.Format(a.Bytes)} in the first, {Sizes.Format(b.Bytes)} in the second");
                continue;
            }
            ulong[] differ = [.. before[name].Keys.Union(after[name].Keys).Where(page => before[name].GetValueOrDefault(page) != after[name].GetValueOrDefault(page)).Order()];
            table.Add(CheckpointCommand.Printable(name), Number((ulong)differ.Length), Number(a.PageCount - (ulong)differ.Length), "");
            if (differ.Length == 0) continue;
            isSame = false;
            int[] cells = new int[Cells];
            foreach (ulong page in differ) cells[CellOf(a, new PageNumber(page))]++;
            pictures.Add((a, cells));
            for (int i = 0; listPages && i < differ.Length; i++)
            {
                ulong first = differ[i];
                while (i + 1 < differ.Length && differ[i + 1] == differ[i] + 1) i++;
                ranges.Add($"{CheckpointCommand.Printable(name)} 0x{a.Address + (first << PageNumber.Shift):x}-0x{a.Address + ((differ[i] + 1) << PageNumber.Shift):x} ({differ[i] - first + 1} pages)");
            }
        }
        table.Write();
        foreach ((SavedRegion region, int[] cells) in pictures) Draw(region, cells, "differs");
        foreach (string range in ranges) Output.Line(range);
        return isSame;
    }

    private static int CellOf(SavedRegion region, PageNumber page) => (int)(page.Value * Cells / region.PageCount);

    private static string Number(ulong value) => value.ToString(CultureInfo.InvariantCulture);

    /// <summary>Checksums of the pages of each region that are not zero.</summary>
    private static Dictionary<string, Dictionary<ulong, uint>> Contents(CheckpointFolder folder, Manifest manifest)
    {
        Dictionary<string, Dictionary<ulong, uint>> contents = manifest.Regions.ToDictionary(r => r.Name, _ => new Dictionary<ulong, uint>());
        folder.Store.ReadIndex(manifest, record =>
        {
            if (!record.IsZero) contents[manifest.Regions[record.Region].Name][record.Page.Value] = record.Crc;
        });
        return contents;
    }

    private static void Draw(SavedRegion region, int[] cells, string what)
    {
        double perCell = Math.Max(1, (double)region.PageCount / Cells);
        string line = string.Concat(cells.Select(count => Shades[count == 0 ? 0 : Math.Clamp((int)Math.Ceiling(count / perCell * (Shades.Length - 1)), 1, Shades.Length - 1)]));
        Output.Line($"{CheckpointCommand.Printable(region.Name)} │{line}│ {what} (each cell: {Sizes.Format((ulong)Math.Ceiling(perCell) * PageNumber.Bytes)})");
    }
}
