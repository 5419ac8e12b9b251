// SPDX-License-Identifier: Apache-2.0
using System.Text;
using System.Xml.Linq;
using VSmp.Coherence.Lazy;
using VSmp.Coherence.Protocols;

namespace VSmp.Coherence.Tests.Protocols;

/// <summary>A protocol's page in the documentation: its tables, and what their words mean, out of the comments in the code.</summary>
internal static class PrintedProtocol
{
    private static readonly Dictionary<string, XElement> Comments =
        XDocument.Load(Path.ChangeExtension(typeof(Protocol).Assembly.Location, ".xml")).Descendants("member")
            .ToDictionary(m => m.Attribute("name")!.Value, m => m.Element("summary")!);

    public static string Of(Protocol protocol)
    {
        string file = char.ToUpperInvariant(protocol.Name[0]) + protocol.Name[1..];
        StringBuilder text = Begin(protocol.Name.ToUpperInvariant(), "Protocols", file);
        Print(text, "At a node", protocol.Node);
        text.Append('\n');
        Print(text, "At the home", protocol.Directory);
        return text.ToString();
    }

    public static string OfLazyRelease()
    {
        StringBuilder text = Begin("Lazy release consistency", "Lazy", nameof(LazyRelease));
        Print(text, "At a node", LazyRelease.Node);
        return text.Append("\nA home needs no table: it answers a GetS with its copy and merges a Diff into it, both at once.\n").ToString();
    }

    private static StringBuilder Begin(string title, string folder, string file) => new StringBuilder($"# {title}\n\n")
        .Append($"Printed by `make docs` from `src/VSmp.Coherence/{folder}/{file}.cs`; a test fails when the two differ.\n\n")
        .Append(TextOf($"T:VSmp.Coherence.{folder}.{file}")).Append("\n\n")
        .Append("A cell says what is done and, behind the arrow, the next state; a dash is nothing; *stall*: the event waits. ")
        .Append("Empty cells cannot happen.\n\n");

    private static void Print<TState, TEvent, TAction>(StringBuilder text, string title, ProtocolTable<TState, TEvent, TAction> table)
        where TState : struct, Enum
        where TEvent : struct, Enum
        where TAction : struct, Enum
    {
        text.Append($"## {title}\n\n").Append(table.ToMarkdown());
        Legend(text, "state", table.States);
        Legend(text, "event", table.Events);
        Legend(text, "action", Enum.GetValues<TAction>()
            .Where(a => table.States.Any(s => table.Events.Any(e => table[s, e].Actions.Contains(a)))));
    }

    private static void Legend<T>(StringBuilder text, string title, IEnumerable<T> words)
        where T : struct, Enum
    {
        text.Append($"\n| {title} | |\n|---|---|\n");
        foreach (T word in words) text.Append($"| {word} | {TextOf($"F:{typeof(T).FullName}.{word}")} |\n");
    }

    private static string TextOf(string member)
    {
        string text = string.Concat(Comments[member].Nodes().Select(n => n is XElement e
            ? e.Attribute("cref")?.Value.Split('.')[^1] ?? e.Value
            : ((XText)n).Value));
        return string.Join(' ', text.Split((char[]?)null, StringSplitOptions.RemoveEmptyEntries));
    }
}
