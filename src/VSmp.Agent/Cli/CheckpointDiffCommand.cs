// SPDX-License-Identifier: Apache-2.0
using System.CommandLine;
using System.Globalization;
using VSmp.Agent.Checkpointing;
using VSmp.Agent.Control;
using VSmp.Coherence;

namespace VSmp.Agent.Cli;

/// <summary><c>vsmp checkpoint diff</c>: which pages two generations have that differ, by their checksums.</summary>
internal static class CheckpointDiffCommand
{
    /// <summary>The command.</summary>
    public static Command New()
    {
        Argument<string> first = NewSideArgument("FIRST"), second = NewSideArgument("SECOND");
        second.Arity = ArgumentArity.ZeroOrOne;
        Option<bool> pages = new("--pages") { Description = "List the pages that differ, by their addresses, in place of a picture of where they are" };
        Command command = CommandLine.NewCommand("diff",
            "Compare the memory of two generations, of one checkpoint or of two, page by page: NAME@3 is generation 3, NAME the newest; of one alone, "
            + "with the generation before it. Pages with the same checksum are taken for the same. Exit code 0 if nothing differs, 1 if something does, others if they cannot be compared.",
            "vsmp checkpoint diff heat", "vsmp checkpoint diff heat@3 heat@5", "vsmp checkpoint diff heat /mnt/backup/heat --pages");
        command.Arguments.Add(first);
        command.Arguments.Add(second);
        command.Options.Add(pages);
        command.SetAction(parsed => CheckpointCommand.Try(() => Compare(parsed, parsed.GetValue(first)!, parsed.GetValue(second), parsed.GetValue(pages))));
        return command;
    }

    private static Argument<string> NewSideArgument(string name)
    {
        Argument<string> argument = new(name) { Description = "A checkpoint, by its name or the path of its folder (with a slash in it), and which generation", HelpName = "NAME|PATH[@N]" };
        argument.CompletionSources.Add(CheckpointCommand.Names);
        return argument;
    }

    private static int Compare(ParseResult parsed, string first, string? second, bool listsPages)
    {
        (CheckpointFolder folder, Manifest manifest) = Load(parsed, second ?? first);
        (CheckpointFolder Folder, Manifest Manifest) other = second is not null ? Load(parsed, first) : (folder, folder.Store.Load(Before(folder, manifest.Generation)));
        RegionDiff[] regions = RegionDiff.Compare(new(other.Folder.Store, other.Manifest), new(folder.Store, manifest));
        Output.Line($"first   {Describe(other.Folder, other.Manifest)}");
        Output.Line($"second  {Describe(folder, manifest)}");
        Output.Line("");
        ShowFigures(regions);
        RegionDiff[] different = [.. regions.Where(region => region.Where.Marked > 0)];
        if (different.Length > 0)
        {
            Output.Line("");
            if (listsPages) ShowPages(different);
            else
            {
                Output.Line($"where they differ ({RegionPicture.Legend}):");
                RegionPicture.Write(different.Select(region => (region.Name, region.PageCount * PageNumber.Bytes, region.Where)));
            }
        }
        return regions.All(region => region.IsSame) ? ExitCodes.Ok : ExitCodes.Failed;
    }

    private static (CheckpointFolder Folder, Manifest Manifest) Load(ParseResult parsed, string side)
    {
        int at = side.LastIndexOf('@');
        if (at >= 0 && uint.TryParse(side.AsSpan(at + 1), NumberStyles.None, CultureInfo.InvariantCulture, out uint generation))
        {
            CheckpointFolder found = CheckpointCommand.Find(parsed, side[..at]);
            CheckpointCommand.Require(found, generation);
            return (found, found.Store.Load(generation));
        }
        CheckpointFolder folder = CheckpointCommand.Find(parsed, side);
        return (folder, folder.Store.FindNewest(warning => CommandLine.Say(Printable.Of(warning)))
            ?? throw new CommandException(ExitCodes.Unsound, $"checkpoint {Printable.Of(folder.Name)} has no generation that can be used"));
    }

    private static uint Before(CheckpointFolder folder, uint generation) => folder.Store.List().LastOrDefault(one => one < generation) is > 0 and var before ? before
        : throw new CommandException(ExitCodes.Usage, $"checkpoint {Printable.Of(folder.Name)} has no generation before {generation}: name two to compare");

    private static string Describe(CheckpointFolder folder, Manifest manifest) => $"{Printable.Of(folder.Path)}, generation {manifest.Generation}, taken {CheckpointCommand.Time(manifest.TakenAt)}";

    private static void ShowFigures(RegionDiff[] regions)
    {
        Table table = new(new("region"), new("pages", true), new("same", true), new("different", true), new("only in first", true), new("only in second", true), new("note"));
        foreach (RegionDiff region in regions)
        {
            table.Add(Printable.Of(region.Name), Number(region.PageCount), Number(region.PageCount - region.Where.Marked), Number(region.Count(PageDifference.Content)),
                Number(region.Count(PageDifference.OnlyInFirst)), Number(region.Count(PageDifference.OnlyInSecond)), region.Note);
        }
        table.Write();
    }

    private static void ShowPages(RegionDiff[] regions)
    {
        Table table = new(new("region"), new("from", true), new("to", true), new("pages", true), new("what"));
        foreach (RegionDiff region in regions)
        {
            foreach ((PageSpan span, PageDifference difference) in region.Spans)
            {
                ulong start = region.Address + (span.First * PageNumber.Bytes);
                table.Add(Printable.Of(region.Name), $"0x{start:x}", $"0x{start + (span.Count * PageNumber.Bytes) - 1:x}", Number(span.Count), difference switch
                {
                    PageDifference.OnlyInFirst => "only in first",
                    PageDifference.OnlyInSecond => "only in second",
                    _ => "different",
                });
            }
        }
        table.Write();
    }

    private static string Number(ulong number) => number.ToString(CultureInfo.InvariantCulture);
}
