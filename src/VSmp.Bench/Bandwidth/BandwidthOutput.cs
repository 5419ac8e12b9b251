// SPDX-License-Identifier: Apache-2.0
using System.Globalization;
using VSmp.Bench.Fault;
using VSmp.Bench.Running;

namespace VSmp.Bench.Bandwidth;

/// <summary>What <c>vsmp-bandwidth</c> has printed: a pattern's name, its pages, and the nanoseconds of each pass over all of them.</summary>
internal sealed class BandwidthOutput
{
    private readonly Dictionary<string, double> _microseconds = [];

    /// <summary>One line of it.</summary>
    /// <exception cref="BenchException">It cannot be understood.</exception>
    public void Add(string line)
    {
        ArgumentNullException.ThrowIfNull(line);
        string[] words = line.Split(' ');
        long[] numbers = [.. words.Skip(1).Select(word => long.TryParse(word, NumberStyles.None, CultureInfo.InvariantCulture, out long number) ? number : 0)];
        if (numbers.Length < 2 || numbers.Contains(0)) throw new BenchException($"'{line}' is not the time of a pattern");
        // What interrupts a pass is no part of it.
        _microseconds[words[0]] = PlanRun.Quantile(numbers[1..], 0.5) / numbers[0];
    }

    /// <summary>The microseconds for a page of each pattern, by the program's names for them, if everything was right.</summary>
    /// <param name="exitCode">How the program ended.</param>
    /// <param name="error">What it said on standard error.</param>
    /// <exception cref="BenchException">It failed.</exception>
    /// <exception cref="WrongResultException">It has read something else than was written.</exception>
    public IReadOnlyDictionary<string, double> Require(int exitCode, string error)
    {
        if (exitCode == ExitCode.Wrong) throw new WrongResultException($"vsmp-bandwidth: {error}");
        if (exitCode != 0) throw new BenchException($"the ranks ended with exit code {exitCode}: {error}");
        string? missing = Pattern.All.Select(pattern => pattern.Program).Append(Pattern.Plain).FirstOrDefault(name => !_microseconds.ContainsKey(name));
        return missing is null ? _microseconds : throw new BenchException($"vsmp-bandwidth did not say what {missing} took");
    }
}
