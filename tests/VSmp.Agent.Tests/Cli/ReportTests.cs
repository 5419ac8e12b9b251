// SPDX-License-Identifier: Apache-2.0
using System.Diagnostics;
using System.Text.Json;
using VSmp.Agent.Cli;
using VSmp.Agent.Control;
using VSmp.Agent.Interop;
using VSmp.Agent.Tests.Control;
using Xunit;

namespace VSmp.Agent.Tests.Cli;

public sealed class ReportTests : IDisposable
{
    private readonly FakeAgent _agent = new("n0")
    {
        Guests = { new GuestStatus(4711, "velvetg", "velvetg.1", 1000, 900ul << 20, 128ul << 20, 16ul << 20, 12345, 90061.5) },
    };

    private readonly ServedAgent _served;

    public ReportTests() => _served = new ServedAgent(_agent);

    public void Dispose() => _served.Dispose();

    [Fact]
    public async Task Status_shows_aligned_columns_with_units()
    {
        var (exitCode, output, errors) = await Vsmp.RunAsync(_served.Directory, "status");
        Assert.Equal((0, ""), (exitCode, errors));
        Assert.Equal(
            """
            NODE  STATE  CONTRIBUTED    HOME   CACHE    FREE   USED  PRIVATE  GUESTS  FAULTS/S  ADDRESS
            n0    up         100 MiB  10 MiB  20 MiB  70 MiB  9 MiB    5 MiB       1        12  127.0.0.1:1

            """, output);
    }

    [Fact]
    public async Task Status_as_json_has_bytes()
    {
        var (_, output, _) = await Vsmp.RunAsync(_served.Directory, "status", "--json");
        using var document = JsonDocument.Parse(output);
        JsonElement node = document.RootElement.GetProperty("nodes")[0];
        Assert.Equal(70 << 20, node.GetProperty("freeBytes").GetInt64());
        Assert.Equal("up", node.GetProperty("state").GetString());
    }

    [Fact]
    public async Task Status_watched_goes_on_until_it_is_interrupted()
    {
        using Process process = Vsmp.Start(_served.Directory, "status", "--watch");
        for (int i = 0; i < 4; i++)
        {
            Assert.NotNull(await process.StandardOutput.ReadLineAsync(TestContext.Current.CancellationToken));
        }
        process.Signal(Signals.SIGINT);
        Assert.Equal(0, (await Vsmp.FinishAsync(process)).ExitCode);
    }

    [Fact]
    public async Task Guests_are_listed()
    {
        var (_, output, _) = await Vsmp.RunAsync(_served.Directory, "guest", "ls");
        Assert.Equal(
            """
            NODE   PID  PROGRAM  REGION     USER     POOL    LOCAL  PRIVATE  FAULTS  AGE
            n0    4711  velvetg  velvetg.1  1000  900 MiB  128 MiB   16 MiB   12345  1d 01:01:01

            """, output);
    }

    [Fact]
    public async Task A_guest_is_stopped_and_what_is_none_is_refused()
    {
        Assert.Equal((0, "process 4711, a guest of n0, is ended\n", ""),
            await Vsmp.RunAsync(_served.Directory, "guest", "stop", "4711"));
        var (exitCode, _, errors) = await Vsmp.RunAsync(_served.Directory, "guest", "stop", "1");
        Assert.Equal(ExitCodes.Failed, exitCode);
        Assert.Contains("process 1 is no guest", errors, StringComparison.Ordinal);
        Assert.Equal(ExitCodes.Usage, (await Vsmp.RunAsync(_served.Directory, "guest", "stop", "all")).ExitCode);
    }

    [Fact]
    public async Task Regions_are_listed_with_their_homes()
    {
        var (_, output, _) = await Vsmp.RunAsync(_served.Directory, "region", "ls");
        Assert.Equal(
            """
            REGION  ID   PROTOCOL  RESERVED  MADE BY  REDUNDANCY  HOMES
            sort.1  0.1  MSI         64 MiB  n0       none        n0 64 MiB

            """, output);
    }

    [Fact]
    public async Task Lost_memory_is_listed_with_whose_it_was()
    {
        var (_, output, _) = await Vsmp.RunAsync(_served.Directory, "report", "lost");
        Assert.Equal(
            """
            NODE  PID  PROGRAM  REGION  LOST WITH   LOST  PAGES
            n0     17  sort     sort.1  beta       2 MiB  5, 512-1023

            """, output);
    }

    [Fact]
    public async Task Doctor_finds_an_error_in_an_agents_log()
    {
        var (_, healthy, _) = await Vsmp.RunAsync(_served.Directory, "doctor");
        Assert.DoesNotContain("disk on fire", healthy, StringComparison.Ordinal);
        await File.WriteAllTextAsync(_served.Folder.LogFile,
            "2026-01-01T00:00:00.000Z info  started\n2026-01-01T00:00:01.000Z error disk on fire\n",
                TestContext.Current.CancellationToken);
        var (exitCode, output, _) = await Vsmp.RunAsync(_served.Directory, "doctor");
        Assert.Equal(ExitCodes.Failed, exitCode);
        Assert.Matches("log of n0 +FAIL .*disk on fire", output);
        Assert.Matches("agent n0 +ok ", output);
    }

    [Fact]
    public async Task Doctor_finds_an_agent_that_was_killed()
    {
        _served.Die();
        File.Delete(_served.Folder.PidFile);
        var (exitCode, output, _) = await Vsmp.RunAsync(_served.Directory, "doctor");
        Assert.Equal(ExitCodes.Failed, exitCode);
        Assert.Matches("agent n0 +FAIL +does not run", output);
    }

    [Fact]
    public async Task Doctor_does_not_mind_an_agent_that_is_being_started_again()
    {
        _served.Die();
        File.Delete(_served.Folder.PidFile);
        await File.WriteAllTextAsync(_served.Folder.KeeperFile, $"{ProcessIdentity.Of(Environment.ProcessId)}\n", TestContext.Current.CancellationToken);
        var (_, output, _) = await Vsmp.RunAsync(_served.Directory, "doctor");
        Assert.Matches("agent n0 +warn +was killed, and is being started again", output);
    }

    [Theory]
    [InlineData("2026-01-01T00:00:00.000Z error it broke", "error", "it broke")]
    [InlineData("2026-01-01T00:00:00.000Z info  it works", "info", "it works")]
    [InlineData("2026-01-01T00:00:00.000Z info  no error here", "error", null)]
    [InlineData("rubbish", "error", null)]
    public void A_log_line_is_told_by_its_level(string line, string level, string? message) =>
        Assert.Equal(message, Log.MessageOf(line, level));

    [Theory]
    [InlineData("no-such-command")]
    [InlineData("status", "--no-such-option")]
    [InlineData("up", "--agents", "0")]
    [InlineData("up", "--agents", "many")]
    [InlineData("up", "--memory", "0")]
    [InlineData("up", "--memory", "-1G")]
    [InlineData("up", "--memory", "9999999999999T")]
    [InlineData("up", "--cluster", "../etc")]
    [InlineData("run")]
    [InlineData("run", "--local", "none", "true")]
    [InlineData("run", "--locall", "1G", "true")]
    [InlineData("run", "--name", "a b", "true")]
    [InlineData("run", "--stats", "/nowhere/stats.json", "true")]
    [InlineData("spmd", "-n", "1", "--stats", "/nowhere/stats.json", "true")]
    [InlineData("agent", "--memory", "1G", "--listen", "127.0.0.1:0")]
    [InlineData("agent", "--name", "n0", "--memory", "1M", "--listen", "127.0.0.1:0")]
    [InlineData("agent", "--name", "n0", "--memory", "1G", "--listen", "127.0.0.1:99999")]
    [InlineData("agent", "--name", "n0", "--memory", "1G", "--listen", "no.such.host.invalid:1")]
    [InlineData("agent", "--config", "/nowhere/agent.json")]
    public async Task Bad_input_is_one_line_and_a_usage_error(params string[] arguments)
    {
        var (exitCode, output, errors) = await Vsmp.RunAsync(_served.Directory, arguments);
        Assert.Equal((ExitCodes.Usage, ""), (exitCode, output));
        Assert.StartsWith("vsmp: ", errors, StringComparison.Ordinal);
        Assert.Equal(1, errors.Count(c => c == '\n'));
    }

    [Theory]
    [InlineData("{ \"name\": \"n0\", \"memroy\": \"1G\" }", "memroy")]
    [InlineData("{ \"name\": 7 }", "line 1")]
    [InlineData("{ \"name\": \"n0\", // a comment\n \"memory\": \"huge\", \"listen\": \"127.0.0.1:0\", }", "huge")]
    public async Task A_bad_configuration_file_is_refused_with_the_place(string text, string expected)
    {
        string file = Path.GetTempFileName();
        await File.WriteAllTextAsync(file, text, TestContext.Current.CancellationToken);
        var (exitCode, _, errors) = await Vsmp.RunAsync(null, "agent", "--config", file);
        File.Delete(file);
        Assert.Equal(ExitCodes.Usage, exitCode);
        Assert.Contains(expected, errors, StringComparison.Ordinal);
        Assert.Equal(1, errors.Count(c => c == '\n'));
    }

    [Fact]
    public async Task A_secret_that_is_missing_or_open_to_others_is_refused()
    {
        string[] arguments = ["agent", "--name", "n9", "--memory", "1G", "--listen", "127.0.0.1:0", "--secret"];
        Assert.Equal(ExitCodes.Refused, (await Vsmp.RunAsync(null, [.. arguments, "/nowhere/secret"])).ExitCode);
        string file = Path.GetTempFileName();
        await File.WriteAllTextAsync(file, new string('x', 64), TestContext.Current.CancellationToken);
        File.SetUnixFileMode(file, UnixFileMode.UserRead | UnixFileMode.GroupRead);
        var (exitCode, _, errors) = await Vsmp.RunAsync(null, [.. arguments, file]);
        File.Delete(file);
        Assert.Equal(ExitCodes.Refused, exitCode);
        Assert.Contains("chmod 600", errors, StringComparison.Ordinal);
    }

    [Fact]
    public async Task More_memory_than_the_host_has_is_refused()
    {
        var (exitCode, _, errors) = await Vsmp.RunAsync(null, "up", "--cluster", "test-large", "--memory", "60T");
        Assert.Equal(ExitCodes.NoMemory, exitCode);
        Assert.Contains("120 TiB", errors, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("bash")]
    [InlineData("zsh")]
    [InlineData("fish")]
    public async Task Completion_scripts_ask_the_command_itself(string shell)
    {
        var (exitCode, output, _) = await Vsmp.RunAsync(null, "completion", shell);
        Assert.Equal(0, exitCode);
        Assert.Contains("[suggest:", output, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Suggestions_are_options_and_nodes_that_there_are()
    {
        string line = $"vsmp run --cluster {_served.Directory.Cluster} --node ";
        var (_, output, _) = await Vsmp.RunAsync(null, $"[suggest:{line.Length}]", line);
        Assert.Equal("n0", output.Trim());
        (_, output, _) = await Vsmp.RunAsync(null, "[suggest:13]", "vsmp up --mem");
        Assert.Equal("--membership\n--memory", output.Trim());
    }

    [Fact]
    public async Task Every_command_has_help_and_examples()
    {
        foreach (string command in new[] { "up", "down", "agent", "run", "status", "guest", "region", "doctor", "completion" })
        {
            var (exitCode, output, _) = await Vsmp.RunAsync(null, command, "--help");
            Assert.Equal(0, exitCode);
            Assert.Contains($"vsmp {command}", output[output.IndexOf("Examples:", StringComparison.Ordinal)..],
                StringComparison.Ordinal);
            Assert.Contains("--cluster", output, StringComparison.Ordinal);
        }
    }
}
