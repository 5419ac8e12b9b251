// SPDX-License-Identifier: Apache-2.0
namespace VSmp.Bench.Velvet;

/// <summary>One of the programs that an assembly takes.</summary>
/// <param name="Program">Its name.</param>
/// <param name="Inputs">The files that it needs in its folder, from the step before.</param>
/// <param name="Outputs">The files that it makes there. The log is not one of them: it has times in it.</param>
internal sealed record VelvetStep(string Program, IReadOnlyList<string> Inputs, IReadOnlyList<string> Outputs)
{
    private const string WordLength = "31";

    /// <summary>The programs, in their order.</summary>
    public static IReadOnlyList<VelvetStep> All { get; } =
    [
        new("velveth", [], ["Sequences", "Roadmaps"]),
        new("velvetg", ["Sequences", "Roadmaps"], ["contigs.fa", "Graph2", "LastGraph", "PreGraph", "stats.txt"]),
    ];

    /// <summary>The command.</summary>
    /// <param name="folder">Where it works.</param>
    /// <param name="reads">The file with the reads.</param>
    public IReadOnlyList<string> Command(string folder, string reads) => Program == "velveth"
        ? [Program, folder, WordLength, "-fasta", "-short", reads]
        : [Program, folder, "-exp_cov", "auto", "-cov_cutoff", "auto"];

    /// <summary>Makes a folder to work in.</summary>
    /// <param name="folder">Which; what was there is gone.</param>
    /// <param name="before">The folder of the step before.</param>
    public void Prepare(string folder, string before)
    {
        if (Directory.Exists(folder)) Directory.Delete(folder, recursive: true);
        Directory.CreateDirectory(folder);
        foreach (string input in Inputs) File.Copy(Path.Combine(before, input), Path.Combine(folder, input));
    }

    /// <summary>The outputs that are not byte for byte the same in two folders, or in one of them only.</summary>
    public IReadOnlyList<string> Differences(string folder, string other) =>
        [.. Outputs.Where(output => !AreSame(Path.Combine(folder, output), Path.Combine(other, output)))];

    private static bool AreSame(string path, string other)
    {
        if (!File.Exists(path) || !File.Exists(other)) return false;
        return File.ReadAllBytes(path).AsSpan().SequenceEqual(File.ReadAllBytes(other));
    }
}
