// SPDX-License-Identifier: Apache-2.0
using VSmp.Agent;
using VSmp.Coherence.Protocols;

namespace VSmp.Bench.Litmus;

/// <summary>
/// Real agents with a bug in their protocol, for showing that litmus tests find one. <c>vsmp-bench planted up …</c> is <c>vsmp up …</c>, whose
/// agents are started as <c>vsmp-bench agent --cluster …</c>: the shipped agent in this process, with one cell of one table changed. The
/// shipped command has no such switch.
/// </summary>
internal static class PlantedCluster
{
    /// <summary>What the bug is, for people.</summary>
    public const string Description = "msi, but a node that invalidates its copy leaves it mapped";

    /// <summary>Whether arguments are meant for such a cluster. <c>vsmp up</c> names its agents' cluster first; <c>vsmp-bench agent</c>, which measures, takes none.</summary>
    public static bool IsFor(string[] arguments) => arguments is ["planted", ..] or ["agent", "--cluster", ..];

    /// <summary>Runs a command of vsmp with the bug.</summary>
    public static int Run(string[] arguments)
    {
        Protocol msi = Msi.Protocol;
        ProtocolCatalog.Replace(new Protocol(msi.Name,
            msi.Node.With(NodeState.S, NodeEvent.Inv, NodeState.I, NodeAction.SendInvAck), msi.Directory));
        return Agent.Cli.CommandLine.Run(arguments[0] == "planted" ? arguments[1..] : arguments, AgentHost.RunAsync);
    }
}
