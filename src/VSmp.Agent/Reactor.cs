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

/// <summary>
/// The one thread that owns a shard: it waits for userfaultfds, sockets and pidfds together and runs their handlers to the end,
/// one after the other. State that belongs to a reactor is touched on its thread only; others get in by <see cref="Post"/>.
/// </summary>
internal sealed unsafe class Reactor : IDisposable
{
    private const int EventsPerTurn = 64;

    private readonly int _epoll;
    private readonly int _wake;
    private readonly IReactorHandler?[] _handlers = new IReactorHandler?[65536]; // by descriptor
    private readonly List<Action> _turnEnds = [];
    private readonly List<(long PeriodMicroseconds, Action Run)> _tickers = [];
    private readonly List<long> _tickerDue = [];
    private readonly PriorityQueue<Action, long> _once = new();
    private readonly ConcurrentQueue<Action> _posted = new();
    private long _wakeDue = long.MaxValue;
    private int _wakePending;
    private volatile bool _stop;
    private Thread? _thread;

    /// <summary>Makes a reactor; nothing runs before <see cref="Run"/>.</summary>
    public Reactor()
    {
        _epoll = Libc.EpollCreate(Libc.EPOLL_CLOEXEC);
        if (_epoll < 0) throw Errno.Exception("cannot create an epoll descriptor");
        _wake = Libc.EventFd(0, Libc.EFD_CLOEXEC | Libc.EFD_NONBLOCK);
        if (_wake < 0) throw Errno.Exception("cannot create an eventfd");
        Watch(_wake, EpollEvents.Readable, new WakeHandler(this));
    }

    /// <summary>Monotonic time, in microseconds, read at the start of the turn: all of a turn happens at one time.</summary>
    public long NowMicroseconds { get; private set; } = Clock();

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

    /// <summary>Runs after the handlers of every turn, in the order of registration: flushing, evicting ahead of need.</summary>
    public void AtTurnEnd(Action action) => _turnEnds.Add(action);

    /// <summary>Runs every so often, on the reactor's thread.</summary>
    public void Every(long periodMicroseconds, Action action)
    {
        _tickers.Add((periodMicroseconds, action));
        _tickerDue.Add(Clock() + periodMicroseconds);
    }

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

    /// <summary>Makes <see cref="Run"/> return at the end of the turn. From any thread.</summary>
    public void Stop()
    {
        _stop = true;
        Post(static () => { });
    }

    /// <summary>The loop. Returns after <see cref="Stop"/>; an exception from a handler is a defect and ends the agent.</summary>
    public void Run()
    {
        _thread = Thread.CurrentThread;
        EpollEvent* events = stackalloc EpollEvent[EventsPerTurn];
        while (!_stop)
        {
            int ready = Libc.EpollWait(_epoll, events, EventsPerTurn, MicrosecondsToNextTick());
            if (ready < 0)
            {
                if (Errno.Last == Errno.EINTR) continue;
                throw Errno.Exception("epoll_wait failed");
            }
            NowMicroseconds = Clock();
            _wakeDue = long.MaxValue;
            for (int i = 0; i < ready; i++) _handlers[(int)events[i].Data]?.OnReady(events[i].Events);
            RunTickers();
            foreach (Action action in _turnEnds) action();
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        _ = Libc.Close(_wake);
        _ = Libc.Close(_epoll);
    }

    private long MicrosecondsToNextTick()
    {
        long due = Math.Min(_wakeDue, _once.TryPeek(out _, out long first) ? first : long.MaxValue);
        foreach (long tick in _tickerDue) due = Math.Min(due, tick);
        return due == long.MaxValue ? -1 : Math.Max(due - Clock(), 0);
    }

    private void RunTickers()
    {
        for (int i = 0; i < _tickers.Count; i++)
        {
            if (NowMicroseconds < _tickerDue[i]) continue;
            _tickerDue[i] = NowMicroseconds + _tickers[i].PeriodMicroseconds;
            _tickers[i].Run();
        }
        while (_once.TryPeek(out Action? action, out long due) && due <= NowMicroseconds)
        {
            _once.Dequeue();
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
