// SPDX-License-Identifier: Apache-2.0
using System.CommandLine;
using System.Globalization;
using System.Text.Json;
using VSmp.Agent.Checkpointing;
using VSmp.Agent.Checkpointing.Files;
using VSmp.Agent.Control;
using VSmp.Agent.Interop;

namespace VSmp.Agent.Cli;

/// <summary><c>vsmp checkpoint create</c> and <c>restore</c>: what needs a cluster.</summary>
internal static class CheckpointOrders
{
    private static readonly TimeSpan LookPeriod = TimeSpan.FromMilliseconds(100);

    /// <summary>The command that has one taken.</summary>
    public static Command NewCreate()
    {
        Argument<string> name = new("NAME") { Description = "Its name; generations are added to one that is there", HelpName = "NAME" };
        Argument<string> region = new("REGION") { Description = "A region, by name or number (vsmp region ls): with it, all regions of its job", HelpName = "REGION" };
        Command command = CommandLine.NewCommand("create",
            "Take a checkpoint of a job when it next calls vsmp_checkpoint, and wait until it is safe; or of a program's memory, at once, to look at: nothing can go on from that, since nobody saves registers.",
            "vsmp checkpoint create now grid", "vsmp checkpoint create look 0001000000000001");
        command.Arguments.Add(name);
        command.Arguments.Add(region);
        command.SetAction(parsed => Create(parsed.GetValue(CommandLine.ClusterOption)!, parsed.GetValue(name)!, parsed.GetValue(region)!));
        return command;
    }

    /// <summary>The command that goes on from one.</summary>
    public static Command NewRestore()
    {
        Argument<string> name = CheckpointCommand.NewNameArgument();
        Option<uint?> generation = CheckpointCommand.NewGenerationOption("From this one (default: the latest that can be used)");
        Option<bool> ha = new("--ha") { Description = "As vsmp spmd --ha" };
        Command command = CommandLine.NewCommand("restore", "Go on from a checkpoint of a job: run it as it was run, in the same folder, with the same arguments. (vsmp spmd --restart runs it in another way.)",
            "vsmp checkpoint restore heat", "vsmp checkpoint restore heat --generation 3");
        command.Options.Add(generation);
        command.Options.Add(ha);
        command.Arguments.Add(name);
        command.SetAction(parsed => CheckpointCommand.Try(() =>
            Restore(parsed.GetValue(CommandLine.ClusterOption)!, CheckpointCommand.Find(parsed, parsed.GetValue(name)!), parsed.GetValue(generation), parsed.GetValue(ha))));
        return command;
    }

    private static int Create(string cluster, string name, string regionText)
    {
        if (!RunDirectory.IsValidName(name)) throw new CommandException(ExitCodes.Usage, $"'{name}' is no name for a checkpoint: letters, digits, '.', '_' and '-', 63 at most, a letter or digit first");
        RegionStatus[] found = [.. GuestCommand.RegionsOf(cluster).Where(region => region.Id == regionText || region.Name == regionText)];
        if (found.Length == 0) throw new CommandException(ExitCodes.Usage, $"there is no region {regionText}: vsmp region ls lists them");
        if (found.Length > 1) throw new CommandException(ExitCodes.Usage, $"{found.Length} regions are called {regionText}: say which by its number, {string.Join(" or ", found.Select(region => region.Id))}");
        RegionStatus region = found[0];
        using ControlClient client = LocalAgents.ConnectToAny(LocalAgents.Running(cluster));
        ulong id = ulong.Parse(region.Id, NumberStyles.HexNumber, CultureInfo.InvariantCulture);
        CheckpointProgress progress = Ask(client, region.Creator, new CheckpointRequest(name, id, 0, 0));
        bool wasTold = false;
        for (long began = Environment.TickCount64; progress.IsWaiting; progress = Ask(client, region.Creator, new CheckpointRequest(name, id, 0, progress.Number)))
        {
            if (!wasTold && Environment.TickCount64 - began > 1_000)
            {
                CommandLine.Say($"region {region.Name}: waiting for the program's next vsmp_checkpoint (it is taken then, whoever waits for it)");
                wasTold = true;
            }
            Thread.Sleep(LookPeriod);
        }
        if (progress.Why is { } why) return CommandLine.Fail(ExitCodes.Failed, $"there is no checkpoint: {why}");
        Output.Line($"generation {progress.Generation} of checkpoint {name} is safe");
        return ExitCodes.Ok;
    }

    private static CheckpointProgress Ask(ControlClient client, string node, CheckpointRequest request) => JsonSerializer.Deserialize(
        client.AskNode(node, NodeQuestion.TakeCheckpoint, JsonSerializer.SerializeToUtf8Bytes(request, CheckpointJson.Default.CheckpointRequest)), CheckpointJson.Default.CheckpointProgress)!;

    private static string? TierOf(CheckpointFolder folder, Manifest manifest)
    {
        if (!folder.IsInMemory) return null;
        bool hasSums = folder.Store.Storage.Files(CheckpointStore.FolderOf(manifest.Generation)).Any(file => file.EndsWith(Parity.Suffix, StringComparison.Ordinal));
        return (hasSums ? CheckpointTier.Xor : CheckpointTier.Partner).ToString().ToLowerInvariant();
    }

    private static int Restore(string cluster, CheckpointFolder folder, uint? generation, bool isHighlyAvailable)
    {
        if (generation is { } wanted) CheckpointCommand.Require(folder, wanted);
        Manifest manifest = (generation is { } number ? folder.Store.Load(number) : folder.Store.FindNewest(why => CommandLine.Say(Printable.Of(why))))
            ?? throw new CommandException(ExitCodes.Unsound, $"checkpoint {Printable.Of(folder.Name)} has no generation that can be gone on from");
        if (manifest.Ranks == 0)
        {
            throw new CommandException(ExitCodes.Refused, $"checkpoint {folder.Name} is of the memory of a program ({Printable.Of(manifest.Program)}) whose registers nobody has saved: nothing can go on from it");
        }
        if (manifest.Run is not { } run || run.Command.Count == 0)
        {
            throw new CommandException(ExitCodes.Failed, $"how {Printable.Of(manifest.Program)} was run is not known: vsmp spmd -n {manifest.Ranks} --restart {folder.Name}@{manifest.Generation} -- PROGRAM runs it");
        }
        try { Environment.CurrentDirectory = run.Directory; }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new CommandException(ExitCodes.Failed, $"it was run in {Printable.Of(run.Directory)}, which cannot be gone to: {e.Message}");
        }
        string[] arguments =
        [
            "--cluster", cluster, "spmd", "-n", manifest.Ranks.ToString(CultureInfo.InvariantCulture), "--restart", isHighlyAvailable ? folder.Name : $"{folder.Name}@{manifest.Generation}", "--protocol", run.Protocol,
            "--redundancy", run.IsMirrored ? "mirror" : "none", .. TierOf(folder, manifest) is { } tier ? new[] { "--checkpoint-tier", tier } : [], .. run.Region is { } region ? new[] { "--name", region } : [], .. isHighlyAvailable ? new[] { "--ha" } : [], "--", .. run.Command,
        ];
        CommandLine.Say($"vsmp {string.Join(' ', arguments.Select(Printable.Of))}");
        int error = ProcessSpawn.Exec(ProcessSpawn.Bytes("/proc/self/exe"), [ProcessSpawn.Bytes(Environment.ProcessPath!), .. arguments.Select(ProcessSpawn.Bytes)]);
        throw new CommandException(ExitCodes.Failed, $"vsmp spmd cannot be run: {Errno.Text(error)}");
    }
}
