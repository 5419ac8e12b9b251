// SPDX-License-Identifier: Apache-2.0
using System.Globalization;
using System.Text.Json.Serialization;

namespace VSmp.Bench.Agents;

/// <summary>Something that an agent takes.</summary>
/// <param name="Name">What.</param>
/// <param name="Unit">In which unit.</param>
/// <param name="Value">How much: of the agent that takes most, or where a fault is served by several of all of them together.</param>
/// <param name="Target">How much it is to be at most; null: it is only told.</param>
/// <param name="Decimals">Digits that mean something. A figure that is within its target but for what they do not show is within it.</param>
internal sealed record AgentFigure(string Name, string Unit, double Value, double? Target, int Decimals)
{
    /// <summary>Whether it is within its target; null without one.</summary>
    public bool? IsMet => Target is { } target ? Math.Round(Value, Decimals) <= target : null;

    /// <summary>The value, with the digits that mean something.</summary>
    [JsonIgnore]
    public string Shown => (Math.Round(Value, Decimals) + 0.0).ToString("F" + Decimals, CultureInfo.InvariantCulture); // no minus before a zero
}
