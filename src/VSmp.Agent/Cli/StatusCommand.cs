// SPDX-License-Identifier: Apache-2.0
using System.CommandLine;
using System.Globalization;
using System.Runtime.InteropServices;
using System.Text.Json;
using Spectre.Console;
using Spectre.Console.Rendering;
using VSmp.Agent.Control;

namespace VSmp.Agent.Cli;

/// <summary><c>vsmp status</c>: who contributes what, and what becomes of it.</summary>
internal static class StatusCommand
{
    private const int BarCells = 24;
    private static readonly TimeSpan WatchPeriod = TimeSpan.FromSeconds(1);

    /// <summary>The command.</summary>
    public static Command New()
    {
        Option<bool> json = new("--json") { Description = "As JSON; sizes in bytes" };
        Option<bool> watch = new("--watch") { Description = "Again every second, until interrupted" };
        Command command = CommandLine.NewCommand("status",
            "Show each node's memory: contributed = home + cache + free; guests; faults. What other nodes have is what they said last, up to 0.2 s ago.",
            "vsmp status", "vsmp status --watch", "vsmp status --json | jq '.nodes[].freeBytes'");
        command.Options.Add(json);
        command.Options.Add(watch);
        command.SetAction(parsed => Run(parsed.GetValue(CommandLine.ClusterOption)!, parsed.GetValue(json),
            parsed.GetValue(watch)));
        return command;
    }

    private static int Run(string cluster, bool asJson, bool watch)
    {
        if (!watch)
        {
            Show(Ask(cluster), asJson);
            return ExitCodes.Ok;
        }
        using ManualResetEventSlim interrupted = new();
        void OnSignal(PosixSignalContext context)
        {
            context.Cancel = true;
            interrupted.Set();
        }
        using PosixSignalRegistration onInterrupt = PosixSignalRegistration.Create(PosixSignal.SIGINT, OnSignal);
        using PosixSignalRegistration onTerminate = PosixSignalRegistration.Create(PosixSignal.SIGTERM, OnSignal);
        if (asJson || !Output.IsTerminal)
        {
            do Show(Ask(cluster), asJson);
            while (!interrupted.Wait(WatchPeriod));
            return ExitCodes.Ok;
        }
        ClusterStatus status = Ask(cluster);
        Output.NewConsole().Live(ForTerminal(status)).Start(live =>
        {
            while (!interrupted.Wait(WatchPeriod)) live.UpdateTarget(ForTerminal(Ask(cluster)));
        });
        return ExitCodes.Ok;
    }

    private static ClusterStatus Ask(string cluster)
    {
        IReadOnlyList<AgentFolder> running = LocalAgents.Running(cluster);
        return LocalAgents.AskAny(running, client => client.GetStatus()) with { Injected = Injections.InForce(running) };
    }

    private static void Show(ClusterStatus status, bool asJson)
    {
        if (asJson) Output.Line(JsonSerializer.Serialize(status, ReportJson.Default.ClusterStatus));
        else if (Output.IsTerminal) Output.NewConsole().Write(ForTerminal(status));
        else
        {
            NewTable(status, withAddresses: true).WritePlain(Output.Writer);
            if (status.Membership.Length > 0) Output.Line($"membership is decided {status.Membership}");
            if (ProblemLine(status) is { } problem) Output.Line(problem);
            if (Injections.Line(status.Injected) is { } line) Output.Line(line);
        }
    }

    private static Table NewTable(ClusterStatus status, bool withAddresses)
    {
        Table.Column[] columns =
        [
            new("node"), new("state"), new("contributed", true), new("home", true), new("cache", true), new("free", true),
            new("used", true), new("private", true), new("guests", true), new("faults/s", true), new("address"),
        ];
        Table table = new(withAddresses ? columns : columns[..^1]);
        foreach (NodeStatus node in status.Nodes)
        {
            Add((node.Name, null), (node.State, node.State switch { "up" => "green", "draining" => "yellow", _ => "red" }), Size(node.ContributedBytes),
                Size(node.HomeBytes), Size(node.CacheBytes), Size(node.FreeBytes), Size(node.UsedBytes), Size(node.PrivateBytes),
                Number(node.Guests), Number(node.FaultsPerSecond), (node.Address, null));
        }
        if (status.Nodes.Count > 1)
        {
            Add(("all", "bold"), ("", null), Sum(node => node.ContributedBytes), Sum(node => node.HomeBytes),
                Sum(node => node.CacheBytes), Sum(node => node.FreeBytes), Sum(node => node.UsedBytes),
                Sum(node => node.PrivateBytes), Number(status.Nodes.Sum(node => node.Guests)),
                Number(status.Nodes.Sum(node => node.FaultsPerSecond)), ("", null));
        }
        return table;

        void Add(params (string, string?)[] cells) => table.AddStyled(withAddresses ? cells : cells[..^1]);
        static (string, string?) Size(ulong bytes) => (Sizes.Format(bytes), null);
        static (string, string?) Number(double number) => (number.ToString("0", CultureInfo.InvariantCulture), null);
        (string, string?) Sum(Func<NodeStatus, ulong> what) =>
            (Sizes.Format(status.Nodes.Aggregate(0ul, (sum, node) => sum + what(node))), "bold");
    }

    private static Rows ForTerminal(ClusterStatus status)
    {
        Grid bars = new();
        bars.AddColumn().AddColumn().AddColumn().AddColumn();
        foreach (NodeStatus node in status.Nodes)
        {
            bars.AddRow(new Text(node.Name), Bar(node), new Text(Percent(node)), new Text(node.Address, "grey"));
        }
        List<IRenderable> rows =
        [
            new Markup($"cluster [bold]{status.Cluster}[/], view {status.View}, seen by {status.Self}"), // names hold no brackets
            new Text($"membership is decided {status.Membership}", "grey"),
            NewTable(status, withAddresses: false).ForTerminal(),
            bars,
            new Markup("[blue]█[/] home  [yellow]█[/] cache  [grey]░[/] free"),
        ];
        if (ProblemLine(status) is { } problem) rows.Insert(2, new Text(problem, new Style(Color.Red)));
        if (Injections.Line(status.Injected) is { } line) rows.Add(new Text(line, new Style(Color.Red)));
        return new Rows(rows);
    }

    private static string? ProblemLine(ClusterStatus status) =>
        status.MembershipProblem is { } problem ? $"nobody can join, leave or be excluded at the moment: {problem}" : null;

    private static Markup Bar(NodeStatus node)
    {
        double scale = node.ContributedBytes == 0 ? 0 : (double)BarCells / node.ContributedBytes;
        int home = Cells(node.HomeBytes), cache = Math.Min(Cells(node.CacheBytes), BarCells - home);
        string free = new('░', BarCells - home - cache);
        return new Markup($"[blue]{new string('█', home)}[/][yellow]{new string('█', cache)}[/][grey]{free}[/]");

        int Cells(ulong bytes) => Math.Min((int)Math.Round(bytes * scale), BarCells);
    }

    private static string Percent(NodeStatus node)
    {
        double share = node.ContributedBytes == 0 ? 0 : (double)(node.HomeBytes + node.CacheBytes) / node.ContributedBytes;
        return string.Create(CultureInfo.InvariantCulture, $"{100 * share:0} % taken");
    }
}
