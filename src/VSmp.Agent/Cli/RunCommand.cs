// SPDX-License-Identifier: Apache-2.0
using System.CommandLine;
using System.Text.Json;
using System.Text.Json.Serialization.Metadata;
using VSmp.Agent.Control;

namespace VSmp.Agent.Cli;

/// <summary><c>vsmp run</c>: a program, unchanged, on pooled memory.</summary>
internal static class RunCommand
{
    private const string LibraryName = "libvsmp-guest.so";

    /// <summary>The command.</summary>
    public static Command New()
    {
        Option<string?> node = CommandLine.NewNameOption("--node",
            "The agent of this host to run at (default: the one with the fewest guests)", "NAME");
        node.CompletionSources.Add(context => CompletionCommand.Agents(context.ParseResult.GetValue(CommandLine.ClusterOption)));
        Option<string?> name = CommandLine.NewNameOption("--name",
            "A name for the program's memory in listings (default: the program's)", "REGION");
        Option<ulong?> local = CommandLine.NewSizeOption("--local",
            "How much of the pooled memory may lie on this node at a time (default: half of what it contributes)");
        Option<Redundancy?> redundancy = CommandLine.NewRedundancyOption("the agent's");
        Option<string?> stats = new("--stats") { Description = "Write what happened to this file, as JSON", HelpName = "FILE" };
        Option<bool> progress = new("--progress") { Description = "Show on standard error what goes on" };
        Argument<string[]> program = new("PROGRAM")
        {
            Description = "The program, and its arguments",
            HelpName = "PROGRAM [ARGS…]",
            Arity = ArgumentArity.OneOrMore,
            CaptureRemainingTokens = true,
        };
        Command command = CommandLine.NewCommand("run",
            "Run a program on pooled memory. Its streams, signals and exit code pass through.",
            "vsmp run velvetg out -exp_cov auto",
            "vsmp run --local 2G --stats stats.json -- stress-ng --vm 1 --vm-bytes 8G --vm-ops 4",
            "vsmp run --redundancy mirror -- velvetg out -exp_cov auto",
            "vsmp run --node n1 -- sh -c 'sort big.txt | uniq -c'");
        foreach (Option option in new Option[] { node, name, local, redundancy, stats, progress }) command.Options.Add(option);
        command.Arguments.Add(program);
        command.SetAction(parsed => Run(
            parsed.GetValue(CommandLine.ClusterOption)!, parsed.GetValue(node), parsed.GetValue(name), parsed.GetValue(local),
            parsed.GetValue(redundancy), parsed.GetValue(stats), parsed.GetValue(progress), parsed.GetValue(program)!));
        return command;
    }

    /// <summary>
    /// Where the guest library lies: beside the command, or where <c>make install</c> puts it. Null if it is in neither.
    /// </summary>
    public static string? FindLibrary() =>
        new[] { AppContext.BaseDirectory, Path.Combine(AppContext.BaseDirectory, "..", "lib", "vsmp") }
            .Select(folder => Path.GetFullPath(Path.Combine(folder, LibraryName)))
            .FirstOrDefault(File.Exists);

    /// <summary>The folder that the libraries lie in; null if they are not there.</summary>
    public static string? LibraryFolder() => Path.GetDirectoryName(FindLibrary());

    private static int Run(string cluster, string? node, string? name, ulong? local, Redundancy? redundancy, string? statsFile,
        bool progress, string[] words)
    {
        if (words[0].StartsWith('-'))
        {
            throw new CommandException(ExitCodes.Usage, $"unknown option '{words[0]}' (see vsmp run --help)");
        }
        EnvironmentBlock environment = EnvironmentBlock.OfThisProcess();
        ProgramFile program = ProgramFile.Find(words[0], environment.Get("PATH"));
        string library = FindLibrary()
            ?? throw new CommandException(ExitCodes.RunFailed,
                $"{LibraryName} is not beside the vsmp command: run make build, or install again");
        if (library.AsSpan().ContainsAny(' ', ':'))
        {
            throw new CommandException(ExitCodes.RunFailed,
                $"the dynamic linker cannot preload {library}, its path has a space or a colon: install vsmp elsewhere");
        }
        using FileStream? stats = statsFile is null ? null : OpenStatistics(statsFile);
        AgentFolder agent = LocalAgents.Choose(cluster, node);
        using RunSupervisor supervisor = new(agent, progress);
        RunTicket ticket = supervisor.Begin(new RunRequest(name, Path.GetFileName(words[0]), local, Environment.ProcessId, 0, Redundancy: redundancy));
        environment.WithPrefix("LD_PRELOAD", library, ':')
            .With("VSMP_GUEST_SOCKET", ticket.GuestSocket)
            .With("VSMP_RUN", ticket.Token);
        byte[][] typed = EnvironmentBlock.LastArguments(words.Length);
        return supervisor.Run(program, typed, environment, stats);
    }

    /// <summary>Opens the file of <c>--stats</c>.</summary>
    public static FileStream OpenStatistics(string file)
    {
        // Before the program starts: not to be told after hours that there is nowhere to write to.
        try { return new FileStream(file, FileMode.Create, FileAccess.Write, FileShare.ReadWrite); }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new CommandException(ExitCodes.Usage, $"--stats: {e.Message}");
        }
    }

    /// <summary>Writes what happened, when everything else is done.</summary>
    public static void WriteStatistics<T>(FileStream file, T statistics, JsonTypeInfo<T> type)
    {
        try
        {
            JsonSerializer.Serialize(file, statistics, type);
            file.WriteByte((byte)'\n');
            file.Flush();
        }
        catch (IOException e) { CommandLine.Say($"cannot write the statistics: {e.Message}"); }
    }
}
