// SPDX-License-Identifier: Apache-2.0
using VSmp.Coherence.Lazy;
using VSmp.Coherence.Messages;
using VSmp.Coherence.Nodes;
using VSmp.Coherence.Placement;

namespace VSmp.Coherence.Tests.Lazy;

/// <summary>A node with real pages: executes the effects of the lazy controllers as a pager has to.</summary>
internal sealed class LazyNode
{
    private readonly LazyCluster _cluster;
    private readonly LazyNodeController _node;
    private readonly LazyHomeController _home;
    private readonly EffectBuffer _effects = new();
    private readonly Queue<Message> _toSelf = new();
    private readonly Dictionary<PageNumber, byte[]> _twins = [];
    private readonly HashSet<PageNumber> _writable = [];

    public LazyNode(LazyCluster cluster, NodeId id, HomeMap homes, long budgetPages)
    {
        _cluster = cluster;
        Id = id;
        _node = new LazyNodeController(id);
        _home = new LazyHomeController(id);
        Region = new LazyRegion(new RegionId(1), "tested", homes.ExtentCount, homes, new FrameBudget(budgetPages));
        for (uint e = 0; e < homes.ExtentCount; e++)
        {
            ExtentNumber extent = new(e);
            Region.Open(extent);
            if (homes.HomeOf(extent) == id) Region.BecomeHome(extent);
        }
    }

    public NodeId Id { get; }
    public LazyRegion Region { get; }
    public Dictionary<PageNumber, byte[]> Frames { get; } = [];

    public bool TryAccess(PageNumber page, bool write)
    {
        AccessResult result = _node.Access(Region, page, write, _effects);
        if (result == AccessResult.NeedsFrame)
        {
            var victims = Enumerable.Range(0, LazyCluster.PageCount).Select(LazyCluster.PageAt)
                .Where(p => !Region.IsHome(p.Extent) && (Region.PageAt(p).State == LazyState.R || (Region.PageAt(p).State == LazyState.W && !Region.IsReleasing)))
                .ToArray();
            if (victims.Length > 0) Assert.True(_node.TryEvict(Region, victims[_cluster.Random.Next(victims.Length)], _effects));
        }
        Drain();
        if (result != AccessResult.Hit) return false;
        Assert.Equal(Region.PageAt(page).State == LazyState.W, _writable.Contains(page));
        return true;
    }

    public void TryEvict(PageNumber page)
    {
        _ = _node.TryEvict(Region, page, _effects);
        Drain();
    }

    public void Release()
    {
        _node.Release(Region, _effects);
        Drain();
    }

    /// <summary>Invalidates pages, or all.</summary>
    public void Acquire(List<PageNumber>? pages)
    {
        if (pages is null) _node.AcquireAll(Region, _effects);
        else _node.Acquire(Region, pages.ToArray(), _effects);
        Drain();
    }

    public void Receive(in Message message, byte[] payload)
    {
        Dispatch(in message, payload);
        Drain();
    }

    public void CheckQuiet()
    {
        Assert.Empty(_twins);
        long frames = 0;
        for (int p = 0; p < LazyCluster.PageCount; p++)
        {
            PageNumber page = LazyCluster.PageAt(p);
            Assert.True(Region.PageAt(page).State is LazyState.I or LazyState.R, $"{page} stays {Region.PageAt(page).State} at {Id}");
            if (!Region.IsHome(page.Extent) && Region.PageAt(page).State == LazyState.R) frames++;
        }
        Assert.Equal(frames, Region.Budget!.UsedPages);
    }

    private void Drain()
    {
        while (true)
        {
            Execute(default, []);
            if (_toSelf.TryDequeue(out Message message)) Dispatch(in message, []);
            else if (_effects.Count == 0) return;
        }
    }

    private void Dispatch(in Message message, byte[] payload)
    {
        if (_cluster.Bug == LazyBug.DoesNotWaitForTheHome && message.Type == MessageType.DiffAck && message.Transaction == 0) return;
        if (LazyHomeController.Takes(message.Type))
        {
            if (message.Type == MessageType.Diff) Assert.Null(PageDiff.Violation(payload));
            _home.OnMessage(Region, in message, _effects);
        }
        else
        {
            _node.OnMessage(Region, in message, _effects);
        }
        Execute(in message, payload);
    }

    private void Execute(in Message message, byte[] payload)
    {
        for (int i = 0; i < _effects.Count; i++)
        {
            ref readonly Effect effect = ref _effects[i];
            for (uint p = 0; p < effect.Count; p++)
            {
                if (effect.Kind != EffectKind.Send) Execute(effect.Kind, effect.Page.Plus(p), in message, payload);
            }
            if (effect.Kind == EffectKind.Send) Send(in effect);
        }
        _effects.Clear();
    }

    private void Execute(EffectKind kind, PageNumber page, in Message message, byte[] payload)
    {
        switch (kind)
        {
            case EffectKind.WriteFrame or EffectKind.InstallReadable:
                if ((message.Flags & MessageFlags.Zero) != 0) Frames[page] = new byte[PageNumber.Bytes];
                else if ((message.Flags & MessageFlags.NoData) == 0)
                    Frames[page] = payload.AsSpan((int)(page.Value - message.Page.Value) * PageNumber.Bytes, PageNumber.Bytes).ToArray();
                else Assert.True(Frames.ContainsKey(page), $"{page} at {Id} has no frame");
                break;
            case EffectKind.MakeTwin:
                _twins.Add(page, (byte[])Frames[page].Clone());
                break;
            case EffectKind.DropTwin:
                Assert.True(_twins.Remove(page));
                break;
            case EffectKind.MakeWritable:
                Assert.True(_twins.ContainsKey(page) || Region.IsHome(page.Extent), $"{page} at {Id} has no twin");
                _writable.Add(page);
                break;
            case EffectKind.WriteProtect:
                _writable.Remove(page);
                break;
            case EffectKind.Unmap:
                Assert.DoesNotContain(page, _writable);
                Assert.True(Frames.Remove(page));
                break;
            case EffectKind.MergeDiff:
                if (!Frames.TryGetValue(page, out byte[]? frame)) Frames.Add(page, frame = new byte[PageNumber.Bytes]);
                PageDiff.Apply(payload, frame);
                break;
            case EffectKind.Complete:
                break; // whoever waits to take the notices asks again at each step here
            default:
                Assert.Fail($"{kind} is no effect of lazy release");
                break;
        }
    }

    private void Send(in Effect effect)
    {
        if (effect.To == Id)
        {
            Assert.Equal(DataSource.None, effect.Source);
            _toSelf.Enqueue(effect.Message);
            return;
        }
        byte[] payload = [];
        if (effect.Source == DataSource.Frame)
        {
            Effect sent = effect;
            payload = [.. Enumerable.Range(0, (int)effect.Count).SelectMany(p => Frames[sent.Page.Plus((uint)p)])];
        }
        else if (effect.Source == DataSource.Diff)
        {
            Assert.DoesNotContain(effect.Page, _writable);
            var room = new byte[PageDiff.MaxBytes];
            byte[] twin = _cluster.Bug == LazyBug.SendsWholePages ? [.. Frames[effect.Page].Select(b => (byte)~b)] : _twins[effect.Page];
            payload = room[..PageDiff.Write(twin, Frames[effect.Page], room)];
            if (_cluster.Bug == LazyBug.DoesNotWaitForTheHome)
                _toSelf.Enqueue(new Message { Type = MessageType.DiffAck, Source = effect.To, Transaction = 1, Count = 1, Region = Region.Id, Page = effect.Page });
        }
        _cluster.Send(Id, effect.To, effect.Message, payload);
    }
}
