// SPDX-License-Identifier: Apache-2.0
using System.Diagnostics;
using System.Globalization;
using VSmp.Agent.Interop;
using VSmp.Agent.Tests.Cli;
using Xunit;

namespace VSmp.Agent.Tests.Keeping;

/// <summary>The keeper, with agents that die and guests whose pages nobody may lose. Agents and guests check what they see.</summary>
public sealed class KeeperTests
{
    private readonly int _seed = Environment.TickCount & 0xFFFFFF;

    [Fact]
    public async Task A_guest_reads_right_data_though_its_agent_is_killed_at_any_moment()
    {
        const int Rounds = 100;
        TestContext.Current.TestOutputHelper?.WriteLine($"seed {_seed}");
        for (int seed = _seed; seed < _seed + Rounds; seed++)
        {
            int kills = seed % 5 == 0 ? 3 : 1; // from the second on, starting again takes its time
            (int exitCode, string output, string errors) =
                await KeeperPrograms.RunAsync(10, "keeper-pages", $"{seed}", $"{kills}");
            Assert.True(exitCode == 0 && output == "guest: read all of it\n", $"seed {seed}: exit code {exitCode}\n{output}{errors}");
        }
    }

    [Fact]
    public async Task A_guest_whose_memory_nobody_holds_is_seen_to_read_zeros()
    {
        (_, string output, _) = await KeeperPrograms.RunAsync(10, "keeper-pages", $"{_seed}", "1", "forget");
        Assert.Matches(@"^FAILED: guest: word 0 of page \d+ is 0 ", output);
    }

    [Fact]
    public async Task A_guest_does_not_outlive_an_agent_that_has_ended_to_read_zeros()
    {
        (int exitCode, string output, string errors) = await KeeperPrograms.RunAsync(10, "keeper-pages", $"{_seed}", "0", "leave");
        Assert.Equal((3, ""), (exitCode, output));
        Assert.Contains("1 guests were left without an agent", errors, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("deadline")]
    [InlineData("threads")]
    [InlineData("foreign")]
    [InlineData("newcomer")]
    [InlineData("dropped")]
    [InlineData("renew")]
    [InlineData("away")]
    public async Task Guests_run_while_there_is_a_lease_and_stop_when_there_is_none(string what)
    {
        (int exitCode, string output, string errors) = await KeeperPrograms.RunAsync(10, "keeper-fence", what);
        Assert.True(exitCode == 0, output + errors);
        TestContext.Current.TestOutputHelper?.WriteLine(output); // how late the fence was
    }

    [Theory]
    [InlineData("errors")]
    [InlineData("most")]
    public async Task The_keeper_answers_errors_keeps_its_limits_and_leaks_nothing(string what)
    {
        (int exitCode, string output, string errors) = await KeeperPrograms.RunAsync(10, "keeper-agent", what);
        Assert.True(exitCode == 0, output + errors);
    }

    [Fact]
    public async Task Nonsense_costs_the_agent_its_life_and_nothing_else()
    {
        TestContext.Current.TestOutputHelper?.WriteLine($"seed {_seed}");
        for (int seed = _seed; seed < _seed + 150; seed++)
        {
            (int exitCode, string output, string errors) = await KeeperPrograms.RunAsync(1, "keeper-agent", "nonsense", $"{seed}");
            Assert.True(exitCode == 0, output + errors);
            Assert.Contains("it is killed", errors, StringComparison.Ordinal);
        }
    }

    [Theory]
    [InlineData(0)]
    [InlineData(7)]
    [InlineData(127)]
    public async Task The_exit_code_of_an_agent_is_passed_through(int code)
    {
        (int exitCode, _, string errors) = await KeeperPrograms.RunAsync(10, "keeper-agent", "exit", $"{code}");
        Assert.Equal((code, ""), (exitCode, errors));
    }

    [Theory]
    [InlineData(Signals.SIGKILL)]
    [InlineData(6)] // SIGABRT, as the runtime ends after an exception that nobody caught
    [InlineData(11)] // SIGSEGV
    public async Task An_agent_that_dies_again_and_again_is_given_up(int signal)
    {
        (int exitCode, _, string errors) = await KeeperPrograms.RunAsync(3, "keeper-agent", "die", $"{signal}");
        Assert.Equal(70, exitCode);
        Assert.Equal(4, errors.Split('\n').Count(line => line.Contains("was killed by signal", StringComparison.Ordinal)));
        Assert.Contains("started again 3 times within a minute: giving up", errors, StringComparison.Ordinal);
    }

    [Fact]
    public async Task An_agent_that_must_not_be_started_again_is_not()
    {
        (int exitCode, _, string errors) = await KeeperPrograms.RunAsync(0, "keeper-agent", "die", "9");
        Assert.Equal(70, exitCode);
        Assert.Contains("not to be started again", errors, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Signals_are_passed_on_the_second_SIGTERM_as_well()
    {
        using CancellationTokenSource patience = new(KeeperPrograms.Patience);
        using Process keeper = KeeperPrograms.Start(10, "keeper-agent", "wait");
        Assert.Equal("waiting", await keeper.StandardOutput.ReadLineAsync(patience.Token));
        keeper.Signal(Signals.SIGHUP);
        Assert.Equal("TERM 0 HUP 1 INT 0", await keeper.StandardOutput.ReadLineAsync(patience.Token));
        keeper.Signal(Signals.SIGINT);
        Assert.Equal("TERM 0 HUP 1 INT 1", await keeper.StandardOutput.ReadLineAsync(patience.Token));
        keeper.Signal(Signals.SIGUSR1); // asks for nothing, and ends nobody
        keeper.Signal(Signals.SIGTERM);
        Assert.Equal("TERM 1 HUP 1 INT 1", await keeper.StandardOutput.ReadLineAsync(patience.Token));
        keeper.Signal(Signals.SIGTERM);
        Assert.Equal(42, (await Vsmp.FinishAsync(keeper)).ExitCode);
    }

    [Fact]
    public async Task An_agent_that_is_killed_by_the_SIGTERM_that_was_passed_on_is_not_started_again()
    {
        string path = Path.Combine(Path.GetTempPath(), string.Create(CultureInfo.InvariantCulture, $"vsmp-k-{Guid.NewGuid():N}"));
        using UnixSocket listener = UnixSocket.Listen(path, UnixSocketType.SequencedPacket, groupId: null);
        using Process keeper = KeeperPrograms.Start(10, "keeper-agent", "lend", path);
        bool hasCome = listener.WaitReadable((int)KeeperPrograms.Patience.TotalMilliseconds);
        _ = Libc.Unlink(path);
        Assert.True(hasCome);
        keeper.Signal(Signals.SIGTERM);
        (int exitCode, _, string errors) = await Vsmp.FinishAsync(keeper);
        Assert.Equal((128 + Signals.SIGTERM, ""), (exitCode, errors));
    }
}
