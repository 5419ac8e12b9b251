// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent.Control;
using VSmp.Agent.Fabric.FaultInjection;
using VSmp.Agent.Interop;

namespace VSmp.Agent.Cli;

/// <summary>What <c>vsmp inject</c> does: at agents over their control sockets, to processes by signals.</summary>
internal static class Injections
{
    private const int KillMilliseconds = 5_000;

    /// <summary>What is in force at agents of this host; nothing but in development clusters.</summary>
    public static IReadOnlyList<InjectedFault> InForce(IReadOnlyList<AgentFolder> running)
    {
        List<InjectedFault> found = [];
        foreach (AgentFolder agent in running.Where(IsDevelopment))
        {
            if (agent.Running() is not { } process) continue;
            if (process.IsStopped)
            {
                found.Add(new InjectedFault(agent.Name, null, "paused", null, null));
                continue;
            }
            try
            {
                using ControlClient client = ControlClient.Connect(agent);
                found.AddRange(client.GetFaults().Select(fault => new InjectedFault(agent.Name, fault.To ?? "all", fault.Text, fault.Count, fault.Seed)));
            }
            catch (CommandException e) when (e.ExitCode == ExitCodes.NoAgent)
            {
                // It has ended since.
            }
        }
        return found;
    }

    /// <summary>The same in one line, for those who may have forgotten; null if nothing is.</summary>
    public static string? Line(IReadOnlyList<InjectedFault> faults)
    {
        if (faults.Count == 0) return null;
        IEnumerable<string> each = faults.Select(fault => fault.To is null ? $"{fault.Node} is {fault.What}" : $"{fault.Node} to {fault.To}: {fault.What}");
        return $"injected: {string.Join("; ", each)} (vsmp inject list)";
    }

    /// <summary>Kills a node, as the end of its host would, or its agent alone.</summary>
    public static void Kill(string cluster, string name, bool agentAlone)
    {
        AgentFolder agent = Find(LocalAgents.RunningWith(cluster, name), name);
        if (agentAlone || agent.Keeper() is not { } keeper)
        {
            Signal(cluster, name, Signals.SIGKILL);
            return;
        }
        _ = CheckMaySignal(cluster, agent);
        string what = $"node {name} (keeper {keeper.ProcessId}, agent {agent.Running()?.ProcessId})";
        if (!NodeProcesses.Kill(agent)) throw new CommandException(ExitCodes.Failed, $"{what} does not take the signal");
        Output.Line($"{what} is killed");
    }

    /// <summary>
    /// Sends a signal to a node's agent, and waits until it has done what it does. A keeper is never paused: what stops guests without a lease
    /// is not to stand still with what it watches.
    /// </summary>
    /// <param name="cluster">The cluster.</param>
    /// <param name="name">The node.</param>
    /// <param name="signal">SIGKILL, SIGSTOP or SIGCONT.</param>
    public static void Signal(string cluster, string name, int signal)
    {
        AgentFolder agent = Find(LocalAgents.RunningWith(cluster, name), name);
        if (CheckMaySignal(cluster, agent) is not { } process) return; // it has ended since
        string what = $"agent {name} (process {process.ProcessId})";
        _ = ProcessControl.Signal(process, signal);
        bool isDone = signal == Signals.SIGKILL ? ProcessControl.WaitForExit(process, KillMilliseconds)
            : NodeProcesses.AwaitStop(process, isStopped: signal == Signals.SIGSTOP);
        if (!isDone) throw new CommandException(ExitCodes.Failed, $"{what} does not take the signal");
        Output.Line($"{what} is {(signal == Signals.SIGKILL ? "killed" : signal == Signals.SIGSTOP ? "paused" : "going on")}");
    }

    /// <summary>Has an agent inject a fault on the way to some nodes, or all.</summary>
    public static void Inject(string cluster, string name, FaultOrder order)
    {
        AgentFolder agent = Find(LocalAgents.RunningWith(cluster, name), name);
        Tell(agent, order);
        using ControlClient client = ControlClient.Connect(agent);
        FaultStatus[] faults = [.. client.GetFaults().Where(fault => fault.Kind == order.Kind)];
        if (faults.Length == 0) Output.Line($"{name}: no {order.Kind.ToString()!.ToLowerInvariant()} any more");
        foreach (FaultStatus fault in faults) Output.Line($"{name} to {fault.To ?? "all"}: {fault.Text}; seed {fault.Seed}");
    }

    /// <summary>Cuts the network between two groups of nodes.</summary>
    /// <param name="cluster">The cluster.</param>
    /// <param name="first">The first group.</param>
    /// <param name="second">The second; null: all others.</param>
    /// <param name="oneWay">Only what goes from the first to the second is lost.</param>
    public static void Partition(string cluster, string[] first, string[]? second, bool oneWay)
    {
        IReadOnlyList<AgentFolder> running = LocalAgents.Running(cluster);
        AgentFolder[] from = [.. first.Distinct().Select(name => Find(running, name))];
        AgentFolder[] to = [.. second is null ? running.Where(agent => !first.Contains(agent.Name))
            : second.Distinct().Select(name => Find(running, name))];
        if (to.Length == 0) throw new CommandException(ExitCodes.Usage, "there is no other node to be cut off from");
        if (from.FirstOrDefault(agent => to.Any(other => other.Name == agent.Name)) is { } both)
            throw new CommandException(ExitCodes.Usage, $"{both.Name} cannot be cut off from itself: it is in both groups");
        foreach (AgentFolder agent in from) Tell(agent, new FaultOrder(FaultKind.Partition, Names(to)));
        if (!oneWay) foreach (AgentFolder agent in to) Tell(agent, new FaultOrder(FaultKind.Partition, Names(from)));
        Output.Line($"{string.Join(", ", Names(from))} {(oneWay ? "cannot send" : "is cut off")} {(oneWay ? "to" : "from")} {string.Join(", ", Names(to))}"
            + " until vsmp inject heal");
    }

    /// <summary>Ends the faults of the network: all, or those from and to one node.</summary>
    /// <returns>The exit code.</returns>
    public static int Heal(string cluster, string? name)
    {
        IReadOnlyList<AgentFolder> running = LocalAgents.Running(cluster);
        if (name is not null) _ = Find(running, name);
        AgentFolder[] paused = [.. running.Where(IsPaused)];
        foreach (AgentFolder agent in running.Except(paused))
        {
            Tell(agent, new FaultOrder(null, name is null || name == agent.Name ? null : [name]));
        }
        Output.Line(name is null ? "the network is healed" : $"the network of {name} is healed");
        if (paused.Length == 0) return ExitCodes.Ok;
        return CommandLine.Fail(ExitCodes.Failed, $"not at {string.Join(", ", Names(paused))}, which is paused: vsmp inject resume, then heal again");
    }

    private static ProcessIdentity? CheckMaySignal(string cluster, AgentFolder agent)
    {
        if (!IsDevelopment(agent)) throw NotHere(cluster, agent.Name);
        if (agent.Running() is not { } process) return null;
        if (!ProcessControl.Signal(process, 0) && process.IsAlive)
        {
            throw new CommandException(ExitCodes.Refused,
                $"you may not do that to agent {agent.Name} (process {process.ProcessId}): root may, and the user who started the cluster");
        }
        return process;
    }

    private static void Tell(AgentFolder agent, FaultOrder order)
    {
        if (IsPaused(agent))
            throw new CommandException(ExitCodes.Failed, $"agent {agent.Name} is paused and cannot be told: vsmp inject resume {agent.Name} first");
        using ControlClient client = ControlClient.Connect(agent);
        client.Inject(order);
    }

    private static AgentFolder Find(IReadOnlyList<AgentFolder> running, string name) => running.FirstOrDefault(agent => agent.Name == name)
        ?? throw new CommandException(ExitCodes.NoAgent, $"no agent {name} of cluster {running[0].RunDirectory.Cluster} runs on this host; there is "
            + string.Join(", ", Names(running)));

    private static CommandException NotHere(string cluster, string name) => new(ExitCodes.Refused,
        $"agent {name} of cluster {cluster} is of no development cluster: faults may be injected where vsmp up has started the agents, "
        + "or vsmp agent was given --development");

    private static string[] Names(IEnumerable<AgentFolder> agents) => [.. agents.Select(agent => agent.Name)];

    private static bool IsDevelopment(AgentFolder agent) => File.Exists(agent.DevelopmentFile);

    private static bool IsPaused(AgentFolder agent) => agent.Running() is { IsStopped: true };
}
