// SPDX-License-Identifier: Apache-2.0
using System.CommandLine;
using System.Diagnostics;
using System.Globalization;
using System.Text;
using VSmp.Agent.Checkpointing;
using VSmp.Agent.Control;
using VSmp.Coherence;

namespace VSmp.Agent.Cli;

/// <summary><c>vsmp checkpoint</c>: looks at the files of checkpoints, and removes them, without a cluster. With one: <see cref="CheckpointOrders"/>.</summary>
internal static class CheckpointCommand
{
    private const int ProgressMilliseconds = 200;

    /// <summary>The command.</summary>
    public static Command New()
    {
        Command command = CommandLine.NewCommand("checkpoint", "Take, list, show, verify, compare, restore and remove checkpoints. They are files: to look at them no agent is needed, and a copied folder will do.",
            "vsmp checkpoint create now region", "vsmp checkpoint ls", "vsmp checkpoint show heat", "vsmp checkpoint verify /mnt/copy/heat", "vsmp checkpoint diff heat@3 heat@5", "vsmp checkpoint restore heat", "vsmp checkpoint rm heat");
        command.Subcommands.Add(CheckpointOrders.NewCreate());
        command.Subcommands.Add(NewList());
        command.Subcommands.Add(NewShow());
        command.Subcommands.Add(NewVerify());
        command.Subcommands.Add(NewDiff());
        command.Subcommands.Add(CheckpointOrders.NewRestore());
        command.Subcommands.Add(NewRemove());
        return command;
    }

    /// <summary>Text of a file, which may have been made by anybody, fit for a terminal.</summary>
    internal static string Printable(string text) => string.Concat(text.Select(c => char.IsControl(c) || char.IsSurrogate(c) || char.GetUnicodeCategory(c) == UnicodeCategory.Format ? '?' : c));

    internal static Option<string?> NewRootOption() => CommandLine.NewCheckpointsOption("--dir");

    internal static Argument<string> NewNameArgument(Option<string?> root, string name = "NAME")
    {
        Argument<string> argument = new(name) { Description = "A checkpoint, by its name or the path of its folder (with a slash); NAME@N: its generation N", HelpName = name };
        argument.CompletionSources.Add(context =>
        {
            try { return CheckpointFolder.In(context.ParseResult.GetValue(root) ?? CheckpointFolder.DefaultRoot).Select(folder => new System.CommandLine.Completions.CompletionItem(folder.Name)); }
            catch (Exception e) when (e is IOException or UnauthorizedAccessException) { return []; }
        });
        return argument;
    }

    private static Command NewList()
    {
        Option<string?> root = NewRootOption();
        Command command = CommandLine.NewCommand("ls", "List the checkpoints that there are.", "vsmp checkpoint ls", "vsmp checkpoint ls --dir /mnt/checkpoints");
        command.Options.Add(root);
        command.SetAction(parsed => Try(() => List(parsed.GetValue(root) ?? CheckpointFolder.DefaultRoot)));
        return command;
    }

    private static Command NewShow()
    {
        Option<string?> root = NewRootOption();
        Argument<string> name = NewNameArgument(root);
        Command command = CommandLine.NewCommand("show", "Show what a generation has: of which regions, written by whom, and what has changed with it.", "vsmp checkpoint show heat", "vsmp checkpoint show heat@3");
        command.Options.Add(root);
        command.Arguments.Add(name);
        command.SetAction(parsed => Try(() =>
        {
            (CheckpointFolder folder, Manifest manifest) = Find(parsed.GetValue(root), parsed.GetValue(name)!);
            CheckpointPicture.Show(folder, manifest);
            return ExitCodes.Ok;
        }));
        return command;
    }

    private static Command NewVerify()
    {
        Option<string?> root = NewRootOption();
        Argument<string> name = NewNameArgument(root);
        Command command = CommandLine.NewCommand("verify", "Read all of a checkpoint, and find whatever is not as it was written.", "vsmp checkpoint verify heat", "vsmp checkpoint verify /mnt/copy/heat@3");
        command.Options.Add(root);
        command.Arguments.Add(name);
        command.SetAction(parsed => Try(() => Verify(parsed.GetValue(root), parsed.GetValue(name)!)));
        return command;
    }

    private static Command NewDiff()
    {
        Option<string?> root = NewRootOption();
        Argument<string> from = NewNameArgument(root, "FROM"), to = NewNameArgument(root, "TO");
        Option<bool> pages = new("--pages") { Description = "List each range of pages that differ" };
        Command command = CommandLine.NewCommand("diff", "Compare two generations page by page. Ends with 12 if they differ.", "vsmp checkpoint diff heat@3 heat@5", "vsmp checkpoint diff heat@3 /mnt/copy/heat --pages");
        command.Options.Add(root);
        command.Options.Add(pages);
        command.Arguments.Add(from);
        command.Arguments.Add(to);
        command.SetAction(parsed => Try(() =>
        {
            var (folder, manifest) = Find(parsed.GetValue(root), parsed.GetValue(from)!);
            var (otherFolder, other) = Find(parsed.GetValue(root), parsed.GetValue(to)!);
            return CheckpointPicture.Compare(folder, manifest, otherFolder, other, parsed.GetValue(pages)) ? ExitCodes.Ok : ExitCodes.Differs;
        }));
        return command;
    }

    private static Command NewRemove()
    {
        Option<string?> root = NewRootOption();
        Argument<string> name = NewNameArgument(root);
        Command command = CommandLine.NewCommand("rm", "Remove a checkpoint, or one of its generations.", "vsmp checkpoint rm heat", "vsmp checkpoint rm heat@3");
        command.Options.Add(root);
        command.Arguments.Add(name);
        command.SetAction(parsed => Try(() => Remove(parsed.GetValue(root), parsed.GetValue(name)!)));
        return command;
    }

    internal static int Try(Func<int> action)
    {
        try { return action(); }
        catch (CheckpointException e) { throw new CommandException(ExitCodes.Damaged, Printable(e.Message)); }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException) { throw new CommandException(ExitCodes.Failed, Printable(e.Message)); }
    }

    private static int List(string root)
    {
        IReadOnlyList<CheckpointFolder> all = CheckpointFolder.In(root);
        if (all.Count == 0)
        {
            CommandLine.Say($"there are no checkpoints in {root}");
            return ExitCodes.Ok;
        }
        Table table = new(new("name"), new("generations", true), new("latest"), new("program"), new("ranks", true), new("memory", true), new("stored", true));
        foreach (CheckpointFolder folder in all)
        {
            IReadOnlyList<uint> generations = folder.Store.List();
            string stored = Sizes.Format((ulong)Directory.EnumerateFiles(folder.Path, "*", SearchOption.AllDirectories).Sum(file => new FileInfo(file).Length));
            try
            {
                Manifest? latest = generations.Count == 0 ? null : folder.Store.Load(generations[^1]);
                table.Add(folder.Name, string.Join(' ', generations), latest is null ? "-" : When(latest), latest is null ? "-" : Printable(latest.Program),
                    latest?.Ranks.ToString(CultureInfo.InvariantCulture) ?? "-", latest is null ? "-" : Sizes.Format((ulong)latest.Regions.Sum(r => (long)r.Bytes)), stored);
            }
            catch (Exception e) when (e is CheckpointException or IOException) { table.Add(folder.Name, string.Join(' ', generations), Printable(e.Message), "-", "-", "-", stored); }
        }
        table.Write();
        return ExitCodes.Ok;
    }

    /// <summary>When a generation was taken, here.</summary>
    internal static string When(Manifest manifest) => manifest.TakenAt.ToLocalTime().ToString("yyyy-MM-dd HH:mm:ss", CultureInfo.InvariantCulture);

    private static int Verify(string? root, string text)
    {
        (CheckpointFolder folder, uint? wanted) = Parse(root, text);
        IReadOnlyList<uint> generations = wanted is { } one ? [one] : folder.Store.List();
        if (generations.Count == 0) throw new CommandException(ExitCodes.Failed, $"checkpoint {folder.Name} has no generation");
        bool isSound = true;
        foreach (uint generation in generations)
        {
            var watch = Stopwatch.StartNew();
            try
            {
                Manifest manifest = folder.Store.Load(generation);
                ulong all = (ulong)manifest.Parts.Sum(p => (long)p.Pages), stored = (ulong)manifest.Parts.Sum(p => (long)p.StoredPages);
                long told = 0;
                folder.Store.Verify(manifest, done =>
                {
                    if (!Output.IsErrorTerminal || watch.ElapsedMilliseconds - told < ProgressMilliseconds) return;
                    told = watch.ElapsedMilliseconds;
                    Output.Error($"\rgeneration {generation}: {done * 100 / all} % ");
                });
                if (told > 0) Output.Error("\r\u001b[K");
                double seconds = watch.Elapsed.TotalSeconds;
                Output.Line(string.Create(CultureInfo.InvariantCulture,
                    $"generation {generation} is sound: {all} pages, {Sizes.Format(stored * PageNumber.Bytes)} read in {seconds:0.00} s ({stored * PageNumber.Bytes / seconds / 1e9:0.00} GB/s)"));
            }
            catch (Exception e) when (e is CheckpointException or IOException)
            {
                isSound = false;
                Output.Line($"generation {generation} is damaged: {Printable(e.Message)}");
            }
        }
        return isSound ? ExitCodes.Ok : ExitCodes.Damaged;
    }

    private static int Remove(string? root, string text)
    {
        (CheckpointFolder folder, uint? wanted) = Parse(root, text);
        using IDisposable taken = folder.TryLock() ?? throw new CommandException(ExitCodes.Taken, $"checkpoint {folder.Name} is in use: a running job writes it");
        IReadOnlyList<uint> generations = folder.Store.List();
        if (wanted is not { } generation)
        {
            foreach (uint each in generations) folder.Store.Remove(each);
            folder.Store.Sweep();
            Directory.Delete(folder.Path, recursive: true);
            return ExitCodes.Ok;
        }
        if (!generations.Contains(generation)) throw NoGeneration(folder, generation, generations);
        folder.Store.Remove(generation);
        return ExitCodes.Ok;
    }

    private static CommandException NoGeneration(CheckpointFolder folder, uint generation, IReadOnlyList<uint> generations) =>
        new(ExitCodes.Failed, $"checkpoint {folder.Name} has no generation {generation}: there is {(generations.Count == 0 ? "none" : string.Join(", ", generations))}");

    internal static (CheckpointFolder Folder, Manifest Manifest) Find(string? root, string text)
    {
        (CheckpointFolder folder, uint? wanted) = Parse(root, text);
        if (wanted is not { } generation)
        {
            return (folder, folder.Store.FindNewest(why => CommandLine.Say(Printable(why))) ?? throw new CommandException(ExitCodes.Failed, $"checkpoint {folder.Name} has no sound generation"));
        }
        IReadOnlyList<uint> generations = folder.Store.List();
        return generations.Contains(generation) ? (folder, folder.Store.Load(generation)) : throw NoGeneration(folder, generation, generations);
    }

    private static (CheckpointFolder Folder, uint? Generation) Parse(string? root, string text)
    {
        int at = text.LastIndexOf('@');
        uint? generation = null;
        if (at >= 0 && uint.TryParse(text.AsSpan(at + 1), NumberStyles.None, CultureInfo.InvariantCulture, out uint number)) (text, generation) = (text[..at], number);
        if (!text.Contains('/') && !RunDirectory.IsValidName(text)) throw new CommandException(ExitCodes.Usage, $"'{text}' is neither the name of a checkpoint nor, with a slash, a path");
        string folders = root ?? CheckpointFolder.DefaultRoot;
        CheckpointFolder folder = CheckpointFolder.At(folders, text);
        return folder.Exists ? (folder, generation)
            : throw new CommandException(ExitCodes.Failed, text.Contains('/') ? $"there is no folder {folder.Path}" : $"there is no checkpoint {text} in {folders} (--dir says where else to look)");
    }
}
