// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent.Interop;

namespace VSmp.Agent.Fabric;

/// <summary>A connection that is made only to see whether anybody takes it. Owned by its reactor.</summary>
internal sealed class AddressProbe(Reactor reactor, int fd, Action<int> done) : IReactorHandler
{
    private bool _hasEnded;

    /// <summary>Waits for the answer, so long at most.</summary>
    public void Begin(long patienceMicroseconds)
    {
        reactor.Watch(fd, EpollEvents.Writable, this);
        reactor.After(patienceMicroseconds, () => End(Errno.ETIMEDOUT));
    }

    /// <inheritdoc/>
    public void OnReady(EpollEvents events) => End(Sockets.TakeError(fd));

    private void End(int error)
    {
        if (_hasEnded) return;
        _hasEnded = true;
        reactor.Unwatch(fd);
        _ = Libc.Close(fd);
        done(error);
    }
}
