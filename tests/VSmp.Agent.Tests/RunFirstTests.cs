// SPDX-License-Identifier: Apache-2.0
using System.Globalization;
using System.Runtime.InteropServices;
using Xunit;

namespace VSmp.Agent.Tests;

/// <summary>Threads that run ahead of programs, where that is permitted.</summary>
public sealed partial class RunFirstTests
{
    private const int SCHED_OTHER = 0, SCHED_FIFO = 1;

    [Fact]
    public void A_thread_runs_first_while_it_says_so_and_what_it_starts_does_not()
    {
        List<int> policies = [];
        Thread thread = new(() =>
        {
            RunFirst runFirst = default;
            policies.Add(Policy());
            runFirst.Set(true);
            policies.Add(Policy());
            Thread child = new(() => policies.Add(Policy()));
            child.Start();
            child.Join();
            runFirst.Set(true);
            runFirst.Set(false);
            policies.Add(Policy());
        });
        thread.Start();
        thread.Join();
        int first = RunFirst.IsPermitted ? SCHED_FIFO : SCHED_OTHER;
        Assert.Equal([SCHED_OTHER, first, SCHED_OTHER, SCHED_OTHER], policies);
    }

    [Fact]
    public void Who_runs_more_than_it_waits_is_not_due_until_it_has_waited()
    {
        RunFirst runFirst = default;
        for (int i = 0; i < 1000; i++) Turn(ran: 100, waited: 100);
        Assert.True(runFirst.IsDue);
        int turns = 0;
        for (; runFirst.IsDue; turns++) Turn(100, 0);
        Assert.Equal(RunFirst.CreditMicroseconds / 100, turns);
        for (int i = 0; i < 1_000_000; i++) Turn(100, 10); // for as long as you like
        runFirst.OnRan(100);
        Assert.False(runFirst.IsDue);
        runFirst.OnWaited(RunFirst.CreditMicroseconds);
        Assert.False(runFirst.IsDue);
        runFirst.OnWaited(1);
        Assert.True(runFirst.IsDue);

        void Turn(long ran, long waited)
        {
            runFirst.OnRan(ran);
            runFirst.OnWaited(waited);
        }
    }

    [Fact]
    public void Where_others_ran_in_the_middle_of_a_turn_that_does_not_count()
    {
        RunFirst runFirst = default;
        runFirst.OnRan(1_000_000);
        Assert.True(runFirst.IsDue);
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void A_reactor_runs_first_if_it_was_told_to(bool runsFirst)
    {
        using Reactor reactor = new() { RunsFirst = runsFirst };
        int policy = -1;
        reactor.After(1000, () =>
        {
            policy = Policy();
            reactor.Stop();
        });
        Thread thread = new(reactor.Run);
        thread.Start();
        thread.Join();
        Assert.Equal(runsFirst && RunFirst.IsPermitted ? SCHED_FIFO : SCHED_OTHER, policy);
    }

    [Fact]
    public void A_signal_does_not_end_a_reactor_though_it_has_its_priority_changed_when_it_is_woken()
    {
        const int SIGWINCH = 28;
        // One that has a handler: as after SIGSTOP and SIGCONT, whoever waits is told EINTR.
        using PosixSignalRegistration handled = PosixSignalRegistration.Create(PosixSignal.SIGWINCH, _ => { });
        using Reactor reactor = new() { RunsFirst = true };
        Exception? failure = null;
        int threadId = 0;
        Thread thread = new(() =>
        {
            Volatile.Write(ref threadId, GetThreadId());
            failure = Record.Exception(reactor.Run);
        });
        thread.Start();
        while (Volatile.Read(ref threadId) == 0 || reactor.SleepCount == 0
            || !File.ReadAllText($"/proc/self/task/{threadId}/stat").Contains(") S ", StringComparison.Ordinal))
        {
            Thread.Yield();
        }
        Assert.Equal(0, SignalThread(Environment.ProcessId, threadId, SIGWINCH));
        reactor.Post(reactor.Stop);
        thread.Join();
        Assert.Null(failure);
    }

    [LibraryImport("libc", EntryPoint = "gettid")]
    private static partial int GetThreadId();

    [LibraryImport("libc", EntryPoint = "tgkill")]
    private static partial int SignalThread(int processId, int threadId, int signal);

    // proc_pid_stat(5): the 41st field, and the second is the name, in brackets.
    private static int Policy()
    {
        string stat = File.ReadAllText("/proc/thread-self/stat");
        return int.Parse(stat[(stat.LastIndexOf(')') + 2)..].Split(' ')[41 - 3], CultureInfo.InvariantCulture);
    }
}
