// SPDX-License-Identifier: Apache-2.0
using System.Diagnostics;
using System.Text.Json;
using VSmp.Agent.Control;
using VSmp.Agent.Interop;
using Xunit;

namespace VSmp.Agent.Tests.Cli;

/// <summary>Real agents in the background: they mount their frames, and so need root.</summary>
public sealed class UpTests : IAsyncDisposable
{
    private readonly RunDirectory _directory = RunDirectory.OfCurrentUser($"test-{Guid.NewGuid():N}"[..20]);

    public UpTests() => Assert.SkipUnless(Libc.GetEffectiveUserId() == 0, "needs root, to mount a tmpfs");

    public async ValueTask DisposeAsync() => _ = await Vsmp.RunAsync(_directory, "down");

    [Fact]
    public async Task A_cluster_goes_up_once_and_down_without_a_trace()
    {
        var (exitCode, output, errors) = await Vsmp.RunAsync(_directory, "up", "--agents", "2", "--memory", "64M");
        Assert.Equal((0, ""), (exitCode, errors));
        Assert.Contains("is up: 2 agents, each of 64 MiB", output, StringComparison.Ordinal);
        AgentFolder[] agents = [.. _directory.Agents()];
        Assert.Equal(["n0", "n1"], agents.Select(agent => agent.Name));
        ProcessIdentity[] processes = [.. agents.Select(agent => agent.Running()!.Value)];
        ProcessIdentity[] keepers = [.. agents.Select(agent => agent.Keeper()!.Value)];
        Assert.Equal(keepers, agents.Select(agent => agent.Node()!.Value));
        Assert.All(agents, agent => Assert.Contains(agent.Frames, Mounts(), StringComparison.Ordinal));

        using var status = JsonDocument.Parse((await Vsmp.RunAsync(_directory, "status", "--json")).Output);
        Assert.All(status.RootElement.GetProperty("nodes").EnumerateArray(), node =>
            Assert.Equal(64 << 20, node.GetProperty("contributedBytes").GetInt64()));

        (exitCode, _, errors) = await Vsmp.RunAsync(_directory, "up");
        Assert.Equal(ExitCodes.AlreadyUp, exitCode);
        Assert.Contains("is up already (n0, n1)", errors, StringComparison.Ordinal);

        Assert.Equal((0, $"cluster {_directory.Cluster} is down: 2 agents stopped\n", ""),
            await Vsmp.RunAsync(_directory, "down"));
        Assert.DoesNotContain([.. processes, .. keepers], process => process.IsAlive);
        Assert.DoesNotContain(_directory.Path, Mounts(), StringComparison.Ordinal);
        Assert.False(Directory.Exists(_directory.Path));
        Assert.Equal((0, $"cluster {_directory.Cluster} is not up: nothing to stop\n", ""),
            await Vsmp.RunAsync(_directory, "down"));
    }

    [Fact]
    public async Task What_a_crash_left_is_cleaned_up_and_named()
    {
        Assert.Equal(0, (await Vsmp.RunAsync(_directory, "up", "--agents", "2", "--memory", "64M")).ExitCode);
        using Process left = Process.Start("sleep", "1000");
        await File.WriteAllTextAsync(_directory.Agent("n1").GuestsFile, $"{ProcessIdentity.Of(left.Id)}\n",
            TestContext.Current.CancellationToken);
        foreach (AgentFolder agent in _directory.Agents().Reverse()) KillNode(agent); // without the first, which coordinates, the other would end
        Assert.Matches("agent n0 +FAIL +does not run", (await Vsmp.RunAsync(_directory, "doctor")).Output);

        var (exitCode, _, errors) = await Vsmp.RunAsync(_directory, "up", "--agents", "1", "--memory", "64M");
        Assert.Equal(0, exitCode);
        Assert.Contains("unmounted the frames of agent n0", errors, StringComparison.Ordinal);
        Assert.Contains("ended 1 leftover guest of agent n1", errors, StringComparison.Ordinal);
        Assert.True(left.WaitForExit(20_000));
        Assert.DoesNotContain(_directory.Agent("n1").Path, Mounts(), StringComparison.Ordinal);
    }

    [Fact]
    public async Task An_agent_that_cannot_start_says_why_in_one_line()
    {
        Assert.Equal(0, (await Vsmp.RunAsync(_directory, "up", "--agents", "1", "--memory", "64M")).ExitCode);
        using var status = JsonDocument.Parse((await Vsmp.RunAsync(_directory, "status", "--json")).Output);
        string address = status.RootElement.GetProperty("nodes")[0].GetProperty("address").GetString()!;
        string[] common = ["agent", "--memory", "64M", "--join", address], known = [.. common, "--secret", _directory.SecretFile];
        string otherSecret = Path.Combine(_directory.Path, "other");
        await File.WriteAllTextAsync(otherSecret, new string('a', 64), TestContext.Current.CancellationToken);
        File.SetUnixFileMode(otherSecret, UnixFileMode.UserRead | UnixFileMode.UserWrite);

        await Fails(ExitCodes.Taken, "the name n0 is taken", [.. known, "--name", "n0", "--listen", "127.0.0.1:0"]);
        await Fails(ExitCodes.Taken, address, [.. known, "--name", "n1", "--listen", address]);
        await Fails(ExitCodes.Refused, "secret", [.. common, "--name", "n1", "--listen", "127.0.0.1:0", "--secret", otherSecret]);
        await Fails(ExitCodes.Refused, "cluster", [.. known, "--name", "n1", "--listen", "127.0.0.1:0", "--cluster",
            "test-other"]);
        Assert.False(Directory.Exists(RunDirectory.OfCurrentUser("test-other").Path));
        Assert.Equal(["n0"], _directory.Agents().Select(agent => agent.Name));
    }

    [Fact]
    public async Task A_killed_node_frees_its_name()
    {
        Assert.Equal(0, (await Vsmp.RunAsync(_directory, "up", "--agents", "1", "--memory", "64M")).ExitCode);
        KillNode(_directory.Agent("n0"));
        using Process agent = Vsmp.Start(_directory, "agent", "--name", "n0", "--memory", "64M", "--listen", "127.0.0.1:0",
            "--secret", _directory.SecretFile);
        string? line;
        do line = await agent.StandardError.ReadLineAsync(TestContext.Current.CancellationToken);
        while (line is not null && !line.Contains("is ready", StringComparison.Ordinal));
        Assert.NotNull(line);
        agent.Signal(Signals.SIGTERM);
        Assert.Equal(0, (await Vsmp.FinishAsync(agent)).ExitCode);
        Assert.False(_directory.Agent("n0").Exists);
    }

    private static void KillNode(AgentFolder agent)
    {
        ProcessIdentity process = agent.Running()!.Value, keeper = agent.Keeper()!.Value;
        Assert.True(ProcessControl.Signal(process, Signals.SIGSTOP)); // an agent that sees its keeper die ends in order
        foreach (ProcessIdentity one in (ProcessIdentity[])[keeper, process])
        {
            Assert.True(ProcessControl.Signal(one, Signals.SIGKILL));
            Assert.True(ProcessControl.WaitForExit(one, 20_000));
        }
    }

    private static string Mounts() => File.ReadAllText("/proc/self/mountinfo");

    private async Task Fails(int expected, string reason, string[] arguments)
    {
        var (exitCode, _, errors) = await Vsmp.RunAsync(_directory, arguments);
        Assert.True(expected == exitCode, $"exit code {exitCode}: {errors}");
        Assert.Contains(reason, errors, StringComparison.Ordinal);
        Assert.StartsWith("vsmp: ", errors, StringComparison.Ordinal);
        Assert.Equal(1, errors.Count(c => c == '\n'));
    }
}
