// SPDX-License-Identifier: Apache-2.0
using Microsoft.Win32.SafeHandles;
using VSmp.Agent.Control;
using VSmp.Agent.Interop;

namespace VSmp.Agent.Cli;

/// <summary>
/// An agent of this host that has ranks of a job: holds copies of their userfaultfds, so that none of them reads zeros if the agent dies,
/// and ends them if it does.
/// </summary>
internal sealed class SpmdAgent : IRunListener, IDisposable
{
    private const int GraceMilliseconds = 5_000;

    private readonly ControlClient _client;
    private readonly Action<SpmdAgent> _onLost;
    private readonly HeldGuests _guests = new();
    private volatile bool _isClosing;

    /// <summary>Connects to the agent.</summary>
    public SpmdAgent(AgentFolder agent, Action<SpmdAgent> onLost)
    {
        Name = agent.Name;
        _onLost = onLost;
        _client = ControlClient.Connect(agent, this);
    }

    /// <summary>The agent's name.</summary>
    public string Name { get; }

    /// <summary>Whether its process has ended, though the loss may not be told yet.</summary>
    public bool IsGone => _client.IsAgentGone;

    /// <summary>The socket that its ranks connect to, once a run has begun.</summary>
    public string GuestSocket { get; private set; } = "";

    /// <summary>Begins the run of the ranks here.</summary>
    public void Begin(RunRequest request) => GuestSocket = _client.BeginRun(request).GuestSocket;

    /// <summary>The figures of the ranks here so far; null if the agent is lost.</summary>
    public RunStatistics? GetFigures()
    {
        try { return _client.GetRun(); }
        catch (CommandException) { return null; } // lost, and told
    }

    /// <summary>Ends the run.</summary>
    /// <returns>Its figures; null if the agent is lost.</returns>
    public RunStatistics? End()
    {
        try { return _client.EndRun(); }
        catch (CommandException) { return null; } // lost, and told
    }

    /// <summary>Kills what is left of the ranks here, and waits until they are gone.</summary>
    public void KillGuests() => _guests.End(GraceMilliseconds);

    /// <inheritdoc/>
    public void OnMessage(string text) => CommandLine.Say($"{Name}: {text}");

    /// <inheritdoc/>
    public void OnGuestAttached(int processId, int userfaultfd) => _guests.Add(processId, userfaultfd);

    /// <inheritdoc/>
    public void OnGuestDetached(int processId) => _guests.Remove(processId);

    /// <inheritdoc/>
    public void OnResuming() => _guests.OnResuming();

    /// <inheritdoc/>
    public void OnResumed(TimeSpan away)
    {
        _guests.OnResumed();
        CommandLine.Say(CommandLine.AgentIsBack(Name, away));
    }

    /// <inheritdoc/>
    public void OnAgentLost()
    {
        if (_isClosing) return;
        _guests.Kill();
        _onLost(this);
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        if (_isClosing) return;
        _isClosing = true;
        _client.Dispose();
        _guests.Dispose();
    }
}
