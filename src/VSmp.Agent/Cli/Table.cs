// SPDX-License-Identifier: Apache-2.0
using Spectre.Console;

namespace VSmp.Agent.Cli;

/// <summary>A table: framed where a person looks at a terminal, aligned columns where a program reads.</summary>
internal sealed class Table(params Table.Column[] columns)
{
    private readonly List<(string Text, string? Style)[]> _rows = [];

    /// <summary>A column, by its heading.</summary>
    /// <param name="Heading">In the first line.</param>
    /// <param name="IsNumber">Numbers stand at the right.</param>
    internal sealed record Column(string Heading, bool IsNumber = false);

    /// <summary>Adds a row of plain texts.</summary>
    public void Add(params string[] cells) => _rows.Add([.. cells.Select(cell => (cell, (string?)null))]);

    /// <summary>Adds a row whose cells have a style on a terminal.</summary>
    public void AddStyled(params (string Text, string? Style)[] cells) => _rows.Add(cells);

    /// <summary>Writes it to standard output.</summary>
    public void Write()
    {
        if (Output.IsTerminal) Output.NewConsole().Write(ForTerminal());
        else WritePlain(Output.Writer);
    }

    /// <summary>As aligned text: headings in capitals, two spaces between columns.</summary>
    public void WritePlain(TextWriter output)
    {
        IEnumerable<string[]> lines =
            [[.. columns.Select(column => column.Heading.ToUpperInvariant())],
                .. _rows.Select(row => row.Select(cell => cell.Text).ToArray())];
        int[] widths = [.. columns.Select((_, i) => lines.Max(line => line[i].Length))];
        foreach (string[] line in lines)
        {
            IEnumerable<string> cells =
                line.Select((cell, i) => columns[i].IsNumber ? cell.PadLeft(widths[i]) : cell.PadRight(widths[i]));
            output.WriteLine(string.Join("  ", cells).TrimEnd());
        }
    }

    /// <summary>For a terminal.</summary>
    public Spectre.Console.Table ForTerminal()
    {
        Spectre.Console.Table table = new() { Border = TableBorder.Rounded };
        foreach (Column column in columns)
        {
            TableColumn shown = new(new Text(column.Heading)) { NoWrap = column.IsNumber };
            table.AddColumn(column.IsNumber ? shown.RightAligned() : shown);
        }
        foreach (var row in _rows)
        {
            table.AddRow(row.Select(cell => new Text(cell.Text, cell.Style is null ? null : Style.Parse(cell.Style))));
        }
        return table;
    }
}
