// SPDX-License-Identifier: Apache-2.0
namespace VSmp.Agent.Control;

/// <summary>Hears of a run on the client's side; called on the connection's reading thread.</summary>
internal interface IRunListener
{
    /// <summary>A line for the user.</summary>
    void OnMessage(string text);

    /// <summary>A guest attached; the copy of its userfaultfd is the listener's to close.</summary>
    void OnGuestAttached(int processId, int userfaultfd);

    /// <summary>
    /// The agent was killed, and the one that was started again is about to tell of the run's guests: for each that it tells of, with the userfaultfds that it
    /// tells of from now on, those from before have served.
    /// </summary>
    void OnResuming()
    {
    }

    /// <summary>It has told of all of them, and the run goes on.</summary>
    /// <param name="away">How long nobody answered.</param>
    void OnResumed(TimeSpan away)
    {
    }

    /// <summary>A guest ended or detached.</summary>
    void OnGuestDetached(int processId);

    /// <summary>A rank on another host has printed something, or its node tells its figures: a <see cref="RankStream"/>.</summary>
    void OnRankOutput(int rank, int stream, byte[] data)
    {
    }

    /// <summary>A rank on another host has ended.</summary>
    void OnRankEnded(int rank, bool isSignaled, int status, string text)
    {
    }

    /// <summary>The job cannot go on without a node, or an agent, that is lost, as a line has told; its ranks are being ended.</summary>
    void OnJobLost()
    {
    }

    /// <summary>The ranks that this process has started are to get a signal.</summary>
    void OnSignalRanks(int signal)
    {
    }

    /// <summary>A rank that this process has started, or is to start, is to read this on its standard input; empty: nothing more.</summary>
    void OnRankInput(int rank, byte[] data)
    {
    }

    /// <summary>A rank on another host has taken a piece of its input: it may get the next.</summary>
    void OnRankInputTaken(int rank)
    {
    }

    /// <summary>
    /// The node is dead (where the agent has a keeper, that is gone as well, or another agent is there that cannot go on with what this connection was for),
    /// or has closed the connection, or <see cref="ControlClient.Dispose"/> was called.
    /// </summary>
    void OnAgentLost();
}
