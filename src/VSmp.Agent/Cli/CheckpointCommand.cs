// SPDX-License-Identifier: Apache-2.0
using System.CommandLine;
using System.CommandLine.Completions;
using System.Globalization;
using VSmp.Agent.Checkpointing;
using VSmp.Agent.Control;

namespace VSmp.Agent.Cli;

/// <summary><c>vsmp checkpoint</c>: looks at checkpoints, and removes them. It needs no agent: a checkpoint is files. What needs one is in <see cref="CheckpointOrders"/>.</summary>
internal static class CheckpointCommand
{
    /// <summary>Where checkpoints are; on every command of this one.</summary>
    public static Option<string?> DirOption { get; } = new("--dir")
    {
        Description = $"The folder that checkpoints are in (default: {CheckpointFolder.DefaultRoot})",
        HelpName = "DIR",
        Recursive = true,
    };

    /// <summary>Whether those in memory are meant; on every command of this one.</summary>
    public static Option<bool> MemoryOption { get; } = new("--memory")
    {
        Description = "Those in the memory of the cluster's nodes (vsmp spmd --checkpoint-tier), not those of a folder",
        Recursive = true,
    };

    /// <summary>The command.</summary>
    public static Command New()
    {
        Command command = CommandLine.NewCommand("checkpoint", "Take checkpoints, look at them, go on from them, and remove them. They are files: to look at them no agent is needed, and a copied folder will do.",
            "vsmp checkpoint create now grid", "vsmp checkpoint ls", "vsmp checkpoint show heat", "vsmp checkpoint verify /mnt/backup/heat", "vsmp checkpoint diff heat@3 heat@5", "vsmp checkpoint rm heat --generation 3", "vsmp checkpoint ls --memory");
        command.Options.Add(DirOption);
        command.Options.Add(MemoryOption);
        command.Subcommands.Add(CheckpointOrders.NewCreate());
        command.Subcommands.Add(NewList());
        command.Subcommands.Add(CheckpointShowCommand.New());
        command.Subcommands.Add(CheckpointVerifyCommand.New());
        command.Subcommands.Add(CheckpointDiffCommand.New());
        command.Subcommands.Add(CheckpointOrders.NewRestore());
        command.Subcommands.Add(NewRemove());
        return command;
    }

    /// <summary>An argument that says which checkpoint.</summary>
    public static Argument<string> NewNameArgument()
    {
        Argument<string> name = new("NAME") { Description = "Its name; or, with a slash in it, the path of its folder, which may be a copy", HelpName = "NAME|PATH" };
        name.CompletionSources.Add(Names);
        return name;
    }

    /// <summary>An option that says which generation.</summary>
    public static Option<uint?> NewGenerationOption(string description) => new("--generation") { Description = description, HelpName = "N" };

    /// <summary>The names of checkpoints, for a shell.</summary>
    public static IEnumerable<CompletionItem> Names(CompletionContext context)
    {
        ParseResult parsed = context.ParseResult;
        try { return (parsed.GetValue(MemoryOption) ? MemoryOf(parsed).Names() : CheckpointFolder.In(RootOf(parsed))).Select(name => new CompletionItem(name)); }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or CommandException) { return []; }
    }

    /// <summary>The checkpoint that is meant, which is there.</summary>
    /// <exception cref="CommandException">It is not.</exception>
    public static CheckpointFolder Find(ParseResult parsed, string nameOrPath)
    {
        if (parsed.GetValue(MemoryOption))
        {
            CheckpointFolder found = MemoryOf(parsed).At(RootOf(parsed), nameOrPath);
            return found.Exists ? found : throw new CommandException(ExitCodes.Usage, $"there is no checkpoint {Printable.Of(nameOrPath)} in the memory of nodes: vsmp checkpoint ls --memory lists those that there are");
        }
        CheckpointFolder folder = CheckpointFolder.At(RootOf(parsed), nameOrPath);
        if (folder.Exists) return folder;
        string what = Printable.Of(folder.Path);
        throw new CommandException(ExitCodes.Usage, Directory.Exists(folder.Path) ? $"{what} is no checkpoint: there is no generation in it"
            : $"there is no checkpoint {what}: vsmp checkpoint ls lists those that there are");
    }

    /// <summary>Requires that a checkpoint has a generation.</summary>
    /// <exception cref="CommandException">It has not.</exception>
    public static void Require(CheckpointFolder folder, uint generation)
    {
        IReadOnlyList<uint> all = folder.Store.List();
        if (all.Contains(generation)) return;
        throw new CommandException(ExitCodes.Usage, $"checkpoint {Printable.Of(folder.Name)} has no generation {generation}: it has {(all.Count == 0 ? "none" : Spans(all))}");
    }

    /// <summary>Does what reads checkpoints; what is wrong with one is said in a line.</summary>
    /// <exception cref="CommandException">It failed.</exception>
    public static int Try(Func<int> action)
    {
        try { return action(); }
        catch (CheckpointException e) { throw new CommandException(ExitCodes.Unsound, Printable.Of(e.Message)); }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException) { throw new CommandException(ExitCodes.Unsound, $"a checkpoint cannot be read: {Printable.Of(e.Message)}"); }
    }

    /// <summary>Numbers in ascending order, as people write them: <c>1, 3-5</c>.</summary>
    public static string Spans(IEnumerable<uint> numbers)
    {
        var spans = new List<(uint First, uint Last)>();
        foreach (uint number in numbers)
        {
            if (spans.Count > 0 && spans[^1].Last + 1 == number) spans[^1] = (spans[^1].First, number);
            else spans.Add((number, number));
        }
        return string.Join(", ", spans.Select(span => span.First == span.Last ? $"{span.First}" : $"{span.First}-{span.Last}"));
    }

    /// <summary>When something was, by the clock of who asks.</summary>
    public static string Time(DateTimeOffset time) => time.ToLocalTime().ToString("yyyy-MM-dd HH:mm:ss", CultureInfo.InvariantCulture);

    private static string RootOf(ParseResult parsed) => parsed.GetValue(DirOption) ?? CheckpointFolder.DefaultRoot;

    private static CheckpointMemory MemoryOf(ParseResult parsed) => new(parsed.GetValue(CommandLine.ClusterOption)!);

    private static Command NewList()
    {
        Command command = CommandLine.NewCommand("ls", "List the checkpoints: their generations, and what the newest one that can be used was taken of. What is in their files is not looked at: verify does that.",
            "vsmp checkpoint ls", "vsmp checkpoint ls --dir /mnt/backup", "vsmp checkpoint ls --memory");
        command.SetAction(List);
        return command;
    }

    private static int List(ParseResult parsed)
    {
        string root = RootOf(parsed);
        IReadOnlyList<string> names;
        CheckpointMemory? memory = parsed.GetValue(MemoryOption) ? MemoryOf(parsed) : null;
        try { names = memory?.Names() ?? CheckpointFolder.In(root); }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException) { throw new CommandException(ExitCodes.Failed, $"cannot list checkpoints: {Printable.Of(e.Message)}"); }
        if (parsed.GetValue(DirOption) is not null && !Directory.Exists(root)) throw new CommandException(ExitCodes.Usage, $"--dir: there is no folder {Printable.Of(root)}");
        Table table = new(new("name"), new("generations"), new("newest taken"), new("program"), new("ranks", true), new("memory", true), new("stored", true), new("note"));
        foreach (string name in names) Add(table, memory?.At(root, name) ?? CheckpointFolder.At(root, name));
        table.Write();
        return ExitCodes.Ok;
    }

    private static void Add(Table table, CheckpointFolder folder)
    {
        var notes = new List<string>();
        string generations = "-", stored = "-";
        Manifest? newest = null;
        try
        {
            IReadOnlyList<uint> all = folder.Store.List();
            if (all.Count > 0) generations = Spans(all);
            else notes.Add("no generation is complete");
            newest = folder.Store.FindNewest(notes.Add);
            stored = Sizes.Format(folder.Store.CountBytes());
        }
        catch (IOException e) { notes.Add(e.Message); }
        string note = Printable.Of(string.Join("; ", notes));
        if (newest is null) table.Add(folder.Name, generations, "-", "-", "-", "-", stored, note);
        else
        {
            table.Add(folder.Name, generations, Time(newest.TakenAt), Printable.Of(newest.Program), newest.Ranks.ToString(CultureInfo.InvariantCulture), Sizes.Format(MemoryOf(newest)), stored, note);
        }
    }

    private static ulong MemoryOf(Manifest manifest) => manifest.Regions.Aggregate(0ul, (sum, region) => sum + region.Bytes);

    private static Command NewRemove()
    {
        Argument<string> name = NewNameArgument();
        Option<uint?> generation = NewGenerationOption("Remove this one; what others need of its files stays (default: all, and the folder)");
        Command command = CommandLine.NewCommand("rm", "Remove a checkpoint, or one generation of it, for good. Nothing is asked. It is refused while a running job writes that checkpoint.",
            "vsmp checkpoint rm heat", "vsmp checkpoint rm heat --generation 3");
        command.Arguments.Add(name);
        command.Options.Add(generation);
        command.SetAction(parsed =>
        {
            try { return Remove(Find(parsed, parsed.GetValue(name)!), parsed.GetValue(generation)); }
            catch (Exception e) when (e is IOException or UnauthorizedAccessException)
            {
                throw new CommandException(ExitCodes.Failed, $"checkpoint {Printable.Of(parsed.GetValue(name)!)} is not removed, or not all of it: {Printable.Of(e.Message)}");
            }
        });
        return command;
    }

    private static int Remove(CheckpointFolder folder, uint? generation)
    {
        string name = Printable.Of(folder.Name);
        using IDisposable? own = folder.AwaitLock(isToBeMade: false);
        if (own is null) throw new CommandException(ExitCodes.Taken, $"checkpoint {name} is not removed: a running job writes it ({Printable.Of(folder.LockPath)} is locked)");
        if (generation is not { } number)
        {
            Output.Line(folder.Remove() ? $"checkpoint {name} is removed" : $"checkpoint {name} is removed; its folder stays: {Printable.Of(folder.Path)} has other files in it");
            return ExitCodes.Ok;
        }
        Require(folder, number);
        folder.Store.Remove(number);
        string stays = folder.Store.Storage.Folders().Contains(CheckpointStore.FolderOf(number)) ? "; files of it stay that others need, or may need" : "";
        Output.Line($"generation {number} of checkpoint {name} is removed{stays}");
        return ExitCodes.Ok;
    }
}
