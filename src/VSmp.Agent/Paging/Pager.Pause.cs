// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent.Guests;
using VSmp.Agent.Interop;

namespace VSmp.Agent.Paging;

/// <content>
/// Without a lease no fault is served: what comes stays in the kernel, and what waits goes on waiting. Peers' messages are taken as ever, and what was
/// granted before may still be installed: the guests are stopped, and what others may do is for the membership to say.
/// </content>
internal sealed unsafe partial class Pager
{
    private readonly List<Fault> _paused = [];
    private readonly List<Mapping> _muted = []; // not watched for faults
    private bool _isPaused;

    /// <summary>Serves no fault until <see cref="Resume"/>.</summary>
    public void Pause() => _isPaused = true;

    /// <summary>Serves faults again, those that came meanwhile among them.</summary>
    public void Resume()
    {
        if (!_isPaused) return;
        _isPaused = false;
        foreach (Mapping mapping in _muted)
        {
            if (!mapping.IsGone) _reactor.Change(mapping.Userfaultfd, EpollEvents.Readable);
        }
        _muted.Clear();
        foreach (Fault fault in _paused) _again.Enqueue(fault);
        _paused.Clear();
        Drain();
    }

    /// <summary>A fault has come, and stays: its descriptor would be readable all the time.</summary>
    private void Mute(Mapping mapping)
    {
        _reactor.Change(mapping.Userfaultfd, EpollEvents.None);
        _muted.Add(mapping);
    }
}
