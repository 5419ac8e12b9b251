// SPDX-License-Identifier: Apache-2.0
using System.CommandLine;
using System.Diagnostics;
using System.Globalization;

namespace VSmp.Bench.Checking;

/// <summary><c>vsmp-bench mutants</c>: whether planted bugs are found.</summary>
internal static class MutantsCommand
{
    /// <summary>One of so many wrong cells is looked for with the simulator as well as with the checker, for comparison.</summary>
    private const int AlsoSimulatedOneIn = 3;

    private const int AlsoSimulatedSeeds = 100;

    /// <summary>The command.</summary>
    public static Command New()
    {
        Option<bool> traces = new("--traces") { Description = "Print the shortest way to each bug" };
        Command command = new("mutants", "Plant bugs, one at a time, and look for each. Fails if one is not found.");
        command.Options.Add(traces);
        command.SetAction(parsed => Run(parsed.GetValue(traces)));
        return command;
    }

    private static int Run(bool showsTraces)
    {
        IReadOnlyList<Mutant> mutants = Mutants.All;
        var watch = Stopwatch.StartNew();
        // Line by line, as they are found: nobody waits for a table to be complete.
        string[] titles = ["planted", "protocol", "where", "found by", "states/seeds", "depth", "s", "simulator", "found as"];
        int[] widths = [mutants.Max(m => m.Name.Length), 8, mutants.Max(m => m.Where.Length), 11, 12, 8, 5, 9, 0];
        Print(titles);
        Console.WriteLine($"|{string.Join('|', widths.Select(w => new string('-', w + 2)))}|");
        var found = new Dictionary<Finder, int>();
        int tables = 0;
        foreach (Mutant mutant in mutants)
        {
            MutantResult result = mutant.Seek(Environment.ProcessorCount);
            if (result.IsFound) found[mutant.Finder] = found.GetValueOrDefault(mutant.Finder) + 1;
            bool isCompared = mutant is TableMutant { Finder: Finder.Checker } && tables++ % AlsoSimulatedOneIn == 0;
            string finder = result.IsFound ? NameOf(mutant.Finder) : "NOT FOUND";
            string depth = mutant.Finder == Finder.Simulator ? $"{Number(result.Depth)} µs" : Number(result.Depth);
            string simulator = isCompared ? Compare((TableMutant)mutant) : "";
            Print([mutant.Name, mutant.ProtocolName, mutant.Where, finder, Number(result.Tried), depth, Seconds(result.Elapsed), simulator,
                result.FoundAs ?? "-"]);
            if (!showsTraces || !result.IsFound) continue;
            Console.WriteLine();
            foreach (string line in result.Tell()) Console.WriteLine($"    {line}");
            Console.WriteLine();
        }
        int all = found.Values.Sum();
        string byWhom = string.Join(", ", found.OrderBy(f => f.Key).Select(f => $"{NameOf(f.Key)} {f.Value}"));
        Console.WriteLine($"""

            {all} of {mutants.Count} found ({byWhom}) in {Seconds(watch.Elapsed)} s
            depth: moves, or virtual time; simulator: seeds that it takes, of {AlsoSimulatedSeeds} at most, tried for one in {AlsoSimulatedOneIn} of the tables' bugs
            """);
        return all < mutants.Count ? 1 : 0;

        void Print(string[] cells)
        {
            IEnumerable<string> padded = cells.Zip(widths, static (cell, width) => cell.PadRight(width));
            Console.WriteLine($"| {string.Join(" | ", padded)} |");
        }
    }

    private static string Compare(TableMutant mutant)
    {
        MutantResult result = mutant.Simulate(AlsoSimulatedSeeds);
        return result.IsFound ? Number(result.Tried) : "none";
    }

    private static string NameOf(Finder finder) => finder switch
    {
        Finder.Checker => "checker",
        Finder.LazySearch => "lazy search",
        _ => "simulator",
    };

    private static string Number(long value) => value.ToString("N0", CultureInfo.InvariantCulture);

    private static string Seconds(TimeSpan time) => time.TotalSeconds.ToString("F2", CultureInfo.InvariantCulture);
}
