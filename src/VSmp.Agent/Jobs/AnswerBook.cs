// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent.Guests;

namespace VSmp.Agent.Jobs;

/// <summary>
/// What a rank was answered, until it has it: agents between the two may be killed, calls and answers with them, so that the rank calls again. What was done is
/// answered again, and not done again. Each call that is out has a slot; the next call in it says that the answer was taken.
/// </summary>
internal sealed class AnswerBook
{
    /// <summary>Calls that a rank may have out: <c>VSMP_GUEST_SLOTS</c> of native/guest/protocol.h.</summary>
    public const int Slots = 1024;

    private readonly List<Entry> _entries = []; // by slot; ranks take the lowest that is free

    /// <summary>What is to be done with a call.</summary>
    public enum Verdict
    {
        /// <summary>It is a new one.</summary>
        Do,
        /// <summary>It was answered before.</summary>
        AnswerAgain,
        /// <summary>It is under way, or its answer was taken.</summary>
        Ignore,
        /// <summary>There is no such slot.</summary>
        Refuse,
    }

    /// <summary>A rank calls.</summary>
    /// <param name="call">The call.</param>
    /// <param name="reply">The answer, where it was answered before.</param>
    /// <param name="data">What goes with that.</param>
    public Verdict OnCall(in GuestMessage call, out GuestMessage reply, out byte[] data)
    {
        (reply, data) = (default, []);
        if (call.Slot >= Slots) return Verdict.Refuse;
        int slot = (int)call.Slot;
        while (_entries.Count <= slot) _entries.Add(default);
        Entry last = _entries[slot];
        int later = (int)(call.Serial - last.Serial); // numbers begin anew after the last one
        if (last.IsUsed && later < 0) return Verdict.Ignore;
        if (last.IsUsed && later == 0)
        {
            if (last.Reply is not { } answered) return Verdict.Ignore;
            (reply, data) = (answered, last.Data);
            return Verdict.AnswerAgain;
        }
        _entries[slot] = new Entry(true, call.Serial, null, []);
        return Verdict.Do;
    }

    /// <summary>A call is answered.</summary>
    public void OnReply(in GuestMessage reply, byte[] data)
    {
        int slot = (int)reply.Slot;
        if (slot < _entries.Count && _entries[slot].Serial == reply.Serial) _entries[slot] = new Entry(true, reply.Serial, reply, data);
    }

    /// <summary>The rank is gone: nobody asks again.</summary>
    public void Clear() => _entries.Clear();

    /// <summary>What it has.</summary>
    public IEnumerable<RankAnswer> Save(int rank)
    {
        for (int slot = 0; slot < _entries.Count; slot++)
        {
            Entry entry = _entries[slot];
            if (entry.IsUsed) yield return new RankAnswer(rank, slot, entry.Serial, entry.Reply is { } reply ? RankMessages.Write(in reply) : [], entry.Data);
        }
    }

    /// <summary>Takes an entry again; its slot is one that there is.</summary>
    /// <exception cref="InvalidDataException">It makes no sense.</exception>
    public void Load(RankAnswer saved)
    {
        while (_entries.Count <= saved.Slot) _entries.Add(default);
        _entries[saved.Slot] = new Entry(true, saved.Serial, saved.Reply.Length > 0 ? RankMessages.Read(saved.Reply) : null, saved.Data);
    }

    private readonly record struct Entry(bool IsUsed, uint Serial, GuestMessage? Reply, byte[] Data);
}
