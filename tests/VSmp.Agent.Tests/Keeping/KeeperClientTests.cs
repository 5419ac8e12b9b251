// SPDX-License-Identifier: Apache-2.0
using System.Diagnostics;
using Microsoft.Win32.SafeHandles;
using VSmp.Agent.Interop;
using VSmp.Agent.Keeping;
using Xunit;

namespace VSmp.Agent.Tests.Keeping;

/// <summary>The agent's side of the keeper's socket, against a real keeper with real guests.</summary>
public sealed class KeeperClientTests : IDisposable
{
    private static readonly HoldKey Guest = new(0x100), Other = new(0x200);

    private readonly BorrowedKeeper _keeper = new();
    private readonly List<Process> _guests = [];

    public void Dispose()
    {
        foreach (Process guest in _guests)
        {
            if (!guest.HasExited) guest.Kill();
            guest.Dispose();
        }
        _keeper.Dispose();
    }

    [Fact]
    public void Without_a_keeper_there_is_no_client() => Assert.Null(KeeperClient.Connect());

    [Fact]
    public void What_is_no_socket_is_refused()
    {
        Assert.Throws<IOException>(() => UnixSocket.Adopt(60000, UnixSocketType.SequencedPacket));
        string path = Path.Combine(Path.GetTempPath(), $"vsmp-k-{Guid.NewGuid():N}");
        using UnixSocket stream = UnixSocket.BindDatagram(path);
        File.Delete(path); // the socket needs no name any more
        Assert.Throws<IOException>(() => UnixSocket.Adopt(stream.Descriptor, UnixSocketType.SequencedPacket));
    }

    [Fact]
    public async Task What_is_held_comes_back_once_after_the_agent_was_killed()
    {
        using (KeeperClient client = _keeper.Connect())
        {
            Process guest = StartGuest();
            using SafeFileHandle process = ProcessControl.Open(guest.Id)!;
            Assert.Equal(0, client.Hold(Guest, HoldKind.Guest, [Descriptor(process)], "a guest"u8));
            for (uint i = 0; i < 1000; i++) HoldEvent(client, new HoldKey(Other.Value + i));
            Assert.Equal(Errno.EEXIST, client.Hold(Guest, HoldKind.Guest, [Descriptor(process)], default));
            Assert.Equal(Errno.ENOENT, client.Drop(new HoldKey(7)));
            Assert.Equal(0, client.Drop(new HoldKey(Other.Value + 5)));
            _keeper.KillAgent();
        }
        using (KeeperClient client = _keeper.Connect())
        {
            List<KeptHold> holds = client.List();
            Assert.Equal(1000, holds.Count);
            Assert.Equal(1000, holds.Select(h => h.Key).Distinct().Count());
            KeptHold kept = Assert.Single(holds, h => h.Kind == HoldKind.Guest);
            Assert.Equal(Guest, kept.Key);
            Assert.Equal("a guest"u8.ToArray(), kept.Data);
            Assert.False(kept.IsGone);
            Assert.True(ProcessControl.Signal(Assert.Single(kept.Descriptors), 0));
            Assert.All(holds, h => Assert.True(h.Kind == HoldKind.Guest || h.Data.SequenceEqual(BitConverter.GetBytes(h.Key.Value))));
            foreach (KeptHold hold in holds) hold.Dispose();
            KeeperState state = client.State();
            Assert.Equal((1, 1, 0, 999, 0), (state.RestartCount, state.GuestCount, state.MappingCount, state.OtherCount, state.GoneCount));
            Assert.Null(state.Deadline);
            Assert.Null(state.FencedAt);
            Assert.Equal(1000, client.Clear());
            Assert.Empty(client.List());
        }
        Assert.Equal(9, await _keeper.FinishAsync(9));
    }

    [Fact]
    public async Task Notices_come_on_the_reactor_also_those_that_came_during_a_call()
    {
        using KeeperClient client = _keeper.Connect();
        using Reactor reactor = new(maxSpinMicroseconds: 0);
        TaskCompletionSource<HoldKey> gone = Completion<HoldKey>();
        TaskCompletionSource<FencedNotice> fenced = Completion<FencedNotice>();
        TaskCompletionSource<ResumedNotice> resumed = Completion<ResumedNotice>();
        TaskCompletionSource lost = Completion();
        client.GuestGone += key => gone.TrySetResult(key);
        client.Fenced += notice => fenced.TrySetResult(notice);
        client.Resumed += notice => resumed.TrySetResult(notice);
        client.Lost += () => lost.TrySetResult();

        Process guest = StartGuest();
        using SafeFileHandle process = ProcessControl.Open(guest.Id)!;
        Assert.Equal(0, client.Hold(Guest, HoldKind.Guest, [Descriptor(process)], default));
        BootTime deadline = BootTime.Now + TimeSpan.FromMilliseconds(30);
        Assert.Equal(0, client.Lease(deadline));
        // The notice comes between requests and replies.
        while (client.State().FencedAt is null) Thread.Yield();
        client.Watch(reactor);
        Thread thread = new(reactor.Run);
        thread.Start();
        try
        {
            FencedNotice notice = await Await(fenced.Task);
            Assert.Equal((1, 0), (notice.StoppedCount, notice.RunningCount));
            Assert.True(notice.At > deadline);
            TestContext.Current.TestOutputHelper?.WriteLine($"fenced {(notice.At - deadline).TotalMilliseconds} ms after the deadline");
            KeeperState state = await Await(reactor.Ask(client.State));
            Assert.Equal((notice.At, deadline, 1, 0), (state.FencedAt, state.Deadline, state.StoppedCount, state.RunningCount));

            Assert.Equal(0, await Await(reactor.Ask(() => client.Lease(BootTime.Now + TimeSpan.FromMinutes(1)))));
            Assert.Equal(1, (await Await(resumed.Task)).ResumedCount);
            await Await(reactor.Ask(() =>
            {
                client.Release();
                return true;
            }));
            Assert.Null((await Await(reactor.Ask(client.State))).Deadline);

            Assert.Equal(0, await Await(reactor.Ask(() => client.Kill(Guest, "it is the test's will"))));
            Assert.Equal(Guest, await Await(gone.Task));
            Assert.Equal(Errno.ESRCH, await Await(reactor.Ask(() => client.Kill(Guest, ""))));
            Assert.True((await Await(reactor.Ask(client.List)))[0].IsGone);

            _keeper.Keeper.Kill();
            await Await(lost.Task);
            await Assert.ThrowsAsync<IOException>(() => Await(reactor.Ask(client.State)));
        }
        finally
        {
            reactor.Stop();
            thread.Join();
        }
    }

    [Fact]
    public async Task What_is_to_be_held_later_is_held_in_order_and_answered_on_the_reactor()
    {
        const int Count = 2000; // more than the socket has room for
        using KeeperClient client = _keeper.Connect();
        using Reactor reactor = new(maxSpinMicroseconds: 0);
        client.Watch(reactor);
        Thread thread = new(reactor.Run);
        thread.Start();
        try
        {
            List<int> answers = [];
            TaskCompletionSource all = Completion(), again = Completion(), lost = Completion();
            _ = reactor.Ask(() =>
            {
                for (uint i = 0; i < Count; i++)
                {
                    int fd = Libc.EventFd(0, Libc.EFD_CLOEXEC);
                    ulong key = Other.Value + i;
                    client.HoldLater(new HoldKey(key), HoldKind.Other, [fd], BitConverter.GetBytes(key), default, error =>
                    {
                        answers.Add(error);
                        if (answers.Count == Count) all.SetResult();
                    });
                    _ = Libc.Close(fd);
                    if (i % 2 == 0) client.DropLater(new HoldKey(key));
                }
                Assert.Empty(answers);
                return true;
            });
            await Await(all.Task);
            Assert.All(answers, error => Assert.Equal(0, error));
            Assert.Equal(Enumerable.Range(0, Count).Where(i => i % 2 == 1).Select(i => Other.Value + (ulong)i),
                (await Await(reactor.Ask(client.List))).Select(h => BitConverter.ToUInt64(h.Data)).Order());
            _ = reactor.Ask(() =>
            {
                client.HoldLater(new HoldKey(Other.Value + 1), HoldKind.Other, [1], default, default, error =>
                {
                    answers.Add(error);
                    again.SetResult();
                });
                return true;
            });
            await Await(again.Task);
            Assert.Equal(Errno.EEXIST, answers[^1]);

            client.Lost += () => lost.SetResult();
            _ = Libc.Kill(_keeper.Keeper.Id, Signals.SIGSTOP); // it does not answer, and has what it is sent only in its socket
            _ = reactor.Ask(() =>
            {
                client.HoldLater(new HoldKey(1), HoldKind.Other, [1], default, default, answers.Add);
                return true;
            });
            await Await(lost.Task);
            Assert.Equal(Errno.EPIPE, answers[^1]);
        }
        finally
        {
            reactor.Stop();
            thread.Join();
        }
    }

    [Fact]
    public void A_call_to_a_keeper_that_is_gone_says_so()
    {
        using KeeperClient client = _keeper.Connect();
        Assert.Equal(0, client.State().RestartCount);
        _keeper.Keeper.Kill();
        _keeper.Keeper.WaitForExit();
        Assert.Throws<IOException>(() => client.State());
        Assert.Throws<IOException>(() => client.Lease(BootTime.Now + TimeSpan.FromSeconds(1)));
    }

    [Fact]
    public void What_no_keeper_would_take_is_not_sent()
    {
        using KeeperClient client = _keeper.Connect();
        Assert.Throws<ArgumentOutOfRangeException>(() => client.Hold(default, HoldKind.Other, [1], default));
        Assert.Throws<ArgumentOutOfRangeException>(() => client.Hold(Other, HoldKind.None, [1], default));
        Assert.Throws<ArgumentOutOfRangeException>(() => client.Hold(Other, HoldKind.Other, [], default));
        Assert.Throws<ArgumentOutOfRangeException>(() => client.Hold(Other, HoldKind.Other, [1, 1, 1, 1, 1], default));
        Assert.Throws<ArgumentOutOfRangeException>(() => client.Hold(Other, HoldKind.Other, [1], new byte[KeeperMessage.MaxDataBytes + 1]));
        Assert.Throws<ArgumentException>(() => client.Hold(Other, HoldKind.Mapping, [1], default));
        Assert.Equal(0, client.Hold(Other, HoldKind.Other, [1, 1, 1, 1], new byte[KeeperMessage.MaxDataBytes]));
        Assert.Equal(Errno.ENOENT, client.Hold(new HoldKey(1), HoldKind.Mapping, [1], default, guest: Other));
        using KeptHold kept = Assert.Single(client.List());
        Assert.Equal(4, kept.Descriptors.Count);
        Assert.Equal(KeeperMessage.MaxDataBytes, kept.Data.Length);
    }

    private static int Descriptor(SafeFileHandle handle) => (int)handle.DangerousGetHandle();

    private static void HoldEvent(KeeperClient client, HoldKey key)
    {
        int fd = Libc.EventFd(0, Libc.EFD_CLOEXEC);
        Assert.Equal(0, client.Hold(key, HoldKind.Other, [fd], BitConverter.GetBytes(key.Value)));
        _ = Libc.Close(fd);
    }

    private static TaskCompletionSource<T> Completion<T>() => new(TaskCreationOptions.RunContinuationsAsynchronously);

    private static TaskCompletionSource Completion() => new(TaskCreationOptions.RunContinuationsAsynchronously);

    private static Task<T> Await<T>(Task<T> task) => task.WaitAsync(KeeperPrograms.Patience, TestContext.Current.CancellationToken);

    private static Task Await(Task task) => task.WaitAsync(KeeperPrograms.Patience, TestContext.Current.CancellationToken);

    private Process StartGuest()
    {
        var guest = Process.Start("sleep", "600");
        _guests.Add(guest);
        return guest;
    }
}
