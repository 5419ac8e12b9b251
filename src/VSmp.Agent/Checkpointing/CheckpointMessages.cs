// SPDX-License-Identifier: Apache-2.0
using System.Text.Json.Serialization;

namespace VSmp.Agent.Checkpointing;

/// <summary>What a node needs to know of a checkpoint that it is to take part in: payload of the first CheckpointOrder.</summary>
/// <param name="Name">Of the checkpoint.</param>
/// <param name="Generation">Which of it.</param>
/// <param name="Regions">Numbers of the regions, as the manifest will list them.</param>
/// <param name="IsFull">Whether to take what earlier generations have, too.</param>
internal sealed record CheckpointPlan(string Name, uint Generation, ulong[] Regions, bool IsFull);

/// <summary>What a home is to fill a region with: payload of a CheckpointLoad.</summary>
/// <param name="Name">Of the checkpoint.</param>
/// <param name="Generation">Which of it.</param>
/// <param name="Region">Number of the region.</param>
/// <param name="Index">Its place in the manifest's list.</param>
internal sealed record LoadPlan(string Name, uint Generation, ulong Region, int Index);

/// <summary>What a node has done, where there is more to say: payload of a CheckpointDone.</summary>
/// <param name="Error">Why it could not; null: it could.</param>
/// <param name="Part">What it has written.</param>
internal sealed record CheckpointAnswer(string? Error, PartSummary? Part);

/// <summary>These as JSON.</summary>
[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase, RespectNullableAnnotations = true, RespectRequiredConstructorParameters = true)]
[JsonSerializable(typeof(CheckpointPlan))]
[JsonSerializable(typeof(LoadPlan))]
[JsonSerializable(typeof(CheckpointAnswer))]
internal sealed partial class CheckpointJson : JsonSerializerContext;
