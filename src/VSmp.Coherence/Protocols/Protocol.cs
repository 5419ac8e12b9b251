// SPDX-License-Identifier: Apache-2.0
using VSmp.Coherence.Lazy;

namespace VSmp.Coherence.Protocols;

/// <summary>A coherence protocol: what a node does and what a home does, each as one whole table. Every region has one.</summary>
/// <param name="name">What users call it: lower case.</param>
/// <param name="node">The node's side.</param>
/// <param name="directory">The home's side.</param>
public sealed class Protocol(
    string name,
    ProtocolTable<NodeState, NodeEvent, NodeAction> node,
    ProtocolTable<DirectoryState, DirectoryEvent, DirectoryAction> directory)
{
    /// <summary>What users call it.</summary>
    public string Name { get; } = name;

    /// <summary>The node's side.</summary>
    public ProtocolTable<NodeState, NodeEvent, NodeAction> Node { get; } = node;

    /// <summary>The home's side.</summary>
    public ProtocolTable<DirectoryState, DirectoryEvent, DirectoryAction> Directory { get; } = directory;
}

/// <summary>The protocols that there are.</summary>
public static class ProtocolCatalog
{
    /// <summary>What users call them, the default first: those that keep single writers, and the lazy one.</summary>
    public static IReadOnlyList<string> Names => [.. All.Select(p => p.Name), LazyRelease.Name];

    /// <summary>Those that keep single writers, the default first.</summary>
    public static IReadOnlyList<Protocol> All { get; private set; } = [Msi.Protocol, Mesi.Protocol, Moesi.Protocol];

    /// <summary>
    /// Puts a protocol in the place of the one with its name, for this process: how an agent that tests start gets a planted bug. Nothing
    /// that is shipped calls it.
    /// </summary>
    internal static void Replace(Protocol protocol) => All = [.. All.Select(p => p.Name == protocol.Name ? protocol : p)];

    /// <summary>The protocol of that name, or null.</summary>
    public static Protocol? Find(string name) => All.FirstOrDefault(p => string.Equals(p.Name, name, StringComparison.Ordinal));
}
