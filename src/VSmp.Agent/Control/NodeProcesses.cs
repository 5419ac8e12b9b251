// SPDX-License-Identifier: Apache-2.0
using System.Diagnostics;
using VSmp.Agent.Interop;

namespace VSmp.Agent.Control;

/// <summary>The one place that knows of what processes a node consists: its keeper, its agent, and its guests.</summary>
internal static class NodeProcesses
{
    private const int PatienceMilliseconds = 5_000;

    /// <summary>
    /// Ends a node as the end of its host would: nobody gets to say anything. Guests stand still before their memory goes, so that none of them
    /// acts on zeros, and are killed last: whoever watches sees the node die, not its programs.
    /// </summary>
    /// <returns>Whether keeper and agent are gone.</returns>
    public static bool Kill(AgentFolder folder)
    {
        ProcessIdentity? keeper = folder.Keeper(), agent = folder.Running();
        IReadOnlyList<ProcessIdentity> guests = folder.Guests();
        foreach (ProcessIdentity guest in guests) _ = ProcessControl.Signal(guest, Signals.SIGSTOP);
        // An agent that saw its keeper die would leave the cluster, which a dead host does not.
        if (agent is { } talkative && ProcessControl.Signal(talkative, Signals.SIGSTOP)) _ = AwaitStop(talkative, isStopped: true);
        ProcessIdentity[] node = [.. new[] { keeper, agent }.OfType<ProcessIdentity>()];
        foreach (ProcessIdentity process in node) _ = ProcessControl.Signal(process, Signals.SIGKILL);
        bool areGone = Array.TrueForAll(node, process => ProcessControl.WaitForExit(process, PatienceMilliseconds));
        foreach (ProcessIdentity guest in guests) _ = ProcessControl.Signal(guest, Signals.SIGKILL);
        return areGone;
    }

    /// <summary>Waits until a process stands still, or goes on; false if it does not in time, or is dead.</summary>
    public static bool AwaitStop(ProcessIdentity process, bool isStopped)
    {
        long started = Stopwatch.GetTimestamp();
        while (process.IsAlive && process.IsStopped != isStopped)
        {
            if (Stopwatch.GetElapsedTime(started).TotalMilliseconds > PatienceMilliseconds) return false;
            Thread.Sleep(1); // nobody tells who is not the parent
        }
        return process.IsAlive;
    }
}
