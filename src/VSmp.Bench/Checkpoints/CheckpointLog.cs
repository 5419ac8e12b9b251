// SPDX-License-Identifier: Apache-2.0
using System.Globalization;
using System.Text.RegularExpressions;
using VSmp.Agent;

namespace VSmp.Bench.Checkpoints;

/// <summary>A generation, as the agent that led it has logged it.</summary>
/// <param name="Generation">Its number.</param>
/// <param name="IsFull">Whether it has all pages.</param>
/// <param name="Pages">How many it has.</param>
/// <param name="PauseMilliseconds">How long nobody could go on.</param>
/// <param name="SafeMilliseconds">From the pause's begin until all was on the disk.</param>
internal sealed record LoggedGeneration(long Generation, bool IsFull, long Pages, double PauseMilliseconds, double SafeMilliseconds);

/// <summary>The logs of agents: what they say of checkpoints.</summary>
internal static partial class CheckpointLog
{
    /// <summary>The generations of a checkpoint, by number.</summary>
    /// <param name="lines">Lines of the logs of all agents.</param>
    /// <param name="name">The checkpoint's name.</param>
    public static IReadOnlyList<LoggedGeneration> Find(IEnumerable<string> lines, string name) =>
        [.. lines.Select(line => Log.MessageOf(line, Log.InfoLevel)).OfType<string>().Select(message => Stored().Match(message))
            .Where(match => match.Success && match.Groups["name"].Value == name).Select(New).OrderBy(generation => generation.Generation)];

    private static LoggedGeneration New(Match match)
    {
        return new LoggedGeneration((long)Number("number"), match.Groups["full"].Success, (long)Number("pages"), Number("pause"), Number("safe"));

        double Number(string group) => double.Parse(match.Groups[group].Value, CultureInfo.InvariantCulture);
    }

    [GeneratedRegex(@"^checkpoint (?<name>\S+): generation (?<number>\d+)(?<full> \(full\))? of (?<pages>\d+) pages, pause (?<pause>[0-9.]+) ms \(of it (?<quiet>[0-9.]+) until nothing was under way\), safe after (?<safe>[0-9.]+) ms$",
        RegexOptions.ExplicitCapture)]
    private static partial Regex Stored();
}
