// SPDX-License-Identifier: Apache-2.0
using System.CommandLine;
using System.CommandLine.Parsing;
using System.Globalization;
using VSmp.Agent.Control;
using VSmp.Agent.Fabric.FaultInjection;
using VSmp.Agent.Interop;

namespace VSmp.Agent.Cli;

/// <summary><c>vsmp inject</c>: makes things go wrong in a development cluster, on purpose (docs/fault-injection.md).</summary>
internal static class InjectCommand
{
    private const string From = "from";

    /// <summary>The command.</summary>
    public static Command New()
    {
        Command command = CommandLine.NewCommand("inject", "Inject faults into a development cluster: one that vsmp up has started.",
            "vsmp inject kill n1", "vsmp inject partition n0,n1 from n2,n3", "vsmp inject delay n1 20ms --share 10", "vsmp inject corrupt n2 0.1 --to n0",
            "vsmp inject list", "vsmp inject heal");
        command.Subcommands.Add(NewKill());
        command.Subcommands.Add(NewSignal("pause", "Stop a node where it is, by SIGSTOP.", Signals.SIGSTOP));
        command.Subcommands.Add(NewSignal("resume", "Let a paused node go on, by SIGCONT.", Signals.SIGCONT));
        command.Subcommands.Add(NewPartition());
        command.Subcommands.Add(NewHeal());
        command.Subcommands.Add(NewDelay());
        command.Subcommands.Add(NewShare("drop", "Lose messages that a node sends: the connection stalls, and breaks.", FaultKind.Drop,
            "vsmp inject drop n1 0.5"));
        command.Subcommands.Add(NewShare("corrupt", "Flip a bit in messages that a node sends.", FaultKind.Corrupt,
            "vsmp inject corrupt n1 1 --to n0 --seed 7"));
        Command list = CommandLine.NewCommand("list", "List what is in force, and how often it has happened.");
        list.SetAction(parsed => List(Cluster(parsed)));
        command.Subcommands.Add(list);
        return command;
    }

    private static Command NewKill()
    {
        Argument<string> node = NewNode();
        Option<bool> agentAlone = new("--agent") { Description = "The agent's process alone" };
        Command command = CommandLine.NewCommand("kill", "Kill a node, by SIGKILL: keeper, agent and guests.", "vsmp inject kill n1", "vsmp inject kill n1 --agent");
        command.Arguments.Add(node);
        command.Options.Add(agentAlone);
        command.SetAction(parsed =>
        {
            Injections.Kill(Cluster(parsed), parsed.GetValue(node)!, parsed.GetValue(agentAlone));
            return ExitCodes.Ok;
        });
        return command;
    }

    private static Command NewSignal(string name, string description, int signal)
    {
        Argument<string> node = NewNode();
        Command command = CommandLine.NewCommand(name, description, $"vsmp inject {name} n1");
        command.Arguments.Add(node);
        command.SetAction(parsed =>
        {
            Injections.Signal(Cluster(parsed), parsed.GetValue(node)!, signal);
            return ExitCodes.Ok;
        });
        return command;
    }

    private static Command NewPartition()
    {
        Argument<string[]> words = new("NODES")
        {
            Description = "The nodes that are cut off, and from which (default: from all others)",
            HelpName = "NODE[,NODE…] [from NODE[,NODE…]]",
            Arity = ArgumentArity.OneOrMore,
        };
        words.CompletionSources.Add(context => [.. Agents(context.ParseResult), From]);
        words.Validators.Add(result =>
        {
            string[] given = [.. result.Tokens.Select(token => token.Value)];
            if (given.Length is not (1 or 3) || given[0] == From || (given.Length == 3 && given[1] != From))
                result.AddError("write it like: partition n0,n1 from n2,n3");
        });
        Option<bool> oneWay = new("--one-way") { Description = "Lose only what the first send to the second" };
        Command command = CommandLine.NewCommand("partition", "Cut nodes off from others: nothing gets through, and nobody is told.",
            "vsmp inject partition n2", "vsmp inject partition n0,n1 from n2,n3", "vsmp inject partition n1 from n0 --one-way");
        command.Arguments.Add(words);
        command.Options.Add(oneWay);
        command.SetAction(parsed =>
        {
            string[] given = parsed.GetValue(words)!;
            Injections.Partition(Cluster(parsed), Split(given[0]), given.Length == 3 ? Split(given[2]) : null, parsed.GetValue(oneWay));
            return ExitCodes.Ok;
        });
        return command;
    }

    private static Command NewHeal()
    {
        Argument<string?> node = new("NODE") { Description = "The node (default: all)", Arity = ArgumentArity.ZeroOrOne };
        node.CompletionSources.Add(context => Agents(context.ParseResult));
        Command command = CommandLine.NewCommand("heal", "End all faults of the network, or those from and to a node.",
            "vsmp inject heal", "vsmp inject heal n2");
        command.Arguments.Add(node);
        command.SetAction(parsed => Injections.Heal(Cluster(parsed), parsed.GetValue(node)));
        return command;
    }

    private static Command NewDelay()
    {
        Argument<string> node = NewNode();
        Argument<long> time = new("DURATION")
        {
            Description = "The longest time, like 20ms, 500us or 1s; 0 ends it",
            CustomParser = result =>
            {
                string text = result.Tokens[0].Value;
                if (Durations.ParseMicroseconds(text) is { } microseconds and <= FaultOrder.MaxDelayMicroseconds) return microseconds;
                result.AddError($"'{text}' is no time from 0 to {FaultOrder.MaxDelayMicroseconds / 1_000_000}s: write it like 20ms, 500us or 1.5s");
                return 0;
            },
        };
        Option<double> share = new("--share")
        {
            Description = "Of so many messages in a hundred",
            HelpName = "PERCENT",
            DefaultValueFactory = _ => 1,
            CustomParser = ReadPercent,
        };
        Command command = CommandLine.NewCommand("delay", "Hold back messages that a node sends, in order.",
            "vsmp inject delay n1 20ms", "vsmp inject delay n1 2ms --share 5 --to n0");
        command.Arguments.Add(node);
        command.Arguments.Add(time);
        command.Options.Add(share);
        AddTarget(command, node, (parsed, to, seed) =>
            new FaultOrder(FaultKind.Delay, to, parsed.GetValue(time) == 0 ? 0 : parsed.GetValue(share), parsed.GetValue(time), seed));
        return command;
    }

    private static Command NewShare(string name, string description, FaultKind kind, string example)
    {
        Argument<string> node = NewNode();
        Argument<double> share = new("PERCENT") { Description = "So many messages in a hundred, like 5 or 0.1; 0 ends it", CustomParser = ReadPercent };
        Command command = CommandLine.NewCommand(name, description, example);
        command.Arguments.Add(node);
        command.Arguments.Add(share);
        AddTarget(command, node, (parsed, to, seed) => new FaultOrder(kind, to, parsed.GetValue(share), Seed: seed));
        return command;
    }

    private static void AddTarget(Command command, Argument<string> node, Func<ParseResult, string[]?, int?, FaultOrder> orderOf)
    {
        Option<string?> to = new("--to") { Description = "Only what goes to that node (default: to all others)", HelpName = "NODE" };
        to.CompletionSources.Add(context => Agents(context.ParseResult));
        Option<int?> seed = new("--seed") { Description = "Repeats the choices of another time", HelpName = "N" };
        command.Options.Add(to);
        command.Options.Add(seed);
        command.SetAction(parsed =>
        {
            string[]? names = parsed.GetValue(to) is { } one ? [one] : null;
            Injections.Inject(Cluster(parsed), parsed.GetValue(node)!, orderOf(parsed, names, parsed.GetValue(seed)));
            return ExitCodes.Ok;
        });
    }

    private static Argument<string> NewNode()
    {
        Argument<string> node = new("NODE") { Description = "The node" };
        node.CompletionSources.Add(context => Agents(context.ParseResult));
        return node;
    }

    private static double ReadPercent(ArgumentResult result)
    {
        string text = result.Tokens[0].Value;
        if (Durations.ParsePercent(text) is { } share) return share;
        result.AddError($"'{text}' is no part of a hundred: write it like 5 or 0.1");
        return 0;
    }

    private static int List(string cluster)
    {
        IReadOnlyList<InjectedFault> faults = Injections.InForce(LocalAgents.Running(cluster));
        if (faults.Count == 0)
        {
            Output.Line("nothing is injected");
            return ExitCodes.Ok;
        }
        Table table = new(new("node"), new("to"), new("fault"), new("so far", true), new("seed", true));
        foreach (InjectedFault fault in faults)
        {
            table.Add(fault.Node, fault.To ?? "", fault.What, fault.Count?.ToString(CultureInfo.InvariantCulture) ?? "",
                fault.Seed?.ToString(CultureInfo.InvariantCulture) ?? "");
        }
        table.Write();
        return ExitCodes.Ok;
    }

    private static string[] Split(string names) => names.Split(',', StringSplitOptions.RemoveEmptyEntries | StringSplitOptions.TrimEntries);

    private static string Cluster(ParseResult parsed) => parsed.GetValue(CommandLine.ClusterOption)!;

    private static IEnumerable<string> Agents(ParseResult parsed) => CompletionCommand.Agents(parsed.GetValue(CommandLine.ClusterOption));
}
