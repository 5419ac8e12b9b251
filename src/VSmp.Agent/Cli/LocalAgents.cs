// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent.Control;

namespace VSmp.Agent.Cli;

/// <summary>Finds agents of this host.</summary>
internal static class LocalAgents
{
    /// <summary>The running agents of a cluster on this host, that the user can see; at least one.</summary>
    /// <exception cref="CommandException">None runs.</exception>
    public static IReadOnlyList<AgentFolder> Running(string cluster)
    {
        foreach (RunDirectory directory in RunDirectory.Candidates(cluster))
        {
            AgentFolder[] running = [.. directory.Agents().Where(agent => agent.Running() is not null)];
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

    /// <summary>The agent of a name, or the one with the fewest guests (of these, with the most memory free).</summary>
    public static AgentFolder Choose(string cluster, string? name)
    {
        IReadOnlyList<AgentFolder> running = Running(cluster);
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
        running = [.. running.OrderBy(agent => agent.Running() is { IsStopped: true })]; // who is paused would not answer
        for (int i = 0; ; i++)
        {
            try { return attempt(running[i]); }
            catch (CommandException e) when (e.ExitCode == ExitCodes.NoAgent && i + 1 < running.Count) { }
        }
    }
}
