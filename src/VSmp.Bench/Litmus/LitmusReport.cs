// SPDX-License-Identifier: Apache-2.0
using System.Globalization;

namespace VSmp.Bench.Litmus;

/// <summary>What litmus tests came to, as a table: a row per test, a column per variant.</summary>
public sealed class LitmusReport(IReadOnlyCollection<LitmusResult> results)
{
    /// <summary>How many of the variants of all tests show violations.</summary>
    public int Violations => results.Count(result => result.Judge(out _) == LitmusVerdict.Violation);

    /// <summary>The tests that show violations, in any variant.</summary>
    public IEnumerable<string> TestsWithViolations =>
        results.Where(result => result.Judge(out _) == LitmusVerdict.Violation).Select(result => result.Test.Name).Distinct();

    /// <summary>Writes the table, then what is behind each verdict that is not a pass.</summary>
    public void Write(TextWriter output)
    {
        ArgumentNullException.ThrowIfNull(output);
        List<string[]> lines = [[
            "TEST", "QUESTION", "X86-TSO", "RUNS", "FORBIDDEN", "MET", "RELAXED",
            .. LitmusRun.Variants.Select(variant => $"{LitmusTest.NameOf(variant.Layout)}/{LitmusTest.NameOf(variant.Kind)}"),
        ]];
        foreach (IGrouping<LitmusTest, LitmusResult> test in results.GroupBy(result => result.Test))
        {
            lines.Add([
                test.Key.Name, test.Key.Question, AnswerOf(test.Key),
                Number(test.Sum(result => result.Runs)), Number(test.Sum(result => result.Forbidden)),
                Number(test.Sum(result => result.Overlapping)), Number(test.Sum(result => result.Relaxed)),
                .. test.Select(result => ShortNameOf(result.Judge(out _))),
            ]);
        }
        int[] widths = [.. lines[0].Select((_, column) => lines.Max(line => line[column].Length))];
        foreach (string[] line in lines)
        {
            IEnumerable<string> cells = line.Select((cell, i) => i is >= 3 and <= 6 ? cell.PadLeft(widths[i]) : cell.PadRight(widths[i]));
            output.WriteLine(string.Join("  ", cells).TrimEnd());
        }
        foreach (LitmusResult result in results)
        {
            LitmusVerdict verdict = result.Judge(out string why);
            if (verdict == LitmusVerdict.Pass) continue;
            output.WriteLine($"{NameOf(verdict)}: {result.Test.Name} {LitmusTest.NameOf(result.Layout)}/{LitmusTest.NameOf(result.Kind)}"
                + $", {Number(result.Runs)} runs: {why}");
        }
        output.WriteLine(string.Join(", ", Enum.GetValues<LitmusVerdict>()
            .Select(verdict => $"{results.Count(result => result.Judge(out _) == verdict)} {NameOf(verdict)}")));
    }

    /// <summary>What x86-TSO says to the question of a test: plain, and with a fence or locked instructions.</summary>
    internal static string AnswerOf(LitmusTest test)
    {
        string plain = Answer(LitmusKind.Plain), fenced = Answer(LitmusKind.Mfence), locked = Answer(LitmusKind.Xchg);
        return plain == fenced && fenced == locked ? plain : $"{plain} (mfence: {fenced}, xchg: {locked})";

        string Answer(LitmusKind kind) => TsoModel.Allowed(test, LitmusLayout.Two, kind).Any(test.IsQuestion) ? "allowed" : "forbidden";
    }

    private static string NameOf(LitmusVerdict verdict) => verdict switch
    {
        LitmusVerdict.Pass => "pass",
        LitmusVerdict.Violation => "VIOLATION",
        LitmusVerdict.Inconclusive => "inconclusive",
        _ => "unsupported",
    };

    private static string ShortNameOf(LitmusVerdict verdict) => verdict switch
    {
        LitmusVerdict.Pass => "pass",
        LitmusVerdict.Violation => "VIOLATION",
        LitmusVerdict.Inconclusive => "unclear",
        _ => "-",
    };

    private static string Number(long value) => value.ToString(CultureInfo.InvariantCulture);
}
