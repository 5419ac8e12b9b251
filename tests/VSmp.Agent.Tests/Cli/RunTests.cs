// SPDX-License-Identifier: Apache-2.0
using System.Diagnostics;
using System.Text.Json;
using VSmp.Agent.Control;
using VSmp.Agent.Interop;
using VSmp.Agent.Tests.Control;
using Xunit;

namespace VSmp.Agent.Tests.Cli;

public sealed class RunTests : IDisposable
{
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(30);
    private readonly FakeAgent _agent = new("n0");
    private readonly ServedAgent _served;

    public RunTests() => _served = new ServedAgent(_agent);

    public void Dispose() => _served.Dispose();

    [Fact]
    public async Task The_exit_code_of_the_program_passes_through()
    {
        var (exitCode, _, errors) = await Vsmp.RunAsync(_served.Directory, "run", "sh", "-c", "exit 43");
        Assert.Equal("", errors);
        Assert.Equal(43, exitCode);
        Assert.Equal("token-1", await _agent.RunEnded);
    }

    [Fact]
    public async Task Standard_streams_are_the_programs_own()
    {
        using Process process = Vsmp.Start(_served.Directory, "run", "--", "sh", "-c", "cat; echo wrong >&2");
        await process.StandardInput.WriteAsync("hello");
        process.StandardInput.Close();
        Assert.Equal((0, "hello", "wrong\n"), await Vsmp.FinishAsync(process));
    }

    [Fact]
    public async Task The_program_gets_its_arguments_though_they_look_like_options_of_ours()
    {
        var (exitCode, output, _) = await Vsmp.RunAsync(_served.Directory, "run", "--local", "1G", "echo", "--local", "--help",
            "--", "@file", "--cluster=x");
        Assert.Equal((0, "--local --help -- @file --cluster=x\n"), (exitCode, output));
    }

    [Fact]
    public async Task Arguments_and_environment_reach_the_program_byte_for_byte()
    {
        const string Script = """
            X=$(printf 'a\351b') exec "$1" run --cluster "$2" -- \
                sh -c 'printf "%s %s" "$1" "$X" | od -An -tx1' x "$(printf '\377')"
            """;
        using Process shell = Process.Start(new ProcessStartInfo("sh",
            ["-c", Script, "sh", Vsmp.Executable, _served.Directory.Cluster])
        {
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        })!;
        Assert.Equal((0, " ff 20 61 e9 62\n", ""), await Vsmp.FinishAsync(shell));
    }

    [Fact]
    public async Task The_program_is_given_the_guest_library_and_the_way_to_the_agent()
    {
        var (_, output, _) = await Vsmp.RunAsync(_served.Directory, "run", "sh", "-c",
            "echo $LD_PRELOAD $VSMP_RUN $VSMP_GUEST_SOCKET; grep -q libvsmp-guest.so /proc/self/maps && echo loaded");
        string library = Path.Combine(AppContext.BaseDirectory, "libvsmp-guest.so");
        Assert.Equal($"{library} token-1 /nowhere/guest.sock\nloaded\n", output);
    }

    [Fact]
    public async Task An_inherited_preload_is_kept()
    {
        string script = $"LD_PRELOAD=libm.so.6 '{Vsmp.Executable}' run --cluster {_served.Directory.Cluster} sh -c 'echo "
            + "$LD_PRELOAD'";
        using Process shell = Process.Start(new ProcessStartInfo("sh", ["-c", script])
        {
            RedirectStandardOutput = true,
            RedirectStandardError = true
        })!;
        var (_, output, _) = await Vsmp.FinishAsync(shell);
        Assert.EndsWith("libvsmp-guest.so:libm.so.6\n", output, StringComparison.Ordinal);
    }

    [Fact]
    public async Task The_program_gets_the_limits_and_signals_that_the_command_was_started_with()
    {
        const string Look = "ulimit -Sn; grep -E 'Sig(Blk|Ign)' /proc/self/status";
        string wrapped = $"ulimit -Sn 777; {Look}; '{Vsmp.Executable}' run --cluster {_served.Directory.Cluster} -- sh -c "
            + $"\"{Look}\"; true";
        using Process shell = Process.Start(new ProcessStartInfo("bash", ["-c", $"trap '' HUP; {wrapped}"])
        {
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        })!;
        var (_, output, errors) = await Vsmp.FinishAsync(shell);
        string[] lines = output.Split('\n', StringSplitOptions.RemoveEmptyEntries);
        Assert.Equal("", errors);
        Assert.Equal(6, lines.Length);
        Assert.Equal("777", lines[0]);
        Assert.Equal(lines[..2], lines[3..5]);
        Assert.Equal(Ignored(lines[2]), Ignored(lines[5]));
        Assert.Equal(1, Ignored(lines[2]));

        // Without SIGPIPE, which this test's own runtime ignores, and the two signals that are glibc's own.
        static long Ignored(string line) => long.Parse(line.Split('\t')[1], System.Globalization.NumberStyles.HexNumber,
            null) & 0x7fffefff;
    }

    [Theory]
    [InlineData(Signals.SIGKILL)]
    [InlineData(Signals.SIGTERM)]
    [InlineData(11)]
    public void A_signal_that_kills_the_program_ends_the_command_the_same_way(int signal)
    {
        byte[][] arguments = [.. new[] { "vsmp", "run", "--cluster", _served.Directory.Cluster, "--", "sh", "-c",
            $"kill -{signal} $$" }
            .Select(ProcessSpawn.Bytes)];
        int pid = ProcessSpawn.Foreground(ProcessSpawn.Bytes(Vsmp.Executable), arguments,
            [ProcessSpawn.Bytes("PATH=/usr/bin:/bin")]);
        Assert.True(ProcessControl.WaitForExit(ProcessIdentity.Of(pid)!.Value, (int)Patience.TotalMilliseconds));
        Assert.Equal(new ChildExit(pid, IsSignaled: true, signal), ProcessControl.Reap(pid));
    }

    [Theory]
    [InlineData("TERM", Signals.SIGTERM)]
    [InlineData("INT", Signals.SIGINT)]
    [InlineData("HUP", Signals.SIGHUP)]
    [InlineData("QUIT", Signals.SIGQUIT)]
    [InlineData("USR1", Signals.SIGUSR1)]
    [InlineData("USR2", Signals.SIGUSR2)]
    [InlineData("CONT", Signals.SIGCONT)]
    public async Task Signals_are_passed_on(string name, int signal)
    {
        using Process process = Vsmp.Start(_served.Directory, "run", "bash", "-c",
            $"trap 'echo got {name}; exit 7' {name}; echo ready; while :; do read -t 0.05 -u 1; done");
        Assert.Equal("ready", await process.StandardOutput.ReadLineAsync(TestContext.Current.CancellationToken));
        process.Signal(signal);
        var (exitCode, output, _) = await Vsmp.FinishAsync(process);
        Assert.Equal((7, $"got {name}\n"), (exitCode, output));
    }

    [Fact]
    public async Task Messages_of_the_agent_are_shown()
    {
        using Process process = Vsmp.Start(_served.Directory, "run", "--progress", "cat");
        (RunRequest request, IRunObserver observer) = await _agent.RunBegun.Task.WaitAsync(Patience,
            TestContext.Current.CancellationToken);
        Assert.Equal("cat", request.Program);
        observer.OnMessage("the pool is nearly full");
        // The message is on its way before the end of input is.
        Assert.Equal("vsmp: n0: the pool is nearly full",
            await process.StandardError.ReadLineAsync(TestContext.Current.CancellationToken));
        process.StandardInput.Close();
        Assert.Equal(0, (await Vsmp.FinishAsync(process)).ExitCode);
    }

    [Fact]
    public async Task Statistics_are_written_as_documented()
    {
        string file = Path.GetTempFileName();
        var (exitCode, _, errors) = await Vsmp.RunAsync(_served.Directory, "run", "--stats", file, "--name", "mine", "--local",
            "7M", "true");
        Assert.Equal((0, ""), (exitCode, errors));
        using var document = JsonDocument.Parse(await File.ReadAllTextAsync(file, TestContext.Current.CancellationToken));
        File.Delete(file);
        Assert.Equal(
            ["wallSeconds", "agentRestarts", "faultsRead", "faultsWrite", "pagesFetched", "pagesForeseen", "pagesEvicted", "pagesWrittenBack",
                "bytesSent", "bytesReceived", "peakLocalBytes", "peakPoolBytes", "peakPrivateBytes", "faultMicroseconds", "peakHomeBytes", "fabric"],
            document.RootElement.EnumerateObject().Select(member => member.Name));
        Assert.True(document.RootElement.GetProperty("wallSeconds").GetDouble() > 0);
        Assert.Equal(["p50", "p99", "max"], document.RootElement.GetProperty("faultMicroseconds").EnumerateObject()
            .Select(member => member.Name));
        Assert.Equal(4096, document.RootElement.GetProperty("peakHomeBytes").GetProperty("n0").GetInt32());
        (RunRequest request, _) = await _agent.RunBegun.Task;
        Assert.Equal(("mine", 7ul << 20), (request.Name, request.LocalBytes));
    }

    [Fact]
    public async Task When_the_agent_is_lost_its_guests_are_killed_and_the_command_says_so()
    {
        using Process process = Vsmp.Start(_served.Directory, "run", "sh", "-c", "trap '' TERM; sleep 1000 & echo $!; wait");
        int guest = int.Parse((await process.StandardOutput.ReadLineAsync(TestContext.Current.CancellationToken))!, null);
        ProcessIdentity identity = ProcessIdentity.Of(guest)!.Value;
        (_, IRunObserver observer) = await _agent.RunBegun.Task;
        using (FileStream any = File.OpenRead("/dev/null")) observer.OnGuestAttached(guest,
            (int)any.SafeFileHandle.DangerousGetHandle());
        _served.Die();

        var (exitCode, _, errors) = await Vsmp.FinishAsync(process);
        Assert.Equal(ExitCodes.AgentLost, exitCode);
        Assert.Contains("agent n0 was lost", errors, StringComparison.Ordinal);
        Assert.False(identity.IsAlive);
    }

    [Fact]
    public async Task A_killed_command_ends_its_run()
    {
        using Process process = Vsmp.Start(_served.Directory, "run", "sh", "-c", "echo ready; exec sleep 1000");
        _ = await process.StandardOutput.ReadLineAsync(TestContext.Current.CancellationToken);
        int program = int.Parse(await File.ReadAllTextAsync($"/proc/{process.Id}/task/{process.Id}/children",
            TestContext.Current.CancellationToken), null);
        process.Signal(Signals.SIGKILL);
        Assert.Equal("token-1", await _agent.RunEnded.WaitAsync(Patience, TestContext.Current.CancellationToken));
        _ = Libc.Kill(program, Signals.SIGKILL); // a real agent ends its guests
    }

    [Fact]
    public async Task A_descendant_that_outlives_the_program_does_not_keep_the_run()
    {
        var (exitCode, output, _) = await Vsmp.RunAsync(_served.Directory, "run", "sh", "-c",
            "sleep 1000 > /dev/null 2>&1 & echo $!; exit 5");
        Assert.Equal(5, exitCode);
        Assert.Equal("token-1", await _agent.RunEnded);
        _ = Libc.Kill(int.Parse(output, null), Signals.SIGKILL);
    }

    [Fact]
    public async Task The_program_goes_on_when_the_agent_was_killed_and_is_started_again()
    {
        using Process keeper = Process.Start("sleep", "1000");
        FakeAgent first = new("n0");
        using ServedAgent served = new(first, keeper: ProcessIdentity.Of(keeper.Id));
        using Process process = Vsmp.Start(served.Directory, "run", "sh", "-c", "echo ready; read x; exit 43");
        Assert.Equal("ready", await process.StandardOutput.ReadLineAsync(TestContext.Current.CancellationToken));
        served.Die();
        FakeAgent next = new("n0") { Known = { "token-1" }, OnBegin = observer => observer.OnMessage("a guest of it was ended") };
        served.Restart(next);
        Assert.Equal("vsmp: n0: a guest of it was ended", await process.StandardError.ReadLineAsync(TestContext.Current.CancellationToken));
        Assert.Matches(@"^vsmp: n0: its agent was killed and is back after \d+\.\d\d s$",
            await process.StandardError.ReadLineAsync(TestContext.Current.CancellationToken));
        process.StandardInput.Close();
        Assert.Equal((43, "", ""), await Vsmp.FinishAsync(process));
        Assert.Equal("token-1", await next.RunEnded.WaitAsync(Patience, TestContext.Current.CancellationToken));
        keeper.Kill();
    }

    [Fact]
    public async Task A_program_that_ends_while_its_agent_is_started_again_keeps_its_exit_code()
    {
        using Process keeper = Process.Start("sleep", "1000");
        using ServedAgent served = new(new FakeAgent("n0"), keeper: ProcessIdentity.Of(keeper.Id));
        using Process process = Vsmp.Start(served.Directory, "run", "sh", "-c", "echo ready; read x; echo ends; exit 43");
        Assert.Equal("ready", await process.StandardOutput.ReadLineAsync(TestContext.Current.CancellationToken));
        served.Die();
        process.StandardInput.Close();
        Assert.Equal("ends", await process.StandardOutput.ReadLineAsync(TestContext.Current.CancellationToken));
        served.Restart(new FakeAgent("n0") { Known = { "token-1" } });
        Assert.Equal(43, (await Vsmp.FinishAsync(process)).ExitCode);
        keeper.Kill();
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task When_nobody_goes_on_with_the_run_its_guests_are_killed_and_the_command_says_so(bool isAgentBack)
    {
        using Process keeper = Process.Start("sleep", "1000");
        FakeAgent first = new("n0");
        using ServedAgent served = new(first, keeper: ProcessIdentity.Of(keeper.Id));
        using Process process = Vsmp.Start(served.Directory, "run", "sh", "-c", "trap '' TERM; sleep 1000 & echo $!; wait");
        int guest = int.Parse((await process.StandardOutput.ReadLineAsync(TestContext.Current.CancellationToken))!, null);
        ProcessIdentity identity = ProcessIdentity.Of(guest)!.Value;
        (_, IRunObserver observer) = await first.RunBegun.Task;
        using (FileStream any = File.OpenRead("/dev/null")) observer.OnGuestAttached(guest, (int)any.SafeFileHandle.DangerousGetHandle());
        served.Die();
        Assert.True(identity.IsAlive);
        if (isAgentBack) served.Restart(new FakeAgent("n0"));
        else keeper.Kill();
        var (exitCode, _, errors) = await Vsmp.FinishAsync(process);
        Assert.Equal(ExitCodes.AgentLost, exitCode);
        Assert.Contains("agent n0 was lost", errors, StringComparison.Ordinal);
        Assert.False(identity.IsAlive);
        if (isAgentBack) keeper.Kill();
    }

    [Fact]
    public async Task Commands_wait_for_an_agent_that_is_started_again()
    {
        using Process keeper = Process.Start("sleep", "1000");
        using ServedAgent served = new(new FakeAgent("n0"), keeper: ProcessIdentity.Of(keeper.Id));
        served.Die();
        string identity = await File.ReadAllTextAsync(served.Folder.PidFile, TestContext.Current.CancellationToken);
        File.Delete(served.Folder.PidFile);
        Task<(int ExitCode, string Output, string Errors)> status = Vsmp.RunAsync(served.Directory, "status"), guests = Vsmp.RunAsync(served.Directory, "guest", "ls");
        served.Restart(new FakeAgent("n0"));
        await File.WriteAllTextAsync(served.Folder.PidFile, identity, TestContext.Current.CancellationToken);
        Assert.Equal((0, ""), ((await status).ExitCode, (await status).Errors));
        Assert.Equal((0, ""), ((await guests).ExitCode, (await guests).Errors));
        keeper.Kill();
    }

    [Fact]
    public async Task Without_an_agent_it_says_so()
    {
        var (exitCode, _, errors) = await Vsmp.RunAsync(null, "run", "--cluster", "test-nobody", "true");
        Assert.Equal(ExitCodes.NoAgent, exitCode);
        Assert.Equal("vsmp: no agent of cluster test-nobody runs on this host: vsmp up --cluster test-nobody starts some\n",
            errors);
    }

    [Fact]
    public async Task An_unknown_node_is_refused_with_the_nodes_that_there_are()
    {
        var (exitCode, _, errors) = await Vsmp.RunAsync(_served.Directory, "run", "--node", "n9", "true");
        Assert.Equal(ExitCodes.NoAgent, exitCode);
        Assert.Contains("there is n0", errors, StringComparison.Ordinal);
    }
}
