// SPDX-License-Identifier: Apache-2.0
namespace VSmp.Agent;

/// <summary>
/// How long a thread that waits looks for itself before it sleeps, learnt from how long its waits are: while what it waits for comes soon,
/// the budget doubles, and when it does not, it halves, down to not looking at all. (KVM polls for halted guests by the same rule:
/// Linux, Documentation/virt/kvm/halt-polling.rst.) Where somebody else needs the processor, it does not look for a good while: a thread that
/// sleeps is run as soon as it is woken, and one that has yielded when the other's time is up. Pure: it is told the time.
/// </summary>
/// <param name="maxMicroseconds">Longest budget; a wait that takes longer was not worth looking for. 0: never look.</param>
internal struct SpinBudget(long maxMicroseconds)
{
    private const long FirstMicroseconds = 5;
    private const int WaitsAfterCrowding = 1000;

    private int _waitsAsleep;

    /// <summary>Somebody who has the processor for longer than this, half of what is worth looking for, after it was yielded, computes.</summary>
    public readonly long CrowdedMicroseconds => maxMicroseconds / 2;

    /// <summary>How long to look now.</summary>
    public long Microseconds { get; private set; }

    /// <summary>A wait is over.</summary>
    /// <param name="microseconds">How long it took, looking and sleeping.</param>
    public void OnWaited(long microseconds)
    {
        if (_waitsAsleep > 0) _waitsAsleep--;
        else if (microseconds > maxMicroseconds) Microseconds = Microseconds / 2 < FirstMicroseconds ? 0 : Microseconds / 2;
        else if (microseconds > Microseconds) Microseconds = Math.Clamp(Microseconds * 2, Math.Min(FirstMicroseconds, maxMicroseconds), maxMicroseconds);
    }

    /// <summary>Somebody else has had the processor for long.</summary>
    public void OnCrowded()
    {
        Microseconds = 0;
        _waitsAsleep = WaitsAfterCrowding;
    }
}
