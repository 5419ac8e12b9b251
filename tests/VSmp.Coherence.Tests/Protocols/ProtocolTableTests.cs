// SPDX-License-Identifier: Apache-2.0
using VSmp.Coherence.Homes;
using VSmp.Coherence.Messages;
using VSmp.Coherence.Nodes;
using VSmp.Coherence.Placement;
using VSmp.Coherence.Protocols;

namespace VSmp.Coherence.Tests.Protocols;

/// <summary>Drives the controllers into every state by real events, then through every cell of the tables.</summary>
public sealed class ProtocolTableTests
{
    private static readonly NodeId Self = new(1), Other = new(2), Third = new(3), HomeNode = new(0), MirrorNode = new(2);
    private static readonly PageNumber Page = new(7);

    public static TheoryData<string, NodeState, NodeEvent> NodeCells() => Cells(p => p.Node);

    public static TheoryData<string, DirectoryState, DirectoryEvent> DirectoryCells() => Cells(p => p.Directory);

    public static TheoryData<string> Names => [.. ProtocolCatalog.All.Select(p => p.Name), "lazy"];

    [Theory]
    [MemberData(nameof(NodeCells))]
    public void A_node_does_what_its_table_says(string name, NodeState state, NodeEvent @event)
    {
        Protocol protocol = ProtocolCatalog.Find(name)!;
        var cell = protocol.Node[state, @event];
        var (node, region, effects) = NewNode(protocol);
        Reach(node, region, effects, state, acks: @event == NodeEvent.InvAck ? 2 : 1);
        effects.Clear();
        if (state is NodeState.IM_AD or NodeState.SM_AD or NodeState.OM_AD or NodeState.IM_ADK && @event == NodeEvent.LastInvAck) return; // InvAck until the grant has come
        if (cell.Verdict == Verdict.Impossible && @event == NodeEvent.Thaw) return; // it is told to pages in F only
        if (cell.Verdict == Verdict.Impossible)
        {
            Assert.Throws<ProtocolViolationException>(() => Apply(node, region, effects, @event, grantAcks: 1));
            return;
        }
        Apply(node, region, effects, @event, grantAcks: 1);
        Assert.Equal(cell.Verdict == Verdict.Stall ? state : cell.Next, region.PageAt(Page).State);
        if (cell.Verdict == Verdict.Stall) Assert.Equal(0, effects.Count);
        foreach (NodeAction action in cell.Actions) AssertHappened(action, effects);
    }

    [Theory]
    [MemberData(nameof(DirectoryCells))]
    public void A_home_does_what_its_table_says(string name, DirectoryState state, DirectoryEvent @event)
    {
        Protocol protocol = ProtocolCatalog.Find(name)!;
        var cell = protocol.Directory[state, @event];
        var region = new Region(new RegionId(1), "t", 1, protocol, homes: null, budget: null);
        region.BecomeHome(new ExtentNumber(0));
        region.SetMirror(new ExtentNumber(0), MirrorNode);
        var home = new HomeController(HomeNode, () => 4);
        var effects = new EffectBuffer();
        bool startsExclusive = protocol.Directory[DirectoryState.I, DirectoryEvent.GetS].Next == DirectoryState.E;
        NodeId sharer = Self;
        if (state == DirectoryState.S && !startsExclusive)
        {
            Deliver(MessageType.GetS, Self, 0);
        }
        else if (state is DirectoryState.E || (state == DirectoryState.S && startsExclusive))
        {
            Deliver(MessageType.GetS, Self, 0);
            if (state == DirectoryState.S)
            {
                // The owner answers for a reader, and evicts: the reader alone has a copy.
                Deliver(MessageType.GetS, Other, 0);
                Deliver(MessageType.PutE, Self, 1);
                if (region.EntryAt(Page).State == DirectoryState.S_D) Deliver(MessageType.WritebackClean, Self, 1);
                sharer = Other;
            }
        }
        else if (state == DirectoryState.Lost)
        {
            region.EntryAt(Page).State = DirectoryState.Lost;
        }
        else if (state != DirectoryState.I)
        {
            Deliver(MessageType.GetM, Self, 0);
            if (state is not (DirectoryState.M_A or DirectoryState.I_A or DirectoryState.I_AW)) Deliver(MessageType.InstallAck, Self, 1);
            if (state is DirectoryState.S_D or DirectoryState.O or DirectoryState.S_W) Deliver(MessageType.GetS, Other, 0);
            if (state is DirectoryState.S_W) Deliver(protocol == Moesi.Protocol ? MessageType.PutO : MessageType.Writeback, Self, 1);
            if (state is DirectoryState.I_A or DirectoryState.I_AW or DirectoryState.I_W) Deliver(MessageType.PutM, Self, 1);
            if (state is DirectoryState.I_A) Deliver(MessageType.MirrorAck, MirrorNode, 1);
        }
        Assert.Equal(state, region.EntryAt(Page).State);
        if (@event == DirectoryEvent.PutZ && protocol == Mesi.Protocol && state == DirectoryState.S)
        {
            // The former owner counts as a sharer for ever: only a set that was made anew names one.
            region.EntryAt(Page).ClearSharers();
            region.EntryAt(Page).AddSharer(sharer);
        }
        if (state == DirectoryState.S && @event is DirectoryEvent.Upgrade or DirectoryEvent.SoleUpgrade)
        {
            region.EntryAt(Page).ClearSharers();
            region.EntryAt(Page).AddSharer(sharer);
            if (@event == DirectoryEvent.Upgrade) region.EntryAt(Page).AddSharer(Third);
        }
        effects.Clear();
        (MessageType type, NodeId from, uint version) = @event switch
        {
            DirectoryEvent.GetS => (MessageType.GetS, Third, 0u),
            DirectoryEvent.GetM => (MessageType.GetM, Third, 0u),
            DirectoryEvent.Upgrade or DirectoryEvent.SoleUpgrade => (MessageType.Upgrade, sharer, 0u),
            DirectoryEvent.PutE => (MessageType.PutE, Self, 1u),
            DirectoryEvent.PutO => (MessageType.PutO, Self, 1u),
            DirectoryEvent.PutM => (MessageType.PutM, Self, 1u),
            DirectoryEvent.StalePutM => (MessageType.PutM, Third, 1u),
            DirectoryEvent.PutZ => (MessageType.PutZ, sharer, 0u),
            DirectoryEvent.SharedPutZ => (MessageType.PutZ, Third, 0u),
            DirectoryEvent.Data => (MessageType.Writeback, Self, 1u),
            DirectoryEvent.Clean => (MessageType.WritebackClean, Self, 1u),
            DirectoryEvent.Mirrored => (MessageType.MirrorAck, MirrorNode, 1u),
            _ => (MessageType.InstallAck, Self, 1u),
        };
        // Cells that no message can name: what the message says together with the state makes another event of it.
        bool isUnnameable = cell.Verdict == Verdict.Impossible && @event is not (DirectoryEvent.Data or DirectoryEvent.Clean);
        if (isUnnameable) return;
        if (cell.Verdict == Verdict.Impossible)
        {
            Assert.Throws<ProtocolViolationException>(() => Deliver(type, from, version));
            return;
        }
        Deliver(type, from, version);
        ref DirectoryEntry entry = ref region.EntryAt(Page);
        // What waited goes on at once when the page is not busy any more.
        Assert.Equal(cell.Verdict == Verdict.Stall ? state : cell.Next, entry.State);
        Assert.Equal(cell.Verdict == Verdict.Stall ? 1 : 0, home.WaitingCount);
        if (cell.Verdict == Verdict.Stall) Assert.Equal(0, effects.Count);
        foreach (DirectoryAction action in cell.Actions)
        {
            MessageType? sent = action switch
            {
                DirectoryAction.SendDataS => MessageType.DataS,
                DirectoryAction.SendDataE => MessageType.DataE,
                DirectoryAction.SendOwnerGrant => MessageType.OwnerGrant,
                DirectoryAction.SendSoleGrant => MessageType.SoleGrant,
                DirectoryAction.SendDataM or DirectoryAction.SendGrant => MessageType.DataM,
                DirectoryAction.SendFwdGetS => MessageType.FwdGetS,
                DirectoryAction.SendFwdGetM => MessageType.FwdGetM,
                DirectoryAction.SendPutAck => MessageType.PutAck,
                DirectoryAction.SendNack => MessageType.Nack,
                DirectoryAction.SendWritebackAck => MessageType.WritebackAck,
                DirectoryAction.Mirror => MessageType.MirrorPut,
                DirectoryAction.SendPoisoned => MessageType.Poisoned,
                _ => null,
            };
            if (sent is not null) Assert.Contains(All(effects), e => e.Kind == EffectKind.Send && e.Message.Type == sent);
        }

        void Deliver(MessageType messageType, NodeId source, uint pageVersion) => home.OnMessage(region, new Message
        {
            Type = messageType,
            Source = source,
            Requestor = source,
            Count = 1,
            Region = region.Id,
            Page = Page,
            Version = new PageVersion(pageVersion),
        }, effects);
    }

    [Theory]
    [MemberData(nameof(Names))]
    public void The_printed_tables_are_the_code(string name)
    {
        string text = ProtocolCatalog.Find(name) is { } protocol ? PrintedProtocol.Of(protocol) : PrintedProtocol.OfLazyRelease();
        string path = Path.Combine(RepositoryRoot(), "docs", "protocols", name + ".md");
        if (Environment.GetEnvironmentVariable("VSMP_PRINT") == "1") File.WriteAllText(path, text);
        Assert.Equal(File.ReadAllText(path), text);
    }

    [Fact]
    public void A_table_that_lacks_a_cell_or_leads_out_of_its_states_is_refused()
    {
        var lacks = new ProtocolTable<NodeState, NodeEvent, NodeAction>([NodeState.I], [NodeEvent.Load, NodeEvent.Store]);
        lacks.On(NodeState.I, NodeEvent.Load, NodeState.S);
        var refusal = Assert.Throws<InvalidOperationException>(lacks.Complete);
        Assert.Contains("I × Load, I × Store", refusal.Message, StringComparison.Ordinal);
        Assert.Throws<InvalidOperationException>(() => lacks.Stall(NodeState.M, NodeEvent.Load));
        Assert.Throws<InvalidOperationException>(() => lacks.Stall(NodeState.I, NodeEvent.Evict));
    }

    [Fact]
    public void What_a_protocol_does_not_know_is_impossible_under_it()
    {
        Assert.Equal(Verdict.Impossible, Msi.Protocol.Node[NodeState.O, NodeEvent.Load].Verdict);
        Assert.Equal(Verdict.Impossible, Msi.Protocol.Node[NodeState.IS_D, NodeEvent.DataE].Verdict);
        Assert.Equal(Verdict.Impossible, Msi.Protocol.Directory[DirectoryState.M, DirectoryEvent.PutE].Verdict);
    }

    private static string RepositoryRoot()
    {
        string folder = AppContext.BaseDirectory;
        while (!File.Exists(Path.Combine(folder, "VSmp.sln"))) folder = Path.GetDirectoryName(folder)!;
        return folder;
    }

    private static TheoryData<string, TState, TEvent> Cells<TState, TEvent, TAction>(Func<Protocol, ProtocolTable<TState, TEvent, TAction>> table)
        where TState : struct, Enum
        where TEvent : struct, Enum
        where TAction : struct, Enum
    {
        var cells = new TheoryData<string, TState, TEvent>();
        foreach (Protocol protocol in ProtocolCatalog.All)
        {
            foreach (TState s in table(protocol).States)
            {
                foreach (TEvent e in table(protocol).Events) cells.Add(protocol.Name, s, e);
            }
        }
        return cells;
    }

    private static (NodeController, Region, EffectBuffer) NewNode(Protocol protocol)
    {
        var homes = new HomeMap(1);
        homes.Place(new ExtentNumber(0), HomeNode);
        var region = new Region(new RegionId(1), "t", 1, protocol, homes, new FrameBudget(10));
        region.Open(new ExtentNumber(0));
        return (new NodeController(Self), region, new EffectBuffer());
    }

    /// <summary>Brings the page into a state by events that really lead there.</summary>
    private static void Reach(NodeController node, Region region, EffectBuffer effects, NodeState state, int acks)
    {
        NodeEvent[] path = state switch
        {
            NodeState.I => [NodeEvent.Store, NodeEvent.DataM, NodeEvent.Evict, NodeEvent.PutAck],
            NodeState.S => [NodeEvent.Store, NodeEvent.DataM, NodeEvent.Evict, NodeEvent.PutAck, NodeEvent.Load, NodeEvent.DataS],
            NodeState.M => [NodeEvent.Store, NodeEvent.DataM],
            NodeState.IS_D => [NodeEvent.Load],
            NodeState.IS_D_I => [NodeEvent.Load, NodeEvent.Inv],
            NodeState.IM_AD => [NodeEvent.Store],
            NodeState.IM_A => [NodeEvent.Store, NodeEvent.DataMAcks],
            NodeState.SM_AD => [NodeEvent.Load, NodeEvent.DataS, NodeEvent.Store],
            NodeState.SM_A => [NodeEvent.Load, NodeEvent.DataS, NodeEvent.Store, NodeEvent.DataMAcks],
            NodeState.MS_K => [NodeEvent.Store, NodeEvent.DataM, NodeEvent.FwdGetS],
            NodeState.MI_K => [NodeEvent.Store, NodeEvent.DataM, NodeEvent.FwdGetM],
            NodeState.MI_A => [NodeEvent.Store, NodeEvent.DataM, NodeEvent.Evict],
            NodeState.SI_A => [NodeEvent.Store, NodeEvent.DataM, NodeEvent.Evict, NodeEvent.FwdGetS],
            NodeState.II_A => [NodeEvent.Store, NodeEvent.DataM, NodeEvent.Evict, NodeEvent.FwdGetM],
            NodeState.II_P => [NodeEvent.Store, NodeEvent.DataM, NodeEvent.Evict, NodeEvent.FwdGetM, NodeEvent.InstallAck],
            NodeState.E => [NodeEvent.Load, NodeEvent.DataE],
            NodeState.EI_A => [NodeEvent.Load, NodeEvent.DataE, NodeEvent.Evict],
            NodeState.O => [NodeEvent.Store, NodeEvent.DataM, NodeEvent.FwdGetS],
            NodeState.OI_A => [NodeEvent.Store, NodeEvent.DataM, NodeEvent.FwdGetS, NodeEvent.Evict],
            NodeState.OM_AD => [NodeEvent.Store, NodeEvent.DataM, NodeEvent.FwdGetS, NodeEvent.Store],
            NodeState.OM_A => [NodeEvent.Store, NodeEvent.DataM, NodeEvent.FwdGetS, NodeEvent.Store, NodeEvent.DataMAcks],
            NodeState.IM_ADK => [NodeEvent.Store, NodeEvent.DataM, NodeEvent.FwdGetS, NodeEvent.Store, NodeEvent.FwdGetM],
            NodeState.IM_AK => [NodeEvent.Store, NodeEvent.DataM, NodeEvent.FwdGetS, NodeEvent.Store, NodeEvent.FwdGetM, NodeEvent.DataMAcks],
            NodeState.IM_K => [NodeEvent.Store, NodeEvent.DataM, NodeEvent.FwdGetS, NodeEvent.Store, NodeEvent.FwdGetM, NodeEvent.DataM],
            NodeState.F => [NodeEvent.Store, NodeEvent.DataM, NodeEvent.Evict, NodeEvent.Freeze],
            _ => [NodeEvent.Store, NodeEvent.DataM, NodeEvent.Evict, NodeEvent.PutAck, NodeEvent.Discard],
        };
        foreach (NodeEvent e in path)
        {
            Apply(node, region, effects, e, acks);
            effects.Clear();
        }
        Assert.Equal(state, region.PageAt(Page).State);
    }

    private static void Apply(NodeController node, Region region, EffectBuffer effects, NodeEvent @event, int grantAcks)
    {
        switch (@event)
        {
            case NodeEvent.Load or NodeEvent.Store:
                AccessResult result = node.Access(region, Page, @event == NodeEvent.Store, MessageFlags.None, effects);
                if (result is not (AccessResult.Hit or AccessResult.Pending)) Assert.Fail($"access gave {result}");
                return;
            case NodeEvent.Evict:
                _ = node.TryEvict(region, Page, effects);
                return;
            case NodeEvent.Discard:
                _ = node.Discard(region, Page, effects);
                return;
            case NodeEvent.Freeze:
                node.Freeze(region, effects);
                return;
            case NodeEvent.Thaw:
                node.Thaw(region, effects);
                return;
        }
        // A fresh node numbers its transactions from 1; the paths above open at most two.
        uint transaction = region.PageAt(Page).Slot == 0 ? 0u : node.TransactionNumberOf(region, Page);
        PageVersion version = region.PageAt(Page).Version;
        node.OnMessage(region, new Message
        {
            Type = @event switch
            {
                NodeEvent.FwdGetS => MessageType.FwdGetS,
                NodeEvent.FwdGetM => MessageType.FwdGetM,
                NodeEvent.Inv => MessageType.Inv,
                NodeEvent.DataS => MessageType.DataS,
                NodeEvent.DataE => MessageType.DataE,
                NodeEvent.DataM or NodeEvent.DataMAcks when region.PageAt(Page).State == NodeState.OM_AD => MessageType.OwnerGrant,
                NodeEvent.DataM or NodeEvent.DataMAcks => MessageType.DataM,
                NodeEvent.SoleGrant => MessageType.SoleGrant,
                NodeEvent.InvAck or NodeEvent.LastInvAck => MessageType.InvAck,
                NodeEvent.InstallAck => MessageType.InstallAck,
                NodeEvent.PutAck => MessageType.PutAck,
                NodeEvent.WritebackAck => MessageType.WritebackAck,
                NodeEvent.Poisoned => MessageType.Poisoned,
                NodeEvent.Recall => MessageType.Recall,
                NodeEvent.Promote => MessageType.Promote,
                _ => MessageType.Nack,
            },
            Source = HomeNode,
            Requestor = @event is NodeEvent.FwdGetS or NodeEvent.FwdGetM or NodeEvent.Inv ? Other : Self,
            AckCount = (ushort)(@event == NodeEvent.DataMAcks ? grantAcks : 0),
            Transaction = transaction,
            Count = 1,
            Region = region.Id,
            Page = Page,
            Version = @event is NodeEvent.FwdGetM or NodeEvent.DataE or NodeEvent.SoleGrant or NodeEvent.DataM or NodeEvent.DataMAcks
                ? version.Next() : version,
        }, effects);
    }

    private static void AssertHappened(NodeAction action, EffectBuffer effects)
    {
        (EffectKind kind, MessageType? type) = action switch
        {
            NodeAction.SendGetS or NodeAction.AskAgain => (EffectKind.Send, MessageType.GetS),
            NodeAction.SendGetM => (EffectKind.Send, MessageType.GetM),
            NodeAction.SendUpgrade => (EffectKind.Send, MessageType.Upgrade),
            NodeAction.SendPutM => (EffectKind.Send, MessageType.PutM),
            NodeAction.SendPutZ => (EffectKind.Send, MessageType.PutZ),
            NodeAction.SendDataToRequestor => (EffectKind.Send, MessageType.DataS),
            NodeAction.SendDataToHome => (EffectKind.Send, MessageType.Writeback),
            NodeAction.SendDataM => (EffectKind.Send, MessageType.DataM),
            NodeAction.SendInvAck => (EffectKind.Send, MessageType.InvAck),
            NodeAction.SendInstallAck => (EffectKind.Send, MessageType.InstallAck),
            NodeAction.SendPutE => (EffectKind.Send, MessageType.PutE),
            NodeAction.SendPutO => (EffectKind.Send, MessageType.PutO),
            NodeAction.SendCleanToHome => (EffectKind.Send, MessageType.WritebackClean),
            NodeAction.InstallReadable or NodeAction.InstallExclusive => (EffectKind.InstallReadable, null),
            NodeAction.InstallWritable => (EffectKind.InstallWritable, null),
            NodeAction.WriteFrame => (EffectKind.WriteFrame, null),
            NodeAction.MakeWritable => (EffectKind.MakeWritable, null),
            NodeAction.WriteProtect => (EffectKind.WriteProtect, null),
            NodeAction.Keep => (EffectKind.Keep, null),
            NodeAction.KeepZero => (EffectKind.KeepZero, null),
            NodeAction.Unmap => (EffectKind.Unmap, null),
            NodeAction.ReleaseKept => (EffectKind.ReleaseKept, null),
            NodeAction.Complete or NodeAction.Abandon => (EffectKind.Complete, null),
            NodeAction.SendRecalled or NodeAction.SendPromoted => (EffectKind.Send, MessageType.Recalled),
            NodeAction.Poison => (EffectKind.Poison, null),
            NodeAction.RefuseDiscard => (EffectKind.DiscardRefused, (MessageType?)null),
            _ => ((EffectKind)byte.MaxValue, null),
        };
        if ((byte)kind == byte.MaxValue) return; // Hit, CountAck and EndTransaction leave no effect
        Assert.Contains(All(effects), e => e.Kind == kind && (type is null || e.Message.Type == type));
    }

    private static List<Effect> All(EffectBuffer effects) => Enumerable.Range(0, effects.Count).Select(i => effects[i]).ToList();
}
