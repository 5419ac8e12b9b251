// SPDX-License-Identifier: Apache-2.0
using System.Buffers.Binary;
using System.CommandLine;
using System.Diagnostics;
using System.Globalization;
using System.Text.Json;
using VSmp.Agent.Auditing;
using VSmp.Agent.Control;
using VSmp.Coherence;

namespace VSmp.Agent.Cli;

/// <summary><c>vsmp audit</c>: whether what the nodes of a live cluster have of its pages fits together.</summary>
internal static class AuditCommand
{
    /// <summary>Extents that a node is asked for at a time: a millisecond or two of its attention.</summary>
    private const uint ExtentsAtATime = 8;

    /// <summary>How many more times something must be seen, unchanged, before it counts.</summary>
    private const int MoreLooks = 4;

    private static readonly TimeSpan BetweenLooks = TimeSpan.FromMilliseconds(250);

    /// <summary>The command.</summary>
    public static Command New()
    {
        Option<bool> json = new("--json") { Description = "As JSON" };
        Command command = CommandLine.NewCommand("audit",
            "Check a live cluster, while guests run: that every page has one home and one owner at most, that directories and mirrors have what they should, that "
            + "home maps agree, and that memory is accounted for. What looks wrong is looked at again, and counts only if it stays as it is.",
            "vsmp audit", "vsmp audit --json | jq .findings");
        command.Options.Add(json);
        command.SetAction(parsed => Run(parsed.GetValue(CommandLine.ClusterOption)!, parsed.GetValue(json)));
        return command;
    }

    private static int Run(string cluster, bool asJson)
    {
        using ControlClient client = LocalAgents.ConnectToAny(LocalAgents.Running(cluster));
        var watch = Stopwatch.StartNew();
        IReadOnlyList<NodeStatus> nodes = client.GetStatus().Nodes;
        var look = new Look(client, nodes);
        List<AuditFinding> findings = look.All();
        AuditReport report = new() { Pages = look.Pages, Regions = look.Regions, Skipped = look.Skipped, Nodes = nodes.Count };
        for (int again = 0; again < MoreLooks && findings.Count > 0; again++)
        {
            Thread.Sleep(BetweenLooks);
            HashSet<AuditFinding> still = [.. look.At(findings)];
            findings.RemoveAll(finding => !still.Contains(finding));
        }
        report = report with { Seconds = Math.Round(watch.Elapsed.TotalSeconds, 3), Findings = findings };
        if (asJson) Output.Line(JsonSerializer.Serialize(report, ReportJson.Default.AuditReport));
        else Show(report);
        return findings.Count == 0 ? ExitCodes.Ok : ExitCodes.Unsound;
    }

    private static void Show(AuditReport report)
    {
        string skipped = report.Skipped == 0 ? "" : $" ({report.Skipped} under lazy release consistency have no directories to check)";
        Output.Line(string.Create(CultureInfo.InvariantCulture,
            $"{report.Pages} pages of {report.Regions} regions{skipped} on {report.Nodes} nodes checked in {report.Seconds:0.0} s: "
            + $"{(report.Findings.Count == 0 ? "all is as it should be" : $"{report.Findings.Count} findings")}"));
        if (report.Findings.Count == 0) return;
        Table table = new(new("what"), new("region"), new("extent", true), new("page", true), new("seen"));
        foreach (AuditFinding f in report.Findings)
        {
            table.Add(f.What, f.Region ?? "-", f.Extent?.ToString(CultureInfo.InvariantCulture) ?? "-", f.Page?.ToString(CultureInfo.InvariantCulture) ?? "-", f.Text);
        }
        table.Write();
    }

    /// <summary>Asks the nodes.</summary>
    private sealed class Look
    {
        private readonly ControlClient _client;
        private readonly Dictionary<ushort, string> _names;
        private readonly Auditor _auditor;

        public Look(ControlClient client, IReadOnlyList<NodeStatus> nodes)
        {
            _client = client;
            _names = nodes.ToDictionary(node => node.Id, node => node.Name);
            _auditor = new Auditor(node => _names.GetValueOrDefault(node, $"node {node}"));
        }

        public ulong Pages { get; private set; }
        public int Regions { get; private set; }
        public int Skipped { get; private set; }

        /// <summary>At everything.</summary>
        public List<AuditFinding> All()
        {
            NodeAudit[] nodes = AskNodes();
            List<AuditFinding> findings = _auditor.CompareNodes(nodes);
            foreach (var parts in RegionsOf(nodes))
            {
                Regions++;
                if (!parts.All(p => p.Region.HasDirectory)) Skipped++;
                else ComparePages(parts, [.. ExtentsOf(parts).Select(e => e / ExtentsAtATime).Distinct()], findings);
            }
            return findings;
        }

        /// <summary>Again at where something seemed wrong.</summary>
        public List<AuditFinding> At(List<AuditFinding> suspects)
        {
            NodeAudit[] nodes = AskNodes();
            List<AuditFinding> findings = _auditor.CompareNodes(nodes);
            foreach (var parts in RegionsOf(nodes).Where(p => p.All(part => part.Region.HasDirectory)))
            {
                ComparePages(parts, [.. suspects.Where(s => s.Page is not null && s.Region == parts[0].Region.Name).Select(s => s.Extent!.Value / ExtentsAtATime).Distinct()], findings);
            }
            return findings;
        }

        private NodeAudit[] AskNodes() =>
            [.. _names.Values.Select(name => JsonSerializer.Deserialize(_client.AskNode(name, NodeQuestion.AuditNode), ControlJson.Default.NodeAudit)!)];

        private static (ushort Node, RegionAudit Region)[][] RegionsOf(NodeAudit[] nodes) =>
            [.. nodes.SelectMany(node => node.Regions.Select(region => (node.Node, Region: region))).GroupBy(r => r.Region.Id).Select(g => g.ToArray())];

        private static IEnumerable<uint> ExtentsOf((ushort Node, RegionAudit Region)[] parts) =>
            parts.SelectMany(p => ExtentRun.Each(p.Region.Homes).Concat(ExtentRun.Each(p.Region.Mirrors))).Select(e => e.Extent);

        private void ComparePages((ushort Node, RegionAudit Region)[] parts, uint[] pieces, List<AuditFinding> findings)
        {
            HashSet<uint> moving = [.. parts.SelectMany(p => ExtentRun.Each(p.Region.Moving)).Select(e => e.Extent)];
            var mirrors = parts.SelectMany(p => ExtentRun.Each(p.Region.Homes)).Where(e => e.Mirror != NodeId.None.Value && !moving.Contains(e.Extent))
                .GroupBy(e => e.Extent).ToDictionary(g => g.Key, g => g.First().Mirror);
            foreach (uint piece in pieces.Order())
            {
                byte[] question = new byte[16];
                BinaryPrimitives.WriteUInt64LittleEndian(question, parts[0].Region.Id);
                BinaryPrimitives.WriteUInt32LittleEndian(question.AsSpan(8), piece * ExtentsAtATime);
                BinaryPrimitives.WriteUInt32LittleEndian(question.AsSpan(12), ExtentsAtATime);
                var pages = new List<PagesAudit>();
                foreach ((ushort node, RegionAudit _) in parts)
                {
                    byte[] answer = _client.AskNode(_names[node], NodeQuestion.AuditPages, question);
                    if (answer.Length > 0) pages.Add(PagesAudit.Read(new NodeId(node), answer));
                }
                if (pages.Count < parts.Length) continue; // the region is being dropped
                Pages += _auditor.ComparePages(parts[0].Region.Name, pages, extent => mirrors.TryGetValue(extent, out ushort mirror) ? mirror : null, findings);
            }
        }
    }
}

/// <summary>What an audit has found, as <c>--json</c> writes it.</summary>
internal sealed record AuditReport
{
    /// <summary>Pages that some node has something of.</summary>
    public ulong Pages { get; init; }
    public int Regions { get; init; }

    /// <summary>Of these, regions that no directory keeps coherent: of them only homes and accounts are checked.</summary>
    public int Skipped { get; init; }
    public int Nodes { get; init; }
    public double Seconds { get; init; }
    public IReadOnlyList<AuditFinding> Findings { get; init; } = [];
}
