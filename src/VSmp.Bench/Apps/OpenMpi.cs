// SPDX-License-Identifier: Apache-2.0
using System.Globalization;
using VSmp.Bench.Running;

namespace VSmp.Bench.Apps;

/// <summary>
/// Open MPI on this host, over TCP: what agents talk over, too. Its shared memory is out of bounds, since ranks on nodes of their own
/// would have none.
/// </summary>
internal static class OpenMpi
{
    private const string Launcher = "mpirun";

    /// <summary>What has to be installed for it.</summary>
    public const string Missing =
        "what VSmp is compared with is missing. As root: apt-get install openmpi-bin libopenmpi-dev (names of Debian 12), then make build";

    /// <summary>Runs ranks of a program to their end.</summary>
    /// <param name="cluster">What other runs are made with; an interruption ends this one, too.</param>
    /// <param name="ranks">How many.</param>
    /// <param name="program">Which: without what stands before its name.</param>
    /// <param name="arguments">Its arguments.</param>
    /// <param name="onLine">Called for each line that a rank prints.</param>
    /// <exception cref="BenchException">It is not there, or was interrupted.</exception>
    public static (int ExitCode, string Error) Run(BenchCluster cluster, int ranks, string program, IEnumerable<string> arguments, Action<string> onLine) =>
        cluster.RunBeside(Launcher, [.. LauncherArguments(ranks, Environment.IsPrivilegedProcess), FindProgram(program), .. arguments], onLine);

    /// <summary>Makes sure that everything is there.</summary>
    /// <exception cref="BenchException">It is not.</exception>
    public static void Require(IEnumerable<string> programs)
    {
        ArgumentNullException.ThrowIfNull(programs);
        string[] folders = (Environment.GetEnvironmentVariable("PATH") ?? "").Split(':');
        if (!folders.Any(folder => File.Exists(Path.Combine(folder, Launcher)))) throw new BenchException($"{Launcher}: {Missing}");
        foreach (string program in programs) _ = FindProgram(program);
    }

    /// <summary>What stands before the program.</summary>
    public static IReadOnlyList<string> LauncherArguments(int ranks, bool isRoot)
    {
        List<string> arguments =
        [
            "-np", ranks.ToString(CultureInfo.InvariantCulture), "--stdin", "none",
            "--oversubscribe", // also where there are fewer processors than ranks
            "--bind-to", "none", // as VSmp's ranks; bound ones cannot make way for what else runs, and are slower where something does
            "--mca", "pml", "ob1", "--mca", "btl", "tcp,self", "--mca", "btl_tcp_if_include", "lo", "--mca", "oob_tcp_if_include", "lo",
        ];
        if (isRoot) arguments.Add("--allow-run-as-root");
        return arguments;
    }

    // Without Open MPI `make build` leaves it out.
    private static string FindProgram(string program)
    {
        try
        {
            return BenchCluster.FindProgram($"mpi-{program}");
        }
        catch (BenchException e)
        {
            throw new BenchException($"{e.Message}; or {Missing}");
        }
    }
}
