// SPDX-License-Identifier: Apache-2.0
using System.Globalization;
using VSmp.Agent.Checkpointing;
using VSmp.Agent.Control;

namespace VSmp.Agent.Cli;

/// <summary>
/// <c>vsmp spmd --ha</c>: a job that cannot go on because a node was lost is begun again on the nodes that are left, from the latest generation of its checkpoint.
/// </summary>
/// <param name="cluster">The cluster.</param>
/// <param name="attempt">Begins the job, and runs it to its end.</param>
internal sealed class SpmdRestarts(string cluster, SpmdRestarts.Attempt attempt)
{
    /// <summary>Restarts without a newer generation between them: nobody is helped by more.</summary>
    private const int MostInVain = 8;

    /// <summary>How long to try to begin again: what the nodes that are left have to find out first takes a second or two.</summary>
    private const int BeginMilliseconds = 60_000;

    private const int RetryMilliseconds = 250;

    /// <summary>Runs a job once.</summary>
    /// <param name="request">The job.</param>
    /// <param name="supervisor">Who stood beside it.</param>
    /// <returns>The exit code.</returns>
    public delegate int Attempt(JobRequest request, out SpmdSupervisor supervisor);

    /// <summary>Runs a job to its end.</summary>
    /// <returns>The exit code.</returns>
    public int Run(JobRequest request)
    {
        int exitCode = attempt(request, out SpmdSupervisor last);
        uint from = 0;
        for (int inVain = 0; exitCode == ExitCodes.AgentLost && last.HasLostNode;)
        {
            long lostAt = Environment.TickCount64;
            inVain = last.Restored > from ? 0 : inVain + 1;
            from = Math.Max(from, last.Restored);
            if (inVain > MostInVain)
            {
                CommandLine.Say(string.Create(CultureInfo.InvariantCulture, $"--ha: {inVain} times in a row a node was lost before there was a newer generation of checkpoint {request.Checkpoint!.Name}: given up"));
                return exitCode;
            }
            CommandLine.Say($"--ha: the job begins again from the latest generation of checkpoint {request.Checkpoint!.Name}");
            exitCode = RunAgain(request with { Checkpoint = request.Checkpoint with { Start = CheckpointStart.RestartIfAny, Generation = null } }, lostAt + BeginMilliseconds, out last);
        }
        return exitCode;
    }

    private int RunAgain(JobRequest request, long deadline, out SpmdSupervisor supervisor)
    {
        while (true)
        {
            try { return attempt(request with { Nodes = NodesLeft(request.Nodes) }, out supervisor); }
            catch (CommandException e) when (e.ExitCode is ExitCodes.NoAgent or ExitCodes.AgentLost or ExitCodes.Taken or ExitCodes.Usage && Environment.TickCount64 < deadline)
            {
                // The lost node may be taken for one that is there, or may still hold what the new job needs.
            }
            Thread.Sleep(RetryMilliseconds);
        }
    }

    private string[]? NodesLeft(IReadOnlyList<string>? wanted)
    {
        if (wanted is null) return null;
        using ControlClient client = LocalAgents.ConnectToAny(LocalAgents.Running(cluster));
        HashSet<string> up = [.. client.GetStatus().Nodes.Where(node => node.State == "up").Select(node => node.Name)];
        string[] left = [.. wanted.Where(up.Contains)];
        return left.Length > 0 ? left : throw new CommandException(ExitCodes.NoAgent, $"none of the nodes {string.Join(", ", wanted)} is left");
    }
}
