// SPDX-License-Identifier: Apache-2.0
using System.Diagnostics;
using VSmp.Agent.Interop;

namespace VSmp.Agent;

/// <summary>
/// Whether the calling thread runs ahead of programs: as soon as there is something for it to do, not when a program's time on the processor is up
/// (<c>SCHED_FIFO</c>, sched(7)). For a thread that waits more than it runs: one that does not would take the processor from programs for good,
/// and is scheduled as everybody else until it waits again. Where it is not permitted, it is not done.
/// </summary>
internal struct RunFirst
{
    /// <summary>How much longer than it waited a thread may have run, in microseconds.</summary>
    public const long CreditMicroseconds = 10_000;

    /// <summary>What one turn counts at most: where a turn took longer, others ran in the middle of it.</summary>
    public const long TurnMicroseconds = 500;

    private bool _isOn, _isRefused;
    private long _ahead;

    /// <summary>Whether threads of this process may.</summary>
    public static bool IsPermitted
    {
        get
        {
            bool isPermitted = false;
            Thread probe = new(() => isPermitted = TrySet(true)) { Name = "probe" };
            probe.Start();
            probe.Join();
            return isPermitted;
        }
    }

    /// <summary>Whether the thread has waited enough.</summary>
    public readonly bool IsDue => _ahead < CreditMicroseconds;

    /// <summary>The thread has done what there was to do.</summary>
    public void OnRan(long microseconds) => _ahead = Math.Min(_ahead + Math.Min(microseconds, TurnMicroseconds), 2 * CreditMicroseconds);

    /// <summary>The thread has waited for something to do.</summary>
    public void OnWaited(long microseconds) => _ahead = Math.Max(_ahead - microseconds, 0);

    /// <summary>Has the calling thread run first from now on, or as everybody else.</summary>
    public void Set(bool isOn)
    {
        if (isOn == _isOn || _isRefused) return;
        if (TrySet(isOn)) _isOn = isOn;
        else _isRefused = true;
    }

    private static unsafe bool TrySet(bool isOn)
    {
        int priority = isOn ? 1 : 0;
        // Threads and processes that it starts do not.
        int policy = (isOn ? Libc.SCHED_FIFO : Libc.SCHED_OTHER) | Libc.SCHED_RESET_ON_FORK;
        // SAFETY: struct sched_param is one number, on this stack.
        if (Libc.SetScheduler(0, policy, &priority) == 0) return true;
        Debug.Assert(isOn || Errno.Last == Errno.EPERM, "nothing was asked for that is not possible");
        return false;
    }
}
