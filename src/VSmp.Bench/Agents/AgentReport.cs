// SPDX-License-Identifier: Apache-2.0
using System.Globalization;
using System.Text.Json;
using System.Text.Json.Serialization;
using VSmp.Bench.Running;

namespace VSmp.Bench.Agents;

/// <summary>What agents take, beside their targets.</summary>
/// <param name="Machine">What they were measured on.</param>
/// <param name="Transport">What carries frames, as <c>vsmp up</c> takes it.</param>
/// <param name="IdleSeconds">How long they were watched doing nothing.</param>
/// <param name="Pages">Pages of each kind of fault.</param>
/// <param name="Figures">The figures.</param>
internal sealed record AgentReport(Machine Machine, string Transport, int IdleSeconds, int Pages, IReadOnlyList<AgentFigure> Figures) : IReport
{
    private static readonly Column<AgentFigure>[] Columns =
    [
        new("figure", f => f.Name, IsText: true), new("value", f => f.Shown), new("unit", f => f.Unit, IsText: true),
        new("target", f => f.Target?.ToString(CultureInfo.InvariantCulture) ?? ""),
        new("met", f => f.IsMet switch { true => "yes", false => "no", null => "" }, IsText: true),
    ];

    /// <inheritdoc/>
    public void WriteMarkdown(TextWriter output)
    {
        output.WriteLine(FormattableString.Invariant(
            $"{Machine}. Two agents over {Transport}; watched for {IdleSeconds} s where they are idle, {Pages} pages for each kind of fault."));
        output.WriteLine();
        MarkdownTable.Write(output, Columns, Figures);
    }

    /// <inheritdoc/>
    public string ToJson() => JsonSerializer.Serialize(this, AgentJson.Default.AgentReport);
}

/// <summary>The report's form: properties by their names.</summary>
[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase, WriteIndented = true)]
[JsonSerializable(typeof(AgentReport))]
internal sealed partial class AgentJson : JsonSerializerContext;
