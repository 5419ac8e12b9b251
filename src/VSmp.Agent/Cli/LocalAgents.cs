// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent.Control;

namespace VSmp.Agent.Cli;

/// <summary>Finds agents of this host.</summary>
internal static class LocalAgents
{
    /// <summary>How long an agent is waited for that its keeper starts again.</summary>
    private const int StartMilliseconds = 2_000;

    private const int RetryMilliseconds = 20;

    /// <summary>The running agents of a cluster on this host, that the user can see; at least one.</summary>
    /// <exception cref="CommandException">None runs, nor is started again soon.</exception>
    public static IReadOnlyList<AgentFolder> Running(string cluster) => Running(cluster, _ => false);

    /// <summary>The same; if that one was killed and its keeper starts it again, it is waited for.</summary>
    public static IReadOnlyList<AgentFolder> RunningWith(string cluster, string? name) => Running(cluster, agent => agent.Name == name);

    /// <summary>The same for every agent.</summary>
    public static IReadOnlyList<AgentFolder> RunningAll(string cluster) => Running(cluster, _ => true);

    private static AgentFolder[] Running(string cluster, Func<AgentFolder, bool> isWanted)
    {
        foreach (RunDirectory directory in RunDirectory.Candidates(cluster))
        {
            AgentFolder[] running = Running(directory, isWanted);
            if (running.Length > 0) return running;
        }
        if (RunDirectory.Candidates(cluster).FirstOrDefault(directory => directory.IsClosedToUs) is { } closed)
        {
            throw new CommandException(ExitCodes.Refused, $"you may not use cluster {cluster} of this host ({closed.Path}): "
                + "it serves its owner, root, and the group that its agents were started with (--group)");
        }
        string other = cluster == "default" ? "" : $" --cluster {cluster}";
        throw new CommandException(ExitCodes.NoAgent,
            $"no agent of cluster {cluster} runs on this host: vsmp up{other} starts some");
    }

    private static AgentFolder[] Running(RunDirectory directory, Func<AgentFolder, bool> isWanted)
    {
        long deadline = Environment.TickCount64 + StartMilliseconds;
        while (true)
        {
            AgentFolder[] agents = [.. directory.Agents()];
            AgentFolder[] running = [.. agents.Where(agent => agent.Running() is not null)];
            AgentFolder[] awaited = [.. agents.Except(running).Where(agent => (running.Length == 0 || isWanted(agent)) && agent.Keeper() is not null)];
            // One that takes longer is not left out in silence: whoever asks it is told.
            if (awaited.Length == 0 || Environment.TickCount64 >= deadline) return [.. agents.Where(agent => running.Contains(agent) || awaited.Contains(agent))];
            Thread.Sleep(RetryMilliseconds);
        }
    }

    /// <summary>The agent of a name, or the one with the fewest guests (of these, with the most memory free).</summary>
    public static AgentFolder Choose(string cluster, string? name)
    {
        IReadOnlyList<AgentFolder> running = RunningWith(cluster, name);
        if (name is not null)
        {
            return running.FirstOrDefault(agent => agent.Name == name)
                ?? throw new CommandException(ExitCodes.NoAgent,
                    $"no agent {name} of cluster {cluster} runs on this host; there is "
                    + $"{string.Join(", ", running.Select(agent => agent.Name))}");
        }
        if (running.Count == 1) return running[0];
        Dictionary<string, NodeStatus> nodes = AskAny(running, client => client.GetStatus()).Nodes.ToDictionary(node => node.Name);
        return running
            .OrderBy(agent => nodes.GetValueOrDefault(agent.Name) is { State: "up" } node ? node.Guests : uint.MaxValue)
            .ThenByDescending(agent => nodes.GetValueOrDefault(agent.Name)?.FreeBytes ?? 0)
            .First();
    }

    /// <summary>Connects to the first that answers.</summary>
    public static ControlClient ConnectToAny(IReadOnlyList<AgentFolder> running) => TryEach(running, agent => ControlClient.Connect(agent));

    /// <summary>Asks the first that answers: one may be killed while it is asked.</summary>
    public static T AskAny<T>(IReadOnlyList<AgentFolder> running, Func<ControlClient, T> ask) => TryEach(running, agent =>
    {
        using ControlClient client = ControlClient.Connect(agent);
        return ask(client);
    });

    private static T TryEach<T>(IReadOnlyList<AgentFolder> running, Func<AgentFolder, T> attempt)
    {
        // Who is paused would not answer, nor who is being started.
        running = [.. running.OrderBy(agent => agent.Running() is not { IsStopped: false } || !File.Exists(agent.ControlSocket))];
        long deadline = Environment.TickCount64 + StartMilliseconds;
        for (int i = 0; ; i = (i + 1) % running.Count)
        {
            try { return attempt(running[i]); }
            catch (CommandException e) when (e.ExitCode == ExitCodes.NoAgent
                && (i + 1 < running.Count || (Environment.TickCount64 < deadline && running.Any(agent => agent.Keeper() is not null))))
            { }
        }
    }
}
