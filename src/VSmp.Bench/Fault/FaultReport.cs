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
/// <param name="Results">The transitions.</param>
internal sealed record FaultReport(string Transport, int Agents, int Pages, IReadOnlyList<TransitionResult> Results)
{
    /// <summary>Writes a table in Markdown: a line per transition.</summary>
    public void WriteMarkdown(TextWriter output)
    {
        bool isVerbs = Transport == "verbs";
        string[] heads =
        [
            "transition", "p50 µs", "p99 µs", "round trips", "frames",
            .. isVerbs ? new[] { "sends", "inline", "receives", "completions" } : ["send calls", "receive calls"],
            "bytes", "acks alone", "copies out", "copies in",
        ];
        List<string[]> rows = [heads, .. Results.Select(r => (string[])
        [
            r.Transition.Name, Text(r.MedianMicroseconds, 1), Text(r.P99Microseconds, 1), Text(r.RoundTrips, 1), Text(r.Frames, 2), Text(r.Messages, 2),
            .. isVerbs ? new[] { Text(r.InlineMessages, 2), Text(r.Receives, 2), Text(r.Completions, 2) } : [Text(r.Receives, 2)],
            Text(r.Bytes, 0), Text(r.LoneAcknowledgements, 2), Text(r.CopiesOut, 2), Text(r.CopiesIn, 2),
        ])];
        int[] widths = [.. heads.Select((_, column) => rows.Max(row => row[column].Length))];
        WriteRow(rows[0]);
        output.WriteLine($"|{string.Join('|', widths.Select((width, column) => column == 0 ? new string('-', width + 2) : new string('-', width + 1) + ':'))}|");
        foreach (string[] row in rows.Skip(1)) WriteRow(row);

        void WriteRow(string[] row) =>
            output.WriteLine($"| {string.Join(" | ", row.Select((cell, column) => column == 0 ? cell.PadRight(widths[column]) : cell.PadLeft(widths[column])))} |");
    }

    /// <summary>As JSON, with the counters that the figures come from.</summary>
    public string ToJson() => JsonSerializer.Serialize(this, FaultJson.Default.FaultReport);

    private static string Text(double number, int decimals) => number.ToString("F" + decimals, CultureInfo.InvariantCulture);
}

/// <summary>The report's form: properties by their names.</summary>
[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase, WriteIndented = true)]
[JsonSerializable(typeof(FaultReport))]
internal sealed partial class FaultJson : JsonSerializerContext;
