// SPDX-License-Identifier: Apache-2.0
using System.Text.Json;
using System.Text.Json.Serialization;
using VSmp.Bench.Running;

namespace VSmp.Bench.Fault;

/// <summary>A larger cluster, on which was counted what takes so many nodes.</summary>
/// <param name="Agents">Its agents.</param>
/// <param name="Pages">Pages that made each transition there.</param>
internal sealed record Crowd(int Agents, int Pages);

/// <summary>What transitions took, for people and for programs.</summary>
/// <param name="Machine">What they were measured on.</param>
/// <param name="Transport">What carried the frames: <c>tcp</c> or <c>verbs</c>.</param>
/// <param name="Agents">Agents in the cluster.</param>
/// <param name="Pages">Pages that made each transition.</param>
/// <param name="Elsewhere">Nodes whose agents cannot be asked from this host; if there are any, nothing has been counted.</param>
/// <param name="Crowd">Where those transitions were counted that have no times; null: there are none.</param>
/// <param name="Results">The transitions.</param>
internal sealed record FaultReport(Machine Machine, string Transport, int Agents, int Pages, IReadOnlyList<string> Elsewhere, Crowd? Crowd,
    IReadOnlyList<TransitionResult> Results) : IReport
{
    /// <inheritdoc/>
    public void WriteMarkdown(TextWriter output)
    {
        output.WriteLine($"{Machine}. {Transport}, {Agents} agents, protocol msi, {Pages} pages for each transition, asked for one at a time; "
            + (Elsewhere.Count == 0
                ? "counts are per page, of all nodes together."
                : $"no counts, since agents on other hosts cannot be asked: {string.Join(", ", Elsewhere)}.")
            + (Crowd is null ? "" : $" What has no times was counted on {Crowd.Agents} agents, with {Crowd.Pages} pages."));
        output.WriteLine();
        bool isVerbs = Transport == "verbs";
        List<Column<TransitionResult>> columns =
        [
            new("transition", r => r.Transition.Name, IsText: true), new("others", r => r.Transition.Others, IsText: true), Number("p50 µs", r => r.MedianMicroseconds, 1),
            Number("p99 µs", r => r.P99Microseconds, 1), Number("p999 µs", r => r.P999Microseconds, 1), Number("round trips", r => r.RoundTrips, 1),
        ];
        if (Elsewhere.Count == 0)
        {
            columns.AddRange([Number("frames", r => r.Frames, 2), Number(isVerbs ? "sends" : "send calls", r => r.Messages, 2)]);
            if (isVerbs) columns.Add(Number("inline", r => r.InlineMessages, 2));
            columns.Add(Number(isVerbs ? "receives" : "receive calls", r => r.Receives, 2));
            if (isVerbs) columns.Add(Number("completions", r => r.Completions, 2));
            columns.AddRange([Number("bytes", r => r.Bytes, 0), Number("acks alone", r => r.LoneAcknowledgements, 2),
                Number("copies out", r => r.CopiesOut, 2), Number("copies in", r => r.CopiesIn, 2)]);
        }
        MarkdownTable.Write(output, columns, Results);
    }

    /// <inheritdoc/>
    public string ToJson() => JsonSerializer.Serialize(this, FaultJson.Default.FaultReport);

    private static Column<TransitionResult> Number(string head, Func<TransitionResult, double?> number, int decimals) =>
        Column<TransitionResult>.Number(head, number, decimals);
}

/// <summary>The report's form: properties by their names.</summary>
[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase, WriteIndented = true)]
[JsonSerializable(typeof(FaultReport))]
internal sealed partial class FaultJson : JsonSerializerContext;
