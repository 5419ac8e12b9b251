// SPDX-License-Identifier: Apache-2.0
namespace VSmp.Agent.Cli;

/// <summary>The <c>vsmp</c> command.</summary>
internal static class CommandLine
{
    /// <summary>Parses the arguments and runs the command that they name.</summary>
    /// <returns>The exit code.</returns>
    public static int Run(string[] args)
    {
        Console.Error.WriteLine($"vsmp: unknown command '{string.Join(' ', args)}'");
        return 2;
    }
}
