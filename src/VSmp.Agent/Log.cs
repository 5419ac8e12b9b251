// SPDX-License-Identifier: Apache-2.0
using System.Globalization;
using System.Text;
using VSmp.Agent.Interop;

namespace VSmp.Agent;

/// <summary>
/// The agent's log: lines of <c>timestamp level message</c> on standard error, which <c>vsmp up</c> sends to the agent's
/// <c>agent.log</c> and systemd to its journal. <c>vsmp doctor</c> looks for lines of level <c>error</c>.
/// </summary>
internal static unsafe class Log
{
    /// <summary>The levels as they stand in the lines.</summary>
    public const string InfoLevel = "info", WarnLevel = "warn", ErrorLevel = "error";

    /// <summary>What an administrator may want to know later.</summary>
    public static void Info(string message) => Write(InfoLevel, message);

    /// <summary>Something is not as it should be; the agent goes on.</summary>
    public static void Warn(string message) => Write(WarnLevel, message);

    /// <summary>Something failed: somebody's guest, or the agent itself.</summary>
    public static void Error(string message) => Write(ErrorLevel, message);

    /// <summary>The message of a line of the given level, or null if the line is of another (or not of this log at
    /// all).</summary>
    public static string? MessageOf(string line, string level)
    {
        int afterTime = line.IndexOf(' ', StringComparison.Ordinal);
        if (afterTime < 0) return null;
        string rest = line[(afterTime + 1)..];
        return rest.StartsWith(level, StringComparison.Ordinal) && rest.Length > level.Length && rest[level.Length] == ' '
            ? rest[(level.Length + 1)..].TrimStart()
            : null;
    }

    private static void Write(string level, string message)
    {
        string time = DateTime.UtcNow.ToString("yyyy-MM-ddTHH:mm:ss.fffZ", CultureInfo.InvariantCulture);
        byte[] line = Encoding.UTF8.GetBytes($"{time} {level,-5} {message.ReplaceLineEndings(" ")}\n");
        // SAFETY: the buffer is pinned for the call. One write per line, so that lines of several threads do not mix; a log that
        // cannot be written is no reason to stop.
        fixed (byte* start = line) _ = Libc.Write(2, start, (nuint)line.Length);
    }
}
