// SPDX-License-Identifier: Apache-2.0
using System.CommandLine;
using System.Globalization;
using VSmp.Agent.Control;
using VSmp.Coherence;

namespace VSmp.Agent.Cli;

/// <summary><c>vsmp report</c>: what happened that should not have.</summary>
internal static class ReportCommand
{
    /// <summary>Pieces that are named one by one; of more only the number is.</summary>
    private const int PiecesShown = 4;

    /// <summary>The command.</summary>
    public static Command New()
    {
        Command lost = CommandLine.NewCommand("lost",
            "List the memory of this host's processes that was lost with nodes. A process goes on until it touches it, and gets SIGBUS then.",
            "vsmp report lost");
        lost.SetAction(parsed => Lost(parsed.GetValue(CommandLine.ClusterOption)!));
        Command command = CommandLine.NewCommand("report", "What happened that should not have.", "vsmp report lost");
        command.Subcommands.Add(lost);
        return command;
    }

    private static int Lost(string cluster)
    {
        Table table = new(new("node"), new("pid", true), new("program"), new("region"), new("lost with"), new("lost", true), new("pages"));
        foreach (AgentFolder agent in LocalAgents.RunningAll(cluster))
        {
            using ControlClient client = ControlClient.Connect(agent);
            foreach (LossStatus loss in client.GetLosses())
            {
                ulong pages = loss.Pages.Aggregate(0ul, (sum, span) => sum + span.Count);
                table.Add(agent.Name, loss.ProcessId == 0 ? "-" : loss.ProcessId.ToString(CultureInfo.InvariantCulture), loss.Program, loss.Region, loss.Nodes,
                    Sizes.Format(pages * PageNumber.Bytes), Pieces(loss.Pages));
            }
        }
        table.Write();
        return ExitCodes.Ok;
    }

    private static string Pieces(IReadOnlyList<PageSpan> spans)
    {
        string text = string.Join(", ", spans.Take(PiecesShown).Select(span => span.Count == 1 ? $"{span.First}" : $"{span.First}-{span.First + span.Count - 1}"));
        return spans.Count <= PiecesShown ? text : $"{text}, … ({spans.Count} pieces)";
    }
}
