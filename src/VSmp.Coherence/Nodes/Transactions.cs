// SPDX-License-Identifier: Apache-2.0
namespace VSmp.Coherence.Nodes;

/// <summary>A miss under way (a miss status holding register).</summary>
public struct Transaction
{
    /// <summary>Its number: responses carry it.</summary>
    public uint Number;
    /// <summary>InvAcks that have come.</summary>
    public ushort AcksReceived;
    /// <summary>InvAcks that the grant counts; known once the grant is here.</summary>
    public ushort AcksExpected;
    /// <summary>The version granted.</summary>
    public PageVersion Version;
    /// <summary>Who supplied the data and keeps a copy, if not the home.</summary>
    public NodeId Supplier;
    internal ushort NextFree;
}

/// <summary>The open transactions of a node: a fixed number of slots, so that nothing is allocated by a fault.</summary>
public sealed class TransactionTable
{
    private readonly Transaction[] _slots;
    private ushort _free;
    private uint _lastNumber;

    /// <summary>Makes a table of slots 1 … <paramref name="capacity"/>.</summary>
    public TransactionTable(ushort capacity)
    {
        _slots = new Transaction[capacity + 1];
        for (int i = 1; i < capacity; i++) _slots[i].NextFree = (ushort)(i + 1);
        _free = 1;
        Free = capacity;
    }

    /// <summary>Slots that are free.</summary>
    public int Free { get; private set; }

    /// <summary>The transaction in a slot.</summary>
    public ref Transaction this[ushort slot] => ref _slots[slot];

    /// <summary>The number that was given last, for saving and restoring.</summary>
    internal uint LastNumber
    {
        get => _lastNumber;
        set => _lastNumber = value;
    }

    /// <summary>A number for a new transaction, or a run of them.</summary>
    public uint NextNumber() => unchecked(++_lastNumber);

    /// <summary>Takes a slot; the caller has checked <see cref="Free"/>.</summary>
    public ushort Take(uint number)
    {
        ushort slot = _free;
        if (slot == 0) throw new InvalidOperationException("no transaction slot is free");
        ref Transaction t = ref _slots[slot];
        _free = t.NextFree;
        t = new Transaction { Number = number, Supplier = NodeId.None };
        Free--;
        return slot;
    }

    /// <summary>Gives a slot back.</summary>
    public void Return(ushort slot)
    {
        _slots[slot] = new Transaction { NextFree = _free };
        _free = slot;
        Free++;
    }
}
