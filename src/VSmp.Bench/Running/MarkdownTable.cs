// SPDX-License-Identifier: Apache-2.0
using System.Globalization;

namespace VSmp.Bench.Running;

/// <summary>A column of a <see cref="MarkdownTable"/>.</summary>
/// <param name="Head">Its heading, with the unit.</param>
/// <param name="Cell">What stands in it for a row.</param>
/// <param name="IsText">Whether it is aligned to the left.</param>
internal sealed record Column<T>(string Head, Func<T, string> Cell, bool IsText = false)
{
    /// <summary>A column of numbers; null is an empty cell.</summary>
    public static Column<T> Number(string head, Func<T, double?> number, int decimals) =>
        new(head, row => number(row)?.ToString("F" + decimals, CultureInfo.InvariantCulture) ?? "");
}

/// <summary>Tables in Markdown that read well as plain text, too.</summary>
internal static class MarkdownTable
{
    /// <summary>Writes a table.</summary>
    public static void Write<T>(TextWriter output, IReadOnlyList<Column<T>> columns, IEnumerable<T> rows)
    {
        ArgumentNullException.ThrowIfNull(output);
        List<string[]> cells = [[.. columns.Select(c => c.Head)], .. rows.Select(row => columns.Select(c => c.Cell(row)).ToArray())];
        int[] widths = [.. columns.Select((_, column) => cells.Max(row => row[column].Length))];
        WriteRow(cells[0]);
        output.WriteLine($"|{string.Join('|', columns.Select((c, i) => c.IsText ? new string('-', widths[i] + 2) : new string('-', widths[i] + 1) + ':'))}|");
        foreach (string[] row in cells.Skip(1)) WriteRow(row);

        void WriteRow(string[] row) =>
            output.WriteLine($"| {string.Join(" | ", row.Select((cell, i) => columns[i].IsText ? cell.PadRight(widths[i]) : cell.PadLeft(widths[i])))} |");
    }
}
