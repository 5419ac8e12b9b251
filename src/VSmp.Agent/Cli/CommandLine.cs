// SPDX-License-Identifier: Apache-2.0
using System.CommandLine;
using System.CommandLine.Completions;
using System.CommandLine.Help;
using System.CommandLine.Invocation;
using System.CommandLine.Parsing;
using System.Globalization;
using VSmp.Agent.Checkpointing;
using VSmp.Agent.Control;

namespace VSmp.Agent.Cli;

/// <summary>The <c>vsmp</c> command.</summary>
internal static class CommandLine
{
    /// <summary>Which cluster of this host is meant; on every command.</summary>
    public static Option<string> ClusterOption { get; } = NewClusterOption();

    /// <summary>Parses the arguments and runs the command that they name.</summary>
    /// <param name="args">The arguments.</param>
    /// <param name="agentMain">What <c>vsmp agent</c> runs: until it is cancelled, or fails.</param>
    /// <returns>The exit code.</returns>
    public static int Run(string[] args, Func<AgentOptions, CancellationToken, Task<int>> agentMain)
    {
        ParseResult parsed = NewRoot(agentMain).Parse(args, new ParserConfiguration { ResponseFileTokenReplacer = null });
        if (parsed.Action is ParseErrorAction || (parsed.Errors.Count > 0 && parsed.Action is not SynchronousHelp))
        {
            if (args.Length == 0)
            {
                NewRoot(agentMain).Parse(["--help"]).Invoke(new InvocationConfiguration { Output = Output.Writer });
                return ExitCodes.Usage;
            }
            string command = parsed.CommandResult.Command is RootCommand ? "" : $" {PathOf(parsed.CommandResult)}";
            return Fail(ExitCodes.Usage, $"{parsed.Errors[0].Message.TrimEnd('.')} (see vsmp{command} --help)");
        }
        try
        {
            return parsed.Invoke(new InvocationConfiguration
            {
                EnableDefaultExceptionHandler = false,
                ProcessTerminationTimeout = null,
                Output = Output.Writer,
            });
        }
        catch (CommandException e)
        {
            return Fail(e.ExitCode, e.Message);
        }
    }

    /// <summary>Says in one line what is wrong.</summary>
    /// <returns>The exit code, to return it.</returns>
    public static int Fail(int exitCode, string message)
    {
        Say(message);
        return exitCode;
    }

    /// <summary>A line for the user on standard error.</summary>
    public static void Say(string message) => Output.ErrorLine($"vsmp: {message.ReplaceLineEndings(" ")}");

    /// <summary>What there is to say when an agent that was killed was started again, and what one has begun there goes on.</summary>
    public static string AgentIsBack(string agent, TimeSpan away) =>
        string.Create(CultureInfo.InvariantCulture, $"{agent}: its agent was killed and is back after {away.TotalSeconds:0.00} s");

    /// <summary>A command with a description, and examples under its help.</summary>
    public static Command NewCommand(string name, string description, params string[] examples)
    {
        Command command = new(name, description);
        if (examples.Length > 0) SynchronousHelp.Examples[command] = examples;
        return command;
    }

    /// <summary>An option that takes a size.</summary>
    public static Option<ulong?> NewSizeOption(string name, string description) => new(name)
    {
        Description = description,
        HelpName = "SIZE",
        CustomParser = result =>
        {
            if (Sizes.TryParse(result.Tokens[0].Value, out ulong bytes, out string? error)) return bytes;
            result.AddError($"{name}: {error}");
            return null;
        },
    };

    /// <summary>An option that says what memory is to survive.</summary>
    /// <param name="defaultText">What holds if it is not given, for the help.</param>
    /// <param name="mirrorText">What mirror means, for the help.</param>
    public static Option<Redundancy?> NewRedundancyOption(string defaultText, string mirrorText = "every page has a second home, on another node")
    {
        Option<Redundancy?> option = new("--redundancy")
        {
            Description = $"What memory survives: none, or mirror ({mirrorText}) (default: {defaultText})",
            HelpName = "none|mirror",
            CustomParser = result =>
            {
                string text = result.Tokens[0].Value;
                if (ParseRedundancy(text) is { } redundancy) return redundancy;
                result.AddError($"--redundancy: '{text}' is neither none nor mirror");
                return null;
            },
        };
        option.CompletionSources.Add("none", "mirror");
        return option;
    }

    /// <summary>What users call it; null if it is none.</summary>
    public static Redundancy? ParseRedundancy(string text) => text switch
    {
        "none" => Redundancy.None,
        "mirror" => Redundancy.Mirror,
        _ => null,
    };

    /// <summary>An option that takes the name of a cluster, node or region.</summary>
    public static Option<string?> NewNameOption(string name, string description, string helpName)
    {
        Option<string?> option = new(name) { Description = description, HelpName = helpName };
        option.Validators.Add(result => CheckName(result, name));
        return option;
    }

    /// <summary>An option that says where the membership's record is; what it may say is checked by the command.</summary>
    public static Option<string?> NewMembershipOption() => new("--membership")
    {
        Description = "etcd has the record of who is a member, and a majority decides, so that any node may be lost; the same on every node "
            + "(default: the node that founds the cluster decides, and the cluster ends with it)",
        HelpName = "etcd[s]://HOST:PORT[,HOST:PORT...][?OPTIONS]",
    };

    /// <summary>An option that says where checkpoints are.</summary>
    public static Option<string?> NewCheckpointsOption() => new("--checkpoints")
    {
        Description = $"The folder that checkpoints are in: one that all nodes share, or nothing can be restored without the node that wrote it (default: {CheckpointFolder.DefaultRoot})",
        HelpName = "DIR",
    };

    /// <summary>An option that takes a time.</summary>
    public static Option<TimeSpan?> NewDurationOption(string name, string description) => new(name)
    {
        Description = description,
        HelpName = "DURATION",
        CustomParser = result =>
        {
            if (Durations.ParseMicroseconds(result.Tokens[0].Value) is { } microseconds) return TimeSpan.FromMicroseconds(microseconds);
            result.AddError($"{name}: '{result.Tokens[0].Value}' is no time: 30s, 10m, 2h");
            return null;
        },
    };

    /// <summary>An option that names a transport; what it may say is checked by the command.</summary>
    public static Option<string?> NewTransportOption(string description, string helpName) =>
        new("--transport") { Description = $"{description} (default: tcp)", HelpName = helpName };

    private static RootCommand NewRoot(Func<AgentOptions, CancellationToken, Task<int>> agentMain)
    {
        RootCommand root = new("Run a program that needs more memory than one machine has on the memory of several.");
        root.Options.Add(ClusterOption);
        root.Subcommands.Add(UpCommand.New());
        root.Subcommands.Add(DownCommand.New());
        root.Subcommands.Add(AgentCommand.New(agentMain));
        root.Subcommands.Add(RunCommand.New());
        root.Subcommands.Add(SpmdCommand.New());
        root.Subcommands.Add(RanksCommand.New());
        root.Subcommands.Add(StatusCommand.New());
        root.Subcommands.Add(NodeCommand.New());
        root.Subcommands.Add(GuestCommand.New());
        root.Subcommands.Add(GuestCommand.NewRegion());
        root.Subcommands.Add(ReportCommand.New());
        root.Subcommands.Add(AuditCommand.New());
        root.Subcommands.Add(CheckpointCommand.New());
        root.Subcommands.Add(InjectCommand.New());
        root.Subcommands.Add(DoctorCommand.New());
        root.Subcommands.Add(CompletionCommand.New());
        HelpOption help = root.Options.OfType<HelpOption>().Single();
        foreach (string alias in new[] { "/h", "/?" }) _ = help.Aliases.Remove(alias); // of another system
        var action = (HelpAction)help.Action!;
        action.MaxWidth = Output.IsTerminal ? Output.Columns : int.MaxValue;
        help.Action = new SynchronousHelp(action);
        SynchronousHelp.Examples[root] =
        [
            "vsmp up --agents 4 --memory 512M      four agents on this host",
            "vsmp run -- velveth out 31 reads.fa   a program on their pooled memory",
            "vsmp status                           who contributes what",
            "vsmp down",
        ];
        // The only other directives are for the library's own debugging.
        for (int i = root.Directives.Count - 1; i >= 0; i--)
        {
            if (root.Directives[i] is not SuggestDirective) root.Directives.RemoveAt(i);
        }
        return root;
    }

    private static Option<string> NewClusterOption()
    {
        Option<string> option = new("--cluster")
        {
            Description = "Which cluster of this host; also by the environment variable VSMP_CLUSTER",
            HelpName = "NAME",
            Recursive = true,
            DefaultValueFactory = _ => Environment.GetEnvironmentVariable("VSMP_CLUSTER") is { Length: > 0 } name
                ? name
                : "default",
        };
        option.Validators.Add(result => CheckName(result, "--cluster"));
        option.CompletionSources.Add(_ => CompletionCommand.Clusters());
        return option;
    }

    private static void CheckName(OptionResult result, string option)
    {
        string? name = result.GetValueOrDefault<string?>();
        if (name is null || RunDirectory.IsValidName(name)) return;
        result.AddError(
            $"{option}: '{name}' is no valid name: letters, digits, '.', '_' and '-', 63 at most, a letter or digit first");
    }

    private static string PathOf(CommandResult result)
    {
        List<string> names = [];
        for (SymbolResult? at = result; at is CommandResult { Command: not RootCommand } command; at = at.Parent)
        {
            names.Add(command.Command.Name);
        }
        names.Reverse();
        return string.Join(' ', names);
    }

    /// <summary>The library's help, and the command's examples below it.</summary>
    private sealed class SynchronousHelp(HelpAction inner) : SynchronousCommandLineAction
    {
        public static Dictionary<Command, string[]> Examples { get; } = [];

        public override int Invoke(ParseResult parseResult)
        {
            int result = inner.Invoke(parseResult);
            if (!Examples.TryGetValue(parseResult.CommandResult.Command, out string[]? examples)) return result;
            TextWriter output = parseResult.InvocationConfiguration.Output;
            output.WriteLine("Examples:");
            foreach (string example in examples) output.WriteLine($"  {example}");
            output.WriteLine();
            return result;
        }
    }
}
