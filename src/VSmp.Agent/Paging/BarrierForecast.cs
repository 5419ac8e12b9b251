// SPDX-License-Identifier: Apache-2.0
using VSmp.Coherence;

namespace VSmp.Agent.Paging;

/// <summary>
/// Foresees what a rank will miss between a barrier and the next one: what it has missed each so many barriers, as whoever computes in steps
/// does with its neighbours' data.
/// </summary>
/// <remarks>
/// <code>
///   barrier     1         2         3         4         5         6         7
///   page 10     miss                miss                miss                asked for: two apart, twice
///   page 99          miss                                    miss           not: once does not make a habit
/// </code>
/// At a barrier ranks wait and agents are awake: what is asked for there is on its way, or has come, before a rank has been woken up.
/// <para>
/// A page that was asked for in time is not missed, so nobody would notice that it is no longer wanted: once in a while it is left to be
/// missed. A page that is missed although it was asked for was taken away unused: it is forgotten.
/// </para>
/// </remarks>
internal sealed class BarrierForecast
{
    /// <summary>How far apart, in barriers, misses of a page may be to be foreseen.</summary>
    public const uint MaxPeriod = 8;

    /// <summary>How often a page is asked for until it is left to be missed once.</summary>
    public const int Trusted = 16;

    /// <summary>How many misses are remembered: steps that miss more move so much data that the first few pages do not matter.</summary>
    private const int Capacity = 512;

    /// <summary>How many periods of the same length behind each other are a habit.</summary>
    private const int Habit = 2;

    private readonly Habitual[] _pages = new Habitual[Capacity];
    private uint _now = MaxPeriod + 1; // barriers so far, and more than any period: a place that nobody has is one that is out of date

    /// <summary>The rank missed a page.</summary>
    /// <param name="page">Which; not one that it waits for as it is on its way.</param>
    /// <param name="write">Whether it asks to write.</param>
    public void OnMiss(PageNumber page, bool write)
    {
        ref Habitual known = ref _pages[Slot(page)];
        uint period = _now - known.Last;
        if (known.Page != page || period > MaxPeriod)
        {
            if (known.Repeats < Habit || period > MaxPeriod) known = new Habitual(page, _now, write);
            return;
        }
        known.Write = write || (known.Write && period == 0);
        if (period == 0)
        {
            if (known.IsAsked) known = new Habitual(page, _now, write);
            return;
        }
        known.Repeats = period == known.Period ? (byte)Math.Min(known.Repeats + 1, Habit) : (byte)1;
        known.Period = period;
        known.Last = _now;
        known.IsAsked = false;
    }

    /// <summary>The rank has come through a barrier.</summary>
    public void OnBarrier() => _now++;

    /// <summary>The next page that is due.</summary>
    /// <param name="at">Where to look from on; 0 at first.</param>
    /// <param name="page">The page.</param>
    /// <param name="write">Whether it was missed to be written.</param>
    /// <returns>False: there is no other.</returns>
    public bool TryNext(ref int at, out PageNumber page, out bool write)
    {
        while (at < Capacity)
        {
            ref Habitual known = ref _pages[at++];
            if (known.Repeats < Habit || known.Last + known.Period != _now) continue;
            if (++known.Asked % Trusted == 0) continue; // it will be missed, or go
            known.Last = _now;
            known.IsAsked = true;
            (page, write) = (known.Page, known.Write);
            return true;
        }
        (page, write) = (default, false);
        return false;
    }

    /// <summary>A page that was due is here: it is not missed any more.</summary>
    public void Forget(PageNumber page)
    {
        ref Habitual known = ref _pages[Slot(page)];
        if (known.Page == page) known = default;
    }

    // By the golden ratio (Fibonacci hashing): pages at equal distances, such as rows, spread over the places.
    private static int Slot(PageNumber page) => (int)((page.Value * 0x9E3779B97F4A7C15) >> 55);

    private struct Habitual(PageNumber page, uint now, bool write)
    {
        public PageNumber Page = page;
        public uint Last = now; // the barrier behind which it was missed, or asked for
        public uint Period;
        public byte Repeats;
        public byte Asked;
        public bool Write = write;
        public bool IsAsked; // behind the last barrier at which it was due
    }
}
