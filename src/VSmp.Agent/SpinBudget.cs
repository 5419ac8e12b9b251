// SPDX-License-Identifier: Apache-2.0
namespace VSmp.Agent;

/// <summary>
/// How long a thread that waits looks for itself before it sleeps, learnt from how long its waits are: while what it waits for comes soon,
/// the budget doubles, and when it does not, it halves, down to not looking at all. (KVM polls for halted guests by the same rule:
/// Linux, Documentation/virt/kvm/halt-polling.rst.) Where somebody else needs the processor, it does not look for a while, and for twice
/// as long each time that turns out again: a thread that sleeps is run as soon as it is woken, and one that has yielded when the other's time
/// is up. Pure: it is told the time.
/// </summary>
/// <param name="maxMicroseconds">Longest budget; a wait that takes longer was not worth looking for. 0: never look.</param>
internal struct SpinBudget(long maxMicroseconds)
{
    /// <summary>Waits asleep after crowding, the first time and at most.</summary>
    public const int LeastWaitsAsleep = 64, MostWaitsAsleep = 4096;

    /// <summary>After so many looks that found something, crowding is a thing of the past.</summary>
    public const int LooksUndisturbed = 256;

    private const long FirstMicroseconds = 5, SliceMicroseconds = 500;

    private int _waitsAsleep, _lastWaitsAsleep, _looks;

    /// <summary>
    /// Who has the processor for longer than this, after it was yielded or in the middle of a turn, computes: the scheduler gives such a
    /// program a slice of about a millisecond or more.
    /// </summary>
    public readonly long CrowdedMicroseconds => Math.Max(SliceMicroseconds, maxMicroseconds / 2);

    /// <summary>Whether looking pays at present, so that it goes on long enough to matter to others.</summary>
    public readonly bool Pays => Microseconds > FirstMicroseconds;

    /// <summary>How long to look now.</summary>
    public long Microseconds { get; private set; }

    /// <summary>A wait is over.</summary>
    /// <param name="microseconds">How long it took, looking and sleeping.</param>
    public void OnWaited(long microseconds)
    {
        if (_waitsAsleep > 0)
        {
            _waitsAsleep--;
            return;
        }
        if (microseconds <= Microseconds && ++_looks >= LooksUndisturbed) _lastWaitsAsleep = 0;
        if (microseconds > maxMicroseconds) Microseconds = Microseconds / 2 < FirstMicroseconds ? 0 : Microseconds / 2;
        else if (microseconds > Microseconds) Microseconds = Math.Clamp(Microseconds * 2, Math.Min(FirstMicroseconds, maxMicroseconds), maxMicroseconds);
    }

    /// <summary>Somebody else has had the processor for long.</summary>
    public void OnCrowded()
    {
        Microseconds = 0;
        _looks = 0;
        _waitsAsleep = _lastWaitsAsleep = Math.Clamp(_lastWaitsAsleep * 2, LeastWaitsAsleep, MostWaitsAsleep);
    }
}
