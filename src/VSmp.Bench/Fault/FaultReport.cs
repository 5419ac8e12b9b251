// SPDX-License-Identifier: Apache-2.0
using System.Globalization;
using System.Text.Json;
using System.Text.Json.Serialization;
using VSmp.Agent.Control;

namespace VSmp.Bench.Fault;

/// <summary>What transitions took, for people and for programs.</summary>
/// <param name="Transport">What carried the frames: <c>tcp</c> or <c>verbs</c>.</param>
/// <param name="Agents">Agents in the cluster.</param>
/// <param name="Pages">Pages that made each transition.</param>
/// <param name="Elsewhere">Nodes whose agents cannot be asked from this host; if there are any, nothing has been counted.</param>
/// <param name="Results">The transitions.</param>
internal sealed record FaultReport(string Transport, int Agents, int Pages, IReadOnlyList<string> Elsewhere, IReadOnlyList<TransitionResult> Results)
{
    /// <summary>Writes a table in Markdown: a line per transition.</summary>
    public void WriteMarkdown(TextWriter output)
    {
        bool isVerbs = Transport == "verbs";
        List<(string Head, Func<TransitionResult, string> Cell)> columns =
        [
            ("transition", r => r.Transition.Name), ("p50 µs", r => Text(r.MedianMicroseconds, 1)), ("p99 µs", r => Text(r.P99Microseconds, 1)),
            ("round trips", r => Text(r.RoundTrips, 1)),
        ];
        if (Elsewhere.Count == 0)
        {
            columns.AddRange([("frames", r => Text(r.Frames, 2)), (isVerbs ? "sends" : "send calls", r => Text(r.Messages, 2))]);
            if (isVerbs) columns.Add(("inline", r => Text(r.InlineMessages, 2)));
            columns.Add((isVerbs ? "receives" : "receive calls", r => Text(r.Receives, 2)));
            if (isVerbs) columns.Add(("completions", r => Text(r.Completions, 2)));
            columns.AddRange([("bytes", r => Text(r.Bytes, 0)), ("acks alone", r => Text(r.LoneAcknowledgements, 2)),
                ("copies out", r => Text(r.CopiesOut, 2)), ("copies in", r => Text(r.CopiesIn, 2))]);
        }
        List<string[]> rows = [[.. columns.Select(c => c.Head)], .. Results.Select(r => columns.Select(c => c.Cell(r)).ToArray())];
        int[] widths = [.. columns.Select((_, column) => rows.Max(row => row[column].Length))];
        WriteRow(rows[0]);
        output.WriteLine($"|{string.Join('|', widths.Select((width, column) => column == 0 ? new string('-', width + 2) : new string('-', width + 1) + ':'))}|");
        foreach (string[] row in rows.Skip(1)) WriteRow(row);

        void WriteRow(string[] row) =>
            output.WriteLine($"| {string.Join(" | ", row.Select((cell, column) => column == 0 ? cell.PadRight(widths[column]) : cell.PadLeft(widths[column])))} |");
    }

    /// <summary>As JSON, with the counters that the figures come from.</summary>
    public string ToJson() => JsonSerializer.Serialize(this, FaultJson.Default.FaultReport);

    private static string Text(double? number, int decimals) => number?.ToString("F" + decimals, CultureInfo.InvariantCulture) ?? "";
}

/// <summary>The report's form: properties by their names.</summary>
[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase, WriteIndented = true)]
[JsonSerializable(typeof(FaultReport))]
internal sealed partial class FaultJson : JsonSerializerContext;
