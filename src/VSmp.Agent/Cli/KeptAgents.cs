// SPDX-License-Identifier: Apache-2.0
using System.Globalization;
using VSmp.Agent.Control;

namespace VSmp.Agent.Cli;

/// <summary>How an agent is started so that a keeper stands beside it (docs/keeper.md).</summary>
internal static class KeptAgents
{
    /// <summary>The keeper's program.</summary>
    public const string KeeperName = "vsmp-keeper";

    /// <summary>
    /// How often a keeper starts an agent again within a minute. One that serves, and is killed by what it serves, again and again, must come to an end;
    /// whoever kills agents to see what happens should not reach it. The systemd unit has it, too.
    /// </summary>
    public const int RestartLimit = 100;

    /// <summary>The exit code of a keeper that has given its agent up.</summary>
    public const int GivenUp = 70;

    /// <summary>The command line of a keeper.</summary>
    /// <param name="keeper">Its program.</param>
    /// <param name="agent">The command line of the agent.</param>
    public static string[] CommandLine(string keeper, IEnumerable<string> agent) =>
        [keeper, "--restart-limit", RestartLimit.ToString(CultureInfo.InvariantCulture), "--", .. agent];

    /// <summary>Where the keeper lies: beside the command, or where <c>make install</c> puts it; beside the folder of a command that has one of its own (vsmp-bench).</summary>
    /// <exception cref="CommandException">In neither.</exception>
    public static string FindKeeper() =>
        new[] { "", Path.Combine("..", "lib", "vsmp"), ".." }
            .Select(folder => Path.GetFullPath(Path.Combine(AppContext.BaseDirectory, folder, KeeperName)))
            .FirstOrDefault(File.Exists)
        ?? throw new CommandException(ExitCodes.Failed, $"{KeeperName} is not beside the vsmp command: run make build, or install again");
}
