// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent.Control;
using VSmp.Agent.Interop;

namespace VSmp.Agent.Guests;

/// <summary>
/// In the place of a <c>vsmp run</c>, or <c>vsmp spmd</c>, that has not come to this agent yet: keeps what there is to tell its user. Owned by the reactor.
/// </summary>
internal sealed class AwaitedSupervisor : IRunObserver
{
    /// <summary>Lines that are kept: the first, which say what it began with.</summary>
    public const int MaxMessages = 100;

    /// <summary>How long it is waited for.</summary>
    public const long PatienceMicroseconds = 30_000_000;

    private readonly List<string> _messages = [];
    private int _dropped;

    /// <summary>Gives up what waits for its command, if that does not come.</summary>
    /// <param name="reactor">Knows the time.</param>
    /// <param name="patienceMicroseconds">How long it is waited for.</param>
    /// <param name="processId">The command. While it is suspended, as whoever suspends a program does with it, it is waited for.</param>
    /// <param name="isAwaited">Whether it has not come, and there is something to give up.</param>
    /// <param name="onAbandoned">Gives that up.</param>
    public static void Await(Reactor reactor, long patienceMicroseconds, int processId, Func<bool> isAwaited, Action onAbandoned) => reactor.After(patienceMicroseconds, () =>
    {
        if (!isAwaited()) return;
        if (ProcessIdentity.Of(processId) is { IsStopped: true }) Await(reactor, patienceMicroseconds, processId, isAwaited, onAbandoned);
        else onAbandoned();
    });

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
