// SPDX-License-Identifier: Apache-2.0
using System.CommandLine;
using System.Globalization;
using VSmp.Agent.Checkpointing;
using VSmp.Agent.Control;
using VSmp.Coherence;

namespace VSmp.Agent.Cli;

/// <summary><c>vsmp checkpoint show</c>: what a generation is made of, and what has changed with it.</summary>
internal static class CheckpointShowCommand
{
    /// <summary>Generations that pages come from, named one by one; what is older is one line.</summary>
    private const int GenerationsShown = 16;

    /// <summary>The command.</summary>
    public static Command New()
    {
        Argument<string> name = CheckpointCommand.NewNameArgument();
        Option<uint?> generation = CheckpointCommand.NewGenerationOption("Which one (default: the newest that can be used)");
        Command command = CommandLine.NewCommand("show", "Show what a generation is made of: regions, who wrote which files, which generations its pages are from, and where its changes lie.",
            "vsmp checkpoint show heat", "vsmp checkpoint show /mnt/backup/heat --generation 3");
        command.Arguments.Add(name);
        command.Options.Add(generation);
        command.SetAction(parsed => CheckpointCommand.Try(() =>
        {
            Show(Find(CheckpointCommand.Find(parsed, parsed.GetValue(name)!), parsed.GetValue(generation)));
            return ExitCodes.Ok;
        }));
        return command;
    }

    private static Look Find(CheckpointFolder folder, uint? generation)
    {
        if (generation is { } wanted)
        {
            CheckpointCommand.Require(folder, wanted);
            return new Look(folder.Store, folder.Store.Load(wanted));
        }
        foreach (uint one in folder.Store.List().Reverse())
        {
            try { return new Look(folder.Store, folder.Store.Load(one)); }
            catch (Exception e) when (e is CheckpointException or IOException) { CommandLine.Say($"generation {one} cannot be used: {Printable.Of(e.Message)}"); }
        }
        throw new CommandException(ExitCodes.Unsound, $"checkpoint {Printable.Of(folder.Name)} has no generation that can be used");
    }

    private static void Show(Look look)
    {
        Manifest manifest = look.Manifest;
        Output.Line($"checkpoint  {Printable.Of(manifest.Name)}, generation {manifest.Generation}, format {manifest.Format}");
        Output.Line($"taken       {CheckpointCommand.Time(manifest.TakenAt)}");
        Output.Line($"program     {Printable.Of(manifest.Program)}, {manifest.Ranks} {(manifest.Ranks == 1 ? "rank" : "ranks")}, {Sizes.Format((ulong)manifest.State.Length)} of state beside its memory");
        ShowRegions(look);
        ShowParts(manifest);
        ShowGenerations(look);
        ShowChanges(look);
    }

    private static void ShowRegions(Look look)
    {
        Output.Line("");
        Table table = new(new("region"), new("size", true), new("address", true), new("pages", true), new("not zero", true), new("changed", true));
        foreach (RegionLook region in look.Regions)
        {
            table.Add(Printable.Of(region.Saved.Name), Sizes.Format(region.Saved.Bytes), $"0x{region.Saved.Address:x}", Number(region.Saved.UsedPages), Number(region.NotZero), Number(region.Changed.Marked));
        }
        table.Write();
    }

    private static void ShowParts(Manifest manifest)
    {
        Output.Line("");
        Table table = new(new("part of node"), new("generation", true), new("pages", true), new("of them zero", true), new("bytes", true));
        foreach (SavedPart part in manifest.Parts)
        {
            table.Add(part.Node, Number(part.Generation), Number(part.Pages), Number(part.Pages - part.StoredPages), Sizes.Format(part.FileBytes));
        }
        table.Write();
    }

    private static void ShowGenerations(Look look)
    {
        Output.Line("");
        ulong all = look.PagesOf.Values.Aggregate(0ul, (sum, pages) => sum + pages);
        Table table = new(new("captured for", true), new("pages", true), new("share", true));
        foreach ((uint generation, ulong pages) in look.PagesOf.Reverse().Take(GenerationsShown)) Add(Number(generation), pages);
        if (look.PagesOf.Count > GenerationsShown) Add("before", look.PagesOf.Reverse().Skip(GenerationsShown).Aggregate(0ul, (sum, one) => sum + one.Value));
        table.Write();

        void Add(string generation, ulong pages) => table.Add(generation, Number(pages), string.Create(CultureInfo.InvariantCulture, $"{100.0 * pages / all:0.0} %"));
    }

    private static void ShowChanges(Look look)
    {
        Output.Line("");
        Output.Line($"changed with generation {look.Manifest.Generation} ({RegionPicture.Legend}):");
        RegionPicture.Write(look.Regions.Select(region => (region.Saved.Name, region.Saved.Bytes, region.Changed)));
    }

    private static string Number(ulong number) => number.ToString(CultureInfo.InvariantCulture);

    /// <summary>What the indexes of a generation say.</summary>
    private sealed class Look
    {
        public Look(CheckpointStore store, Manifest manifest)
        {
            Manifest = manifest;
            Regions = [.. manifest.Regions.Select(region => new RegionLook(region))];
            store.ReadIndex(manifest, Take);
        }

        public Manifest Manifest { get; }

        public RegionLook[] Regions { get; }

        /// <summary>By the generation that they were captured for.</summary>
        public SortedDictionary<uint, ulong> PagesOf { get; } = [];

        private void Take(IndexRecord record)
        {
            RegionLook region = Regions[record.Region];
            if (record.Page.Value >= region.Saved.UsedPages) return; // behind its end, where nobody has put anything
            if (!record.IsZero) region.NotZero++;
            if (record.Generation == Manifest.Generation) region.Changed.Mark(record.Page);
            PagesOf[record.Generation] = PagesOf.GetValueOrDefault(record.Generation) + 1;
        }
    }

    /// <summary>A region of it.</summary>
    private sealed class RegionLook(SavedRegion saved)
    {
        public SavedRegion Saved { get; } = saved;

        public ulong NotZero { get; set; }

        public RegionPicture Changed { get; } = new(saved.UsedPages);
    }
}
