// SPDX-License-Identifier: Apache-2.0
using System.Globalization;
using VSmp.Bench.Fault;
using VSmp.Bench.Running;

namespace VSmp.Bench.Apps;

/// <summary>Runs applications as ranks of MPI and of VSmp by turns: a ratio is of two runs that were made within the same minute.</summary>
/// <param name="protocol">What keeps VSmp's memory coherent.</param>
/// <param name="rounds">How often everything is run.</param>
internal sealed class AppsRun(string protocol, int rounds)
{
    /// <summary>What each agent has to contribute: no application has to give pages back.</summary>
    public const string Memory = "256M";

    private const int Ranks = 2, TableBits = 23;

    // As many as take a second or so; plain memory is faster by far.
    private const long OurUpdates = 1 << 16, PlainUpdates = 1 << 25;

    /// <summary>How large the table of <c>vsmp-gups</c> is.</summary>
    public const int TableMebibytes = (1 << TableBits) * sizeof(ulong) >> 20;

    /// <summary>Runs.</summary>
    /// <param name="cluster">Two nodes, with nothing else to do.</param>
    /// <param name="onRound">Told of each round that begins, from 1 on.</param>
    /// <exception cref="BenchException">Something could not be run.</exception>
    /// <exception cref="WrongResultException">The programs do not agree.</exception>
    public (IReadOnlyList<ApplicationResult> Applications, GupsResult Gups) Run(BenchCluster cluster, Action<int> onRound)
    {
        OpenMpi.Require(Application.All.Select(application => application.Program));
        string[] nodes = [.. cluster.Nodes.Take(Ranks)];
        // Homes go round the nodes once what the ranks before had is given back.
        using AgentCounters agents = new(cluster.Name, nodes);
        ApplicationResult[] results = [.. Application.All.Select(application => RunAlone(cluster, application))];
        GupsResult gups = new();
        for (int round = 1; round <= rounds; round++)
        {
            onRound(round);
            foreach (ApplicationResult result in results)
            {
                ProgramOutput mpi = RunMpi(cluster, Ranks, result.Application, result.Checksum);
                agents.RequireEvenMemory(nodes);
                result.Add(mpi, RunOurs(cluster, nodes, result.Application.Program, result.Application.Arguments, result.Checksum));
            }
            double plainRate = PlainUpdates / RunPlainGups(cluster).Seconds;
            agents.RequireEvenMemory(nodes);
            gups.Add(plainRate, OurUpdates / RunOurs(cluster, nodes, "gups", [Text(TableBits), Text(OurUpdates)], null).Seconds);
        }
        return (results, gups);
    }

    // One rank of each kind, with nobody to share the work with, says what is to come out.
    private ApplicationResult RunAlone(BenchCluster cluster, Application application)
    {
        ProgramOutput alone = RunMpi(cluster, 1, application, null);
        _ = RunOurs(cluster, [.. cluster.Nodes.Take(1)], application.Program, application.Arguments, alone.Checksum);
        return new ApplicationResult(application, alone.Checksum!, alone.Seconds);
    }

    private ProgramOutput RunOurs(BenchCluster cluster, string[] nodes, string program, IEnumerable<string> arguments, string? expected)
    {
        ProgramOutput output = new();
        string name = $"vsmp-{program}";
        (int exitCode, string error) = cluster.RunRanks(nodes.Length, nodes, protocol, local: null, [BenchCluster.FindProgram(name), .. arguments], output.Add);
        return output.Require(name, exitCode, error, expected);
    }

    private static ProgramOutput RunMpi(BenchCluster cluster, int ranks, Application application, string? expected)
    {
        ProgramOutput output = new();
        (int exitCode, string error) = OpenMpi.Run(cluster, ranks, application.Program, application.Arguments, output.Add);
        return output.Require($"mpi-{application.Program}", exitCode, error, expected);
    }

    private static ProgramOutput RunPlainGups(BenchCluster cluster)
    {
        ProgramOutput output = new();
        (int exitCode, string error) = cluster.RunBeside(BenchCluster.FindProgram("vsmp-gups"),
            ["--private", Text(Ranks), Text(TableBits), Text(PlainUpdates)], output.Add);
        return output.Require("vsmp-gups --private", exitCode, error, expected: null);
    }

    private static string Text(long number) => number.ToString(CultureInfo.InvariantCulture);
}
