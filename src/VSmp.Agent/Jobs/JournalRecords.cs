// SPDX-License-Identifier: Apache-2.0
using System.Text.Json.Serialization;
using VSmp.Agent.Checkpointing;

namespace VSmp.Agent.Jobs;

/// <summary>What job a journal is of.</summary>
/// <param name="Format">Of the file: <see cref="CurrentFormat"/>.</param>
/// <param name="Job">Its number.</param>
/// <param name="Token">What its ranks show to join.</param>
/// <param name="DefaultRegion">The name of a region that is attached without one.</param>
/// <param name="Protocol">What keeps its regions coherent.</param>
/// <param name="IsMirrored">Whether they have second homes.</param>
/// <param name="Placement">The node of each rank.</param>
/// <param name="Nodes">The nodes that are homes of its regions.</param>
/// <param name="Program">What its ranks run.</param>
/// <param name="UserId">Who has begun it.</param>
/// <param name="ProcessId">With which <c>vsmp spmd</c>.</param>
/// <param name="Checkpoint">What it wants of checkpoints; null: nothing.</param>
/// <param name="Run">How it was run, for checkpoints.</param>
internal sealed record JobHeader(int Format, ulong Job, string Token, string DefaultRegion, string Protocol, bool IsMirrored, ushort[] Placement, ushort[] Nodes,
    string Program, uint UserId, int ProcessId, CheckpointWish? Checkpoint = null, SavedRun? Run = null)
{
    /// <summary>The format that this build reads and writes.</summary>
    public const int CurrentFormat = 1;
}

/// <summary>Where a job stands at its leader.</summary>
/// <param name="Job">As far as ranks go.</param>
/// <param name="Regions">Regions that are ready, as they are recovered.</param>
internal sealed record LedState(JobState Job, SharedRegionState[] Regions);

/// <summary>A region of a job that every node has made.</summary>
/// <param name="Region">Its number.</param>
/// <param name="Plan">Where its homes and mirrors were when it was made: a <see cref="RegionPlan"/>.</param>
/// <param name="Nodes">The nodes that have made it.</param>
/// <param name="Places">Where they are elsewhere now.</param>
internal sealed record SharedRegionState(ulong Region, byte[] Plan, ushort[] Nodes, RegionPlaces Places);

/// <summary>A rank is gone.</summary>
/// <param name="Rank">Which.</param>
/// <param name="How">In words.</param>
internal sealed record RankGone(int Rank, string How);

/// <summary>What came of a call for a checkpoint.</summary>
/// <param name="Generation">The generation that is cut; 0: none.</param>
/// <param name="Error">Not 0: the call was wrong; an errno.</param>
/// <param name="Why">In words.</param>
internal sealed record CheckpointTaken(uint Generation, int Error, string Why);

/// <summary>A job cannot go on.</summary>
/// <param name="Why">In words.</param>
internal sealed record JobLost(string Why);

/// <summary>A region that was being made is there, or cannot be.</summary>
/// <param name="Region">Its number.</param>
/// <param name="Error">0, or why not: an errno.</param>
/// <param name="Why">The same in words.</param>
/// <param name="Plan">Where its homes and mirrors are: a <see cref="RegionPlan"/>. Empty if it cannot be made.</param>
/// <param name="Nodes">The nodes that have made it.</param>
internal sealed record RegionMade(ulong Region, int Error, string Why, byte[] Plan, ushort[] Nodes);

/// <summary>Homes and mirrors of a region that are not where its plan says.</summary>
/// <param name="Region">Its number.</param>
/// <param name="AreAll">Whether all others are.</param>
/// <param name="Generation">Generation of its directories.</param>
/// <param name="Extents">First extent, count, home and mirror of each piece, in turn.</param>
internal sealed record RegionPlaces(ulong Region, bool AreAll, uint Generation, uint[] Extents);

/// <summary>Records of journals as JSON.</summary>
[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase, RespectNullableAnnotations = true, RespectRequiredConstructorParameters = true)]
[JsonSerializable(typeof(JobHeader))]
[JsonSerializable(typeof(LedState))]
[JsonSerializable(typeof(RankGone))]
[JsonSerializable(typeof(JobLost))]
[JsonSerializable(typeof(CheckpointTaken))]
[JsonSerializable(typeof(RegionMade))]
[JsonSerializable(typeof(RegionPlaces))]
internal sealed partial class JournalJson : JsonSerializerContext;
