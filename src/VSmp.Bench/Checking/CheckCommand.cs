// SPDX-License-Identifier: Apache-2.0
using System.CommandLine;
using System.Globalization;
using Spectre.Console;
using VSmp.Coherence.Protocols;

namespace VSmp.Bench.Checking;

/// <summary><c>vsmp-bench check</c>: every state of the shipped protocols, within bounds.</summary>
internal static class CheckCommand
{
    /// <summary>The command.</summary>
    public static Command New()
    {
        Option<string?> protocol = new("--protocol") { Description = "Only this protocol (default: all)", HelpName = "P" };
        protocol.CompletionSources.Add([.. Names]);
        protocol.Validators.Add(result =>
        {
            string name = result.Tokens[0].Value;
            if (!Names.Contains(name)) result.AddError($"--protocol: there is no protocol {name}; there are {string.Join(", ", Names)}");
        });
        Option<bool> deep = new("--deep") { Description = "The full bounds: 3 nodes × 1 page, 2 nodes × 2 pages with runs (minutes)" };
        Command command = new("check", "Search every state of the shipped protocol code, within bounds, for one that breaks an invariant.");
        Option<int?> nodes = NewBound("--nodes", "Search one scenario of so many nodes (1 to 4; not for lazy)", 1, Scenario.MaxNodes);
        Option<int?> pages = NewBound("--pages", "Pages of that scenario (1 or 2; with 2, accesses ask for runs)", 1, Scenario.MaxPages);
        Option<int?> outstanding = NewBound("--outstanding", "Accesses per node that may wait at a time in that scenario (1 to 3)", 1, 3);
        foreach (Option option in new Option[] { protocol, deep, nodes, pages, outstanding }) command.Options.Add(option);
        command.SetAction(parsed => Run(parsed.GetValue(protocol), IsUnbound(parsed) ? LazySearch.Bounds(parsed.GetValue(deep)) : [], p =>
            IsUnbound(parsed)
                ? Scenarios(p, parsed.GetValue(deep))
                : [new Scenario(p, parsed.GetValue(nodes) ?? 2, parsed.GetValue(pages) ?? 1, parsed.GetValue(outstanding) ?? 1) { AsksAhead = parsed.GetValue(pages) > 1 }]));
        return command;

        bool IsUnbound(ParseResult parsed) => parsed.GetValue(nodes) is null && parsed.GetValue(pages) is null && parsed.GetValue(outstanding) is null;
    }

    /// <summary>The bounds that are searched for a protocol.</summary>
    public static IReadOnlyList<Scenario> Scenarios(Protocol protocol, bool deep) =>
        [.. ScenariosWithoutLoss(protocol, deep), .. ScenariosWithLoss(protocol, deep), .. ScenariosOfJobs(protocol, deep), .. ScenariosWithCheckpoints(protocol, deep)];

    /// <summary>The bounds that are searched for a protocol where several nodes use the pages and only others, home or mirror, are lost.</summary>
    internal static IReadOnlyList<Scenario> ScenariosOfJobs(Protocol protocol, bool deep)
    {
        var bounds = new Scenario(protocol, Nodes: 4, Pages: 1, Outstanding: 1)
        {
            HomeUses = false,
            UsersStay = true,
            Crashes = 1,
            Holds = false,
            Refusals = false,
        };
        Scenario usual = bounds with { Mirror = 1 };
        return deep ? [usual, usual with { HasBystander = true }, usual with { IsMirrorLate = true }, usual with { Crashes = 2 }, bounds with { Spare = 1 }] : [usual];
    }

    /// <summary>The bounds that are searched for a protocol and its recovery.</summary>
    internal static IReadOnlyList<Scenario> ScenariosWithLoss(Protocol protocol, bool deep)
    {
        var bounds = new Scenario(protocol, Nodes: 3, Pages: 1, Outstanding: 1) { Crashes = 1, Holds = false, Refusals = false };
        List<Scenario> scenarios =
        [
            bounds with { Mirror = 1, HomeUses = false },
            bounds with { Mirror = 1 },
            bounds with { HomeUses = false },
            bounds with { Mirror = 1, HomeUses = false, IsPrivate = true, Outstanding = 2 },
            bounds with { Mirror = 1, IsPrivate = true, Outstanding = 2 },
            bounds with { Mirror = 1, HomeUses = false, IsMirrorLate = true },
            bounds with { Mirror = 1, IsMirrorLate = true },
            bounds with { Mirror = 1, HomeUses = false, IsMirrorLate = true, IsPrivate = true, Outstanding = 2 },
        ];
        Scenario restarts = bounds with { Crashes = 0, Restarts = 1 };
        scenarios.Add(restarts with { Nodes = 2, Outstanding = 2 });
        scenarios.Add(restarts with { Nodes = 2, Restarts = 2 });
        scenarios.Add(restarts with { Mirror = 1, HomeUses = false });
        scenarios.Add(restarts with { IsPrivate = true, Outstanding = 2 });
        if (protocol == Msi.Protocol)
        {
            // Homes move under this protocol only: an exclusive copy that was not written would leave home and mirror with the same contents in two versions.
            scenarios.Add(bounds with { Mirror = 1, HomeUses = false, HomeMoves = 2 });
            scenarios.Add(bounds with { Mirror = 1, HomeUses = false, HomeMoves = 1, IsMirrorLate = true });
            scenarios.Add(bounds with { Mirror = 1, HomeUses = false, HomeMoves = 2, IsMirrorLate = true, IsPrivate = true, Outstanding = 2 });
        }
        if (!deep) return scenarios;
        scenarios.Add(restarts with { HomeUses = false });
        scenarios.Add(restarts);
        scenarios.Add(restarts with { Nodes = 2, Outstanding = 2, Restarts = 2 });
        scenarios.Add(restarts with { Mirror = 1, HomeUses = false, Crashes = 1 });
        scenarios.Add(bounds);
        scenarios.Add(bounds with { Mirror = 1, Holds = true, Refusals = true, Outstanding = 2 });
        scenarios.Add(bounds with { HomeUses = false, Holds = true, Refusals = true });
        scenarios.Add(bounds with { Nodes = 4, Mirror = 1, HomeUses = false });
        return scenarios;
    }

    /// <summary>The bounds that are searched for a protocol where checkpoints are taken.</summary>
    internal static IReadOnlyList<Scenario> ScenariosWithCheckpoints(Protocol protocol, bool deep)
    {
        var bounds = new Scenario(protocol, Nodes: 2, Pages: 1, Outstanding: 1) { Checkpoints = 2, GiveUps = 1, Holds = false, Refusals = false };
        Scenario lost = bounds with { Nodes = 3, Mirror = 1, HomeUses = false, GiveUps = 0, Crashes = 1 };
        List<Scenario> scenarios =
        [
            bounds,
            bounds with { Checkpoints = 1, Mappings = 2, GiveUps = 0 },
            bounds with { IsPrivate = true, GiveUps = 0 },
            lost with { Checkpoints = 1 },
        ];
        if (!deep) return scenarios;
        scenarios.Add(lost);
        scenarios.Add(bounds with { Checkpoints = 3 });
        scenarios.Add(bounds with { Outstanding = 2, Holds = true, Refusals = true });
        scenarios.Add(bounds with { Mappings = 2 });
        scenarios.Add(bounds with { Checkpoints = 1, Nodes = 3 });
        scenarios.Add(bounds with { Checkpoints = 1, GiveUps = 0, Pages = 2, AsksAhead = true });
        scenarios.Add(lost with { HomeUses = true, Checkpoints = 1 });
        return scenarios;
    }

    private static IReadOnlyList<Scenario> ScenariosWithoutLoss(Protocol protocol, bool deep) => deep
        ?
        [
            new Scenario(protocol, Nodes: 3, Pages: 1, Outstanding: 2),
            new Scenario(protocol, Nodes: 2, Pages: 2, Outstanding: 2) { AsksAhead = true },
            new Scenario(protocol, Nodes: 2, Pages: 1, Outstanding: 2, Mappings: 2),
            new Scenario(protocol, Nodes: 2, Pages: 2, Outstanding: 2) { IsPrivate = true, AsksAhead = true },
        ]
        :
        [
            new Scenario(protocol, Nodes: 3, Pages: 1, Outstanding: 1),
            new Scenario(protocol, Nodes: 2, Pages: 1, Outstanding: 2),
            new Scenario(protocol, Nodes: 2, Pages: 1, Outstanding: 1, Mappings: 2),
            new Scenario(protocol, Nodes: 2, Pages: 1, Outstanding: 2) { IsPrivate = true },
        ];

    private static IReadOnlyList<string> Names { get; } = [.. ProtocolCatalog.All.Select(p => p.Name), LazySearch.Name];

    private static Option<int?> NewBound(string name, string description, int least, int most)
    {
        Option<int?> option = new(name) { Description = description, HelpName = "N" };
        option.Validators.Add(result =>
        {
            if (int.TryParse(result.Tokens[0].Value, CultureInfo.InvariantCulture, out int value) && (value < least || value > most))
                result.AddError($"{name}: {value} is not from {least} to {most}");
        });
        return option;
    }

    private static int Run(string? name, IReadOnlyList<LazyBounds> lazy, Func<Protocol, IReadOnlyList<Scenario>> scenarios)
    {
        if (name == LazySearch.Name && lazy.Count == 0)
        {
            Console.Error.WriteLine($"--nodes, --pages and --outstanding do not apply to {name}: leave them out");
            return 2;
        }
        int violations = 0;
        foreach (Protocol protocol in ProtocolCatalog.All.Where(p => name is null || p.Name == name))
        {
            foreach (Scenario scenario in scenarios(protocol))
            {
                Show(ModelChecker.Run(scenario, threads: Environment.ProcessorCount, progress: Progress(scenario)), scenario);
            }
        }
        if (name is null or LazySearch.Name)
        {
            foreach (LazyBounds bounds in lazy) ShowLazy(bounds);
        }
        return violations > 0 ? 1 : 0;

        void ShowLazy(LazyBounds bounds)
        {
            LazySearchResult result = LazySearch.Run(bounds);
            string verdict = result.Violation is null ? "[green]exhausted[/]" : "[red]violation[/]";
            AnsiConsole.MarkupLine(string.Create(CultureInfo.InvariantCulture,
                $"{bounds}: {verdict}, {result.States:N0} states, {result.Moves:N0} moves, depth {result.Depth}, ")
                + string.Create(CultureInfo.InvariantCulture, $"{result.Elapsed.TotalSeconds:F1} s"));
            if (result.Violation is null) return;
            violations++;
            Console.WriteLine("the shortest way there:");
            foreach (string line in result.Violation) Console.WriteLine(line);
        }

        void Show(CheckResult result, Scenario scenario)
        {
            if (Console.IsErrorRedirected is false) Console.Error.Write("\r\x1b[K");
            string verdict = result.Violation is null ? "[green]exhausted[/]" : "[red]violation[/]";
            AnsiConsole.MarkupLine(string.Create(CultureInfo.InvariantCulture,
                $"{scenario}: {verdict}, {result.States:N0} states, {result.Moves:N0} moves, depth {result.Depth}, {result.Elapsed.TotalSeconds:F1} s"));
            if (result.Violation is not { } violation) return;
            violations++;
            Console.WriteLine($"{violation.What}\nthe shortest way there:");
            foreach (string line in Replay.Tell(scenario, violation)) Console.WriteLine(line);
        }
    }

    private static Action<int, int, int> Progress(Scenario scenario)
    {
        // Long work is seen at work: in place on a terminal, a line now and then elsewhere.
        bool isTerminal = !Console.IsErrorRedirected;
        long last = Environment.TickCount64;
        return (depth, states, left) =>
        {
            if (!isTerminal && Environment.TickCount64 - last < 10_000) return;
            last = Environment.TickCount64;
            string line = string.Create(CultureInfo.InvariantCulture, $"{scenario}: depth {depth}, {states:N0} states, {left:N0} to be searched");
            Console.Error.Write(isTerminal ? $"\r\x1b[K{line}" : $"{line}\n");
        };
    }
}
