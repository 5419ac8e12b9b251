// SPDX-License-Identifier: Apache-2.0
using System.Globalization;

namespace VSmp.Agent.Interop;

/// <summary>
/// A point in time on this host's CLOCK_BOOTTIME, which also runs while the host is suspended (clock_gettime(2)): what a node may do until
/// then is over when the rest of the cluster says so, whether the node was awake or not.
/// </summary>
/// <param name="Nanoseconds">Since the host was started.</param>
internal readonly record struct BootTime(long Nanoseconds)
{
    private const int CLOCK_BOOTTIME = 7;
    private const int NanosecondsPerTick = 100;

    /// <summary>The time now.</summary>
    public static unsafe BootTime Now
    {
        get
        {
            TimeSpec time;
            // SAFETY: fills the struct, on this stack.
            return ProcessControl.ClockGetTime(CLOCK_BOOTTIME, &time) == 0
                ? new BootTime((time.Seconds * 1_000_000_000) + time.Nanoseconds)
                : throw Errno.Exception("cannot read the clock");
        }
    }

    /// <summary>That much later.</summary>
    public static BootTime operator +(BootTime time, TimeSpan span) => new(time.Nanoseconds + (span.Ticks * NanosecondsPerTick));

    /// <summary>The time between.</summary>
    public static TimeSpan operator -(BootTime later, BootTime earlier) => new((later.Nanoseconds - earlier.Nanoseconds) / NanosecondsPerTick);

    /// <summary>Whether it is before the other.</summary>
    public static bool operator <(BootTime left, BootTime right) => left.Nanoseconds < right.Nanoseconds;

    /// <summary>Whether it is after the other.</summary>
    public static bool operator >(BootTime left, BootTime right) => left.Nanoseconds > right.Nanoseconds;

    /// <inheritdoc/>
    public override string ToString() => string.Create(CultureInfo.InvariantCulture, $"{Nanoseconds / 1e9:F6} s after boot");
}
