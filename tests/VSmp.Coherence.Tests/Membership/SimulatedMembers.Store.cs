// SPDX-License-Identifier: Apache-2.0
using VSmp.Coherence.Membership;

namespace VSmp.Coherence.Tests.Membership;

/// <content>The store: etcd, or the coordinator.</content>
internal sealed partial class SimulatedMembers
{
    private const int RequestTimeout = 200;

    private bool ReachesStore(Slot slot)
    {
        if (DecidedBy == DecidedBy.Majority) return !_isStoreDown && !_isStoreCut[slot.Index];
        return slot.Index == 0 || (_slots[0].Life == Life.Up && _slots[0].PausedUntil <= _now && !_isCut[slot.Index, 0] && !_isCut[0, slot.Index]);
    }

    /// <summary>Sends a read, or a swap if there is a view.</summary>
    private void AskStore(Slot slot, MembershipView? view, long revision)
    {
        if (!ReachesStore(slot))
        {
            if (view is not null) _agenda.Add(_now + RequestTimeout, Happening.Away, slot.Index, slot.Lives);
            return;
        }
        bool isLate = Happens(_profile.AmbiguousPercent);
        int delay = isLate ? Draw(1500) : 1 + Draw(12);
        ref Entry entry = ref _agenda.Add(_now + delay, view is null ? Happening.ReadArrives : Happening.SwapArrives, slot.Index, slot.Lives);
        entry.View = view;
        entry.Revision = revision;
        entry.Argument = -1;
        entry.From = isLate || Happens(_profile.AmbiguousPercent) ? 0 : 1; // whether its answer arrives
        if (view is not null && entry.From == 0) _agenda.Add(_now + RequestTimeout, Happening.Away, slot.Index, slot.Lives);
    }

    private void AskMember(Slot slot, int member)
    {
        if (member < 0 || _isCut[slot.Index, member]) return;
        _agenda.Add(_now + 1 + Draw(12), Happening.ReadArrives, slot.Index, slot.Lives).Argument = member;
    }

    private void AnswerRead(Slot slot, int life, int member)
    {
        MembershipView? view = _record;
        long revision = _revision;
        if (member >= 0)
        {
            if (_slots[member].Life != Life.Up || _isCut[member, slot.Index]) return;
            view = _slots[member].Machine!.View;
            revision = _slots[member].Machine!.Revision;
            if (view is null) return;
        }
        Reply(slot.Index, life, revision, view);
    }

    private void Reply(int node, int life, long revision, MembershipView view)
    {
        ref Entry entry = ref _agenda.Add(_now + 1 + Draw(12), Happening.Answer, node, life);
        entry.View = view;
        entry.Revision = revision;
    }

    private void Swap(ref Entry request)
    {
        bool answers = request.From == 1;
        if (_isStoreDown) return;
        if (request.Revision != _revision)
        {
            if (answers) _agenda.Add(_now + 1 + Draw(12), Happening.SwapLost, request.Node, request.Life);
            return;
        }
        MembershipView view = request.View!;
        if (_mutant?.StoreForgetsNumbers == true) view = MembershipView.FromAnnouncement(view.Epoch, view.Number, view.Members)!;
        CheckRecord(view);
        _record = view;
        foreach (Member member in view.Members)
        {
            Slot slot = _slots[Array.FindIndex(_slots, slot => slot.Name == member.Name)];
            if (slot.Life is Life.Joining || slot.Id.IsNone) slot.Id = member.Id; // or a sponsor has admitted it once more, when it had long been in, and out
        }
        _revision += 1 + Draw(3); // a store counts other things, too
        Views++;
        Tell($"store: view {view.Number.Value}, members {string.Join(' ', view.Members.Select(m => $"{m.Id.Value}.{m.Incarnation}"))}, by n{request.Node}");
        if (answers) Reply(request.Node, request.Life, _revision, view);
        if (!_profile.StoreTells) return;
        for (int i = 0; i < _used; i++)
        {
            if (_slots[i].Life == Life.Up && _slots[i].Machine!.View is not null && ReachesStore(_slots[i])) Reply(i, _slots[i].Lives, _revision, view);
        }
    }

    /// <summary>Who is excluded has no lease any more at that very moment: then whoever acts on the view later is safe.</summary>
    private void CheckRecord(MembershipView next)
    {
        if (next.Number.Value != _record.Number.Value + 1) Break($"view {next.Number.Value} follows view {_record.Number.Value}");
        if (Math.Abs(next.Members.Count - _record.Members.Count) > 1) Break($"view {next.Number.Value} is more than a step from the last");
        foreach (Member member in next.Members)
        {
            if (!_names.TryAdd(member.Id.Value, member.Name) && _names[member.Id.Value] != member.Name) Break($"{member.Id} was {_names[member.Id.Value]} and is now {member.Name}");
        }
        foreach (Member member in _record.Members)
        {
            if (next.Find(member.Id) is not null) continue;
            if (SlotOf(member.Id) < 0) continue;
            Slot slot = _slots[SlotOf(member.Id)];
            if (!slot.IsLeaving) Evictions++;
            if (slot.GuestsRunUntil > _now) Break($"{slot.Name} is excluded, and its guests may run for another {slot.GuestsRunUntil - _now} ms");
            if (_profile.IsCalm) Break($"{slot.Name} is excluded, and was only slow");
        }
    }

    private void BeginRestart(Slot slot)
    {
        Start(slot);
        slot.IsLeaving = false;
        _agenda.Add(_now, Happening.RestartRead, slot.Index, slot.Lives);
    }

    /// <summary>A restarted agent reads the record from the store, until it gets it.</summary>
    private void ReadForRestart(Slot slot, int life)
    {
        if (slot.Lives != life || slot.Life != Life.Up || slot.Machine!.View is not null) return;
        // The coordinator's record is in its state file.
        bool isOwn = DecidedBy == DecidedBy.Coordinator && slot.Index == 0;
        if (isOwn || ReachesStore(slot)) Reply(slot.Index, life, _revision, _record);
        _agenda.Add(_now + 100, Happening.RestartRead, slot.Index, life);
    }

    /// <summary>A node that wants to join looks whether it has been admitted, and asks somebody else if not.</summary>
    private void Poll(Slot slot, int polls)
    {
        if (slot.Life != Life.Joining) return;
        if (_record.Find(slot.Name) is not null && (_isStoreDown || Happens(80)))
        {
            Start(slot);
            Tell($"{slot.Name} enters view {_record.Number.Value}");
            slot.Machine!.Enter(_revision, _record, LocalTime(slot), _effects);
            Do(slot);
            return;
        }
        if (polls % 20 == 0)
        {
            Slot sponsor = _slots[Draw(_used)];
            if (sponsor.Life == Life.Up && sponsor.Machine!.IsMember) _ = sponsor.Machine.ProposeJoin(slot.Name, Address, 1);
        }
        _agenda.Add(_now + 30, Happening.Poll, slot.Index, 0).Argument = polls + 1;
    }
}
