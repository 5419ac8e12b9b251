// SPDX-License-Identifier: Apache-2.0
using System.Diagnostics;
using VSmp.Agent.Control;
using VSmp.Agent.Interop;
using Xunit;

namespace VSmp.Agent.Tests.Control;

public sealed class AgentFolderTests : IDisposable
{
    private readonly RunDirectory _directory = RunDirectory.OfCurrentUser($"test-{Guid.NewGuid():N}"[..20]);

    public void Dispose()
    {
        foreach (AgentFolder agent in _directory.Agents()) _ = agent.CleanUp(keepLog: false);
        _directory.RemoveIfEmpty();
    }

    [Fact]
    public void A_folder_is_closed_to_others()
    {
        using IDisposable claim = _directory.Agent("n0").Claim(null, out _);
        const UnixFileMode Private = UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute;
        Assert.Equal(Private, File.GetUnixFileMode(_directory.Path));
        Assert.Equal(Private, File.GetUnixFileMode(_directory.Agent("n0").Path));
    }

    [Fact]
    public void A_name_that_is_claimed_is_taken_until_its_owner_is_gone()
    {
        AgentFolder folder = _directory.Agent("n0");
        using (folder.Claim(null, out _))
        {
            Assert.Equal(Environment.ProcessId, folder.Running()?.ProcessId);
            Assert.Equal(ExitCodes.Taken, Assert.Throws<CommandException>(() => _directory.Agent("n0").Claim(null, out _))
                .ExitCode);
        }
        _directory.Agent("n0").Claim(null, out _).Dispose();
    }

    [Fact]
    public void A_node_lives_as_long_as_its_keeper_which_may_be_longer_than_its_agent()
    {
        AgentFolder folder = _directory.Agent("n0");
        Assert.True(folder.IsDead());
        using Process process = Process.Start("sleep", "1000");
        ProcessIdentity keeper = ProcessIdentity.Of(process.Id)!.Value;
        using (folder.Claim(null, out _, keeper))
        {
            Assert.Equal((Environment.ProcessId, keeper, keeper), (folder.Running()?.ProcessId, folder.Keeper(), folder.Node()));
            File.Delete(folder.PidFile);
            Assert.Equal((null, keeper), (folder.Running(), folder.Node()));
        }
        process.Kill();
        Assert.True(folder.IsDead());
        Assert.Null(folder.Node());
        using (folder.Claim(null, out _)) Assert.Equal(folder.Running(), folder.Node()); // one without a keeper
        _ = folder.CleanUp(keepLog: false);
        Assert.False(folder.Exists);
    }

    [Fact]
    public void A_path_too_long_for_a_socket_is_refused_with_the_reason()
    {
        AgentFolder folder = new RunDirectory("/tmp/" + new string('d', 60), "x").Agent(new string('n', 60));
        CommandException error = Assert.Throws<CommandException>(() => folder.Claim(null, out _));
        Assert.Equal(ExitCodes.Usage, error.ExitCode);
        Assert.Contains("shorter", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Guests_that_a_dead_agent_left_are_ended_and_others_with_their_number_are_not()
    {
        AgentFolder folder = _directory.Agent("n0");
        folder.Claim(null, out _).Dispose();
        using Process left = Process.Start("sleep", "1000"), stranger = Process.Start("sleep", "1000");
        ProcessIdentity guest = ProcessIdentity.Of(left.Id)!.Value, other = ProcessIdentity.Of(stranger.Id)!.Value;
        File.WriteAllText(folder.GuestsFile, $"{guest}\n{other with { StartTicks = other.StartTicks + 1 }}\nrubbish\n");

        Assert.Contains("1 leftover guest", Assert.Single(folder.CleanUp(keepLog: false)), StringComparison.Ordinal);

        Assert.True(left.WaitForExit(20_000));
        Assert.False(stranger.HasExited);
        Assert.False(folder.Exists);
        stranger.Kill();
        stranger.WaitForExit();
    }

    [Fact]
    public void A_log_is_kept_where_it_is_asked_for()
    {
        AgentFolder folder = _directory.Agent("n0");
        using (folder.Claim(null, out _))
        {
            File.WriteAllText(folder.LogFile, "2026-01-01T00:00:00.000Z error something\n");
            _ = folder.CleanUp(keepLog: true);
        }
        Assert.True(File.Exists(folder.LogFile));
        Assert.Null(folder.Running());
        Assert.False(File.Exists(folder.PidFile));
    }

    [Fact]
    public void Agents_are_listed_in_the_order_of_their_numbers()
    {
        foreach (string name in new[] { "n10", "n2", "n1" }) _directory.Agent(name).Claim(null, out _).Dispose();
        Assert.Equal(["n1", "n2", "n10"], _directory.Agents().Select(agent => agent.Name));
    }

    [Fact]
    public void A_secret_is_made_once_and_only_its_owner_may_read_it()
    {
        _directory.Create(null);
        _directory.CreateSecret();
        string secret = File.ReadAllText(_directory.SecretFile);
        _directory.CreateSecret();
        Assert.Equal(secret, File.ReadAllText(_directory.SecretFile));
        Assert.Equal(64, secret.Trim().Length);
        Assert.Equal(UnixFileMode.UserRead | UnixFileMode.UserWrite, File.GetUnixFileMode(_directory.SecretFile));
    }

    [Theory]
    [InlineData("n0", true)]
    [InlineData("node-1.rack_2", true)]
    [InlineData("", false)]
    [InlineData("..", false)]
    [InlineData("a/b", false)]
    [InlineData("-x", false)]
    [InlineData("ä", false)]
    public void Names_are_safe_in_paths(string name, bool isValid) => Assert.Equal(isValid, RunDirectory.IsValidName(name));
}
