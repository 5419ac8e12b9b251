// SPDX-License-Identifier: Apache-2.0
using System.CommandLine;
using VSmp.Agent.Control;

namespace VSmp.Agent.Cli;

/// <summary><c>vsmp down</c>: stops the agents of a cluster that run on this host.</summary>
internal static class DownCommand
{
    /// <summary>The command.</summary>
    public static Command New()
    {
        Command command = CommandLine.NewCommand("down",
            "Stop the agents of the cluster on this host, and the guests they serve.",
            "vsmp down", "vsmp down --cluster test");
        command.SetAction(parsed => Run(RunDirectory.OfCurrentUser(parsed.GetValue(CommandLine.ClusterOption)!)));
        return command;
    }

    private static int Run(RunDirectory directory)
    {
        if (directory.Agents().Count == 0)
        {
            UndoSoftRoce(directory);
            if (Directory.Exists(directory.Path)) directory.RemoveIfEmpty();
            Output.Line($"cluster {directory.Cluster} is not up: nothing to stop");
            return ExitCodes.Ok;
        }
        using IDisposable one = directory.Lock();
        IReadOnlyList<AgentFolder> agents = directory.Agents();
        int running = agents.Count(agent => agent.Node() is not null);
        // A coordinator goes last: the others leave through it.
        Daemons.Stop([.. agents.Skip(1)], "vsmp down");
        Daemons.Stop([.. agents.Take(1)], "vsmp down");
        foreach (AgentFolder agent in agents)
        {
            foreach (string what in agent.CleanUp(keepLog: false)) CommandLine.Say($"a crashed run left things behind: {what}");
        }
        UndoSoftRoce(directory);
        directory.RemoveIfEmpty();
        Output.Line($"cluster {directory.Cluster} is down: {running} {(running == 1 ? "agent" : "agents")} stopped");
        return ExitCodes.Ok;
    }

    /// <summary>Removes the RDMA device that <c>vsmp up</c> made, if it did.</summary>
    public static void UndoSoftRoce(RunDirectory directory)
    {
        if (!File.Exists(directory.SoftRoceFile)) return;
        string device = File.ReadAllText(directory.SoftRoceFile);
        if (RdmaHost.RemoveSoftRoce(device) is { } failure) CommandLine.Say($"RDMA device {device} stays: rdma link delete {device}: {failure}");
        else Output.Line($"removed the RDMA device {device}");
        File.Delete(directory.SoftRoceFile);
    }
}
