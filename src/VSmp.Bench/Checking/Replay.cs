// SPDX-License-Identifier: Apache-2.0
using System.Text;
using VSmp.Coherence;
using VSmp.Coherence.Homes;
using VSmp.Coherence.Messages;
using VSmp.Coherence.Nodes;

namespace VSmp.Bench.Checking;

/// <summary>A way through the states, told step by step.</summary>
internal static class Replay
{
    /// <summary>
    /// Goes the way to a violation again. The search renames nodes wherever that makes no difference; here each keeps its name.
    /// </summary>
    /// <returns>A line or a few per step; the last says what is wrong.</returns>
    public static IReadOnlyList<string> Tell(Scenario scenario, Violation violation)
    {
        IReadOnlyList<Move> path = violation.Path;
        var lines = new List<string>();
        var renamed = new World(scenario);
        var renamedCodec = new WorldCodec(renamed);
        var told = new World(scenario) { Story = [] };
        var toldCodec = new WorldCodec(told);
        byte[] names = [.. Enumerable.Range(0, scenario.Nodes + 1).Select(n => (byte)n)]; // the search's name → the first name; a bystander keeps its own
        byte[] state = renamedCodec.Save().ToArray();
        for (int i = 0; i < path.Count; i++)
        {
            Move move = path[i].Rename(names);
            told.Story.Clear();
            toldCodec.Load(toldCodec.SaveAsIs()); // leaves out what the search leaves out
            string before = States(told);
            string what = Describe(told, move);
            string? wrong = null;
            try { told.Do(move); }
            catch (Exception e) when (e is InvariantException or ProtocolViolationException or InvalidOperationException) { wrong = e.Message; }
            lines.Add($"{i + 1,3}. {what}");
            lines.AddRange(told.Story.Select(s => $"       {s}"));
            string after = States(told);
            if (after != before) lines.Add($"     = {after}");
            if (wrong is not null)
            {
                lines.Add($"  !  {wrong}");
                return lines;
            }
            renamedCodec.Load(state);
            renamed.Do(path[i]);
            state = renamedCodec.Save().ToArray();
            byte[] next = [.. names];
            for (int n = 0; n < scenario.Nodes; n++) next[renamedCodec.Order[n]] = names[n];
            names = next;
        }
        lines.Add($"  !  {violation.What}"); // not one step's doing
        return lines;
    }

    private static string Describe(World world, Move move)
    {
        string mapping = world.Scenario.Mappings > 1 ? $", mapping {move.Mapping}" : "";
        string ahead = $"{move.Page} and asks for page {move.Page + 1} as well";
        return move.Kind switch
        {
            MoveKind.WriteHit => $"node {move.Node} writes to page {move.Page}{mapping}, unnoticed",
            MoveKind.ReadFault => $"node {move.Node} faults, reading page {move.Page}{mapping}",
            MoveKind.WriteFault => $"node {move.Node} faults, writing to page {move.Page}{mapping}",
            MoveKind.ReadFaultAhead => $"node {move.Node} faults, reading page {ahead}{mapping}",
            MoveKind.WriteFaultAhead => $"node {move.Node} faults, writing to page {ahead}{mapping}",
            MoveKind.Evict => $"node {move.Node} evicts page {move.Page}",
            MoveKind.Discard => $"node {move.Node} throws page {move.Page} away",
            MoveKind.Crash => $"node {move.Node} is lost",
            MoveKind.Restart => $"node {move.Node}'s agent is killed",
            MoveKind.Learn => $"node {move.Node} learns who is lost",
            MoveKind.MoveHome => $"node {move.Node} has the home change places with its mirror",
            MoveKind.CopyToMirror => $"node {move.Node} copies page {move.Page} to the mirror",
            MoveKind.CheckpointBegin => "a checkpoint begins, and all nodes prepare",
            MoveKind.CheckpointStep => $"node {move.Node} goes on with the checkpoint{(world.Led is { } led ? $", which is at {led.Step}" : ", which was given up")}",
            MoveKind.CheckpointCopy => $"node {move.Node} copies page {move.Page} for the checkpoint",
            MoveKind.CheckpointCommit => "the checkpoint is complete",
            MoveKind.CheckpointGiveUp => "the checkpoint is given up",
            MoveKind.Unhold => $"node {move.Node} holds page {move.Page} no longer",
            _ => DescribeDelivery(world, move),
        };
    }

    private static string DescribeDelivery(World world, Move move)
    {
        List<Flight> wire = world.Wires[world.WireOf(move.Node, move.Page, move.Mapping)];
        Message message = wire[move.Kind == MoveKind.DeliverSecond ? 1 : 0].Message;
        string how = move.Kind switch
        {
            MoveKind.DeliverHeld => ", and the page is held there",
            MoveKind.DeliverFirst => ", its first page alone",
            MoveKind.DeliverFirstHeld => ", its first page alone, and that is held there",
            MoveKind.DeliverRefused => ", and the kernel refuses to map it",
            MoveKind.DeliverSecond => ", ahead of its turn",
            MoveKind.DeliverTwice => ", for the first time of two",
            _ => "",
        };
        return move.Kind == MoveKind.Lose ? $"{message} is lost on its way to node {move.Page}" : $"{message} arrives at node {move.Page}{how}";
    }

    private static string States(World world)
    {
        var text = new StringBuilder();
        for (int page = 0; page < world.Scenario.Pages; page++)
        {
            var at = new PageNumber((ulong)page);
            text.Append(text.Length > 0 ? "; " : "").Append("page ").Append(page).Append(": home ");
            if (world.HomeNode < 0)
            {
                text.Append("lost");
            }
            else
            {
                DirectoryEntry entry = world.Regions[world.HomeNode].EntryAt(at);
                if (world.HomeNode > 0) text.Append("at node ").Append(world.HomeNode).Append(' ');
                text.Append(entry.State);
                if (!entry.Owner.IsNone) text.Append(" of ").Append(entry.Owner.Value);
            }
            for (int node = 0; node < world.Scenario.Nodes; node++)
            {
                if (!world.IsUsing(node)) continue;
                PageEntry here = world.Regions[node].PageAt(at);
                text.Append(", node ").Append(node).Append(' ').Append(here.State);
                if ((here.Flags & PageFlags.Held) != 0) text.Append(" held");
                if (world.Regions[node].Capture is not { } capture || !capture.IsSaved(at)) continue;
                text.Append(capture.IsPending(at) ? " pending" : " saved");
            }
        }
        return text.ToString();
    }
}
