// SPDX-License-Identifier: Apache-2.0
using System.Globalization;
using Microsoft.Win32.SafeHandles;
using VSmp.Agent.Interop;

namespace VSmp.Agent.Keeping;

/// <summary>What a hold is known by, to the agent that made it and to those that come after it. Not 0.</summary>
internal readonly record struct HoldKey(ulong Value)
{
    /// <inheritdoc/>
    public override string ToString() => string.Create(CultureInfo.InvariantCulture, $"0x{Value:x}");
}

/// <summary>A hold as the keeper gives it back. Its descriptors are copies, and go with it when it is disposed.</summary>
internal sealed class KeptHold : IDisposable
{
    /// <summary>What it is known by.</summary>
    public required HoldKey Key { get; init; }

    /// <summary>What it is.</summary>
    public required HoldKind Kind { get; init; }

    /// <summary>Of a mapping: whose memory it is.</summary>
    public HoldKey Guest { get; init; }

    /// <summary>Of a guest: it is dead.</summary>
    public bool IsGone { get; init; }

    /// <summary>What the agent gave with it.</summary>
    public required byte[] Data { get; init; }

    /// <summary>In the order in which they were given; 1 to 4, all closed on exec.</summary>
    public required IReadOnlyList<SafeFileHandle> Descriptors { get; init; }

    /// <inheritdoc/>
    public void Dispose()
    {
        foreach (SafeFileHandle descriptor in Descriptors) descriptor.Dispose();
    }
}

/// <summary>How things are with the keeper.</summary>
/// <param name="Deadline">When the lease runs out, or has; null: none is needed.</param>
/// <param name="FencedAt">Since when the guests are stopped; null: they run, or are being stopped.</param>
/// <param name="IsStopping">The lease has run out, and guests are being stopped.</param>
/// <param name="IsRealtime">It runs ahead of programs (SCHED_FIFO); otherwise a loaded host delays the fence.</param>
/// <param name="IsLocked">Its memory is never paged out.</param>
/// <param name="RestartCount">How often it has started an agent again.</param>
/// <param name="GuestCount">Guests that are held, dead or alive.</param>
/// <param name="MappingCount">Mappings that are held.</param>
/// <param name="OtherCount">Other holds.</param>
/// <param name="GoneCount">Guests that are dead.</param>
/// <param name="StoppedCount">Guests that are stopped, by whomever; 0 as long as there is a lease.</param>
/// <param name="RunningCount">Guests that are still to stop.</param>
internal sealed record KeeperState(BootTime? Deadline, BootTime? FencedAt, bool IsStopping, bool IsRealtime, bool IsLocked, int RestartCount,
    int GuestCount, int MappingCount, int OtherCount, int GoneCount, int StoppedCount, int RunningCount)
{
    /// <summary>Reads what the keeper says.</summary>
    public static KeeperState Of(in KeeperStateRecord r) => new(
        r.DeadlineNs == 0 ? null : new BootTime((long)r.DeadlineNs),
        r.FencedAtNs == 0 ? null : new BootTime((long)r.FencedAtNs),
        (r.Flags & KeeperStateRecord.IsStopping) != 0, (r.Flags & KeeperStateRecord.IsRealtime) != 0, (r.Flags & KeeperStateRecord.IsLocked) != 0,
        (int)r.Restarts, (int)r.Guests, (int)r.Mappings, (int)r.Others, (int)r.Gone, (int)r.Stopped, (int)r.Running);
}

/// <summary>The lease has run out, and the keeper has stopped the guests.</summary>
/// <param name="At">When.</param>
/// <param name="StoppedCount">Guests that are stopped.</param>
/// <param name="RunningCount">Guests that are still to stop, since a thread of theirs has not left the kernel; if there are any, the notice
/// comes again when there are none.</param>
internal readonly record struct FencedNotice(BootTime At, int StoppedCount, int RunningCount);

/// <summary>There is a lease again, and the keeper let the guests go on.</summary>
/// <param name="At">When.</param>
/// <param name="ResumedCount">Guests that it had stopped, and that go on.</param>
internal readonly record struct ResumedNotice(BootTime At, int ResumedCount);
