// SPDX-License-Identifier: Apache-2.0
namespace VSmp.Agent.Fabric.FaultInjection;

/// <summary>What can be wrong with the network from a node to another.</summary>
internal enum FaultKind
{
    /// <summary>Nothing gets through, and nobody is told.</summary>
    Partition,
    /// <summary>Messages are held back for a while, in order.</summary>
    Delay,
    /// <summary>Messages are lost: the connection stalls and breaks.</summary>
    Drop,
    /// <summary>A bit of a message is flipped.</summary>
    Corrupt,
}

/// <summary>A fault that is in force. It never changes but for its count, which any thread may raise.</summary>
/// <param name="kind">What.</param>
/// <param name="share">The part of the messages that it happens to, from 0 to 1.</param>
/// <param name="delayMicroseconds">Delay: the longest.</param>
internal sealed class Fault(FaultKind kind, double share, long delayMicroseconds = 0)
{
    private long _count;

    /// <summary>What.</summary>
    public FaultKind Kind => kind;

    /// <summary>The part of the messages that it happens to, from 0 to 1. 0: an exemption from what is in force for everybody.</summary>
    public double Share => share;

    /// <summary>Delay: the longest.</summary>
    public long DelayMicroseconds => delayMicroseconds;

    /// <summary>How often it has happened. A partition happens to a connection, or to an attempt at one; the others to messages.</summary>
    public long Count => Interlocked.Read(ref _count);

    /// <summary>Chooses whether it happens to the next message, and counts if so.</summary>
    public bool Strikes(Random random)
    {
        if (share <= 0 || random.NextDouble() >= share) return false;
        Happened();
        return true;
    }

    /// <summary>Chooses for how long a message is held back: any time up to the longest.</summary>
    public long ChooseMicroseconds(Random random) => 1 + (long)(random.NextDouble() * delayMicroseconds);

    /// <summary>It has happened.</summary>
    public void Happened() => Interlocked.Increment(ref _count);

    /// <summary>Flips one bit.</summary>
    public static void Flip(Span<byte> message, Random random)
    {
        int bit = random.Next(message.Length * 8);
        message[bit >> 3] ^= (byte)(1 << (bit & 7));
    }
}

/// <summary>The faults on one way, at most one of a kind.</summary>
internal sealed record FaultSet(Fault? Partition, Fault? Delay, Fault? Drop, Fault? Corrupt)
{
    /// <summary>A network without faults.</summary>
    public static FaultSet None { get; } = new(null, null, null, null);

    /// <summary>Whether there are none.</summary>
    public bool IsNone => Partition is null && Delay is null && Drop is null && Corrupt is null;

    /// <summary>Those that there are.</summary>
    public IEnumerable<Fault> All => new[] { Partition, Delay, Drop, Corrupt }.OfType<Fault>();

    /// <summary>The same with another fault of a kind, or with none of it.</summary>
    public FaultSet With(FaultKind kind, Fault? fault) => kind switch
    {
        FaultKind.Partition => this with { Partition = fault },
        FaultKind.Delay => this with { Delay = fault },
        FaultKind.Drop => this with { Drop = fault },
        _ => this with { Corrupt = fault },
    };

    /// <summary>These, and of the kinds of which there is none here, the other's. What is in force for no message is left out.</summary>
    public FaultSet Or(FaultSet other) => new(Real(Partition ?? other.Partition), Real(Delay ?? other.Delay), Real(Drop ?? other.Drop),
        Real(Corrupt ?? other.Corrupt));

    private static Fault? Real(Fault? fault) => fault is { Share: > 0 } ? fault : null;
}
