// SPDX-License-Identifier: Apache-2.0
using System.Globalization;

namespace VSmp.Bench.Running;

/// <summary>What the processors of a virtual machine did not do for it, since others of its host had them.</summary>
/// <param name="Stolen">Time that was theirs, in ticks since the start.</param>
/// <param name="All">All time.</param>
internal readonly record struct StolenTime(long Stolen, long All)
{
    // Of /proc/stat, proc_stat(5): user nice system idle iowait irq softirq steal; guests' times, behind that, are among user's.
    private const int Fields = 8, Steal = 7;

    /// <summary>Until now.</summary>
    public static StolenTime Now() => Parse(File.ReadLines("/proc/stat").First());

    /// <summary>Of the line of all processors.</summary>
    public static StolenTime Parse(string line)
    {
        long[] ticks = [.. line.Split(' ', StringSplitOptions.RemoveEmptyEntries).Skip(1).Take(Fields).Select(field => long.Parse(field, CultureInfo.InvariantCulture))];
        return new StolenTime(ticks[Steal], ticks.Sum());
    }

    /// <summary>Which part of the time since then was stolen, from 0 to 1.</summary>
    public double Since(StolenTime then) => (double)(Stolen - then.Stolen) / Math.Max(1, All - then.All);
}
