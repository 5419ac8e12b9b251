// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent.Control;

namespace VSmp.Agent.Guests;

/// <summary>
/// In the place of a <c>vsmp run</c> that has not come to this agent yet: keeps what there is to tell its user. Owned by the reactor.
/// </summary>
internal sealed class AwaitedSupervisor : IRunObserver
{
    /// <summary>Lines that are kept: the first, which say what it began with.</summary>
    public const int MaxMessages = 100;

    private readonly List<string> _messages = [];
    private int _dropped;

    /// <inheritdoc/>
    public void OnMessage(string text)
    {
        if (_messages.Count < MaxMessages) _messages.Add(text);
        else _dropped++;
    }

    /// <inheritdoc/>
    public void OnGuestAttached(int processId, int userfaultfd)
    {
        // It is told of all guests that are there when it comes.
    }

    /// <inheritdoc/>
    public void OnGuestDetached(int processId)
    {
        // As above.
    }

    /// <summary>Tells what was kept.</summary>
    public void TellAll(IRunObserver supervisor)
    {
        foreach (string text in _messages) supervisor.OnMessage(text);
        if (_dropped > 0) supervisor.OnMessage($"{_dropped} more lines are in the agent's log");
    }
}
