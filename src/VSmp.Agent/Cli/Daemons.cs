// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent.Control;
using VSmp.Agent.Interop;

namespace VSmp.Agent.Cli;

/// <summary>Starting agents in the background, and stopping them.</summary>
internal static class Daemons
{
    private const int PoliteMilliseconds = 15_000, TerminateMilliseconds = 5_000, KillMilliseconds = 5_000;

    /// <summary>Starts what starts ranks for a user of another host (<see cref="RanksCommand"/>); what it says goes to the agent's log.</summary>
    /// <returns>Its process id, or minus an errno value.</returns>
    public static int StartRanks(AgentFolder folder, uint userId, uint groupId)
    {
        List<string> words = Self();
        words.AddRange([RanksCommand.Name, "--cluster", folder.RunDirectory.Cluster, folder.RunDirectory.Path, folder.Name, $"{userId}", $"{groupId}"]);
        EnvironmentBlock environment = EnvironmentBlock.OfThisProcess();
        environment.Without("NOTIFY_SOCKET");
        return ProcessSpawn.Daemon(ProcessSpawn.Bytes(words[0]), [.. words.Select(ProcessSpawn.Bytes)], environment.Entries, folder.LogFile);
    }

    /// <summary>Starts a keeper with <c>vsmp agent</c> and these arguments as a daemon, their output appended to the agent's log.</summary>
    /// <returns>The keeper: it lives as long as the node does, and ends with the agent's exit code.</returns>
    public static ProcessIdentity StartAgent(AgentFolder folder, string notifySocket, params string[] arguments)
    {
        List<string> words = Self();
        words.Add("agent");
        words.AddRange(arguments);
        words = [.. KeptAgents.CommandLine(KeptAgents.FindKeeper(), words)];
        Directory.CreateDirectory(folder.Path);
        EnvironmentBlock environment = EnvironmentBlock.OfThisProcess();
        environment.With("NOTIFY_SOCKET", notifySocket).Without("VSMP_CLUSTER");
        int pid = ProcessSpawn.Daemon(
            ProcessSpawn.Bytes(words[0]), [.. words.Select(ProcessSpawn.Bytes)], environment.Entries, folder.LogFile);
        if (pid < 0) throw new CommandException(ExitCodes.Failed, $"cannot start {words[0]}: {Errno.Text(-pid)}");
        return ProcessIdentity.Of(pid) ?? new ProcessIdentity(pid, 0);
    }

    /// <summary>Stops agents: asks, then terminates, then kills; returns when they are gone.</summary>
    public static void Stop(IReadOnlyList<AgentFolder> agents, string reason)
    {
        List<(AgentFolder Folder, ProcessIdentity Process)> running = [];
        foreach (AgentFolder folder in agents)
        {
            if (folder.Node() is not { } process) continue;
            running.Add((folder, process));
            if (folder.Running() is { IsStopped: true } agent) _ = ProcessControl.Signal(agent, Signals.SIGCONT); // paused by vsmp inject: it would not hear us
            try
            {
                using ControlClient client = ControlClient.Connect(folder);
                client.Shutdown(reason);
            }
            catch (CommandException)
            {
                // Not listening, or too busy to answer: the signal reaches it, by way of its keeper.
                _ = ProcessControl.Signal(process, Signals.SIGTERM);
            }
        }
        foreach (var (folder, process) in running) Await(folder, process);
    }

    /// <summary>How to run this very command.</summary>
    private static List<string> Self()
    {
        string self = Environment.ProcessPath
            ?? throw new CommandException(ExitCodes.Failed, "cannot tell where the vsmp command is");
        // `dotnet vsmp.dll`: the executable is the runtime's, and wants to be told the program.
        return Path.GetFileName(self) == "dotnet" ? [self, Path.Combine(AppContext.BaseDirectory, "vsmp.dll")] : [self];
    }

    /// <summary>Ends a node that was asked to go: waits, terminates, kills.</summary>
    private static void Await(AgentFolder folder, ProcessIdentity process)
    {
        if (ProcessControl.WaitForExit(process, PoliteMilliseconds)) return;
        _ = ProcessControl.Signal(process, Signals.SIGTERM);
        if (ProcessControl.WaitForExit(process, TerminateMilliseconds)) return;
        _ = NodeProcesses.Kill(folder);
        if (!ProcessControl.WaitForExit(process, KillMilliseconds))
        {
            throw new CommandException(ExitCodes.Failed, $"agent {folder.Name} (process {process.ProcessId}) cannot be stopped");
        }
        CommandLine.Say($"agent {folder.Name} did not stop when asked to, and was killed");
    }
}
