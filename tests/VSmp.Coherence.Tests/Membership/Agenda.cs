// SPDX-License-Identifier: Apache-2.0
using VSmp.Coherence.Membership;

namespace VSmp.Coherence.Tests.Membership;

internal enum Happening : byte
{
    Tick,
    Deliver,
    ReadArrives,
    SwapArrives,
    Answer,
    SwapLost,
    Away,
    Fault,
    Restart,
    RestartRead,
    Poll,
    Heal,
}

/// <summary>Something that is going to happen.</summary>
internal struct Entry
{
    public Happening What;
    public int Node;
    public int Life; // of the agent that it is for: another one does not hear of it
    public int From;
    public int Argument;
    public long Revision;
    public MembershipView? View;
    public Heartbeat Heartbeat;
    public int Next;
}

/// <summary>What is going to happen, by time; what is due at one time happens in the order in which it was entered. Used again for each seed.</summary>
internal sealed class Agenda(int lastTime)
{
    private readonly int[] _first = new int[lastTime + 2];
    private readonly int[] _last = new int[lastTime + 2];
    private Entry[] _entries = new Entry[4096];
    private int _used;
    private int _free;

    public void Clear()
    {
        Array.Fill(_first, -1);
        Array.Clear(_entries, 0, _used);
        _used = 0;
        _free = -1;
    }

    /// <summary>Enters something, to be filled in at once; what is beyond the end of time never happens.</summary>
    public ref Entry Add(long time, Happening what, int node, int life)
    {
        int at = _free;
        if (at >= 0)
        {
            _free = _entries[at].Next;
        }
        else
        {
            if (_used == _entries.Length) Array.Resize(ref _entries, _used * 2);
            at = _used++;
        }
        int when = (int)Math.Min(time, lastTime + 1L);
        if (_first[when] < 0) _first[when] = at;
        else _entries[_last[when]].Next = at;
        _last[when] = at;
        ref Entry entry = ref _entries[at];
        entry.What = what;
        entry.Node = node;
        entry.Life = life;
        entry.View = null;
        entry.Next = -1;
        return ref entry;
    }

    /// <summary>Takes what is due.</summary>
    public bool TryTake(long time, out Entry entry)
    {
        int at = _first[time];
        if (at < 0)
        {
            entry = default;
            return false;
        }
        entry = _entries[at];
        _first[time] = entry.Next;
        _entries[at].Next = _free;
        _free = at;
        return true;
    }
}
