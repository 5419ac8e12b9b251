// SPDX-License-Identifier: Apache-2.0
namespace VSmp.Agent;

/// <summary>
/// How long a thread that waits looks for itself before it sleeps, learnt from how long its waits are: while what it waits for comes soon,
/// the budget doubles, and when it does not, it halves, down to not looking at all. (KVM polls for halted guests by the same rule:
/// Linux, Documentation/virt/kvm/halt-polling.rst.) Pure: it is told the time.
/// </summary>
/// <param name="maxMicroseconds">Longest budget; a wait that takes longer was not worth looking for. 0: never look.</param>
internal struct SpinBudget(long maxMicroseconds)
{
    private const long FirstMicroseconds = 5;

    /// <summary>How long to look now.</summary>
    public long Microseconds { get; private set; }

    /// <summary>A wait is over.</summary>
    /// <param name="microseconds">How long it took, looking and sleeping.</param>
    public void OnWaited(long microseconds)
    {
        if (microseconds > maxMicroseconds) Microseconds = Microseconds / 2 < FirstMicroseconds ? 0 : Microseconds / 2;
        else if (microseconds > Microseconds) Microseconds = Math.Clamp(Microseconds * 2, Math.Min(FirstMicroseconds, maxMicroseconds), maxMicroseconds);
    }
}
