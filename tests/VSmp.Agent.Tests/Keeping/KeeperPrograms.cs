// SPDX-License-Identifier: Apache-2.0
using System.Diagnostics;
using VSmp.Agent.Tests.Cli;
using Xunit;

namespace VSmp.Agent.Tests.Keeping;

/// <summary>The keeper, and the agents of native/tests, as <c>make native</c> builds them.</summary>
internal static class KeeperPrograms
{
    /// <summary>The repository.</summary>
    public static string Root { get; } = FindRoot();

    /// <summary>How long what ought to happen may take.</summary>
    public static TimeSpan Patience { get; } = TimeSpan.FromSeconds(60);

    /// <summary>The keeper.</summary>
    public static string Keeper => Path.Combine(Build, "vsmp-keeper");

    private static string Build { get; } =
        Environment.GetEnvironmentVariable("BUILD") is { Length: > 0 } named ? named : Path.Combine(Root, "build");

    /// <summary>Starts a keeper with an agent of native/tests.</summary>
    public static Process Start(int restartLimit, string agent, params string[] arguments)
    {
        string keeper = Keeper, program = Path.Combine(Build, "tests", agent);
        Assert.True(File.Exists(keeper) && File.Exists(program), $"{keeper} or {program} is not there: run `make native`");
        ProcessStartInfo start = new(keeper, ["--restart-limit", $"{restartLimit}", "--", program, .. arguments])
        {
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        };
        return Process.Start(start)!;
    }

    /// <summary>Runs one to its end.</summary>
    public static async Task<(int ExitCode, string Output, string Errors)> RunAsync(int restartLimit, string agent, params string[] arguments)
    {
        using Process keeper = Start(restartLimit, agent, arguments);
        return await Vsmp.FinishAsync(keeper);
    }

    private static string FindRoot()
    {
        DirectoryInfo? folder = new(AppContext.BaseDirectory);
        while (folder is not null && !File.Exists(Path.Combine(folder.FullName, "VSmp.sln"))) folder = folder.Parent;
        return folder?.FullName ?? throw new InvalidOperationException("the tests run outside of the repository");
    }
}
