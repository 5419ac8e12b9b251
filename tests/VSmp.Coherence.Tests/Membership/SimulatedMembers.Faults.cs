// SPDX-License-Identifier: Apache-2.0
using VSmp.Coherence.Membership;

namespace VSmp.Coherence.Tests.Membership;

/// <content>What goes wrong.</content>
internal sealed partial class SimulatedMembers
{
    private const int EverybodyIsBack = -1;

    private enum Fault : byte
    {
        CutOneWay,
        CutBothWays,
        Isolate,
        Part,
        KillHost,
        KillAgent,
        Pause,
        StoreDown,
        StoreCut,
        Join,
        Leave,
        Strand,
    }

    private void DrawFaults()
    {
        int faults = _profile.MaxFaults == 0 ? 0 : 1 + Draw(_profile.MaxFaults);
        for (int i = 0; i < faults; i++) _agenda.Add(100 + Draw(FaultsEnd - 500), Happening.Fault, 0, 0).Argument = Draw(11);
        if (_profile.Grows)
        {
            for (int i = 0; i < 2; i++) _agenda.Add(300 + Draw(50), Happening.Fault, 0, 0).Argument = (int)Fault.Join;
        }
        if (_profile.Strands)
        {
            int at = 200 + Draw(100);
            _agenda.Add(at, Happening.Fault, 0, 0).Argument = (int)Fault.Strand;
            for (int i = 0; i < 2; i++) _agenda.Add(at + 500 + Draw(20), Happening.Fault, 0, 0).Argument = (int)Fault.Join;
        }
        _agenda.Add(FaultsEnd, Happening.Heal, 0, 0).Argument = EverybodyIsBack;
    }

    private void DoFault(int number)
    {
        int a = Draw(_used), b = Draw(_used);
        int lasts = Draw(3) == 0 ? Draw(2500) : Draw(600);
        Slot slot = _slots[a];
        Fault trouble = (Fault)number;
        Tell($"fault: {trouble} n{a} n{b}, {lasts} ms");
        switch (trouble)
        {
            case Fault.CutOneWay:
                Cut(a, b, lasts);
                break;
            case Fault.CutBothWays:
                Cut(a, b, lasts);
                Cut(b, a, lasts);
                break;
            case Fault.Isolate:
                for (int i = 0; i < _used; i++)
                {
                    if (Happens(20)) continue; // not quite
                    Cut(a, i, lasts);
                    Cut(i, a, lasts);
                }
                break;
            case Fault.Part:
                int side = Draw(1 << _used);
                for (int i = 0; i < _used * _used; i++)
                {
                    if ((((side >> (i / _used)) ^ (side >> (i % _used))) & 1) != 0) Cut(i / _used, i % _used, lasts);
                }
                break;
            case Fault.KillHost:
                if (slot.Life is not (Life.Up or Life.AgentDown or Life.Joining)) break;
                slot.Life = Life.Dead;
                slot.Machine = null;
                slot.GuestsRunUntil = 0;
                slot.Refuses = Draw(2) == 0;
                break;
            case Fault.KillAgent:
                if (slot.Life != Life.Up) break;
                slot.Life = Life.AgentDown;
                slot.Machine = null;
                _agenda.Add(_now + lasts, Happening.Restart, a, 0);
                break;
            case Fault.Pause:
                slot.PausedUntil = Math.Min(_now + lasts, FaultsEnd);
                break;
            case Fault.StoreDown:
                _isStoreDown = true;
                _agenda.Add(Math.Min(_now + lasts, FaultsEnd), Happening.Heal, 0, 0).Argument = (int)Fault.StoreDown;
                break;
            case Fault.StoreCut:
                _isStoreCut[a] = true;
                _agenda.Add(Math.Min(_now + lasts, FaultsEnd), Happening.Heal, a, 0).Argument = (int)Fault.StoreCut;
                break;
            case Fault.Join:
                if (_used == MaxSlots) break;
                _slots[_used].Life = Life.Joining;
                _agenda.Add(_now, Happening.Poll, _used++, 0).Argument = 0;
                break;
            case Fault.Strand:
                Strand(a);
                break;
            case Fault.Leave:
                if (slot.Life != Life.Up || !slot.Machine!.IsMember) break;
                slot.Machine.ProposeLeave();
                slot.IsLeaving = true;
                slot.GuestsRunUntil = 0;
                break;
        }
    }

    /// <summary>A node is heard by one other only, and neither, or that one alone, learns of views that the others make; they are told that it is gone.</summary>
    private void Strand(int node)
    {
        int friend = (node + 1) % _used;
        bool both = Draw(2) == 0;
        for (int i = 0; i < MaxSlots; i++)
        {
            if (i == node || i == friend) continue;
            Cut(node, i, FaultsEnd);
            Cut(i, node, FaultsEnd);
            if (!both) continue;
            Cut(friend, i, FaultsEnd);
            Cut(i, friend, FaultsEnd);
        }
        _stranded = node;
        foreach (int cut in (int[])(both ? [node, friend] : [node]))
        {
            _isStoreCut[cut] = true;
            _agenda.Add(FaultsEnd, Happening.Heal, cut, 0).Argument = (int)Fault.StoreCut;
        }
    }

    private void Cut(int from, int to, int lasts)
    {
        if (from == to) return;
        _isCut[from, to] = true;
        ref Entry entry = ref _agenda.Add(Math.Min(_now + lasts, FaultsEnd), Happening.Heal, to, 0);
        entry.Argument = (int)Fault.CutOneWay;
        entry.From = from;
    }

    private void Heal(int number, int from, int node)
    {
        switch (number)
        {
            case EverybodyIsBack:
                _profile = _profile with { LossPercent = 0, TwicePercent = 0, DelayPercent = 0, AmbiguousPercent = 0, FalselyRefusedPercent = 0 };
                for (int i = 0; i < _used; i++)
                {
                    if (_slots[i].Life == Life.AgentDown) BeginRestart(_slots[i]);
                }
                _stranded = -1;
                Tell($"the faults are over");
                break;
            case (int)Fault.CutOneWay:
                _isCut[from, node] = false;
                break;
            case (int)Fault.StoreDown:
                _isStoreDown = false;
                break;
            case (int)Fault.StoreCut:
                _isStoreCut[node] = false;
                break;
        }
    }

    /// <summary>What a seed is about.</summary>
    private readonly record struct Profile(
        DecidedBy DecidedBy, int Nodes, bool IsCalm, bool Grows, bool Strands, int MaxFaults, int LossPercent, int TwicePercent, int DelayPercent, int AmbiguousPercent,
        int FalselyRefusedPercent, bool StoreTells, bool MembersAnswer, bool ClocksStartAnew)
    {
        public static Profile Draw(int seed, SimulatedMembers by)
        {
            DecidedBy decidedBy = by.Draw(4) == 0 ? DecidedBy.Coordinator : DecidedBy.Majority;
            int nodes = by.Draw(8) switch { 0 => 1, 1 => 2, 2 or 3 or 4 or 5 => 3, 6 => 4, _ => 5 };
            if (seed % 16 == 0) return new Profile(decidedBy, nodes, true, false, false, 0, 0, 0, 30, 0, 0, by.Draw(2) == 0, true, false);
            if (seed % 16 == 1) return new Profile(DecidedBy.Majority, 3, false, false, true, 0, 0, 0, 0, 0, 0, by.Draw(2) == 0, false, false);
            return new Profile(decidedBy, nodes, false, by.Draw(8) == 0, false, 6, by.Draw(3) == 0 ? by.Draw(60) : 0, by.Draw(4) == 0 ? 20 : 0,
                by.Draw(3) == 0 ? 30 : 0, by.Draw(3) == 0 ? 25 : 0, by.Draw(8) == 0 ? 30 : 0, by.Draw(2) == 0, by.Draw(4) != 0, by.Draw(4) == 0);
        }
    }
}
