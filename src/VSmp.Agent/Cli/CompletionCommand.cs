// SPDX-License-Identifier: Apache-2.0
using System.CommandLine;
using VSmp.Agent.Control;

namespace VSmp.Agent.Cli;

/// <summary>
/// <c>vsmp completion</c>: prints what makes a shell complete our commands (the files of packaging/completions).
/// </summary>
internal static class CompletionCommand
{
    private static readonly Dictionary<string, string> Scripts = new()
    {
        ["bash"] = "vsmp.bash",
        ["zsh"] = "_vsmp",
        ["fish"] = "vsmp.fish",
    };

    /// <summary>The command.</summary>
    public static Command New()
    {
        Argument<string> shell = new("SHELL") { Description = string.Join(", ", Scripts.Keys) };
        shell.CompletionSources.Add([.. Scripts.Keys]);
        Command command = CommandLine.NewCommand("completion", "Print a script that teaches a shell to complete vsmp.",
            "source <(vsmp completion bash)", "vsmp completion zsh > ~/.zsh/completions/_vsmp", "vsmp completion fish | source");
        command.Arguments.Add(shell);
        command.SetAction(parsed => Print(parsed.GetValue(shell)!));
        return command;
    }

    /// <summary>Names of clusters that have a folder on this host.</summary>
    public static IEnumerable<string> Clusters()
    {
        string folder = Path.GetDirectoryName(RunDirectory.OfCurrentUser("default").Path)!;
        return Directory.Exists(folder) ? Directory.EnumerateDirectories(folder).Select(path => Path.GetFileName(path)) : [];
    }

    /// <summary>Names of the running agents of a cluster on this host.</summary>
    public static IEnumerable<string> Agents(string? cluster)
    {
        try { return LocalAgents.Running(cluster ?? "default").Select(agent => agent.Name); }
        catch (CommandException) { return []; }
    }

    private static int Print(string shell)
    {
        if (!Scripts.TryGetValue(shell, out string? file))
        {
            throw new CommandException(ExitCodes.Usage,
                $"no completion for '{shell}': there is {string.Join(", ", Scripts.Keys)}");
        }
        using Stream script = typeof(CompletionCommand).Assembly.GetManifestResourceStream($"completions/{file}")!;
        using StreamReader reader = new(script);
        Output.Writer.Write(reader.ReadToEnd());
        return ExitCodes.Ok;
    }
}
