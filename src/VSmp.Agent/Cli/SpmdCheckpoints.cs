// SPDX-License-Identifier: Apache-2.0
using System.Globalization;
using VSmp.Agent.Checkpointing;
using VSmp.Agent.Control;

namespace VSmp.Agent.Cli;

/// <summary>What <c>vsmp spmd</c> is told of checkpoints.</summary>
internal static class SpmdCheckpoints
{
    private const string Auto = "auto";

    /// <summary>Where checkpoints can be.</summary>
    public static IReadOnlyList<string> Tiers { get; } = [.. Enum.GetNames<CheckpointTier>().Select(name => name.ToLowerInvariant())];

    /// <summary>What is wanted; null: nothing.</summary>
    /// <param name="name">--checkpoint.</param>
    /// <param name="every">--checkpoint-every.</param>
    /// <param name="mtbf">--mtbf.</param>
    /// <param name="keep">--keep.</param>
    /// <param name="restart">--restart.</param>
    /// <param name="program">The program.</param>
    /// <param name="isHighlyAvailable">--ha.</param>
    /// <param name="tier">--checkpoint-tier.</param>
    /// <exception cref="CommandException">They do not go together.</exception>
    public static CheckpointWish? Wish(string? name, string? every, TimeSpan? mtbf, int keep, string? restart, string program, bool isHighlyAvailable, string? tier = null)
    {
        if (keep < 1) throw Wrong("--keep: one generation at least has to be kept");
        if (mtbf is not null && every != Auto) throw Wrong("--mtbf is for --checkpoint-every auto");
        if (every == Auto && mtbf is not { Ticks: > 0 }) throw Wrong("--checkpoint-every auto needs --mtbf: how long, on average, until something that the job needs fails?");
        long? microseconds = null;
        if (every is not (null or Auto)) microseconds = Durations.ParseMicroseconds(every) ?? throw Wrong($"--checkpoint-every: '{every}' is neither a time (30s, 10m, 2h) nor auto");
        (string? restartName, uint? generation) = restart is null ? (null, null) : ParseRestart(restart);
        if (generation is not null && isHighlyAvailable) throw Wrong($"--ha goes on from the latest generation: remove those after {generation} (vsmp checkpoint rm), and leave @{generation} out");
        if (name is not null && restartName is not null && name != restartName) throw Wrong("--restart adds to the checkpoint that it goes on from: --checkpoint cannot be another");
        if (tier is not null && !Tiers.Contains(tier)) throw Wrong($"--checkpoint-tier: '{tier}' is none of {string.Join(", ", Tiers)}");
        name ??= restartName ?? (every is null && !isHighlyAvailable ? null : Path.GetFileName(program));
        if (name is null) return tier is null ? null : throw Wrong("--checkpoint-tier: no checkpoint is asked for: say --checkpoint NAME");
        if (!RunDirectory.IsValidName(name)) throw Wrong($"'{name}' is no name for a checkpoint: letters, digits, '.', '_' and '-', 63 at most, a letter or digit first; say --checkpoint NAME");
        return new CheckpointWish(name, microseconds / 1e6, mtbf?.TotalSeconds, keep, restart is not null ? CheckpointStart.Restart : CheckpointStart.New, isHighlyAvailable, generation,
            tier is null ? CheckpointTier.Disk : Enum.Parse<CheckpointTier>(tier, ignoreCase: true));
    }

    private static (string Name, uint? Generation) ParseRestart(string text)
    {
        string[] parts = text.Split('@');
        uint generation = 0;
        bool isValid = parts.Length <= 2 && RunDirectory.IsValidName(parts[0])
            && (parts.Length == 1 || (uint.TryParse(parts[1], NumberStyles.None, CultureInfo.InvariantCulture, out generation) && generation > 0));
        return isValid ? (parts[0], parts.Length == 1 ? null : generation) : throw Wrong($"--restart: '{text}' is neither NAME nor NAME@GENERATION");
    }

    private static CommandException Wrong(string text) => new(ExitCodes.Usage, text);
}
