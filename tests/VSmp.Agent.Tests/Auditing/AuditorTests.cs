// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent.Auditing;
using VSmp.Coherence;
using VSmp.Coherence.Homes;
using VSmp.Coherence.Placement;
using VSmp.Coherence.Protocols;
using Xunit;

namespace VSmp.Agent.Tests.Auditing;

/// <summary>Two nodes whose state fits together, then something is altered in it: the audit is to find just that.</summary>
public sealed class AuditorTests
{
    private const ushort None = ushort.MaxValue;
    private static readonly NodeId User = new(0), Home = new(1), Mirror = new(2);
    private static readonly ExtentNumber Extent = new(0);
    private static readonly PageNumber Owned = new(3), Shared = new(4), Kept = new(5);
    private readonly Region _atUser, _atHome, _atMirror;
    private readonly Auditor _auditor = new(node => $"n{node}");

    public AuditorTests()
    {
        var homes = new HomeMap(1);
        homes.Place(Extent, Home);
        homes.PlaceMirror(Extent, Mirror);
        _atUser = New(homes);
        _atHome = New(null);
        _atMirror = New(null);
        _atUser.Open(Extent);
        _atHome.BecomeHome(Extent);
        _atHome.SetMirror(Extent, Mirror);
        _atMirror.Mirrored.Add(Extent, Home, isFresh: true);
        Set(Owned, NodeState.M, DirectoryState.M, version: 9);
        _atHome.EntryAt(Owned).Owner = User;
        Set(Shared, NodeState.S, DirectoryState.S, version: 2);
        _atHome.EntryAt(Shared).AddSharer(User);
        Set(Kept, NodeState.I, DirectoryState.I, version: 5);
        foreach (PageNumber page in (PageNumber[])[Shared, Kept])
        {
            _atMirror.Mirrored.At(page) = new MirrorEntry { Contents = MirrorContents.Data, Version = _atHome.EntryAt(page).Version };
        }
    }

    [Fact]
    public void Nothing_is_found_where_nothing_is_wrong()
    {
        Assert.Empty(Pages());
        Assert.Empty(_auditor.CompareNodes(Nodes()));
    }

    [Fact]
    public void A_page_that_is_written_at_a_node_that_its_home_does_not_know_of_is_found()
    {
        _atUser.PageAt(Kept).State = NodeState.M;
        AuditFinding found = Assert.Single(Pages());
        Assert.Equal(("directory", "r", 0u, Kept.Value), (found.What, found.Region, found.Extent, found.Page));
        Assert.Contains("n0 has it in M", found.Text, StringComparison.Ordinal);
    }

    [Fact]
    public void An_owner_that_has_nothing_is_found()
    {
        _atUser.PageAt(Owned).State = NodeState.I;
        Assert.Contains("n0 has nothing of it", Assert.Single(Pages()).Text, StringComparison.Ordinal);
    }

    [Fact]
    public void A_reader_that_the_directory_has_forgotten_is_found()
    {
        _atHome.EntryAt(Shared).ClearSharers();
        Assert.Equal("directory", Assert.Single(Pages()).What);
    }

    [Fact]
    public void Two_owners_are_found()
    {
        var homes = new HomeMap(1);
        Region other = New(homes);
        other.Open(Extent);
        other.PageAt(Owned).State = NodeState.M;
        Assert.Contains(Pages(PagesAudit.Of(new NodeId(3), other, Extent, 1, 4)), f => f.What == "two-owners" && f.Page == Owned.Value);
    }

    [Fact]
    public void Two_homes_are_found()
    {
        _atMirror.Mirrored.Remove(Extent);
        _atMirror.BecomeHome(Extent);
        _ = _atMirror.EntryAt(Kept);
        Assert.Contains(Pages(), f => f.What == "two-homes" && f.Page == Kept.Value);
        Assert.Contains(_auditor.CompareNodes(Nodes()), f => f.What == "two-homes" && f.Extent == 0);
    }

    [Theory]
    [InlineData(4u, MirrorContents.Data)]
    [InlineData(5u, MirrorContents.Zero)]
    [InlineData(5u, MirrorContents.Unknown)]
    public void A_mirror_that_lacks_what_the_home_has_is_found(uint version, MirrorContents contents)
    {
        _atMirror.Mirrored.At(Kept) = new MirrorEntry { Version = new PageVersion(version), Contents = contents };
        Assert.Equal("mirror", Assert.Single(Pages()).What);
    }

    [Fact]
    public void What_is_under_way_or_being_rebuilt_is_no_finding()
    {
        _atUser.PageAt(Kept).State = NodeState.IM_AD;
        _atHome.EntryAt(Owned).State = DirectoryState.M_A;
        _atHome.EntryAt(Owned).Owner = Mirror;
        Assert.Empty(Pages());
        _atUser.PageAt(Shared).State = NodeState.M;
        _atHome.IsFrozen = true;
        Assert.Empty(Pages());
    }

    [Fact]
    public void Maps_reservations_and_accounts_that_do_not_fit_are_found()
    {
        NodeAudit[] nodes = Nodes();
        RegionAudit made = nodes[0].Regions[0];
        AssertFound("home-map", [nodes[0] with { Regions = [made with { Map = [new ExtentRun(0, 1, Mirror.Value, Home.Value)] }] }, .. nodes[1..]]);
        AssertFound("reservation", [nodes[0] with { Regions = [made with { Map = [] }] }, .. nodes[1..]]);
        AssertFound("no-home", [nodes[0], nodes[1] with { Regions = [nodes[1].Regions[0] with { Homes = [] }], HomeBytes = 0 }, nodes[2]]);
        AssertFound("accounts", [nodes[0], nodes[1] with { HomeBytes = 4096 }, nodes[2]]);
        AssertFound("accounts", [nodes[0] with { CacheBytes = 4096 }, .. nodes[1..]]);
        AssertFound("mirror", [.. nodes[..2], nodes[2] with { Regions = [], HomeBytes = 0 }]);
    }

    [Fact]
    public void What_a_node_says_is_read_as_it_was_written()
    {
        PagesAudit pages = PagesAudit.Of(Home, _atHome, Extent, 1, 4), read = PagesAudit.Read(Home, pages.Write());
        Assert.Equal((pages.Generation, pages.IsFrozen), (read.Generation, read.IsFrozen));
        Assert.Equal(pages.Runs, read.Runs);
        Assert.Throws<FormatException>(() => PagesAudit.Read(Home, pages.Write().AsSpan(1)));
    }

    private void AssertFound(string what, NodeAudit[] nodes) => Assert.Contains(_auditor.CompareNodes(nodes), f => f.What == what);

    private static Region New(HomeMap? homes) =>
        new(new RegionId(1), "r", 1, Msi.Protocol, homes, homes is null ? null : new FrameBudget(512)) { Generation = new Generation(4) };

    private void Set(PageNumber page, NodeState state, DirectoryState directory, uint version)
    {
        _atUser.PageAt(page).State = state;
        ref DirectoryEntry entry = ref _atHome.EntryAt(page);
        entry.State = directory;
        entry.Version = new PageVersion(version);
        entry.Flags = DirectoryFlags.None;
    }

    private List<AuditFinding> Pages(params PagesAudit[] more)
    {
        var findings = new List<AuditFinding>();
        PagesAudit[] parts = [PagesAudit.Of(User, _atUser, Extent, 1, 4), PagesAudit.Of(Home, _atHome, Extent, 1, 4), PagesAudit.Of(Mirror, _atMirror, Extent, 1, 4), .. more];
        Assert.Equal(512ul, _auditor.ComparePages("r", parts, _ => Mirror.Value, findings));
        return findings;
    }

    private NodeAudit[] Nodes() =>
    [
        NewNode(User, map: [new ExtentRun(0, 1, Home.Value, Mirror.Value)], _atUser),
        NewNode(Home, map: null, _atHome),
        NewNode(Mirror, map: null, _atMirror),
    ];

    private static NodeAudit NewNode(NodeId node, ExtentRun[]? map, Region region)
    {
        ExtentRun[] homes = region.IsHome(Extent) ? [new ExtentRun(0, 1, None, region.MirrorOf(Extent).Value)] : [];
        ExtentRun[] mirrors = region.Mirrored.Contains(Extent) ? [new ExtentRun(0, 1, region.Mirrored.HomeOf(Extent).Value, None)] : [];
        ulong bytes = (ulong)((homes.Length + mirrors.Length) * ExtentNumber.Bytes);
        return new NodeAudit(node.Value, 1 << 30, bytes, 0, 0, 0,
            [new RegionAudit(1, "r", User.Value, 1, HasDirectory: true, IsUnsettled: false, Generation: 4, map, homes, mirrors, [])]);
    }
}
