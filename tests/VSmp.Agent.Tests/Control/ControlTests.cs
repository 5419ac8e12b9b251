// SPDX-License-Identifier: Apache-2.0
using System.Diagnostics;
using System.Text;
using VSmp.Agent.Control;
using VSmp.Agent.Fabric.FaultInjection;
using VSmp.Agent.Interop;
using Xunit;

namespace VSmp.Agent.Tests.Control;

public sealed class ControlTests
{
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(20);

    [Fact]
    public void A_client_is_told_the_status_the_guests_and_the_regions()
    {
        FakeAgent agent = new("n0") { Guests = { new GuestStatus(17, "sort", "sort.1", 1000, 1, 2, 3, 4, 5.5) } };
        using ServedAgent served = new(agent);
        using var client = ControlClient.Connect(served.Folder);

        ClusterStatus status = client.GetStatus();
        Assert.Equal("n0", status.Self);
        Assert.Equal(new AgentStatistics(Faults: 3, ReactorAllocatedBytes: 1 << 20), status.Agent);
        NodeStatus node = Assert.Single(status.Nodes);
        Assert.Equal(12.4, node.FaultsPerSecond);
        Assert.Equal(node.ContributedBytes, node.HomeBytes + node.CacheBytes + node.FreeBytes);
        Assert.Equal(agent.Guests, client.GetGuests());
        Assert.Equal(64ul << 20, client.GetRegions().Single().HomeBytes["n0"]);
    }

    [Fact]
    public void A_client_injects_faults_and_is_told_what_is_in_force()
    {
        FakeAgent agent = new("n0");
        using ServedAgent served = new(agent);
        using var client = ControlClient.Connect(served.Folder);
        FaultOrder order = new(FaultKind.Delay, ["n1"], 0.1, 20_000, Seed: 7);
        client.Inject(order);
        FaultOrder got = Assert.Single(agent.Injected);
        Assert.Equal(order with { To = null }, got with { To = null });
        Assert.Equal(["n1"], got.To!);
        FaultStatus fault = Assert.Single(client.GetFaults());
        Assert.Equal(new FaultStatus("n0", "n1", FaultKind.Delay, 0.1, 20_000, 3, 7), fault);
        Assert.Equal("delay up to 20 ms, 10 %", fault.Text);
        client.Inject(new FaultOrder(null, null));
        Assert.Null(agent.Injected[1].Kind);
    }

    [Fact]
    public void A_request_that_fails_gives_the_agents_words_and_exit_code()
    {
        using ServedAgent served = new(new FakeAgent("n0")
        {
            Failure = new ControlException("the pool is exhausted",
            ExitCodes.NoMemory)
        });
        using var client = ControlClient.Connect(served.Folder);
        CommandException error = Assert.Throws<CommandException>(client.GetStatus);
        Assert.Equal("the pool is exhausted", error.Message);
        Assert.Equal(ExitCodes.NoMemory, error.ExitCode);
    }

    [Fact]
    public void A_defect_of_the_agent_is_told_and_the_connection_goes_on()
    {
        using ServedAgent served = new(new FakeAgent("n0") { Failure = new InvalidOperationException("defect") });
        using var client = ControlClient.Connect(served.Folder);
        Assert.Contains("defect", Assert.Throws<CommandException>(client.GetStatus).Message, StringComparison.Ordinal);
        Assert.Empty(client.GetGuests());
    }

    [Fact]
    public async Task A_run_is_asked_for_with_the_callers_real_identity()
    {
        FakeAgent agent = new("n0");
        using ServedAgent served = new(agent);
        using var client = ControlClient.Connect(served.Folder, new Listener());
        RunTicket ticket = client.BeginRun(new RunRequest("r", "sort", 1 << 30, ProcessId: 1, UserId: 4242));

        (RunRequest request, _) = await agent.RunBegun.Task.WaitAsync(Patience, TestContext.Current.CancellationToken);
        Assert.Equal("token-1", ticket.Token);
        Assert.Equal(Environment.ProcessId, request.ProcessId);
        Assert.Equal(Libc.GetEffectiveUserId(), request.UserId);
    }

    [Fact]
    public async Task A_run_hears_messages_and_gets_a_copy_of_every_guests_userfaultfd()
    {
        // Any descriptor will do: a pipe's end tells that it is the same file.
        using FileStream carried = File.OpenRead("/proc/self/status");
        FakeAgent agent = new("n0")
        {
            OnBegin = observer =>
            {
                for (int i = 1; i <= 200; i++) observer.OnGuestAttached(i, (int)carried.SafeFileHandle.DangerousGetHandle());
                observer.OnMessage("the pool is nearly full");
                observer.OnGuestDetached(1);
            },
        };
        using ServedAgent served = new(agent);
        Listener listener = new();
        using (var client = ControlClient.Connect(served.Folder, listener))
        {
            _ = client.BeginRun(new RunRequest(null, "sort", null, 0, 0));
            Assert.Equal(1, await listener.Detached.Task.WaitAsync(Patience, TestContext.Current.CancellationToken));
            Assert.Equal(["the pool is nearly full"], listener.Messages);
            Assert.Equal(Enumerable.Range(1, 200), listener.Attached.Select(guest => guest.ProcessId));
            foreach (var (_, descriptor) in listener.Attached)
            {
                Assert.EndsWith("/status", File.ResolveLinkTarget($"/proc/self/fd/{descriptor}", false)!.FullName,
                    StringComparison.Ordinal);
                Assert.Equal(0, Libc.Close(descriptor));
            }
            Assert.Equal(3ul, client.EndRun()?.FaultsRead);
        }
        Assert.Equal("token-1", await agent.RunEnded.WaitAsync(Patience, TestContext.Current.CancellationToken));
    }

    [Fact]
    public async Task A_run_whose_connection_breaks_is_ended()
    {
        FakeAgent agent = new("n0");
        using ServedAgent served = new(agent);
        using (var client = ControlClient.Connect(served.Folder, new Listener()))
        {
            _ = client.BeginRun(new RunRequest(null, "sort", null, 0, 0));
        }
        Assert.Equal("token-1", await agent.RunEnded.WaitAsync(Patience, TestContext.Current.CancellationToken));
    }

    [Fact]
    public async Task A_client_learns_that_the_agent_is_gone()
    {
        using ServedAgent served = new(new FakeAgent("n0"));
        Listener listener = new();
        using var client = ControlClient.Connect(served.Folder, listener);
        _ = client.BeginRun(new RunRequest(null, "sort", null, 0, 0));
        served.Die();
        await listener.Lost.Task.WaitAsync(Patience, TestContext.Current.CancellationToken);
        Assert.Equal(ExitCodes.NoAgent, Assert.Throws<CommandException>(() => client.EndRun()).ExitCode);
    }

    [Fact]
    public void Without_an_agent_the_client_says_which_one_does_not_run()
    {
        AgentFolder folder = RunDirectory.OfCurrentUser("test-none").Agent("n7");
        CommandException error = Assert.Throws<CommandException>(() => ControlClient.Connect(folder));
        Assert.Equal(ExitCodes.NoAgent, error.ExitCode);
        Assert.Contains("n7", error.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("no json\n")]
    [InlineData("{\"operation\":\"Frobnicate\"}\n")]
    [InlineData("null\n")]
    [InlineData("[1,2\n")]
    public void Garbage_is_answered_with_an_error_and_the_end_of_the_connection(string garbage)
    {
        using ServedAgent served = new(new FakeAgent("n0"));
        using (var socket = UnixSocket.Connect(served.Folder.ControlSocket, UnixSocketType.Stream))
        {
            _ = socket.Send(Encoding.UTF8.GetBytes(garbage), -1, wait: true);
            Assert.Contains("\"error\"", ReadToEnd(socket), StringComparison.Ordinal);
        }
        using var client = ControlClient.Connect(served.Folder);
        Assert.Equal("n0", client.GetStatus().Self);
    }

    [Fact]
    public void A_request_without_end_is_cut_off()
    {
        using ServedAgent served = new(new FakeAgent("n0"));
        using var socket = UnixSocket.Connect(served.Folder.ControlSocket, UnixSocketType.Stream);
        byte[] endless = Encoding.ASCII.GetBytes(new string('x', 8192));
        int sent = 0;
        while (sent < 4 * ControlConnection.MaxRequestBytes)
        {
            int bytes = socket.Send(endless, -1, wait: true);
            if (bytes < 0) break;
            sent += bytes;
        }
        // What the server did not take is at most what the socket holds by itself.
        Assert.True(sent < 4 * ControlConnection.MaxRequestBytes || ReadToEnd(socket)
            .Contains("error", StringComparison.Ordinal));
    }

    [Fact]
    public void More_connections_than_the_agent_takes_are_refused_and_say_so()
    {
        using ServedAgent served = new(new FakeAgent("n0"));
        List<ControlClient> open = [];
        CommandException? refusal = null;
        for (int i = 0; i < 100 && refusal is null; i++)
        {
            var client = ControlClient.Connect(served.Folder);
            open.Add(client);
            try { _ = client.GetStatus(); }
            catch (CommandException e) { refusal = e; }
        }
        open.ForEach(client => client.Dispose());
        Assert.NotNull(refusal);
        Assert.InRange(open.Count, 10, 99);
        Assert.Contains("connections", refusal.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_run_that_does_not_read_what_it_is_told_is_ended_before_memory_runs_out()
    {
        FakeAgent agent = new("n0");
        using ServedAgent served = new(agent);
        using var socket = UnixSocket.Connect(served.Folder.ControlSocket, UnixSocketType.Stream);
        ReadOnlySpan<byte> begin = """{"version":1,"id":1,"operation":"BeginRun","run":{"program":"deaf","processId":0,"userId":0}}"""u8;
        _ = socket.Send(begin, -1, wait: true);
        _ = socket.Send("\n"u8, -1, wait: true);
        (_, IRunObserver observer) = await agent.RunBegun.Task.WaitAsync(Patience, TestContext.Current.CancellationToken);
        string message = new('m', 64 * 1024);
        for (int sent = 0; sent < 2 * ControlConnection.MaxBacklogBytes; sent += message.Length) observer.OnMessage(message);
        Assert.Equal("token-1", await agent.RunEnded.WaitAsync(Patience, TestContext.Current.CancellationToken));
    }

    [Fact]
    public async Task Whoever_waits_for_output_to_be_taken_is_told_when_nobody_is_there_to_take_it()
    {
        ControlClient? client = null;
        TaskCompletionSource passedOn = new(TaskCreationOptions.RunContinuationsAsynchronously);
        FakeAgent agent = new("n0")
        {
            OnBegin = observer =>
            {
                client!.Dispose(); // the agent's thread is in here: it does not know yet
                observer.OnRankOutput(0, 1, [1, 2, 3], passedOn.SetResult);
            },
        };
        using ServedAgent served = new(agent);
        client = ControlClient.Connect(served.Folder);
        Assert.Throws<CommandException>(() => client.BeginRun(new RunRequest(null, "sort", null, 0, 0)));
        await passedOn.Task.WaitAsync(Patience, TestContext.Current.CancellationToken);
    }

    [Fact]
    public async Task Messages_that_had_to_wait_arrive_whole_and_in_order()
    {
        FakeAgent agent = new("n0")
        {
            OnBegin = observer =>
            {
                for (int i = 0; i < 100; i++) observer.OnMessage($"{i} {new string('m', 20_000)}");
                observer.OnGuestDetached(100);
            },
        };
        using ServedAgent served = new(agent);
        Listener listener = new();
        using var client = ControlClient.Connect(served.Folder, listener);
        _ = client.BeginRun(new RunRequest(null, "sort", null, 0, 0));
        _ = await listener.Detached.Task.WaitAsync(Patience, TestContext.Current.CancellationToken);
        Assert.Equal(Enumerable.Range(0, 100).Select(i => $"{i} {new string('m', 20_000)}"), listener.Messages);
    }

    [Theory]
    [InlineData(65534, 65534, true, "\"self\":\"n0\"")]
    [InlineData(65533, 65533, false, "you may not use this agent")]
    public async Task The_kernels_word_on_who_connects_decides(int user, int group, bool isMember, string expected)
    {
        Assert.SkipUnless(Libc.GetEffectiveUserId() == 0, "needs root, to be another user");
        const string Ask = """
            import socket, sys
            s = socket.socket(socket.AF_UNIX)
            s.connect(sys.argv[1])
            for number, operation in enumerate(['Status', 'Shutdown']):
                try: s.sendall(b'{"version":1,"id":%d,"operation":"%s"}\n' % (number, operation.encode()))
                except BrokenPipeError: pass  # refused already; the reason is still to be read
                print(s.recv(65536).decode())
            """;
        bool wasStopped = false;
        using ServedAgent served = new(new FakeAgent("n0") { OnShutdown = () => wasStopped = true }, groupId: 65534);
        // The file system would keep them out by itself: open it, so that the credentials are what is tried.
        foreach (string path in new[] { served.Directory.Path, served.Folder.Path, served.Folder.ControlSocket })
        {
            File.SetUnixFileMode(path, (UnixFileMode)0x1FF);
        }
        using var python = Process.Start(new ProcessStartInfo("setpriv",
            [$"--reuid={user}", $"--regid={group}", "--clear-groups", "/usr/bin/env", "python3", "-c", Ask,
                served.Folder.ControlSocket])
        {
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        })!;
        string output = await python.StandardOutput.ReadToEndAsync(TestContext.Current.CancellationToken);
        Assert.Contains(expected, output, StringComparison.Ordinal);
        if (isMember) Assert.Contains("owner or root may stop it", output, StringComparison.Ordinal);
        Assert.False(wasStopped);
    }

    [Fact]
    public void A_guest_is_stopped_by_number_and_an_unknown_one_is_not_found()
    {
        FakeAgent agent = new("n0") { Guests = { new GuestStatus(17, "sort", "sort.1", 1000, 1, 2, 3, 4, 5.5) } };
        using ServedAgent served = new(agent);
        using var client = ControlClient.Connect(served.Folder);
        Assert.True(client.StopGuest(17));
        Assert.False(client.StopGuest(18));
        Assert.Equal([17, 18], agent.Stopped);
    }

    private static string ReadToEnd(UnixSocket socket)
    {
        StringBuilder text = new();
        byte[] buffer = new byte[4096];
        int bytes;
        while ((bytes = socket.Receive(buffer, null)) > 0) text.Append(Encoding.UTF8.GetString(buffer, 0, bytes));
        return text.ToString();
    }

    private sealed class Listener : IRunListener
    {
        public List<string> Messages { get; } = [];

        public List<(int ProcessId, int Descriptor)> Attached { get; } = [];

        public TaskCompletionSource<int> Detached { get; } = new(TaskCreationOptions.RunContinuationsAsynchronously);

        public TaskCompletionSource Lost { get; } = new(TaskCreationOptions.RunContinuationsAsynchronously);

        public void OnMessage(string text) => Messages.Add(text);

        public void OnGuestAttached(int processId, int userfaultfd) => Attached.Add((processId, userfaultfd));

        public void OnGuestDetached(int processId) => Detached.TrySetResult(processId);

        public void OnAgentLost() => Lost.TrySetResult();
    }
}
