// SPDX-License-Identifier: Apache-2.0
using System.Runtime.InteropServices;
using VSmp.Coherence.Messages;
using VSmp.Coherence.Protocols;

namespace VSmp.Coherence.Nodes;

/// <summary>What became of an access or operation.</summary>
public enum AccessResult : byte
{
    /// <summary>The node has the right: map the page (writable, if <see cref="NodeStates.MayWrite"/> says so).</summary>
    Hit,
    /// <summary>Under way: try again when an effect on the page says so.</summary>
    Pending,
    /// <summary>The budget has no frame: evict, then try again.</summary>
    NeedsFrame,
    /// <summary>Too many transactions are open: try again when one has ended.</summary>
    NeedsTransaction,
    /// <summary>The extent is not reserved: no program that keeps to its allocations gets here.</summary>
    NotReserved,
    /// <summary>The region's directories are being rebuilt, or it is held for a checkpoint: try again when that is over.</summary>
    Frozen,
}

/// <summary>
/// The node's side of the protocol: executes the table <see cref="Protocol.Node"/> of each region on its pages here. Deterministic and sans-I/O: what is
/// to be done comes out as effects.
/// </summary>
public sealed partial class NodeController
{
    private readonly TransactionTable _transactions;
    private readonly List<Message> _parked = []; // forwards for pages that are held

    /// <summary>Makes the controller of a node.</summary>
    /// <param name="self">The node.</param>
    /// <param name="transactionCapacity">Pages under way at most.</param>
    public NodeController(NodeId self, ushort transactionCapacity = 4096)
    {
        Self = self;
        _transactions = new TransactionTable(transactionCapacity);
    }

    /// <summary>The node.</summary>
    public NodeId Self { get; }

    /// <summary>The open transactions, for saving and restoring.</summary>
    internal TransactionTable Transactions => _transactions;

    /// <summary>Forwards that wait for holds to end, for saving and restoring.</summary>
    internal List<Message> Parked => _parked;

    /// <summary>The number of the transaction that is open for a page.</summary>
    public uint TransactionNumberOf(Region region, PageNumber page) => _transactions[region.PageAt(page).Slot].Number;

    /// <summary>Forwards that wait for the end of a hold.</summary>
    public int ParkedCount => _parked.Count;

    /// <summary>Whether a further transaction can be opened.</summary>
    public bool CanOpenTransaction => _transactions.Free > 0;

    /// <summary>A guest reads or writes a page.</summary>
    /// <param name="region">The region.</param>
    /// <param name="page">The page.</param>
    /// <param name="write">Whether it writes.</param>
    /// <param name="flags">Goes into the request: read ahead, or demanded.</param>
    /// <param name="effects">What is to be done.</param>
    public AccessResult Access(Region region, PageNumber page, bool write, MessageFlags flags, EffectBuffer effects)
    {
        if (!region.IsOpen(page.Extent)) return AccessResult.NotReserved;
        if (region.IsHeld) return AccessResult.Frozen;
        ref PageEntry entry = ref region.PageAt(page);
        if (region.IsFrozen && !(write ? NodeStates.MayWrite(entry.State) : NodeStates.MayRead(entry.State))) return AccessResult.Frozen;
        if (entry.State is NodeState.I or NodeState.S or NodeState.O)
        {
            if (_transactions.Free == 0 && (write || entry.State == NodeState.I)) return AccessResult.NeedsTransaction;
            if (entry.State == NodeState.I && !TakeFrame(region, page, ref entry)) return AccessResult.NeedsFrame;
        }
        Message context = new() { Flags = flags, Requestor = Self, Region = region.Id, Page = page, Count = 1 };
        bool hit = Step(region, page, write ? NodeEvent.Store : NodeEvent.Load, in context, effects);
        return hit ? AccessResult.Hit : AccessResult.Pending;
    }

    /// <summary>Starts to evict a page.</summary>
    /// <returns>False if it cannot be now: it is held, or under way.</returns>
    public bool TryEvict(Region region, PageNumber page, EffectBuffer effects)
    {
        ref PageEntry entry = ref region.PageAt(page);
        if (region.IsFrozen || region.IsHeld || !NodeStates.MayRead(entry.State) || (entry.Flags & PageFlags.Held) != 0) return false;
        Message context = new() { Requestor = Self, Region = region.Id, Page = page, Count = 1 };
        Step(region, page, NodeEvent.Evict, in context, effects);
        return true;
    }

    /// <summary>Throws the contents of a page away; afterwards it reads zeros.</summary>
    /// <returns>Hit: done, or on its way in an order that guests cannot tell from done. Pending: try again later.</returns>
    public AccessResult Discard(Region region, PageNumber page, EffectBuffer effects)
    {
        if (region.IsHeld) return AccessResult.Pending;
        ref PageEntry entry = ref region.PageAt(page);
        // What was never granted for writing reads zeros as it is: no message, only the read copy's frame is given back.
        if ((entry.Flags & PageFlags.MayBeWritten) == 0 && entry.State is NodeState.I or NodeState.S)
        {
            if (entry.State == NodeState.I) return AccessResult.Hit;
            if (region.IsFrozen) return AccessResult.Pending; // while directories are rebuilt it may be the last copy
            DropCopy(region, page, effects);
            return AccessResult.Hit;
        }
        if (region.IsFrozen) return AccessResult.Pending;
        // What was asked of the page while it was held must be answered from its contents, before they go.
        if (IsParked(region.Id, page)) return AccessResult.Pending;
        entry.Flags &= ~PageFlags.Held;
        Message context = new() { Requestor = Self, Region = region.Id, Page = page, Count = 1 };
        NodeState before = entry.State;
        if (Step(region, page, NodeEvent.Discard, in context, effects)) return AccessResult.Hit; // refused, and said so
        if (entry.State == before) return AccessResult.Pending;
        entry.Flags &= ~PageFlags.MayBeWritten;
        return AccessResult.Hit;
    }

    /// <summary>A message for this node's side: a forward or a response.</summary>
    /// <exception cref="ProtocolViolationException">The message cannot be for this node in its present state.</exception>
    public void OnMessage(Region region, in Message message, EffectBuffer effects)
    {
        if (message.Generation != region.Generation || region.IsDeaf) return; // sent before the directories were rebuilt
        Message one = message;
        one.Count = 1;
        for (uint i = 0; i < message.Count; i++)
        {
            one.Page = message.Page.Plus(i);
            if (!region.IsOpen(one.Page.Extent))
            {
                // The guest gave the extent back; this may come late, and nobody waits for it.
                if (one.Type is MessageType.WritebackAck) continue;
                ThrowNotOpen(in one);
            }
            if (MustPark(one.Type, in region.PageAt(one.Page)))
            {
                _parked.Add(one);
                continue;
            }
            Step(region, one.Page, Classify(region, in one), in one, effects);
        }
    }

    /// <summary>
    /// A page was just granted: until <see cref="Unhold"/> it is neither evicted nor taken away, so that the thread that faulted gets
    /// to use it. Holds must be short and bounded: others wait.
    /// </summary>
    public static void Hold(Region region, PageNumber page) => region.PageAt(page).Flags |= PageFlags.Held;

    /// <summary>Ends a hold: what waited for it happens now.</summary>
    public void Unhold(Region region, PageNumber page, EffectBuffer effects)
    {
        if (!region.IsOpen(page.Extent)) return;
        region.PageAt(page).Flags &= ~PageFlags.Held;
        for (int i = 0; i < _parked.Count; i++)
        {
            Message m = _parked[i];
            if (m.Region != region.Id || m.Page != page) continue;
            _parked.RemoveAt(i--);
            Step(region, page, Classify(region, in m), in m, effects);
        }
    }

    /// <summary>Whether a message for any page of a region waits for the end of a hold.</summary>
    public bool HasParked(RegionId region)
    {
        foreach (ref readonly Message m in CollectionsMarshal.AsSpan(_parked))
        {
            if (m.Region == region) return true;
        }
        return false;
    }

    /// <summary>Whether a message waits for the end of a page's hold.</summary>
    public bool IsParked(RegionId region, PageNumber page)
    {
        foreach (ref readonly Message m in CollectionsMarshal.AsSpan(_parked))
        {
            if (m.Page == page && m.Region == region) return true;
        }
        return false;
    }

    /// <summary>
    /// Whether a message would take something away from a page that is held. A FwdGetS takes nothing from O; and it must not wait there
    /// for the end of the hold, or it would find M, granted meanwhile, instead.
    /// </summary>
    private static bool MustPark(MessageType type, in PageEntry entry) => (entry.Flags & PageFlags.Held) != 0 && type switch
    {
        MessageType.FwdGetS => entry.State is NodeState.M or NodeState.E,
        MessageType.FwdGetM or MessageType.Inv => NodeStates.MayRead(entry.State),
        _ => false,
    };

    private NodeEvent Classify(Region region, in Message m)
    {
        ref PageEntry entry = ref region.PageAt(m.Page);
        switch (m.Type)
        {
            case MessageType.FwdGetS: return NodeEvent.FwdGetS;
            case MessageType.FwdGetM: return NodeEvent.FwdGetM;
            case MessageType.Inv: return NodeEvent.Inv;
            case MessageType.PutAck: return NodeEvent.PutAck;
            case MessageType.Nack: return NodeEvent.Nack;
            case MessageType.WritebackAck: return NodeEvent.WritebackAck;
            case MessageType.Recall: return NodeEvent.Recall;
            case MessageType.Promote: return NodeEvent.Promote;
            case MessageType.Poisoned:
                RequireTransaction(in entry, in m);
                return NodeEvent.Poisoned;
            case MessageType.InstallAck:
                // What is kept here is kept for that very grant.
                return m.Version == entry.Version
                    ? NodeEvent.InstallAck
                    : throw new ProtocolViolationException($"version {entry.Version.Value} is kept here: {m}");
            case MessageType.DataS:
                RequireTransaction(in entry, in m);
                return NodeEvent.DataS;
            case MessageType.DataE:
                RequireTransaction(in entry, in m);
                return NodeEvent.DataE;
            case MessageType.SoleGrant:
                RequireTransaction(in entry, in m).Version = m.Version;
                return NodeEvent.SoleGrant;
            case MessageType.DataM or MessageType.OwnerGrant:
                {
                    ref Transaction t = ref RequireTransaction(in entry, in m);
                    t.AcksExpected = m.AckCount;
                    t.Version = m.Version;
                    t.Supplier = (m.Flags & MessageFlags.FromOwner) != 0 ? m.Source : NodeId.None;
                    return t.AcksReceived >= m.AckCount ? NodeEvent.DataM : NodeEvent.DataMAcks;
                }
            case MessageType.InvAck:
                {
                    ref Transaction t = ref RequireTransaction(in entry, in m);
                    bool granted = entry.State is NodeState.IM_A or NodeState.SM_A or NodeState.OM_A or NodeState.IM_AK;
                    return granted && t.AcksReceived + 1 >= t.AcksExpected ? NodeEvent.LastInvAck : NodeEvent.InvAck;
                }
            default:
                throw new ProtocolViolationException($"{m.Type} is no message to a node: {m}");
        }
    }

    private ref Transaction RequireTransaction(in PageEntry entry, in Message m)
    {
        if (entry.Slot == 0 || _transactions[entry.Slot].Number != m.Transaction)
        {
            throw new ProtocolViolationException($"{m} answers transaction {m.Transaction}, which is not open (page is {entry.State})");
        }
        return ref _transactions[entry.Slot];
    }

    private bool Step(Region region, PageNumber page, NodeEvent @event, in Message m, EffectBuffer effects)
    {
        ref PageEntry entry = ref region.PageAt(page);
        ref readonly Cell<NodeState, NodeAction> cell = ref region.Protocol.Node[entry.State, @event];
        switch (cell.Verdict)
        {
            case Verdict.Stall:
                return false;
            case Verdict.Impossible:
                ThrowImpossible(entry.State, @event, in m);
                return false;
        }
        bool hit = false;
        foreach (NodeAction action in cell.Actions) hit |= Execute(action, region, page, ref entry, in m, effects);
        bool isJustHit = hit && entry.State == cell.Next;
        entry.State = cell.Next;
        if (cell.Next == NodeState.I) entry.Version = default; // nothing is here that could have one
        if (!isJustHit) effects.Touch(region.Id, page);
        return hit;
    }

    private bool Execute(NodeAction action, Region region, PageNumber page, ref PageEntry entry, in Message m, EffectBuffer effects)
    {
        NodeId home = region.Homes!.HomeOf(page.Extent);
        switch (action)
        {
            case NodeAction.Hit:
                return true;
            case NodeAction.SendGetS:
                Ask(MessageType.GetS, region, page, ref entry, home, m.Flags, effects);
                break;
            case NodeAction.SendGetM:
                Ask(MessageType.GetM, region, page, ref entry, home, m.Flags, effects);
                break;
            case NodeAction.SendUpgrade:
                Ask(MessageType.Upgrade, region, page, ref entry, home, m.Flags, effects);
                break;
            case NodeAction.AskAgain:
                Send(home, MessageType.GetS, MessageFlags.None, region, page, _transactions[entry.Slot].Number, entry.Version, effects);
                break;
            case NodeAction.SendPutM:
                {
                    bool zero = (entry.Flags & PageFlags.KeptZero) != 0;
                    Send(home, MessageType.PutM, zero ? MessageFlags.Zero : 0, region, page, 0, entry.Version, effects, Kept(zero));
                    break;
                }
            case NodeAction.SendPutE:
                Send(home, MessageType.PutE, 0, region, page, 0, entry.Version, effects);
                break;
            case NodeAction.SendPutO:
                Send(home, MessageType.PutO, 0, region, page, 0, entry.Version, effects, DataSource.Kept);
                break;
            case NodeAction.SendPutZ:
                Send(home, MessageType.PutZ, MessageFlags.Zero, region, page, 0, entry.Version, effects);
                break;
            case NodeAction.SendDataToRequestor:
                SendData(m.Requestor, MessageType.DataS, region, page, ref entry, in m, entry.Version, effects);
                break;
            case NodeAction.SendDataToHome:
                SendData(home, MessageType.Writeback, region, page, ref entry, in m, entry.Version, effects);
                break;
            case NodeAction.SendCleanToHome:
                Send(home, MessageType.WritebackClean, 0, region, page, m.Transaction, entry.Version, effects, requestor: m.Requestor);
                break;
            case NodeAction.SendDataM:
                // The home counted the version up for the new owner; what is kept here is acknowledged under that number.
                entry.Version = m.Version;
                SendData(m.Requestor, MessageType.DataM, region, page, ref entry, in m, m.Version, effects);
                break;
            case NodeAction.SendInvAck:
                Send(m.Requestor, MessageType.InvAck, 0, region, page, m.Transaction, m.Version, effects, requestor: m.Requestor);
                break;
            case NodeAction.SendInstallAck:
                SendInstallAcks(home, region, page, ref entry, effects);
                break;
            case NodeAction.InstallReadable:
                entry.Version = m.Version;
                effects.Add(EffectKind.InstallReadable, region.Id, page);
                EndTransaction(ref entry);
                break;
            case NodeAction.InstallExclusive:
                entry.Version = m.Version;
                effects.Add(EffectKind.InstallReadable, region.Id, page);
                EndTransaction(ref entry);
                break;
            case NodeAction.InstallWritable:
                BecomeOwner(ref entry);
                effects.Add(EffectKind.InstallWritable, region.Id, page);
                break;
            case NodeAction.WriteFrame:
                effects.Add(EffectKind.WriteFrame, region.Id, page);
                break;
            case NodeAction.MakeWritable:
                BecomeOwner(ref entry);
                effects.Add(EffectKind.MakeWritable, region.Id, page);
                break;
            case NodeAction.WriteProtect:
                effects.Add(EffectKind.WriteProtect, region.Id, page);
                break;
            case NodeAction.Keep:
                effects.Add(EffectKind.Keep, region.Id, page);
                break;
            case NodeAction.KeepInstead:
                effects.Add(EffectKind.KeepInstead, region.Id, page);
                break;
            case NodeAction.KeepZero:
                entry.Flags |= PageFlags.KeptZero;
                effects.Add(EffectKind.KeepZero, region.Id, page);
                break;
            case NodeAction.Unmap:
                effects.Add(EffectKind.Unmap, region.Id, page);
                if (entry.State is not (NodeState.SM_AD or NodeState.OM_AD)) ReturnFrame(region, ref entry); // these still wait for data
                break;
            case NodeAction.ReleaseKept:
                if ((entry.Flags & PageFlags.KeptZero) == 0) effects.Add(EffectKind.ReleaseKept, region.Id, page);
                entry.Flags &= ~PageFlags.KeptZero;
                break;
            case NodeAction.CountAck:
                _transactions[entry.Slot].AcksReceived++;
                break;
            case NodeAction.EndTransaction:
                EndTransaction(ref entry);
                break;
            case NodeAction.Complete:
                EndTransaction(ref entry);
                effects.Add(EffectKind.Complete, region.Id, page);
                break;
            case NodeAction.Abandon:
                EndTransaction(ref entry);
                ReturnFrame(region, ref entry);
                effects.Add(EffectKind.Complete, region.Id, page);
                break;
            case NodeAction.Poison:
                effects.Add(EffectKind.Poison, region.Id, page);
                break;
            case NodeAction.LabelKept:
                entry.Version = entry.Version.Previous();
                break;
            case NodeAction.LabelGranted:
                entry.Version = _transactions[entry.Slot].Version.Previous();
                EndTransaction(ref entry);
                break;
            case NodeAction.BecomeOwner:
                if (m.Type == MessageType.Promote) entry.Version = m.Version;
                entry.Flags |= PageFlags.MayBeWritten;
                break;
            case NodeAction.KeepThrownAway:
                entry.Flags |= PageFlags.KeptZero | PageFlags.ThrownAway;
                break;
            case NodeAction.SendRecalled:
                SendRecalled(region, page, ref entry, in m, effects);
                break;
            case NodeAction.SendPromoted:
                Send(m.Source, MessageType.Recalled, MessageFlags.NoData, region, page, m.Transaction, entry.Version, effects, requestor: m.Requestor);
                break;
            case NodeAction.RefuseDiscard:
                effects.Add(EffectKind.DiscardRefused, region.Id, page);
                break;
            default:
                throw new InvalidOperationException($"no such action: {action}");
        }
        return false;
    }

    private static DataSource Kept(bool zero) => zero ? DataSource.None : DataSource.Kept;

    private void Ask(MessageType type, Region region, PageNumber page, ref PageEntry entry, NodeId home, MessageFlags flags, EffectBuffer effects)
    {
        uint number = RunNumber(effects, type, region.Id, page, home);
        entry.Slot = _transactions.Take(number);
        Send(home, type, flags, region, page, number, default, effects);
    }

    /// <summary>A page that continues the run asked for just before belongs to the same transaction number, so that the asks merge.</summary>
    private uint RunNumber(EffectBuffer effects, MessageType type, RegionId region, PageNumber page, NodeId home)
    {
        if (effects.Count > 0)
        {
            ref readonly Effect last = ref effects[effects.Count - 1];
            if (last.Kind == EffectKind.Send && last.To == home && last.Message.Type == type && last.Region == region
                && last.Page.Value + last.Count == page.Value)
            {
                return last.Message.Transaction;
            }
        }
        return _transactions.NextNumber();
    }

    private void Send(NodeId to, MessageType type, MessageFlags flags, Region region, PageNumber page, uint transaction,
        PageVersion version, EffectBuffer effects, DataSource source = DataSource.None, NodeId? requestor = null, ushort acks = 0)
    {
        Message message = new()
        {
            Type = type,
            Flags = flags,
            Source = Self,
            Requestor = requestor ?? Self,
            AckCount = acks,
            Transaction = transaction,
            Count = 1,
            Region = region.Id,
            Page = page,
            Version = version,
            Generation = region.Generation,
        };
        effects.AddSend(to, source, in message);
    }

    private void SendData(NodeId to, MessageType type, Region region, PageNumber page, ref PageEntry entry, in Message m,
        PageVersion version, EffectBuffer effects)
    {
        bool zero = (entry.Flags & PageFlags.KeptZero) != 0;
        bool live = type != MessageType.DataM && entry.State is (NodeState.M or NodeState.E or NodeState.O or NodeState.OM_AD); // the frame stays
        // The home's copy is the frame itself where the owner lives at the home.
        bool same = to == Self;
        // The home that reads the page itself was just sent it, on the same network: its copy is the frame that it puts that into.
        bool isSent = type == MessageType.Writeback && to == m.Requestor;
        MessageFlags flags = zero ? MessageFlags.Zero : (same && live) || isSent ? MessageFlags.NoData : 0;
        DataSource source = flags != 0 ? DataSource.None : live ? DataSource.Frame : DataSource.Kept;
        if (type == MessageType.DataM) flags |= MessageFlags.FromOwner;
        Send(to, type, flags, region, page, m.Transaction, version, effects, source, m.Requestor, m.AckCount);
    }

    private void SendInstallAcks(NodeId home, Region region, PageNumber page, ref PageEntry entry, EffectBuffer effects)
    {
        Transaction t = _transactions[entry.Slot];
        Send(home, MessageType.InstallAck, 0, region, page, t.Number, t.Version, effects);
        if (!t.Supplier.IsNone) Send(t.Supplier, MessageType.InstallAck, MessageFlags.FromOwner, region, page, t.Number, t.Version, effects);
        EndTransaction(ref entry);
    }

    private void BecomeOwner(ref PageEntry entry)
    {
        if (entry.Slot != 0) entry.Version = _transactions[entry.Slot].Version; // E has the version of a write grant already
        entry.Flags |= PageFlags.MayBeWritten;
    }

    private void EndTransaction(ref PageEntry entry)
    {
        if (entry.Slot == 0) return;
        _transactions.Return(entry.Slot);
        entry.Slot = 0;
    }

    /// <summary>Pages whose home is here live in the home's reservation; all others take a frame out of the budget.</summary>
    private bool TakeFrame(Region region, PageNumber page, ref PageEntry entry)
    {
        if (region.Homes!.HomeOf(page.Extent) == Self) return true;
        if (!region.Budget!.TryReserve()) return false;
        entry.Flags |= PageFlags.HasFrame;
        return true;
    }

    private static void ReturnFrame(Region region, ref PageEntry entry)
    {
        if ((entry.Flags & PageFlags.HasFrame) == 0) return;
        entry.Flags &= ~PageFlags.HasFrame;
        region.Budget!.Release();
    }

    /// <summary>
    /// The extent of a page is being given back to its home, which will drop it whole: the page is dropped here without telling the
    /// home. Only for regions that no other node uses.
    /// </summary>
    /// <returns>Hit: the page is I. Pending: it is under way, try again later.</returns>
    public static AccessResult Forget(Region region, PageNumber page, EffectBuffer effects)
    {
        ref PageEntry entry = ref region.PageAt(page);
        if (region.IsFrozen || region.IsHeld) return AccessResult.Pending;
        if (NodeStates.MayRead(entry.State)) DropCopy(region, page, effects);
        if (entry.State != NodeState.I) return AccessResult.Pending;
        entry = default;
        return AccessResult.Hit;
    }

    /// <summary>The region ceases to be used at this node: its open transactions are void, its frames go back to the budget.</summary>
    public void Drop(Region region)
    {
        for (uint e = 0; e < region.ExtentCount; e++)
        {
            ExtentNumber extent = new(e);
            if (!region.IsOpen(extent)) continue;
            for (uint i = 0; i < ExtentNumber.Pages; i++)
            {
                ref PageEntry entry = ref region.PageAt(extent.FirstPage.Plus(i));
                EndTransaction(ref entry);
                ReturnFrame(region, ref entry);
                entry = default;
            }
            region.Close(extent);
        }
        _parked.RemoveAll(m => m.Region == region.Id);
    }

    private static void DropCopy(Region region, PageNumber page, EffectBuffer effects)
    {
        ref PageEntry entry = ref region.PageAt(page);
        effects.Add(EffectKind.Unmap, region.Id, page);
        entry.State = NodeState.I;
        ReturnFrame(region, ref entry);
    }

    private static void ThrowImpossible(NodeState state, NodeEvent @event, in Message m) =>
        throw new ProtocolViolationException($"{@event} cannot happen to a page in {state}: {m}");

    private static void ThrowNotOpen(in Message m) =>
        throw new ProtocolViolationException($"the extent is not in use at this node: {m}");
}
