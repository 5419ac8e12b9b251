// SPDX-License-Identifier: Apache-2.0
namespace VSmp.Agent.Control;

/// <summary>
/// What the <c>vsmp</c> command exits with. <c>vsmp run</c> passes the program's own exit code through; so the codes below, met
/// there, can also be the program's: the line on standard error that begins with <c>vsmp:</c> tells them apart.
/// </summary>
internal static class ExitCodes
{
    /// <summary>Done.</summary>
    public const int Ok = 0;

    /// <summary>It failed in a way that has no number of its own; <c>vsmp doctor</c>: a check failed; <c>vsmp checkpoint diff</c>: they differ, and nothing
    /// has failed.</summary>
    public const int Failed = 1;

    /// <summary>The command line or the configuration file is wrong: unknown option, bad size, bad address, bad name, a checkpoint
    /// that is not there.</summary>
    public const int Usage = 2;

    /// <summary>No agent of that cluster (or of that name) runs on this host, or it does not answer. <c>vsmp agent</c>: members, or etcd, cannot be
    /// reached.</summary>
    public const int NoAgent = 3;

    /// <summary><c>vsmp up</c>: the cluster is up already.</summary>
    public const int AlreadyUp = 4;

    /// <summary>Refused: wrong cluster secret, etcd refuses, a peer of another cluster or version, a user who may not use the
    /// agent, or faults where none may be injected.</summary>
    public const int Refused = 5;

    /// <summary>Not enough memory: more than the host has, a tmpfs too small, the pool exhausted.</summary>
    public const int NoMemory = 6;

    /// <summary>The agent's name, the region's name or the port is taken, or a checkpoint is being written.</summary>
    public const int Taken = 7;

    /// <summary>The kernel or its settings do not permit what is needed: userfaultfd, mounting a tmpfs.</summary>
    public const int NotPermitted = 8;

    /// <summary><c>vsmp run</c>, <c>vsmp spmd</c>: an agent was lost, and the guests or ranks were ended. <c>vsmp agent</c>: the others have excluded
    /// the node, the coordinator is lost, or the record of the cluster is gone.</summary>
    public const int AgentLost = 9;

    /// <summary><c>vsmp audit</c>: something is not as it must be. <c>vsmp checkpoint</c>: one is damaged, of a newer format, or cannot be
    /// read.</summary>
    public const int Unsound = 10;

    /// <summary><c>vsmp run</c> itself failed, before the program started.</summary>
    public const int RunFailed = 125;

    /// <summary><c>vsmp run</c>: the program is there but cannot be run, or cannot be run on the pool (statically linked, setuid,
    /// of another architecture).</summary>
    public const int CannotExecute = 126;

    /// <summary><c>vsmp run</c>: there is no such program.</summary>
    public const int NotFound = 127;

    /// <summary><c>vsmp run</c>: the program was killed by signal N: 128 + N (the signal is raised again, so that a shell sees
    /// it).</summary>
    public const int SignalBase = 128;
}

/// <summary>Ends the command with one line for the user and an exit code; never shown as a stack trace.</summary>
internal sealed class CommandException(int exitCode, string message) : Exception(message)
{
    /// <summary>One of <see cref="ExitCodes"/>.</summary>
    public int ExitCode { get; } = exitCode;
}
