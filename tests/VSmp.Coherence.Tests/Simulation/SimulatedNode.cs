// SPDX-License-Identifier: Apache-2.0
using VSmp.Coherence.Homes;
using VSmp.Coherence.Messages;
using VSmp.Coherence.Nodes;
using VSmp.Coherence.Placement;
using VSmp.Coherence.Protocols;

namespace VSmp.Coherence.Tests.Simulation;

/// <summary>What a guest may do with a page without asking.</summary>
internal enum Right
{
    None,
    Read,
    Write,
}

/// <summary>
/// A node whose frames hold one number each: executes the effects of the shipped controllers as the pager does, at the home with the
/// frame as home copy.
/// </summary>
internal sealed class SimulatedNode
{
    private readonly SimulatedCluster _cluster;
    private readonly EffectBuffer _effects = new();
    private readonly Queue<Message> _toSelf = new();
    private readonly List<(PageNumber Page, bool Write)> _waiting = [];
    private readonly Dictionary<PageNumber, long> _kept = [];
    private readonly HashSet<PageNumber> _held = [];

    public SimulatedNode(SimulatedCluster cluster, NodeId id, HomeMap homes, int extentCount, Protocol protocol, long budgetPages)
    {
        _cluster = cluster;
        Id = id;
        Budget = new FrameBudget(budgetPages);
        Region = new Region(new RegionId(1), "sim", extentCount, protocol, homes, Budget);
        Node = new NodeController(id, transactionCapacity: 6);
        Home = new HomeController(id, () => cluster.NodeCount);
        for (uint e = 0; e < extentCount; e++)
        {
            ExtentNumber extent = new(e);
            Region.Open(extent);
            if (homes.HomeOf(extent) == id) Region.BecomeHome(extent);
        }
    }

    public NodeId Id { get; }
    public FrameBudget Budget { get; }
    public Region Region { get; }
    public NodeController Node { get; }
    public HomeController Home { get; }
    public Dictionary<PageNumber, long> Frames { get; } = [];
    public Dictionary<PageNumber, Right> Mapped { get; } = [];
    public int WaitingCount => _waiting.Count;
    public int KeptCount => _kept.Count;

    public Right RightTo(PageNumber page) => Mapped.GetValueOrDefault(page);

    /// <summary>A thread reads or writes, with a few pages read ahead.</summary>
    public void Access(PageNumber page, bool write, uint ahead)
    {
        if (_waiting.Count > 4 || _waiting.Contains((page, write))) return;
        TryAccess(page, write);
        for (uint i = 1; i <= ahead; i++)
        {
            PageNumber next = page.Plus(i);
            if (next.Extent != page.Extent || Budget.FreePages < 2 || !Node.CanOpenTransaction) break;
            if (Region.PageAt(next).State != NodeState.I) break;
            if (Node.Access(Region, next, write, MessageFlags.None, _effects) != AccessResult.Pending) break;
        }
        Drain();
    }

    public bool TryEvict(PageNumber page)
    {
        if (Region.IsHome(page.Extent)) return false; // the pager never evicts what lives in the home's reservation
        bool evicted = Node.TryEvict(Region, page, _effects);
        Drain();
        return evicted;
    }

    public bool Discard(PageNumber page)
    {
        bool done = Node.Discard(Region, page, _effects) == AccessResult.Hit;
        Drain();
        return done;
    }

    public void Hold(PageNumber page)
    {
        if (RightTo(page) == Right.None) return;
        NodeController.Hold(Region, page);
        _held.Add(page);
    }

    public void UnholdAll()
    {
        foreach (PageNumber page in _held.ToArray()) Node.Unhold(Region, page, _effects);
        _held.Clear();
        Drain();
    }

    public void Receive(in Message message, long[] values)
    {
        Dispatch(in message, values);
        Drain();
    }

    /// <summary>Accesses that lacked a frame or a transaction are tried again, with an eviction to help.</summary>
    public void RetryAll()
    {
        foreach ((PageNumber page, bool write) in _waiting.ToArray())
        {
            if (_waiting.Remove((page, write))) TryAccess(page, write);
        }
        Drain();
    }

    private void TryAccess(PageNumber page, bool write)
    {
        AccessResult result = Node.Access(Region, page, write, MessageFlags.None, _effects);
        if (result == AccessResult.NeedsFrame)
        {
            ExecuteEffects(default, []);
            PageNumber[] victims = Mapped.Keys.Where(p => Mapped[p] != Right.None && !Region.IsHome(p.Extent)).ToArray();
            if (victims.Length > 0) _ = Node.TryEvict(Region, victims[_cluster.Random.Next(victims.Length)], _effects);
        }
        if (result != AccessResult.Hit)
        {
            _waiting.Add((page, write));
            return;
        }
        Mapped[page] = NodeStates.MayWrite(Region.PageAt(page).State) ? Right.Write : Right.Read;
        _cluster.OnGuestAccess(this, page, write);
    }

    private void Drain()
    {
        while (true)
        {
            ExecuteEffects(default, []);
            if (_toSelf.TryDequeue(out Message message)) Dispatch(in message, []);
            else if (_effects.Count == 0) return;
        }
    }

    private void Dispatch(in Message message, long[] values)
    {
        if (HomeController.Takes(in message)) Home.OnMessage(Region, in message, _effects);
        else Node.OnMessage(Region, in message, _effects);
        ExecuteEffects(in message, values);
    }

    private void ExecuteEffects(in Message message, long[] values)
    {
        var retry = new List<PageNumber>();
        for (int i = 0; i < _effects.Count; i++)
        {
            ref readonly Effect effect = ref _effects[i];
            _cluster.Trace($"{Id}: {effect}");
            for (uint p = 0; p < effect.Count; p++)
            {
                PageNumber page = effect.Page.Plus(p);
                if (effect.Kind == EffectKind.Send) break;
                Execute(effect.Kind, page, in message, values);
                if (effect.Kind is EffectKind.InstallReadable or EffectKind.InstallWritable or EffectKind.MakeWritable or EffectKind.Complete)
                {
                    retry.Add(page);
                }
            }
            if (effect.Kind == EffectKind.Send) Send(in effect);
        }
        _effects.Clear();
        foreach (PageNumber page in retry)
        {
            foreach ((PageNumber Page, bool Write) access in _waiting.Where(w => w.Page == page).ToArray())
            {
                _waiting.Remove(access);
                TryAccess(access.Page, access.Write);
            }
        }
    }

    private void Execute(EffectKind kind, PageNumber page, in Message message, long[] values)
    {
        switch (kind)
        {
            case EffectKind.WriteFrame:
                WriteFrame(page, in message, values);
                break;
            case EffectKind.InstallReadable:
                WriteFrame(page, in message, values);
                Mapped[page] = Right.Read;
                break;
            case EffectKind.InstallWritable:
                WriteFrame(page, in message, values);
                Mapped[page] = Right.Write;
                break;
            case EffectKind.MakeWritable:
                Assert.True(Frames.ContainsKey(page), $"{page} is made writable at {Id} without a frame");
                Mapped[page] = Right.Write;
                break;
            case EffectKind.WriteProtect:
                if (RightTo(page) == Right.Write) Mapped[page] = Right.Read;
                break;
            case EffectKind.Keep:
                Assert.NotEqual(Right.Write, RightTo(page));
                _kept.Add(page, Frames[page]);
                break;
            case EffectKind.Unmap:
                Mapped[page] = Right.None;
                Frames.Remove(page);
                break;
            case EffectKind.ReleaseKept:
                Assert.True(_kept.Remove(page), $"{page} is not kept at {Id}");
                break;
            case EffectKind.WriteHome:
                if ((message.Flags & MessageFlags.Zero) != 0) Frames.Remove(page);
                else Frames[page] = values[page.Value - message.Page.Value];
                break;
            case EffectKind.DropHome:
                Assert.Equal(Right.None, RightTo(page));
                Frames.Remove(page);
                break;
            case EffectKind.DiscardRefused:
                SimulatedCluster.OnDiscardRefused(page);
                break;
        }
    }

    private void WriteFrame(PageNumber page, in Message message, long[] values)
    {
        if ((message.Flags & MessageFlags.NoData) != 0) Assert.True(Frames.ContainsKey(page), $"{page} at {Id} has no frame");
        else Frames[page] = (message.Flags & MessageFlags.Zero) != 0 ? 0 : values[page.Value - message.Page.Value];
    }

    private void Send(in Effect effect)
    {
        if (effect.To == Id)
        {
            Assert.Equal(DataSource.None, effect.Source);
            _toSelf.Enqueue(effect.Message);
            return;
        }
        var values = new long[effect.Source == DataSource.None ? 0 : effect.Count];
        for (uint p = 0; p < values.Length; p++)
        {
            PageNumber page = effect.Page.Plus(p);
            values[p] = effect.Source == DataSource.Frame ? Frames[page] : _kept[page];
        }
        _cluster.Send(Id, effect.To, effect.Message, values);
    }
}
