// SPDX-License-Identifier: Apache-2.0
using System.CommandLine;
using System.Globalization;
using System.Runtime.InteropServices;
using System.Text.Json;
using VSmp.Agent.Control;
using VSmp.Agent.Elasticity;

namespace VSmp.Agent.Cli;

/// <summary><c>vsmp node</c>: nodes leave a cluster, and memory spreads over those that are there, while guests run.</summary>
internal static class NodeCommand
{
    private static readonly TimeSpan LookPeriod = TimeSpan.FromMilliseconds(250);

    /// <summary>The command.</summary>
    public static Command New()
    {
        Command list = CommandLine.NewCommand("ls", "List the nodes: who is there, who is being drained, how full each is.");
        list.SetAction(parsed => List(Cluster(parsed)));
        Command command = CommandLine.NewCommand("node", "Nodes that come and go while guests run.",
            "vsmp node ls", "vsmp node drain n2", "vsmp node drain n2 --stop", "vsmp node rebalance");
        command.Subcommands.Add(list);
        command.Subcommands.Add(NewDrain());
        command.Subcommands.Add(NewRebalance());
        return command;
    }

    private static Command NewDrain()
    {
        Argument<string> node = new("NAME") { Description = "The node" };
        node.CompletionSources.Add(context => CompletionCommand.Agents(context.ParseResult.GetValue(CommandLine.ClusterOption)));
        Option<bool> stop = new("--stop") { Description = "Stop draining it: what was moved stays moved, and the node takes memory again" };
        Command command = CommandLine.NewCommand("drain",
            "Move the memory that other nodes' guests have on a node to the others, while they run; then the node leaves the cluster. "
            + "Guests that run on the node itself cannot be moved: it stays until they have ended. Ctrl-C stops it; to go on, run it again.",
            "vsmp node drain n2", "vsmp node drain n2 --stop");
        command.Arguments.Add(node);
        command.Options.Add(stop);
        command.SetAction(parsed => parsed.GetValue(stop) ? StopDrain(Cluster(parsed), parsed.GetValue(node)!) : Drain(Cluster(parsed), parsed.GetValue(node)!));
        return command;
    }

    private static Command NewRebalance()
    {
        Option<bool> stop = new("--stop") { Description = "Stop moving: what was moved stays moved" };
        Command command = CommandLine.NewCommand("rebalance",
            "Move memory, while guests run, until nodes are filled in proportion to what they contribute: a node that has joined gets its share. "
            + "Memory never moves to the node of its own guest. Ctrl-C stops it; to go on, run it again.",
            "vsmp node rebalance", "vsmp node rebalance --stop");
        command.Options.Add(stop);
        command.SetAction(parsed => Rebalance(Cluster(parsed), parsed.GetValue(stop)));
        return command;
    }

    private static string Cluster(ParseResult parsed) => parsed.GetValue(CommandLine.ClusterOption)!;

    private static int List(string cluster)
    {
        ClusterStatus status = LocalAgents.AskAny(LocalAgents.Running(cluster), client => client.GetStatus());
        Table table = new(new("node"), new("state"), new("contributed", true), new("filled", true), new("home", true), new("guests", true), new("address"));
        foreach (NodeStatus node in status.Nodes)
        {
            double filled = node.ContributedBytes == 0 ? 0 : 100.0 * (node.ContributedBytes - node.FreeBytes) / node.ContributedBytes;
            table.Add(node.Name, node.State, Sizes.Format(node.ContributedBytes), string.Create(CultureInfo.InvariantCulture, $"{filled:0} %"),
                Sizes.Format(node.HomeBytes), node.Guests.ToString(CultureInfo.InvariantCulture), node.Address);
        }
        table.Write();
        return ExitCodes.Ok;
    }

    /// <summary>Preferably not the node itself: it is about to leave.</summary>
    private static ControlClient Connect(string cluster, string exceptNode)
    {
        IReadOnlyList<AgentFolder> running = LocalAgents.Running(cluster);
        AgentFolder[] others = [.. running.Where(agent => agent.Name != exceptNode)];
        return LocalAgents.ConnectToAny(others.Length > 0 ? others : running);
    }

    private static int StopDrain(string cluster, string node)
    {
        using ControlClient client = Connect(cluster, node);
        DrainStatus status = Ask(client, node, NodeQuestion.StopDrain);
        Output.Line($"{node} is not being drained; {Sizes.Format(status.LeftBytes)} of other nodes' guests are there");
        return ExitCodes.Ok;
    }

    private static int Drain(string cluster, string node)
    {
        using Interruption interruption = new();
        using ControlClient client = Connect(cluster, node);
        DrainStatus status = Ask(client, node, NodeQuestion.Drain);
        string said = "";
        while (true)
        {
            string line = Describe(node, status);
            if (line != said) Output.Line(line);
            said = line;
            if (status.IsLeaving) return ExitCodes.Ok;
            if (interruption.Wait(LookPeriod))
            {
                status = Ask(client, node, NodeQuestion.StopDrain);
                return CommandLine.Fail(ExitCodes.SignalBase + 2, $"stopped: {Sizes.Format(status.LeftBytes)} are left on {node}; vsmp node drain {node} goes on");
            }
            status = Ask(client, node, NodeQuestion.DrainStatus);
            if (!status.IsDraining) return CommandLine.Fail(ExitCodes.Failed, $"somebody has stopped the draining of {node}; {Sizes.Format(status.LeftBytes)} are left there");
        }
    }

    private static string Describe(string node, DrainStatus status)
    {
        if (status.IsLeaving) return $"{node} is empty, and leaves the cluster";
        string[] awaited = [.. status.Guests.Select(guest => $"guest {guest}"), .. status.Jobs.Select(job => $"job {job}")];
        string waits = awaited.Length > 0 ? $"; it cannot leave before these have ended: {string.Join(", ", awaited)}" : "";
        return status.LeftBytes == 0
            ? $"{node}: nothing of other nodes' guests is there any more{waits}"
            : $"{node}: {Sizes.Format(status.LeftBytes)} of {Sizes.Format(status.MostBytes)} are still there{waits}";
    }

    private static int Rebalance(string cluster, bool stop)
    {
        using Interruption interruption = new();
        using ControlClient client = LocalAgents.ConnectToAny(LocalAgents.Running(cluster));
        string[] nodes = [.. client.GetStatus().Nodes.Where(node => node.State != "unreachable").Select(node => node.Name)];
        ulong before = Sum(NodeQuestion.RebalanceStatus, out _);
        ulong moved = Sum(stop ? NodeQuestion.StopRebalance : NodeQuestion.Rebalance, out bool goesOn) - before;
        for (ulong said = ulong.MaxValue; goesOn && !stop;)
        {
            if (moved != said) Output.Line($"{Sizes.Format(moved)} moved");
            said = moved;
            if (interruption.Wait(LookPeriod))
            {
                moved = Sum(NodeQuestion.StopRebalance, out _) - before;
                return CommandLine.Fail(ExitCodes.SignalBase + 2, $"stopped: {Sizes.Format(moved)} moved; vsmp node rebalance goes on");
            }
            moved = Sum(NodeQuestion.RebalanceStatus, out goesOn) - before;
        }
        Output.Line(stop ? "nothing more is moved" : $"{Sizes.Format(moved)} moved: nodes are filled as evenly as can be");
        return ExitCodes.Ok;

        ulong Sum(NodeQuestion question, out bool goesOn)
        {
            RebalanceStatus[] all = [.. nodes.Select(node => JsonSerializer.Deserialize(client.AskNode(node, question), ControlJson.Default.RebalanceStatus)!)];
            goesOn = all.Any(status => status.IsRebalancing);
            return all.Aggregate(0ul, (sum, status) => sum + status.MovedBytes);
        }
    }

    private static DrainStatus Ask(ControlClient client, string node, NodeQuestion question) =>
        JsonSerializer.Deserialize(client.AskNode(node, question), ControlJson.Default.DrainStatus)!;

    /// <summary>Ctrl-C, or SIGTERM.</summary>
    private sealed class Interruption : IDisposable
    {
        private readonly ManualResetEventSlim _interrupted = new();
        private readonly PosixSignalRegistration _onInterrupt, _onTerminate;

        public Interruption()
        {
            _onInterrupt = PosixSignalRegistration.Create(PosixSignal.SIGINT, OnSignal);
            _onTerminate = PosixSignalRegistration.Create(PosixSignal.SIGTERM, OnSignal);
        }

        public bool Wait(TimeSpan time) => _interrupted.Wait(time);

        public void Dispose()
        {
            _onInterrupt.Dispose();
            _onTerminate.Dispose();
            _interrupted.Dispose();
        }

        private void OnSignal(PosixSignalContext context)
        {
            context.Cancel = true;
            _interrupted.Set();
        }
    }
}
