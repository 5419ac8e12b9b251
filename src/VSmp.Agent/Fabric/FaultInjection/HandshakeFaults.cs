// SPDX-License-Identifier: Apache-2.0
using VSmp.Coherence;

namespace VSmp.Agent.Fabric.FaultInjection;

/// <summary>
/// The faults on what is sent in a handshake, message by message, as <see cref="LinkFaults"/> for a link. Belongs to the gate's thread.
/// </summary>
internal sealed class HandshakeFaults(FaultPlan plan, NodeId peer)
{
    /// <summary>How often it is looked whether a partition has been healed.</summary>
    private const long LookAgainMicroseconds = 20_000;

    private readonly Random _random = plan.NewRandom(peer);
    private bool _hasChosen;
    private bool _hasMetPartition;
    private bool _isDropped;
    private bool _isCorrupted;
    private long _notBefore;

    /// <summary>What becomes of the message that is to be sent next.</summary>
    /// <param name="now">The time, in microseconds.</param>
    /// <param name="waitMicroseconds">How long to wait before this is asked again; 0: it may go.</param>
    /// <returns>False if the message is lost, and the connection with it.</returns>
    public bool Look(long now, out long waitMicroseconds)
    {
        FaultSet faults = plan.Toward(peer);
        waitMicroseconds = 0;
        if (!_hasChosen)
        {
            _hasChosen = true;
            _isDropped = faults.Drop is { } drop && drop.Strikes(_random);
            _notBefore = _isDropped ? now + plan.StallMicroseconds
                : faults.Delay is { } delay && delay.Strikes(_random) ? now + delay.ChooseMicroseconds(_random) : now;
            _isCorrupted = !_isDropped && faults.Corrupt is { } corrupt && corrupt.Strikes(_random);
        }
        if (faults.Partition is { } partition)
        {
            if (!_hasMetPartition) partition.Happened();
            _hasMetPartition = true;
            waitMicroseconds = LookAgainMicroseconds;
        }
        else if (now < _notBefore)
        {
            waitMicroseconds = _notBefore - now;
        }
        else if (_isDropped)
        {
            return false;
        }
        return true;
    }

    /// <summary>The message goes now: it, or a copy with a bit flipped. The next one is chosen for anew.</summary>
    public byte[] Pass(byte[] message)
    {
        _hasChosen = false;
        if (!_isCorrupted) return message;
        byte[] copy = [.. message];
        Fault.Flip(copy, _random);
        return copy;
    }
}
