// SPDX-License-Identifier: Apache-2.0
using VSmp.Bench.Running;

namespace VSmp.Bench.Apps;

/// <summary>An application, as often as it was run.</summary>
/// <param name="application">Which.</param>
/// <param name="checksum">Of its result, the same in all runs.</param>
/// <param name="aloneSeconds">What one rank took, with nobody to talk to, in memory of its own.</param>
internal sealed class ApplicationResult(Application application, string checksum, double aloneSeconds)
{
    private readonly List<PartResult> _parts = [];

    /// <summary>Which.</summary>
    public Application Application { get; } = application;

    /// <summary>Of its result, the same in all runs.</summary>
    public string Checksum { get; } = checksum;

    /// <summary>What one rank took, with nobody to talk to, in memory of its own.</summary>
    public double AloneSeconds { get; } = aloneSeconds;

    /// <summary>What MPI's ranks took.</summary>
    public Sample MpiSeconds { get; } = new();

    /// <summary>What VSmp's took.</summary>
    public Sample OurSeconds { get; } = new();

    /// <summary>The ratio of the two in one round.</summary>
    public Sample Ratio { get; } = new();

    /// <summary>What both spent it on.</summary>
    public IReadOnlyList<PartResult> Parts => _parts;

    /// <summary>Whether the median is within the target.</summary>
    public bool IsMet => Ratio.Median <= Application.Target;

    /// <summary>One more round.</summary>
    /// <exception cref="BenchException">The programs do not have the same parts.</exception>
    public void Add(ProgramOutput mpi, ProgramOutput ours)
    {
        MpiSeconds.Add(mpi.Seconds);
        OurSeconds.Add(ours.Seconds);
        Ratio.Add(ours.Seconds / mpi.Seconds);
        if (!mpi.Parts.Keys.SequenceEqual(ours.Parts.Keys)) throw new BenchException($"the two programs {Application.Program} do not have the same parts");
        if (_parts.Count == 0) _parts.AddRange(mpi.Parts.Keys.Select(part => new PartResult(Application.Program, part)));
        foreach (PartResult part in _parts)
        {
            part.MpiSeconds.Add(mpi.Parts[part.Part]);
            part.OurSeconds.Add(ours.Parts[part.Part]);
        }
    }
}

/// <summary>What the first ranks of an application spent on a part of it.</summary>
/// <param name="program">The application's program.</param>
/// <param name="part">The part's name.</param>
internal sealed class PartResult(string program, string part)
{
    /// <summary>The application's program.</summary>
    public string Program { get; } = program;

    /// <summary>The part's name.</summary>
    public string Part { get; } = part;

    /// <summary>What MPI's took.</summary>
    public Sample MpiSeconds { get; } = new();

    /// <summary>What VSmp's took.</summary>
    public Sample OurSeconds { get; } = new();
}

/// <summary>Random updates of shared memory, beside those of plain memory.</summary>
internal sealed class GupsResult
{
    /// <summary>Updates in a second, of all ranks together.</summary>
    public Sample OurRate { get; } = new();

    /// <summary>Those of as many threads in plain memory.</summary>
    public Sample PlainRate { get; } = new();

    /// <summary>How many times as many the latter are, in one round.</summary>
    public Sample Ratio { get; } = new();

    /// <summary>One more round.</summary>
    public void Add(double plainRate, double ourRate)
    {
        PlainRate.Add(plainRate);
        OurRate.Add(ourRate);
        Ratio.Add(plainRate / ourRate);
    }
}
