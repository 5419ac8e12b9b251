// SPDX-License-Identifier: Apache-2.0
using System.Text.Json;
using System.Text.Json.Serialization;

namespace VSmp.Agent.Checkpointing;

/// <summary>What a node needs to know of a checkpoint that it is to take part in: payload of the first CheckpointOrder.</summary>
/// <param name="Name">Of the checkpoint.</param>
/// <param name="Generation">Which of it.</param>
/// <param name="Regions">Numbers of the regions, as the manifest will list them.</param>
/// <param name="IsFull">Whether to take what earlier generations have, too.</param>
/// <param name="Tier">Where it is to be written.</param>
/// <param name="Ring">Numbers of the nodes that have parts of it, in order: the next one, after the last the first, has a copy of what a node writes into memory.</param>
internal sealed record CheckpointPlan(string Name, uint Generation, ulong[] Regions, bool IsFull, CheckpointTier Tier, ushort[] Ring);

/// <summary>What a home is to fill a region with: payload of a CheckpointLoad.</summary>
/// <param name="Name">Of the checkpoint.</param>
/// <param name="Generation">Which of it.</param>
/// <param name="Region">Number of the region.</param>
/// <param name="Index">Its place in the manifest's list.</param>
/// <param name="Tier">Where the checkpoint is.</param>
internal sealed record LoadPlan(string Name, uint Generation, ulong Region, int Index, CheckpointTier Tier);

/// <summary>What a node has done, where there is more to say: payload of a CheckpointDone.</summary>
/// <param name="Error">Why it could not; null: it could.</param>
/// <param name="Part">What it has written.</param>
internal sealed record CheckpointAnswer(string? Error, PartSummary? Part);

/// <summary>Somebody wants a checkpoint of a region, or to know how far that is.</summary>
/// <param name="Name">The checkpoint's name.</param>
/// <param name="Region">Number of the region.</param>
/// <param name="UserId">Who.</param>
/// <param name="Number">0: it is to be taken; else what was answered to that.</param>
internal sealed record CheckpointRequest(string Name, ulong Region, uint UserId, ulong Number)
{
    /// <summary>The same, of a certain user.</summary>
    /// <exception cref="Control.ControlException">It is none.</exception>
    public static byte[] As(uint userId, byte[] data)
    {
        try { return JsonSerializer.SerializeToUtf8Bytes(JsonSerializer.Deserialize(data, CheckpointJson.Default.CheckpointRequest)! with { UserId = userId }, CheckpointJson.Default.CheckpointRequest); }
        catch (JsonException e) { throw new Control.ControlException($"the request makes no sense: {e.Message}"); }
    }
}

/// <summary>How far it is.</summary>
/// <param name="Number">Of the request.</param>
/// <param name="IsWaiting">Whether its program has yet to let a checkpoint be taken, or it is being taken.</param>
/// <param name="Generation">The generation, once it is safe.</param>
/// <param name="Why">Why there will be none; null otherwise.</param>
internal sealed record CheckpointProgress(ulong Number, bool IsWaiting, uint Generation, string? Why);

/// <summary>These as JSON.</summary>
[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase, RespectNullableAnnotations = true, RespectRequiredConstructorParameters = true)]
[JsonSerializable(typeof(CheckpointPlan))]
[JsonSerializable(typeof(LoadPlan))]
[JsonSerializable(typeof(CheckpointRequest))]
[JsonSerializable(typeof(CheckpointProgress))]
[JsonSerializable(typeof(CheckpointAnswer))]
internal sealed partial class CheckpointJson : JsonSerializerContext;
