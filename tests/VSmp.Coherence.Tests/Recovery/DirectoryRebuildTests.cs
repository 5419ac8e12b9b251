// SPDX-License-Identifier: Apache-2.0
using VSmp.Coherence.Homes;
using VSmp.Coherence.Messages;
using VSmp.Coherence.Nodes;
using VSmp.Coherence.Placement;
using VSmp.Coherence.Protocols;
using VSmp.Coherence.Recovery;

namespace VSmp.Coherence.Tests.Recovery;

/// <summary>One home, and what it makes of claims. That the whole of it is right is for the model checker to say.</summary>
public sealed class DirectoryRebuildTests
{
    private static readonly NodeId Self = new(0), User = new(1), Other = new(2), LostHome = new(3), Mirror = new(4);
    private static readonly ExtentNumber Extent = new(0);
    private static readonly PageNumber Page = new(5);
    private readonly Region _region = new(new RegionId(1), "r", 1, Msi.Protocol, homes: null, budget: null);
    private readonly HomeController _home = new(Self, () => 5);
    private readonly RecoveryController _recovery;
    private readonly EffectBuffer _effects = new();
    private readonly List<PageNumber> _lost = [];

    public DirectoryRebuildTests() => _recovery = new RecoveryController(Self, new NodeController(Self), _home);

    [Fact]
    public void A_mirror_becomes_the_home_with_what_it_was_sent()
    {
        _region.Mirrored.Add(Extent, LostHome, isFresh: true);
        _region.Mirrored.At(Page) = new MirrorEntry { Version = new PageVersion(7), Contents = MirrorContents.Data };
        Assert.Equal(1, Freeze());
        Claim();
        Assert.True(RecoveryController.TryComplete(_region));
        Assert.Empty(_lost);
        Assert.False(_region.Mirrored.Contains(Extent));
        ref DirectoryEntry entry = ref _region.EntryAt(Page);
        Assert.Equal((DirectoryState.I, 7u, DirectoryFlags.None), (entry.State, entry.Version.Value, entry.Flags));
        Assert.Equal(DirectoryFlags.Zero, _region.EntryAt(new PageNumber(6)).Flags);
    }

    [Fact]
    public void An_owner_keeps_what_it_has_and_the_mirrors_older_copy_goes()
    {
        _region.Mirrored.Add(Extent, LostHome, isFresh: true);
        _region.Mirrored.At(Page) = new MirrorEntry { Version = new PageVersion(7), Contents = MirrorContents.Data };
        Freeze();
        Claim(new Claim(Page, 1, ClaimKind.Modified, new PageVersion(8)));
        Assert.True(RecoveryController.TryComplete(_region));
        ref DirectoryEntry entry = ref _region.EntryAt(Page);
        Assert.Equal((DirectoryState.M, User, 8u), (entry.State, entry.Owner, entry.Version.Value));
        Assert.Contains(Effects(), e => e.Kind == EffectKind.DropHome && e.Page == Page);
    }

    [Fact]
    public void The_frame_that_guests_of_the_home_read_stays_though_another_owns_the_page()
    {
        var homes = new HomeMap(1);
        homes.Place(Extent, Self);
        var region = new Region(_region.Id, "r", 1, Moesi.Protocol, homes, budget: null);
        region.BecomeHome(Extent);
        region.Open(Extent);
        region.PageAt(Page) = new PageEntry { State = NodeState.S, Version = new PageVersion(1) };
        region.EntryAt(Page) = new DirectoryEntry { State = DirectoryState.O, Owner = User, Version = new PageVersion(1) };
        Freeze(region, 1, [], [Self, User]);
        _recovery.OnClaims(region, User, [new Claim(Page, 1, ClaimKind.Owned, new PageVersion(1))], isLast: true, _effects, _lost);
        _recovery.OnClaims(region, Self, [new Claim(Page, 1, ClaimKind.Shared, new PageVersion(1))], isLast: true, _effects, _lost);
        Assert.Equal((DirectoryState.O, User, DirectoryFlags.Dropped), (region.EntryAt(Page).State, region.EntryAt(Page).Owner, region.EntryAt(Page).Flags));
        Assert.DoesNotContain(Effects(), e => e.Kind == EffectKind.DropHome && e.Page == Page);
    }

    [Fact]
    public void A_kept_copy_that_the_mirror_lacks_is_recalled_before_the_home_is_ready()
    {
        _region.Mirrored.Add(Extent, LostHome, isFresh: true);
        _region.Mirrored.At(Page) = new MirrorEntry { Version = new PageVersion(7), Contents = MirrorContents.Data };
        Freeze();
        Claim(new Claim(Page, 1, ClaimKind.Kept, new PageVersion(8)));
        Assert.Contains(Effects(), e => e.Kind == EffectKind.Send && e.Message.Type == MessageType.Recall && e.To == User);
        Assert.False(RecoveryController.TryComplete(_region));
        _home.OnMessage(_region, Answer(MessageType.Recalled, version: 8), _effects);
        Assert.True(RecoveryController.TryComplete(_region));
        Assert.Equal(8u, _region.EntryAt(Page).Version.Value);
    }

    [Fact]
    public void What_an_owner_was_giving_up_counts_at_a_younger_mirror_that_knows_of_the_owner()
    {
        // The home copies what it has to a new mirror: of one page it knows that somebody owns it, of the next nothing has been said yet.
        Region home = new(_region.Id, "r", 1, Msi.Protocol, homes: null, budget: null);
        home.BecomeHome(Extent);
        var controller = new HomeController(LostHome, () => 5);
        controller.OnMessage(home, Answer(MessageType.GetM, 0), _effects);
        controller.OnMessage(home, Answer(MessageType.InstallAck, 1), _effects);
        home.SetMirror(Extent, Self);
        _effects.Clear();
        Assert.True(controller.TryCopyToMirror(home, Page, _effects));
        Message put = Assert.Single(Effects(), e => e.Kind == EffectKind.Send).Message;
        Assert.Equal((MessageType.MirrorPut, MessageFlags.Prefetch | MessageFlags.NoData), (put.Type, put.Flags));
        _effects.Clear();
        _region.Mirrored.Add(Extent, LostHome, isFresh: false);
        new MirrorController(Self).OnMessage(_region, in put, _effects);
        Assert.DoesNotContain(Effects(), e => e.Kind == EffectKind.WriteHome);
        Message ack = Assert.Single(Effects(), e => e.Kind == EffectKind.Send).Message;
        Assert.Equal((MessageType.MirrorAck, MessageFlags.Prefetch), (ack.Type, ack.Flags));
        controller.OnMessage(home, ack with { Source = Self }, _effects);
        Assert.Equal(0, home.MirrorCopiesOut);
        _effects.Clear();
        // Both owners were writing them back when the home was lost.
        PageNumber next = Page.Plus(1);
        Freeze();
        Claim(new Claim(Page, 2, ClaimKind.Kept, new PageVersion(1)));
        Assert.Equal(Page, Assert.Single(Effects(), e => e.Kind == EffectKind.Send && e.Message.Type == MessageType.Recall).Page);
        Assert.DoesNotContain(Page, _lost);
        Assert.Contains(next, _lost);
    }

    [Fact]
    public void What_nobody_has_is_lost_and_who_asks_for_it_is_told()
    {
        _region.Mirrored.Add(Extent, LostHome, isFresh: false);
        Freeze();
        Claim(new Claim(Page, 1, ClaimKind.Shared, new PageVersion(3)));
        Assert.Contains(Effects(), e => e.Kind == EffectKind.Send && e.Message.Type == MessageType.Promote && e.To == User);
        Assert.False(RecoveryController.TryComplete(_region));
        _home.OnMessage(_region, Answer(MessageType.Recalled, version: 4) with { Flags = MessageFlags.NoData }, _effects);
        Assert.True(RecoveryController.TryComplete(_region));
        Assert.Equal(ExtentNumber.Pages - 1, _lost.Count);
        Assert.DoesNotContain(Page, _lost);
        Assert.Equal((DirectoryState.M, User), (_region.EntryAt(Page).State, _region.EntryAt(Page).Owner)); // the only reader owns it now
        _effects.Clear();
        Message ask = Answer(MessageType.GetS, version: 0) with { Page = _lost[0] };
        _home.OnMessage(_region, in ask, _effects);
        Assert.Contains(Effects(), e => e.Kind == EffectKind.Send && e.Message.Type == MessageType.Poisoned && e.To == User);
    }

    [Fact]
    public void What_was_written_home_and_perhaps_not_mirrored_is_mirrored_again()
    {
        _region.BecomeHome(Extent);
        _region.SetMirror(Extent, Mirror);
        _home.OnMessage(_region, Answer(MessageType.GetM, 0), _effects);
        _home.OnMessage(_region, Answer(MessageType.InstallAck, 1), _effects);
        _home.OnMessage(_region, Answer(MessageType.PutM, 1), _effects);
        Assert.Equal(DirectoryState.I_W, _region.EntryAt(Page).State);
        _effects.Clear();
        Freeze();
        Claim();
        Assert.Contains(Effects(), e => e.Kind == EffectKind.Send && e.Message.Type == MessageType.MirrorPut && e.To == Mirror);
        Assert.False(RecoveryController.TryComplete(_region));
        _home.OnMessage(_region, Answer(MessageType.MirrorAck, 1) with { Source = Mirror }, _effects);
        Assert.True(RecoveryController.TryComplete(_region));
    }

    [Fact]
    public void What_the_mirror_has_not_acknowledged_when_the_next_recovery_begins_is_mirrored_again()
    {
        _region.BecomeHome(Extent);
        _region.SetMirror(Extent, Mirror);
        _region.EntryAt(Page) = new DirectoryEntry { State = DirectoryState.M, Owner = Other, Version = new PageVersion(2), Flags = DirectoryFlags.Dropped };
        Freeze(_region, 1, [], [User, Other]);
        Claim();
        _recovery.OnClaims(_region, Other, [new Claim(Page, 1, ClaimKind.Kept, new PageVersion(2))], isLast: true, _effects, _lost);
        _home.OnMessage(_region, Answer(MessageType.Recalled, 2) with { Source = Other }, _effects);
        Assert.Contains(Effects(), e => e.Kind == EffectKind.Send && e.Message.Type == MessageType.MirrorPut);
        _effects.Clear();
        FreezeWithoutOther(); // and without whoever had the copy
        Claim();
        Assert.Empty(_lost);
        Assert.Contains(Effects(), e => e.Kind == EffectKind.Send && e.Message.Type == MessageType.MirrorPut && e.To == Mirror);
        _home.OnMessage(_region, Answer(MessageType.MirrorAck, 2) with { Source = Mirror }, _effects);
        Assert.True(RecoveryController.TryComplete(_region));
        Assert.Equal(DirectoryFlags.None, _region.EntryAt(Page).Flags);
    }

    [Fact]
    public void The_mirror_of_a_lost_page_forgets_what_it_has_of_it()
    {
        _region.BecomeHome(Extent);
        _region.SetMirror(Extent, Mirror);
        _home.OnMessage(_region, Answer(MessageType.GetM, 0) with { Source = LostHome, Requestor = LostHome }, _effects);
        _home.OnMessage(_region, Answer(MessageType.InstallAck, 1) with { Source = LostHome }, _effects);
        _effects.Clear();
        Freeze();
        Claim();
        Assert.Equal([Page], _lost);
        Assert.False(RecoveryController.TryComplete(_region));
        Message put = Effects().Single(e => e.Kind == EffectKind.Send && e.Message.Type == MessageType.MirrorPut && e.To == Mirror).Message;
        Assert.Equal(MessageFlags.NoData | MessageFlags.Zero, put.Flags);

        // The mirror has the zeros from before; when it becomes the home, the page stays lost.
        var mirror = new Region(_region.Id, "r", 1, Msi.Protocol, homes: null, budget: null) { Generation = _region.Generation };
        mirror.Mirrored.Add(Extent, Self, isFresh: true);
        _effects.Clear();
        new MirrorController(Mirror).OnMessage(mirror, in put, _effects);
        Message ack = Effects().Single(e => e.Kind == EffectKind.Send).Message;
        _home.OnMessage(_region, in ack, _effects);
        Assert.True(RecoveryController.TryComplete(_region));
        var recovery = new RecoveryController(Mirror, new NodeController(Mirror), new HomeController(Mirror, () => 5));
        recovery.Freeze(mirror, new Generation(2), new RecoveryPlan([Self], [User], IsAnyUserLost: false), _effects);
        _lost.Clear();
        recovery.OnClaims(mirror, User, [], isLast: true, _effects, _lost);
        Assert.Equal([Page], _lost);
        Assert.Equal(DirectoryState.Lost, mirror.EntryAt(Page).State);
        Assert.Equal(DirectoryState.I, mirror.EntryAt(new PageNumber(6)).State);
    }

    [Fact]
    public void A_mirror_that_became_the_home_does_not_count_if_a_user_is_lost_before_it_has_spoken()
    {
        _region.Mirrored.Add(Extent, LostHome, isFresh: true);
        _region.Mirrored.At(Page) = new MirrorEntry { Version = new PageVersion(7), Contents = MirrorContents.Data };
        Freeze(users: [User, Other]);
        FreezeWithoutOther(); // it may have had a newer copy of any page
        Claim(new Claim(Page.Plus(1), 1, ClaimKind.Shared, new PageVersion(3)));
        Assert.Equal(ExtentNumber.Pages - 1, _lost.Count);
        Assert.Contains(Page, _lost);
        Assert.DoesNotContain(Page.Plus(1), _lost);
    }

    [Fact]
    public void What_was_granted_to_an_exclusive_owner_is_lost_if_it_is_lost_before_it_has_spoken()
    {
        Region region = new(new RegionId(1), "r", 1, Mesi.Protocol, homes: null, budget: null);
        region.BecomeHome(Extent);
        _home.OnMessage(region, Answer(MessageType.GetS, 0) with { Source = Other, Requestor = Other }, _effects);
        Assert.Equal(DirectoryState.E, region.EntryAt(Page).State);
        Freeze(region, 1, [LostHome], [User, Other]);
        Freeze(region, 2, [LostHome, Other], [User]);
        _recovery.OnClaims(region, User, [], isLast: true, _effects, _lost);
        Assert.Equal([Page], _lost); // it may have written, and asked nobody
    }

    [Fact]
    public void A_copy_from_before_an_owner_does_not_count_if_that_one_is_lost_before_it_has_spoken()
    {
        Region region = new(new RegionId(1), "r", 1, Moesi.Protocol, homes: null, budget: null);
        region.BecomeHome(Extent);
        Message ask = Answer(MessageType.GetM, 0), installed = Answer(MessageType.InstallAck, 1);
        _home.OnMessage(region, in ask, _effects);
        _home.OnMessage(region, in installed, _effects);
        _home.OnMessage(region, ask with { Source = Other, Requestor = Other }, _effects);
        _home.OnMessage(region, installed with { Source = Other, Version = new PageVersion(2) }, _effects);
        _home.OnMessage(region, ask with { Type = MessageType.GetS }, _effects);
        Assert.Equal((DirectoryState.O, Other, 2u), (region.EntryAt(Page).State, region.EntryAt(Page).Owner, region.EntryAt(Page).Version.Value));
        Freeze(region, 1, [LostHome], [User, Other]);
        Freeze(region, 2, [LostHome, Other], [User]);
        _recovery.OnClaims(region, User, [new Claim(Page, 1, ClaimKind.Kept, new PageVersion(1))], isLast: true, _effects, _lost);
        Assert.Equal([Page], _lost);
    }

    [Fact]
    public void A_younger_mirror_gets_what_an_owner_that_others_read_from_may_give_back_without_data()
    {
        Region region = new(new RegionId(1), "r", 1, Moesi.Protocol, homes: null, budget: null);
        region.BecomeHome(Extent);
        region.EntryAt(Page) = DirectoryEntry.Zero with { Version = new PageVersion(3), Flags = DirectoryFlags.None };
        _home.OnMessage(region, Answer(MessageType.GetS, 0), _effects);
        _home.OnMessage(region, Answer(MessageType.GetS, 0) with { Source = Other, Requestor = Other }, _effects);
        Assert.Equal((DirectoryState.O, 4u), (region.EntryAt(Page).State, region.EntryAt(Page).Version.Value));
        region.SetMirror(Extent, Mirror);
        _effects.Clear();
        Assert.True(_home.TryCopyToMirror(region, Page, _effects));
        Effect put = Assert.Single(Effects());
        Assert.Equal((MessageType.MirrorPut, 3u, DataSource.Frame), (put.Message.Type, put.Message.Version.Value, put.Source));
        _home.OnMessage(region, Answer(MessageType.PutE, 4), _effects);
        Assert.Equal(DirectoryState.S, region.EntryAt(Page).State);
    }

    [Fact]
    public void Two_owners_are_a_violation()
    {
        _region.BecomeHome(Extent);
        Freeze(users: [User, Other]);
        Claim(new Claim(Page, 1, ClaimKind.Modified, new PageVersion(8)));
        Assert.Throws<ProtocolViolationException>(() =>
            _recovery.OnClaims(_region, Other, [new Claim(Page, 1, ClaimKind.Modified, new PageVersion(8))], isLast: true, _effects, _lost));
    }

    [Fact]
    public void What_an_earlier_generation_sent_is_dropped()
    {
        _region.BecomeHome(Extent);
        Freeze();
        Claim();
        _effects.Clear();
        _home.OnMessage(_region, Answer(MessageType.GetM, 0) with { Generation = default }, _effects);
        Assert.Equal(0, _effects.Count);
    }

    [Fact]
    public void Claims_are_on_the_wire_what_they_are_here()
    {
        Span<byte> bytes = stackalloc byte[Coherence.Recovery.Claim.Bytes];
        var claim = new Claim(new PageNumber(513), 511, ClaimKind.Kept, new PageVersion(0x01020304));
        claim.Write(bytes);
        Assert.Equal("01020000FE01040004030201", Convert.ToHexString(bytes));
        Assert.True(Coherence.Recovery.Claim.TryRead(bytes, out Claim read));
        Assert.Equal(claim, read);
        bytes[4] = 0xFF; // beyond the extent's end
        Assert.False(Coherence.Recovery.Claim.TryRead(bytes, out _));
        bytes[4] = 0;
        bytes[6] = 6;
        Assert.False(Coherence.Recovery.Claim.TryRead(bytes, out _));
    }

    [Fact]
    public void A_leader_waits_for_all_twice_and_for_nobody_of_an_earlier_generation()
    {
        var leader = new RecoveryLeader();
        leader.Begin(new Generation(1), [Self, User], [User]);
        Assert.False(leader.OnFrozen(Self, new Generation(1)));
        leader.Begin(new Generation(2), [Self, User], [User]); // another node was lost
        Assert.False(leader.OnFrozen(User, new Generation(1)));
        Assert.False(leader.OnFrozen(User, new Generation(2)));
        Assert.True(leader.OnFrozen(Self, new Generation(2)));
        Assert.False(leader.OnRebuilt(User, new Generation(1)));
        Assert.True(leader.OnRebuilt(User, new Generation(2)));
        Assert.Equal(RecoveryPhase.None, leader.Phase);
    }

    [Fact]
    public void A_mirror_takes_the_place_of_a_home_that_is_there_and_is_mirrored_by_it()
    {
        _region.Mirrored.Add(Extent, Other, isFresh: true);
        _region.Mirrored.At(Page) = new MirrorEntry { Version = new PageVersion(7), Contents = MirrorContents.Data };
        Move(home: Self, mirror: Other);
        Claim(new Claim(Page, 1, ClaimKind.Kept, new PageVersion(8))); // its writeback had not come to an end
        Assert.Contains(Effects(), e => e.Kind == EffectKind.Send && e.Message.Type == MessageType.Recall && e.To == User);
        _effects.Clear();
        _home.OnMessage(_region, Answer(MessageType.Recalled, version: 8), _effects);
        Assert.Contains(Effects(), e => e.Kind == EffectKind.Send && e.Message.Type == MessageType.MirrorPut && e.To == Other);
        Assert.False(RecoveryController.TryComplete(_region)); // the former home has it before anybody goes on
        _home.OnMessage(_region, Answer(MessageType.MirrorAck, version: 8) with { Source = Other }, _effects);
        Assert.True(RecoveryController.TryComplete(_region));
        Assert.Equal(Other, _region.MirrorOf(Extent));
        Assert.Empty(_lost);
    }

    [Fact]
    public void A_home_that_becomes_a_mirror_has_what_it_had_and_knows_what_only_an_owner_has()
    {
        _region.BecomeHome(Extent);
        PageNumber owned = new(6), fresh = new(7);
        _home.OnMessage(_region, Answer(MessageType.GetM, 0), _effects);
        _home.OnMessage(_region, Answer(MessageType.InstallAck, 1), _effects);
        _home.OnMessage(_region, Answer(MessageType.PutM, 1), _effects);
        _home.OnMessage(_region, Answer(MessageType.GetM, 0) with { Page = owned }, _effects);
        _home.OnMessage(_region, Answer(MessageType.InstallAck, 1) with { Page = owned }, _effects);
        Move(home: Other, mirror: Self);
        Assert.False(_region.IsHome(Extent));
        Assert.Null(_region.Rebuild); // who is home now asks
        Assert.Equal(Other, _region.Mirrored.HomeOf(Extent));
        Assert.Equal((MirrorContents.Data, 1u), (_region.Mirrored.At(Page).Contents, _region.Mirrored.At(Page).Version.Value));
        Assert.Equal((MirrorContents.Elsewhere, 1u), (_region.Mirrored.At(owned).Contents, _region.Mirrored.At(owned).Version.Value));
        Assert.Equal(MirrorContents.Zero, _region.Mirrored.At(fresh).Contents);
    }

    [Fact]
    public void A_copy_that_was_being_given_up_counts_at_a_mirror_that_only_knew_of_its_owner()
    {
        _region.Mirrored.Add(Extent, LostHome, isFresh: true);
        _region.Mirrored.At(Page) = new MirrorEntry { Version = new PageVersion(7), Contents = MirrorContents.Elsewhere };
        PageNumber older = new(6);
        _region.Mirrored.At(older) = new MirrorEntry { Version = new PageVersion(7), Contents = MirrorContents.Elsewhere };
        Freeze();
        Claim(new Claim(Page, 1, ClaimKind.Kept, new PageVersion(7)), new Claim(older, 1, ClaimKind.Kept, new PageVersion(6)));
        Assert.Contains(Effects(), e => e.Kind == EffectKind.Send && e.Message.Type == MessageType.Recall && e.Page == Page);
        Assert.Equal([older], _lost); // what was left over from before the last grant is not taken for it
    }

    [Fact]
    public void A_home_hears_where_its_mirror_is_from_a_leader_that_is_another_one()
    {
        _region.BecomeHome(Extent);
        _region.SetMirror(Extent, Mirror);
        Move(Self, NodeId.None); // the leader before was killed when it knew that the mirror was lost, and this home did not
        Assert.True(_region.IsHome(Extent));
        Assert.Equal(NodeId.None, _region.MirrorOf(Extent));
    }

    [Fact]
    public void A_writeback_waits_for_the_mirror_and_for_its_successor()
    {
        NodeId next = LostHome;
        _region.BecomeHome(Extent);
        _region.SetMirror(Extent, Mirror);
        _region.SetNextMirror(Extent, next);
        _home.OnMessage(_region, Answer(MessageType.GetM, 0), _effects);
        _home.OnMessage(_region, Answer(MessageType.InstallAck, 1), _effects);
        _effects.Clear();
        _home.OnMessage(_region, Answer(MessageType.PutM, 1), _effects);
        Assert.Equal([next], Effects().Where(e => e.Message.Type == MessageType.MirrorPut).Select(e => e.To));
        _effects.Clear();
        _home.OnMessage(_region, Answer(MessageType.MirrorAck, 1) with { Source = next }, _effects);
        Assert.Equal([Mirror], Effects().Where(e => e.Message.Type == MessageType.MirrorPut).Select(e => e.To));
        Assert.DoesNotContain(Effects(), e => e.Message.Type == MessageType.PutAck);
        _effects.Clear();
        _region.SetMirror(Extent, next); // the successor takes over while the former one's answer is on its way
        _region.SetNextMirror(Extent, NodeId.None);
        Assert.True(_region.AwaitsMirror(Extent));
        _home.OnMessage(_region, Answer(MessageType.MirrorAck, 1) with { Source = Mirror }, _effects);
        Assert.Equal([next], Effects().Where(e => e.Message.Type == MessageType.MirrorPut).Select(e => e.To));
        _home.OnMessage(_region, Answer(MessageType.MirrorAck, 1) with { Source = next }, _effects);
        Assert.Contains(Effects(), e => e.Message.Type == MessageType.PutAck && e.To == User);
        Assert.False(_region.AwaitsMirror(Extent));
    }

    private void Move(NodeId home, NodeId mirror)
    {
        _effects.Clear();
        _recovery.Freeze(_region, new Generation(1), new RecoveryPlan([], [User], IsAnyUserLost: false) { Moves = [new HomeMove(Extent, 1, home, mirror)] }, _effects);
    }

    private int Freeze(NodeId[]? users = null) =>
        _recovery.Freeze(_region, new Generation(1), new RecoveryPlan([LostHome], users ?? [User], IsAnyUserLost: false), _effects);

    private void FreezeWithoutOther() => Freeze(_region, 2, [LostHome, Other], [User]);

    private void Freeze(Region region, uint generation, NodeId[] lost, NodeId[] users) =>
        _recovery.Freeze(region, new Generation(generation), new RecoveryPlan(lost, users, IsAnyUserLost: lost.Contains(Other)), _effects);

    private void Claim(params Claim[] claims) => _recovery.OnClaims(_region, User, claims, isLast: true, _effects, _lost);

    private Message Answer(MessageType type, uint version) => new()
    {
        Type = type,
        Source = User,
        Requestor = User,
        Count = 1,
        Region = _region.Id,
        Page = Page,
        Version = new PageVersion(version),
        Generation = _region.Generation,
    };

    private List<Effect> Effects() => [.. Enumerable.Range(0, _effects.Count).Select(i => _effects[i])];
}
