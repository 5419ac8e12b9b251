// SPDX-License-Identifier: Apache-2.0
namespace VSmp.Bench.Apps;

/// <summary>A parallel program that there is twice: as ranks that share memory, and as ranks of MPI.</summary>
/// <param name="Name">What it computes, in words.</param>
/// <param name="Program">The name of both: behind <c>vsmp-</c>, and behind <c>mpi-</c>.</param>
/// <param name="Arguments">How much it computes; the same for both.</param>
/// <param name="Target">What VSmp's time is to be, at most, as a multiple of MPI's.</param>
internal sealed record Application(string Name, string Program, IReadOnlyList<string> Arguments, double Target)
{
    /// <summary>
    /// Those that are compared. One run of two ranks takes one to three seconds on the machines that this was written on; sizes were
    /// chosen for that, and for whole problems: a plate that no cache holds, a small bacterium's genome with 30 reads for each base.
    /// </summary>
    public static IReadOnlyList<Application> All { get; } =
    [
        new("Jacobi, 2048 × 2048, 400 steps", "jacobi", ["2048", "400"], 1.25),
        new("k-mers of 300 000 reads, 16 rounds", "kmer", ["1000000", "300000", "16"], 1.25),
    ];
}
