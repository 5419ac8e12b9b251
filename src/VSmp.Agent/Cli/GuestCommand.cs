// SPDX-License-Identifier: Apache-2.0
using System.CommandLine;
using System.Globalization;
using VSmp.Agent.Control;

namespace VSmp.Agent.Cli;

/// <summary><c>vsmp guest</c> and <c>vsmp region</c>: the processes that use pooled memory here, and what they use.</summary>
internal static class GuestCommand
{
    /// <summary><c>vsmp guest</c>.</summary>
    public static Command New()
    {
        Command list = CommandLine.NewCommand("ls", "List the processes on this host that are attached to pooled memory.");
        list.SetAction(parsed => List(parsed.GetValue(CommandLine.ClusterOption)!));
        Argument<int> process = new("PID")
        {
            Description = "The process",
            CustomParser = result =>
            {
                string text = result.Tokens[0].Value;
                if (int.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out int pid) && pid > 0) return pid;
                result.AddError($"'{text}' is no process id");
                return 0;
            },
        };
        Command stop = CommandLine.NewCommand("stop", "End a guest, by SIGKILL. Its pooled memory is given back.",
            "vsmp guest stop 4711");
        stop.Arguments.Add(process);
        stop.SetAction(parsed => Stop(parsed.GetValue(CommandLine.ClusterOption)!, parsed.GetValue(process)));
        Command command = CommandLine.NewCommand("guest", "The processes that use pooled memory.",
            "vsmp guest ls", "vsmp guest stop 4711");
        command.Subcommands.Add(list);
        command.Subcommands.Add(stop);
        return command;
    }

    /// <summary><c>vsmp region</c>.</summary>
    public static Command NewRegion()
    {
        Command list = CommandLine.NewCommand("ls",
            "List the regions that this host's agents made or are home to, and where their pages live.");
        list.SetAction(parsed => ListRegions(parsed.GetValue(CommandLine.ClusterOption)!));
        Command command = CommandLine.NewCommand("region", "Coherent address ranges.", "vsmp region ls");
        command.Subcommands.Add(list);
        return command;
    }

    private static int List(string cluster)
    {
        Table table = new(new("node"), new("pid", true), new("program"), new("region"), new("user", true), new("pool", true),
            new("local", true), new("private", true), new("faults", true), new("age"));
        foreach (AgentFolder agent in LocalAgents.RunningAll(cluster))
        {
            using ControlClient client = ControlClient.Connect(agent);
            foreach (GuestStatus guest in client.GetGuests())
            {
                table.Add(agent.Name, Number((ulong)guest.ProcessId), guest.Program, guest.Region, Number(guest.UserId),
                    Sizes.Format(guest.PoolBytes), Sizes.Format(guest.LocalBytes), Sizes.Format(guest.PrivateBytes),
                    Number(guest.Faults), Age(guest.AgeSeconds));
            }
        }
        table.Write();
        return ExitCodes.Ok;
    }

    private static int Stop(string cluster, int processId)
    {
        foreach (AgentFolder agent in LocalAgents.RunningAll(cluster))
        {
            using ControlClient client = ControlClient.Connect(agent);
            if (!client.StopGuest(processId)) continue;
            Output.Line($"process {processId}, a guest of {agent.Name}, is ended");
            return ExitCodes.Ok;
        }
        return CommandLine.Fail(ExitCodes.Failed,
            $"process {processId} is no guest of cluster {cluster} on this host: vsmp guest ls lists them");
    }

    /// <summary>All regions that agents of this host know of, as whoever knows most of each says.</summary>
    internal static IReadOnlyList<RegionStatus> RegionsOf(string cluster)
    {
        Dictionary<string, RegionStatus> regions = [];
        foreach (AgentFolder agent in LocalAgents.RunningAll(cluster))
        {
            using ControlClient client = ControlClient.Connect(agent);
            foreach (RegionStatus region in client.GetRegions())
            {
                // The node that made it knows all of it; the others know their own part.
                if (!regions.TryGetValue(region.Id, out RegionStatus? known) || agent.Name == region.Creator
                    || (known.Creator != agent.Name && region.HomeBytes.Count > known.HomeBytes.Count))
                {
                    regions[region.Id] = region;
                }
            }
        }
        return [.. regions.Values.OrderBy(region => region.Id, StringComparer.Ordinal)];
    }

    private static int ListRegions(string cluster)
    {
        Table table = new(new("region"), new("id"), new("protocol"), new("reserved", true), new("made by"), new("redundancy"), new("homes"));
        foreach (RegionStatus region in RegionsOf(cluster))
        {
            table.Add(region.Name, region.Id, region.Protocol, Sizes.Format(region.ReservedBytes), region.Creator, region.Redundancy,
                string.Join(", ", region.HomeBytes.Where(home => home.Value > 0).OrderBy(home => home.Key, StringComparer.Ordinal)
                    .Select(home => $"{home.Key} {Sizes.Format(home.Value)}")));
        }
        table.Write();
        return ExitCodes.Ok;
    }

    private static string Number(ulong number) => number.ToString(CultureInfo.InvariantCulture);

    private static string Age(double seconds)
    {
        var age = TimeSpan.FromSeconds(Math.Floor(seconds));
        return age.ToString(age.TotalDays >= 1 ? @"d\d\ hh\:mm\:ss" : @"hh\:mm\:ss", CultureInfo.InvariantCulture);
    }
}
