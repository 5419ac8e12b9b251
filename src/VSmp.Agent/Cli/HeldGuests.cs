// SPDX-License-Identifier: Apache-2.0
using Microsoft.Win32.SafeHandles;
using VSmp.Agent.Interop;

namespace VSmp.Agent.Cli;

/// <summary>
/// The guests that an agent has told of, with copies of their userfaultfds, so that none of them reads zeros if the agent dies, and whom to end if nobody takes
/// its place. From any thread.
/// </summary>
internal sealed class HeldGuests : IDisposable
{
    private readonly Lock _lock = new();
    private readonly Dictionary<int, HeldGuest> _guests = []; // under the lock
    private int _generation; // how often the agent has been started again; under the lock
    private bool _isDisposed; // under the lock

    /// <summary>A guest attached.</summary>
    /// <param name="processId">The process.</param>
    /// <param name="userfaultfd">A copy, which goes over.</param>
    public void Add(int processId, int userfaultfd)
    {
        lock (_lock)
        {
            HeldGuest guest = new(ProcessControl.Open(processId), new SafeFileHandle(userfaultfd, ownsHandle: true)) { Generation = _generation };
            if (_isDisposed)
            {
                guest.Dispose();
                return;
            }
            if (_guests.Remove(processId, out HeldGuest? earlier)) guest.Earlier = earlier; // a guest may attach more than one
            _guests[processId] = guest;
        }
    }

    /// <summary>A guest ended or detached.</summary>
    public void Remove(int processId)
    {
        lock (_lock)
        {
            if (_guests.Remove(processId, out HeldGuest? guest)) guest.Dispose();
        }
    }

    /// <summary>The agent is another one, and is about to tell of all guests again.</summary>
    public void OnResuming()
    {
        lock (_lock) _generation++;
    }

    /// <summary>It has told of all: what it has told of before has served.</summary>
    public void OnResumed()
    {
        lock (_lock)
        {
            foreach ((int processId, HeldGuest guest) in _guests.ToArray())
            {
                if (guest.Generation == _generation) guest.DropFormer();
                else if (guest.HasEnded && _guests.Remove(processId)) guest.Dispose();
                // else: the agent does not know it yet, or is about to end it; until then it must not read zeros
            }
        }
    }

    /// <summary>Kills them all: they hang in faults that nobody will serve, or soon would.</summary>
    public void Kill()
    {
        lock (_lock)
        {
            foreach (HeldGuest guest in _guests.Values) guest.Kill();
        }
    }

    /// <summary>Kills what is left of them, and waits until they are gone.</summary>
    /// <param name="timeoutMilliseconds">For each at most.</param>
    public void End(int timeoutMilliseconds)
    {
        lock (_lock)
        {
            foreach (HeldGuest guest in _guests.Values) guest.Kill();
            foreach (HeldGuest guest in _guests.Values) guest.AwaitEnd(timeoutMilliseconds);
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        lock (_lock)
        {
            _isDisposed = true;
            foreach (HeldGuest guest in _guests.Values) guest.Dispose();
            _guests.Clear();
        }
    }
}
