// SPDX-License-Identifier: Apache-2.0
using System.Globalization;

namespace VSmp.Bench.Litmus;

/// <summary>Where the variables of a test lie.</summary>
public enum LitmusLayout
{
    /// <summary>All on one page, a cache line each.</summary>
    One,

    /// <summary>Each on a page of its own.</summary>
    Two,

    /// <summary>Each spans the boundary of two pages, four bytes on either side.</summary>
    Crossing,
}

/// <summary>Which instructions the threads use.</summary>
public enum LitmusKind
{
    /// <summary>Plain loads and stores.</summary>
    Plain,

    /// <summary>Plain, with a full fence between a thread's two accesses.</summary>
    Mfence,

    /// <summary>Stores are locked exchanges.</summary>
    Xchg,

    /// <summary>Stores are locked exchanges and loads are locked additions of zero.</summary>
    Rmw,
}

/// <summary>One access of a thread.</summary>
/// <param name="IsStore">Whether it stores.</param>
/// <param name="Variable">0, 1, 2: x, y, z.</param>
/// <param name="Value">What it stores: 1 … 9.</param>
public readonly record struct LitmusAccess(bool IsStore, int Variable, int Value);

/// <summary>
/// A litmus test: a few threads of at most two accesses each, and the outcome that textbooks ask about. The notation is that of the
/// runner (native/litmus/litmus.c): <c>Wx1;Ry|Wy1;Rx</c>.
/// </summary>
public sealed class LitmusTest
{
    /// <summary>Parses a test.</summary>
    /// <param name="name">Its usual name.</param>
    /// <param name="program">Threads separated by <c>|</c>, accesses by <c>;</c>.</param>
    /// <param name="question">The outcome that the test is about: loads, <c>;</c>, last values; <c>*</c> for what does not matter.</param>
    /// <exception cref="FormatException">The program or the question is not in the notation.</exception>
    public LitmusTest(string name, string program, string question)
    {
        ArgumentNullException.ThrowIfNull(program);
        ArgumentNullException.ThrowIfNull(question);
        Name = name;
        Program = program;
        Threads = [.. program.Split('|').Select(thread => (IReadOnlyList<LitmusAccess>)[.. thread.Split(';').Select(Parse)])];
        LoadCount = Threads.Sum(thread => thread.Count(access => !access.IsStore));
        VariableCount = Threads.SelectMany(thread => thread).Max(access => access.Variable) + 1;
        Question = question;
        string[] sides = question.Split(';');
        if (sides.Length != 2 || Words(sides[0]).Length != LoadCount || Words(sides[1]).Length != VariableCount)
        {
            throw new FormatException($"{name}: the question '{question}' is not {LoadCount} loads; {VariableCount} last values");
        }
    }

    /// <summary>The tests that every run makes.</summary>
    public static IReadOnlyList<LitmusTest> All { get; } =
    [
        new("SB", "Wx1;Ry|Wy1;Rx", "0 0;* *"),
        new("MP", "Wx1;Wy1|Ry;Rx", "1 0;* *"),
        new("LB", "Rx;Wy1|Ry;Wx1", "1 1;* *"),
        new("IRIW", "Wx1|Wy1|Rx;Ry|Ry;Rx", "1 0 1 0;* *"),
        new("CoRR", "Wx1|Rx;Rx", "1 0;*"),
        new("CoRW", "Rx;Wx2|Wx1", "1;1"),
        new("CoWR", "Wx1;Rx|Wx2", "2;1"),
        new("CoWW", "Wx1;Wx2|Rx", "*;1"),
        new("2+2W", "Wx1;Wy2|Wy1;Wx2", ";1 1"),
        new("R", "Wx1;Wy1|Wy2;Rx", "0;1 2"),
        new("S", "Wx2;Wy1|Ry;Wx1", "1;2 1"),
        new("WRC", "Wx1|Rx;Wy1|Ry;Rx", "1 1 0;* *"),
        new("ISA2", "Wx1;Wy1|Ry;Wz1|Rz;Rx", "1 1 0;* * *"),
    ];

    /// <summary>Its usual name.</summary>
    public string Name { get; }

    /// <summary>The threads, in the notation of the runner.</summary>
    public string Program { get; }

    /// <summary>The outcome that textbooks ask about.</summary>
    public string Question { get; }

    /// <summary>Each thread's accesses, in program order.</summary>
    public IReadOnlyList<IReadOnlyList<LitmusAccess>> Threads { get; }

    /// <summary>How many loads there are, over all threads.</summary>
    public int LoadCount { get; }

    /// <summary>How many variables there are.</summary>
    public int VariableCount { get; }

    /// <summary>Whether an outcome is the one in question.</summary>
    public bool IsQuestion(LitmusOutcome outcome)
    {
        string[] asked = [.. Words(Question.Split(';')[0]), .. Words(Question.Split(';')[1])];
        return asked.Zip(outcome.Values).All(pair => pair.First == "*"
            || LitmusOutcome.Whole(int.Parse(pair.First, CultureInfo.InvariantCulture)) == pair.Second);
    }

    /// <summary>A line of the runner's plan.</summary>
    public string PlanLine(LitmusLayout layout, LitmusKind kind, int runs) =>
        $"{Name} {NameOf(layout)} {NameOf(kind)} {runs.ToString(CultureInfo.InvariantCulture)} {Program}";

    /// <summary>The name of a layout in plans and reports.</summary>
    public static string NameOf(LitmusLayout layout) => layout switch
    {
        LitmusLayout.One => "one",
        LitmusLayout.Two => "two",
        _ => "crossing",
    };

    /// <summary>The name of a kind in plans and reports.</summary>
    public static string NameOf(LitmusKind kind) => kind switch
    {
        LitmusKind.Plain => "plain",
        LitmusKind.Mfence => "mfence",
        LitmusKind.Xchg => "xchg",
        _ => "rmw",
    };

    private static LitmusAccess Parse(string text)
    {
        bool isStore = text.StartsWith('W');
        if (text.Length != (isStore ? 3 : 2) || (!isStore && text[0] != 'R') || text[1] is < 'x' or > 'z'
            || (isStore && text[2] is < '1' or > '9'))
        {
            throw new FormatException($"'{text}' is no access: Wx1 stores 1 to x, Rx loads x");
        }
        return new LitmusAccess(isStore, text[1] - 'x', isStore ? text[2] - '0' : 0);
    }

    private static string[] Words(string text) => text.Split(' ', StringSplitOptions.RemoveEmptyEntries);
}

/// <summary>
/// What one run of a test came to: what the loads read, in order of the threads, then the last values of the variables. Each is two hex
/// digits, the upper and the lower four bytes; they differ only where an access was torn.
/// </summary>
public sealed record LitmusOutcome
{
    /// <summary>An outcome, as the runner writes it: <c>00 11;11 11</c>.</summary>
    public LitmusOutcome(string text)
    {
        ArgumentNullException.ThrowIfNull(text);
        Text = text;
    }

    /// <summary>An outcome of values.</summary>
    public LitmusOutcome(IEnumerable<byte> loads, IEnumerable<byte> lastValues)
        : this(string.Join(' ', loads.Select(Digits)) + ";" + string.Join(' ', lastValues.Select(Digits)))
    {
    }

    /// <summary>The outcome, as the runner writes it.</summary>
    public string Text { get; }

    /// <summary>Loads, then last values.</summary>
    public IEnumerable<byte> Values => Text.Split(' ', ';').Where(text => text.Length > 0)
        .Select(text => byte.Parse(text, NumberStyles.HexNumber, CultureInfo.InvariantCulture));

    /// <summary>The digits of a value that both halves hold.</summary>
    public static byte Whole(int value) => (byte)((value << 4) | value);

    /// <inheritdoc/>
    public override string ToString() => Text;

    private static string Digits(byte value) => value.ToString("x2", CultureInfo.InvariantCulture);
}
