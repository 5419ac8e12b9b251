// SPDX-License-Identifier: Apache-2.0
using VSmp.Coherence.Messages;
using VSmp.Coherence.Protocols;

namespace VSmp.Coherence.Homes;

/// <summary>
/// The home's side of the protocol: executes the table <see cref="Protocol.Directory"/> of each region on its directory here. Requests for a page that is
/// busy wait in one queue per page, first come, first served.
/// </summary>
public sealed class HomeController
{
    private readonly WaitQueues _waiting = new();
    private readonly Func<int> _nodeLimit;

    /// <summary>Makes the controller of a node.</summary>
    /// <param name="self">The node.</param>
    /// <param name="nodeLimit">One more than the highest node number of the present view.</param>
    public HomeController(NodeId self, Func<int> nodeLimit)
    {
        Self = self;
        _nodeLimit = nodeLimit;
    }

    /// <summary>The node.</summary>
    public NodeId Self { get; }

    /// <summary>What waits for busy pages, for saving and restoring.</summary>
    internal WaitQueues Waiting => _waiting;

    /// <summary>Requests that wait for busy pages.</summary>
    public int WaitingCount => _waiting.Count;

    /// <summary>Whether a message is for the home's side; if not, it is for the node's.</summary>
    public static bool Takes(in Message message) => message.Type is MessageType.GetS or MessageType.GetM or MessageType.Upgrade
        or MessageType.PutM or MessageType.PutE or MessageType.PutO or MessageType.PutZ or MessageType.Writeback or MessageType.WritebackClean
        or MessageType.MirrorAck or MessageType.Recalled
        || (message.Type == MessageType.InstallAck && (message.Flags & MessageFlags.FromOwner) == 0);

    /// <summary>A request, or an acknowledgement or writeback to the home.</summary>
    /// <exception cref="ProtocolViolationException">The message cannot be for this home in its present state.</exception>
    public void OnMessage(Region region, in Message message, EffectBuffer effects)
    {
        if (message.Generation != region.Generation || region.IsDeaf) return; // sent before the directories were rebuilt
        Message one = message;
        one.Count = 1;
        for (uint i = 0; i < message.Count; i++)
        {
            one.Page = message.Page.Plus(i);
            OnPage(region, in one, effects);
        }
    }

    /// <summary>Forgets what waits for a region that is gone.</summary>
    public void Drop(RegionId region) => _waiting.Drop(region);

    private void OnPage(Region region, in Message m, EffectBuffer effects)
    {
        if (m.Type == MessageType.MirrorAck && (m.Flags & MessageFlags.Prefetch) != 0)
        {
            region.MirrorCopiesOut--;
            return;
        }
        if (!region.IsHome(m.Page.Extent))
        {
            Refuse(in m, effects);
            return;
        }
        ref DirectoryEntry entry = ref region.EntryAt(m.Page);
        if (region.Rebuild is { } rebuild && m.Type is MessageType.MirrorAck or MessageType.Recalled)
        {
            rebuild.OnAnswer(in m, effects);
            return;
        }
        if (m.Type == MessageType.MirrorAck && m.Source != region.MirrorOf(m.Page.Extent) && entry.Version == m.Version
            && TryMirror(Self, region, in entry, in m, m.Requestor, region.MirrorOf(m.Page.Extent), effects))
        {
            return; // who is to take the mirror's place has it; now the mirror
        }
        bool busyBefore = NodeStates.IsBusy(entry.State);
        if ((entry.Flags & DirectoryFlags.HasWaiters) != 0 && IsRequest(m.Type))
        {
            _waiting.Enqueue(in m); // the order at the home is the order of arrival
            return;
        }
        Step(region, ref entry, in m, effects);
        while (busyBefore && !NodeStates.IsBusy(entry.State) && (entry.Flags & DirectoryFlags.HasWaiters) != 0)
        {
            bool more = _waiting.Dequeue(region.Id, m.Page, out Message next);
            if (!more) entry.Flags &= ~DirectoryFlags.HasWaiters;
            Step(region, ref entry, in next, effects);
        }
    }

    private static bool IsRequest(MessageType type) => type is MessageType.GetS or MessageType.GetM or MessageType.Upgrade or MessageType.PutZ;

    private void Step(Region region, ref DirectoryEntry entry, in Message m, EffectBuffer effects)
    {
        DirectoryEvent @event = Classify(in entry, in m);
        ref readonly Cell<DirectoryState, DirectoryAction> cell = ref region.Protocol.Directory[entry.State, @event];
        switch (cell.Verdict)
        {
            case Verdict.Stall:
                _waiting.Enqueue(in m);
                entry.Flags |= DirectoryFlags.HasWaiters;
                return;
            case Verdict.Impossible:
                throw new ProtocolViolationException($"{@event} cannot happen to a page in {entry.State} at its home: {m}");
        }
        bool isMirrored = false;
        foreach (DirectoryAction action in cell.Actions) isMirrored |= Execute(action, region, ref entry, in m, effects);
        entry.State = cell.Next;
        effects.Touch(region.Id, m.Page);
        if (!isMirrored) return;
        // There is no mirror to wait for.
        Message done = m;
        done.Type = MessageType.MirrorAck;
        done.Requestor = m.Source;
        done.Version = entry.Version;
        Step(region, ref entry, in done, effects);
    }

    private DirectoryEvent Classify(in DirectoryEntry entry, in Message m)
    {
        switch (m.Type)
        {
            case MessageType.GetS: return DirectoryEvent.GetS;
            case MessageType.GetM: return DirectoryEvent.GetM;
            case MessageType.Upgrade:
                if (entry.State == DirectoryState.O) return entry.Owner == m.Source ? DirectoryEvent.Upgrade : DirectoryEvent.GetM;
                if (entry.State != DirectoryState.S || !entry.MayShare(m.Source) || (entry.IsCoarse && _nodeLimit() > 64)) return DirectoryEvent.GetM;
                return OthersShare(in entry, m.Source) ? DirectoryEvent.Upgrade : DirectoryEvent.SoleUpgrade;
            case MessageType.PutM or MessageType.PutE or MessageType.PutO:
                if (entry.Owner != m.Source || entry.Version != m.Version) return DirectoryEvent.StalePutM;
                return m.Type switch
                {
                    MessageType.PutM => DirectoryEvent.PutM,
                    MessageType.PutE => DirectoryEvent.PutE,
                    _ => DirectoryEvent.PutO,
                };
            case MessageType.PutZ:
                return entry.State is DirectoryState.I or DirectoryState.Lost || (entry.State == DirectoryState.S && !OthersShare(in entry, m.Source))
                    ? DirectoryEvent.PutZ
                    : DirectoryEvent.SharedPutZ;
            case MessageType.Writeback: return DirectoryEvent.Data;
            case MessageType.WritebackClean: return DirectoryEvent.Clean;
            case MessageType.MirrorAck:
                return entry.Version == m.Version
                    ? DirectoryEvent.Mirrored
                    : throw new ProtocolViolationException($"{m} is about version {entry.Version.Value}, in {entry.State}");
            case MessageType.InstallAck:
                return entry.Owner == m.Source && entry.Version == m.Version
                    ? DirectoryEvent.InstallAck
                    : throw new ProtocolViolationException($"{m} is about version {entry.Version.Value} of {entry.Owner}, in {entry.State}");
            default:
                throw new ProtocolViolationException($"{m.Type} is no message to a home: {m}");
        }
    }

    private bool OthersShare(in DirectoryEntry entry, NodeId node)
    {
        int limit = _nodeLimit();
        for (ushort n = 0; n < limit; n++)
        {
            if (n != node.Value && entry.MayShare(new NodeId(n))) return true;
        }
        return false;
    }

    /// <returns>Whether what was to be mirrored needs no mirror.</returns>
    private bool Execute(DirectoryAction action, Region region, ref DirectoryEntry entry, in Message m, EffectBuffer effects)
    {
        switch (action)
        {
            case DirectoryAction.SendDataS:
                SendCopy(MessageType.DataS, ref entry, in m, 0, effects);
                break;
            case DirectoryAction.SendDataM:
                entry.Version = entry.Version.Next();
                SetAside(ref entry, in m, effects);
                SendCopy(MessageType.DataM, ref entry, in m, AcksFor(in entry, m.Requestor), effects);
                break;
            case DirectoryAction.SendDataE:
                entry.Version = entry.Version.Next(); // the owner may write, and the home will not hear of it
                SendCopy(MessageType.DataE, ref entry, in m, 0, effects);
                break;
            case DirectoryAction.SendOwnerGrant:
                entry.Version = entry.Version.Next();
                entry.Flags |= DirectoryFlags.Forwarded; // the owner may have written before
                Send(m.Requestor, MessageType.OwnerGrant, 0, DataSource.None, in m, entry.Version, AcksFor(in entry, m.Requestor), effects);
                break;
            case DirectoryAction.SendSoleGrant:
                entry.Version = entry.Version.Next();
                Send(m.Requestor, MessageType.SoleGrant, 0, DataSource.None, in m, entry.Version, 0, effects);
                break;
            case DirectoryAction.SendGrant:
                entry.Version = entry.Version.Next();
                // This node's own guests will lose the page, and its frame with it; the requestor has the contents.
                if (MustInvalidate(in entry, Self, m.Requestor) && (entry.Flags & DirectoryFlags.Zero) == 0) entry.Flags |= DirectoryFlags.Dropped;
                Send(m.Requestor, MessageType.DataM, MessageFlags.NoData, DataSource.None, in m, entry.Version, AcksFor(in entry, m.Requestor), effects);
                break;
            case DirectoryAction.SendInvs:
                for (ushort n = 0; n < _nodeLimit(); n++)
                {
                    NodeId sharer = new(n);
                    if (MustInvalidate(in entry, sharer, m.Requestor))
                    {
                        Send(sharer, MessageType.Inv, 0, DataSource.None, in m, entry.Version, 0, effects);
                    }
                }
                break;
            case DirectoryAction.SendFwdGetS:
                Send(entry.Owner, MessageType.FwdGetS, 0, DataSource.None, in m, entry.Version, 0, effects);
                break;
            case DirectoryAction.SendFwdGetM:
                entry.Version = entry.Version.Next();
                entry.Flags |= DirectoryFlags.Forwarded;
                Send(entry.Owner, MessageType.FwdGetM, 0, DataSource.None, in m, entry.Version, AcksFor(in entry, m.Requestor), effects);
                break;
            case DirectoryAction.SendPutAck:
                Send(Giver(in m), MessageType.PutAck, 0, DataSource.None, in m, m.Version, 0, effects);
                break;
            case DirectoryAction.SendNack:
                Send(m.Source, MessageType.Nack, 0, DataSource.None, in m, m.Version, 0, effects);
                break;
            case DirectoryAction.SendWritebackAck:
                Send(Giver(in m), MessageType.WritebackAck, 0, DataSource.None, in m, m.Version, 0, effects);
                break;
            case DirectoryAction.AddSharer:
                entry.AddSharer(m.Requestor);
                break;
            case DirectoryAction.AddOwnerAsSharer:
                entry.AddSharer(entry.Owner);
                break;
            case DirectoryAction.ClearSharers:
                entry.ClearSharers();
                break;
            case DirectoryAction.SetOwner:
                entry.Owner = m.Requestor;
                break;
            case DirectoryAction.ClearOwner:
                entry.Owner = NodeId.None;
                break;
            case DirectoryAction.WriteHome:
                if ((m.Flags & MessageFlags.Zero) != 0) entry.Flags |= DirectoryFlags.Zero;
                else entry.Flags &= ~DirectoryFlags.Zero;
                entry.Flags &= ~(DirectoryFlags.Dropped | DirectoryFlags.Forwarded);
                if ((m.Source != Self && (m.Flags & MessageFlags.NoData) == 0) || (m.Flags & MessageFlags.Zero) != 0) effects.Add(EffectKind.WriteHome, region.Id, m.Page);
                ReleaseAside(ref entry, region, m.Page, effects);
                break;
            case DirectoryAction.MakeZero:
                entry.Version = entry.Version.Next(); // newer than any copy that somebody may still keep
                entry.Flags |= DirectoryFlags.Zero;
                entry.Flags &= ~(DirectoryFlags.Dropped | DirectoryFlags.OwnerLost);
                effects.Add(EffectKind.DropHome, region.Id, m.Page);
                break;
            case DirectoryAction.DropHome:
                entry.Flags &= ~(DirectoryFlags.Zero | DirectoryFlags.Forwarded);
                entry.Flags |= DirectoryFlags.Dropped;
                ReleaseAside(ref entry, region, m.Page, effects);
                if (entry.Owner != Self) effects.Add(EffectKind.DropHome, region.Id, m.Page);
                break;
            case DirectoryAction.Mirror:
                return !TryMirror(Self, region, in entry, in m, m.Source, effects);
            case DirectoryAction.SendPoisoned:
                Send(m.Source, MessageType.Poisoned, 0, DataSource.None, in m, m.Version, 0, effects);
                break;
            default:
                throw new InvalidOperationException($"no such action: {action}");
        }
        return false;
    }

    /// <summary>
    /// Sends a mirror that is younger than its home what the home has of a page, ahead of need. What is written home from now on goes there anyway. Of a page
    /// that only its owner has the mirror learns just that: from then on nothing of it is anywhere but with users, or here and there, so what is being
    /// given up when the home is lost is good.
    /// </summary>
    /// <returns>False if it cannot be told now what the home has: try again later.</returns>
    public bool TryCopyToMirror(Region region, PageNumber page, EffectBuffer effects)
    {
        if (region.IsHeld) return false;
        ref DirectoryEntry entry = ref region.EntryAt(page);
        if (NodeStates.IsBusy(entry.State)) return false;
        if (entry.State == DirectoryState.Lost) return true;
        DirectoryEntry copied = entry;
        bool hasCopy = (entry.Flags & DirectoryFlags.Dropped) == 0;
        // The home copy is from before the grant. If the owner has not written, it gives the page back without data, and this copy counts again.
        if (hasCopy && entry.State is (DirectoryState.E or DirectoryState.O)) copied.Version = entry.Version.Previous();
        Message cause = new() { Flags = MessageFlags.Prefetch, Region = region.Id, Page = page, Count = 1 };
        if (TryMirror(Self, region, in copied, in cause, Self, effects)) region.MirrorCopiesOut++;
        return true;
    }

    /// <summary>Sends the mirror what is at home now.</summary>
    /// <param name="self">This node.</param>
    /// <param name="region">The region.</param>
    /// <param name="entry">The page's entry: its home copy is valid, or the page is lost, and what the mirror has is not to be believed any more.</param>
    /// <param name="cause">What it is done for.</param>
    /// <param name="giver">Who waits for it.</param>
    /// <param name="effects">What is to be done.</param>
    /// <returns>False if it has no mirror.</returns>
    internal static bool TryMirror(NodeId self, Region region, in DirectoryEntry entry, in Message cause, NodeId giver, EffectBuffer effects)
    {
        NodeId next = region.NextMirrorOf(cause.Page.Extent); // one after the other: nothing is to be remembered
        return TryMirror(self, region, in entry, in cause, giver, next.IsNone ? region.MirrorOf(cause.Page.Extent) : next, effects);
    }

    private static bool TryMirror(NodeId self, Region region, in DirectoryEntry entry, in Message cause, NodeId giver, NodeId mirror, EffectBuffer effects)
    {
        if (mirror.IsNone) return false;
        bool isLost = entry.State == DirectoryState.Lost, isElsewhere = (entry.Flags & DirectoryFlags.Dropped) != 0;
        bool zero = (entry.Flags & DirectoryFlags.Zero) != 0;
        MessageFlags what = isLost ? MessageFlags.NoData | MessageFlags.Zero : isElsewhere ? MessageFlags.NoData : zero ? MessageFlags.Zero : 0;
        Message message = new()
        {
            Type = MessageType.MirrorPut,
            Flags = what | (cause.Flags & MessageFlags.Prefetch),
            Source = self,
            Requestor = giver,
            Transaction = cause.Transaction,
            Count = 1,
            Region = region.Id,
            Page = cause.Page,
            Version = entry.Version,
            Generation = region.Generation,
        };
        effects.AddSend(mirror, what != 0 ? DataSource.None : DataSource.Frame, in message);
        return true;
    }

    /// <summary>Who gave up what this is about, and waits to hear that it is safe.</summary>
    private static NodeId Giver(in Message m) => m.Type == MessageType.MirrorAck ? m.Requestor : m.Source;

    /// <summary>
    /// The home copy stays valid, in the frame file, until the grant is installed. Where this node's own guests share the page they
    /// must lose it before that, and unmapping frees the frame: then the copy is set aside first.
    /// </summary>
    private void SetAside(ref DirectoryEntry entry, in Message m, EffectBuffer effects)
    {
        if (m.Requestor == Self || (entry.Flags & DirectoryFlags.Zero) != 0 || !entry.MayShare(Self)) return;
        entry.Flags |= DirectoryFlags.Kept;
        effects.Add(EffectKind.Keep, m.Region, m.Page);
    }

    private static void ReleaseAside(ref DirectoryEntry entry, Region region, PageNumber page, EffectBuffer effects)
    {
        if ((entry.Flags & DirectoryFlags.Kept) == 0) return;
        entry.Flags &= ~DirectoryFlags.Kept;
        effects.Add(EffectKind.ReleaseKept, region.Id, page);
    }

    private ushort AcksFor(in DirectoryEntry entry, NodeId requestor)
    {
        ushort acks = 0;
        for (ushort n = 0; n < _nodeLimit(); n++)
        {
            if (MustInvalidate(in entry, new NodeId(n), requestor)) acks++;
        }
        return acks;
    }

    /// <summary>Whether a node has to give up a read copy for a grant; the owner is asked in another way, if at all.</summary>
    private static bool MustInvalidate(in DirectoryEntry entry, NodeId node, NodeId requestor) =>
        node != requestor && node != entry.Owner && entry.MayShare(node);

    private void SendCopy(MessageType type, ref DirectoryEntry entry, in Message m, ushort acks, EffectBuffer effects)
    {
        bool zero = (entry.Flags & DirectoryFlags.Zero) != 0;
        // At the home itself the home copy is the frame.
        MessageFlags flags = zero ? MessageFlags.Zero : m.Requestor == Self ? MessageFlags.NoData : 0;
        DataSource source = flags != 0 ? DataSource.None : (entry.Flags & DirectoryFlags.Kept) != 0 ? DataSource.Kept : DataSource.Frame;
        Send(m.Requestor, type, flags | (m.Flags & MessageFlags.Prefetch), source, in m, entry.Version, acks, effects);
    }

    private void Send(NodeId to, MessageType type, MessageFlags flags, DataSource source, in Message cause, PageVersion version,
        ushort acks, EffectBuffer effects)
    {
        Message message = new()
        {
            Type = type,
            Flags = flags,
            Source = Self,
            Requestor = cause.Requestor,
            AckCount = acks,
            Transaction = cause.Transaction,
            Count = 1,
            Region = cause.Region,
            Page = cause.Page,
            Version = version,
            Generation = cause.Generation,
        };
        effects.AddSend(to, source, in message);
    }

    private void Refuse(in Message m, EffectBuffer effects)
    {
        if (IsRequest(m.Type) || m.Type is MessageType.PutM or MessageType.PutE or MessageType.PutO) Send(m.Source, MessageType.Nack, 0, DataSource.None, in m, m.Version, 0, effects);
    }
}

/// <summary>One queue per busy page, in slots that are used again: a busy page costs no allocation.</summary>
internal sealed class WaitQueues
{
    private readonly Dictionary<(RegionId, PageNumber), (int Head, int Tail)> _queues = [];
    private Slot[] _slots = new Slot[256];
    private int _used;
    private int _free = -1;

    /// <summary>Messages that wait.</summary>
    public int Count { get; private set; }

    public void Enqueue(in Message m)
    {
        int slot = Take();
        _slots[slot].Message = m;
        _slots[slot].Next = -1;
        var key = (m.Region, m.Page);
        if (_queues.TryGetValue(key, out var queue))
        {
            _slots[queue.Tail].Next = slot;
            _queues[key] = (queue.Head, slot);
        }
        else
        {
            _queues.Add(key, (slot, slot));
        }
        Count++;
    }

    /// <summary>Takes the first that waits for a page; false says that it was also the last.</summary>
    public bool Dequeue(RegionId region, PageNumber page, out Message m)
    {
        var key = (region, page);
        (int head, int tail) = _queues[key];
        m = _slots[head].Message;
        int next = _slots[head].Next;
        Return(head);
        if (next < 0) _queues.Remove(key);
        else _queues[key] = (next, tail);
        return next >= 0;
    }

    /// <summary>What waits for a page, in order.</summary>
    public void CopyTo(RegionId region, PageNumber page, List<Message> messages)
    {
        if (!_queues.TryGetValue((region, page), out var queue)) return;
        for (int slot = queue.Head; slot >= 0; slot = _slots[slot].Next) messages.Add(_slots[slot].Message);
    }

    public void Drop(RegionId region)
    {
        foreach (var key in _queues.Keys.Where(k => k.Item1 == region).ToArray())
        {
            while (Dequeue(key.Item1, key.Item2, out _))
            {
            }
        }
    }

    private int Take()
    {
        if (_free >= 0)
        {
            int slot = _free;
            _free = _slots[slot].Next;
            return slot;
        }
        if (_used == _slots.Length) Array.Resize(ref _slots, _used * 2);
        return _used++;
    }

    private void Return(int slot)
    {
        _slots[slot].Next = _free;
        _free = slot;
        Count--;
    }

    private struct Slot
    {
        public Message Message;
        public int Next;
    }
}
