// SPDX-License-Identifier: Apache-2.0
using System.Collections.Concurrent;
using System.Diagnostics;
using VSmp.Agent.Interop;

namespace VSmp.Agent;

/// <summary>Something that a reactor watches a descriptor for.</summary>
internal interface IReactorHandler
{
    /// <summary>The descriptor is ready. Must not block.</summary>
    void OnReady(EpollEvents events);
}

/// <summary>Something that can be looked at without asking the kernel, and whose descriptor becomes readable only if that is asked for.</summary>
internal interface IReactorPoller
{
    /// <summary>Handles what is there. Must not block.</summary>
    /// <returns>Whether there was something.</returns>
    bool Poll();

    /// <summary>The reactor is about to sleep: the descriptor is to become readable for what comes from now on.</summary>
    void Arm();
}

/// <summary>
/// The one thread that owns a shard: it waits for userfaultfds, sockets and pidfds together and runs their handlers to the end,
/// one after the other. State that belongs to a reactor is touched on its thread only; others get in by <see cref="Post"/>.
/// </summary>
internal sealed unsafe class Reactor : IDisposable
{
    private const int EventsPerTurn = 64;

    /// <summary>
    /// A round trip between agents that both sleep, where that takes long: if it is not worth looking for, they go on sleeping, though
    /// it would take a fraction of that if both looked (ADR 0010).
    /// </summary>
    private const long MaxSpinMicroseconds = 200;

    private readonly int _epoll;
    private readonly int _wake;
    private readonly IReactorHandler?[] _handlers = new IReactorHandler?[65536]; // by descriptor
    private readonly List<Action> _turnEnds = [];
    private readonly List<Ticker> _tickers = [];
    private readonly PriorityQueue<Action, long> _once = new();
    private readonly ConcurrentQueue<Action> _posted = new();
    private readonly List<IReactorPoller> _pollers = [];
    private SpinBudget _spin;
    private RunFirst _runFirst;
    private long _wakeDue = long.MaxValue;
    private int _wakePending;
    private bool _stop; // the loop's
    private Thread? _thread;

    /// <summary>Makes a reactor; nothing runs before <see cref="Run"/>.</summary>
    /// <param name="maxSpinMicroseconds">How long it looks at its pollers, at most, before it sleeps; on one processor it never does.</param>
    public Reactor(long maxSpinMicroseconds = MaxSpinMicroseconds)
    {
        _spin = new SpinBudget(Environment.ProcessorCount > 1 ? maxSpinMicroseconds : 0);
        _epoll = Libc.EpollCreate(Libc.EPOLL_CLOEXEC);
        if (_epoll < 0) throw Errno.Exception("cannot create an epoll descriptor");
        _wake = Libc.EventFd(0, Libc.EFD_CLOEXEC | Libc.EFD_NONBLOCK);
        if (_wake < 0) throw Errno.Exception("cannot create an eventfd");
        Watch(_wake, EpollEvents.Readable, new WakeHandler(this));
    }

    /// <summary>Monotonic time, in microseconds, read at the start of the turn: all of a turn happens at one time.</summary>
    public long NowMicroseconds { get; private set; } = Clock();

    /// <summary>Where to note when what is done; null: nowhere.</summary>
    public StageTrace? Stages { get; init; }

    /// <summary>Whether its thread runs ahead of programs, where that is permitted, as long as it waits more than it runs.</summary>
    public bool RunsFirst { get; init; }

    /// <summary>How often it slept, for statistics and tests.</summary>
    public ulong SleepCount { get; private set; }

    /// <summary>Whether the caller runs on this reactor's thread (or no thread runs yet).</summary>
    public bool IsCurrent => _thread is null || _thread == Thread.CurrentThread;

    /// <summary>Monotonic time now, in microseconds.</summary>
    public static long Clock() => (long)(Stopwatch.GetTimestamp() * (1_000_000.0 / Stopwatch.Frequency));

    /// <summary>Calls the handler when the descriptor is ready (level-triggered).</summary>
    public void Watch(int fd, EpollEvents events, IReactorHandler handler)
    {
        Debug.Assert(IsCurrent);
        _handlers[fd] = handler;
        EpollEvent change = new() { Events = events, Data = (ulong)fd };
        if (Libc.EpollControl(_epoll, Libc.EPOLL_CTL_ADD, fd, &change) < 0) throw Errno.Exception($"cannot watch descriptor {fd}");
    }

    /// <summary>Changes what the handler is called for.</summary>
    public void Change(int fd, EpollEvents events)
    {
        EpollEvent change = new() { Events = events, Data = (ulong)fd };
        if (Libc.EpollControl(_epoll, Libc.EPOLL_CTL_MOD, fd, &change) < 0) throw Errno.Exception($"cannot watch descriptor {fd}");
    }

    /// <summary>Stops watching; call before the descriptor is closed. Events of this turn still under way are dropped.</summary>
    public void Unwatch(int fd)
    {
        if (_handlers[fd] is null) return;
        _handlers[fd] = null;
        EpollEvent change = default;
        _ = Libc.EpollControl(_epoll, Libc.EPOLL_CTL_DEL, fd, &change);
    }

    /// <summary>Looks at it before sleeping. On the reactor's thread.</summary>
    public void AddPoller(IReactorPoller poller) => _pollers.Add(poller);

    /// <summary>Looks at it no more. On the reactor's thread.</summary>
    public void RemovePoller(IReactorPoller poller) => _pollers.Remove(poller);

    /// <summary>Runs after the handlers of every turn, in the order of registration: flushing, evicting ahead of need.</summary>
    public void AtTurnEnd(Action action) => _turnEnds.Add(action);

    /// <summary>Runs every so often, on the reactor's thread.</summary>
    /// <param name="periodMicroseconds">How often.</param>
    /// <param name="action">What.</param>
    /// <param name="isNeeded">
    /// Whether there is anything to do for it; asked in every turn, so it must be cheap. While there is not, nobody is woken, and once
    /// there is, it runs a period later. What makes it needed happens on the reactor's thread. Null: always.
    /// </param>
    public void Every(long periodMicroseconds, Action action, Func<bool>? isNeeded = null) =>
        _tickers.Add(new Ticker(periodMicroseconds, action, isNeeded, Clock() + periodMicroseconds));

    /// <summary>
    /// Asks for a turn at that time at the latest, though nothing may happen until then. Holds for one turn: who still wants it asks again.
    /// </summary>
    public void WakeBy(long dueMicroseconds) => _wakeDue = Math.Min(_wakeDue, dueMicroseconds);

    /// <summary>Runs once, on the reactor's thread, when that much time has gone by. On the reactor's thread.</summary>
    public void After(long microseconds, Action action)
    {
        Debug.Assert(IsCurrent);
        _once.Enqueue(action, Clock() + microseconds);
    }

    /// <summary>Runs an action on the reactor's thread, soon. From any thread.</summary>
    public void Post(Action action)
    {
        _posted.Enqueue(action);
        if (Interlocked.Exchange(ref _wakePending, 1) == 0)
        {
            ulong one = 1;
            _ = Libc.Write(_wake, &one, sizeof(ulong));
        }
    }

    /// <summary>Runs a function on the reactor's thread and gives its result to the caller. From any other thread.</summary>
    public Task<T> Ask<T>(Func<T> function)
    {
        var answer = new TaskCompletionSource<T>(TaskCreationOptions.RunContinuationsAsynchronously);
        Post(() =>
        {
            try { answer.SetResult(function()); }
#pragma warning disable CA1031 // it is the asker's, whatever it is
            catch (Exception e) { answer.SetException(e); }
#pragma warning restore CA1031
        });
        return answer.Task;
    }

    /// <summary>Makes <see cref="Run"/> return when what was posted before is done. From any thread.</summary>
    public void Stop() => Post(() => _stop = true);

    /// <summary>The loop. Returns after <see cref="Stop"/>; an exception from a handler is a defect and ends the agent.</summary>
    public void Run()
    {
        _thread = Thread.CurrentThread;
        EpollEvent* events = stackalloc EpollEvent[EventsPerTurn];
        while (!_stop)
        {
            // What is asked for from here on is for the wait after this one.
            long wakeDue = _wakeDue;
            _wakeDue = long.MaxValue;
            int ready = Look(events, wakeDue);
            if (ready < 0)
            {
                if (ready != -Errno.EINTR) throw Errno.Exception("epoll_wait failed", -ready);
                _wakeDue = wakeDue;
                continue;
            }
            Stages?.Mark(Stage.Woken);
            NowMicroseconds = Clock();
            for (int i = 0; i < ready; i++) _handlers[(int)events[i].Data]?.OnReady(events[i].Events);
            RunTickers();
            foreach (Action action in _turnEnds) action();
            Stages?.Mark(Stage.TurnEnded);
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        _ = Libc.Close(_wake);
        _ = Libc.Close(_epoll);
    }

    /// <summary>
    /// Waits as long as it pays with open eyes, then asleep. Descriptors are looked at as often as pollers, so nobody waits for others'
    /// luck; and whoever else can run on this processor does, after each look.
    /// </summary>
    private int Look(EpollEvent* events, long wakeDue)
    {
        long start = Clock();
        long ran = start - NowMicroseconds;
        _runFirst.OnRan(ran);
        if (ran > _spin.CrowdedMicroseconds) OnCrowded();
        for (long now = start, last = start; now - start < _spin.Microseconds; last = now, now = Clock())
        {
            if (now - last > _spin.CrowdedMicroseconds)
            {
                OnCrowded();
                break;
            }
            NowMicroseconds = now;
            bool hasFound = Poll();
            int ready = Wait(events, 0);
            if (hasFound || ready != 0)
            {
                OnWaited(now - start);
                return ready;
            }
            Thread.Yield();
        }
        if (_pollers.Count > 0)
        {
            for (int i = 0; i < _pollers.Count; i++) _pollers[i].Arm();
            // What came before they were armed says nothing more.
            NowMicroseconds = Clock();
            if (Poll()) return Wait(events, 0);
        }
        int woken = Sleep(events, wakeDue);
        OnWaited(Clock() - start);
        return woken;
    }

    private void OnWaited(long microseconds)
    {
        _spin.OnWaited(microseconds);
        _runFirst.OnWaited(microseconds);
        ChoosePriority();
    }

    private void OnCrowded()
    {
        _spin.OnCrowded();
        ChoosePriority();
    }

    /// <summary>Who sleeps is to run as soon as it is woken; who looks has to let others run.</summary>
    private void ChoosePriority()
    {
        if (RunsFirst) _runFirst.Set(!_spin.Pays && _runFirst.IsDue);
    }

    private int Sleep(EpollEvent* events, long wakeDue)
    {
        SleepCount++;
        return Wait(events, MicrosecondsToNextTick(wakeDue));
    }

    /// <returns>How many events there are, or minus an errno value: other calls follow before anybody asks why.</returns>
    private int Wait(EpollEvent* events, long timeoutMicroseconds)
    {
        int ready = Libc.EpollWait(_epoll, events, EventsPerTurn, timeoutMicroseconds);
        return ready < 0 ? -Errno.Last : ready;
    }

    private bool Poll()
    {
        bool hasFound = false;
        // Handlers may break links, which takes them out.
        for (int i = _pollers.Count - 1; i >= 0; i--)
        {
            if (i < _pollers.Count) hasFound |= _pollers[i].Poll();
        }
        return hasFound;
    }

    private long MicrosecondsToNextTick(long wakeDue)
    {
        long due = Math.Min(wakeDue, _once.TryPeek(out _, out long first) ? first : long.MaxValue);
        long now = Clock();
        foreach (Ticker ticker in _tickers) due = Math.Min(due, ticker.Due(now));
        return due == long.MaxValue ? -1 : Math.Max(due - now, 0);
    }

    private void RunTickers()
    {
        for (int i = 0; i < _tickers.Count; i++)
        {
            if (NowMicroseconds >= _tickers[i].Due(NowMicroseconds)) _tickers[i].Run(NowMicroseconds);
        }
        while (_once.TryPeek(out Action? action, out long due) && due <= NowMicroseconds)
        {
            _once.Dequeue();
            action();
        }
    }

    /// <summary>What runs every so often.</summary>
    private sealed class Ticker(long periodMicroseconds, Action action, Func<bool>? isNeeded, long due)
    {
        private const long Never = long.MaxValue;

        /// <summary>When it is to run next, as things stand.</summary>
        public long Due(long now)
        {
            if (isNeeded is not null && !isNeeded()) due = Never;
            else if (due == Never) due = now + periodMicroseconds;
            return due;
        }

        public void Run(long now)
        {
            due = now + periodMicroseconds;
            action();
        }
    }

    private sealed class WakeHandler(Reactor reactor) : IReactorHandler
    {
        public void OnReady(EpollEvents events)
        {
            ulong count;
            _ = Libc.Read(reactor._wake, &count, sizeof(ulong));
            Volatile.Write(ref reactor._wakePending, 0);
            while (reactor._posted.TryDequeue(out Action? action)) action();
        }
    }
}
