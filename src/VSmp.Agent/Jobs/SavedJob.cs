// SPDX-License-Identifier: Apache-2.0
using System.Text.Json.Serialization;

namespace VSmp.Agent.Jobs;

/// <summary>What a checkpoint has of a job beside its memory: the state of its manifest, as JSON. Who waits for what is not among it: all ranks are in vsmp_checkpoint.</summary>
/// <param name="NextAddress">Where the next region will lie.</param>
/// <param name="Counters">Numbers of counters.</param>
/// <param name="Counts">And the value of each.</param>
/// <param name="Heaps">What is allocated in each region, as the manifest lists these.</param>
internal sealed record SavedJob(ulong NextAddress, ulong[] Counters, long[] Counts, SavedHeap[] Heaps);

/// <summary>What is allocated in a region.</summary>
/// <param name="Blocks">Offset and length of each block, in turn.</param>
/// <param name="HighWater">Memory below it may have been used.</param>
internal sealed record SavedHeap(ulong[] Blocks, ulong HighWater);

/// <summary>A region that ranks have yet to attach again.</summary>
/// <param name="Name">Its name.</param>
/// <param name="Index">Its place in the manifest's list.</param>
/// <param name="Bytes">Its length.</param>
/// <param name="Address">Where it lies in every rank.</param>
/// <param name="Blocks">What is allocated in it.</param>
/// <param name="HighWater">Memory below it may have been used.</param>
internal sealed record RestorableRegion(string Name, int Index, ulong Bytes, ulong Address, ulong[] Blocks, ulong HighWater);

/// <summary>As JSON.</summary>
[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase, RespectNullableAnnotations = true, RespectRequiredConstructorParameters = true)]
[JsonSerializable(typeof(SavedJob))]
internal sealed partial class SavedJobJson : JsonSerializerContext;
