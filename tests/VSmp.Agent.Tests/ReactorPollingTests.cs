// SPDX-License-Identifier: Apache-2.0
using Xunit;

namespace VSmp.Agent.Tests;

/// <summary>A reactor looks at its pollers before it sleeps, and loses nothing in between.</summary>
public sealed class ReactorPollingTests
{
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(30);

    [Fact]
    public async Task What_comes_while_a_poller_is_armed_is_not_slept_on()
    {
        // No descriptor ever says that there is something, as for a completion just before the queue was armed.
        var poller = new Poller(due: long.MaxValue) { ComesWhenArmed = true };
        using var running = new Running(new Reactor(maxSpinMicroseconds: 0), poller, finds: 100);
        await running.Done.WaitAsync(Patience, TestContext.Current.CancellationToken);
        Assert.Equal(0ul, running.Reactor.SleepCount);
    }

    [Fact]
    public async Task A_turn_that_is_asked_for_by_what_a_poller_brought_comes()
    {
        var reactor = new Reactor(maxSpinMicroseconds: 0);
        var poller = new Poller(due: 0) { PeriodMicroseconds = 500 };
        poller.Found = () => reactor.WakeBy(Reactor.Clock() + 1000); // nothing else would wake it
        using var running = new Running(reactor, poller, finds: 20);
        await running.Done.WaitAsync(Patience, TestContext.Current.CancellationToken);
    }

    [Fact]
    public async Task While_there_is_soon_something_it_looks_instead_of_sleeping()
    {
        Assert.SkipWhen(Environment.ProcessorCount == 1, "with one processor it never looks");
        var poller = new Poller(due: 0);
        using var running = new Running(new Reactor(maxSpinMicroseconds: 1_000_000), poller, finds: 10_000);
        running.Reactor.Post(() => running.Reactor.Every(1000, () => { })); // wakes it until it has learnt
        await running.Done.WaitAsync(Patience, TestContext.Current.CancellationToken);
        Assert.InRange(running.Reactor.SleepCount, 0ul, 100ul);
    }

    /// <summary>Has something every so often, or each time it is armed.</summary>
    private sealed class Poller(long due) : IReactorPoller
    {
        private long _due = due;

        public bool ComesWhenArmed { get; init; }

        public long PeriodMicroseconds { get; init; } = 20;

        public Action? Found { get; set; }

        public int Finds { get; private set; }

        public bool Poll()
        {
            if (Reactor.Clock() < _due) return false;
            Finds++;
            _due = ComesWhenArmed ? long.MaxValue : Reactor.Clock() + PeriodMicroseconds;
            Found?.Invoke();
            return true;
        }

        public void Arm()
        {
            if (ComesWhenArmed) _due = 0;
        }
    }

    private sealed class Running : IDisposable
    {
        private readonly TaskCompletionSource _done = new(TaskCreationOptions.RunContinuationsAsynchronously);
        private readonly Thread _thread;

        public Running(Reactor reactor, Poller poller, int finds)
        {
            Reactor = reactor;
            reactor.AddPoller(poller);
            reactor.AtTurnEnd(() =>
            {
                if (poller.Finds >= finds && _done.TrySetResult()) reactor.Stop();
            });
            _thread = new Thread(reactor.Run) { IsBackground = true };
            _thread.Start();
        }

        public Reactor Reactor { get; }

        public Task Done => _done.Task;

        public void Dispose()
        {
            Reactor.Stop();
            _thread.Join();
            Reactor.Dispose();
        }
    }
}
