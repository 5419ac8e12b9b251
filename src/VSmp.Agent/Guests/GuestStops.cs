// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent.Interop;
using VSmp.Agent.Membership;

namespace VSmp.Agent.Guests;

/// <summary>
/// Stops this node's guests while it has no lease, where no keeper does: by SIGSTOP from the agent, as soon as the reactor comes round to it. An agent that
/// is stopped itself, or dead, stops nobody. Owned by the reactor.
/// </summary>
internal sealed class GuestStops(Reactor reactor, Runs runs) : ILease
{
    /// <summary>Programs are told of a stop only if it was long enough for somebody to notice.</summary>
    private const long WorthTellingMicroseconds = 1_000_000;

    private readonly HashSet<Guest> _stopped = [];
    private bool _mayRun;
    private long _stoppedAt;

    /// <inheritdoc/>
    public void Extend(BootTime deadline)
    {
        if (_mayRun) return;
        _mayRun = true;
        long stopped = reactor.NowMicroseconds - _stoppedAt;
        foreach (Guest guest in _stopped)
        {
            if (!guest.Run.Guests.Contains(guest)) continue; // it is gone
            if (stopped >= WorthTellingMicroseconds)
                guest.Tell($"process {guest.ProcessId} goes on: it was stopped for {stopped / 1e6:0.0} s, since this node could not reach the others");
            _ = ProcessControl.Signal(guest.Process, Signals.SIGCONT);
        }
        _stopped.Clear();
    }

    /// <inheritdoc/>
    public void End()
    {
        _mayRun = false;
        _stoppedAt = reactor.NowMicroseconds;
        Stop();
    }

    /// <summary>A process has attached, or is gone.</summary>
    public void OnGuestsChanged()
    {
        _stopped.RemoveWhere(guest => !guest.Run.Guests.Contains(guest));
        if (!_mayRun) Stop();
    }

    private void Stop()
    {
        foreach (Guest guest in runs.Guests)
        {
            if (_stopped.Contains(guest) || !ProcessControl.Signal(guest.Process, Signals.SIGSTOP)) continue;
            _stopped.Add(guest);
        }
    }
}
