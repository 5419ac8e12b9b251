// SPDX-License-Identifier: Apache-2.0
using System.Globalization;
using VSmp.Bench.Running;

namespace VSmp.Bench.Checkpoints;

/// <summary>A generation, as a rank of <c>vsmp-checkpoint</c> has seen it.</summary>
/// <param name="Generation">Its number.</param>
/// <param name="CallMilliseconds">What the call took.</param>
/// <param name="FirstMilliseconds">Then, writing all of its pages, while they are copied; 0: it does not.</param>
/// <param name="AgainMilliseconds">And again.</param>
internal sealed record SeenGeneration(long Generation, double CallMilliseconds, double FirstMilliseconds, double AgainMilliseconds);

/// <summary>What ranks of <c>vsmp-checkpoint</c> print. Restarted ones add to it.</summary>
internal sealed class CheckpointOutput
{
    private readonly List<SeenGeneration> _generations = [];
    private readonly List<double> _begins = [];

    /// <summary>Each generation, once for each rank that tells of it.</summary>
    public IReadOnlyList<SeenGeneration> Generations => _generations;

    /// <summary>When it began to compute, and each time that it began again: seconds of the monotonic clock.</summary>
    public IReadOnlyList<double> Begins => _begins;

    /// <summary>When it was done; NaN: it is not.</summary>
    public double End { get; private set; } = double.NaN;

    /// <summary>Of its result.</summary>
    public string? Checksum { get; private set; }

    /// <summary>What attaching took, of a job that only reads what was restored, in seconds, and then reading it.</summary>
    public (double Attach, double Read)? Restored { get; private set; }

    /// <summary>One line of it.</summary>
    /// <exception cref="BenchException">It cannot be understood.</exception>
    public void Add(string line)
    {
        ArgumentNullException.ThrowIfNull(line);
        switch (line.Split(' '))
        {
            case ["generation", string generation, string call]: _generations.Add(new(Number(generation), Number(call) / 1e6, 0, 0)); break;
            case ["generation", string generation, string call, string first, string again]:
                _generations.Add(new(Number(generation), Number(call) / 1e6, Number(first) / 1e6, Number(again) / 1e6));
                break;
            case ["begin", _, string at]: _begins.Add(Number(at) / 1e9); break;
            case ["end", string at]: End = Number(at) / 1e9; break;
            case ["checksum", string checksum]: Checksum = checksum; break;
            case ["restored", string attach, string read]: Restored = (Number(attach) / 1e9, Number(read) / 1e9); break;
            default: throw new BenchException($"vsmp-checkpoint says '{line}', which makes no sense");
        }

        long Number(string word) => long.TryParse(word, NumberStyles.None, CultureInfo.InvariantCulture, out long number)
            ? number
            : throw new BenchException($"vsmp-checkpoint says '{line}', which makes no sense");
    }
}
