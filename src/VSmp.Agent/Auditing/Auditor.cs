// SPDX-License-Identifier: Apache-2.0
using VSmp.Coherence;
using VSmp.Coherence.Homes;
using VSmp.Coherence.Protocols;

namespace VSmp.Agent.Auditing;

/// <summary>Something that must not be.</summary>
/// <param name="What">Which rule is broken: two-homes, no-home, home-map, directory, two-owners, mirror, reservation, accounts.</param>
/// <param name="Region">The region's name; null if it is about a node.</param>
/// <param name="Extent">The extent; null if it is about more.</param>
/// <param name="Page">The page; null if it is about more.</param>
/// <param name="Text">What is seen where, versions and states included: two looks that give the same text have seen nothing change.</param>
internal sealed record AuditFinding(string What, string? Region, uint? Extent, ulong? Page, string Text);

/// <summary>
/// Compares what nodes say they have. Each is looked at in a moment of its own, so one look proves nothing while guests run: a finding counts if it is
/// seen again unchanged.
/// </summary>
/// <param name="nameOf">Names of nodes, for findings.</param>
internal sealed class Auditor(Func<ushort, string> nameOf)
{
    private const ushort None = ushort.MaxValue;

    /// <summary>Accounts, reservations and home maps.</summary>
    public List<AuditFinding> CompareNodes(IReadOnlyList<NodeAudit> nodes)
    {
        var findings = new List<AuditFinding>();
        foreach (NodeAudit node in nodes) CheckAccounts(node, findings);
        foreach (var group in nodes.SelectMany(node => node.Regions.Select(region => (node.Node, Region: region))).GroupBy(r => r.Region.Id))
        {
            CompareMaps([.. group], findings);
        }
        return findings;
    }

    /// <summary>The pages of some extents of a region.</summary>
    /// <param name="region">The region's name.</param>
    /// <param name="parts">What each node that has to do with it says.</param>
    /// <param name="mirrorOf">Where an extent is mirrored; null where it has no mirror, or one that is still being filled.</param>
    /// <param name="findings">Gets what is wrong.</param>
    /// <returns>How many pages somebody has something of.</returns>
    public ulong ComparePages(string region, IReadOnlyList<PagesAudit> parts, Func<uint, ushort?> mirrorOf, List<AuditFinding> findings)
    {
        if (parts.Count == 0) return 0;
        bool isSettled = parts.All(p => !p.IsFrozen && p.Generation == parts[0].Generation);
        var pages = new SortedDictionary<ulong, List<(ushort Node, PageRun Run)>>();
        foreach (PagesAudit part in parts)
        {
            foreach (PageRun run in part.Runs)
            {
                for (uint i = 0; i < run.Count; i++)
                {
                    if (!pages.TryGetValue(run.Page + i, out List<(ushort, PageRun)>? seen)) pages.Add(run.Page + i, seen = []);
                    seen.Add((part.Node.Value, run));
                }
            }
        }
        if (!isSettled) return (ulong)pages.Count; // it will be looked at again
        foreach ((ulong page, List<(ushort Node, PageRun Run)> seen) in pages) ComparePage(region, page, seen, mirrorOf, findings);
        return (ulong)pages.Count;
    }

    private void ComparePage(string region, ulong page, List<(ushort Node, PageRun Run)> seen, Func<uint, ushort?> mirrorOf, List<AuditFinding> findings)
    {
        uint extent = new PageNumber(page).Extent.Value;
        var users = seen.Where(s => s.Run.Role == PageRole.User).ToArray();
        var homes = seen.Where(s => s.Run.Role == PageRole.Home).ToArray();
        ushort[] writers = [.. users.Where(u => NodeStates.MayWrite((NodeState)u.Run.State)).Select(u => u.Node)];
        if (writers.Length > 1) Add("two-owners", $"nodes {string.Join(" and ", writers.Select(nameOf))} may both write it");
        if (homes.Length > 1)
        {
            Add("two-homes", $"nodes {string.Join(" and ", homes.Select(h => nameOf(h.Node)))} are both its home");
            return;
        }
        // A page that nobody has asked for has no entry: it is zeros, and nobody has it.
        (ushort homeNode, PageRun home) = homes.Length == 1 ? homes[0] : (None, new PageRun { Owner = None, Flags = (byte)DirectoryFlags.Zero });
        var state = (DirectoryState)home.State;
        if (!IsStable(state) || users.Any(u => !NodeStates.IsStable((NodeState)u.Run.State))) return; // something is under way
        foreach ((ushort node, PageRun run) in users)
        {
            bool mayShare = (home.Sharers >> (node & 63) & 1) != 0;
            if (!NodeStates.Agrees(state, home.Owner == node, mayShare, (NodeState)run.State))
                Add("directory", $"{nameOf(node)} has it in {(NodeState)run.State} (version {run.Version}), and {Says(homeNode, in home)}");
        }
        if (state is DirectoryState.M or DirectoryState.E or DirectoryState.O && !users.Any(u => u.Node == home.Owner))
            Add("directory", $"{nameOf(home.Owner)} has nothing of it, and {Says(homeNode, in home)}");
        if (homes.Length == 0 || !NodeStates.HomeIsValid(state) || mirrorOf(extent) is not { } mirror) return;
        (ushort, PageRun Run) copy = seen.FirstOrDefault(s => s.Run.Role == PageRole.Mirror && s.Node == mirror);
        var contents = copy.Run.Count == 0 ? MirrorContents.Zero : (MirrorContents)copy.Run.State; // an extent that was never written has no entries
        bool isZero = (home.Flags & (byte)DirectoryFlags.Zero) != 0;
        if (contents != (isZero ? MirrorContents.Zero : MirrorContents.Data) || copy.Run.Version != home.Version)
            Add("mirror", $"its mirror {nameOf(mirror)} has {contents} of version {copy.Run.Version}, and its home {nameOf(homeNode)} {(isZero ? "zeros" : "data")} of version {home.Version}");

        void Add(string what, string text) => findings.Add(new AuditFinding(what, region, extent, page, text));
    }

    private string Says(ushort home, in PageRun entry) => home == None
        ? "no home knows of it"
        : $"its home {nameOf(home)} says {(DirectoryState)entry.State}"
            + (entry.Owner == None ? "" : $" of {nameOf(entry.Owner)}") + $" (version {entry.Version})";

    private static bool IsStable(DirectoryState state) =>
        state is DirectoryState.I or DirectoryState.S or DirectoryState.M or DirectoryState.E or DirectoryState.O or DirectoryState.Lost;

    private void CheckAccounts(NodeAudit node, List<AuditFinding> findings)
    {
        string name = nameOf(node.Node);
        ulong reserved = node.Regions.Aggregate(0ul, (sum, r) => sum + Count(r.Homes) + Count(r.Mirrors)) * ExtentNumber.Bytes;
        if (node.HomeBytes != reserved) Add($"{name} counts {node.HomeBytes} bytes as homes, and its regions have {reserved}");
        if (node.CacheBytes != node.RunCacheBytes) Add($"{name} counts {node.CacheBytes} bytes as cache, and its runs and checkpoints have {node.RunCacheBytes}");
        if (node.HomeBytes + node.CacheBytes > node.ContributedBytes) Add($"{name} contributes {node.ContributedBytes} bytes, and {node.HomeBytes + node.CacheBytes} are given away");
        if (node.UsedBytes > node.ContributedBytes) Add($"{name} contributes {node.ContributedBytes} bytes, and its frames hold {node.UsedBytes}");

        void Add(string text) => findings.Add(new AuditFinding("accounts", null, null, null, text));
        static ulong Count(ExtentRun[] runs) => runs.Aggregate(0ul, (sum, run) => sum + run.Count);
    }

    private void CompareMaps(IReadOnlyList<(ushort Node, RegionAudit Region)> parts, List<AuditFinding> findings)
    {
        RegionAudit first = parts[0].Region;
        if (parts.Any(p => p.Region.IsUnsettled || p.Region.Generation != first.Generation)) return;
        HashSet<uint> moving = [.. parts.SelectMany(p => ExtentRun.Each(p.Region.Moving)).Select(e => e.Extent)];
        var at = new SortedDictionary<uint, (List<ushort> Homes, List<ushort> Mirrors, ushort MirrorByHome, ushort HomeByMirror)>();
        foreach ((ushort node, RegionAudit region) in parts)
        {
            foreach ((uint extent, ushort _, ushort mirror) in ExtentRun.Each(region.Homes))
            {
                var seen = at.GetValueOrDefault(extent, ([], [], None, None));
                seen.Homes.Add(node);
                at[extent] = seen with { MirrorByHome = mirror };
            }
            foreach ((uint extent, ushort home, ushort _) in ExtentRun.Each(region.Mirrors))
            {
                var seen = at.GetValueOrDefault(extent, ([], [], None, None));
                seen.Mirrors.Add(node);
                at[extent] = seen with { HomeByMirror = home };
            }
        }
        foreach ((uint extent, (List<ushort> homes, List<ushort> mirrors, ushort mirrorByHome, ushort homeByMirror)) in at)
        {
            if (moving.Contains(extent)) continue;
            if (homes.Count > 1) Add("two-homes", extent, $"nodes {string.Join(" and ", homes.Select(nameOf))} are both its home");
            if (homes.Count == 0) Add("no-home", extent, $"{nameOf(mirrors[0])} mirrors it, and nobody is its home");
            if (homes.Count != 1) continue;
            if (mirrors.Count > 1) Add("mirror", extent, $"nodes {string.Join(" and ", mirrors.Select(nameOf))} are both its mirror");
            else if (mirrorByHome != (mirrors.Count == 0 ? None : mirrors[0]))
                Add("mirror", extent, $"its home {nameOf(homes[0])} takes {Name(mirrorByHome)} for its mirror, and {Name(mirrors.Count == 0 ? None : mirrors[0])} is");
            else if (mirrors.Count == 1 && homeByMirror != homes[0]) Add("mirror", extent, $"its mirror {nameOf(mirrors[0])} takes {nameOf(homeByMirror)} for its home, and {nameOf(homes[0])} is");
        }
        foreach ((ushort node, RegionAudit region) in parts)
        {
            if (region.Map is not { } map) continue;
            var known = ExtentRun.Each(map).ToDictionary(e => e.Extent, e => (e.Home, e.Mirror));
            foreach ((uint extent, (ushort home, ushort mirror)) in known)
            {
                if (moving.Contains(extent)) continue;
                if (!at.TryGetValue(extent, out var seen) || seen.Homes.Count == 0) Add("no-home", extent, $"{nameOf(node)} takes {nameOf(home)} for its home, and nobody is");
                else if (seen.Homes.Count == 1 && seen.Homes[0] != home) Add("home-map", extent, $"{nameOf(node)} takes {nameOf(home)} for its home, and {nameOf(seen.Homes[0])} is");
                // Who only uses a region, and has not made it, is not told where its mirrors are.
                else if (node == region.Creator && mirror != (seen.Mirrors.Count == 0 ? None : seen.Mirrors[0]))
                    Add("home-map", extent, $"{nameOf(node)} takes {Name(mirror)} for its mirror, and {Name(seen.Mirrors.Count == 0 ? None : seen.Mirrors[0])} is");
            }
            if (node != region.Creator) continue;
            foreach ((uint extent, var seen) in at)
            {
                if (!known.ContainsKey(extent) && !moving.Contains(extent))
                    Add("reservation", extent, $"{string.Join(" and ", seen.Homes.Concat(seen.Mirrors).Select(nameOf))} has it reserved, and {nameOf(node)}, which made the region, has not");
            }
        }

        string Name(ushort node) => node == None ? "none" : nameOf(node);
        void Add(string what, uint extent, string text) => findings.Add(new AuditFinding(what, first.Name, extent, null, text));
    }
}
