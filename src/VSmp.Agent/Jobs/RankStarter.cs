// SPDX-License-Identifier: Apache-2.0
using Microsoft.Win32.SafeHandles;
using VSmp.Agent.Control;

namespace VSmp.Agent.Jobs;

/// <summary>
/// A process that this agent has started to start ranks, as the user who runs <c>vsmp spmd</c> on another host. Owned by the reactor.
/// </summary>
/// <param name="orders">What it is to start.</param>
/// <param name="processId">The process.</param>
/// <param name="process">Its pidfd.</param>
internal sealed class RankStarter(RankOrders orders, int processId, SafeFileHandle process)
{
    /// <summary>What it is to start.</summary>
    public RankOrders Orders { get; } = orders;

    /// <summary>The process.</summary>
    public int ProcessId { get; } = processId;

    /// <summary>Its pidfd.</summary>
    public SafeFileHandle Process { get; } = process;

    /// <summary>Ranks that have not ended.</summary>
    public HashSet<int> RanksLeft { get; } = [.. orders.Program.Ranks];

    /// <summary>Output that is on its way to the leader.</summary>
    public Dictionary<uint, TaskCompletionSource> OnTheWay { get; } = [];

    private readonly List<(int Rank, byte[] Data)> _early = []; // input that came before it did
    private readonly List<int> _earlySignals = [];
    private IRunObserver? _connection;

    /// <summary>It has come for its orders; what came before it, it gets.</summary>
    public void Connect(IRunObserver connection)
    {
        _connection = connection;
        foreach ((int rank, byte[] data) in _early) connection.OnRankInput(rank, data);
        _early.Clear();
        foreach (int signal in _earlySignals) connection.OnSignalRanks(signal);
        _earlySignals.Clear();
    }

    /// <summary>Passes a piece of a rank's input on to it.</summary>
    /// <returns>False if there is one already that it has not come for.</returns>
    public bool TryPassInput(int rank, byte[] data)
    {
        if (_connection is not null) _connection.OnRankInput(rank, data);
        else if (_early.Exists(early => early.Rank == rank)) return false;
        else _early.Add((rank, data));
        return true;
    }

    /// <summary>Sends its ranks a signal.</summary>
    public void Signal(int signal)
    {
        if (_connection is not null) _connection.OnSignalRanks(signal);
        else if (!_earlySignals.Contains(signal)) _earlySignals.Add(signal);
    }
}
