// SPDX-License-Identifier: Apache-2.0
using System.Text.Json;
using System.Text.Json.Serialization;
using VSmp.Bench.Running;

namespace VSmp.Bench.Micro;

/// <summary>What something inside an agent takes.</summary>
/// <param name="Name">What.</param>
/// <param name="Protocol">The protocol, of a round; else empty.</param>
/// <param name="Steps">Protocol steps, of a round; else 1.</param>
/// <param name="LeastNanoseconds">In the best measurement: what is more was somebody else's.</param>
/// <param name="MeanNanoseconds">In the mean of the measurements.</param>
/// <param name="AllocatedBytes">Managed memory that it allocates.</param>
internal sealed record MicroResult(string Name, string Protocol, long Steps, double LeastNanoseconds, double MeanNanoseconds, long AllocatedBytes)
{
    /// <summary>One step of a round, at best.</summary>
    public double StepNanoseconds => LeastNanoseconds / Steps;
}

/// <summary>What the inside of an agent takes, without fabric, frames and kernel.</summary>
/// <param name="Machine">What it was measured on.</param>
/// <param name="Rounds">Rounds of protocol steps.</param>
/// <param name="Inside">What else is on the way of a fault.</param>
internal sealed record MicroReport(Machine Machine, IReadOnlyList<MicroResult> Rounds, IReadOnlyList<MicroResult> Inside) : IReport
{
    private static readonly Column<MicroResult>[] RoundColumns =
    [
        new("protocol", r => r.Protocol, IsText: true), new("round", r => r.Name, IsText: true), Column<MicroResult>.Number("steps", r => r.Steps, 0),
        Column<MicroResult>.Number("ns/round", r => r.LeastNanoseconds, 0), Column<MicroResult>.Number("mean", r => r.MeanNanoseconds, 0),
        Column<MicroResult>.Number("ns/step", r => r.StepNanoseconds, 0), Column<MicroResult>.Number("bytes", r => r.AllocatedBytes, 0),
    ];

    private static readonly Column<MicroResult>[] InsideColumns =
    [
        new("inside", r => r.Name, IsText: true), Column<MicroResult>.Number("ns", r => r.LeastNanoseconds, 1),
        Column<MicroResult>.Number("mean", r => r.MeanNanoseconds, 1), Column<MicroResult>.Number("bytes", r => r.AllocatedBytes, 0),
    ];

    /// <summary>Whether nothing allocates memory.</summary>
    [JsonIgnore]
    public bool IsFreeOfAllocation => Rounds.Concat(Inside).All(result => result.AllocatedBytes == 0);

    /// <inheritdoc/>
    public void WriteMarkdown(TextWriter output)
    {
        output.WriteLine(FormattableString.Invariant(
            $"{Machine}. The least of {MicroCommand.IterationCount} measurements of {MicroCommand.IterationMilliseconds} ms each, and their mean; managed bytes allocated."));
        output.WriteLine();
        MarkdownTable.Write(output, RoundColumns, Rounds);
        output.WriteLine();
        MarkdownTable.Write(output, InsideColumns, Inside);
    }

    /// <inheritdoc/>
    public string ToJson() => JsonSerializer.Serialize(this, MicroJson.Default.MicroReport);
}

/// <summary>The report's form: properties by their names.</summary>
[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase, WriteIndented = true)]
[JsonSerializable(typeof(MicroReport))]
internal sealed partial class MicroJson : JsonSerializerContext;
