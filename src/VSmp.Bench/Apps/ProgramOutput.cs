// SPDX-License-Identifier: Apache-2.0
using System.Globalization;
using VSmp.Bench.Running;

namespace VSmp.Bench.Apps;

/// <summary>What a program has printed: <c>seconds S</c>, <c>checksum C</c>, and <c>part NAME S</c> for what it spent them on.</summary>
internal sealed class ProgramOutput
{
    private readonly Dictionary<string, double> _parts = [];

    /// <summary>What it took, from the barrier behind its start to the one at its end.</summary>
    public double Seconds { get; private set; } = double.NaN;

    /// <summary>Of its result.</summary>
    public string? Checksum { get; private set; }

    /// <summary>What its first rank spent the time on, in seconds.</summary>
    public IReadOnlyDictionary<string, double> Parts => _parts;

    /// <summary>One line of it. What is for people only is ignored.</summary>
    /// <exception cref="BenchException">It cannot be understood.</exception>
    public void Add(string line)
    {
        ArgumentNullException.ThrowIfNull(line);
        switch (line.Split(' '))
        {
            case ["seconds", string seconds]: Seconds = ParseSeconds(seconds, line); break;
            case ["checksum", string checksum]: Checksum = checksum; break;
            case ["part", string part, string seconds]: _parts[part] = ParseSeconds(seconds, line); break;
        }
    }

    /// <summary>Makes sure that the program said everything, and that its result is right.</summary>
    /// <param name="program">Its name.</param>
    /// <param name="exitCode">How it ended.</param>
    /// <param name="error">What it said on standard error.</param>
    /// <param name="expected">The checksum of the right result; null if this is the first one.</param>
    /// <exception cref="BenchException">It failed.</exception>
    /// <exception cref="WrongResultException">Its result is another one.</exception>
    public ProgramOutput Require(string program, int exitCode, string error, string? expected)
    {
        if (exitCode == ExitCode.Wrong) throw new WrongResultException($"{program}: {error}");
        if (exitCode != 0) throw new BenchException($"{program} ended with exit code {exitCode}: {error}");
        // A time of nothing cannot be compared with.
        if (!(Seconds > 0) || Checksum is null) throw new BenchException($"{program} did not say how long it took, and what came out");
        if (expected is not null && Checksum != expected) throw new WrongResultException($"{program}: the checksum is {Checksum}, and should be {expected}");
        return this;
    }

    private static double ParseSeconds(string word, string line) =>
        double.TryParse(word, NumberStyles.Float, CultureInfo.InvariantCulture, out double seconds) && double.IsFinite(seconds) && seconds >= 0
            ? seconds
            : throw new BenchException($"'{line}' is not a time");
}
