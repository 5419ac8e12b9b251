// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent.Interop;
using VSmp.Agent.Paging;

namespace VSmp.Agent.Guests;

/// <summary>
/// Looks several times a second at what only the kernel knows: the private memory of the guests and the allocation of the frame files.
/// The files in /proc are read on a thread of its own, so that no fault waits for them; without guests nobody is woken. (Threads of the pool look for more
/// work, with open eyes, before they sleep: with one guest that took more than all the rest of an idle agent.)
/// </summary>
internal sealed class Sampler : IDisposable
{
    private const long PeriodMicroseconds = 200_000;

    private readonly Reactor _reactor;
    private readonly Runs _runs;
    private readonly Pager _pager;
    private ulong _lastFaults;
    private long _lastMicroseconds = Reactor.Clock();
    private bool _isLooking;
    private Thread? _looker;
    private readonly AutoResetEvent _lookNow = new(false);
    private Guest[] _toLookAt = []; // the looker's from when it is woken until it has posted what it saw; else the reactor's
    private volatile bool _isOver;

    /// <summary>Starts to look.</summary>
    public Sampler(Reactor reactor, Runs runs, Pager pager)
    {
        _reactor = reactor;
        _runs = runs;
        _pager = pager;
        reactor.Every(PeriodMicroseconds, List, IsThereAnything);
    }

    /// <summary>Faults per second, over the last period.</summary>
    public double FaultsPerSecond { get; private set; }

    /// <summary>Allocation of all frame files.</summary>
    public ulong UsedBytes { get; private set; }

    /// <summary>Memory of the guests outside the pool.</summary>
    public ulong PrivateBytes { get; private set; }

    /// <inheritdoc/>
    public void Dispose()
    {
        _isOver = true;
        _lookNow.Set();
        _looker?.Join();
        _lookNow.Dispose();
    }

    /// <summary>Whether there is anything to look at, or was when it was last looked at.</summary>
    private bool IsThereAnything() => _runs.All.Count > 0 || _pager.Regions.Count > 0 || (UsedBytes | PrivateBytes) > 0 || FaultsPerSecond > 0;

    /// <summary>On the reactor: what there is to look at.</summary>
    private void List()
    {
        if (_isLooking) return;
        Guest[] guests = _runs.Guests.ToArray();
        ulong used = 0;
        foreach (PagedRegion region in _pager.Regions) used += FileUse.AllocatedBytes(region.Frames.Descriptor);
        UsedBytes = used;
        foreach (Run run in _runs.All)
        {
            ulong local = 0;
            foreach (PagedRegion region in run.Guests.SelectMany(g => g.Regions).Distinct()) local += FileUse.AllocatedBytes(region.Frames.Descriptor);
            run.Counters.SetLocalBytes(local);
        }
        long now = Reactor.Clock();
        double seconds = (now - _lastMicroseconds) / 1e6;
        if (seconds > 0.5)
        {
            FaultsPerSecond = (_pager.FaultCount - _lastFaults) / seconds;
            (_lastFaults, _lastMicroseconds) = (_pager.FaultCount, now);
        }
        if (guests.Length == 0)
        {
            Record(guests, []);
            return;
        }
        _isLooking = true;
        _toLookAt = guests;
        if (_looker is null)
        {
            _looker = new Thread(Look) { Name = "sampler", IsBackground = true };
            _looker.Start();
        }
        _lookNow.Set();
    }

    /// <summary>On the looker's thread: reads /proc.</summary>
    private void Look()
    {
        while (true)
        {
            _lookNow.WaitOne();
            if (_isOver) return;
            Guest[] guests = _toLookAt;
            ulong[] sizes = Array.ConvertAll(guests, g => ProcessControl.AnonymousBytes(g.ProcessId));
            _reactor.Post(() => Record(guests, sizes));
        }
    }

    private void Record(Guest[] guests, ulong[] sizes)
    {
        _isLooking = false;
        ulong all = 0;
        for (int i = 0; i < guests.Length; i++)
        {
            guests[i].PrivateBytes = sizes[i];
            all += sizes[i];
        }
        PrivateBytes = all;
        foreach (Run run in _runs.All)
        {
            ulong sum = 0;
            foreach (Guest guest in run.Guests) sum += guest.PrivateBytes;
            run.Counters.PeakPrivateBytes = Math.Max(run.Counters.PeakPrivateBytes, sum);
        }
    }
}
