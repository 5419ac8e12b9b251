// SPDX-License-Identifier: Apache-2.0
using VSmp.Coherence;
using VSmp.Coherence.Homes;
using VSmp.Coherence.Messages;
using VSmp.Coherence.Nodes;
using VSmp.Coherence.Protocols;
using VSmp.Coherence.Recovery;

namespace VSmp.Bench.Checking;

// What the controllers want done, done as the pager does it.
internal sealed partial class World
{
    private void Drain(int node)
    {
        for (int steps = 0; ; steps++)
        {
            if (steps == TurnLimit) throw new InvariantException($"node {node} does not come to the end of its turn");
            Execute(node, default);
            if (_isKilled) return;
            // Who waited goes first: else what waits at the home behind a grant takes it away before it was used once.
            if ((_bugs & WorldBugs.RetriedLast) == 0 && RetryOne(node)) continue;
            if (_toSelf.TryDequeue(out var self)) Dispatch(node, in self.Flight);
            else if (!RetryOne(node) && _effects.Count == 0 && !ReportRebuilt(node)) return;
        }
    }

    private bool RetryOne(int node)
    {
        if (_retry.Count == 0) return false;
        (byte _, Access access) = _retry[0];
        _retry.RemoveAt(0);
        _ = TryAccess(node, access);
        return true;
    }

    private void Dispatch(int node, in Flight flight)
    {
        Message message = flight.Message;
        if (IsControl(message.Type))
        {
            OnControl(node, in message);
            Execute(node, default);
            if (_isKilled) return;
            RecordAll(node);
            return;
        }
        if ((_bugs & WorldBugs.PromoteNotAwaited) != 0 && message.Type == MessageType.Recalled
            && Regions[node].EntryAt(message.Page).State == DirectoryState.M) return;
        if ((_bugs & WorldBugs.OldGenerationServed) != 0) message.Generation = Regions[node].Generation;
        if (message.Type == MessageType.MirrorPut) Mirrors[node].OnMessage(Regions[node], in message, _effects);
        else if (!HomeController.Takes(in message)) Nodes[node].OnMessage(Regions[node], in message, _effects);
        else if (node == 0 || Scenario.HasRecovery) Homes[node].OnMessage(Regions[node], in message, _effects);
        else throw new InvariantException($"{message} came to node {node}, which is no home");
        Execute(node, in flight);
    }

    private void Execute(int node, in Flight flight)
    {
        for (int i = 0; i < _effects.Count && (_bugs & WorldBugs.RecordedEarly) != 0; i++) Record(node, _effects[i]);
        for (int i = 0; i < _effects.Count; i++)
        {
            Effect effect = _effects[i];
            Story?.Add($"node {node}: {effect}");
            if (IsKilledHere()) return;
            if (PageRecords.MustRecordBefore(_effects, i) && (_bugs & WorldBugs.RecordedLate) == 0)
            {
                Record(node, in effect);
                if (IsKilledHere()) return;
            }
            if (effect.Kind == EffectKind.Send)
            {
                Send(node, in effect);
                continue;
            }
            // The others of the extent are lost with these.
            uint end = (uint)Math.Min(effect.Page.Value + effect.Count, (ulong)Scenario.Pages);
            for (uint page = (uint)effect.Page.Value; page < end; page++) ExecuteAndCapture(node, effect.Kind, (int)page, in flight);
            if (_isKilled) return;
        }
        if ((_bugs & WorldBugs.SentBeforeRecorded) != 0) Flush();
        for (int i = 0; i < _effects.Count; i++)
        {
            if (IsKilledHere()) return;
            Record(node, _effects[i]);
        }
        _effects.Clear();
        Flush();
    }

    /// <summary>What was sent leaves when all is recorded.</summary>
    private void Flush()
    {
        foreach ((int wire, Flight sent) in _outbox) Wires[wire].Add(sent);
        _outbox.Clear();
    }

    private void Record(int node, in Effect effect)
    {
        for (uint i = 0; i < effect.Count && effect.Page.Value + i < (ulong)Scenario.Pages; i++) Record(node, (int)(effect.Page.Value + i));
    }

    private void Execute(int node, EffectKind kind, int page, in Flight flight)
    {
        ref Contents frame = ref FrameOf(node, page);
        switch (kind)
        {
            case EffectKind.WriteFrame:
                WriteFrame(node, page, in flight);
                break;
            case EffectKind.InstallReadable or EffectKind.InstallWritable:
                WriteFrame(node, page, in flight);
                if (IsKilledHere()) return;
                if ((_bugs & WorldBugs.RecordedLate) == 0) Record(node, page);
                if (IsKilledHere()) return;
                MapGranted(node, page, kind == EffectKind.InstallWritable);
                break;
            case EffectKind.MakeWritable:
                if (frame == Contents.None) throw new InvariantException($"page {page} is made writable at node {node} without a frame");
                MapGranted(node, page, writable: true);
                break;
            case EffectKind.WriteProtect:
                for (int m = 0; m < Scenario.Mappings; m++)
                {
                    if (m > 0 && (_bugs & WorldBugs.OneMappingNotProtected) != 0) continue;
                    if (MappedOf(node, page, m) == Right.Write) MappedOf(node, page, m) = Right.Read;
                }
                break;
            case EffectKind.Keep:
                if (KeptOf(node, page) != Contents.None) throw new InvariantException($"page {page} is kept twice at node {node}");
                if (frame == Contents.None) throw new InvariantException($"page {page} is to be kept at node {node}, which has no frame of it");
                KeptOf(node, page) = frame;
                _ = WriteIfPossible(node, page); // to the frame: what is kept is old then
                break;
            case EffectKind.KeepInstead:
                if (KeptOf(node, page) == Contents.None) throw new InvariantException($"page {page} is not kept at node {node}, and is to be kept instead");
                KeptOf(node, page) = Contents.None;
                goto case EffectKind.Keep;
            case EffectKind.KeepZero or EffectKind.Record:
                break;
            case EffectKind.Unmap:
                for (int m = 0; m < Scenario.Mappings; m++)
                {
                    if (m > 0 && (_bugs & WorldBugs.OneMappingNotUnmapped) != 0) continue;
                    MappedOf(node, page, m) = Right.None;
                }
                frame = Contents.None;
                break;
            case EffectKind.ReleaseKept:
                if (KeptOf(node, page) == Contents.None) throw new InvariantException($"page {page} is not kept at node {node}");
                KeptOf(node, page) = Contents.None;
                break;
            case EffectKind.WriteHome:
                if ((_bugs & WorldBugs.HomeNotWritten) != 0) break;
                frame = (flight.Message.Flags & MessageFlags.Zero) != 0 ? Contents.None : ContentsOf(in flight, page);
                break;
            case EffectKind.DropHome:
                frame = Contents.None;
                break;
            case EffectKind.Complete:
                Retry(node, page);
                break;
            case EffectKind.RestoreKept:
                if (KeptOf(node, page) == Contents.None) throw new InvariantException($"page {page} is to be restored at node {node}, and is not kept there");
                frame = KeptOf(node, page);
                break;
            case EffectKind.Poison:
                Poison(node, page);
                break;
            case EffectKind.DiscardRefused:
                throw new InvariantException($"page {page} could not be thrown away, though only node {node} uses it");
            default:
                throw new InvalidOperationException($"no such effect: {kind}");
        }
    }

    private void MapGranted(int node, int page, bool writable)
    {
        writable |= (_bugs & WorldBugs.MapsTooMuch) != 0;
        // One mapping: at once. Several: each where it is asked for.
        if (Scenario.Mappings == 1 && !_refuses) MappedOf(node, page, 0) = writable ? Right.Write : Right.Read;
        Retry(node, page);
    }

    private void Retry(int node, int page)
    {
        ref PageEntry entry = ref Regions[node].PageAt(PageAt(page));
        if ((entry.Flags & PageFlags.Awaited) == 0 || (_bugs & WorldBugs.WakeLost) != 0) return;
        entry.Flags &= ~PageFlags.Awaited;
        List<Access> waiting = Waiting[node];
        for (int i = 0; i < waiting.Count; i++)
        {
            if (waiting[i].Page != page) continue;
            _retry.Add(((byte)node, waiting[i]));
            waiting.RemoveAt(i--);
        }
    }

    private void WriteFrame(int node, int page, in Flight flight)
    {
        ref Contents frame = ref FrameOf(node, page);
        MessageFlags flags = flight.Message.Flags;
        if ((flags & MessageFlags.NoData) != 0)
        {
            if (frame == Contents.None) throw new InvariantException($"node {node} was granted page {page} without data, and has no frame of it");
            return;
        }
        if ((flags & MessageFlags.Zero) != 0)
        {
            frame = Contents.Zero;
            return;
        }
        frame = ContentsOf(in flight, page);
    }

    private static Contents ContentsOf(in Flight flight, int page)
    {
        Contents contents = (ulong)page == flight.Message.Page.Value ? flight.First : flight.Second;
        return contents != Contents.None ? contents : throw new InvariantException($"{flight.Message} carries no data of page {page}");
    }

    private void Send(int node, in Effect effect)
    {
        Contents first = DataOf(node, effect.Source, (int)effect.Page.Value);
        Contents second = effect.Count > 1 ? DataOf(node, effect.Source, (int)effect.Page.Value + 1) : Contents.None;
        if (effect.Count > 1 && (_bugs & WorldBugs.RunDataShifted) != 0) second = first;
        var flight = new Flight(effect.Message, first, second);
        int to = effect.To.Value;
        if (to == node)
        {
            if (effect.Source != DataSource.None) throw new InvariantException($"node {node} sends itself data: {effect.Message}");
            _toSelf.Enqueue((effect.To, flight));
            return;
        }
        if (IsLost(to)) return;
        if (to >= Scenario.Nodes) throw new InvariantException($"a message to nobody: {effect}");
        VirtualNetwork network = (_bugs & WorldBugs.GrantsOvertaken) != 0 && effect.Message.Type is MessageType.SoleGrant or MessageType.DataE
            ? VirtualNetwork.Response
            : MessageTypes.NetworkOf(effect.Message.Type);
        _outbox.Add((WireOf(node, to, (int)network), flight));
    }

    /// <summary>A guest that may still write while the agent copies the page does so, at the worst moment.</summary>
    private bool WriteIfPossible(int node, int page)
    {
        for (int m = 0; m < Scenario.Mappings; m++)
        {
            if (MappedOf(node, page, m) != Right.Write) continue;
            Write(node, page);
            return true;
        }
        return false;
    }

    private Contents DataOf(int node, DataSource source, int page)
    {
        if (source == DataSource.None) return Contents.None;
        Contents contents = source == DataSource.Frame ? FrameOf(node, page) : KeptOf(node, page);
        if (contents == Contents.None) throw new InvariantException($"node {node} sends page {page} from {source}, and has none there");
        if (source == DataSource.Kept) return contents;
        if (WriteIfPossible(node, page)) return Contents.Old;
        return (_bugs & WorldBugs.ReadsAfterPunch) != 0 ? Contents.Zero : contents;
    }
}
