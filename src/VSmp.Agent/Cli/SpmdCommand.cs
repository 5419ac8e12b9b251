// SPDX-License-Identifier: Apache-2.0
using System.CommandLine;
using System.CommandLine.Parsing;
using VSmp.Agent.Checkpointing;
using VSmp.Agent.Control;
using VSmp.Agent.Jobs;
using VSmp.Coherence.Protocols;

namespace VSmp.Agent.Cli;

/// <summary><c>vsmp spmd</c>: ranks of one program on several nodes, with memory that they share.</summary>
internal static class SpmdCommand
{
    private const int BeginMilliseconds = 2_000, RetryMilliseconds = 20;

    /// <summary>The command.</summary>
    public static Command New()
    {
        Option<int> ranks = new("-n", "--ranks") { Description = "How many ranks to start", HelpName = "N", Required = true };
        ranks.Validators.Add(result =>
        {
            // A value that is no number is the parser's to refuse.
            if (result.Errors.Any() || result.Tokens.Count == 0 || !int.TryParse(result.Tokens[0].Value, out int n)) return;
            if (n is < 1 or > JobLimits.MaxRanks) result.AddError($"-n: a job has 1 to {JobLimits.MaxRanks} ranks");
        });
        Option<string?> on = new("--on")
        {
            Description = "The nodes that ranks and memory are spread over, in this order (default: all nodes that are up)",
            HelpName = "A,B,…",
        };
        on.CompletionSources.Add(context => CompletionCommand.Agents(context.ParseResult.GetValue(CommandLine.ClusterOption)));
        Option<string?> name = CommandLine.NewNameOption("--name", "The name of a region that the program attaches without one", "REGION");
        Option<string?> protocol = new("--protocol")
        {
            Description = $"What keeps shared memory coherent: {string.Join(", ", ProtocolCatalog.Names)} (default: {ProtocolCatalog.Names[0]})",
            HelpName = "P",
        };
        protocol.CompletionSources.Add([.. ProtocolCatalog.Names]);
        Option<ulong?> local = CommandLine.NewSizeOption("--local",
            "How much memory of other nodes each node may hold copies of (default: half of what it contributes)");
        Option<Redundancy?> redundancy = CommandLine.NewRedundancyOption("the agent's", "every page has a second home where losing the first would not end the job anyway");
        Option<string?> checkpoint = CommandLine.NewNameOption("--checkpoint", "Where the program calls vsmp_checkpoint, store a generation of the checkpoint of this name", "NAME");
        Option<string?> every = new("--checkpoint-every")
        {
            Description = "How often to take one at most, or auto: as often as loses least for --mtbf, by what they cost (default: at each call); "
                + "without --checkpoint it has the program's name",
            HelpName = "DURATION|auto",
        };
        every.CompletionSources.Add("auto");
        Option<TimeSpan?> mtbf = CommandLine.NewDurationOption("--mtbf", "For auto: the mean time between failures of what the job needs");
        Option<string?> tier = new("--checkpoint-tier")
        {
            Description = "Where checkpoints are: on disk, in the folder of the agents' --checkpoints; or in the memory of nodes, of which one may be lost: with each and a partner, or with each and as a checksum of all (default: disk)",
            HelpName = string.Join('|', SpmdCheckpoints.Tiers),
        };
        tier.CompletionSources.Add([.. SpmdCheckpoints.Tiers]);
        Option<int> keep = new("--keep") { Description = "How many generations to keep", HelpName = "N", DefaultValueFactory = _ => 2 };
        Option<string?> restart = new("--restart")
        {
            Description = "Go on from the latest sound generation of this checkpoint, or from one that is named; the next ones are added to it",
            HelpName = "NAME[@GENERATION]",
        };
        Option<bool> ha = new("--ha")
        {
            Description = "If a node is lost that the job cannot do without, begin it again on the nodes that are left, from its latest checkpoint",
        };
        Option<string?> stats = new("--stats") { Description = "Write what happened at each node to this file, as JSON", HelpName = "FILE" };
        Argument<string[]> program = new("PROGRAM")
        {
            Description = "The program, linked with libvsmp, and its arguments",
            HelpName = "PROGRAM [ARGS…]",
            Arity = ArgumentArity.OneOrMore,
            CaptureRemainingTokens = true,
        };
        Command command = CommandLine.NewCommand("spmd",
            "Run ranks of a program on several nodes, with memory that they share (vsmp.h). Ends with the first exit code that is not 0.",
            "vsmp spmd -n 4 -- ./heat 4096",
            "vsmp spmd -n 8 --on n0,n1 --local 256M --protocol msi -- ./count",
            "vsmp spmd -n 2 --redundancy mirror -- ./assemble reads.fq",
            "vsmp spmd -n 4 --checkpoint heat --checkpoint-every 10m -- ./heat 4096",
            "vsmp spmd -n 4 --restart heat -- ./heat 4096",
            "vsmp spmd -n 4 --ha --checkpoint-every auto --mtbf 12h -- ./heat 4096",
            "vsmp spmd -n 4 --ha --checkpoint-every 1m --checkpoint-tier partner -- ./heat 4096",
            "vsmp spmd -n 2 -- sh -c 'exec ./solve --seed $VSMP_RANK'");
        foreach (Option option in new Option[] { ranks, on, name, protocol, local, redundancy, checkpoint, every, mtbf, tier, keep, restart, ha, stats }) command.Options.Add(option);
        command.Arguments.Add(program);
        command.SetAction(parsed => Run(parsed.GetValue(CommandLine.ClusterOption)!, parsed.GetValue(ranks), parsed.GetValue(on),
            parsed.GetValue(name), parsed.GetValue(protocol), parsed.GetValue(local), parsed.GetValue(redundancy),
            SpmdCheckpoints.Wish(parsed.GetValue(checkpoint), parsed.GetValue(every), parsed.GetValue(mtbf), parsed.GetValue(keep), parsed.GetValue(restart), parsed.GetValue(program)![0], parsed.GetValue(ha), parsed.GetValue(tier)),
            parsed.GetValue(ha),
            parsed.GetValue(stats), parsed.GetValue(program)!));
        return command;
    }

    private static int Run(string cluster, int ranks, string? on, string? name, string? protocol, ulong? local, Redundancy? redundancy,
        CheckpointWish? checkpoint, bool isHighlyAvailable, string? statsFile, string[] words)
    {
        if (words[0].StartsWith('-')) throw new CommandException(ExitCodes.Usage, $"unknown option '{words[0]}' (see vsmp spmd --help)");
        if (protocol is not null && !ProtocolCatalog.Names.Contains(protocol))
        {
            throw new CommandException(ExitCodes.Usage,
                $"--protocol: there is no protocol '{protocol}': there is {string.Join(", ", ProtocolCatalog.Names)}");
        }
        string[]? nodes = on?.Split(',', StringSplitOptions.TrimEntries | StringSplitOptions.RemoveEmptyEntries);
        if (nodes is { Length: 0 }) throw new CommandException(ExitCodes.Usage, "--on: it names no node");
        if (nodes?.FirstOrDefault(node => !RunDirectory.IsValidName(node)) is { } bad)
        {
            throw new CommandException(ExitCodes.Usage, $"--on: '{bad}' is no valid name of a node");
        }
        ProgramFile program = ProgramFile.FindAny(words[0], EnvironmentBlock.OfThisProcess().Get("PATH"));
        using FileStream? stats = statsFile is null ? null : RunCommand.OpenStatistics(statsFile);
        JobRequest request = new(ranks, nodes, name, protocol, Path.GetFileName(words[0]), redundancy, checkpoint,
            Command: Array.Exists(words, word => word.Contains('\ufffd')) ? null : words, Directory: Environment.CurrentDirectory);
        int Attempt(JobRequest attempt, out SpmdSupervisor supervisor)
        {
            supervisor = Begin(cluster, attempt, local, isHighlyAvailable);
            using SpmdSupervisor running = supervisor;
            return running.Run(program, EnvironmentBlock.LastArguments(words.Length), EnvironmentBlock.OfThisProcess(), local, stats);
        }
        return isHighlyAvailable ? new SpmdRestarts(cluster, Attempt).Run(request) : Attempt(request, out _);
    }

    /// <summary>Begins the job; again, if an agent is killed meanwhile, or is not quite there again: nothing of it was started.</summary>
    private static SpmdSupervisor Begin(string cluster, JobRequest request, ulong? localBytes, bool isRestartable)
    {
        IReadOnlyList<AgentFolder> agents = LocalAgents.RunningAll(cluster); // one that is being started again is on this host all the same
        // Of this host's nodes the one with the lowest ranks, as they are placed: one without ranks, should it be lost, would end the job for nothing.
        AgentFolder leader = request.Nodes?.Select(node => agents.FirstOrDefault(agent => agent.Name == node)).FirstOrDefault(agent => agent is not null)
            ?? agents.OrderBy(agent => agent.Running() is { IsStopped: true }).ThenBy(agent => agent.Name, NaturalOrder.Instance).First();
        long deadline = Environment.TickCount64 + BeginMilliseconds;
        while (true)
        {
            SpmdSupervisor supervisor = new(leader, agents) { IsRestartable = isRestartable };
            try
            {
                supervisor.Begin(request, localBytes);
                return supervisor;
            }
            catch (CommandException e)
            {
                supervisor.Dispose();
                if (e.ExitCode != ExitCodes.NoAgent || leader.Keeper() is null || Environment.TickCount64 >= deadline) throw;
            }
            Thread.Sleep(RetryMilliseconds);
        }
    }
}
