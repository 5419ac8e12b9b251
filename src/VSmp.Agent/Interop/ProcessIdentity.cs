// SPDX-License-Identifier: Apache-2.0
using System.Globalization;

namespace VSmp.Agent.Interop;

/// <summary>A process, told from a later one with the same number by its start time.</summary>
/// <param name="ProcessId">Its number.</param>
/// <param name="StartTicks">When it started, in clock ticks since boot (proc(5), field 22 of stat).</param>
internal readonly record struct ProcessIdentity(int ProcessId, ulong StartTicks)
{
    /// <summary>Whether the process is there and not a zombie.</summary>
    public bool IsAlive => TryRead(ProcessId, out ulong ticks, out char state) && ticks == StartTicks
        && state is not ('Z' or 'X');

    /// <summary>Whether the process is there, and stopped by a signal.</summary>
    public bool IsStopped => TryRead(ProcessId, out ulong ticks, out char state) && ticks == StartTicks && state == 'T';

    /// <summary>The identity of a running process, or null if there is none of that number.</summary>
    public static ProcessIdentity? Of(int processId) =>
        TryRead(processId, out ulong ticks, out char state) && state is not ('Z' or 'X') ? new(processId, ticks) : null;

    /// <summary>Reads what <see cref="ToString"/> wrote; null for anything else.</summary>
    public static ProcessIdentity? Parse(string line)
    {
        string[] parts = line.Split(' ', StringSplitOptions.RemoveEmptyEntries | StringSplitOptions.TrimEntries);
        return parts.Length >= 2
            && int.TryParse(parts[0], NumberStyles.None, CultureInfo.InvariantCulture, out int pid) && pid > 0
            && ulong.TryParse(parts[1], NumberStyles.None, CultureInfo.InvariantCulture, out ulong ticks)
            ? new(pid, ticks)
            : null;
    }

    /// <summary>The form of the files <c>agent.pid</c> and <c>guests</c>: <c>pid starttime</c>.</summary>
    public override string ToString() => string.Create(CultureInfo.InvariantCulture, $"{ProcessId} {StartTicks}");

    private static bool TryRead(int processId, out ulong startTicks, out char state)
    {
        startTicks = 0;
        state = '?';
        string stat;
        try { stat = File.ReadAllText($"/proc/{processId}/stat"); }
        catch (IOException) { return false; }
        catch (UnauthorizedAccessException) { return false; }
        // The second field is the program's name in parentheses, and may itself hold spaces and parentheses.
        int afterName = stat.LastIndexOf(')');
        if (afterName < 0) return false;
        string[] fields = stat[(afterName + 1)..].Split(' ', StringSplitOptions.RemoveEmptyEntries);
        if (fields.Length < 20) return false;
        state = fields[0][0];
        return ulong.TryParse(fields[19], NumberStyles.None, CultureInfo.InvariantCulture, out startTicks);
    }
}
