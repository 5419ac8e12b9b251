// SPDX-License-Identifier: Apache-2.0
using System.Globalization;
using System.Text.RegularExpressions;
using VSmp.Agent;

namespace VSmp.Bench.Recovery;

/// <summary>A recovery, as the agent that led it has logged it.</summary>
/// <param name="Began">When the loss was known and the region frozen, UTC.</param>
/// <param name="Milliseconds">From then until all went on.</param>
/// <param name="IsAllThere">Whether nothing is lost.</param>
internal sealed record LoggedRecovery(DateTime Began, double Milliseconds, bool IsAllThere);

/// <summary>The logs of agents: what they say of recoveries, and of themselves.</summary>
internal static partial class RecoveryLog
{
    /// <summary>The first recovery after the loss of a node that has come to its end.</summary>
    /// <param name="lines">Lines of the log, in order.</param>
    /// <param name="node">The node that was lost.</param>
    /// <returns>Null if there is none yet.</returns>
    public static LoggedRecovery? Find(IEnumerable<string> lines, string node)
    {
        DateTime? began = null;
        foreach (string line in lines)
        {
            if (Log.MessageOf(line, Log.InfoLevel) is not { } message) continue;
            Match begin = Begin().Match(message);
            if (began is null && begin.Success && begin.Groups["nodes"].Value.Split(", ").Contains(node)) began = TimeOf(line);
            Match end = End().Match(message);
            if (began is not { } time || !end.Success) continue;
            return new LoggedRecovery(time, double.Parse(end.Groups["ms"].Value, CultureInfo.InvariantCulture), end.Groups["outcome"].Value == "nothing is lost");
        }
        return null;
    }

    /// <summary>Whether every page has a mirror, of all recoveries that the lines tell of.</summary>
    public static bool IsMirrored(IEnumerable<string> lines) =>
        lines.Select(line => Log.MessageOf(line, Log.InfoLevel)).Any(message => message?.EndsWith("every page has a mirror again", StringComparison.Ordinal) == true);

    /// <summary>When an agent was ready, and a member: the first time that the lines tell of, UTC; null: not yet.</summary>
    /// <param name="lines">Lines of its log, in order.</param>
    /// <param name="node">Its node.</param>
    public static DateTime? FindReady(IEnumerable<string> lines, string node) => lines
        .Where(line => Log.MessageOf(line, Log.InfoLevel)?.StartsWith($"agent {node} is ready: ", StringComparison.Ordinal) == true)
        .Select(line => (DateTime?)TimeOf(line)).FirstOrDefault();

    private static DateTime TimeOf(string line) => DateTime.Parse(line[..line.IndexOf(' ', StringComparison.Ordinal)], CultureInfo.InvariantCulture,
        DateTimeStyles.AdjustToUniversal | DateTimeStyles.AssumeUniversal);

    [GeneratedRegex(@"^recovery of \S+: (?<nodes>.+) lost; ", RegexOptions.ExplicitCapture)]
    private static partial Regex Begin();

    [GeneratedRegex(@"^recovery of \S+: done in (?<ms>[0-9.]+) ms .*; (?<outcome>.*)$", RegexOptions.ExplicitCapture)]
    private static partial Regex End();
}
