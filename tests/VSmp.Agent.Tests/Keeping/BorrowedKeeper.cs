// SPDX-License-Identifier: Apache-2.0
using System.Diagnostics;
using System.Globalization;
using VSmp.Agent.Interop;
using VSmp.Agent.Keeping;
using VSmp.Agent.Tests.Cli;
using Xunit;

namespace VSmp.Agent.Tests.Keeping;

/// <summary>
/// A keeper whose agent lends its end of the socket to the test, so that a client in this process speaks with it. The agent can be killed
/// like any other; the next one lends its end, too.
/// </summary>
internal sealed class BorrowedKeeper : IDisposable
{
    private readonly string _path = Path.Combine(Path.GetTempPath(), string.Create(CultureInfo.InvariantCulture, $"vsmp-k-{Guid.NewGuid():N}"));
    private readonly UnixSocket _listener;
    private UnixSocket? _agent;

    public BorrowedKeeper()
    {
        _listener = UnixSocket.Listen(_path, UnixSocketType.SequencedPacket, groupId: null);
        Keeper = KeeperPrograms.Start(10, "keeper-agent", "lend", _path);
    }

    /// <summary>The keeper.</summary>
    public Process Keeper { get; }

    /// <summary>A client on the end of the agent that was started last; waits for it.</summary>
    public KeeperClient Connect() => new(UnixSocket.Adopt(Borrow(), UnixSocketType.SequencedPacket));

    /// <summary>The agent's end of its socket.</summary>
    public int Borrow()
    {
        Assert.True(_listener.WaitReadable((int)KeeperPrograms.Patience.TotalMilliseconds), "no agent comes");
        _agent?.Dispose();
        _agent = _listener.Accept();
        Assert.NotNull(_agent);
        Assert.True(_agent.WaitReadable((int)KeeperPrograms.Patience.TotalMilliseconds), "the agent lends nothing");
        List<int> descriptors = [];
        Assert.Equal(sizeof(int), _agent.Receive(stackalloc byte[sizeof(int)], descriptors));
        return Assert.Single(descriptors);
    }

    /// <summary>Kills the agent; the keeper starts another.</summary>
    public void KillAgent() => Assert.Equal(0, Libc.Kill(_agent!.Peer.ProcessId, Signals.SIGKILL));

    /// <summary>Has the agent end with a code, and the keeper with it.</summary>
    public async Task<int> FinishAsync(byte code)
    {
        Assert.Equal(1, _agent!.Send([code], -1, wait: true));
        return (await Vsmp.FinishAsync(Keeper)).ExitCode;
    }

    public void Dispose()
    {
        _agent?.Dispose();
        _listener.Dispose();
        _ = Libc.Unlink(_path);
        Keeper.Kill();
        Keeper.Dispose();
    }
}
