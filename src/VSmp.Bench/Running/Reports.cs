// SPDX-License-Identifier: Apache-2.0
using System.CommandLine;

namespace VSmp.Bench.Running;

/// <summary>What a command has measured, for people and for programs.</summary>
public interface IReport
{
    /// <summary>Writes it as Markdown: what it was measured on, and a table.</summary>
    void WriteMarkdown(TextWriter output);

    /// <summary>As JSON, with the figures of each round.</summary>
    string ToJson();
}

/// <summary>A report that has a picture.</summary>
public interface IDrawnReport : IReport
{
    /// <summary>As a picture: SVG.</summary>
    string ToSvg();
}

/// <summary>The options that say where a report goes, beside standard output.</summary>
public sealed class ReportOptions
{
    private readonly Option<FileInfo?> _json = new("--json") { Description = "Write the figures there", HelpName = "FILE" };
    private readonly Option<FileInfo?> _markdown = new("--markdown") { Description = "Write the table there, too", HelpName = "FILE" };
    private readonly Option<FileInfo?>? _svg;

    /// <summary>Gives a command these options.</summary>
    /// <param name="command">The command.</param>
    /// <param name="isDrawn">Whether its report is an <see cref="IDrawnReport"/>.</param>
    public ReportOptions(Command command, bool isDrawn)
    {
        ArgumentNullException.ThrowIfNull(command);
        command.Options.Add(_json);
        command.Options.Add(_markdown);
        if (!isDrawn) return;
        _svg = new("--svg") { Description = "Draw the figures there", HelpName = "FILE" };
        command.Options.Add(_svg);
    }

    /// <summary>Writes a report to standard output, and to where the options say.</summary>
    /// <exception cref="BenchException">A file cannot be written.</exception>
    public void Write(ParseResult parsed, IReport report)
    {
        ArgumentNullException.ThrowIfNull(parsed);
        ArgumentNullException.ThrowIfNull(report);
        report.WriteMarkdown(Console.Out);
        try
        {
            if (parsed.GetValue(_json) is { } json) File.WriteAllText(json.FullName, report.ToJson());
            if (_svg is not null && parsed.GetValue(_svg) is { } svg) File.WriteAllText(svg.FullName, ((IDrawnReport)report).ToSvg());
            if (parsed.GetValue(_markdown) is not { } markdown) return;
            using StreamWriter file = markdown.CreateText();
            report.WriteMarkdown(file);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new BenchException($"the report cannot be written: {e.Message}");
        }
    }
}
