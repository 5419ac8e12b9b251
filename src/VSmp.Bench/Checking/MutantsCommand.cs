// SPDX-License-Identifier: Apache-2.0
using System.CommandLine;
using System.Globalization;
using Spectre.Console;

namespace VSmp.Bench.Checking;

/// <summary><c>vsmp-bench mutants</c>: whether planted bugs are found.</summary>
internal static class MutantsCommand
{
    /// <summary>The command.</summary>
    public static Command New()
    {
        Option<bool> traces = new("--traces") { Description = "Print the shortest way to each bug" };
        Command command = new("mutants", "Plant bugs in the protocol, one at a time, and search for each. Fails if one is not found.");
        command.Options.Add(traces);
        command.SetAction(parsed => Run(parsed.GetValue(traces)));
        return command;
    }

    private static int Run(bool showsTraces)
    {
        var table = new Table().Border(TableBorder.Simple);
        foreach (string column in new[] { "PLANTED", "FOUND AS", "STEPS", "STATES", "SECONDS" }) table.AddColumn(column);
        int missed = 0;
        foreach (Mutant mutant in Mutants.All)
        {
            MutantResult result = Mutants.Search(mutant, Environment.ProcessorCount);
            if (!result.IsFound) missed++;
            table.AddRow(Markup.Escape(mutant.Name),
                result.IsFound ? Markup.Escape(result.Result.Violation!.What) : "[red]not found[/]",
                (result.Result.Violation?.Path.Count ?? 0).ToString(CultureInfo.InvariantCulture),
                result.Result.States.ToString("N0", CultureInfo.InvariantCulture),
                result.Result.Elapsed.TotalSeconds.ToString("F2", CultureInfo.InvariantCulture));
            if (!showsTraces || !result.IsFound) continue;
            Console.WriteLine($"{mutant.Name}: {result.Result.Violation!.What}");
            foreach (string line in Replay.Tell(result.Scenario, result.Result.Violation)) Console.WriteLine(line);
        }
        AnsiConsole.Write(table);
        Console.WriteLine($"{Mutants.All.Count - missed} of {Mutants.All.Count} found");
        return missed > 0 ? 1 : 0;
    }
}
