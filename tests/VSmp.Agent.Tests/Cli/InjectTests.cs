// SPDX-License-Identifier: Apache-2.0
using System.Diagnostics;
using System.Text.Json;
using VSmp.Agent.Control;
using VSmp.Agent.Interop;
using Xunit;

namespace VSmp.Agent.Tests.Cli;

/// <summary><c>vsmp inject</c> at real agents: they mount their frames, and so need root.</summary>
public sealed class InjectTests : IAsyncDisposable
{
    private readonly RunDirectory _directory = RunDirectory.OfCurrentUser($"test-{Guid.NewGuid():N}"[..20]);

    public InjectTests() => Assert.SkipUnless(Libc.GetEffectiveUserId() == 0, "needs root, to mount a tmpfs");

    public async ValueTask DisposeAsync() => _ = await Vsmp.RunAsync(_directory, "down");

    [Fact]
    public async Task What_is_injected_is_listed_shown_in_the_status_and_healed()
    {
        await Succeeds("up", "--agents", "3", "--memory", "64M");
        Assert.Equal("nothing is injected\n", await Succeeds("inject", "list"));
        Assert.DoesNotContain("injected", await Succeeds("status"), StringComparison.Ordinal);
        Assert.Equal("n1 to n0: delay up to 2 ms, 5 %; seed 7\n", await Succeeds("inject", "delay", "n1", "2ms", "--share", "5", "--to", "n0", "--seed", "7"));
        Assert.Equal("n1 to all: corrupt 0.1 %; seed 7\n", await Succeeds("inject", "corrupt", "n1", "0.1%"));
        Assert.Contains("n2 cannot send to n0", await Succeeds("inject", "partition", "n2", "from", "n0", "--one-way"), StringComparison.Ordinal);
        Assert.Contains("injected: n1 to all: corrupt 0.1 %; n1 to n0: delay up to 2 ms, 5 %; n2 to n0: partition (vsmp inject list)",
            await Succeeds("status"), StringComparison.Ordinal);
        using (var status = JsonDocument.Parse(await Succeeds("status", "--json")))
            Assert.Equal(3, status.RootElement.GetProperty("injected").GetArrayLength());
        await Succeeds("inject", "heal", "n0"); // what others have against it
        Assert.Equal(2, (await Succeeds("inject", "list")).Count(c => c == '\n')); // the heading, and what n1 does to all
        Assert.Equal("n1: no corrupt any more\n", await Succeeds("inject", "corrupt", "n1", "0"));
        await Succeeds("inject", "partition", "n0,n1");
        Assert.Equal(5, (await Succeeds("inject", "list")).Count(c => c == '\n'));
        await Succeeds("inject", "heal");
        Assert.Equal("nothing is injected\n", await Succeeds("inject", "list"));
        Assert.Contains("injected on the way to n0: delay up to 2 ms, 5 %; seed 7",
            await File.ReadAllTextAsync(_directory.Agent("n1").LogFile, TestContext.Current.CancellationToken), StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_node_is_paused_resumed_and_killed()
    {
        await Succeeds("up", "--agents", "2", "--memory", "64M");
        ProcessIdentity process = _directory.Agent("n1").Running()!.Value; // n0 coordinates: without it the other would end
        await Succeeds("inject", "pause", "n1");
        Assert.True(process.IsStopped);
        Assert.Contains("injected: n1 is paused", await Succeeds("status"), StringComparison.Ordinal); // by the other
        await Fails(ExitCodes.Failed, "n1 is paused", "inject", "drop", "n1", "1");
        await Succeeds("inject", "resume", "n1");
        Assert.True(process is { IsAlive: true, IsStopped: false });
        ProcessIdentity keeper = _directory.Agent("n1").Keeper()!.Value;
        Assert.Contains($"node n1 (keeper {keeper.ProcessId}, agent {process.ProcessId}) is killed", await Succeeds("inject", "kill", "n1"), StringComparison.Ordinal);
        Assert.False(process.IsAlive || keeper.IsAlive);
        await Fails(ExitCodes.NoAgent, "no agent n1", "inject", "kill", "n1");
        await Succeeds("inject", "pause", "n0");
        Assert.Contains("is down", await Succeeds("down"), StringComparison.Ordinal);
    }

    [Fact]
    public async Task Agents_that_are_of_no_development_cluster_are_left_alone()
    {
        await Succeeds("up", "--agents", "1", "--memory", "64M"); // makes a secret
        using var status = JsonDocument.Parse(await Succeeds("status", "--json"));
        string address = status.RootElement.GetProperty("nodes")[0].GetProperty("address").GetString()!;
        using Process agent = Vsmp.Start(_directory, "agent", "--name", "real", "--memory", "64M", "--listen", "127.0.0.1:0", "--join", address,
            "--secret", _directory.SecretFile);
        string? line;
        do line = await agent.StandardError.ReadLineAsync(TestContext.Current.CancellationToken);
        while (line is not null && !line.Contains("is ready", StringComparison.Ordinal));
        await Fails(ExitCodes.Refused, "no development cluster", "inject", "drop", "real", "1");
        await Fails(ExitCodes.Refused, "no development cluster", "inject", "kill", "real");
        Assert.False(agent.HasExited);
        agent.Signal(Signals.SIGTERM);
        Assert.Equal(0, (await Vsmp.FinishAsync(agent)).ExitCode);
    }

    [Theory]
    [InlineData("no part of a hundred", "drop", "n0", "101")]
    [InlineData("no time from 0 to 60s", "delay", "n0", "20")]
    [InlineData("no time from 0 to 60s", "delay", "n0", "61s")]
    [InlineData("partition n0,n1 from n2,n3", "partition", "n0", "n1")]
    [InlineData("partition n0,n1 from n2,n3", "partition", "from", "n1")]
    public Task What_makes_no_sense_is_refused_before_anything_is_asked(string reason, params string[] words) =>
        Fails(ExitCodes.Usage, reason, ["inject", .. words]);

    private async Task<string> Succeeds(params string[] arguments)
    {
        var (exitCode, output, errors) = await Vsmp.RunAsync(_directory, arguments);
        Assert.True(exitCode == 0, $"vsmp {string.Join(' ', arguments)}: exit code {exitCode}: {errors}");
        return output;
    }

    private async Task Fails(int expected, string reason, params string[] arguments)
    {
        var (exitCode, _, errors) = await Vsmp.RunAsync(_directory, arguments);
        Assert.True(expected == exitCode, $"exit code {exitCode}: {errors}");
        Assert.Contains(reason, errors, StringComparison.Ordinal);
        Assert.StartsWith("vsmp: ", errors, StringComparison.Ordinal);
    }
}
